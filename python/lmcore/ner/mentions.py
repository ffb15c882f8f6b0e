r"""Entities as JSON become words and BIO labels: the forms of UniversalNER, GLiNER and others.

An answer lists entities in one of these forms, as JSON or as text that holds JSON:

| form | example |
| --- | --- |
| mentions by type (UniversalNER) | `{"person": ["Ada"], "city": "London"}` |
| mentions of the one type that was asked for | `["Ada"]` |
| pairs | `[["Ada", "person"]]` |
| spans of characters (GLiNER, spaCy) | `[{"start": 0, "end": 3, "label": "person"}]` |
| spans of words, the last included (GLiNER's training data) | `"ner": [[0, 0, "person"]]` |

A mention without a place stands wherever its text stands in the sentence, between whole words;
capitals are looked past if there is no other place. Where two entities overlap, the longer one is
kept, of equal ones the first. BIO labels cannot hold the other, nor one that is not in the
sentence: such an entity of an answer counts as predicted and wrong, and one of the gold entities
makes the row a bad one.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from lmcore._json import parse_json
from lmcore.ops.matching import parse_generation
from lmcore.ops.words import locate_words, split_words

_START, _END = ("start", "start_offset"), ("end", "end_offset")
_TYPE = ("type", "label", "entity_group", "entity_type", "entity")
_TEXT = ("text", "mention", "word", "name", "span")
_FENCE = re.compile(r"\A\s*```[a-z]*\s*(.*?)\s*```\s*\Z", re.DOTALL)


class Mention(NamedTuple):
    """An entity as an answer gives it."""

    type: str
    text: str
    """Empty where only the place is given."""
    start: int | None = None
    """First character."""
    end: int | None = None
    """Character after the last."""


class Sentence(NamedTuple):
    """A text, its words, and where they stand in it."""

    text: str
    words: list[str]
    offsets: list[tuple[int, int]]


class Labelled(NamedTuple):
    """Labels of words, and what they could not hold."""

    labels: list[str]
    """One BIO label per word."""
    left_out: list[Mention]
    """Not in the sentence, across the edge of a word, or within another entity."""


def read_answer(answer: Any, types: Sequence[str] = ()) -> list[Mention]:
    """Returns the entities that an answer lists, in its order.

    Args:
        answer: JSON, or a text that holds JSON and nothing else but a fence of Markdown.
        types: what was asked for; a list of texts has the one type of this list.

    Raises:
        ValueError: a text that is no JSON, or a form that is not known.

    Example:
        >>> read_answer('{"person": ["Ada"]}')
        [Mention(type='person', text='Ada', start=None, end=None)]
        >>> read_answer([{"start": 0, "end": 3, "label": "person", "score": 0.9}])
        [Mention(type='person', text='', start=0, end=3)]
    """
    if isinstance(answer, str):
        fenced = _FENCE.match(answer)
        answer = parse_json(fenced[1] if fenced else answer)
    if isinstance(answer, Mapping):
        if set(answer) == {"entities"} and isinstance(answer["entities"], list):
            return read_answer(answer["entities"], types)
        if _find(answer, _TYPE) is not None and _is_span(answer):
            return [_read_item(answer, types)]
        return [
            Mention(kind, _read_text(mention, kind))
            for kind, mentions in answer.items()
            for mention in (mentions if isinstance(mentions, list) else [mentions])
            if mention is not None
        ]
    if isinstance(answer, list):
        return [_read_item(item, types) for item in answer]
    raise ValueError(f"expected an object or a list of entities: got {_show(answer)}")


def cut_sentence(
    text: str | None, words: Sequence[str] | None, mentions: Sequence[Mention]
) -> Sentence:
    """Returns a `Sentence`; words that are not given are cut at the edges of mentions, too.

    Args:
        text: of the sentence; the words joined with spaces if None.
        words: None if the text is to be cut.
        mentions: whose places count characters of the text.

    Raises:
        ValueError: there is neither, or a word is not in the text.

    Example:
        >>> cut_sentence("in New-York", None, [Mention("city", "", 3, 6)]).words
        ['in', 'New', '-York']
    """
    if words is None:
        if text is None:
            raise ValueError("words: this key is missing, and so is text")
        edges = sorted({edge for m in mentions for edge in (m.start, m.end) if edge is not None})
        offsets = [piece for start, end in split_words(text) for piece in _cut(start, end, edges)]
        return Sentence(text, [text[start:end] for start, end in offsets], offsets)
    if text is None:
        text = " ".join(words)
        offsets, start = [], 0
        for word in words:
            offsets.append((start, start + len(word)))
            start += len(word) + 1
        return Sentence(text, [*words], offsets)
    try:
        return Sentence(text, [*words], locate_words(text, words))
    except ValueError as error:
        raise ValueError(f"words: {error}") from None


def label_words(sentence: Sentence, mentions: Sequence[Mention]) -> Labelled:
    """Returns the labels that entities give to the words of a sentence.

    Args:
        sentence: as `cut_sentence` makes it.
        mentions: its entities.

    Example:
        >>> sentence = cut_sentence("Ada met ada in London", None, [])
        >>> label_words(sentence, [Mention("person", "Ada"), Mention("city", "Paris")])
        ... # doctest: +NORMALIZE_WHITESPACE
        Labelled(labels=['B-person', 'O', 'O', 'O', 'O'],
                 left_out=[Mention(type='city', text='Paris', start=None, end=None)])
    """
    starts = {start: index for index, (start, _) in enumerate(sentence.offsets)}
    ends = {end: index + 1 for index, (_, end) in enumerate(sentence.offsets)}
    found: list[tuple[int, int, int]] = []
    for number, mention in enumerate(mentions):
        for start, end in _find_offsets(sentence.text, mention, starts, ends):
            found.append((starts[start], ends[end], number))
    labels = ["O"] * len(sentence.words)
    kept: set[int] = set()
    spans: dict[tuple[int, int], str] = {}
    for first, last, number in sorted(found, key=lambda f: (f[0] - f[1], f[2], f[0])):
        kind = mentions[number].type
        if spans.get((first, last)) == kind:
            kept.add(number)  # said twice
        elif all(label == "O" for label in labels[first:last]):
            labels[first:last] = [f"B-{kind}", *[f"I-{kind}"] * (last - first - 1)]
            spans[first, last] = kind
            kept.add(number)
    left_out = [mention for number, mention in enumerate(mentions) if number not in kept]
    return Labelled(labels, left_out)


def write_generation(words: Sequence[str], labels: Sequence[str]) -> str:
    """Returns the text `word(label) ...`, which gives exactly these labels to these words.

    Args:
        words: n words.
        labels: n BIO labels.

    Raises:
        ValueError: the text would be read as other words or labels.

    Example:
        >>> write_generation(["in", "York"], ["O", "B-city"])
        'in(O) York(B-city)'
    """
    text = " ".join(f"{word}({label})" for word, label in zip(words, labels, strict=True))
    parsed = parse_generation(text)
    if parsed.words == [*words] and parsed.labels == [*labels]:
        return text
    read = [*zip(parsed.words, parsed.labels, strict=True), ("", "")]
    pairs = [*zip(words, labels, strict=True)]
    others = (pair for pair, other in zip(pairs, read, strict=False) if pair != other)
    word, label = next(others, pairs[-1])
    raise ValueError(
        f"the word {word[:40]!r} with the label {label[:40]!r} cannot be scored: there is white "
        "space around it, or a parenthesis in it or in its type"
    )


def _find_offsets(
    text: str, mention: Mention, starts: Mapping[int, int], ends: Mapping[int, int]
) -> list[tuple[int, int]]:
    """Places of a mention from the start of a word to the end of one."""
    if mention.start is not None and mention.end is not None:
        offset = mention.start, mention.end
        is_whole = offset[0] in starts and offset[1] in ends and offset[0] < offset[1]
        return [offset] if is_whole else []
    for flags in (0, re.IGNORECASE):
        pattern = re.compile(re.escape(mention.text.strip()), flags)
        matches = pattern.finditer(text) if pattern.pattern else iter(())
        offsets = [m.span() for m in matches if m.start() in starts and m.end() in ends]
        if offsets:
            return offsets
    return []


def _cut(start: int, end: int, edges: list[int]) -> list[tuple[int, int]]:
    inner = [start, *edges[bisect_right(edges, start) : bisect_left(edges, end)], end]
    return [*pairwise(inner)]


def _read_item(item: Any, types: Sequence[str]) -> Mention:
    match item:
        case str():
            if len(types) != 1:
                raise ValueError(f"expected one type for a list of texts: got {len(types)} types")
            return Mention(types[0], item)
        case [str(text), str(kind)]:
            return Mention(kind, text)
        case [start, end, str(kind)] if type(start) is type(end) is int:
            return Mention(kind, "", start, end)
        case Mapping():
            kind, start, end = (_find(item, keys) for keys in (_TYPE, _START, _END))
            text = _find(item, _TEXT)
            if kind is None and len(types) == 1:
                kind = types[0]
            has_offsets = all(type(value) is int for value in (start, end))
            if isinstance(kind, str) and (has_offsets or (start is end is None)):
                if not has_offsets and not isinstance(text, str):
                    raise ValueError(f"expected a place or text: got {_show(item)}")
                return Mention(kind, text if isinstance(text, str) else "", start, end)
    raise ValueError(f"expected an entity with a type and a text or a place: got {_show(item)}")


def _read_text(mention: Any, kind: str) -> str:
    if isinstance(mention, str):
        return mention
    raise ValueError(f"expected texts of the type {kind!r}: got {_show(mention)}")


def _is_span(item: Mapping[str, Any]) -> bool:
    return type(_find(item, _START)) is int and type(_find(item, _END)) is int


def _find(item: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((item[key] for key in keys if item.get(key) is not None), None)


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:60] + "..."
