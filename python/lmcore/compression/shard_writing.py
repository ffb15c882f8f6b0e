r"""Bytes of cut tensors into a file, by blocks: no tensor is ever whole in memory.

Whole tensors and long runs of rows are copied by the system, from file to file. Scattered rows
are gathered from the mapped file into blocks of half a megabyte. Columns are cut out of blocks of
rows, whole runs of them at once where they come in runs, as the columns of kept heads do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore._shards import ShardFile
from lmcore._stored import StoredTensor
from lmcore.compression.cuts import TensorCut

# What stays in a core's cache between the reading and the writing of it.
_BLOCK_BYTES = 1 << 19
# The system copies runs from here on; below, its call costs more than it saves.
_RUN_BYTES = 1 << 18

Elements: TypeAlias = NDArray[Any]
"""Elements of any type, each as its bytes (`V2`)."""
Keep: TypeAlias = Sequence[NDArray[np.int64] | None]


class Run(NamedTuple):
    """Bytes of a tensor that are written as they lie."""

    start: int
    stop: int


def write_cuts(file: ShardFile, cuts: Iterable[tuple[StoredTensor, TensorCut]]) -> None:
    r"""Writes what cuts keep of tensors, one behind the other.

    Args:
        file: that they are written into.
        cuts: tensors, and what is kept of them; `find_shape` has checked that it fits.

    Raises:
        OSError: the disk is full, or a file cannot be read or written.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> array = np.arange(6, dtype=np.uint8).reshape(2, 3)
        >>> tensor = StoredTensor(
        ...     file=Path("a"), dtype="U8", shape=(2, 3), elements=array.view("V1"), offset=None
        ... )
        >>> cut = TensorCut(source="a", target="a", keep=(None, np.array([2, 0])))
        >>> with tempfile.TemporaryFile() as file:
        ...     write_cuts(ShardFile(file.fileno(), lambda done: None), [(tensor, cut)])
        ...     _ = file.seek(0)
        ...     file.read()
        b'\x02\x00\x05\x03'
    """
    sources: dict[Path, int] = {}
    with ExitStack() as stack:
        for tensor, cut in cuts:
            if tensor.offset is not None and tensor.file not in sources:
                opened = stack.enter_context(open(tensor.file, "rb", buffering=0))
                sources[tensor.file] = opened.fileno()
            for block in cut_blocks(tensor.elements, cut.keep or [None] * len(tensor.shape)):
                if isinstance(block, Run):
                    _write_run(file, tensor, block, sources.get(tensor.file))
                else:
                    file.write(_as_bytes(block))


def cut_blocks(elements: Elements, keep: Keep) -> Iterator[Run | Elements]:
    """Yields what is kept of a tensor, in order: places of its bytes, or blocks of elements.

    Args:
        elements: of any shape; mapped, so that what is not kept is not read.
        keep: for each axis the kept indices, or None.

    Example:
        >>> elements = np.arange(6, dtype=np.uint8).reshape(2, 3).view("V1")
        >>> list(cut_blocks(elements, [None, None]))
        [Run(start=0, stop=6)]
    """
    kept = [
        None if indices is None or _is_whole(indices, size) else indices
        for indices, size in zip(keep, elements.shape, strict=True)
    ]
    if elements.size and all(indices is None or len(indices) for indices in kept):
        yield from _cut_axes(elements, kept, 0)


def _write_run(file: ShardFile, tensor: StoredTensor, run: Run, source: int | None) -> None:
    start, stop = run
    if source is not None and tensor.offset is not None:
        start = file.copy(source, tensor.offset + start, tensor.offset + stop) - tensor.offset
    content = _as_bytes(tensor.elements)
    for place in range(start, stop, _BLOCK_BYTES):
        file.write(content[place : min(place + _BLOCK_BYTES, stop)])


def _as_bytes(elements: Elements) -> memoryview:
    return elements.reshape(-1).view(np.uint8).data


def _cut_axes(elements: Elements, keep: Keep, place: int) -> Iterator[Run | Elements]:
    """`place` is where the elements begin in their tensor, in bytes."""
    is_contiguous = elements.flags.c_contiguous
    if is_contiguous and all(indices is None for indices in keep):
        yield Run(place, place + elements.nbytes)
        return
    rows, rest = keep[0], keep[1:]
    row_bytes = elements.nbytes // len(elements)
    if is_contiguous and rows is not None and all(indices is None for indices in rest):
        yield from _cut_rows(elements, rows, place)
        return
    kept_bytes = elements.itemsize * math.prod(
        size if indices is None else len(indices)
        for size, indices in zip(elements.shape[1:], rest, strict=True)
    )
    if max(row_bytes, kept_bytes) > _BLOCK_BYTES and elements.ndim > 1:
        for row in range(len(elements)) if rows is None else map(int, rows):
            yield from _cut_axes(elements[row], rest, place + row * row_bytes)
        return
    yield from _cut_columns(elements, rows, rest, _BLOCK_BYTES // max(row_bytes, kept_bytes) or 1)


def _cut_rows(elements: Elements, rows: NDArray[np.int64], place: int) -> Iterator[Run | Elements]:
    """Long runs of rows as they lie, and others gathered."""
    row_bytes = elements.nbytes // len(elements)
    starts, lengths = _find_runs(rows)
    long = lengths * row_bytes >= _RUN_BYTES
    done = 0
    for start, length in zip(starts[long].tolist(), lengths[long].tolist(), strict=True):
        yield from _gather(elements, rows[done:start], row_bytes)
        first = place + int(rows[start]) * row_bytes
        yield Run(first, first + length * row_bytes)
        done = start + length
    yield from _gather(elements, rows[done:], row_bytes)


def _gather(elements: Elements, rows: NDArray[np.int64], row_bytes: int) -> Iterator[Elements]:
    step = _BLOCK_BYTES // row_bytes or 1
    for start in range(0, len(rows), step):
        yield elements.take(rows[start : start + step], axis=0)


def _cut_columns(
    elements: Elements, rows: NDArray[np.int64] | None, rest: Keep, step: int
) -> Iterator[Elements]:
    axes = [
        (axis, _Axis.of(indices, elements.shape[axis]))
        for axis, indices in enumerate(rest, 1)
        if indices is not None
    ]
    for start in range(0, len(elements) if rows is None else len(rows), step):
        if rows is None:
            block = elements[start : start + step]
        else:
            block = _take_rows(elements, rows[start : start + step])
        # A view of other strides would be copied whole for each axis.
        block = np.ascontiguousarray(block)
        for axis, kept in axes:
            block = kept.cut(block, axis)
        yield np.ascontiguousarray(block)


def _take_rows(elements: Elements, rows: NDArray[np.int64]) -> Elements:
    if (np.diff(rows) == 1).all():
        return elements[rows[0] : rows[-1] + 1]
    return elements.take(rows, axis=0) if elements.flags.c_contiguous else elements[rows]


class _Axis(NamedTuple):
    """What is kept of an axis: one run, or groups of indices that stand together."""

    run: slice | None
    group: int
    groups: NDArray[np.int64]

    @classmethod
    def of(cls, indices: NDArray[np.int64], size: int) -> _Axis:
        starts, lengths = _find_runs(indices)
        if len(starts) == 1:
            return cls(slice(int(indices[0]), int(indices[-1]) + 1), 1, indices)
        # Kept heads are runs of one length: moved as such, they cost as much as one element.
        group = int(np.gcd.reduce([size, np.gcd.reduce(indices[starts]), np.gcd.reduce(lengths)]))
        return cls(None, group, indices[::group] // group)

    def cut(self, block: Elements, axis: int) -> Elements:
        if self.run is not None:
            return block[(slice(None),) * axis + (self.run,)]
        before, size, after = block.shape[:axis], block.shape[axis], block.shape[axis + 1 :]
        grouped = block.reshape(*before, size // self.group, self.group, *after)
        return grouped.take(self.groups, axis).reshape(*before, -1, *after)


def _find_runs(indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where runs of consecutive indices start, and their lengths."""
    starts = np.concatenate([[0], np.flatnonzero(np.diff(indices) != 1) + 1])
    return starts, np.diff(starts, append=len(indices))


def _is_whole(indices: NDArray[np.int64], size: int) -> bool:
    return len(indices) == size and bool((indices == np.arange(size)).all())
