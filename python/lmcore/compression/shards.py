"""A folder of weights is cut into another one, by blocks: however large it is, memory is not.

A run that ended early goes on; `lmcore._shards` says how.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lmcore._shards import SHARD_BYTES, NewTensor, Progress, ShardFile, write_shards
from lmcore.compression.checkpoint_folders import StoredCheckpoint, read_checkpoint
from lmcore.compression.cuts import TensorCut, find_shape
from lmcore.compression.shard_writing import write_cuts


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
    tensors = _find_tensors(checkpoint, cuts)
    target = Path(target_folder)
    if target.is_dir() and target.samefile(source_folder):
        raise ValueError(f"{target}: the output is an input too")
    by_name = {cut.target: cut for cut in cuts}

    def write(file: ShardFile, some: Sequence[NewTensor]) -> None:
        named = (by_name[tensor.name] for tensor in some)
        write_cuts(file, ((checkpoint.tensors[cut.source], cut) for cut in named))

    written = write_shards(
        target,
        tensors,
        write,
        {
            "source": checkpoint.fingerprint,
            "cuts": _hash_cuts(cuts),
            "max_shard_bytes": max_shard_bytes,
        },
        check=checkpoint.check,
        max_shard_bytes=max_shard_bytes,
        resume=resume,
        progress=progress,
    )
    return CutSummary(
        files=written.files,
        kept_files=written.kept_files,
        tensors=len(cuts),
        parameters=sum(math.prod(tensor.shape) for tensor in tensors),
        bytes=written.bytes,
    )


def _find_tensors(checkpoint: StoredCheckpoint, cuts: Sequence[TensorCut]) -> list[NewTensor]:
    if not cuts:
        raise ValueError("give at least one cut: got none")
    found: dict[str, NewTensor] = {}
    for cut in cuts:
        tensor = checkpoint.tensors.get(cut.source)
        if tensor is None:
            raise ValueError(f"{checkpoint.folder}: has no tensor {cut.source}")
        if cut.target in found:
            raise ValueError(f"two cuts are written as {cut.target}")
        if cut.target == "__metadata__":
            raise ValueError(f"a tensor must not be written as {cut.target}")
        found[cut.target] = NewTensor(
            name=cut.target, dtype=tensor.dtype, shape=find_shape(cut, tensor.shape)
        )
    return list(found.values())


def _hash_cuts(cuts: Sequence[TensorCut]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for cut in cuts:
        sizes = [None if kept is None else len(kept) for kept in cut.keep]
        digest.update(json.dumps([cut.source, cut.target, sizes]).encode())
        for kept in cut.keep:
            if kept is not None:
                digest.update(kept.data)
    return digest.hexdigest()
