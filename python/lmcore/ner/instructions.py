"""Instructions that ask for labelled words, and the targets that answer them (GNER)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

INSTRUCTION = """\
Please analyze the sentence provided, identifying the type of entity for each word on a \
token-by-token basis.
Output format is: word_1(label_1), word_2(label_2), ...
We'll use the BIO-format to label the entities, where:
1. B- (Begin) indicates the start of a named entity.
2. I- (Inside) is used for words within a named entity but are not the first word.
3. O (Outside) denotes words that are not part of a named entity.

Use the specific entity tags: {types} and O.
Dataset: {dataset}.
Sentence: {sentence}"""
"""The instruction that the released checkpoints were trained with, as a template.

Another wording costs them F1. A line that holds `{dataset}` is left out where no name is given.
"""

BIOES_INSTRUCTION = """\
Please analyze the sentence provided, identifying the type of entity for each word on a \
token-by-token basis.
Output format is: word_1(label_1), word_2(label_2), ...
We'll use the BIOES-format to label the entities, where:
1. B- (Begin) indicates the start of a named entity of several words.
2. I- (Inside) is used for words within a named entity that are neither the first nor the last.
3. E- (End) indicates the last word of a named entity of several words.
4. S- (Single) indicates a named entity of one word.
5. O (Outside) denotes words that are not part of a named entity.

Use the specific entity tags: {types} and O.
Dataset: {dataset}.
Sentence: {sentence}"""
"""The same for BIOES labels, in our words: the paper does not print its own."""

IO_INSTRUCTION = """\
Please analyze the sentence provided, identifying the type of entity for each word on a \
token-by-token basis.
Output format is: word_1(label_1), word_2(label_2), ...
We'll use the IO-format to label the entities, where:
1. I- (Inside) is used for words that are part of a named entity.
2. O (Outside) denotes words that are not part of a named entity.

