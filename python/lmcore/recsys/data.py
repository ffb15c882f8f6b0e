"""Interactions of users with items in memory, and the leave-one-out split."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.recsys.ids import IdMap, Ids, to_count

__all__ = [
    "EvaluationRows",
    "History",
    "InteractionReport",
    "Interactions",
    "Split",
    "leave_one_out",
    "make_interactions",
]

SPLITS = ("valid", "test")
ORDER_TRUSTED = "no times: the order of the file was trusted"


@dataclass(kw_only=True, slots=True, frozen=True)
class InteractionReport:
    """What was read, and what reading changed or left out."""

    users: int
    """U."""
    items: int
    """I."""
    interactions: int
    """Those kept."""
    repeated: int = 0
    """Interactions with an item that the user had before; they are kept."""
    remapped_users: int = 0
    """Users whose id is not their original one."""
    remapped_items: int = 0
    """Items whose id is not their original one."""
    unsorted: int = 0
    """Rows with an earlier timestamp than the user's row before; they were sorted."""
    skipped: int = 0
    """Rows left out because they could not be used."""
    listed_skipped: tuple[str, ...] = field(default=(), repr=False)
    """Place and problem of the first 1000 of them."""
    is_order_trusted: bool = False
    """Whether there were no times, so that the order of the rows was taken for theirs."""

    def describe(self) -> str:
        """Returns one line of text: the sizes, and whatever is not 0.

        Example:
            >>> InteractionReport(users=2, items=1200, interactions=9, repeated=1).describe()
            '2 users, 1,200 items, 9 interactions (1 repeated)'
        """
        sizes = [f"{getattr(self, name):,} {name}" for name in ("users", "items", "interactions")]
        notes = {
            "repeated": self.repeated,
            "users remapped": self.remapped_users,
            "items remapped": self.remapped_items,
            "out of time order": self.unsorted,
            "rows skipped": self.skipped,
        }
        changes = ", ".join(f"{count:,} {name}" for name, count in notes.items() if count)
        text = ", ".join(sizes) + (f" ({changes})" if changes else "")
        return f"{text}; {ORDER_TRUSTED}" if self.is_order_trusted else text

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, and what was skipped or trusted if anything was."""
        result = asdict(self)
        for name in ("listed_skipped", "is_order_trusted"):
            if not result[name]:
                del result[name]
        return result


class History(NamedTuple):
    """Sets of items in compressed rows."""

    offsets: NDArray[np.int64]
    """`[M + 1]`: row m holds `columns[offsets[m]:offsets[m + 1]]`."""
    columns: NDArray[np.int64]
    """Items minus 1: columns of `[M, I]` scores. An item had twice stands twice."""


class EvaluationRows(NamedTuple):
    """What a model is asked, and the answers."""

    users: NDArray[np.int64]
    """`[M]`: the users, ascending from 1."""
    sequences: NDArray[np.int64]
    """`[M, max_length]`: their items in time order, left padded with 0."""
    targets: NDArray[np.int64]
    """`[M]`: the items that came next."""


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
        return _windows(self.items, self.offsets[rows], self.offsets[rows + 1], max_length)

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
        return _compress(self.items, self.offsets[rows], self.offsets[rows + 1])

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


@dataclass(slots=True, frozen=True, eq=False)
class Split:
    """Leave-one-out: the last item of a user is for testing, the one before for validation.

    A user with fewer than 3 interactions has all of them in the training part and no target.
    """

    interactions: Interactions
    """All interactions."""
    train_offsets: NDArray[np.int64]
    """`[U + 1]`: user u trains on `train_items[train_offsets[u - 1]:train_offsets[u]]`."""
    train_items: NDArray[np.int64]
    """Training items in time order."""
    valid: NDArray[np.int64]
    """`[U]`: validation targets; 0 for a user without."""
    test: NDArray[np.int64]
    """`[U]`: test targets; 0 for a user without."""

    @property
    def user_count(self) -> int:
        """U."""
        return self.interactions.user_count

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return self.interactions.item_count

    @property
    def training_only_count(self) -> int:
        """Users with fewer than 3 interactions."""
        return int(np.count_nonzero(self.test == 0))

    def sequences(self, split: str, max_length: int) -> EvaluationRows:
        """Returns users, inputs and targets of an evaluation.

        The input holds the training items and, for `test`, ends with the validation item.

        Source: UFNRec's and SASRec's published evaluation.

        Args:
            split: `valid` or `test`.
            max_length: L, at least 1: the last L items are taken.

        Raises:
            ValueError: unknown split, or `max_length` below 1.

        Example:
            >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
            >>> users, sequences, targets = split.sequences("test", max_length=4)
            >>> users.tolist(), sequences.tolist(), targets.tolist()
            ([2], [[0, 3, 4, 5]], [6])
        """
        rows, starts, ends = self._inputs(split)
        sequences = _windows(self.interactions.items, starts, ends, max_length)
        return EvaluationRows(rows + 1, sequences, self.interactions.items[ends])

    def history(self, split: str) -> History:
        """Returns what full ranking excludes, row m for row m of `sequences(split)`.

        These are the training items and, for `test`, the validation item.

        Args:
            split: `valid` or `test`.

        Raises:
            ValueError: unknown split.

        Example:
            >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
            >>> split.history("valid").columns.tolist(), split.history("test").columns.tolist()
            ([2, 3], [2, 3, 4])
        """
        _, starts, ends = self._inputs(split)
        return _compress(self.interactions.items, starts, ends)

    def _inputs(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows with targets, and where their inputs start and end in `interactions.items`."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}: got {split!r}")
        rows = np.flatnonzero(self.test).astype(np.int64, copy=False)
        offsets = self.interactions.offsets
        return rows, offsets[rows], offsets[rows + 1] - (1 if split == "test" else 2)


def leave_one_out(interactions: Interactions) -> Split:
    """Returns the split that keeps each user's last item for testing and the one before it.

    Source: UFNRec (arXiv 2208.04116), the authors' `data_partition`.

    Args:
        interactions: of users with any number of items; those with fewer than 3 are for
            training only and counted in `training_only_count`.

    Example:
        >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
        >>> split.train_items.tolist(), split.valid.tolist(), split.test.tolist()
        ([1, 2, 3, 4], [0, 5], [0, 6])
        >>> split.training_only_count
        1
    """
    offsets, items = interactions.offsets, interactions.items
    lengths = np.diff(offsets)
    held = lengths >= 3
    ends = offsets[1:][held]
    valid, test = np.zeros((2, len(lengths)), dtype=np.int64)
    valid[held] = items[ends - 2]
    test[held] = items[ends - 1]
    train = np.ones(len(items), dtype=bool)
    train[ends - 2] = False
    train[ends - 1] = False
    train_offsets = to_offsets(lengths - 2 * held)
    return Split(interactions, train_offsets, items[train], valid, test)


def make_interactions(
    offsets: ArrayLike, items: ArrayLike, item_count: int | None = None
) -> Interactions:
    """Returns interactions that are in memory already, with ids that stay as they are.

    Args:
        offsets: `[U + 1]` integers, from 0, ascending: user u has
            `items[offsets[u - 1]:offsets[u]]` in time order.
        items: `[interactions]` integers in 1..I.
        item_count: I; the largest item if None.

    Raises:
        IndexError: an item is not in 1..I.
        TypeError: an array is not of integers, or `item_count` is no integer.
        ValueError: an array is not one-dimensional, or the offsets do not fit the items.

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
    report = InteractionReport(
        users=len(lengths),
        items=count,
        interactions=len(values),
        repeated=count_repeated(users, values),
    )
    return Interactions(rows, values, IdMap.identity(len(lengths), count), report)


def count_repeated(users: NDArray[np.int64], items: NDArray[np.int64]) -> int:
    """Interactions less distinct ones; both ids are contiguous, so that the keys fit."""
    if not len(items):
        return 0
    keys = np.sort(users * (int(items.max()) + 1) + items)
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def to_offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[n + 1]` offsets of n rows of these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _to_integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got {array.ndim}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return array.astype(np.int64)


def _windows(
    items: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
) -> NDArray[np.int64]:
    """The last `max_length` items of each stretch, right aligned."""
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1: got {max_length}")
    indices = ends[:, None] + np.arange(-max_length, 0)
    inside = indices >= starts[:, None]
    windows = np.zeros(indices.shape, dtype=np.int64)
    windows[inside] = items[indices[inside]]
    return windows


def _compress(
    items: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> History:
    """The stretches one after the other, as columns."""
    offsets = to_offsets(ends - starts)
    indices = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
    return History(offsets, items[indices] - 1)
