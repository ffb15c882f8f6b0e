"""Outputs: files that are either whole or not there, devices and pipes as they are.

One rule for all that lmcore writes. A device or a pipe is opened and written, never replaced. Of
a symbolic link the target is written. A regular file is written under another name and renamed
when it is whole. What is also an input, or what standard output goes to, is refused.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
import stat
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

# How the libraries that write weights tell the system's number.
_OS_ERROR = re.compile(r"os error (\d+)")


def write_text(
    path: str | os.PathLike[str], text: str, inputs: Iterable[str | os.PathLike[str]] = ()
) -> None:
    """Writes a UTF-8 file as `whole_file` does.

    Args:
        path: the file; its folder must exist.
        text: what it shall hold; a lone surrogate becomes its number.
        inputs: files that it must not be.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file is an input, or has no name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_text(Path(folder, "a.txt"), "text")
        ...     Path(folder, "a.txt").read_text()
        'text'
    """
    # A name of a file that is not UTF-8 comes in with lone surrogates.
    content = text.encode("utf-8", "backslashreplace")
    with whole_file(path, inputs) as place, open(place, "wb") as file:
        file.write(content)


@contextmanager
def whole_file(
    path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> Iterator[Path]:
    """Yields where to write an output: a name that becomes the file's at the end.

    After an error the other name is removed, and the file is as it was. For a device or a pipe
    its own name is yielded. The file keeps its permissions; a new one gets those of the umask.

    Args:
        path: the file; its folder must exist.
        inputs: files that it must not be.

    Raises:
        OSError: the file cannot be written; the error names it.
        ValueError: the file is an input, or has no name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with whole_file(Path(folder, "a.txt")) as place:
        ...         written = place.write_bytes(b"text")
        ...     Path(folder, "a.txt").read_bytes()
        b'text'
    """
    target = find_output(path, inputs)
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with naming_errors(path):
            yield target
        return
    # Named before it exists: wherever a signal stops this, the name is known and removed.
    temporary = target.with_name(f".lmcore-{secrets.token_hex(8)}")
    try:
        with naming_errors(path, temporary):
            temporary.touch(0o600, exist_ok=False)
            yield temporary
            rename_over(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)  # an interrupt may come after the renaming
        raise


def find_output(
    path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()
) -> Path:
    """Returns where an output goes: the end of its symbolic links, or the device or pipe.

    Commands call it before they start to work, so that a wrong name costs nothing.

    Args:
        path: the output.
        inputs: files that it must not be, by whatever name or link.

    Raises:
        OSError: it cannot be written: its folder does not exist, or it is a folder.
        ValueError: it is an input, or what standard output or standard error goes to, or has no
            name.

    Example:
        >>> find_output("/dev/null", ["/dev/null"]).name
        'null'
        >>> find_output("pyproject.toml", ["../" + Path.cwd().name + "/pyproject.toml"])
        Traceback (most recent call last):
        ValueError: pyproject.toml: the output is an input too
    """
    name = os.fspath(path)
    if not name:
        raise ValueError("the name of an output must not be empty")
    try:
        known = Path(name).stat()
    except FileNotFoundError:
        known = None
    if (known is not None and stat.S_ISDIR(known.st_mode)) or name.endswith(os.sep):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), name)
    if known is not None and not stat.S_ISREG(known.st_mode):
        return Path(name)
    if known is None and any(os.path.realpath(other) == os.path.realpath(name) for other in inputs):
        raise ValueError(f"{name}: the output is an input too")  # which would be written first
    if known is not None:
        if any(_is_file(other, known) for other in inputs):
            raise ValueError(f"{name}: the output is an input too")
        # Renamed over, what is printed would be lost; written to, it would be mixed with it.
        if any(_is_file(number, known) for number in (1, 2)):
            raise ValueError(
                f"{name}: standard output goes to this file, or standard error: name another"
            )
    target = Path(os.path.realpath(name)) if Path(name).is_symlink() else Path(name)
    if not target.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    return target


def find_file(path: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]] = ()) -> Path:
    """Returns where an output goes that cannot be a device or a pipe; see `find_output`.

    Args:
        path: the output.
        inputs: files that it must not be, by whatever name or link.

    Raises:
        OSError: it cannot be written.
        ValueError: it is an input, a device or a pipe, or has no name.

    Example:
        >>> find_file("/dev/null")
        Traceback (most recent call last):
        ValueError: /dev/null: expected a file, got a device or a pipe
    """
    target = find_output(path, inputs)
    if target.exists() and not target.is_file():
        raise ValueError(f"{os.fspath(path)}: expected a file, got a device or a pipe")
    return target


@contextmanager
def naming_errors(
    path: str | os.PathLike[str], temporary: str | os.PathLike[str] = ""
) -> Iterator[None]:
    """Yields while the system's errors name the output, not the name it has meanwhile, or none.

    Args:
        path: the output.
        temporary: the name that it has meanwhile.

    Raises:
        OSError: with the output's name.

    Example:
        >>> with naming_errors("a.txt"):
        ...     raise OSError(errno.ENOSPC, "full")
        Traceback (most recent call last):
        OSError: [Errno 28] No space left on device: 'a.txt'
    """
    name, other = os.fspath(path), os.fspath(temporary)
    try:
        yield
    except OSError as error:
        own = error.filename is None or (other and str(error.filename).startswith(other))
        if error.errno is None or not own:
            raise
        raise OSError(error.errno, os.strerror(error.errno), name) from error
    except Exception as error:
        # safetensors wraps the system's error in one of its own.
        number = _OS_ERROR.search(str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), name) from error


def rename_over(file: Path, target: Path) -> None:
    """Gives a file the name of another, and that one's permissions; a new one's by the umask.

    Args:
        file: whole, and in the same file system.
        target: a regular file, or none yet.

    Raises:
        OSError: the file cannot be renamed.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     written = Path(folder, "a.new").write_text("text")
        ...     rename_over(Path(folder, "a.new"), Path(folder, "a.txt"))
        ...     os.listdir(folder)
        ['a.txt']
    """
    mode = _mode(target)
    file.chmod(_new_mode() if mode is None else stat.S_IMODE(mode))
    file.replace(target)


class FolderLock:
    """Keeps other processes out of a folder; the system lets go when this one dies.

    Args:
        folder: what is locked; it exists while the lock is held.
        doing: what is done to it, for errors.
        file: whose lock it is, within the folder.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with FolderLock(folder, doing="training").hold():
        ...         os.listdir(folder)
        ['.lock']
    """

    def __init__(self, folder: str | os.PathLike[str], *, doing: str, file: str = ".lock") -> None:
        self.folder = Path(folder)
        self._path = self.folder / file
        self._doing = doing
        self._file: IO[Any] | None = None

    @contextmanager
    def hold(self, *, shared: bool = False) -> Iterator[None]:
        """Yields while no other process holds the lock.

        Args:
            shared: beside a process that called `share`.

        Raises:
            FileExistsError: another process holds it.
            OSError: the file cannot be written.
        """
        while True:
            with open(self._path, "a") as file:
                self._take(file, fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
                # Whoever held it before may have removed it between our two calls.
                if not self._is_open(file):
                    continue
                self._file = file
                try:
                    yield
                finally:
                    if not shared:
                        self._path.unlink(missing_ok=True)
                return

    def share(self) -> None:
        """Lets others that ask for a share hold it beside this process.

        Raises:
            FileExistsError: another process took it at this moment.
        """
        assert self._file is not None
        self._take(self._file, fcntl.LOCK_SH)

    def _take(self, file: IO[Any], kind: int) -> None:
        try:
            fcntl.flock(file, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            reason = f"{self.folder}: another process is {self._doing} into it"
            raise FileExistsError(reason) from None
        except OSError as error:  # some network file systems have no locks
            reason = (
                f"{self.folder}: cannot be locked ({error.strerror}): start one process at a time"
            )
            warnings.warn(reason, RuntimeWarning, stacklevel=4)

    def _is_open(self, file: IO[Any]) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(file.fileno()))
        except FileNotFoundError:
            return False


def _put(file: Path, path: Path) -> None:
    target = find_output(path)
    mode = _mode(target)
    if target == path and (mode is None or stat.S_ISREG(mode)):
        rename_over(file, target)
    else:  # the end of a link may lie in another file system
        with whole_file(path) as place:
            shutil.copyfile(file, place)


def _is_file(other: str | os.PathLike[str] | int, known: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(other), known)  # noqa: PTH116 - or a descriptor
    except OSError:  # it does not exist, or standard output is closed
        return False


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except FileNotFoundError:
        return None


def _new_mode() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return 0o666 & ~mask
