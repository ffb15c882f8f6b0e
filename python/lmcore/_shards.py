"""Files of weights of a model's folder, written by parts: however large they are, memory is not.

A run that ended early goes on. What is done lies in the folder under its last name, and a hidden
journal says of which run it is; the index, without which shards are no model, comes last.
"""

from __future__ import annotations

import errno
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._files import FolderLock, naming_errors, rename_over
from lmcore._json import read_json
from lmcore._safetensors import WIDTHS, count_bytes, make_header

#: Bytes of the tensors of a shard, as transformers has it.
SHARD_BYTES = 5_000_000_000
LOCK, PART = ".lmcore-cut.lock", ".lmcore-cut.part"
JOURNAL, NEW_JOURNAL = ".lmcore-cut.json", ".lmcore-cut.new.json"

_WHOLE = "model.safetensors"
_INDEX = f"{_WHOLE}.index.json"
_SHARD_NAME = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors")
# What transformers may take for weights.
_WEIGHTS_NAME = re.compile(r".*\.safetensors(\.index\.json)?|pytorch_model.*|.*\.bin\.index\.json")
# Ctrl-C is answered between two of them.
_COPY_BYTES = 1 << 25
# What says that a file system, or a pair of them, cannot copy.
_CANNOT_COPY = {
    errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM, errno.EBADF
}  # fmt: skip

Progress = Callable[[int, int], object]


@dataclass(kw_only=True, slots=True, frozen=True)
class NewTensor:
    """A tensor that is written."""

    name: str
    dtype: str
    """As safetensors calls it: `BF16`."""
    shape: tuple[int, ...]

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return count_bytes(self.dtype, self.shape)


@dataclass(kw_only=True, slots=True, frozen=True)
class WrittenShards:
    """What was written."""

    files: list[str]
    """Names of the files of weights, in order; without the index."""
    kept_files: int
    """Those that an earlier start wrote."""
    bytes: int
    """Of all files of weights."""


class ShardFile:
    """A file that tensors are written into, one behind the other.

    Args:
        descriptor: of the file, open for writing.
        advance: called with the bytes of each write.

    Example:
        >>> with open("/dev/null", "wb") as file:
        ...     ShardFile(file.fileno(), print).write(b"abc")
        3
    """

    def __init__(self, descriptor: int, advance: Callable[[int], object]) -> None:
        self._descriptor = descriptor
        self._advance = advance
        self._can_copy = hasattr(os, "copy_file_range")  # Linux has it

    def write(self, data: bytes | memoryview) -> None:
        """Writes bytes.

        Args:
            data: the bytes.

        Raises:
            OSError: the disk is full, or the file cannot be written.
        """
        left = memoryview(data)
        while left:
            done = os.write(self._descriptor, left)
            self._advance(done)
            left = left[done:]

    def copy(self, descriptor: int, start: int, stop: int) -> int:
        """Has the system copy bytes of another file, as far as it can, and returns where it ended.

        Args:
            descriptor: of the other file.
            start: the first byte.
            stop: the one behind the last.

        Raises:
            OSError: the disk is full, or a file cannot be read or written.
        """
        while start < stop and self._can_copy:
            size = min(stop - start, _COPY_BYTES)
            try:
                done = os.copy_file_range(descriptor, self._descriptor, size, start)
            except OSError as error:
                if error.errno not in _CANNOT_COPY:
                    raise
                done = 0
            self._can_copy = done > 0
            self._advance(done)
            start += done
        return start


