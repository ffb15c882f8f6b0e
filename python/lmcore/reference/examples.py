"""Labelled sentences as the rows that a model is trained with, in JSON.

A row holds the types that it names, its words and labels, the instruction that asks for labels,
and the target that answers: `word_1(label_1) word_2(label_2) ...`. Of the words that are no
entity, a target keeps those that stand nearest to one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence, Sized

from ._arguments import check_int, same_length

# What acts on a terminal: control characters, what ends a line, and marks that change the
# direction of writing.
_HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_READS_AS_LABEL = re.compile(r"\(B-|\(I-|\(O\)")
_PLACES = ("types", "sentence", "dataset")


def write_examples_batch(
    heads: Sequence[str],
    types: Sequence[Sequence[str]],
    words: Sequence[Sequence[str]],
    labels: Sequence[Sequence[str]],
    template: Sequence[str],
    *,
    target_labels: Sequence[Sequence[str]] | None = None,
    datasets: Sequence[str] | None = None,
    context: int | None = None,
) -> tuple[bytes, int]:
    r"""Returns the rows of sentences as lines, and how many hold a word that reads as a label.

    Args:
        heads: members that stand before all others, in JSON, one text for each sentence.
        types: what the entities of each sentence may be, in the order of its instruction.
        words: those of each sentence.
        labels: `O`, or with a prefix such as `B-person`, one for each word.
        template: text, and `types`, `sentence` or `dataset`, in turns.
        target_labels: those of the target, if they are written in another way.
        datasets: a name for each sentence, for a place `dataset`.
        context: words labelled `O` which a target keeps on each side of an entity; None for all.

    Returns:
        UTF-8 of a line for each sentence: `{head, "types": ..., "words": ..., "labels": ...,
        "instruction": ..., "target": ...}`. Characters that act on a terminal are escaped, others
        stand as they are.

    Raises:
        ValueError: the sequences differ in length, a place has another name, or names of data sets
            are missing.

    Example:
        >>> lines, _ = write_examples_batch(
        ...     ['"id": 1'], [["x"]], [["a"]], [["B-x"]], ["", "sentence", "?"]
        ... )
        >>> lines.decode().partition(', "words"')[0]
        '{"id": 1, "types": ["x"]'
        >>> lines.decode().partition('"B-x"], ')[2]
        '"instruction": "a?", "target": "a(B-x)"}\n'
    """
    if context is not None:
        check_int("context", context, 0)
    columns: dict[str, Sized] = {"heads": heads, "types": types, "labels": labels}
    columns |= {} if target_labels is None else {"target_labels": target_labels}
    columns |= {} if datasets is None else {"datasets": datasets}
    for name, column in columns.items():
        same_length(**{name: column, "words": words})
    for index, place in enumerate(template):
        if index % 2 and place not in _PLACES:
            raise ValueError(f"template[{index}] must be types, sentence or dataset: got {place!r}")
        if index % 2 and place == "dataset" and datasets is None:
            raise ValueError("datasets must be given: the template has a place for them")
    lines = ""
    for row, sentence in enumerate(words):
        written = labels[row] if target_labels is None else target_labels[row]
        try:
            same_length(labels=labels[row], words=sentence)
            same_length(target_labels=written, words=sentence)
        except ValueError as error:
            raise ValueError(f"sentence [{row}]: {error}") from None
        filled = {
            "types": ", ".join(types[row]),
            "sentence": " ".join(sentence),
            "dataset": "" if datasets is None else datasets[row],
        }
        parts = [filled[part] if index % 2 else part for index, part in enumerate(template)]
        members = {
            "types": [*types[row]],
            "words": [*sentence],
            "labels": [*labels[row]],
            "instruction": "".join(parts),
            "target": write_target(sentence, written, context),
        }
        head = f"{heads[row]}, " if heads[row] else ""
        lines += f"{{{head}{_to_json(members)[1:]}\n"
    return lines.encode(), sum(any(map(_READS_AS_LABEL.search, sentence)) for sentence in words)


def write_target(words: Sequence[str], labels: Sequence[str], context: int | None) -> str:
    """Returns what a model shall answer.

    Args:
        words: n words.
        labels: n labels.
        context: as for `write_examples_batch`.

    Example:
        >>> write_target(["Then", "Ada", "ran", "home"], ["O", "B-person", "O", "O"], 1)
        'Then(O) Ada(B-person) ran(O)'
    """
    entities = [index for index, label in enumerate(labels) if label != "O"]

    def is_kept(index: int) -> bool:
        if context is None or labels[index] != "O":
            return True
        # Of the words that are no entity, those between it and the next one count.
        before = max((entity for entity in entities if entity < index), default=-len(words) - 1)
        behind = min((entity for entity in entities if entity > index), default=2 * len(words) + 1)
        return (before >= 0 and index - before <= context) or (
            behind < len(words) and behind - index <= context
        )

    return " ".join(f"{words[i]}({labels[i]})" for i in range(len(words)) if is_kept(i))


def _to_json(value: Mapping[str, object]) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _HIDDEN.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
