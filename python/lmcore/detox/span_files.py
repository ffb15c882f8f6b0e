"""Files of texts to files of spans and of masked texts, row by row.

A block of rows is a function of the input alone, so that a run that was killed goes on behind the
last whole block and ends with the same bytes: how numbers are rounded depends on what stands in a
batch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._row_stream import RowStream
from lmcore._rows import Row
from lmcore.detox.masking import MASK_FORMS, mask_texts
from lmcore.detox.span_rows import find_number, find_text
from lmcore.detox.spans import SpanFinder
from lmcore.training.fingerprint import fingerprint_model

SpanProgress = Callable[[int], object]
"""Called with the rows of each block that is done."""

# Rows that are sorted by length together.
_BLOCK_ROWS = 1024
_SPAN_KEYS = ("spans", "span_texts", "span_scores", "text_score")
_MASK_KEYS = ("masked", "masks")

Work = Callable[[Sequence[Row]], list[dict[str, Any]]]


@dataclass(kw_only=True, slots=True, frozen=True)
class SpanSummary:
    """What was done to a file."""

    rows: int
    """Rows of the input that are done, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts below do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    toxic: int
    """Rows with a span, or with a mask."""
    spans: int
    """Spans, or masks, of all rows."""
    windowed: int = 0
    """Texts that are longer than a window."""
    passed: int = 0
    """Prompts that are not toxic by their own score, and were passed on as they are."""


def find_spans_file(
    finder: SpanFinder,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    resume: bool = True,
    skip_bad_rows: bool = False,
    block_rows: int = _BLOCK_ROWS,
    progress: SpanProgress | None = None,
) -> SpanSummary:
    r"""Writes the toxic spans of each text of a file, in the order of the input.

    A row is that of the input with `spans`, half-open ranges of characters of its text,
    `span_texts`, `span_scores`, and `text_score`, the probability that the text is toxic.

    Args:
        finder: a model and its settings.
        source: JSONL with `text`, `content` or `prompt` (a text, or an object with `text`); `.gz`
            is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        block_rows: rows that are sorted by length together, and written at once.
        progress: called with the number of rows of each block.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: a row cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
        >>> from lmcore.detox.modeling_segment_cnn import SegmentCNNModel
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> finder = SpanFinder(model, make_tokenizer(["a", "b"]), threshold=0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"text": "A b"}\n')
        ...     find_spans_file(finder, source, target).spans
        1
    """
    windowed = 0

    def work(rows: Sequence[Row]) -> list[dict[str, Any]]:
        nonlocal windowed
        found = finder.find([find_text(row.value) for row in rows])
        windowed += sum(one.windows > 1 for one in found)
        return [
            {
                "spans": [[span.start, span.end] for span in one.spans],
                "span_texts": [span.text for span in one.spans],
                "span_scores": [span.score for span in one.spans],
                "text_score": round(one.toxicity, 6),
            }
            for one in found
        ]

    return _write_rows(
        finder, source, target, ("spans", _SPAN_KEYS), work, lambda added: len(added["spans"]),
        {"resume": resume, "skip_bad_rows": skip_bad_rows}, block_rows, progress,
        lambda: {"windowed": windowed},
    )  # fmt: skip


