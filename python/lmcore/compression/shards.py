"""A folder of weights is cut into another one, by blocks: however large it is, memory is not.

A run that ended early goes on. What is done lies in the target under its last name, and a hidden
journal says of which run it is; the index, without which shards are no model, comes last.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._files import FolderLock, naming_errors, rename_over
from lmcore._json import read_json
from lmcore.compression.checkpoint_folders import StoredCheckpoint, read_checkpoint
from lmcore.compression.cuts import TensorCut, find_shape
from lmcore.compression.safetensors_files import WIDTHS, count_bytes, make_header
from lmcore.compression.shard_writing import ShardFile, write_cuts

#: Bytes of the tensors of a shard, as transformers has it.
SHARD_BYTES = 5_000_000_000

_WHOLE = "model.safetensors"
_INDEX = f"{_WHOLE}.index.json"
_LOCK, _PART = ".lmcore-cut.lock", ".lmcore-cut.part"
_JOURNAL, _NEW_JOURNAL = ".lmcore-cut.json", ".lmcore-cut.new.json"


@dataclass(kw_only=True, slots=True, frozen=True)
class CutSummary:
    """What was written."""

    files: list[str]
    """Names of the files of weights, in order; without the index."""
    kept_files: int
    """Those that an earlier start wrote."""
    tensors: int
    parameters: int
    """Elements of all tensors."""
    bytes: int
    """Of all files of weights."""


_SHARD_NAME = re.compile(r"model(-\d{5,}-of-\d{5,})?\.safetensors")
# What transformers may take for weights.
_WEIGHTS_NAME = re.compile(r".*\.safetensors(\.index\.json)?|pytorch_model.*|.*\.bin\.index\.json")

Progress = Callable[[int, int], object]


def cut_checkpoint(
    source_folder: str | os.PathLike[str],
    target_folder: str | os.PathLike[str],
    cuts: Sequence[TensorCut],
    *,
    max_shard_bytes: int = SHARD_BYTES,
    resume: bool = True,
    progress: Progress | None = None,
) -> CutSummary:
    """Writes what is kept of the weights of a folder into another one, and returns what that is.

    The order of the cuts is that of the tensors; what no cut names is left out. Each tensor keeps
    its type, bit for bit. Anonymous memory stays at some megabytes: it grows with the number of
    tensors, not with their sizes. Nothing but weights is written; what else belongs to a model
    should lie in the target before, since the last renaming makes it one.

    Args:
        source_folder: with safetensors or `.bin` files, one or many.
        target_folder: another folder; it is made if it does not exist, and must hold no weights
            but those that an earlier start of the same run wrote.
        cuts: what is kept; each source is in the checkpoint, and no two targets are the same.
        max_shard_bytes: of tensors in a file; one that has more is alone in its file. If all of
            them fit in one, that is `model.safetensors`.
        resume: go on where an earlier start ended, if one did; or remove what it wrote.
        progress: called with the bytes that are written so far, and in all.

    Raises:
        FileExistsError: the target holds other weights, or another process writes into it.
        IndexError: a cut keeps an index that its tensor does not have.
        OSError: a file cannot be read or written.
        ValueError: the source holds no checkpoint, or a damaged one; a cut does not fit it; both
            folders are one.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> import torch
        >>> from safetensors.torch import load_file, save_file
        >>> with tempfile.TemporaryDirectory() as source, tempfile.TemporaryDirectory() as target:
        ...     save_file({"wi": torch.arange(6).reshape(2, 3)}, Path(source, "model.safetensors"))
        ...     cut = TensorCut(source="wi", target="wi", keep=(None, np.array([2, 0])))
        ...     summary = cut_checkpoint(source, target, [cut])
        ...     summary.files, load_file(Path(target, "model.safetensors"))["wi"].tolist()
        (['model.safetensors'], [[2, 0], [5, 3]])
    """
    checkpoint = read_checkpoint(source_folder)
    plan = _make_plan(checkpoint, cuts, max_shard_bytes)
    target = Path(target_folder)
    if target.is_dir() and target.samefile(source_folder):
        raise ValueError(f"{target}: the output is an input too")
    target.mkdir(parents=True, exist_ok=True)
    with FolderLock(target, doing="writing weights", file=_LOCK).hold():
        run = _Run(checkpoint, plan, target, progress)
        kept = run.open(resume=resume)
        for shard in plan.shards:
            if shard.name not in kept:
                run.write_shard(shard)
        run.finish()
    return CutSummary(
        files=[shard.name for shard in plan.shards],
        kept_files=len(kept),
        tensors=len(cuts),
        parameters=plan.parameters,
        bytes=plan.bytes,
    )


@dataclass(kw_only=True, slots=True, frozen=True)
class _Shard:
    name: str
    header: bytes
    cuts: list[TensorCut]
    bytes: int


@dataclass(kw_only=True, slots=True, frozen=True)
class _Plan:
    shards: list[_Shard]
    index: str | None
    recipe: dict[str, Any]
    parameters: int

    @property
    def bytes(self) -> int:
        return sum(shard.bytes for shard in self.shards)


def is_unfinished(folder: str | os.PathLike[str]) -> bool:
    """Returns whether a run of `cut_checkpoint` into a folder has not come to its end.

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
    return not has_weights or os.path.lexists(target / _JOURNAL)


