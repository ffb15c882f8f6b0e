"""How often the ids of a vocabulary occur, how they rank, and what they become in another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers, as_native, check_int, one_of
from lmcore.reference.vocabulary import MOST_IDS, NEW_IDS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["IdCounts", "RemappedIds", "count_ids", "rank_ids", "remap_ids"]

# Types of ids that are read where they lie; others become int64 first.
_READ = ("uint16", "uint32", "int32", "int64")


class IdCounts(NamedTuple):
    """How often ids occur."""

    counts: NDArray[np.int64]
    """`[V]` int64, of each id."""
    unknown: int
    """How many ids are outside of the vocabulary."""


class RemappedIds(NamedTuple):
    """New ids, and what was lost."""

    ids: NDArray[np.integer[Any]]
    """New ids, of the shape of the old ones."""
    lost: int
    """How many ids have no new one."""
    lost_ids: NDArray[np.int64]
    """`[L]` int64: which they are, by falling number and then by id; empty unless asked for."""
    lost_counts: NDArray[np.int64]
    """`[L]` int64: how many of each there are."""


def count_ids(
    ids: ArrayLike,
    vocabulary_size: int,
    *,
    unknown: bool = False,
    out: NDArray[np.int64] | None = None,
    threads: int | None = None,
) -> IdCounts:
    """Returns how often each id of a vocabulary occurs.

    An array of uint16, uint32, int32 or int64 is read where it lies, also in a memory-mapped file.

    Source: OpenBA-V2 (arXiv 2405.05957), pruning of the vocabulary.

    Args:
        ids: integers of any shape.
        vocabulary_size: V, ids are from 0 to V - 1.
        unknown: count the ids outside of the vocabulary instead of raising.
        out: `[V]` int64 to which the counts are added, for what comes in parts; after an error it
            is as it was.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        IndexError: an id is outside; the text says where the first is, and how many there are.
        MemoryError: the counts do not fit into the memory.
        TypeError: ids that are no integers, or counts of another type.
        ValueError: `vocabulary_size` is below 1 or above 2**31, or `out` is of another shape.

    Example:
        >>> count_ids([2, 0, 2, 7], 3, unknown=True)
        IdCounts(counts=array([1, 0, 2]), unknown=1)
    """
    import numpy as np

    size = check_int("vocabulary_size", vocabulary_size, 1, most=MOST_IDS)
    array = _as_ids(ids)
    counts = np.zeros(size, np.int64) if out is None else out
    if counts.shape != (size,):
        raise ValueError(f"out must have the shape [{size}]: got {list(counts.shape)}")
    return IdCounts(counts, _core.count_ids(array, counts, bool(unknown), limit_threads(threads)))


def rank_ids(counts: ArrayLike) -> NDArray[np.int64]:
    """Returns the ids by falling count; of equal counts the smaller id comes first.

    Args:
        counts: `[V]` integers, of ids 0, 1, ..., V - 1.

    Returns:
        `[V]` int64.

    Raises:
        TypeError: counts that are no integers.
        ValueError: a count is negative or above 2**63 - 1, or there is more than one dimension.

    Example:
        >>> rank_ids([3, 5, 3, 9]).tolist()
        [3, 1, 0, 2]
    """
    return _core.rank_ids(as_integers("counts", counts, "[V]"))


def remap_ids(
    ids: ArrayLike,
    table: ArrayLike,
    *,
    fill: int | None = None,
    dtype: str = "int32",
    out: NDArray[np.integer[Any]] | None = None,
    report: bool = False,
    threads: int | None = None,
) -> RemappedIds:
    """Returns the new ids of old ones, and how many have none: every id is checked.

    An array of uint16, uint32, int32 or int64 is read where it lies, also in a memory-mapped file.

    Source: OpenBA-V2 (arXiv 2405.05957), pruning of the vocabulary.

    Args:
        ids: integers of any shape, old ids.
        table: `[V]` integers, the new id of each old one; -1 where it has none. New ids are below
            2**31.
        fill: what an id becomes that has none, or that the table lacks; any number that the dtype
            holds, such as -100.
        dtype: of the new ids: `uint16`, `int32` or `int64`; that of `out` if it is given.
        out: of the shape of `ids`, in C order, to write into; after an error what stands there is
            not defined.
        report: say which ids have no new one, and how many of each there are.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        IndexError: an id has no new one, and there is no `fill`; the text says where the first is,
            and how many there are.
        MemoryError: the new ids do not fit into the memory.
        TypeError: ids or a table that are no integers, or an `out` of another type.
        ValueError: the table is empty, the dtype holds a new id or `fill` not, or `out` has another
            shape.

    Example:
        >>> found = remap_ids([2, 0, 1, 5], [1, -1, 0], fill=9, dtype="uint16", report=True)
        >>> found.ids, found.lost, found.lost_ids.tolist()
        (array([0, 1, 9, 9], dtype=uint16), 2, [1, 5])
    """
    import numpy as np

    array = _as_ids(ids)
    if out is None:
        one_of("dtype", dtype, tuple(NEW_IDS))
        out = np.empty(array.shape, dtype)
    if out.shape != array.shape:
        raise ValueError(
            f"out must have the shape of ids, {list(array.shape)}: got {list(out.shape)}"
        )
    fill = None if fill is None else check_int("fill", fill, -1 << 63, 1 << 63, optional=True)
    new_ids = as_integers("table", table, "[V]")
    lost = _core.remap_ids(array, new_ids, fill, bool(report), out, limit_threads(threads))
    return RemappedIds(out, *lost)


def _as_ids(ids: ArrayLike) -> NDArray[Any]:
    """Returns an array that the core can borrow, of its own type where the core reads that."""
    import numpy as np

    if isinstance(ids, np.ndarray) and ids.dtype.name in _READ:
        return as_native(ids)
    return as_integers("ids", ids, None)
