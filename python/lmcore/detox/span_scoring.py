"""Files of predicted spans, or a finder's own, against files of gold spans."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lmcore._rows import Progress, RowReader
from lmcore.detox.span_rows import LabelledRow, read_spans, split_rows
from lmcore.detox.span_scores import SpanScores, average, score_characters

if TYPE_CHECKING:
    from lmcore.detox.spans import SpanFinder

# Texts that a finder sorts by length together.
_BLOCK = 1024


@dataclass(kw_only=True, slots=True, frozen=True)
class SpanFileScores:
    """How well spans of a file were found."""

    rows: int
    """Texts with gold spans and found ones, perhaps none."""
    scores: SpanScores
    """The means over texts; the mean F1 is the score of SemEval-2021, task 5."""
    bad_rows: int = 0
    """Rows of both files that were left out."""
    listed_bad_rows: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Returns what `lmcore detox score-spans --json` prints."""
        return {"rows": self.rows, **self.scores._asdict(), "bad_rows": self.bad_rows}


def score_span_files(
    gold: str | os.PathLike[str],
    predicted: str | os.PathLike[str],
    *,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> SpanFileScores:
    r"""Returns the means over texts of precision, recall and F1 of toxic characters.

    A text's prediction is the next one of that very text: texts may stand in another order, and
    the same text several times.

    Source: Pavlopoulos et al., SemEval-2021 task 5.

    Args:
        gold: CSV with `spans`, places of characters, and `text`, if its name ends with `.csv`; else
            JSONL with a text and `spans`, places or half-open ranges. `.gz` is decompressed, `-` is
            standard input.
        predicted: such a file.
        skip_bad_rows: count and list rows that cannot be used, or have no counterpart in the other
            file, instead of raising.
        progress: called with the bytes of both files that were read so far.

    Raises:
        OSError: a file cannot be read.
        ValueError: a row cannot be used, or has no counterpart; the text names file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     gold, found = Path(folder, "gold.csv"), Path(folder, "found.jsonl")
        ...     _ = gold.write_text('spans,text\n"[2, 3, 4]",a bad\n')
        ...     _ = found.write_text('{"text": "a bad", "spans": [[2, 4]]}\n')
        ...     round(score_span_files(gold, found).scores.f1, 2)
        0.8
    """
    if os.fspath(gold) == os.fspath(predicted) == "-":
        raise ValueError("the gold spans and those found cannot both be standard input")
    read = _Bytes(progress)
    readers = [
        RowReader(path, skip_bad_rows=skip_bad_rows, progress=read.watch())
        for path in (predicted, gold)
    ]
    waiting: dict[str, deque[LabelledRow]] = {}
    for row in read_spans(readers[0]):
        waiting.setdefault(row.text, deque()).append(row)
    pairs = []
    for row in read_spans(readers[1]):
        if not waiting.get(row.text):
            readers[1].refuse(row.line, f"no row of {readers[0].name} has this text")
            continue
        pairs.append((waiting[row.text].popleft().spans or [], row.spans or []))
    unused = sorted(row.line for rows in waiting.values() for row in rows)
    for line in unused:
        readers[0].refuse(line, f"no row of {readers[1].name} has this text")
    return _summarize(pairs, readers[::-1])


def score_finder(
    finder: SpanFinder,
    gold: str | os.PathLike[str],
    *,
    skip_bad_rows: bool = False,
    progress: Callable[[int], object] | None = None,
) -> SpanFileScores:
    r"""Returns the same of the spans that a finder finds in the texts of a file.

    Args:
        finder: a model and its settings.
        gold: as for `score_span_files`.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the number of texts of each block.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
        >>> from lmcore.detox.modeling_segment_cnn import SegmentCNNModel
        >>> from lmcore.detox.spans import SpanFinder
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> finder = SpanFinder(model, make_tokenizer(["a", "b"]), threshold=0.0)
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write('spans,text\n"[0, 1, 2]",A b\n'), file.flush()
        ...     score_finder(finder, file.name).scores.f1
        1.0
    """
    reader = RowReader(gold, skip_bad_rows=skip_bad_rows)
    pairs = []
    for block in split_rows(read_spans(reader), _BLOCK):
        found = finder.find([row.text for row in block])
        for row, one in zip(block, found, strict=True):
            places = [place for span in one.spans for place in range(span.start, span.end)]
            pairs.append((places, row.spans or []))
        if progress is not None:
            progress(len(block))
    return _summarize(pairs, [reader])


class _Bytes:
    """The bytes read of several files, one after the other."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done: list[int] = []

    def watch(self) -> Progress:
        """Returns the progress of one more file."""
        place = len(self._done)
        self._done.append(0)

        def update(done: int) -> None:
            self._done[place] = done
            if self._progress is not None:
                self._progress(sum(self._done))

        return update


def _summarize(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], readers: Sequence[RowReader]
) -> SpanFileScores:
    listed = [row for reader in readers for row in reader.listed_bad_rows]
    if not pairs:
        raise ValueError(f"{readers[0].name}: no row can be used; the first problem: {listed[0]}")
    return SpanFileScores(
        rows=len(pairs),
        scores=average([score_characters(found, expected) for found, expected in pairs]),
        bad_rows=sum(reader.bad_rows for reader in readers),
        listed_bad_rows=listed,
    )
