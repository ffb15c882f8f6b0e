"""Counts of a vocabulary's ids, by group, and the files that hold them.

A file of counts is one of safetensors: a tensor `counts/<group>` `[V]` int64 for each group, and in
its metadata `format`, `version`, `tokenizer` (SHA-256 of the tokenizer's file) and `tokens` (their
number). The text form of OpenBA-V2's authors is read as well: a line `id count` for each id, in any
order.
"""

from __future__ import annotations

import json
import os
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import whole_file
from lmcore._json import parse_json
from lmcore._safetensors import TensorEntry, read_header

ALL = "all"
"""The group where there are no others."""
_FORMAT, _VERSION, _PREFIX = "lmcore-counts", "1", "counts/"
_NAME = re.compile(r"[\w.+-]{1,100}")
_LENGTH = struct.Struct("<Q")
# What a text may say about its size; a larger vocabulary comes in a file that is as long as it.
_MOST_IDS_OF_TEXT = 1 << 24


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Counts:
    """How often each id of a vocabulary occurs, by group."""

    groups: Mapping[str, NDArray[np.int64]]
    """`[V]` int64 by name: a language, or a group of files; at least one."""
    tokenizer: str = ""
    """SHA-256 of the tokenizer's file; empty where that is not known."""

    @property
    def vocabulary_size(self) -> int:
        """V, the number of ids."""
        return len(next(iter(self.groups.values())))

    @property
    def total(self) -> NDArray[np.int64]:
        """`[V]` int64: how often each id occurs in all groups together."""
        total = np.zeros(self.vocabulary_size, np.int64)
        for counts in self.groups.values():
            total += counts
        return total

    @property
    def tokens(self) -> int:
        """How many there are in all groups together."""
        return sum(int(counts.sum()) for counts in self.groups.values())


def read_counts(path: str | os.PathLike[str], *, vocabulary_size: int | None = None) -> Counts:
    r"""Returns the counts of a file, of either form.

    Args:
        path: the file.
        vocabulary_size: V, where it is known: what has another size is refused. A text that lacks
            ids has them with a count of 0, up to V, or to its largest id.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no counts, or those of another vocabulary; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w") as file:
        ...     _ = file.write("3 50\n0 7\n"), file.flush()
        ...     read_counts(file.name).total.tolist()
        [7, 0, 0, 50]
    """
    name = os.fspath(path)
    with open(path, "rb") as file:
        is_text = file.read(_LENGTH.size + 1)[_LENGTH.size :] != b"{"
    counts = _read_text(name, vocabulary_size) if is_text else _read_tensors(name)
    if vocabulary_size is not None and counts.vocabulary_size != vocabulary_size:
        raise ValueError(
            f"{name}: counts of another vocabulary: expected {vocabulary_size} ids, got "
            f"{counts.vocabulary_size}"
        )
    return counts


def write_counts(
    path: str | os.PathLike[str],
    counts: Counts,
    inputs: tuple[str | os.PathLike[str], ...] = (),
) -> None:
    """Writes a file of counts: equal counts become equal bytes.

    Args:
        path: the file; whole under its name at the end, or not there.
        counts: at least one group; names are of letters, digits and `._+-`.
        inputs: files that it must not be.

    Raises:
        OSError: the file cannot be written.
        ValueError: there is no group, one has another size or a negative count, or a name cannot
            be one; or the file is an input.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.counts")
        ...     write_counts(file, Counts(groups={"en": np.array([2, 0, 1])}))
        ...     read_counts(file).groups["en"].tolist()
        [2, 0, 1]
    """
    content = _make_header(counts)
    with whole_file(path, inputs) as place, open(place, "wb") as file:
        file.write(content)
        for part in counts.groups.values():
            file.write(np.ascontiguousarray(part, "<i8").data)


