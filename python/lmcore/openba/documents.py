"""Documents of text files, JSONL files and parquet files, one after the other.

| name ends with | a document is |
| --- | --- |
| `.jsonl`, `.ndjson`, `.json`, also with `.gz` | the text under `text` of each line |
| `.parquet` | the text in the column `text` of each row |
| anything else, also with `.gz` | a line |

A text whose paragraphs belong together is a JSONL file: in a text file each line is a document of
its own. Blank lines are passed over, and spaces at the end of a line.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from lmcore._extras import optional_imports
from lmcore._rows import parse_row
from lmcore._streams import name_input, open_input

FORMS = ("auto", "text", "jsonl", "parquet")
_ROWS_AT_ONCE = 256


class RawDocument(NamedTuple):
    """A document as it lies in its file."""

    name: str
    """Of the file."""
    line: int
    """From 1; of parquet the row."""
    content: bytes
    form: str

    def parse(self, key: str = "text") -> str:
        """Returns the text.

        Args:
            key: of the text, in JSONL.

        Raises:
            ValueError: there is none, or it is not UTF-8.
        """
        if self.form == "jsonl":
            text = parse_row(self.content).get(key)
            if not isinstance(text, str):
                raise ValueError(f"expected a text under {key!r:.60}, got {text!r:.60}")
            return text
        try:
            return self.content.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None


def find_form(path: str | os.PathLike[str], form: str = "auto") -> str:
    """Returns the form of a file: that which was given, or what its name says.

    Args:
        path: the file.
        form: one of `FORMS`.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> find_form("a.jsonl.gz"), find_form("b.txt"), find_form("-", "jsonl")
        ('jsonl', 'text', 'jsonl')
    """
    if form not in FORMS:
        raise ValueError(f"format must be one of {', '.join(FORMS)}: got {form!r}")
    if form != "auto":
        return form
    name = os.fspath(path).lower().removesuffix(".gz")
    if name.endswith((".jsonl", ".ndjson", ".json")):
        return "jsonl"
    return "parquet" if name.endswith(".parquet") else "text"


def read_documents(
    files: Sequence[str | os.PathLike[str]],
    *,
    form: str = "auto",
    key: str = "text",
    progress: Callable[[int], object] | None = None,
) -> Iterator[RawDocument]:
    r"""Yields the documents of files, as they lie there.

    Args:
        files: their names; `.gz` is decompressed, `-` is standard input.
        form: one of `FORMS`.
        key: the column of the texts, in parquet.
        progress: called with the bytes read so far, of all files.

    Raises:
        ImportError: pyarrow is not installed, and a file is of parquet.
        OSError: a file cannot be read.
        ValueError: a file is broken, or there is no such form.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.txt")
        ...     _ = file.write_text("First.\n\nSecond.\n")
        ...     [(document.line, document.parse()) for document in read_documents([file])]
        [(1, 'First.'), (3, 'Second.')]
    """
    before = 0
    for path in files:
        kind = find_form(path, form)
        read = 0
        rows = _read_rows(path, key) if kind == "parquet" else _read_lines(path, kind)
        for read, document in rows:
            if progress is not None:
                progress(before + read)
            yield document
        before += read


def _read_lines(path: str | os.PathLike[str], form: str) -> Iterator[tuple[int, RawDocument]]:
    name = name_input(path)
    with open_input(path) as source:
        for number, line in source.lines():
            if line.strip():
                yield source.read_bytes, RawDocument(name, number, line, form)


def _read_rows(path: str | os.PathLike[str], key: str) -> Iterator[tuple[int, RawDocument]]:
    with optional_imports():
        import pyarrow
        from pyarrow import parquet

    name = os.fspath(path)
    with open(path, "rb") as raw:
        size = os.fstat(raw.fileno()).st_size
        try:
            file = parquet.ParquetFile(raw)
            fields = {field.name: field.type for field in file.schema_arrow}
            kind = fields.get(key)
            if kind not in (pyarrow.string(), pyarrow.large_string()):
                found = ", ".join(fields) if kind is None else str(kind)
                raise ValueError(f"expected texts in the column {key!r:.60}, got {found!r:.60}")
            rows, total = 0, max(file.metadata.num_rows, 1)
            for batch in file.iter_batches(_ROWS_AT_ONCE, columns=[key]):
                for text in batch.column(0).to_pylist():
                    rows += 1
                    if text is not None and text.strip():
                        read = size * rows // total
                        yield read, RawDocument(name, rows, text.encode(), "parquet")
        except (ValueError, OSError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            reason = str(error).split("\n", 1)[0]
            raise ValueError(f"{name}: not a usable parquet file: {reason:.200}") from None
