"""Inputs and outputs by name: files, files of gzip (`.gz`), and standard input and output (`-`)."""

from __future__ import annotations

import errno
import gzip
import io
import os
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import IO, Any, BinaryIO, cast

from lmcore._files import naming_errors, whole_file

STANDARD_INPUT = "standard input"
STANDARD_OUTPUT = "standard output"

# That are read, or written, at once.
READ_BYTES = 1 << 16
# Python's usual level, 9, takes several times as long for files one percent smaller.
_LEVEL = 6
_BROKEN_GZIP = (EOFError, zlib.error, gzip.BadGzipFile)


@contextmanager
def open_input(path: str | os.PathLike[str]) -> Iterator[Input]:
    """Yields the bytes of a file, of one of gzip where the name ends with `.gz`, or of `-`.

    Args:
        path: the file; `-` is standard input.

    Raises:
        OSError: it cannot be read; the error names it.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.gz")
        ...     _ = file.write_bytes(gzip.compress(b"text"))
        ...     with open_input(file) as source:
        ...         source.file.read()
        b'text'
    """
    name = name_input(path)
    with ExitStack() as stack:
        with naming_errors(name):
            if is_standard(path):
                raw = stack.enter_context(io.FileIO(0, closefd=False))
            else:
                raw = stack.enter_context(io.FileIO(os.fspath(path)))
        counted = _Counted(raw)
        file: BinaryIO = io.BufferedReader(counted, READ_BYTES)
        if is_gzip(path):
            file = cast(BinaryIO, gzip.GzipFile(fileobj=file, mode="rb"))
        yield Input(name, file, counted)


@contextmanager
def open_output(
    path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[IO[bytes]]:
    """Yields a file to write: whole under its name at the end, or not there.

    Args:
        path: as for `whole_file`, compressed where the name ends with `.gz`; `-` is standard
            output.
        inputs: files that it must not be.

    Raises:
        OSError: it cannot be written; the error names it.
        ValueError: it is an input.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.gz")
        ...     with open_output(file) as target:
        ...         _ = target.write(b"text")
        ...     gzip.decompress(file.read_bytes())
        b'text'
    """
    if is_standard(path):
        with naming_errors(STANDARD_OUTPUT):
            if sys.stdout is None:  # the process was started without it
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            sys.stdout.flush()
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    with whole_file(path, inputs) as place, open(place, "wb", buffering=READ_BYTES) as file:
        if is_gzip(path):
            with compress(file) as compressed:
                yield cast(IO[bytes], compressed)
        else:
            yield file


def name_input(path: str | os.PathLike[str]) -> str:
    """Returns how errors call an input.

    Args:
        path: a file, or `-`.

    Example:
        >>> name_input("a.jsonl"), name_input("-")
        ('a.jsonl', 'standard input')
    """
    return STANDARD_INPUT if is_standard(path) else os.fspath(path)


def is_standard(path: str | os.PathLike[str]) -> bool:
    """Returns whether a name stands for standard input or output.

    Args:
        path: a name.

    Example:
        >>> is_standard("-"), is_standard("./-")
        (True, False)
    """
    return os.fspath(path) == "-"


def is_gzip(path: str | os.PathLike[str]) -> bool:
    """Returns whether a name says that the file is compressed.

    Args:
        path: a name.

    Example:
        >>> is_gzip("a.jsonl.gz"), is_gzip("a.jsonl")
        (True, False)
    """
    return os.fspath(path).endswith(".gz")


class Input:
    """The bytes of an input, and how many of them were read.

    Args:
        name: how errors call it.
        file: the bytes.
        counted: what counts them.
    """

    def __init__(self, name: str, file: BinaryIO, counted: _Counted) -> None:
        self.name = name
        self.file = file
        self._counted = counted

    @property
    def read_bytes(self) -> int:
        """Bytes that were read, as they lie on the disk: of gzip the compressed ones."""
        return self._counted.count

    def read(self) -> bytes:
        """Returns the next bytes; none at the end.

        Raises:
            ValueError: the file is not of gzip, or broken.
        """
        try:
            with naming_errors(self.name):
                return self.file.read(READ_BYTES)
        except _BROKEN_GZIP as error:
            raise ValueError(f"{self.name}: not a whole file of gzip: {error}") from None

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yields the lines with their numbers, without what ends them and a byte order mark.

        Raises:
            OSError: the file cannot be read.
            ValueError: the file is not of gzip, or broken.
        """
        number = 0
        try:
            with naming_errors(self.name):
                for number, line in enumerate(self.file, 1):
                    text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
                    yield number, text.rstrip(b" \t\r\n")
        except _BROKEN_GZIP as error:
            raise ValueError(
                f"{self.name}:{number + 1}: not a whole file of gzip: {error}"
            ) from None


def compress(file: IO[bytes]) -> gzip.GzipFile:
    """Returns a writer of gzip; equal bytes become equal files: no name and no time stands there.

    Args:
        file: where the compressed bytes go.

    Example:
        >>> with io.BytesIO() as file:
        ...     with compress(file) as compressed:
        ...         _ = compressed.write(b"text")
        ...     gzip.decompress(file.getvalue())
        b'text'
    """
    return gzip.GzipFile(filename="", mode="wb", compresslevel=_LEVEL, fileobj=file, mtime=0)


class _Counted(io.RawIOBase):
    """A file that counts what is read from it."""

    def __init__(self, raw: io.FileIO) -> None:
        self.raw = raw
        self.count = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        got = self.raw.readinto(buffer)
        self.count += got or 0
        return got
