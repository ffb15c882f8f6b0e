"""Tensors where they lie in files of others, mapped and never read whole."""

from __future__ import annotations

import errno
import hashlib
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from lmcore._safetensors import WIDTHS, count_bytes

#: torch's names of the types that safetensors has.
TORCH_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu", "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz", "I16": "int16", "U16": "uint16", "F16": "float16",
    "BF16": "bfloat16", "I32": "int32", "U32": "uint32", "F32": "float32", "I64": "int64",
    "U64": "uint64", "F64": "float64", "C64": "complex64",
}  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class StoredTensor:
    """A tensor of a checkpoint, where it lies."""

    file: Path
    dtype: str
    """As safetensors calls it: `BF16`."""
    shape: tuple[int, ...]
    elements: NDArray[Any] = field(repr=False, compare=False)
    """Of this shape, mapped and read-only; each element is its bytes (`V2`), whatever its type."""
    offset: int | None
    """Where its bytes begin in the file; None where they do not lie in it as they are."""

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return count_bytes(self.dtype, self.shape)


def map_tensor(file: Path, name: str, tensor: Any) -> StoredTensor:
    """Returns a tensor that `torch.load` has mapped; its memory is shared.

    Args:
        file: that it lies in.
        name: what it is called there, for errors.
        tensor: what torch made of it; anything.

    Raises:
        ValueError: it is no plain tensor, or has a type that safetensors has not, or more
            elements than its file has room for.

    Example:
        >>> import torch
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(bytes(8)), file.flush()
        ...     map_tensor(Path(file.name), "wi", torch.zeros(2, 2, dtype=torch.float16)).dtype
        'F16'
    """
    import torch

    if not isinstance(tensor, torch.Tensor):
        raise ValueError(f"{file}: {name} is no tensor: {type(tensor).__name__}")
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter)
    if not plain or tensor.layout != torch.strided or tensor.device.type != "cpu":
        raise ValueError(f"{file}: {name} is no plain tensor: {tensor.layout} {tensor.device}")
    # One element that stands for many would fill a disk.
    if tensor.numel() * tensor.element_size() > (size := file.stat().st_size):
        raise ValueError(
            f"{file}: {name} has the shape {list(tensor.shape)}, and the file {size} bytes"
        )
    kind = str(tensor.dtype).removeprefix("torch.")
    dtype = next((own for own, theirs in TORCH_NAMES.items() if theirs == kind), None)
    if dtype is None or tensor.is_conj() or tensor.is_neg():
        raise ValueError(f"{file}: {name} has the unknown type {tensor.dtype}")
    whole = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    width = WIDTHS[dtype]
    elements = tensor.detach().view(whole[width]).numpy().view(f"V{width}")
    elements.setflags(write=False)
    return StoredTensor(
        file=file, dtype=dtype, shape=tuple(tensor.shape), elements=elements, offset=None
    )


@contextmanager
def refusing(file: Path) -> Iterator[None]:
    """Yields while torch reads a file, whose content may make it fail in any way.

    Args:
        file: that is read; errors name it.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no file of weights.

    Example:
        >>> with refusing(Path("a.bin")):
        ...     raise KeyError("storages")
        Traceback (most recent call last):
        ValueError: a.bin: not a file of weights: 'storages'
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of types that are refused
            yield
    except MemoryError:
        raise
    except Exception as error:
        # A place before the file's begin, which torch takes from it, is an argument that is none.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise OSError(error.errno, error.strerror, os.fspath(file)) from error
        if "mmap can only be used" in str(error) and _begins_as_pickle(file):
            raise ValueError(
                f"{file}: has torch's old format, which cannot be mapped: load and save it anew"
            ) from None
        lines = str(error).strip().splitlines()[:1] or [type(error).__name__]
        raise ValueError(f"{file}: not a file of weights: {lines[0][:200]}") from None


def find_fingerprint(files: Sequence[Path]) -> str:
    """Returns what tells files from what they become: of names, sizes, and times of change.

    Args:
        files: that exist.

    Raises:
        OSError: one cannot be found.

    Example:
        >>> len(find_fingerprint([]))
        32
    """
    digest = hashlib.blake2b(digest_size=16)
    for file in files:
        known = file.stat()
        digest.update(repr((file.name, known.st_size, known.st_mtime_ns)).encode())
    return digest.hexdigest()


def _begins_as_pickle(file: Path) -> bool:
    with open(file, "rb") as opened:
        return opened.read(1) == b"\x80"
