"""Folders that get their name when they are whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lmcore._files import FolderLock

_LOCK = ".lmcore-folder.lock"


@contextmanager
def new_folder(
    target: str | os.PathLike[str],
    source: str | os.PathLike[str],
    keep: Callable[[Path], bool] = lambda part: False,
) -> Iterator[Path]:
    """Yields a hidden folder that gets a name at the end.

    Where the block raises `ValueError`, which it would do again, the folder is removed; after
    other errors and kills it stays, for a start that goes on with it.

    Args:
        target: the name; what has it must be an empty folder, or nothing.
        source: what is read; the target must not lie in it.
        keep: whether what an earlier start left in the hidden folder is gone on with.

    Raises:
        FileExistsError: the target holds something, or another process writes it.
        OSError: the folder cannot be made.
        ValueError: the target lies in the source.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, tempfile.TemporaryDirectory() as source:
        ...     with new_folder(Path(name, "model"), source) as part:
        ...         written = Path(part, "config.json").write_text("{}")
        ...     os.listdir(name), os.listdir(Path(name, "model"))
        (['model'], ['config.json'])
    """
    final = Path(target)
    check_target(final, source)
    part = final.with_name(f".{final.name}.lmcore-part")
    part.mkdir(parents=True, exist_ok=True)
    with FolderLock(part, doing="writing a model", file=_LOCK).hold():
        check_target(final, source)  # another process may have come to its end by now
        try:
            if not keep(part):
                _empty(part)
            yield part
            check_target(final, source)
            part.rename(final)
        except ValueError:
            shutil.rmtree(part)
            raise
    (final / _LOCK).unlink(missing_ok=True)


def check_target(target: str | os.PathLike[str], source: str | os.PathLike[str]) -> None:
    """Checks that a folder can get a name: before hours of work, not behind them.

    Args:
        target: the name.
        source: what is read.

    Raises:
        FileExistsError: the target holds something.
        ValueError: it lies in the source, or is no name.

    Example:
        >>> check_target("/a/b", "/a")
        Traceback (most recent call last):
        ValueError: /a/b: the output lies in the input
    """
    path = Path(target)
    if not path.name:
        raise ValueError(f"{path}: expected the name of a new folder")
    inside, whole = Path(os.path.realpath(path)), Path(os.path.realpath(source))
    if inside == whole or whole in inside.parents:
        raise ValueError(f"{path}: the output lies in the input")
    if os.path.lexists(path) and (path.is_symlink() or not path.is_dir() or any(path.iterdir())):
        raise FileExistsError(f"{path}: is there already: name another folder")


def _empty(part: Path) -> None:
    for path in part.iterdir():
        if path.name == _LOCK:
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
