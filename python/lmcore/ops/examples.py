"""Labelled sentences as the rows that a model is trained with, in JSON."""

from __future__ import annotations

from collections.abc import Sequence

from lmcore import _core
from lmcore.ops._threads import limit_threads


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
    threads: int | None = None,
) -> tuple[bytes, int]:
    r"""Returns the rows of sentences as lines, and how many hold a word that reads as a label.

    Source: GNER (arXiv 2402.16602), its prompt, and section 5.1 for the context.

    Args:
        heads: members that stand before all others, in JSON, one text for each sentence.
        types: what the entities of each sentence may be, in the order of its instruction.
        words: those of each sentence.
        labels: `O`, or with a prefix such as `B-person`, one for each word.
        template: text, and `types`, `sentence` or `dataset`, in turns.
        target_labels: those of the target, if they are written in another way.
        datasets: a name for each sentence, for a place `dataset`.
        context: words labelled `O` which a target keeps on each side of an entity; None for all.
        threads: number of threads; all cores if None. The rows are the same for any number.

    Returns:
        UTF-8 of a line for each sentence: `{head, "types": ..., "words": ..., "labels": ...,
        "instruction": ..., "target": ...}`. Characters that act on a terminal are escaped, others
        stand as they are.

    Raises:
        TypeError: an argument has another type.
        ValueError: the sequences differ in length, a place has another name, names of data sets
            are missing, or a text holds a lone surrogate.

    Example:
        >>> lines, _ = write_examples_batch(
        ...     ['"id": 1'], [["x"]], [["a"]], [["B-x"]], ["", "sentence", "?"]
        ... )
        >>> lines.decode().partition(', "words"')[0]
        '{"id": 1, "types": ["x"]'
        >>> lines.decode().partition('"B-x"], ')[2]
        '"instruction": "a?", "target": "a(B-x)"}\n'
    """
    limit = limit_threads(threads)
    return _core.write_examples_batch(
        heads, types, words, labels, target_labels, datasets, template, context, limit
    )
