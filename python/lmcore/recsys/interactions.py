"""Interactions of users with items in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.recsys.ids import IdMap, Ids, to_count
from lmcore.recsys.reports import FilterReport, InteractionReport
from lmcore.recsys.stretches import count_repeated, take_stretches, take_windows

__all__ = ["History", "Interactions", "make_interactions"]


class History(NamedTuple):
    """Sets of items in compressed rows."""

    offsets: NDArray[np.int64]
    """`[M + 1]`: row m holds `columns[offsets[m]:offsets[m + 1]]`."""
    columns: NDArray[np.int64]
    """Items minus 1: columns of `[M, I]` scores. An item had twice stands twice."""


@dataclass(slots=True, frozen=True, eq=False)
class Interactions:
    """Items of each user in time order, in compressed rows.

    User u of 1..U has `items[offsets[u - 1]:offsets[u]]`, ids in 1..I.
    """

    offsets: NDArray[np.int64]
    """`[U + 1]`."""
    items: NDArray[np.int64]
    """`[interactions]`."""
    id_map: IdMap
    """The original ids."""
    report: InteractionReport
    """What was read."""
    times: NDArray[Any] | None = None
    """`[interactions]` int64, float64 or datetime64[ns]: when it was, ascending for each user;
    None where no times are known and the order was taken as it came."""
    filtered: FilterReport | None = None
    """What a filter left out; None where there was none."""

    @property
    def user_count(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return len(self.id_map.items)

    @property
    def user_ids(self) -> Ids:
        """Original ids of the users: `user_ids[u - 1]` is user u."""
        return self.id_map.users

    @property
    def item_ids(self) -> Ids:
        """Original ids of the items: `item_ids[i - 1]` is item i."""
        return self.id_map.items

    def sequences(
        self, max_length: int, users: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Returns each user's last items, `[n, max_length]` int64, left padded with 0.

        Args:
            max_length: L, at least 1.
            users: `[n]` in 1..U; all users if None.

        Raises:
            IndexError: a user is out of range.
            ValueError: `max_length` below 1.

        Example:
            >>> make_interactions([0, 1, 4], [5, 1, 2, 3]).sequences(2).tolist()
            [[0, 5], [2, 3]]
        """
        rows = self._rows(users)
        return take_windows(self.items, self.offsets[rows], self.offsets[rows + 1], max_length)

    def history(self, users: NDArray[np.int64] | None = None) -> History:
        """Returns every item of each user: what a recommendation excludes.

        Args:
            users: `[n]` in 1..U; all users if None.

        Raises:
            IndexError: a user is out of range.

        Example:
            >>> make_interactions([0, 1, 4], [5, 1, 2, 3]).history().columns.tolist()
            [4, 0, 1, 2]
        """
        rows = self._rows(users)
        return to_history(self.items, self.offsets[rows], self.offsets[rows + 1])

    def _rows(self, users: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if users is None:
            return np.arange(self.user_count, dtype=np.int64)
        rows = np.asarray(users, dtype=np.int64) - 1
        bad = np.flatnonzero((rows < 0) | (rows >= self.user_count))
        if bad.size:
            raise IndexError(
                f"users must be in 1..{self.user_count}: got {rows[bad[0]] + 1} at {bad[0]}"
            )
        return rows


def make_interactions(
    offsets: ArrayLike,
    items: ArrayLike,
    item_count: int | None = None,
    *,
    times: ArrayLike | None = None,
) -> Interactions:
    """Returns interactions that are in memory already, with ids that stay as they are.

    Args:
        offsets: `[U + 1]` integers, from 0, ascending: user u has
            `items[offsets[u - 1]:offsets[u]]` in time order.
        items: `[interactions]` integers in 1..I.
        item_count: I; the largest item if None.
        times: `[interactions]` numbers or dates, ascending for each user.

    Raises:
        IndexError: an item is not in 1..I.
        TypeError: an array is not of integers, `item_count` is no integer, or times are neither
            numbers nor dates.
        ValueError: an array is not one-dimensional, the offsets do not fit the items, or times do
            not ascend.

    Example:
        >>> interactions = make_interactions([0, 2, 3], [4, 1, 4])
        >>> interactions.user_count, interactions.item_count
        (2, 4)
    """
    rows = _to_integers("offsets", offsets)
    values = _to_integers("items", items)
    if not len(rows) or rows[0] != 0 or rows[-1] != len(values):
        ends = f"{rows[0]} to {rows[-1]}" if len(rows) else "none"
        raise ValueError(f"offsets must go from 0 to the {len(values)} items: got {ends}")
    lengths = np.diff(rows)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"offsets must ascend: they fall after row {lengths.argmin()}")
    largest = int(values.max(initial=0))
    count = largest if item_count is None else to_count("item_count", item_count)
    if len(values) and (values.min() < 1 or largest > count):
        index = int(np.flatnonzero((values < 1) | (values > count))[0])
        raise IndexError(f"items must be in 1..{count}: got {values[index]} at {index}")
    users = np.repeat(np.arange(1, len(rows), dtype=np.int64), lengths)
    when = None if times is None else as_times(times, len(values))
    if when is not None:
        late = np.flatnonzero((when[1:] < when[:-1]) & (users[1:] == users[:-1]))
        if late.size:
            raise ValueError(f"times must ascend for each user: they fall after row {late[0]}")
    report = InteractionReport(
        users=len(lengths),
        items=count,
        interactions=len(values),
        repeated=count_repeated(users, values),
    )
    return Interactions(rows, values, IdMap.identity(len(lengths), count), report, when)


def as_times(times: ArrayLike, count: int) -> NDArray[Any]:
    """Returns times of memory as `[count]` int64, float64 or datetime64[ns].

    Args:
        times: numbers or dates.
        count: of the interactions.

    Raises:
        TypeError: they are neither.
        ValueError: their number is another one, or one is not finite or does not fit 64 bits.

    Example:
        >>> as_times([3, 5], 2).tolist()
        [3, 5]
    """
    array = np.asarray(times)
    if array.shape != (count,):
        raise ValueError(f"times must be {count}, one for each interaction: got {array.shape}")
    if array.dtype.kind == "M":
        found = array.astype("datetime64[ns]")
        # Years that nanoseconds do not hold wrap around.
        wrong = np.isnat(found) | (found.astype(array.dtype) != array)
    elif array.dtype.kind in "iuf":
        found = array.astype(np.float64 if array.dtype.kind == "f" else np.int64)
        wrong = ~np.isfinite(found)
        if array.dtype.kind == "u":
            wrong |= found < 0
    elif not array.size:
        return np.zeros(0, dtype=np.int64)
    else:
        raise TypeError(f"times must be numbers or dates: got {array.dtype}")
    if wrong.any():
        index = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"times must be finite and fit 64 bits: got {array[index]} at {index}")
    return found


def to_history(
    items: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> History:
    """The stretches one after the other, as columns."""
    offsets, values = take_stretches(items, starts, ends)
    return History(offsets, values - 1)


def _to_integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got {array.ndim}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return array.astype(np.int64)