class _Run:
    """What one start does to the target, with the lock held."""

    def __init__(
        self, checkpoint: StoredCheckpoint, plan: _Plan, target: Path, progress: Progress | None
    ) -> None:
        self._checkpoint = checkpoint
        self._plan = plan
        self._target = target
        self._journal = target / _JOURNAL
        self._files: dict[str, list[int]] = {}
        self._done = 0
        self._progress = progress

    def open(self, *, resume: bool) -> set[str]:
        """Checks or starts the folder, and returns the shards that are whole already."""
        for left in (_PART, _NEW_JOURNAL):  # by a kill: with the lock held, nobody writes them
            (self._target / left).unlink(missing_ok=True)
        journal = self._read_journal()
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
        with self._write(path, _PART) as descriptor:
            file = ShardFile(descriptor, self._advance)
            file.write(shard.header)
            tensors = self._checkpoint.tensors
            write_cuts(file, ((tensors[cut.source], cut) for cut in shard.cuts))
            known = os.fstat(descriptor)
            if known.st_size != shard.bytes:  # a file became shorter while it was read
                raise ValueError(f"{path}: expected {shard.bytes} bytes, got {known.st_size}")
            self._checkpoint.check()
            self._files[shard.name] = [known.st_size, known.st_mtime_ns]
            self._save_journal()

    def finish(self) -> None:
        """Writes the index; afterwards the folder holds weights, and nothing of the run."""
        if self._plan.index is not None:
            with self._write(self._target / _INDEX, _PART) as descriptor:
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
        content = {"recipe": self._plan.recipe, "files": self._files}
        with self._write(self._journal, _NEW_JOURNAL) as descriptor:
            ShardFile(descriptor, lambda done: None).write(json.dumps(content).encode())

    def _read_journal(self) -> dict[str, Any] | None:
        if not os.path.lexists(self._journal):
            return None
        if not self._journal.is_file():
            raise self._broken("it is no regular file")
        content: dict[str, Any] = read_json(self._journal, "a journal of weights")
        files = content.get("files") if isinstance(content, dict) else None
        if not isinstance(files, dict) or not isinstance(content.get("recipe"), dict):
            raise self._broken("it has other keys")
        for name in files:
            # They may be removed, so that they must be ours.
            if not _SHARD_NAME.fullmatch(name):
                raise self._broken(f"it names {name!r:.100}")
        return content

    def _broken(self, reason: str) -> ValueError:
        return ValueError(f"{self._journal}: not a journal of weights: {reason}; remove it")

    def _refuse_strangers(self, journal: dict[str, Any] | None) -> None:
        """Checks that weights in the target are of this run."""
        own: set[str] = set()
        if journal is not None:
            for key, value in self._plan.recipe.items():
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


