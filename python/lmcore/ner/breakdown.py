"""Scores by entity type, and scores that count what was found in part.

Partial matches are those of SemEval 2013 task 9 and of MUC, counted as nervaluate counts them: the
predicted entities in turn, each with the first gold entity that is still free.

| counting | correct | partly right | wrong |
| --- | --- | --- | --- |
| `strict` | start, end and type agree | | they overlap |
| `exact` | start and end agree | | they overlap |
| `partial` | start and end agree | they overlap: one half | |
| `type` | they overlap and the type agrees | | they overlap |
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import takewhile
from typing import Any, NamedTuple

from lmcore.ner.labelled import LabelledRow
from lmcore.ops.entities import (
    EntityCounts,
    ErrorKinds,
    Quality,
    Span,
    compute_quality,
    count_entities_batch,
    decode_spans,
)

COUNTINGS = ("strict", "exact", "partial", "type")

_ROWS_AT_ONCE = 2048


class PartialCounts(NamedTuple):
    """Entities under one counting."""

    correct: int = 0
    incorrect: int = 0
    """Predicted entities that overlap a gold one and are not the same."""
    partial: int = 0
    """The same, where that is half of a match."""
    missed: int = 0
    """Gold entities that no predicted one was held against."""
    spurious: int = 0
    """Predicted entities that overlap no free gold one."""

    @property
    def quality(self) -> Quality:
        """Precision, recall and F1; 0 / 0 is 0."""
        found = self.correct + 0.5 * self.partial
        both = self.correct + self.incorrect + self.partial
        precision = _divide(found, both + self.spurious)
        recall = _divide(found, both + self.missed)
        return Quality(precision, recall, _divide(2 * precision * recall, precision + recall))


def _divide(part: float, whole: float) -> float:
    return part / whole if whole else 0.0


@dataclass(kw_only=True, slots=True, frozen=True)
class TypeScores:
    """Scores of the entities of one type."""

    entities: EntityCounts
    """Gold, predicted and correct entities."""
    quality: Quality
    """Precision, recall, F1 in [0, 1]."""
    errors: ErrorKinds
    """Its gold entities that were missed, by the paper's three kinds."""


