"""Checkpoints of Megatron-LM as the authors' training writes them: files, arguments and tensors.

A checkpoint is a folder for each rank of tensor parallelism (`mp_rank_00`, `mp_rank_01`, ...), each
with one file of `torch.save`. Files are mapped; of the pickle in them nothing is called but what
makes tensors and containers. It names classes of numpy and of Megatron as well, in the states of
random generators and among the arguments: these names are known, and stand for objects that hold
nothing, since nothing of them is needed.
"""

from __future__ import annotations

import mmap
import os
import re
import sys
import zipfile
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from lmcore._stored import StoredTensor, map_tensor, refusing

_FILES = ("model_optim_rng.pt", "model_rng.pt")
_TRACKER = "latest_checkpointed_iteration.txt"
_RANK = re.compile(r"mp_rank_(\d{2,})")
_STAGE = re.compile(r"mp_rank_\d{2,}_\d{3,}")
_MOST_ITERATION = 10**12
# Of the pickle; that of a 15B with its optimizer has some megabytes.
_MOST_PICKLE_BYTES = 1 << 26
_MOST_DEPTH = 8
_NO_STAGES = "only checkpoints of tensor parallelism can be converted"
_NO_MEMORY = "Cannot allocate memory"
_REFUSED = re.compile(r"GLOBAL ([^\s]+)")
# From this version on a head's query, key and value lie side by side, as here.
_FIRST_VERSION = 2.0


class Unread:
    """In the place of an object that is not needed, whatever it is made of."""

    def __new__(cls, *args: Any) -> Self:
        """Returns an object that holds nothing."""
        return super().__new__(cls)

    def __setstate__(self, state: Any) -> None:
        """Keeps nothing of a state."""


_UNREAD = [
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")
      for name in ("_reconstruct", "scalar")),
    "numpy.ndarray", "numpy.dtype",
    *(f"numpy.dtypes.{name}" for name in np.dtypes.__all__),
    "megatron.core.enums.ModelType", "megatron.model.enums.ModelType",
]  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class Rank:
    """What the file of one rank holds of a model."""

    file: Path
    arguments: dict[str, Any]
    """Those that the training was started with."""
    iteration: int | None
    """Of the training; None where the file does not say."""
    tensors: dict[str, StoredTensor]
    """By the names of Megatron, parts joined by dots."""


def read_ranks(folder: str | os.PathLike[str], iteration: int | None = None) -> list[Rank]:
    """Returns the ranks of a checkpoint in order; tensors are mapped, not read.

    Args:
        folder: of a training, or of one of its iterations.
        iteration: which; the last one, as the folder's file says, if None.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no whole checkpoint of this kind; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     read_ranks(folder)  # doctest: +ELLIPSIS
        Traceback (most recent call last):
        ValueError: ...: no checkpoint of Megatron: it holds no latest_checkpointed_iteration.txt...
    """
    base = _find_iteration(Path(folder), iteration)
    ranks = [_read_rank(file) for file in _find_files(base)]
    _compare(base, ranks)
    return ranks


def _find_iteration(folder: Path, iteration: int | None) -> Path:
    if not folder.is_dir():
        raise ValueError(f"{folder}: not a folder")
    if _find_ranks(folder):
        if iteration is not None and folder.name != f"iter_{iteration:07d}":
            raise ValueError(f"{folder}: not the folder of iteration {iteration}")
        return folder
    if iteration is None:
        name = _read_tracker(folder)
    elif not 0 <= iteration < _MOST_ITERATION:
        raise ValueError(f"iteration must be from 0 to {_MOST_ITERATION - 1}: got {iteration}")
    else:
        name = f"iter_{iteration:07d}"
    if not (folder / name).is_dir():
        there = sorted(path.name for path in folder.glob("iter_*"))
        found = f": it has {', '.join(there[-5:])}" if there else ""
        raise ValueError(f"{folder}: holds no {name}{found}")
    return folder / name


def _read_tracker(folder: Path) -> str:
    file = folder / _TRACKER
    if not file.is_file():
        raise ValueError(
            f"{folder}: no checkpoint of Megatron: it holds no {_TRACKER} and no mp_rank_00"
        )
    with open(file, "rb") as opened:
        text = opened.read(64).strip()
    if text == b"release":
        return "release"
    if not re.fullmatch(rb"\d{1,12}", text):
        raise ValueError(f"{file}: expected the number of an iteration, got {text!r}")
    return f"iter_{int(text):07d}"


def _find_ranks(folder: Path) -> dict[int, Path]:
    found = {}
    for path in sorted(folder.iterdir()):
        if _STAGE.fullmatch(path.name):
            raise ValueError(f"{path}: of a pipeline: {_NO_STAGES}")
        if match := _RANK.fullmatch(path.name):
            found[int(match[1])] = path
    return found


def _find_files(folder: Path) -> list[Path]:
    ranks = _find_ranks(folder)
    if not ranks:
        raise ValueError(f"{folder}: holds no mp_rank_00")
    files = []
    for number in range(max(ranks) + 1):
        if number not in ranks:
            raise ValueError(f"{folder}: mp_rank_{number:02d} is missing")
        names = [name for name in _FILES if (ranks[number] / name).exists()]
        if not names:
            raise ValueError(f"{ranks[number]}: holds neither {_FILES[0]} nor {_FILES[1]}")
        files.append(ranks[number] / names[0])
    return files


