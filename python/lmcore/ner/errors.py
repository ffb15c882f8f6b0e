"""What goes wrong: missed entities by the paper's three kinds, per type, with examples."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from lmcore.ner.labelled import LabelledRow
from lmcore.ner.page import join_words
from lmcore.ops.entities import ErrorKinds, Span, decode_spans

KINDS = ("unlabelled", "noisy", "boundary")
"""No predicted entity touches it; only ones of other types do; one of its type does."""


class ErrorExample(NamedTuple):
    """A gold entity that was missed."""

    location: str
    """File and line."""
    kind: str
    """One of `KINDS`."""
    type: str
    text: str
    """Its words, with spaces where its script has some."""
    predicted: tuple[tuple[str, str], ...]
    """Type and text of each predicted entity that touches it."""
    before: str
    """Some words before it."""
    after: str
    """Some words after it."""


@dataclass(kw_only=True, slots=True)
class ErrorReport:
    """Missed entities of a file of predictions."""

    scheme: str
    rows: int = 0
    datasets: dict[str, ErrorKinds] = field(default_factory=dict)
    """By data set, in the order of their first rows."""
    types: dict[str, ErrorKinds] = field(default_factory=dict)
    """By type, over all data sets, sorted."""
    confusions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How often a gold type was touched by a predicted entity of another type alone."""
    spurious: Counter[str] = field(default_factory=Counter)
    """Predicted entities, by type, that touch no gold entity or that labels cannot hold."""
    examples: dict[str, list[ErrorExample]] = field(default_factory=dict)
    """The first of each kind, no two with the same text and type."""

    @property
    def total(self) -> ErrorKinds:
        """The sums over all types."""
        kinds = ErrorKinds(0, 0, 0, 0)
        for part in self.types.values():
            kinds = _add(kinds, part)
        return kinds

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore ner errors --json` prints."""
        return {
            "scheme": self.scheme,
            "rows": self.rows,
            "total": self.total._asdict(),
            "datasets": {name: kinds._asdict() for name, kinds in self.datasets.items()},
            "types": {name: kinds._asdict() for name, kinds in self.types.items()},
            "confusions": [
                {"gold": gold, "predicted": predicted, "count": count}
                for (gold, predicted), count in self.confusions.most_common()
            ],
            "spurious": dict(self.spurious.most_common()),
            "examples": {
                kind: [example._asdict() for example in examples]
                for kind, examples in self.examples.items()
            },
        }


def find_errors(
    rows: Iterable[LabelledRow], scheme: str = "gner", *, examples: int = 3
) -> ErrorReport:
    """Returns the missed entities of rows by kind: unlabelled, noisy, boundary.

    Source: GNER (arXiv 2402.16602), table 1 and section 5.1.

    Args:
        rows: as `lmcore.ner.labelled.read_labelled` gives them.
        scheme: one of `lmcore.ops.entities.SCHEMES`; only its way of reading labels matters here.
        examples: how many to keep of each kind.

    Raises:
        ValueError: unknown scheme.

    Example:
        >>> row = LabelledRow("f", 1, "set", ["New", "York"], ["B-x", "I-x"], ["O", "B-x"], 0)
        >>> report = find_errors([row])
        >>> report.total
        ErrorKinds(gold=1, unlabelled=0, noisy=0, boundary=1)
        >>> report.examples["boundary"][0].predicted
        (('x', 'York'),)
    """
    decode_spans([], scheme)
    report = ErrorReport(scheme=scheme, examples={kind: [] for kind in KINDS})
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        report.rows += 1
        gold, predicted = (decode_spans(x, scheme) for x in (row.labels, row.predicted))
        for span in gold:
            near = _find_near(span, predicted)
            kind = _classify(span, near)
            _count(report, row.dataset, span.type, kind)
            if kind is None:
                continue
            if kind == "noisy":
                report.confusions.update((span.type, name) for name in {s.type for s in near})
            example = _describe(row, span, near, kind)
            key = kind, example.type, example.text
            if len(report.examples[kind]) < examples and key not in seen:
                seen.add(key)
                report.examples[kind].append(example)
        for other in predicted:
            if not _find_near(other, gold):
                report.spurious[other.type] += 1
        if row.left_out:
            report.spurious["(not in the text)"] += row.left_out
    report.types = dict(sorted(report.types.items()))
    return report


def _find_near(span: Span, others: list[Span]) -> list[Span]:
    """Those that share a word with it, of entities in order and without overlap."""
    first = bisect_right(others, span.start, key=lambda other: other.end)
    last = bisect_left(others, span.end, key=lambda other: other.start)
    return others[first:last]


def _classify(span: Span, near: list[Span]) -> str | None:
    """The kind of error; none if the entity was found."""
    if span in near:
        return None
    if not near:
        return "unlabelled"
    return "boundary" if any(other.type == span.type for other in near) else "noisy"


def _count(report: ErrorReport, dataset: str, name: str, kind: str | None) -> None:
    one = ErrorKinds(1, *(int(kind == other) for other in KINDS))
    nothing = ErrorKinds(0, 0, 0, 0)
    report.datasets[dataset] = _add(report.datasets.get(dataset, nothing), one)
    report.types[name] = _add(report.types.get(name, nothing), one)


def _add(one: ErrorKinds, other: ErrorKinds) -> ErrorKinds:
    return ErrorKinds(*map(int.__add__, one, other))


def _describe(row: LabelledRow, span: Span, near: list[Span], kind: str) -> ErrorExample:
    context = 6
    begin = max(span.start - context, 0)
    return ErrorExample(
        location=row.location,
        kind=kind,
        type=span.type,
        text=join_words(row.words[span.start : span.end]),
        predicted=tuple((s.type, join_words(row.words[s.start : s.end])) for s in near),
        before=join_words(row.words[begin : span.start]),
        after=join_words(row.words[span.end : span.end + context]),
    )