@dataclass(kw_only=True, slots=True)
class Breakdown:
    """One data set in detail."""

    types: dict[str, TypeScores] = field(default_factory=dict)
    """By type, sorted."""
    partial: dict[str, PartialCounts] = field(default_factory=dict)
    """By counting, one of `COUNTINGS`."""

    @property
    def macro(self) -> Quality:
        """The unweighted mean over the types."""
        parts = [scores.quality for scores in self.types.values()]
        if not parts:
            return Quality(0.0, 0.0, 0.0)
        return Quality(*(sum(column) / len(parts) for column in zip(*parts, strict=True)))

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore ner score --by-type --json` adds to a data set."""
        return {
            "types": {
                name: {**scores.quality._asdict(), "counts": scores.entities._asdict()}
                for name, scores in self.types.items()
            },
            "macro": self.macro._asdict(),
            "partial": {
                name: {**counts.quality._asdict(), "counts": counts._asdict()}
                for name, counts in self.partial.items()
            },
        }


def break_down(rows: Iterable[LabelledRow], scheme: str = "gner") -> dict[str, Breakdown]:
    """Returns each data set in detail.

    Args:
        rows: of any data sets, in any order.
        scheme: one of `lmcore.ops.entities.SCHEMES`; partial matches are by position.

    Raises:
        ValueError: unknown scheme.

    Example:
        >>> row = LabelledRow("f", 1, "set", ["New", "York"], ["B-x", "I-x"], ["O", "B-x"], 0)
        >>> details = break_down([row], "strict")["set"]
        >>> details.types["x"].entities, details.partial["partial"].quality.f1
        (EntityCounts(gold=1, predicted=1, correct=0), 0.5)
    """
    compute_quality(EntityCounts(0, 0, 0), scheme)
    sums: dict[str, _Sums] = {}
    for row in rows:
        if row.dataset not in sums:
            sums[row.dataset] = _Sums(scheme)
        sums[row.dataset].add(row)
    return {name: part.finish() for name, part in sums.items()}


def count_partial(gold: Sequence[Span], predicted: Sequence[Span]) -> dict[str, PartialCounts]:
    """Returns the counts of one sentence under each counting.

    Args:
        gold: entities over words, end exclusive, in order.
        predicted: likewise.

    Example:
        >>> counts = count_partial([Span(0, 2, "x")], [Span(0, 1, "x")])
        >>> counts["type"].correct, counts["exact"].incorrect
        (1, 1)
    """
    return {counting: _count(gold, predicted, counting) for counting in COUNTINGS}


def _count(gold: Sequence[Span], predicted: Sequence[Span], counting: str) -> PartialCounts:
    free = deque(gold)
    correct = touched = spurious = missed = 0
    for span in predicted:
        # Both are in order: a gold entity that ends before this one is touched by none to come.
        while free and free[0].end <= span.start:
            free.popleft()
            missed += 1
        near = [*takewhile(lambda other: other.start < span.end, free)]  # noqa: B023
        same = [other for other in near if _agree(span, other, counting)]
        # Of several that have its type, the one whose edges are nearest.
        if same:
            free.remove(min(same, key=lambda o: abs(o.start - span.start) + abs(o.end - span.end)))
            correct += 1
        elif near:
            free.remove(near[0])
            touched += 1
        else:
            spurious += 1
    incorrect, partial = (0, touched) if counting == "partial" else (touched, 0)
    return PartialCounts(correct, incorrect, partial, missed + len(free), spurious)


def _agree(one: Span, other: Span, counting: str) -> bool:
    if counting == "type":
        return one.type == other.type
    is_same_extent = one.start == other.start and one.end == other.end
    return is_same_extent and (counting != "strict" or one.type == other.type)


class _Sums:
    """Sums of one data set; rows wait until there are enough for the core."""

    def __init__(self, scheme: str) -> None:
        self._scheme = scheme
        self._waiting: dict[str, list[LabelledRow]] = {}
        self._types: dict[str, tuple[EntityCounts, ErrorKinds]] = {}
        self._partial = dict.fromkeys(COUNTINGS, PartialCounts())

    def add(self, row: LabelledRow) -> None:
        """Adds a row."""
        gold, predicted = (decode_spans(x, self._scheme) for x in (row.labels, row.predicted))
        for counting, counts in count_partial(gold, predicted).items():
            counts = counts._replace(spurious=counts.spurious + row.left_out)
            self._partial[counting] = PartialCounts(
                *map(int.__add__, self._partial[counting], counts)
            )
        for kind in {span.type for span in (*gold, *predicted)}:
            waiting = self._waiting.setdefault(kind, [])
            waiting.append(row)
            if len(waiting) >= _ROWS_AT_ONCE:
                self._count(kind)

    def finish(self) -> Breakdown:
        """Returns the sums."""
        for kind in [*self._waiting]:
            self._count(kind)
        types = {
            kind: TypeScores(
                entities=counts, quality=compute_quality(counts, self._scheme), errors=errors
            )
            for kind, (counts, errors) in sorted(self._types.items())
        }
        return Breakdown(types=types, partial=self._partial)

    def _count(self, kind: str) -> None:
        rows = self._waiting.pop(kind)
        words = [row.words for row in rows]
        gold = [_keep(row.labels, kind, self._scheme) for row in rows]
        predicted = [_keep(row.predicted, kind, self._scheme) for row in rows]
        counts, _ = count_entities_batch(gold, predicted, words, self._scheme)
        # Which entities of other types touch one decides what kind of error it is.
        whole = [row.predicted for row in rows]
        _, errors = count_entities_batch(gold, whole, words, self._scheme)
        known = self._types.get(kind, (EntityCounts(0, 0, 0), ErrorKinds(0, 0, 0, 0)))
        self._types[kind] = (
            EntityCounts(*map(int.__add__, known[0], counts)),
            ErrorKinds(*map(int.__add__, known[1], errors)),
        )


def _keep(labels: Sequence[str], kind: str, scheme: str) -> list[str]:
    """Labels of the entities of one type alone, read as the scheme reads them."""
    kept = ["O"] * len(labels)
    for span in decode_spans(labels, scheme):
        if span.type == kind:
            inside = [f"I-{kind}"] * (span.end - span.start - 1)
            kept[span.start : span.end] = [f"B-{kind}", *inside]
    return kept
