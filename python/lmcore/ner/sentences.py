"""Sentences with entities, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(kw_only=True, slots=True, frozen=True)
class Sentence:
    """The words of a sentence and what they are.

    Example:
        >>> Sentence(words=("Ada", "ran"), labels=("B-person", "O"), types=("person",)).dataset
        ''
    """

    words: tuple[str, ...]
    """The n words."""
    labels: tuple[str, ...]
    """n BIO labels: `O`, `B-<type>` or `I-<type>`, each `I-` behind one of its type."""
    types: tuple[str, ...]
    """What entities may be."""
    dataset: str = ""
    """The name of the data set."""
    id: str | None = None
    """What the source calls the sentence, if it does."""
    text: str | None = None
    """The text that the words were cut from, if there is one."""
    window: dict[str, int] | None = None
    """Where the words stand in a longer sentence: `start`, `stop`, `of`, `sentence`."""
    extra: dict[str, Any] = field(default_factory=dict)
    """What else the source says, and the row shall keep."""
