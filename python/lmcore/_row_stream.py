"""Rows of one file that become rows of another: worked on in any order, written in the input's.

A stream that ends early goes on when it is started again, and its file ends with the same bytes:

| file, beside the output | what it holds |
| --- | --- |
| `.<digest of the name>.lmcore-rows` | the rows so far; becomes the output when it is whole |
| `.<digest of the name>.lmcore-state` | which input rows they come from, and digests of both |

The state is written about once a second, after the rows that it speaks of, and renamed when it is
whole; rows behind it are made again. Nothing is trusted: rows that do not have the state's digest,
another beginning of the input and other settings are refused. A lock keeps a second process out.
A compressed output is compressed at its end, so that a state may stand after any row. Devices,
pipes and standard output are written as they are, and cannot go on.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import IO, Any, Self

from lmcore._files import find_output, naming_errors
from lmcore._partial import Partial, State
from lmcore._rows import Progress, Row, RowReader, parse_row
from lmcore._streams import STANDARD_OUTPUT, is_gzip, is_standard, open_output
from lmcore._text import to_json


class RowStream:
    r"""Rows of one file that become rows of another, in the same order.

    Iterate to read rows, and call `write` or `refuse` once for each, in any order; what is not yet
    due is held back. Reading ahead is up to the caller, and so is the memory that it takes. Rows
    that are not read when the `with` block ends stay out.

    Args:
        source: a JSONL file as for `RowReader`.
        target: where the rows go, as for `open_output`.
        recipe: all that the rows depend on besides the input, as JSON; a stream that was started
            with another recipe is not continued.
        resume: go on where a stream of this target ended, if one did; or start anew.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        save_seconds: least time between two states.
        progress: called with the bytes of the input read so far.
        parse: makes a row's object of a line, and raises `ValueError` if it cannot.
        head: takes the first line, where that is no row, such as the names of columns, and raises
            `ValueError` if it cannot.
        name: how errors call the source; its own name by default.
        by_block: hold what is written back until `release`, and go on from there alone: for rows
            that depend on which others they are worked on with.

    Raises:
        FileExistsError: rows of another recipe, input or process stand there.
        OSError: a file cannot be read or written.
        ValueError: the target is the source, or what stands there is broken.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     source, target = Path(folder, "in.jsonl"), Path(folder, "out.jsonl")
        ...     _ = source.write_text('{"n": 1}\n{"n": 2}\n')
        ...     with RowStream(source, target, {"add": 1}) as stream:
        ...         for row in sorted(stream, reverse=True):
        ...             stream.write(row, {"n": row.value["n"] + 1})
        ...     target.read_text()
        '{"n": 2}\n{"n": 3}\n'
    """

    def __init__(
        self,
        source: str | os.PathLike[str],
        target: str | os.PathLike[str],
        recipe: Mapping[str, Any],
        *,
        resume: bool = True,
        skip_bad_rows: bool = False,
        save_seconds: float = 1.0,
        progress: Progress | None = None,
        parse: Callable[[bytes], dict[str, Any]] = parse_row,
        head: Callable[[bytes], None] | None = None,
        name: str | None = None,
        by_block: bool = False,
    ) -> None:
        self._by_block = by_block
        self._parse = parse
        self._head = head
        self._reader = RowReader(source, skip_bad_rows=skip_bad_rows, progress=progress)
        if name is not None:
            self._reader.name = name
        self._target = target
        self._recipe = json.loads(json.dumps(recipe, allow_nan=False))
        self._resume = resume
        self._save_seconds = save_seconds
        self._stack = ExitStack()
        self._file: IO[bytes] | None = None
        self._partial: Partial | None = None
        self._pending: deque[_Pending] = deque()
        self._open: dict[int, _Pending] = {}
        self._state = State(recipe=self._recipe)
        self._input_digest = hashlib.blake2b(digest_size=16)
        self._output_digest = hashlib.blake2b(digest_size=16)
        self._resumed_rows = 0
        self._is_read = False
        self._is_between = True  # whether file, digests and state agree
        self._saved = time.monotonic()

    @property
    def rows(self) -> int:
        """Input rows that are done, without the bad ones, in this and earlier starts."""
        return self._state.rows

    @property
    def resumed_rows(self) -> int:
        """Those of them that an earlier start did."""
        return self._resumed_rows

    @property
    def bad_rows(self) -> int:
        """Input rows that could not be used, in this and earlier starts."""
        return self._reader.bad_rows

    @property
    def listed_bad_rows(self) -> list[str]:
        """Place and problem of the first 1000 of them."""
        return self._reader.listed_bad_rows

    def __enter__(self) -> Self:
        inputs: list[str | os.PathLike[str]] = [self._reader.path]
        if is_standard(self._reader.path):
            inputs = ["/dev/stdin"]
        with ExitStack() as stack:
            target = None if is_standard(self._target) else find_output(self._target, inputs)
            if target is None or (target.exists() and not target.is_file()):
                self._file = stack.enter_context(open_output(self._target, inputs))
            else:
                name = os.fspath(self._target)
                self._partial = stack.enter_context(Partial(name, target))
                if self._resume:
                    self._state = self._partial.load(self._recipe) or self._state
                self._output_digest = self._partial.cut(self._state)
                self._file = self._partial.file
                self._resumed_rows = self._state.rows
                self._reader.bad_rows = self._state.bad_rows
                self._reader.listed_bad_rows = list(self._state.listed_bad_rows)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                self._keep()
                # A device or pipe hears of the error; a file waits for the next start.
                if self._partial is None:
                    self._stack.__exit__(kind, error, trace)
            elif self._open:
                self._keep()
                lines = ", ".join(str(line) for line in list(self._open)[:3])
                raise RuntimeError(f"rows were read and not written: lines {lines}")
            else:
                self._drain()
                if self._partial is not None:
                    self._partial.finish(is_gzip=is_gzip(self._target))

    def __iter__(self) -> Iterator[Row]:
        """Yields the input rows that are not done yet.

        Raises:
            FileExistsError: the rows that are done came from another input.
            OSError: the file cannot be read.
            ValueError: it holds no rows, or one that cannot be used.
        """
        if self._is_read:
            raise RuntimeError("the rows of a stream are read once")
        self._is_read = True
        reader, digest = self._reader, self._input_digest
        begin, expected = self._state.line, self._state.input_digest
        is_checked = begin == 0
        head, has_rows = self._head, self._head is None
        for line, content in reader.contents():
            if head is not None:
                self._take_head(head, line, content)
                digest.update(content + b"\n")
                head = None
                continue
            has_rows = True
            if not is_checked and line > begin:
                break
            digest.update(content + b"\n")
            if line < begin:
                continue
            now = digest.hexdigest()
            if line == begin:
                is_checked = now == expected
                if not is_checked:
                    break
                continue
            pending = _Pending(line, now)
            self._pending.append(pending)
            self._open[line] = pending
            try:
                value = self._parse(content)
            except ValueError as error:
                self.refuse(Row(line, {}), str(error))
                continue
            yield Row(line, value)
        if not has_rows:
            raise ValueError(f"{reader.name}: the file holds no rows")
        if not is_checked:
            raise FileExistsError(
                f"{os.fspath(self._target)}: {self.rows} rows of it are there, made from another "
                f"beginning of {reader.name}; start anew without resume"
            )

    def write(self, row: Row, *values: Mapping[str, Any]) -> None:
        """Writes what became of a row, when its turn comes.

        Args:
            row: as it was read.
            values: objects of JSON; none, one or several for a row.

        Raises:
            OSError: the file cannot be written; the error names it.
            ValueError: the row was written or refused already.
        """
        content = "".join(to_json(value) + "\n" for value in values).encode()
        self._take(row).content = content
        if not self._by_block:
            self._drain()

    def refuse(self, row: Row, problem: str) -> None:
        """Leaves a row out that cannot be used, or raises.

        Args:
            row: as it was read.
            problem: what is wrong with it.

        Raises:
            ValueError: rows are not skipped, or the row was written or refused already.
        """
        if not self._reader.skips:
            self._reader.refuse(row.line, problem)
        self._take(row).problem = problem
        if not self._by_block:
            self._drain()

    def release(self) -> None:
        """Writes what is due of a block: a stream that ends early goes on behind it.

        Raises:
            OSError: the file cannot be written; the error names it.
        """
        self._drain()

    def _take_head(self, head: Callable[[bytes], None], line: int, content: bytes) -> None:
        try:
            head(content)
        except ValueError as error:
            raise ValueError(f"{self._reader.name}:{line}: {error}") from None

    def _take(self, row: Row) -> _Pending:
        pending = self._open.pop(row.line, None)
        if pending is None:
            raise ValueError(f"line {row.line} is not read, or written already")
        return pending

    def _drain(self) -> None:
        """Writes what is due."""
        state, file = self._state, self._file
        assert file is not None
        while self._pending and self._pending[0].is_done:
            pending = self._pending[0]
            self._is_between = False
            if pending.content is None:
                self._reader.note(pending.line, pending.problem or "")
                state.bad_rows = self._reader.bad_rows
                state.listed_bad_rows = self._reader.listed_bad_rows
            else:
                with naming_errors(STANDARD_OUTPUT if is_standard(self._target) else self._target):
                    file.write(pending.content)
                    if self._partial is None:
                        file.flush()
                self._output_digest.update(pending.content)
                state.output_bytes += len(pending.content)
                state.rows += 1
            state.line, state.input_digest = pending.line, pending.digest
            self._pending.popleft()
            # Within a block there is no place to go on from.
            self._is_between = not self._by_block
        self._is_between = True
        if self._partial is not None and time.monotonic() - self._saved >= self._save_seconds:
            self._save()

    def _save(self) -> None:
        assert self._partial is not None
        self._state.output_digest = self._output_digest.hexdigest()
        self._partial.save(self._state)
        self._saved = time.monotonic()

    def _keep(self) -> None:
        """Saves what is done before an early end, or removes the files if that is nothing."""
        if self._partial is None:
            return
        if not self._state.line:
            self._partial.remove()
        elif self._is_between:
            with suppress(OSError):  # the state before is whole, too
                self._save()


@dataclass(slots=True)
class _Pending:
    """A row that was read."""

    line: int
    digest: str
    """Of the input up to this line."""
    content: bytes | None = None
    """What became of it."""
    problem: str | None = None
    """Why it cannot be used."""

    @property
    def is_done(self) -> bool:
        return self.content is not None or self.problem is not None
