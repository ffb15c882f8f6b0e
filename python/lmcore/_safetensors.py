"""Headers of safetensors files, read without trust and written.

A file begins with the length of its header (8 bytes, little-endian); the header is JSON and says
type, shape and place of each tensor; the tensors follow. A file that has a tensor twice, or two
tensors in one place, or more or fewer bytes than its header says, is damaged or made to deceive:
it is refused by name, before a tensor is read.
"""

from __future__ import annotations

import json
import math
import os
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lmcore._json import parse_json

#: Bytes of an element by the names that the format has for types of whole bytes.
WIDTHS = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1, "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2, "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
#: As the format's own reader has it.
MOST_HEADER_BYTES = 100_000_000
#: As numpy and torch have it.
MOST_AXES = 64

_LENGTH = struct.Struct("<Q")


@dataclass(kw_only=True, slots=True, frozen=True)
class TensorEntry:
    """Type, shape and place of a tensor in a safetensors file."""

    dtype: str
    """As the format calls it: `BF16`."""
    shape: tuple[int, ...]
    offset: int
    """Where it begins in the file, in bytes."""

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return count_bytes(self.dtype, self.shape)


def count_bytes(dtype: str, shape: Sequence[int]) -> int:
    """Returns the bytes of a tensor.

    Args:
        dtype: the format's name of its type.
        shape: its sizes.

    Example:
        >>> count_bytes("BF16", (250_000, 4096))
        2048000000
    """
    return WIDTHS[dtype] * math.prod(shape)


def is_name(name: str) -> bool:
    r"""Returns whether a tensor can have this name in a file: a text of UTF-8 that is not empty.

    Args:
        name: such as JSON may hold, with lone surrogates.

    Example:
        >>> is_name("encoder.wi"), is_name("\ud800")
        (True, False)
    """
    return bool(name) and not any("\ud800" <= character <= "\udfff" for character in name)


def read_header(path: str | os.PathLike[str]) -> dict[str, TensorEntry]:
    """Returns the tensors of a safetensors file by name; only its header is read.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     header = make_header({"a": ("F32", (2,))})
        ...     _ = file.write(header + bytes(8)), file.flush()
        ...     read_header(file.name)["a"].offset == len(header)
        True
    """
    name = os.fspath(path)
    with open(name, "rb", opener=_open_at_once) as file:
        known = os.fstat(file.fileno())
        if not stat.S_ISREG(known.st_mode):
            raise ValueError(f"{name}: not a regular file")
        size = known.st_size
        start = file.read(_LENGTH.size)
        if len(start) < _LENGTH.size:
            raise ValueError(f"{name}: not a safetensors file: it has {size} bytes")
        (length,) = _LENGTH.unpack(start)
        if length > min(size - _LENGTH.size, MOST_HEADER_BYTES):
            raise ValueError(
                f"{name}: not a whole safetensors file: its header has {length} bytes, and the "
                f"file {size}"
            )
        text = file.read(length)
    try:
        return _parse(text, _LENGTH.size + length, size)
    except ValueError as error:
        raise ValueError(f"{name}: not a whole safetensors file: {error}") from None


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Returns what a safetensors file says of itself, whose header `read_header` has accepted.

    Args:
        path: the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it says nothing, or other than texts; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     _ = file.write(make_header({}, {"format": "toy"})), file.flush()
        ...     read_metadata(file.name)
        {'format': 'toy'}
    """
    name = os.fspath(path)
    with open(name, "rb", opener=_open_at_once) as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        found = parse_json(file.read(min(length, MOST_HEADER_BYTES)).decode()).get("__metadata__")
    if not isinstance(found, dict) or not all(isinstance(text, str) for text in found.values()):
        raise ValueError(f"{name}: says nothing of itself: it has no metadata of texts")
    return found


def make_header(
    tensors: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Returns the first bytes of a safetensors file; its tensors follow in the same order.

    Args:
        tensors: type and shape by name.
        metadata: what the file says of itself; what transformers asks for if None.

    Raises:
        ValueError: the header is longer than the format allows.

    Example:
        >>> len(make_header({"a": ("F32", (2,))})) % 8
        0
    """
    # What transformers asks for before it loads a file.
    about = {"format": "pt"} if metadata is None else dict(metadata)
    content: dict[str, Any] = {"__metadata__": about}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + count_bytes(dtype, shape)
        content[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MOST_HEADER_BYTES:
        raise ValueError(f"a header has at most {MOST_HEADER_BYTES} bytes: got {len(text)}")
    return _LENGTH.pack(len(text)) + text


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would be waited for


def _parse(text: bytes, begin: int, size: int) -> dict[str, TensorEntry]:
    content = parse_json(text.decode())
    if not isinstance(content, dict):
        raise ValueError("its header is no JSON object")
    content.pop("__metadata__", None)
    found = {name: _read_entry(name, value) for name, value in content.items()}
    place = 0
    for name, (start, stop, _) in sorted(found.items(), key=lambda item: item[1][:2]):
        if start != place:
            kind = "overlaps the one before it" if start < place else "leaves a hole before it"
            raise ValueError(f"{name!r:.100} {kind}: it begins at {start}, not at {place}")
        place = stop
    if begin + place != size:
        raise ValueError(f"expected {begin + place} bytes as its header says, got {size}")
    return {
        name: TensorEntry(dtype=entry.dtype, shape=entry.shape, offset=begin + entry.offset)
        for name, (_, _, entry) in found.items()
    }


def _read_entry(name: str, value: Any) -> tuple[int, int, TensorEntry]:
    where = f"{name!r:.100}"
    if not is_name(name):
        raise ValueError(f"{where} is no name of a tensor")
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{where} must have dtype, shape and data_offsets: got {value!r:.100}")
    dtype, shape, places = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise ValueError(f"{where} has the unknown type {dtype!r:.40}")
    if not _are_sizes(shape) or len(shape) > MOST_AXES:
        raise ValueError(f"{where} has no shape: {shape!r:.100}")
    if not _are_sizes(places) or len(places) != 2 or places[0] > places[1]:
        raise ValueError(f"{where} has no place: {places!r:.100}")
    expected = count_bytes(dtype, shape)
    if places[1] - places[0] != expected:
        raise ValueError(
            f"{where} takes {expected} bytes as {dtype} {shape!r:.100}, and has "
            f"{places[1] - places[0]}"
        )
    return places[0], places[1], TensorEntry(dtype=dtype, shape=tuple(shape), offset=places[0])


def _are_sizes(values: Any) -> bool:
    return isinstance(values, list) and all(
        type(value) is int and 0 <= value < 1 << 63 for value in values
    )
