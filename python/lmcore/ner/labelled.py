"""Rows of predictions with the labels that their words got: what every detail is counted from.

Scores alone are summed up by the core. Scores by type, partial matches, differences of two models
and examples of errors need the labels of each row, which are read here, many rows at a time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

from lmcore.ner.sources import Lines, Source
from lmcore.ops.matching import match_labels_batch
from lmcore.ops.predictions import BackTokenize, Row, read_row

_ROWS_AT_ONCE = 512


class LabelledRow(NamedTuple):
    """A row and the labels that its prediction gives to its words."""

    file: str
    line: int
    dataset: str
    words: list[str]
    labels: list[str]
    """Gold BIO labels, one per word."""
    predicted: list[str]
    """Predicted BIO labels, one per word."""
    left_out: int
    """Predicted entities that labels cannot hold; they are wrong."""

    @property
    def location(self) -> str:
        """File and line."""
        return f"{self.file}:{self.line}"


@dataclass(kw_only=True, slots=True)
class Reading:
    """How rows are read, and what came of it."""

    form: str = "auto"
    """One of `lmcore.ner.sources.FORMS`."""
    skip_bad_rows: bool = False
    """Count bad rows instead of raising."""
    threads: int | None = None
    """All cores if None."""
    back_tokenize: BackTokenize | None = None
    """As for `lmcore.ner.score`."""
    progress: Callable[[int], None] | None = None
    """Called with the bytes read so far."""
    bad_rows: int = 0
    """Rows that were passed over."""


def read_labelled(path: str | os.PathLike[str], reading: Reading) -> Iterator[LabelledRow]:
    """Yields the rows of a file of predictions with the labels that their words got.

    Args:
        path: as for `lmcore.ner.score_files`.
        reading: how to read them.

    Raises:
        OSError: the file cannot be read.
        TypeError: a row or a value in it has the wrong type.
        ValueError: no rows, or one that cannot be used; the text names file, line and key.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     row = '{"types": ["x"], "words": ["a"], "labels": ["O"], "prediction": "a(B-x)"}'
        ...     _ = file.write(row), file.flush()
        ...     [row.predicted for row in read_labelled(file.name, Reading())]
        [['B-x']]
    """
    source = Source(path, reading.form)
    is_empty = True
    with source.open_lines() as lines:
        found = _read_rows(source, lines, reading)
        while rows := [*islice(found, _ROWS_AT_ONCE)]:
            is_empty = False
            yield from _label(source, rows, reading)
    if is_empty and not reading.bad_rows:
        raise ValueError(f"{source.name}: the file holds no rows")


def _read_rows(source: Source, lines: Lines, reading: Reading) -> Iterator[tuple[int, Row, int]]:
    for number, line in lines:
        if reading.progress is not None:
            reading.progress(source.count_bytes(0))
        if not line:
            continue
        left_out = source.last_left_out
        try:
            row = read_row(line)
        except (TypeError, ValueError) as error:
            if not reading.skip_bad_rows:
                text = source.explain(f"{source.name}:{number}: {error}")
                raise type(error)(text) from None
            reading.bad_rows += 1
            continue
        yield number, row, left_out


def _label(
    source: Source, rows: Sequence[tuple[int, Row, int]], reading: Reading
) -> Iterator[LabelledRow]:
    words = [row.words for _, row, _ in rows]
    compared = None
    if reading.back_tokenize is not None:
        lower = [[word.lower() for word in sentence] for sentence in words]
        distinct = [*dict.fromkeys(word for sentence in lower for word in sentence)]
        known = dict(zip(distinct, reading.back_tokenize(distinct), strict=True))
        compared = [[known[word] for word in sentence] for sentence in lower]
    matches = match_labels_batch(
        words,
        [row.prediction for _, row, _ in rows],
        [row.types for _, row, _ in rows],
        compared,
        threads=reading.threads,
    )
    for (number, row, left_out), match in zip(rows, matches, strict=True):
        dataset = source.dataset if row.dataset is None else row.dataset
        yield LabelledRow(
            source.name, number, dataset, row.words, row.labels, match.labels, left_out
        )
