"""Tensors of a folder that holds a model: one file or many, safetensors or torch's `.bin`.

Files are mapped, never read whole: what is looked at here are names, types and shapes.
"""

from __future__ import annotations

import mmap
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lmcore._json import read_json
from lmcore._safetensors import WIDTHS, is_name, read_header
from lmcore._stored import StoredTensor, find_fingerprint, map_tensor, refusing

# In the order in which transformers takes them.
_WHOLE_NAMES = ("model.safetensors", "pytorch_model.bin")


@dataclass(kw_only=True, slots=True, frozen=True)
class StoredCheckpoint:
    """The tensors of a folder, and what tells it from others."""

    folder: Path
    tensors: dict[str, StoredTensor]
    files: list[Path]
    fingerprint: str
    """Of its files: names, sizes, and when they were changed."""

    def check(self) -> None:
        """Returns nothing if the files are those that were looked at.

        Raises:
            OSError: a file cannot be found.
            ValueError: one has changed.
        """
        if find_fingerprint(self.files) != self.fingerprint:
            raise ValueError(f"{self.folder}: changed while it was read")


def keep_outside(folder: str | os.PathLike[str], model: str | os.PathLike[str]) -> None:
    """Returns nothing if an output lies outside of the folder of a model that is read.

    What lies in it would be taken for a part of it: a run for the model itself, and its files for
    others than those that were written with the model.

    Args:
        folder: of the output; it need not exist.
        model: the folder of the model.

    Raises:
        ValueError: it does not.

    Example:
        >>> keep_outside("model/out", "model")
        Traceback (most recent call last):
        ValueError: model/out: lies in the folder of the model that is read: name another folder
    """
    place, source = (Path(os.path.realpath(one)) for one in (folder, model))
    if source in (place, *place.parents):
        raise ValueError(
            f"{os.fspath(folder)}: lies in the folder of the model that is read: name another "
            "folder"
        )


def read_checkpoint(folder: str | os.PathLike[str]) -> StoredCheckpoint:
    """Returns the tensors of a model's folder, mapped.

    Args:
        folder: with `model.safetensors` or `pytorch_model.bin`, or an index and its shards.

    Raises:
        ImportError: torch is not installed, and the files are `.bin`.
        OSError: a file cannot be read.
        ValueError: the folder holds no checkpoint, or a damaged one; the text names the file.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"wi": torch.zeros(4, 8)}, Path(folder, "pytorch_model.bin"))
        ...     read_checkpoint(folder).tensors["wi"].shape
        (4, 8)
    """
    base = Path(folder)
    if not base.is_dir():
        raise ValueError(f"{base}: not a folder")
    files, index, weight_map = _find_files(base)
    looked_at = [*files, *([] if weight_map is None else [index])]
    fingerprint = find_fingerprint(looked_at)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in _read_file(file).items():
            if name in tensors:
                raise ValueError(f"{file}: holds {name}, which {tensors[name].file.name} holds too")
            if weight_map is not None and name not in weight_map:
                raise ValueError(f"{file}: holds {name}, which {index.name} does not name")
            tensors[name] = tensor
    for name, shard in (weight_map or {}).items():
        if name not in tensors or tensors[name].file.name != shard:
            raise ValueError(f"{base / shard}: lacks {name}, which {index.name} says it holds")
    if not tensors:
        raise ValueError(f"{base}: holds no tensor")
    return StoredCheckpoint(folder=base, tensors=tensors, files=looked_at, fingerprint=fingerprint)


def _find_files(folder: Path) -> tuple[list[Path], Path, dict[str, str] | None]:
    for whole in _WHOLE_NAMES:
        file, index = folder / whole, folder / f"{whole}.index.json"
        if os.path.lexists(file):
            return [file], file, None
        if os.path.lexists(index):
            weight_map = _read_index(index)
            return [folder / name for name in sorted({*weight_map.values()})], index, weight_map
    names = " nor ".join(f"{name}, nor {name}.index.json," for name in _WHOLE_NAMES)
    raise ValueError(f"{folder}: holds neither {names.removesuffix(',')}")


def _read_index(index: Path) -> dict[str, str]:
    if index.exists() and not index.is_file():
        raise ValueError(f"{index}: not a regular file")
    content = read_json(index, "an index of tensors")
    names = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names:
        raise ValueError(f"{index}: not an index of tensors: it has no weight_map")
    end = index.name.removesuffix(".index.json").rpartition(".")[2]
    for name, shard in names.items():
        # A shard is a file of the folder, never one elsewhere.
        if not isinstance(shard, str) or shard != os.path.basename(shard) or "\0" in shard:  # noqa: PTH119
            raise ValueError(f"{index}: {name!r:.100} lies in no file of it: {shard!r:.100}")
        if not shard.endswith(f".{end}"):
            raise ValueError(f"{index}: {name!r:.100} lies in no .{end}: {shard!r:.100}")
        if not os.path.lexists(index.with_name(shard)):
            raise ValueError(f"{index.with_name(shard)}: is missing, and {index.name} names it")
    return names


def _read_file(file: Path) -> dict[str, StoredTensor]:
    return _read_bin(file) if file.suffix == ".bin" else _read_safetensors(file)


def _read_safetensors(file: Path) -> dict[str, StoredTensor]:
    entries = read_header(file)
    with open(file, "rb") as opened:
        mapped = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    found = {}
    for name, entry in entries.items():
        if entry.offset + entry.bytes > len(mapped):
            raise ValueError(f"{file}: became shorter while it was read")
        elements = np.ndarray(entry.shape, f"V{WIDTHS[entry.dtype]}", mapped, entry.offset)
        found[name] = StoredTensor(
            file=file, dtype=entry.dtype, shape=entry.shape, elements=elements, offset=entry.offset
        )
    return found


def _read_bin(file: Path) -> dict[str, StoredTensor]:
    import torch

    if not file.is_file():
        raise ValueError(f"{file}: not a regular file")
    with refusing(file):
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        raise ValueError(f"{file}: not a file of weights: it holds a {type(content).__name__}")
    found = {}
    for name, tensor in content.items():
        if not isinstance(name, str) or not is_name(name):
            raise ValueError(f"{file}: a tensor has a name, of UTF-8: got {type(name).__name__}")
        found[name] = map_tensor(file, name, tensor)
    return found