Use the specific entity tags: {types} and O.
Dataset: {dataset}.
Sentence: {sentence}"""
"""The same for IO labels, in our words: the paper does not print its own."""

INSTRUCTIONS = {"bio": INSTRUCTION, "bioes": BIOES_INSTRUCTION, "io": IO_INSTRUCTION}
"""The instruction for each way of writing labels."""

Context = int | str
"""How many `O` words are kept on each side of an entity, or `all`."""

_SLOT = re.compile(r"\{(types|dataset|sentence)\}")


def write_instruction(
    words: Sequence[str],
    types: Sequence[str],
    *,
    dataset: str | None = None,
    template: str | None = None,
) -> str:
    r"""Returns what a model is asked: the instruction, the types, and the sentence.

    Source: GNER (arXiv 2402.16602), its prompt; the wording is that of the released checkpoints.

    Args:
        words: the n words of the sentence.
        types: what entities may be, in the order in which they shall be named.
        dataset: the name of the data set, for a line of its own; None leaves the line out.
        template: another wording: `{types}` and `{sentence}` stand where these go, and
            `{dataset}` in a line that is left out where no name is given.

    Raises:
        TypeError: words or types are one str.
        ValueError: there are no types, or the template lacks `{types}` or `{sentence}` or holds
            one twice.

    Example:
        >>> print(write_instruction(["Ada", "ran"], ["city", "person"]).partition("\n\n")[2])
        Use the specific entity tags: city, person and O.
        Sentence: Ada ran
        >>> write_instruction(["爱达"], ["人"], template="标签：{types}。句子：{sentence}")
        '标签：人。句子：爱达'
    """
    for name, value in (("words", words), ("types", types)):
        if isinstance(value, str):
            raise TypeError(f"{name} must be a sequence of str: got one str, {value!r:.60}")
    if not types:
        raise ValueError("types must name at least one entity type: got none")
    return read_template(INSTRUCTION if template is None else template).fill(words, types, dataset)


def write_target(words: Sequence[str], labels: Sequence[str], *, context: Context = "all") -> str:
    """Returns what a model shall answer: `word_1(label_1) word_2(label_2) ...`.

    Source: GNER (arXiv 2402.16602), its output format, and section 5.1 for the context.

    Args:
        words: the n words of the sentence.
        labels: n labels, `O` or with a prefix: `B-person`.
        context: of the words that are no entity, keep the nearest `context` on each side of each
            entity; `all` keeps them all, and 0 leaves the entities alone.

    Returns:
        The text; it is empty if nothing is kept.

    Raises:
        ValueError: the lengths differ, or the context is neither `all` nor a number from 0.

    Example:
        >>> words, labels = ["Then", "Ada", "ran", "home"], ["O", "B-person", "O", "O"]
        >>> write_target(words, labels)
        'Then(O) Ada(B-person) ran(O) home(O)'
        >>> write_target(words, labels, context=1)
        'Then(O) Ada(B-person) ran(O)'
        >>> write_target(words, labels, context=0)
        'Ada(B-person)'
    """
    if len(words) != len(labels):
        raise ValueError(
            f"labels must have the same length as words: got {len(labels)} and {len(words)}"
        )
    check_context(context)
    return join_target(words, labels, context)


def join_target(words: Sequence[str], labels: Sequence[str], context: Context) -> str:
    """Returns the target of words, labels and a context that were checked.

    Args:
        words: n words.
        labels: n labels.
        context: as for `write_target`.

    Example:
        >>> join_target(["Ada", "ran"], ["B-person", "O"], "all")
        'Ada(B-person) ran(O)'
    """
    if context != "all":
        kept = keep_context(labels, int(context))
        words, labels = [words[i] for i in kept], [labels[i] for i in kept]
    ends = {label: f"({label}) " for label in {*labels}}
    return join_words(words, map(ends.__getitem__, labels))


def join_words(words: Sequence[str], ends: Iterable[str]) -> str:
    """Returns words that what follows each stands behind, without the space at the end.

    Args:
        words: n words.
        ends: n texts, such as `(O) `.

    Example:
        >>> join_words(["Ada", "ran"], ["(B-person) ", "(O) "])
        'Ada(B-person) ran(O)'
    """
    # They take turns in a list; a loop over the words would take twice as long.
    parts = [""] * (2 * len(words))
    parts[::2] = words
    parts[1::2] = ends
    return "".join(parts)[:-1]


def keep_context(labels: Sequence[str], context: int) -> list[int]:
    """Returns the indices of the words that a target with that context holds, in order.

    Args:
        labels: n labels.
        context: `O` words on each side of each entity, at least 0.

    Example:
        >>> keep_context(["O", "O", "B-x", "O", "O", "O", "B-y"], 1)
        [1, 2, 3, 5, 6]
    """
    # The nearest words behind one entity that lie behind the next are nearest to that one, too:
    # a run of O words keeps its two ends, where an entity is there.
    kept: list[int] = []
    run = 0
    end = len(labels)
    while run < end:
        if labels[run] != "O":
            kept.append(run)
            run += 1
            continue
        stop = run
        while stop < end and labels[stop] == "O":
            stop += 1
        behind = min(run + context, stop) if run > 0 else run
        before = max(stop - context, behind) if stop < end else stop
        kept.extend(range(run, behind))
        kept.extend(range(before, stop))
        run = stop
    return kept


def check_context(context: object) -> None:
    """Raises ValueError unless a context is `all` or a number from 0.

    Args:
        context: as for `write_target`.

    Raises:
        ValueError: it is something else.

    Example:
        >>> check_context("none")
        Traceback (most recent call last):
        ValueError: context must be "all" or a whole number from 0: got 'none'
    """
    is_number = isinstance(context, int) and not isinstance(context, bool) and context >= 0
    if context != "all" and not is_number:
        raise ValueError(f'context must be "all" or a whole number from 0: got {context!r:.60}')


@lru_cache(maxsize=16)
def read_template(text: str) -> Template:
    """Returns a template; the same text is read once.

    Args:
        text: see `write_instruction`.

    Raises:
        ValueError: a place is missing, or stands there twice.

    Example:
        >>> read_template(INSTRUCTION) is read_template(INSTRUCTION)
        True
    """
    return Template(text)


class Template:
    """An instruction with places for the types, the data set and the sentence.

    Args:
        text: see `write_instruction`; other braces are text.

    Raises:
        ValueError: a place is missing, or stands there twice.

    Example:
        >>> Template("{sentence}: {types}?").fill(["Ada"], ["person", "city"], None)
        'Ada: person, city?'
    """

    def __init__(self, text: str) -> None:
        slots = _SLOT.findall(text)
        for slot, least in (("types", 1), ("sentence", 1), ("dataset", 0)):
            count = slots.count(slot)
            if not least <= count <= 1:
                expected = "once" if least else "at most once"
                raise ValueError(
                    f"a template must hold {{{slot}}} {expected}: got it {count} times"
                )
        self.text = text
        lines = [line for line in text.split("\n") if "{dataset}" not in line]
        unnamed = "\n".join(lines)
        if len(_SLOT.findall(unnamed)) != 2:
            raise ValueError("a template must hold {dataset} in a line of its own: it is left out")
        # Alternately what stands there and the names of the places.
        self._named, self._unnamed = (*_SLOT.split(text),), (*_SLOT.split(unnamed),)

    def fill(self, words: Sequence[str], types: Sequence[str], dataset: str | None) -> str:
        """Returns the instruction for a sentence.

        Args:
            words: of the sentence.
            types: in the order in which they shall be named.
            dataset: its name, or None.
        """
        values = {"types": ", ".join(types), "sentence": " ".join(words), "dataset": dataset or ""}
        parts = [*self.parts(with_dataset=dataset is not None)]
        parts[1::2] = [values[slot] for slot in parts[1::2]]
        return "".join(parts)

    def parts(self, *, with_dataset: bool) -> Sequence[str]:
        """Returns its text and the names of its places in turns.

        Args:
            with_dataset: whether the line stands there that names the data set.

        Example:
            >>> Template("{sentence}: {types}?").parts(with_dataset=False)
            ('', 'sentence', ': ', 'types', '?')
        """
        return self._named if with_dataset else self._unnamed
