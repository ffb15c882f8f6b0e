"""Files that are either whole or not there."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a UTF-8 file under a temporary name and renames it when it is whole.

    Args:
        path: the file; its folder must exist.
        text: what it shall hold.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "a.txt"), "text")
        ...     Path(folder, "a.txt").read_text()
        'text'
    """
    with whole_file(path) as temporary, open(temporary, "w", encoding="utf-8") as file:
        file.write(text)


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yields a temporary name beside a file, and renames it to the file at the end.

    After an error the temporary file is removed, and the file is as it was.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a.txt")) as temporary:
        ...         written = temporary.write_bytes(b"text")
        ...     Path(folder, "a.txt").read_bytes()
        b'text'
    """
    target = Path(path)
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    try:
        descriptor, name = tempfile.mkstemp(prefix=".lmcore-", dir=target.parent)
    except OSError as error:
        raise type(error)(error.errno, error.strerror, os.fspath(path)) from None
    os.close(descriptor)
    temporary = Path(name)
    try:
        yield temporary
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)  # an interrupt may come after the renaming
        raise
