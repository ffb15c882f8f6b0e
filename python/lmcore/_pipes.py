"""Names for code that opens files by itself: the core reads and writes what Python (de)compresses.

The core streams files by their names. A file of gzip is decompressed by a thread into a pipe that
has a name, and what the core writes into another is compressed, or printed, by a second thread.
Files that need neither keep their names, and are read and written as if this module were not here.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from typing import IO

from lmcore._files import whole_file
from lmcore._streams import (
    READ_BYTES,
    Input,
    is_gzip,
    is_standard,
    name_input,
    open_input,
    open_output,
)

# After an error, a thread that waits for the writer of a named pipe is left behind.
_WAIT_SECONDS = 0.2


@dataclass(slots=True)
class Names:
    """Names of an input and an output that can be opened as they are."""

    source: str
    target: str
    named: str
    """How texts shall call the source."""
    input: Input | None = None
    """What is decompressed."""

    def count_bytes(self, done: int) -> int:
        """Returns the bytes of the input on the disk, for those that its reader has counted.

        Args:
            done: bytes that the reader of `source` has done.
        """
        return done if self.input is None else self.input.read_bytes

    def show(self, text: str) -> str:
        """Returns a text that begins with the source's name, with the one that the user knows.

        Args:
            text: such as the problem of a row.
        """
        return self.named + text.removeprefix(self.source) if text.startswith(self.source) else text


@contextmanager
def open_names(source: str, target: str) -> Iterator[Names]:
    """Yields names under which an input and an output can be opened.

    Args:
        source: a file, one of gzip (`.gz`), or `-`.
        target: a file, one of gzip, or `-`; whole under its name at the end, or not there.

    Raises:
        OSError: a file cannot be read or written; the error names it.
        TypeError: as raised within, with the name of the source as given.
        ValueError: likewise, or the source is no file of gzip, or the target is the source.

    Example:
        >>> with open_names("a.jsonl", "b.jsonl") as names:
        ...     names.source, names.target
        ('a.jsonl', 'b.jsonl')
    """
    special = [is_gzip(name) or is_standard(name) for name in (source, target)]
    names = Names(source, target, name_input(source))
    if not any(special):
        yield names
        return
    inputs = ["/dev/stdin" if is_standard(source) else source]
    with ExitStack() as stack:
        if special[1]:
            file = stack.enter_context(open_output(target, inputs))
            names.target = stack.enter_context(_collect(file))
        else:
            names.target = os.fspath(stack.enter_context(whole_file(target, inputs)))
        if is_standard(source):
            names.source = "/dev/stdin"
        elif special[0]:
            names.input = stack.enter_context(open_input(source))
            names.source = stack.enter_context(feed(iter(names.input.read, b"")))
        with _renamed(names):
            yield names


@contextmanager
def feed(parts: Iterable[bytes]) -> Iterator[str]:
    """Yields the name of a pipe into which bytes are written by a thread.

    Args:
        parts: the bytes; what they raise comes out at the end.

    Example:
        >>> with feed([b"a", b"b"]) as name, open(name, "rb") as pipe:
        ...     pipe.read()
        b'ab'
    """
    read, write = os.pipe()

    def work() -> None:
        with open(write, "wb", buffering=0) as pipe, suppress(BrokenPipeError):
            for part in parts:
                _write_whole(pipe, part)

    with _thread(work, lambda: os.close(read)):
        yield f"/dev/fd/{read}"


def _write_whole(pipe: IO[bytes], part: bytes) -> None:
    """A raw file may take less than it is given."""
    rest = memoryview(part)
    while rest:
        rest = rest[pipe.write(rest) :]


@contextmanager
def _collect(file: IO[bytes]) -> Iterator[str]:
    """Yields the name of a pipe out of which a file is written."""
    read, write = os.pipe()

    def work() -> None:
        with open(read, "rb", buffering=0) as pipe:
            shutil.copyfileobj(pipe, file, READ_BYTES)

    with _thread(work, lambda: os.close(write)):
        yield f"/dev/fd/{write}"


@contextmanager
def _thread(work: Callable[[], None], stop: Callable[[], None]) -> Iterator[None]:
    """Works meanwhile; an error there comes out in place of what it made fail here."""
    failed: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    thread = Thread(target=run, daemon=True)
    thread.start()
    ended: Sequence[BaseException] = ()
    try:
        yield
    except BaseException as error:
        ended = (error,)
    finally:
        stop()
        # Its last word is heard before anything is called whole: that its input was broken.
        thread.join(_WAIT_SECONDS if ended else None)
    if failed and all(isinstance(error, Exception) for error in ended):
        raise failed[0]
    if ended:
        raise ended[0]


@contextmanager
def _renamed(names: Names) -> Iterator[None]:
    """Lets errors of rows call the source as the user does."""
    try:
        yield
    except OSError as error:
        if error.errno is None or os.fspath(error.filename or "") != names.source:
            raise
        raise OSError(error.errno, error.strerror, names.named) from None
    except (TypeError, ValueError) as error:
        text = names.show(str(error))
        if text == str(error):
            raise
        raise type(error)(text) from None
