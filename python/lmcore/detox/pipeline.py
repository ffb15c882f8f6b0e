"""Files of prompts through one step of detoxification or several, row by row."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lmcore._row_stream import RowStream
from lmcore._rows import Row, parse_row
from lmcore.detox.data import find_form, parse_line
from lmcore.detox.row_blocks import BlockProgress, check_absent, write_blocks
from lmcore.detox.step_rows import PromptReading
from lmcore.detox.steps import Step

# Rows that go through all steps together, and are written at once.
_BLOCK_ROWS = 32


@dataclass(kw_only=True, slots=True, frozen=True)
class PipelineSummary:
    """What was done to a file; counts are of this start."""

    rows: int
    """Rows of the input that are done, from earlier starts as well."""
    resumed_rows: int
    """Those of earlier starts, which the counts do not hold."""
    bad_rows: int
    listed_bad_rows: list[str]
    counts: dict[str, int] = field(default_factory=dict)
    """By name: of mask, `passed`, `masked`, `masks`; of fill, `attempts`, `rephrased`, `unclean`,
    `dissimilar`, `unfilled`, `missed` (toxic, and nothing masked), `lost_mask`, `copied_mask`,
    `empty`, `cut_texts`; of continue, `samples`, `empty_samples`, `not_continued`; of select,
    `selected`, `left_out`, `without_samples`."""


def run_steps(
    steps: Sequence[Step],
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    form: str = "auto",
    field: str | None = None,
    resume: bool = True,
    skip_bad_rows: bool = False,
    block_rows: int = _BLOCK_ROWS,
    progress: BlockProgress | None = None,
) -> PipelineSummary:
    r"""Writes the rows of a file with what steps add to them, in their order.

    Noise belongs to a seed and to the line of a row, so that a file that went through one step
    after the other has the rows of one that went through all at once, as long as no row is left
    out in between.

    Args:
        steps: one at least, in their order.
        source: rows as for `lmcore.detox.data`; `.gz` is decompressed, `-` is standard input.
        target: where the rows go, as JSONL; `-` is standard output.
        form: of the source, one of `lmcore.detox.data.FORMS`.
        field: the key of the prompt; `text` or `prompt` if None.
        resume: go on where an earlier run ended; otherwise start anew. With a scorer or a
            similarity that has no `key` the file is begun anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        block_rows: rows that go through all steps together.
        progress: called with the number of rows of each block.

    Raises:
        FileExistsError: another run's rows stand there, or one is writing.
        OSError: a file cannot be read or written.
        TypeError: a scorer returned something that is no number.
        ValueError: a row cannot be used, with file and line, or a scorer returned something else
            than numbers from 0 to 1.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.detox.steps import SelectStep
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"prompt": "the sea", "generations": ["is blue"]}\n')
        ...     step = SelectStep(scorer=lambda texts: [0.1 for _ in texts])
        ...     run_steps([step], source, target).counts["selected"]
        1
    """
    if not steps:
        raise ValueError("steps must hold one at least")
    form = find_form(source, form)
    reading = PromptReading(form=form, field=field)
    described = [step.describe() for step in steps]
    recipe = {"steps": described, "format": form, "field": field, "block_rows": block_rows}
    counts: Counter[str] = Counter()
    keys = [key for step in steps for key in step.keys]

    def check(row: Mapping[str, Any]) -> None:
        check_absent(row, keys)
        steps[0].check(row, reading)

    def work(rows: Sequence[Row]) -> list[Mapping[str, Any] | ValueError]:
        return _pass_through(steps, rows, reading, counts)

    with RowStream(
        source, target, recipe, resume=resume and None not in described, by_block=True,
        skip_bad_rows=skip_bad_rows, parse=parse_line if form == "lines" else parse_row,
    ) as stream:  # fmt: skip
        write_blocks(stream, block_rows, check, work, progress)
    return PipelineSummary(
        rows=stream.rows, resumed_rows=stream.resumed_rows, bad_rows=stream.bad_rows,
        listed_bad_rows=list(stream.listed_bad_rows), counts=dict(counts),
    )  # fmt: skip


def _pass_through(
    steps: Sequence[Step], rows: Sequence[Row], reading: PromptReading, counts: Counter[str]
) -> list[Mapping[str, Any] | ValueError]:
    """What all steps add to each row, or why one cannot take it."""
    made: list[dict[str, Any] | ValueError] = [{} for _ in rows]
    for step in steps:
        taken: list[tuple[int, dict[str, Any]]] = []
        for place, row in enumerate(rows):
            own = made[place]
            if isinstance(own, ValueError):
                continue
            value = {**row.value, **own}
            try:
                step.check(value, reading)
            except ValueError as error:
                made[place] = error
                continue
            taken.append((place, value))
        numbers = [rows[place].line for place, _ in taken]
        added = step.add([value for _, value in taken], numbers, reading, counts)
        for (place, _), new in zip(taken, added, strict=True):
            before = made[place]
            assert isinstance(before, dict)
            made[place] = before | new
    return [*made]
