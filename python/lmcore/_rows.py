"""Rows of JSONL files, read and written, and those of CSV, read.

One reader and one writer for all commands. `RowReader` reads a file, a file of gzip (`.gz`) or
standard input (`-`); what is wrong with a row names file and line, and is listed and left out
where that is asked for. `RowWriter` writes a file, compressed where its name ends with `.gz`, a
device or pipe, or standard output (`-`). `lmcore._row_stream` turns rows into rows.

The module is private, as those of files and JSON are: it holds no idea of a paper, and its callers
are the systems.
"""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import IO, Any, NamedTuple, Self

from lmcore._json import parse_json, refuse_surrogates
from lmcore._streams import (
    is_standard,
    name_input,
    open_input,
    open_output,
)
from lmcore._text import to_json

_LISTED_ROWS = 1000
# As the core calls them.
_KINDS = {
    list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean",
    type(None): "null",
}  # fmt: skip

Progress = Callable[[int], object]
"""Called with the bytes of the input that were read so far, as they lie on the disk."""


class Row(NamedTuple):
    """A row of a file."""

    line: int
    """From 1; blank lines count, too."""
    value: dict[str, Any]


class RowReader:
    r"""The rows of a JSONL file, in order; blank lines are passed over.

    Args:
        path: the file; `.gz` is decompressed, `-` is standard input.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called with the bytes read so far.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"text": "a"}\n\n[]\n'), file.flush()
        ...     reader = RowReader(file.name, skip_bad_rows=True)
        ...     rows = list(reader)
        >>> rows, reader.bad_rows
        ([Row(line=1, value={'text': 'a'})], 1)
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        skip_bad_rows: bool = False,
        progress: Progress | None = None,
    ) -> None:
        self.path = path
        self.name = name_input(path)
        self.bad_rows = 0
        self.listed_bad_rows: list[str] = []
        self.skips = skip_bad_rows
        self._progress = progress

    def __iter__(self) -> Iterator[Row]:
        """Yields the rows.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no rows, or one that cannot be used.
        """
        for line, content in self.contents():
            value = self.parse(line, content)
            if value is not None:
                yield Row(line, value)

    def contents(self) -> Iterator[tuple[int, bytes]]:
        """Yields what stands in the lines that are not blank.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no such lines.
        """
        is_empty = True
        with open_input(self.path) as source:
            for line, content in source.lines():
                if self._progress is not None:
                    self._progress(source.read_bytes)
                if content:
                    is_empty = False
                    yield line, content
        if is_empty:
            raise ValueError(f"{self.name}: the file holds no rows")

    def records(self, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
        """Yields the records of a file of CSV whose first one names the columns.

        A field may hold line breaks: a record is named by the line that it begins in.

        Args:
            columns: that there must be; others are read as well.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no records or is not UTF-8, a column is missing or stands twice,
                or a record cannot be used.
        """
        names: list[str] | None = None
        is_empty = True
        for line, values in self._split_records():
            if names is None:
                names = values
                wrong = [name for name in columns if names.count(name) != 1]
                if wrong:
                    found = f"got {names!r:.80}"
                    raise ValueError(
                        f"{self.name}:{line}: expected columns {' and '.join(columns)}: {found}"
                    )
                continue
            is_empty = False
            if len(values) != len(names):
                self.refuse(line, f"expected {len(names)} columns: got {len(values)}")
                continue
            yield line, dict(zip(names, values, strict=True))
        if is_empty and not self.bad_rows:
            raise ValueError(f"{self.name}: the file holds no rows")

    def _split_records(self) -> Iterator[tuple[int, list[str]]]:
        """The fields of each record that is not blank."""
        with open_input(self.path) as source:
            text = io.TextIOWrapper(source.file, encoding="utf-8-sig", newline="")
            found = csv.reader(text, strict=True)
            line = 1
            while True:
                try:
                    values = next(found, None)
                except csv.Error as error:
                    self.refuse(line, f"not a record of CSV: {error}")
                    values = []
                except UnicodeDecodeError:
                    raise ValueError(f"{self.name}:{line}: not UTF-8") from None
                if self._progress is not None:
                    self._progress(source.read_bytes)
                if values is None:
                    return
                if values:
                    yield line, values
                line = found.line_num + 1

    def parse(self, line: int, content: bytes) -> dict[str, Any] | None:
        """Returns a row's object; None where the row is refused and skipped.

        Args:
            line: its number.
            content: what stands there.

        Raises:
            ValueError: the row cannot be used.
        """
        try:
            return parse_row(content)
        except ValueError as error:
            problem = str(error)
        self.refuse(line, problem)
        return None

    def refuse(self, line: int, problem: str) -> None:
        """Counts and lists a row that cannot be used, or raises.

        Args:
            line: its number.
            problem: what is wrong with it.

        Raises:
            ValueError: rows are not skipped; the text names file, line and problem.
        """
        if not self.skips:
            raise ValueError(f"{self.name}:{line}: {problem}")
        self.note(line, problem)

    def note(self, line: int, problem: str) -> None:
        """Counts and lists a bad row.

        Args:
            line: its number.
            problem: what is wrong with it.
        """
        self.bad_rows += 1
        if len(self.listed_bad_rows) < _LISTED_ROWS:
            self.listed_bad_rows.append(f"{self.name}:{line}: {problem}")


def is_csv(path: str | os.PathLike[str]) -> bool:
    """Returns whether a name is that of a file of CSV.

    Args:
        path: the file, perhaps compressed.

    Example:
        >>> is_csv("tsd_trial.csv.gz"), is_csv("-")
        (True, False)
    """
    return os.fspath(path).lower().removesuffix(".gz").endswith(".csv")


def parse_row(content: bytes) -> dict[str, Any]:
    """Returns the object that a line holds.

    Args:
        content: the line.

    Raises:
        ValueError: it is not UTF-8, not JSON or not an object, holds a key twice, a number that is
            not finite or a lone surrogate.

    Example:
        >>> parse_row(b'{"a": [1]}')
        {'a': [1]}
    """
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    try:
        value = parse_json(text)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected a JSON object, got {_KINDS[type(value)]}")
    refuse_surrogates(value, text)
    return value


class RowWriter:
    r"""Writes rows that come from elsewhere, one after the other; each is on its way at once.

    Args:
        path: as for `open_output`.
        inputs: files that it must not be.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with RowWriter(Path(folder, "a.jsonl")) as rows:
        ...         rows.write({"n": 1})
        ...     Path(folder, "a.jsonl").read_text()
        '{"n": 1}\n'
    """

    def __init__(
        self, path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        self._output = open_output(path, inputs)
        self._file: IO[bytes] | None = None
        self._encoding = "utf-8"
        if is_standard(path):
            # A terminal of another encoding gets the numbers of what it cannot show.
            self._encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
        self._flushes = is_standard(path)

    def __enter__(self) -> Self:
        self._file = self._output.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._output.__exit__(kind, error, trace)

    def write(self, value: Mapping[str, Any]) -> None:
        """Writes a row.

        Args:
            value: an object of JSON.

        Raises:
            OSError: it cannot be written; the error names the output at the end.
            ValueError: it holds a number that is not finite.
        """
        assert self._file is not None
        self._file.write(f"{to_json(value, encoding=self._encoding)}\n".encode(self._encoding))
        if self._flushes:
            self._file.flush()

    def write_lines(self, lines: bytes) -> None:
        """Writes rows that are JSON by now.

        Args:
            lines: UTF-8 of any number of them, each as `to_json` makes it of an object, with a
                line break at its end.

        Raises:
            OSError: they cannot be written; the error names the output at the end.
        """
        assert self._file is not None
        if self._encoding.lower() not in ("utf-8", "utf8"):
            # What the terminal cannot show is escaped, row by row.
            for line in lines.splitlines():
                self.write(json.loads(line))
            return
        self._file.write(lines)
        if self._flushes:
            self._file.flush()
