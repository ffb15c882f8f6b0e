"""A file of rows that one process writes at a time, and that is whole or not there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lmcore._files import find_output, naming_errors
from lmcore._partial import Partial, State
from lmcore._rows import RowWriter
from lmcore._streams import is_gzip, is_standard


@contextmanager
def open_rows(
    path: str | os.PathLike[str], inputs: Sequence[str | os.PathLike[str]] = ()
) -> Iterator[Callable[[bytes], object]]:
    r"""Yields what writes rows into a file, which has its name when all of them are there.

    Args:
        path: the file, compressed where its name ends with `.gz`; a device, a pipe or `-`, which
            is standard output, gets the rows as they come.
        inputs: files that it must not be.

    Raises:
        FileExistsError: another process writes it.
        OSError: it cannot be written.
        ValueError: it is an input.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with open_rows(Path(folder, "a.jsonl")) as write:
        ...         _ = write(b'{"n": 1}\n')
        ...     Path(folder, "a.jsonl").read_text()
        '{"n": 1}\n'
    """
    sources = ["/dev/stdin" if is_standard(name) else name for name in inputs]
    target = None if is_standard(path) else find_output(path, sources)
    if target is None or (target.exists() and not target.is_file()):
        with RowWriter(path, sources) as rows:
            yield rows.write_lines
        return
    with Partial(os.fspath(path), target) as partial:
        partial.cut(State(recipe=None))

        def write(lines: bytes) -> None:
            with naming_errors(path):
                partial.file.write(lines)

        try:
            yield write
            partial.finish(is_gzip=is_gzip(path))
        except BaseException:
            partial.remove()
            raise