def mask_file(
    finder: SpanFinder,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    form: str = "pieces",
    prompt_threshold: float | None = 0.5,
    resume: bool = True,
    skip_bad_rows: bool = False,
    block_rows: int = _BLOCK_ROWS,
    progress: SpanProgress | None = None,
) -> SpanSummary:
    r"""Writes each prompt of a file with masks in place of its toxic spans.

    A row is that of the input with `masked` and `masks`, their number. A prompt whose own score,
    `toxicity` or RealToxicityPrompts' `prompt.toxicity`, is not above a threshold is passed on as
    it is, with no mask; of one without a score the model alone decides.

    Source: Detox-Chain (arXiv 2308.08295), section 3.1 of the specification.

    Args:
        finder: a model and its settings.
        source: prompts as for `find_spans_file`.
        target: where the rows go, as JSONL; `-` is standard output.
        form: one of `lmcore.detox.masking.MASK_FORMS`.
        prompt_threshold: prompts are masked whose own score is above; None: all are.
        resume: go on where an earlier run ended; otherwise start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        block_rows: rows that are sorted by length together, and written at once.
        progress: called with the number of rows of each block.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        ValueError: there is no such form, or a row cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
        >>> from lmcore.detox.modeling_segment_cnn import SegmentCNNModel
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> finder = SpanFinder(model, make_tokenizer(["a", "b"]), threshold=0.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"prompt": "A b", "toxicity": 0.9}\n')
        ...     _ = mask_file(finder, source, target)
        ...     target.read_text()
        '{"prompt": "A b", "toxicity": 0.9, "masked": "<MASK>", "masks": 1}\n'
    """
    if form not in MASK_FORMS:
        raise ValueError(f"form must be one of {', '.join(MASK_FORMS)}: got {form!r:.60}")
    passed = 0

    def is_asked(row: Row) -> bool:
        score = find_number(row.value, "toxicity")
        return prompt_threshold is None or score is None or score > prompt_threshold

    def work(rows: Sequence[Row]) -> list[dict[str, Any]]:
        nonlocal passed
        asked = [row for row in rows if is_asked(row)]
        passed += len(rows) - len(asked)
        masked = iter(mask_texts(finder, [find_text(row.value) for row in asked], form=form))
        return [
            {"masked": (one := next(masked)).masked, "masks": one.masks}
            if is_asked(row)
            else {"masked": find_text(row.value), "masks": 0}
            for row in rows
        ]

    return _write_rows(
        finder, source, target, (f"mask {form} {prompt_threshold}", _MASK_KEYS), work,
        lambda added: int(added["masks"]), {"resume": resume, "skip_bad_rows": skip_bad_rows},
        block_rows, progress, lambda: {"passed": passed},
    )  # fmt: skip


def _write_rows(
    finder: SpanFinder,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    step: tuple[str, Sequence[str]],
    work: Work,
    count: Callable[[dict[str, Any]], int],
    options: dict[str, Any],
    block_rows: int,
    progress: SpanProgress | None,
    more: Callable[[], dict[str, int]],
) -> SpanSummary:
    """Writes rows with what `work` adds to them, a block at a time."""
    if block_rows < 1:
        raise ValueError(f"block_rows must be at least 1: got {block_rows}")
    name, keys = step
    recipe = {
        "step": name, "block_rows": block_rows, **finder.describe(),
        "model": fingerprint_model(finder.model, finder.tokenizer),
    }  # fmt: skip
    toxic = spans = 0
    with RowStream(source, target, recipe, by_block=True, **options) as stream:
        block: list[Row] = []

        def finish() -> None:
            nonlocal toxic, spans
            usable = [row for row in block if _is_usable(stream, row, keys)]
            for row, added in zip(usable, work(usable), strict=True):
                stream.write(row, {**row.value, **added})
                toxic += count(added) > 0
                spans += count(added)
            stream.release()
            if progress is not None and block:
                progress(len(block))
            block.clear()

        for row in stream:
            block.append(row)
            if len(block) == block_rows:
                finish()
        finish()
    return SpanSummary(
        rows=stream.rows,
        resumed_rows=stream.resumed_rows,
        bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows),
        toxic=toxic,
        spans=spans,
        **more(),
    )


def _is_usable(stream: RowStream, row: Row, keys: Sequence[str]) -> bool:
    try:
        find_text(row.value)
        find_number(row.value, "toxicity")
        present = next((key for key in keys if key in row.value), None)
        if present is not None:
            raise ValueError(f"{present} stands in the row, and would be written over")
    except ValueError as error:
        stream.refuse(row, str(error))
        return False
    return True
