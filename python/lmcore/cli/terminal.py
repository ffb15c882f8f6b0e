"""What commands print. Texts from data are escaped: see `lmcore._text`."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from lmcore._text import escape, to_json

__all__ = [
    "STANDARD_OUTPUT", "abandon", "ask", "is_first_process", "name_output", "say", "show",
    "show_bytes", "show_json", "show_part",
]  # fmt: skip

STANDARD_INPUT = "standard input"
STANDARD_OUTPUT = "standard output"


def show(text: str) -> None:
    """Prints lines on standard output; what in them comes from data is escaped already.

    Args:
        text: lines.

    Raises:
        OSError: standard output takes no more; the error names it.
    """
    _write(sys.stdout, STANDARD_OUTPUT, text)


def show_part(text: str) -> None:
    """Prints a part of a text of several lines on standard output at once, escaped.

    Args:
        text: the part; line breaks in it are such.

    Raises:
        OSError: standard output takes no more; the error names it.
    """
    lines = "\n".join(map(escape, text.split("\n")))
    _write(sys.stdout, STANDARD_OUTPUT, lines, end="")


def ask() -> bytes | None:
    """Returns the next line of standard input, without its end; None where there is no more.

    On a terminal a mark on standard error says that a line is waited for.

    Raises:
        OSError: standard input cannot be read; the error names it.
    """
    with name_output(STANDARD_INPUT):
        if sys.stdin is None:  # the process was started without it
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if sys.stdin.isatty():
            _write(sys.stderr, "standard error", "> ", end="")
        line = sys.stdin.buffer.readline()
    return line.rstrip(b" \t\r\n") if line else None


def show_json(value: Any, indent: int | None = None) -> None:
    """Prints JSON on standard output.

    Args:
        value: what `json.dumps` takes.
        indent: as for `json.dumps`.

    Raises:
        OSError: standard output takes no more; the error names it.
    """
    _write(sys.stdout, STANDARD_OUTPUT, to_json(value, indent, _encoding(sys.stdout)))


def say(text: str) -> None:
    """Prints one line on standard error, escaped.

    Args:
        text: the line.

    Raises:
        OSError: standard error takes no more; the error names it.
    """
    _write(sys.stderr, "standard error", escape(text))


def is_first_process() -> bool:
    """Returns whether this process speaks for all: the first of torchrun's, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def abandon(stream: TextIO | None) -> None:
    """Gives up a stream: what it holds back cannot be written at the exit either.

    Args:
        stream: standard output or standard error.
    """
    with contextlib.suppress(OSError, ValueError, AttributeError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())  # type: ignore[union-attr]
        os.close(null)


@contextlib.contextmanager
def show_bytes(paths: Sequence[str], *, quiet: bool = False) -> Iterator[Callable[[int], None]]:
    """Yields what moves a bar over the bytes of all files, where somebody is looking.

    Args:
        paths: the files.
        quiet: whether there is no bar.
    """
    from tqdm import tqdm

    sizes = [Path(path).stat().st_size if Path(path).is_file() else 0 for path in paths]
    disable = True if quiet else None
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=disable, leave=False) as bar:
        yield lambda done: bar.update(done - bar.n)


@contextlib.contextmanager
def name_output(name: str) -> Iterator[None]:
    """Names a stream in the system's errors, which say none.

    Args:
        name: of the stream.

    Example:
        >>> try:
        ...     with name_output("standard output"):
        ...         raise OSError(errno.ENOSPC, "No space left on device")
        ... except OSError as error:
        ...     print(error.filename)
        standard output
    """
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, name) from None


def _encoding(stream: TextIO | None) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _write(stream: TextIO | None, name: str, text: str, end: str = "\n") -> None:
    encoding = _encoding(stream)
    with name_output(name):
        if stream is None:  # the process was started without it
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        # A terminal of another encoding gets the numbers of what it cannot show.
        stream.write(text.encode(encoding, "backslashreplace").decode(encoding) + end)
        stream.flush()
