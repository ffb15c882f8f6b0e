"""Blocks of rows of one file that become rows of another; each is a function of the input alone.

So a run that was killed goes on behind the last whole block and ends with the same bytes: how
numbers are rounded depends on what stands in a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lmcore._row_stream import RowStream
from lmcore._rows import Row

BlockWork = Callable[[Sequence[Row]], Sequence[Mapping[str, Any] | ValueError]]
"""Rows of a block to what is added to each, or what is wrong with it."""
BlockProgress = Callable[[int], object]
"""Called with the rows of each block that is done."""


def check_absent(row: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Returns nothing if a row has no key that would be written over.

    Args:
        row: of a file.
        keys: that are written.

    Raises:
        ValueError: it has one.

    Example:
        >>> check_absent({"masks": 1}, ["masks"])
        Traceback (most recent call last):
        ValueError: masks stands in the row, and would be written over
    """
    present = next((key for key in keys if key in row), None)
    if present is not None:
        raise ValueError(f"{present} stands in the row, and would be written over")


def write_blocks(
    stream: RowStream,
    block_rows: int,
    check: Callable[[Mapping[str, Any]], object],
    work: BlockWork,
    progress: BlockProgress | None = None,
) -> None:
    r"""Writes each row of a stream with what is added to it; rows that cannot be used are refused.

    Args:
        stream: open, and by block.
        block_rows: rows of a block.
        check: raises `ValueError` for a row that cannot be used.
        work: is given the rows of a block that can.
        progress: called with the number of rows of each block.

    Raises:
        FileExistsError: the rows that are done came from another input.
        OSError: a file cannot be read or written.
        ValueError: there are no rows in a block, or a row cannot be used and is not skipped.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"n": 1}\n{"n": 2}\n')
        ...     with RowStream(source, target, {}, by_block=True) as stream:
        ...         write_blocks(stream, 8, len, lambda rows: [{"rows": len(rows)}] * len(rows))
        ...     target.read_text()
        '{"n": 1, "rows": 2}\n{"n": 2, "rows": 2}\n'
    """
    if block_rows < 1:
        raise ValueError(f"block_rows must be at least 1: got {block_rows}")
    block: list[Row] = []

    def finish() -> None:
        usable = [row for row in block if _is_usable(stream, row, check)]
        if usable:
            for row, added in zip(usable, work(usable), strict=True):
                if isinstance(added, ValueError):
                    stream.refuse(row, str(added))
                else:
                    stream.write(row, {**row.value, **added})
        stream.release()
        if progress is not None and block:
            progress(len(block))
        block.clear()

    for row in stream:
        block.append(row)
        if len(block) == block_rows:
            finish()
    finish()


def _is_usable(stream: RowStream, row: Row, check: Callable[[Mapping[str, Any]], object]) -> bool:
    try:
        check(row.value)
    except ValueError as error:
        stream.refuse(row, str(error))
        return False
    return True