def write_shards(
    folder: str | os.PathLike[str],
    tensors: Sequence[NewTensor],
    write: Callable[[ShardFile, Sequence[NewTensor]], object],
    recipe: Mapping[str, Any],
    *,
    check: Callable[[], object] = lambda: None,
    max_shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    progress: Progress | None = None,
) -> WrittenShards:
    """Writes the files of weights of a folder, as `save_pretrained` calls and divides them.

    Args:
        folder: where they go; it is made if it does not exist, and must hold no weights but those
            that an earlier start of the same run wrote.
        tensors: what is written, in the order of the index.
        write: writes the bytes of some of them into a file, one behind the other.
        recipe: what the bytes depend on, as JSON: a run of another one is not gone on with.
        check: raises if the tensors have changed since; called before a file gets its name.
        max_shard_bytes: of tensors in a file; one that has more is alone in its file. If all of
            them fit in one, that is `model.safetensors`.
        resume: go on where an earlier start ended, if one did; or remove what it wrote.
        progress: called with the bytes that are written so far, and in all.

    Raises:
        FileExistsError: the folder holds other weights, or another process writes into it.
        OSError: a file cannot be written.
        ValueError: a tensor has no bytes of its size, or `max_shard_bytes` is below 1.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     tensor = NewTensor(name="wi", dtype="U8", shape=(3,))
        ...     write_shards(name, [tensor], lambda file, _: file.write(b"abc"), {}).files
        ['model.safetensors']
    """
    plan = _make_plan(tensors, max_shard_bytes)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    with FolderLock(target, doing="writing weights", file=LOCK).hold():
        run = _Run(plan, target, dict(recipe), write, check, progress)
        kept = run.open(resume=resume)
        for shard in plan.shards:
            if shard.name not in kept:
                run.write_shard(shard)
        run.finish()
    return WrittenShards(
        files=[shard.name for shard in plan.shards], kept_files=len(kept), bytes=plan.bytes
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class _Shard:
    name: str
    header: bytes
    tensors: list[NewTensor]
    bytes: int


@dataclass(kw_only=True, slots=True, frozen=True)
class _Plan:
    shards: list[_Shard]
    index: str | None

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def is_unfinished(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a run of `write_shards` into a folder has not come to its end.

    Args:
        folder: the target.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     is_unfinished(folder)
        True
    """
    target = Path(folder)
    has_weights = any((target / name).is_file() for name in (_WHOLE, _INDEX))
    return not has_weights or os.path.lexists(target / JOURNAL)


def read_recipe(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """Returns the recipe of a run of `write_shards` that has not come to its end; None of no run.

    Args:
        folder: the target.

    Raises:
        OSError: its journal cannot be read.
        ValueError: its journal is broken.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_recipe(folder)
    """
    journal = _read_journal(Path(folder, JOURNAL))
    return None if journal is None else journal["recipe"]


class _Run:
    """What one start does to the target, with the lock held."""

    def __init__(
        self,
        plan: _Plan,
        target: Path,
        recipe: dict[str, Any],
        write: Callable[[ShardFile, Sequence[NewTensor]], object],
        check: Callable[[], object],
        progress: Progress | None,
    ) -> None:
        self._plan = plan
        self._target = target
        self._recipe = recipe
        self._write_tensors = write
        self._check = check
        self._journal = target / JOURNAL
        self._files: dict[str, list[int]] = {}
        self._done = 0
        self._progress = progress

    def open(self, *, resume: bool) -> set[str]:
        """Checks or starts the folder, and returns the shards that are whole already."""
        for left in (PART, NEW_JOURNAL):  # by a kill: with the lock held, nobody writes them
            (self._target / left).unlink(missing_ok=True)
        journal = _read_journal(self._journal)
        if journal is not None and not resume:
            # The index goes first: what is left by a kill is no model.
            for name in (_INDEX, *journal["files"]):
                (self._target / name).unlink(missing_ok=True)
            self._journal.unlink()
            journal = None
        self._refuse_strangers(journal)
        self._files = {} if journal is None else journal["files"]
        kept = {shard.name for shard in self._plan.shards if self._is_whole(shard)}
        if journal is None:
            self._save_journal()
        self._advance(sum(shard.bytes for shard in self._plan.shards if shard.name in kept))
        return kept

    def write_shard(self, shard: _Shard) -> None:
        """Writes a file of weights; it gets its name once the journal knows of it."""
        path = self._target / shard.name
        with self._write(path, PART) as descriptor:
            file = ShardFile(descriptor, self._advance)
            file.write(shard.header)
            self._write_tensors(file, shard.tensors)
            known = os.fstat(descriptor)
            if known.st_size != shard.bytes:  # a file became shorter while it was read
                raise ValueError(f"{path}: expected {shard.bytes} bytes, got {known.st_size}")
            self._check()
            self._files[shard.name] = [known.st_size, known.st_mtime_ns]
            self._save_journal()

    def finish(self) -> None:
        """Writes the index; afterwards the folder holds weights, and nothing of the run."""
        if self._plan.index is not None:
            with self._write(self._target / _INDEX, PART) as descriptor:
                ShardFile(descriptor, lambda done: None).write(self._plan.index.encode())
        self._journal.unlink()

    def _advance(self, done: int) -> None:
        self._done += done
        if self._progress is not None:
            self._progress(self._done, self._plan.bytes)

    @contextmanager
    def _write(self, path: Path, temporary: str) -> Iterator[int]:
        part = self._target / temporary
        try:
            with naming_errors(path, part):
                with open(part, "xb", buffering=0) as file:
                    yield file.fileno()
                rename_over(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise

    def _save_journal(self) -> None:
        content = {"recipe": self._recipe, "files": self._files}
        with self._write(self._journal, NEW_JOURNAL) as descriptor:
            ShardFile(descriptor, lambda done: None).write(json.dumps(content).encode())

    def _refuse_strangers(self, journal: dict[str, Any] | None) -> None:
        """Checks that weights in the target are of this run."""
        own: set[str] = set()
        if journal is not None:
            for key, value in self._recipe.items():
                if journal["recipe"].get(key) != value:
                    raise FileExistsError(
                        f"{self._target}: holds the beginning of weights that were made with "
                        f"another {key}: choose another folder, or start anew without resume"
                    )
            own = {shard.name for shard in self._plan.shards}
            own |= {_INDEX} if self._plan.index is not None else set()
        for name in sorted(path.name for path in self._target.iterdir()):
            if _WEIGHTS_NAME.fullmatch(name) and name not in own:
                raise FileExistsError(
                    f"{self._target}: holds {name} already: choose another folder"
                )

    def _is_whole(self, shard: _Shard) -> bool:
        """Whether a shard is there as it was written: whoever changes a file changes its time."""
        try:
            known = (self._target / shard.name).lstat()
        except FileNotFoundError:
            return False
        return self._files.get(shard.name) == [known.st_size, known.st_mtime_ns]


def _read_journal(path: Path) -> dict[str, Any] | None:
    if not os.path.lexists(path):
        return None
    if not path.is_file():
        raise _broken(path, "it is no regular file")
    content: dict[str, Any] = read_json(path, "a journal of weights")
    files = content.get("files") if isinstance(content, dict) else None
    if not isinstance(files, dict) or not isinstance(content.get("recipe"), dict):
        raise _broken(path, "it has other keys")
    for name in files:
        # They may be removed, so that they must be ours.
        if not _SHARD_NAME.fullmatch(name):
            raise _broken(path, f"it names {name!r:.100}")
    return content


def _broken(path: Path, reason: str) -> ValueError:
    return ValueError(f"{path}: not a journal of weights: {reason}; remove it")


def _make_plan(tensors: Sequence[NewTensor], max_shard_bytes: int) -> _Plan:
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be at least 1: got {max_shard_bytes}")
    groups = _group(tensors, max_shard_bytes)
    names = [_WHOLE]
    if len(groups) > 1:
        names = [
            f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            for number in range(1, len(groups) + 1)
        ]
    shards = [_make_shard(name, group) for name, group in zip(names, groups, strict=True)]
    return _Plan(shards=shards, index=_make_index(shards, tensors) if len(shards) > 1 else None)


def _group(tensors: Sequence[NewTensor], most: int) -> list[list[NewTensor]]:
    """Tensors by the file that they are written into, in order."""
    groups: list[list[NewTensor]] = [[]]
    size = 0
    for tensor in tensors:
        if groups[-1] and size + tensor.bytes > most:
            groups.append([])
            size = 0
        groups[-1].append(tensor)
        size += tensor.bytes
    return groups


def _make_shard(name: str, tensors: list[NewTensor]) -> _Shard:
    # Wide elements first: each tensor begins at a multiple of its width.
    ordered = sorted(tensors, key=lambda tensor: -WIDTHS[tensor.dtype])
    header = make_header({tensor.name: (tensor.dtype, tensor.shape) for tensor in ordered})
    size = len(header) + sum(tensor.bytes for tensor in ordered)
    return _Shard(name=name, header=header, tensors=ordered, bytes=size)


def _make_index(shards: list[_Shard], tensors: Sequence[NewTensor]) -> str:
    files = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
    content = {
        "metadata": {
            "total_parameters": sum(math.prod(tensor.shape) for tensor in tensors),
            "total_size": sum(tensor.bytes for tensor in tensors),
        },
        "weight_map": {tensor.name: files[tensor.name] for tensor in tensors},
    }
    return json.dumps(content, indent=2) + "\n"