def _make_plan(
    checkpoint: StoredCheckpoint, cuts: Sequence[TensorCut], max_shard_bytes: int
) -> _Plan:
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes must be at least 1: got {max_shard_bytes}")
    if not cuts:
        raise ValueError("give at least one cut: got none")
    found = _find_tensors(checkpoint, cuts)
    groups = _group(cuts, found, max_shard_bytes)
    names = [_WHOLE]
    if len(groups) > 1:
        names = [
            f"model-{number:05d}-of-{len(groups):05d}.safetensors"
            for number in range(1, len(groups) + 1)
        ]
    parameters = sum(math.prod(shape) for _, shape in found.values())
    shards = [_make_shard(name, group, found) for name, group in zip(names, groups, strict=True)]
    return _Plan(
        shards=shards,
        index=_make_index(shards, cuts, found, parameters) if len(shards) > 1 else None,
        recipe={
            "source": checkpoint.fingerprint,
            "cuts": _hash_cuts(cuts),
            "max_shard_bytes": max_shard_bytes,
        },
        parameters=parameters,
    )


#: Type and shape of what is written, by name.
_Found = dict[str, tuple[str, tuple[int, ...]]]


def _find_tensors(checkpoint: StoredCheckpoint, cuts: Sequence[TensorCut]) -> _Found:
    found: _Found = {}
    for cut in cuts:
        tensor = checkpoint.tensors.get(cut.source)
        if tensor is None:
            raise ValueError(f"{checkpoint.folder}: has no tensor {cut.source}")
        if cut.target in found:
            raise ValueError(f"two cuts are written as {cut.target}")
        if cut.target == "__metadata__":
            raise ValueError(f"a tensor must not be written as {cut.target}")
        found[cut.target] = tensor.dtype, find_shape(cut, tensor.shape)
    return found


def _group(cuts: Sequence[TensorCut], found: _Found, most: int) -> list[list[TensorCut]]:
    """Cuts by the file that they are written into, in order."""
    groups: list[list[TensorCut]] = [[]]
    size = 0
    for cut in cuts:
        more = count_bytes(*found[cut.target])
        if groups[-1] and size + more > most:
            groups.append([])
            size = 0
        groups[-1].append(cut)
        size += more
    return groups


def _make_shard(name: str, cuts: list[TensorCut], found: _Found) -> _Shard:
    # Wide elements first: each tensor begins at a multiple of its width.
    ordered = sorted(cuts, key=lambda cut: -WIDTHS[found[cut.target][0]])
    tensors = {cut.target: found[cut.target] for cut in ordered}
    header = make_header(tensors)
    size = len(header) + sum(count_bytes(*tensor) for tensor in tensors.values())
    return _Shard(name=name, header=header, cuts=ordered, bytes=size)


def _make_index(
    shards: list[_Shard], cuts: Sequence[TensorCut], found: _Found, parameters: int
) -> str:
    files = {cut.target: shard.name for shard in shards for cut in shard.cuts}
    size = sum(count_bytes(*tensor) for tensor in found.values())
    content = {
        "metadata": {"total_parameters": parameters, "total_size": size},
        "weight_map": {cut.target: files[cut.target] for cut in cuts},
    }
    return json.dumps(content, indent=2) + "\n"


def _hash_cuts(cuts: Sequence[TensorCut]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for cut in cuts:
        sizes = [None if kept is None else len(kept) for kept in cut.keep]
        digest.update(json.dumps([cut.source, cut.target, sizes]).encode())
        for kept in cut.keep:
            if kept is not None:
                digest.update(kept.data)
    return digest.hexdigest()
