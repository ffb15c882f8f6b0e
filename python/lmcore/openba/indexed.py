"""Token files of Megatron, as OpenBA's training wrote them: `PREFIX.bin` and `PREFIX.idx`.

`.bin` holds tokens and nothing else. Each item is a source and a target, one behind the other; the
target of a text that is denoised is empty. `.idx`, all little-endian:

| bytes | what |
| --- | --- |
| 9, 8, 1 | `MMIDIDX` and two zeros; version 1; code of the tokens' type |
| 8, 8, 8 | number of parts (two an item), of items for span corruption, of multi-task items |
| 4 a part | tokens in it |
| 8 a part | where it begins in `.bin`, in bytes |
| 8 an item | which items are for span corruption |
| 8 an item | which are multi-task items |
"""

from __future__ import annotations

import io
import os
import struct
from array import array
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Literal, NamedTuple, Self

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lmcore._files import find_output, naming_errors, whole_file

MAGIC = b"MMIDIDX\x00\x00"
_HEADER = struct.Struct("<9sQBQQQ")
#: Types of tokens by their code; 6 and 7 are of floating point.
DTYPES: dict[int, np.dtype[Any]] = {
    1: np.dtype("u1"), 2: np.dtype("i1"), 3: np.dtype("<i2"), 4: np.dtype("<i4"),
    5: np.dtype("<i8"), 8: np.dtype("<u2"),
}  # fmt: skip
_AT_ONCE = 1 << 20

Task = Literal["span-corruption", "multi-task"]


class Item(NamedTuple):
    """An item of a token file."""

    source: NDArray[np.integer[Any]]
    """`[tokens]`, of the file's type, read-only."""
    target: NDArray[np.integer[Any]]
    """`[tokens]`; empty where a text is denoised."""


