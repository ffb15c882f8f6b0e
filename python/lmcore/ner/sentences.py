"""Sentences with entities, whatever file they came from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmcore.ner.labels import LabelReader, check_types


class Sentence(NamedTuple):
    """The words of a sentence and what they are; `make_sentence` makes one that is checked.

    Example:
        >>> Sentence(["Ada", "ran"], ["B-person", "O"], ["person"]).dataset
        ''
    """

    words: Sequence[str]
    """The n words."""
    labels: Sequence[str]
    """n BIO labels: `O`, `B-<type>` or `I-<type>`, each `I-` behind one of its type."""
    types: Sequence[str]
    """What entities may be."""
    dataset: str = ""
    """The name of the data set."""
    id: str | None = None
    """What the source calls the sentence, if it does."""
    text: str | None = None
    """The text that the words were cut from, if there is one."""
    offsets: Sequence[tuple[int, int]] | None = None
    """Where the words stand in the text, in characters; there if it is."""


def make_sentence(
    words: Sequence[str],
    labels: Sequence[str],
    types: Sequence[str],
    *,
    dataset: str = "",
    id: str | None = None,  # noqa: A002 - the key of a row
    reader: LabelReader | None = None,
) -> Sentence:
    """Returns a sentence that was checked, with BIO labels.

    Args:
        words: n words.
        labels: n labels, as `LabelReader` reads them.
        types: what entities may be.
        dataset: the name of the data set.
        id: what the source calls it.
        reader: counts the labels that were repaired.

    Raises:
        TypeError: a word, label or type is no str.
        ValueError: there are no words or types, the lengths differ, or one of them cannot be
            used; the text says which.

    Example:
        >>> make_sentence(["New", "York"], ["I-city", "I-city"], ["city"]).labels
        ['B-city', 'I-city']
    """
    check_words(words)
    if len(words) != len(labels):
        raise ValueError(
            f"labels must have the same length as words: got {len(labels)} and {len(words)}"
        )
    read = (LabelReader() if reader is None else reader).read(labels)
    check_types(types)
    check_labels(read, types)
    return Sentence(words, read, types, dataset, id)


def check_words(words: Sequence[str]) -> None:
    """Raises ValueError unless there are words, and each can be read back from a target.

    Args:
        words: n words.

    Raises:
        TypeError: they are no sequence of str.
        ValueError: there are none, or one is blank or has white space around it.

    Example:
        >>> check_words(["New York", " "])
        Traceback (most recent call last):
        ValueError: word 2 must not be blank, or begin or end with white space: got ' '
    """
    if isinstance(words, str):
        raise TypeError(f"words must be a sequence of str: got one str, {words!r:.60}")
    if not words:
        raise ValueError("the sentence holds no words")
    for number, word in enumerate(words, 1):
        if not isinstance(word, str):
            raise TypeError(f"word {number} must be a str: got {type(word).__name__}")
        if not word or word[0].isspace() or word[-1].isspace():
            raise ValueError(
                f"word {number} must not be blank, or begin or end with white space: "
                f"got {word!r:.60}"
            )


def check_labels(labels: Sequence[str], types: Sequence[str]) -> None:
    """Raises ValueError unless the BIO labels are of these types.

    Args:
        labels: n BIO labels.
        types: what entities may be.

    Raises:
        ValueError: a label is of another type; the text says which word's.

    Example:
        >>> check_labels(["O", "B-city"], ["person"])
        Traceback (most recent call last):
        ValueError: label of word 2, 'B-city', is of none of the types: person
    """
    known = {"O", *(f"B-{name}" for name in types), *(f"I-{name}" for name in types)}
    if known.issuperset(labels):
        return
    number, label = next((n, label) for n, label in enumerate(labels, 1) if label not in known)
    shown = ", ".join(types)
    shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
    raise ValueError(f"label of word {number}, {label!r:.60}, is of none of the types: {shown}")