def _read_rank(file: Path) -> Rank:
    if not file.is_file():
        raise ValueError(f"{file}: not a regular file")
    content = _load(file)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not a checkpoint: it holds a {type(content).__name__}")
    arguments, model = content.get("args"), content.get("model")
    if not isinstance(arguments, Namespace):
        raise ValueError(f"{file}: it has no args, from which the sizes of the model are known")
    if not isinstance(model, dict):
        raise ValueError(f"{file}: it has no model")
    version = content.get("checkpoint_version", 0)
    if not isinstance(version, int | float) or not version >= _FIRST_VERSION:
        raise ValueError(
            f"{file}: checkpoint_version must be at least {_FIRST_VERSION}: got {version!r:.40}; "
            "before it heads lay otherwise"
        )
    iteration = content.get("iteration")
    if iteration is not None and type(iteration) is not int:
        raise ValueError(f"{file}: iteration must be a whole number: got {iteration!r:.40}")
    tensors: dict[str, StoredTensor] = {}
    _collect(file, "", model, tensors, _MOST_DEPTH)
    return Rank(file=file, arguments=dict(vars(arguments)), iteration=iteration, tensors=tensors)


def _load(file: Path) -> Any:
    _check_records(file)
    known: list[Any] = [Namespace, *((Unread, name) for name in _UNREAD)]
    with refusing(file), torch.serialization.safe_globals(known):
        try:
            return _map(file)
        except RuntimeError as error:
            # torch maps files so that their pages could be written, without writing the file; of
            # that the system gives no more than it has memory. Pages that are the file's own it
            # gives, where the file may be written.
            if _NO_MEMORY not in str(error) or not os.access(file, os.W_OK):
                raise
            with torch.serialization.set_default_mmap_options(mmap.MAP_SHARED):
                return _map(file)


def _map(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:
        if name := _REFUSED.search(str(error)):
            raise ValueError(f"it names {name[1]:.100}, which is never called") from None
        raise


def _check_records(file: Path) -> None:
    """What a record says of its size is asked for before it is read: it must be in the file."""
    with open(file, "rb") as opened:
        if opened.read(1) == b"\x80":
            raise ValueError(
                f"{file}: has torch's old format, which cannot be mapped: load and save it anew"
            )
        opened.seek(0)
        size = os.fstat(opened.fileno()).st_size
        own_order = sys.byteorder.encode()
        try:
            archive = zipfile.ZipFile(opened)
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise ValueError(f"{file}: not a whole file of torch: {error}") from None
        for record in archive.infolist():
            if record.compress_type != zipfile.ZIP_STORED or record.file_size > size:
                raise ValueError(f"{file}: {record.filename!r:.100} is compressed, or not whole")
            name = record.filename.rpartition("/")[2]
            if name == "data.pkl" and record.file_size > _MOST_PICKLE_BYTES:
                raise ValueError(f"{file}: its pickle has more than {_MOST_PICKLE_BYTES} bytes")
            # torch would turn the bytes round where they lie.
            if name == "byteorder" and _read_record(file, archive, record) != own_order:
                raise ValueError(f"{file}: its numbers lie in another order of bytes")


def _read_record(file: Path, archive: zipfile.ZipFile, record: zipfile.ZipInfo) -> bytes:
    try:
        return archive.read(record)
    # One that is encrypted is a RuntimeError, or an error of its own.
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError) as error:
        raise ValueError(f"{file}: not a whole file of torch: {error}") from None


def _collect(
    file: Path, prefix: str, content: dict[Any, Any], tensors: dict[str, StoredTensor], depth: int
) -> None:
    if not depth:
        raise ValueError(f"{file}: {prefix!r:.100} is nested too deeply")
    for key, value in content.items():
        if not isinstance(key, str):
            raise ValueError(f"{file}: a tensor must have a name: got {key!r:.100}")
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            _collect(file, name, value, tensors, depth - 1)
        elif name in tensors:
            raise ValueError(f"{file}: holds {name:.100} twice")
        else:
            tensors[name] = map_tensor(file, name[:200], value)


def _compare(folder: Path, ranks: list[Rank]) -> None:
    """Checks that ranks are those of one checkpoint."""
    first = ranks[0]
    for rank in ranks:
        size = rank.arguments.get(
            "tensor_model_parallel_size", rank.arguments.get("model_parallel_size")
        )
        if type(size) is not int or size < 1:
            raise ValueError(
                f"{rank.file}: args must have tensor_model_parallel_size: got {size!r:.40}"
            )
        if size != len(ranks):
            raise ValueError(
                f"{rank.file}: it is one of {size} ranks, and {folder} holds {len(ranks)}"
            )
        if rank.arguments.get("pipeline_model_parallel_size", 1) != 1:
            raise ValueError(
                f"{rank.file}: of a pipeline: only tensor parallelism can be converted"
            )
        if rank.iteration != first.iteration:
            raise ValueError(
                f"{rank.file}: of iteration {rank.iteration}, and {first.file} of {first.iteration}"
            )