def check_group(name: str) -> str:
    """Returns a group's name.

    Args:
        name: of letters, digits and `._+-`.

    Raises:
        ValueError: it cannot be one.

    Example:
        >>> check_group("zh-Hans")
        'zh-Hans'
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"a group's name must be of letters, digits and ._+-: got {name!r:.60}")
    return name


def _make_header(counts: Counts) -> bytes:
    if not counts.groups:
        raise ValueError("expected counts of at least one group, got none")
    metadata = {
        "format": _FORMAT, "version": _VERSION, "tokenizer": counts.tokenizer,
        "tokens": str(counts.tokens),
    }  # fmt: skip
    header: dict[str, Any] = {"__metadata__": metadata}
    size, end = counts.vocabulary_size, 0
    for name, part in counts.groups.items():
        if part.shape != (size,) or not np.issubdtype(part.dtype, np.integer) or (part < 0).any():
            raise ValueError(f"counts of {check_group(name)!r} must be {size} numbers from 0")
        start, end = end, end + 8 * size
        header[_PREFIX + check_group(name)] = {
            "dtype": "I64", "shape": [size], "data_offsets": [start, end],
        }  # fmt: skip
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return _LENGTH.pack(len(text)) + text


def _read_tensors(name: str) -> Counts:
    entries = read_header(name)
    with open(name, "rb") as file:
        (length,) = _LENGTH.unpack(file.read(_LENGTH.size))
        metadata = parse_json(file.read(length).decode()).get("__metadata__")
        if not isinstance(metadata, dict) or metadata.get("format") != _FORMAT:
            raise ValueError(f"{name}: not a file of counts, but another of safetensors")
        if metadata.get("version") != _VERSION:
            got = metadata.get("version")
            raise ValueError(f"{name}: expected version {_VERSION} of counts, got {got!r:.40}")
        groups = {}
        for tensor, entry in sorted(entries.items(), key=lambda item: item[1].offset):
            group = tensor.removeprefix(_PREFIX)
            if group == tensor or not _NAME.fullmatch(group):
                raise ValueError(f"{name}: expected tensors counts/<group>, got {tensor!r:.60}")
            groups[group] = _read_group(name, group, entry, file)
    if not groups or len({len(part) for part in groups.values()}) != 1:
        raise ValueError(f"{name}: expected groups of one size, got {len(groups)} groups")
    counts = Counts(groups=groups, tokenizer=str(metadata.get("tokenizer", "")))
    if str(counts.tokens) != metadata.get("tokens"):
        raise ValueError(
            f"{name}: damaged: it holds {counts.tokens} tokens, and says "
            f"{metadata.get('tokens')!r:.40}"
        )
    return counts


def _read_group(name: str, group: str, entry: TensorEntry, file: Any) -> NDArray[np.int64]:
    if entry.dtype != "I64" or len(entry.shape) != 1 or not entry.shape[0]:
        raise ValueError(f"{name}: expected a row of I64 in {group!r}, got {entry.dtype} there")
    file.seek(entry.offset)
    part = np.frombuffer(file.read(entry.bytes), "<i8").astype(np.int64)
    # More tokens than that in all are no counts, and would wrap around.
    if part.min() < 0 or float(part.sum(dtype=np.float64)) >= 2.0**62:
        raise ValueError(f"{name}: the counts of {group!r} are negative, or too large")
    return part


def _read_text(name: str, vocabulary_size: int | None) -> Counts:
    most = _MOST_IDS_OF_TEXT if vocabulary_size is None else vocabulary_size
    found: dict[int, int] = {}
    with open(name, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(1000), b""), 1):
            if not line.strip():
                continue
            if not re.fullmatch(rb"\s*[0-9]{1,10}[ \t,]+[0-9]{1,18}\s*", line):
                raise ValueError(f"{name}:{number}: expected `id count`, got {line[:60]!r}")
            token, count = map(int, line.replace(b",", b" ").split())
            if token >= most:
                raise ValueError(f"{name}:{number}: expected an id below {most}, got {token}")
            if token in found:
                raise ValueError(f"{name}:{number}: the id {token} stands twice")
            found[token] = count
    if not found:
        raise ValueError(f"{name}: the file holds no counts")
    counts = np.zeros(max(found) + 1 if vocabulary_size is None else most, np.int64)
    counts[list(found)] = list(found.values())
    if float(counts.sum(dtype=np.float64)) >= 2.0**62:
        raise ValueError(f"{name}: its counts are too large")
    return Counts(groups={ALL: counts})
