"""Texts with entities by character offsets become words with labels."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lmcore.ops.words import locate_words, split_words

_JOINER = "\u200d"


class MarkedEntity(NamedTuple):
    """An entity of a list."""

    start: int
    """Of its first character."""
    end: int
    """Behind its last."""
    type: str


class LabelledText(NamedTuple):
    """The words of a text with their labels."""

    words: list[str]
    labels: list[str]
    offsets: list[tuple[int, int]]
    """Where the words stand, in characters."""
    cut_words: int
    """Words that were cut at the edge of an entity."""


def read_entities(text: str, entities: Any) -> list[MarkedEntity]:
    """Returns the entities of a row, in the order of the text.

    Args:
        text: the text.
        entities: objects with `start`, `end` and `type` (or `label`); offsets count characters.

    Raises:
        TypeError: the list or one of its entities has another form.
        ValueError: offsets lie outside of the text, hold nothing or cut a character, or two
            entities overlap; the text names them.

    Example:
        >>> read_entities("Ada ran", [{"start": 0, "end": 3, "type": "person"}])
        [MarkedEntity(start=0, end=3, type='person')]
    """
    if not isinstance(entities, list):
        raise TypeError(f"entities must be a list: got {type(entities).__name__}")
    marked = [_read_entity(text, number, entity) for number, entity in enumerate(entities, 1)]
    marked.sort()
    for one, other in pairwise(marked):
        if other.start < one.end:
            raise ValueError(
                f"entities overlap: {_show(text, one)} and {_show(text, other)}; labels of words "
                "can express one of them alone"
            )
    return marked


def label_text(
    text: str, entities: Sequence[MarkedEntity], words: Sequence[str] | None = None
) -> LabelledText:
    """Returns the words of a text with BIO labels.

    Args:
        text: the text.
        entities: as `read_entities` returns them.
        words: the words of the text in order, if they were cut already. Otherwise
            `lmcore.ops.words.split_words` cuts the text, and a word that an entity's edge would
            cut becomes two.

    Raises:
        TypeError: words are no sequence of str.
        ValueError: a word is not in the text, an entity holds no word, or cuts a word that was
            given.

    Example:
        >>> label_text("In EU-wide", [MarkedEntity(3, 5, "org")])
        ... # doctest: +NORMALIZE_WHITESPACE
        LabelledText(words=['In', 'EU', '-wide'], labels=['O', 'B-org', 'O'],
                     offsets=[(0, 2), (3, 5), (5, 10)], cut_words=1)
    """
    offsets, cut_words = split_words(text), 0
    if words is not None:
        offsets = locate_words(text, words)
    else:
        edges = sorted({edge for entity in entities for edge in entity[:2]})
        before = len(offsets)
        offsets = _cut_at(offsets, edges)
        cut_words = len(offsets) - before
    labels = ["O"] * len(offsets)
    index = 0
    for entity in entities:
        while index < len(offsets) and offsets[index][1] <= entity.start:
            index += 1
        first = index
        while index < len(offsets) and offsets[index][0] < entity.end:
            start, end = offsets[index]
            if start < entity.start or end > entity.end:
                raise ValueError(f"entity {_show(text, entity)} cuts the word {text[start:end]!r}")
            labels[index] = f"{'B' if index == first else 'I'}-{entity.type}"
            index += 1
        if index == first:
            raise ValueError(f"entity {_show(text, entity)} holds no word")
    return LabelledText([text[a:b] for a, b in offsets], labels, offsets, cut_words)


def _read_entity(text: str, number: int, entity: Any) -> MarkedEntity:
    if not isinstance(entity, Mapping):
        raise TypeError(
            f"entity {number} must be an object with start, end and type: "
            f"got {type(entity).__name__}"
        )
    name = entity.get("type", entity.get("label"))
    if not isinstance(name, str):
        raise TypeError(f"type of entity {number} must be a string: got {name!r:.60}")
    offsets = []
    for key in ("start", "end"):
        offset = entity.get(key)
        if not isinstance(offset, int) or isinstance(offset, bool):
            raise TypeError(f"{key} of entity {number} must be a whole number: got {offset!r:.60}")
        offsets.append(offset)
    start, end = offsets
    if not 0 <= start < end <= len(text):
        raise ValueError(
            f"entity {number} must lie within the {len(text)} characters of the text, and hold "
            f"some: got {start} to {end}"
        )
    for offset in offsets:
        if _is_within_character(text, offset):
            raise ValueError(
                f"entity {number}, {start} to {end}, cuts a character at {offset}: "
                f"{text[max(0, offset - 1) : offset + 1]!r}"
            )
    return MarkedEntity(start, end, name)


def _is_within_character(text: str, offset: int) -> bool:
    """Whether a mark, a joiner or a skin tone behind the offset belongs to what is before it."""
    if not 0 < offset < len(text):
        return False
    before, behind = text[offset - 1], text[offset]
    return (
        unicodedata.category(behind) in ("Mn", "Me", "Mc")
        or _JOINER in (before, behind)
        or "\U0001f3fb" <= behind <= "\U0001f3ff"
    )


def _cut_at(offsets: list[tuple[int, int]], edges: list[int]) -> list[tuple[int, int]]:
    """Words that are cut where an edge falls within them."""
    made = []
    index = 0
    for start, end in offsets:
        while index < len(edges) and edges[index] <= start:
            index += 1
        while index < len(edges) and edges[index] < end:
            made.append((start, edges[index]))
            start = edges[index]
            index += 1
        made.append((start, end))
    return made


def _show(text: str, entity: MarkedEntity) -> str:
    return (
        f"{text[entity.start : entity.end]!r:.60} ({entity.type}, {entity.start} to {entity.end})"
    )
