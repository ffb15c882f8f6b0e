"""Two models on the same rows: the difference of their F1, and how far chance may move it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from lmcore.ner.labelled import LabelledRow, Reading, read_labelled
from lmcore.ops.entities import EntityCounts, Quality, compute_quality, count_entities
from lmcore.ops.philox import Stream, random_below

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SHARE = 0.95
"""Of the resampled differences, how many lie in the interval."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Difference:
    """F1 of two models on one data set, or the means of several."""

    name: str
    """Of the data set; `mean` for the mean over them."""
    rows: int
    first: Quality
    second: Quality
    low: float
    """Lower end of the interval of the first F1 minus the second."""
    high: float
    """Its upper end."""

    @property
    def f1(self) -> float:
        """The first F1 minus the second."""
        return self.first.f1 - self.second.f1

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(kw_only=True, slots=True, frozen=True)
class Comparison:
    """Two files of predictions for the same rows."""

    first: str
    second: str
    scheme: str
    resamples: int
    seed: int
    differences: tuple[Difference, ...]
    """Of each data set, and of their mean if there are several."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore ner score --against FILE --json` prints."""
        return {
            "scheme": self.scheme,
            "files": [self.first, self.second],
            "resamples": self.resamples,
            "seed": self.seed,
            "differences": {
                d.name: {
                    "rows": d.rows,
                    "f1": [d.first.f1, d.second.f1],
                    "difference": d.f1,
                    "interval": [d.low, d.high],
                }
                for d in self.differences
            },
        }


def compare_files(
    first: str | os.PathLike[str],
    second: str | os.PathLike[str],
    *,
    scheme: str = "gner",
    resamples: int = 1000,
    seed: int = 0,
    reading: Reading | None = None,
) -> Comparison:
    r"""Returns the differences of two models in F1, with paired bootstrap intervals of 95 %.

    A resample takes as many rows of each data set as there are, with replacement, and the same
    for both models: what makes a sentence hard for both does not widen the interval.

    Source: Efron and Tibshirani (1993), the percentile interval of the bootstrap.

    Args:
        first: predictions of one model, as for `lmcore.ner.score_files`.
        second: those of another for the same rows in the same order.
        scheme: one of `lmcore.ops.entities.SCHEMES`.
        resamples: at least 1.
        seed: of the drawn rows; a draw is a function of (seed, resample, row).
        reading: how both are read.

    Raises:
        OSError: a file cannot be read.
        ValueError: fewer than one resample, a row that cannot be used, or rows of different
            words, gold labels or data sets; the text names both places.

    Example:
        >>> import json, tempfile
        >>> row = {"types": ["x"], "words": ["a"], "labels": ["B-x"]}
        >>> def write(file, text):
        ...     _ = file.write(json.dumps({"dataset": "d", **row, "prediction": text}) + "\n")
        ...     file.flush()
        >>> with tempfile.NamedTemporaryFile("w") as one, tempfile.NamedTemporaryFile("w") as two:
        ...     write(one, "a(B-x)"), write(two, "a(O)")
        ...     (difference,) = compare_files(one.name, two.name, scheme="strict").differences
        (None, None)
        >>> difference.f1, difference.low, difference.high
        (1.0, 1.0, 1.0)
    """
    import numpy as np

    if resamples < 1:
        raise ValueError(f"resamples must be at least 1: got {resamples}")
    reading = reading or Reading()
    if reading.skip_bad_rows:
        raise ValueError("rows are compared in pairs: bad rows cannot be skipped")
    counts: dict[str, list[tuple[int, ...]]] = {}
    for one, other in _pair(first, second, reading):
        row = (*_count(one, scheme), *_count(other, scheme))
        counts.setdefault(one.dataset, []).append(row)
    tables = {name: np.array(rows, dtype=np.int64) for name, rows in counts.items()}
    drawn = {
        name: _resample(table, resamples, seed, position)
        for (name, table), position in zip(tables.items(), _positions(tables), strict=True)
    }
    scores = {name: _f1(sums, scheme) for name, sums in drawn.items()}
    differences = [
        _difference(name, len(table), *_qualities(table, scheme), scores[name])
        for name, table in tables.items()
    ]
    if len(differences) > 1:
        first_mean = _mean([d.first for d in differences])
        second_mean = _mean([d.second for d in differences])
        mean = np.mean([*scores.values()], axis=0)
        rows = sum(d.rows for d in differences)
        differences.append(_difference("mean", rows, first_mean, second_mean, mean))
    return Comparison(
        first=os.fspath(first),
        second=os.fspath(second),
        scheme=scheme,
        resamples=resamples,
        seed=seed,
        differences=tuple(differences),
    )


def _pair(
    first: str | os.PathLike[str], second: str | os.PathLike[str], reading: Reading
) -> Iterator[tuple[LabelledRow, LabelledRow]]:
    """Yields rows of both files that have the same words and gold labels."""
    rows = zip_longest(read_labelled(first, reading), read_labelled(second, reading))
    for number, (one, other) in enumerate(rows):
        if one is None or other is None:
            longer, shorter = (first, second) if other is None else (second, first)
            raise ValueError(
                f"{os.fspath(longer)}: expected {number} rows as in {os.fspath(shorter)}: got more"
            )
        for key in ("words", "labels"):
            if getattr(one, key) != getattr(other, key):
                raise ValueError(f"{other.location}: the {key} are not those of {one.location}")
        yield one, other


def _count(row: LabelledRow, scheme: str) -> EntityCounts:
    gold, predicted, correct = count_entities(row.words, row.labels, row.predicted, scheme)
    return EntityCounts(gold, predicted + row.left_out, correct)


def _positions(tables: dict[str, NDArray[np.int64]]) -> list[int]:
    """Where the draws of each data set begin."""
    positions = [0]
    for table in tables.values():
        positions.append(positions[-1] + len(table))
    return positions[:-1]


def _resample(
    table: NDArray[np.int64], resamples: int, seed: int, position: int
) -> NDArray[np.int64]:
    """Sums over drawn rows, `[resamples, 6]` int64."""
    import numpy as np

    size = len(table)
    sums = np.empty((resamples, table.shape[1]), dtype=np.int64)
    for number in range(resamples):
        rows = random_below(seed, Stream.RESAMPLED_ROWS, number, size, size, position=position)
        sums[number] = np.bincount(rows.astype(np.int64), minlength=size) @ table
    return sums


def _f1(sums: NDArray[np.int64], scheme: str) -> NDArray[np.float64]:
    """F1 of both models for each resample, `[resamples, 2]` float64."""
    import numpy as np

    pairs = [_qualities(row[None], scheme) for row in sums]
    return np.array([[first.f1, second.f1] for first, second in pairs])


def _mean(parts: list[Quality]) -> Quality:
    return Quality(*(sum(values) / len(parts) for values in zip(*parts, strict=True)))


def _qualities(table: NDArray[np.int64], scheme: str) -> tuple[Quality, Quality]:
    sums = [int(value) for value in table.sum(axis=0)]
    first, second = EntityCounts(*sums[:3]), EntityCounts(*sums[3:])
    return compute_quality(first, scheme), compute_quality(second, scheme)


def _difference(
    name: str, rows: int, first: Quality, second: Quality, scores: NDArray[np.float64]
) -> Difference:
    import numpy as np

    edges = [(1 - SHARE) / 2, (1 + SHARE) / 2]
    low, high = np.quantile(scores[:, 0] - scores[:, 1], edges)
    return Difference(
        name=name, rows=rows, first=first, second=second, low=float(low), high=float(high)
    )