class IndexedDataset:
    """The items of a token file, memory-mapped.

    Args:
        prefix: the name of both files without `.bin` and `.idx`.
        vocabulary_size: if given, an item with an id that is not below it is refused when it is
            read.

    Attributes:
        sizes: `[items, 2]` int32, tokens of source and target.
        span_corruption: `[...]` int64, which items are for span corruption.
        multi_task: `[...]` int64, which are multi-task items.
        dtype: the type of the tokens.

    Raises:
        OSError: a file cannot be read.
        ValueError: the index is none, or the two files do not fit; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     prefix = Path(folder, "corpus")
        ...     with IndexedWriter(prefix, vocabulary_size=1000) as writer:
        ...         writer.add([5, 6, 7])
        ...         writer.add([8, 9], [10])
        ...     data = IndexedDataset(prefix)
        ...     len(data), data[1].source.tolist(), data.multi_task.tolist()
        (2, [8, 9], [1])
    """

    def __init__(
        self, prefix: str | os.PathLike[str], *, vocabulary_size: int | None = None
    ) -> None:
        self.prefix = os.fspath(prefix)
        self.vocabulary_size = vocabulary_size
        index = f"{self.prefix}.idx"
        with open(index, "rb") as file:
            header = file.read(_HEADER.size)
            size = os.fstat(file.fileno()).st_size
        if len(header) < _HEADER.size or not header.startswith(MAGIC):
            raise ValueError(f"{index}: not an index of tokens: it begins with {header[:9]!r}")
        _, version, code, parts, spans, tasks = _HEADER.unpack(header)
        if version != 1:
            raise ValueError(f"{index}: expected version 1, got {version}")
        if code not in DTYPES:
            raise ValueError(f"{index}: expected a type of whole numbers, got the code {code}")
        if parts % 2:
            raise ValueError(f"{index}: expected two parts an item, got {parts} in all")
        expected = _HEADER.size + 12 * parts + 8 * (spans + tasks)
        if size != expected:
            raise ValueError(f"{index}: expected {expected} bytes for {parts} parts, got {size}")
        self.dtype: np.dtype[Any] = DTYPES[code]
        content = _map_bytes(index)
        place = _HEADER.size
        self.sizes: NDArray[np.int32] = _view(content, "<i4", place, parts).reshape(-1, 2)
        self._pointers = _view(content, "<i8", place + 4 * parts, parts).reshape(-1, 2)
        place += 12 * parts
        self.span_corruption: NDArray[np.int64] = _view(content, "<i8", place, spans)
        self.multi_task: NDArray[np.int64] = _view(content, "<i8", place + 8 * spans, tasks)
        self._check(index)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def tokens(self) -> NDArray[np.integer[Any]]:
        """All tokens, of sources and targets, one behind the other: a view of the file.

        `[tokens]`, of the file's type. Ids are not looked at.
        """
        return self._tokens

    @property
    def table(self) -> NDArray[np.integer[Any]] | None:
        """The sources of all items as rows, a view of the file; None where lengths differ.

        `[items, tokens]`, of the file's type, as `pack_files` writes them. Ids are not looked at.
        """
        return self._groups

    def __getitem__(self, index: int) -> Item:
        """Returns an item, as views of the file.

        Args:
            index: from 0; negative ones count from the end.

        Raises:
            IndexError: there is no such item, or it has an id outside the vocabulary.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)} of {self.prefix}")
        item = int(index) % len(self)
        (first, second), (source, target) = (
            self._pointers[item] // self.dtype.itemsize,
            (self.sizes[item]),
        )
        found = Item(self._tokens[first : first + source], self._tokens[second : second + target])
        if self.vocabulary_size is not None:
            for part in found:
                self._check_ids(part, item)
        return found

    def read_sources(self, items: ArrayLike) -> NDArray[np.integer[Any]]:
        """Returns the sources of several items of equal length, `[items, tokens]`.

        Args:
            items: `[items]` integers.

        Raises:
            IndexError: there is no such item, or one has an id outside the vocabulary.
            ValueError: they differ in length.
        """
        rows = np.asarray(items, np.int64)
        if rows.size and rows.view(np.uint64).max() >= len(self):  # so large are negative ones
            bad = rows[(rows < 0) | (rows >= len(self))]
            raise IndexError(f"item {bad[0]} of {len(self)} of {self.prefix}")
        if self._groups is not None:
            found = self._groups.take(rows, axis=0)
        else:
            sizes = self.sizes[rows, 0]
            length = int(sizes[0]) if len(rows) else 0
            if (sizes != length).any():
                raise ValueError(
                    f"{self.prefix}: expected items of equal length, got {sizes.min()} to "
                    f"{sizes.max()}"
                )
            places = self._pointers[rows, 0, None] // self.dtype.itemsize + np.arange(length)
            found = self._tokens[places]
        if self.vocabulary_size is not None and found.size and self._is_outside(found):
            for row, item in zip(found, rows, strict=True):
                self._check_ids(row, int(item))
        return np.asarray(found)

    def __reduce__(self) -> tuple[Any, ...]:
        return _open, (self.prefix, self.vocabulary_size)

    def _is_outside(self, ids: NDArray[Any]) -> bool:
        assert self.vocabulary_size is not None
        return bool(ids.max() >= self.vocabulary_size or ids.min() < 0)

    def _check_ids(self, ids: NDArray[Any], item: int) -> None:
        if ids.size and self._is_outside(ids):
            size = self.vocabulary_size
            place = int(np.argmax((ids < 0) | (ids >= size)))
            raise IndexError(
                f"{self.prefix}.bin: expected ids below {size}, got {ids[place]} at position "
                f"{place} of item {item}"
            )

    def _check(self, index: str) -> None:
        data = f"{self.prefix}.bin"
        size = Path(data).stat().st_size
        width = self.dtype.itemsize
        total = 0
        lengths: set[tuple[int, int]] = set()
        for start in range(0, len(self), _AT_ONCE):
            sizes = self.sizes[start : start + _AT_ONCE].ravel().astype(np.int64)
            if sizes.min() < 0:
                raise ValueError(f"{index}: a part of {sizes.min()} tokens")
            begins = total * width + width * (np.cumsum(sizes) - sizes)
            if (self._pointers[start : start + _AT_ONCE].ravel() != begins).any():
                raise ValueError(f"{index}: its parts do not lie one behind the other")
            total += int(sizes.sum())
            for part in (sizes.reshape(-1, 2).min(axis=0), sizes.reshape(-1, 2).max(axis=0)):
                lengths.add((int(part[0]), int(part[1])))
        if size != total * width:
            raise ValueError(f"{data}: expected {total * width} bytes as {index} says, got {size}")
        for name, items in (("span", self.span_corruption), ("multi-task", self.multi_task)):
            if items.size and not 0 <= items.min() <= items.max() < len(self):
                raise ValueError(f"{index}: a {name} item that is none of its {len(self)} items")
        self._tokens = _view(_map_bytes(data), self.dtype, 0, total)
        # Groups of a packed text lie one behind the other, as rows of a table.
        self._groups: NDArray[Any] | None = None
        if len(self) and lengths == {(int(self.sizes[0, 0]), 0)}:
            self._groups = self._tokens.reshape(len(self), -1)


class IndexedWriter:
    r"""Writes a token file, item by item; both files are whole at the end, or not there.

    Sizes and kinds of the items are held in memory, a few bytes for each.

    Args:
        prefix: the name of both files without `.bin` and `.idx`.
        vocabulary_size: number of ids; it decides on the type of the tokens.

    Raises:
        OSError: a file cannot be written.
        ValueError: there are no ids.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with IndexedWriter(Path(folder, "corpus"), vocabulary_size=1000) as writer:
        ...         writer.add([5, 6, 7])
        ...     Path(folder, "corpus.bin").read_bytes()
        b'\x05\x00\x06\x00\x07\x00'
    """

    def __init__(self, prefix: str | os.PathLike[str], *, vocabulary_size: int) -> None:
        self.prefix = os.fspath(prefix)
        self.dtype = choose_dtype(vocabulary_size)
        self._vocabulary_size = vocabulary_size
        self._sizes = array("i")
        self._items = {"span-corruption": array("q"), "multi-task": array("q")}
        self._stack = ExitStack()
        self._file: IO[bytes] = io.BytesIO()

    def __enter__(self) -> Self:
        find_output(f"{self.prefix}.idx")
        with ExitStack() as stack:
            place = stack.enter_context(whole_file(f"{self.prefix}.bin"))
            stack.enter_context(naming_errors(f"{self.prefix}.bin", place))
            self._file = stack.enter_context(open(place, "wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._stack:
            if error is not None:
                self._stack.__exit__(kind, error, trace)
                return
            self._file.flush()
            # An old index never stands beside new tokens.
            Path(f"{self.prefix}.idx").unlink(missing_ok=True)
        with whole_file(f"{self.prefix}.idx") as place, open(place, "wb") as file:
            sizes = np.asarray(self._sizes, "<i4").reshape(-1, 2)
            spans, tasks = (np.asarray(items, "<i8") for items in self._items.values())
            file.writelines(make_index(sizes, spans, tasks, self.dtype))

    def add(self, source: ArrayLike, target: ArrayLike = (), *, task: Task | None = None) -> None:
        """Writes an item.

        Args:
            source: `[tokens]` ids.
            target: `[tokens]` ids; none for a text that is denoised.
            task: what the item is for; without it, a target says so.

        Raises:
            IndexError: an id outside the vocabulary.
            OSError: the file cannot be written.
            TypeError: ids are no whole numbers.
            ValueError: ids have more than one axis, or the task is another.
        """
        parts = [
            self._convert("source", np.asarray(source)), self._convert("target", np.asarray(target))
        ]  # fmt: skip
        kind = task or ("multi-task" if len(parts[1]) else "span-corruption")
        if kind not in self._items:
            raise ValueError(f"task must be one of {', '.join(self._items)}: got {kind!r}")
        self._items[kind].append(len(self._sizes) // 2)
        for part in parts:
            self._sizes.append(len(part))
            with naming_errors(f"{self.prefix}.bin"):
                self._file.write(part.tobytes())

    def _convert(self, name: str, ids: NDArray[Any]) -> NDArray[Any]:
        if ids.ndim != 1:
            raise ValueError(f"{name} must have one axis: got {ids.ndim}")
        if ids.size and not np.issubdtype(ids.dtype, np.integer):
            raise TypeError(f"{name} must be of whole numbers: got {ids.dtype}")
        bad = ids[(ids < 0) | (ids >= self._vocabulary_size)] if ids.size else ids
        if bad.size:
            raise IndexError(f"{name}: expected ids below {self._vocabulary_size}, got {bad[0]}")
        return ids.astype(self.dtype)


def choose_dtype(vocabulary_size: int) -> np.dtype[Any]:
    """Returns the type of tokens that Megatron takes: uint16 below 65,500 ids, else int32.

    Args:
        vocabulary_size: number of ids.

    Raises:
        ValueError: it is below 1 or above 2**31.

    Example:
        >>> choose_dtype(65_499), choose_dtype(250_203)
        (dtype('uint16'), dtype('int32'))
    """
    if not 1 <= vocabulary_size <= 2**31:
        raise ValueError(f"vocabulary_size must be from 1 to 2**31: got {vocabulary_size}")
    return DTYPES[8 if vocabulary_size < 65_500 else 4]


def make_index(
    sizes: NDArray[np.integer[Any]],
    span_corruption: NDArray[np.integer[Any]],
    multi_task: NDArray[np.integer[Any]],
    dtype: DTypeLike,
) -> Iterator[bytes]:
    """Yields the bytes of an index.

    Args:
        sizes: `[items, 2]` integers, tokens of source and target.
        span_corruption: `[...]` integers, which items are for span corruption.
        multi_task: `[...]` integers, which are multi-task items.
        dtype: of the tokens.

    Raises:
        ValueError: the type has no code.

    Example:
        >>> none = np.zeros(0, np.int64)
        >>> len(b"".join(make_index(np.array([[5, 0]]), none, none, "uint16"))) - 42
        24
    """
    kind = np.dtype(dtype)
    parts = sizes.reshape(-1)
    yield _make_header(kind, len(parts), len(span_corruption), len(multi_task))
    yield parts.astype("<i4").tobytes()
    yield (kind.itemsize * (np.cumsum(parts, dtype="<i8") - parts)).astype("<i8").tobytes()
    for items in (span_corruption, multi_task):
        yield items.astype("<i8").tobytes()


def make_group_index(groups: int, length: int, dtype: DTypeLike) -> Iterator[bytes]:
    """Yields the bytes of an index of groups of one length, all for span corruption.

    Args:
        groups: number of groups.
        length: tokens in each.
        dtype: their type.

    Raises:
        ValueError: a number is negative, or the type has no code.

    Example:
        >>> len(b"".join(make_group_index(3, 568, "uint16"))) - 42
        96
    """
    if groups < 0 or length < 0:
        raise ValueError(f"groups and length must not be negative: got {groups} and {length}")
    kind = np.dtype(dtype)
    yield _make_header(kind, 2 * groups, groups, 0)
    ranges = [(at, min(at + _AT_ONCE, groups)) for at in range(0, groups, _AT_ONCE)]
    step = length * kind.itemsize
    for start, stop in ranges:
        yield np.tile(np.asarray([length, 0], "<i4"), stop - start).tobytes()
    for start, stop in ranges:
        begins = step * np.arange(start, stop, dtype="<i8")
        yield np.stack([begins, begins + step], axis=1).tobytes()
    for start, stop in ranges:
        yield np.arange(start, stop, dtype="<i8").tobytes()


def _make_header(dtype: np.dtype[Any], parts: int, spans: int, tasks: int) -> bytes:
    codes: Sequence[int] = [code for code, known in DTYPES.items() if known == dtype]
    if not codes:
        raise ValueError(f"dtype must be one of the format's: got {dtype}")
    return _HEADER.pack(MAGIC, 1, codes[0], parts, spans, tasks)


def _map_bytes(path: str) -> NDArray[np.uint8]:
    if not Path(path).stat().st_size:  # which cannot be mapped
        return np.zeros(0, np.uint8)
    return np.memmap(path, np.uint8, "r")


def _view(content: NDArray[np.uint8], dtype: DTypeLike, place: int, count: int) -> NDArray[Any]:
    found: NDArray[Any] = (
        np.frombuffer(content, dtype, count, place) if count else np.zeros(0, dtype)
    )
    return found


def _open(prefix: str, vocabulary_size: int | None) -> IndexedDataset:
    return IndexedDataset(prefix, vocabulary_size=vocabulary_size)
