"""Interactions of users with items in memory, and what a split makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.recsys.ids import IdMap, Ids, to_count
from lmcore.recsys.reports import InteractionReport, SplitReport
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.stretches import count_repeated, take_stretches, take_windows, to_offsets

__all__ = [
    "EvaluationRows",
    "History",
    "InteractionReport",
    "Interactions",
    "Split",
    "Targets",
    "leave_one_out",
    "make_interactions",
    "make_split",
]

SPLITS = ("valid", "test")


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
    """`[T]`: the items that came next, each once for a user, in time order."""
    target_offsets: NDArray[np.int64]
    """`[M + 1]`: row m has `targets[target_offsets[m]:target_offsets[m + 1]]`, at least one."""


class Targets(NamedTuple):
    """Held-out items of every user, in compressed rows."""

    offsets: NDArray[np.int64]
    """`[U + 1]`: user u has `items[offsets[u - 1]:offsets[u]]`, maybe none."""
    items: NDArray[np.int64]
    """`[T]`, ids in 1..I, in time order, each once for a user."""


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
        return _to_history(self.items, self.offsets[rows], self.offsets[rows + 1])

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
    """Interactions in three parts: each user's items are for training, validation, then test.

    A part may be empty. User u trains on the first items up to `train_ends[u - 1]`, validation
    has what follows up to `valid_ends[u - 1]`, and the test what is left. `make_split` makes one.
    """

    interactions: Interactions
    """All interactions."""
    rule: SplitRule
    """How they were split."""
    report: SplitReport
    """What became of them."""
    train_ends: NDArray[np.int64]
    """`[U]`: where in `interactions.items` a user's training part ends."""
    valid_ends: NDArray[np.int64]
    """`[U]`: where in `interactions.items` a user's validation part ends."""
    train_offsets: NDArray[np.int64]
    """`[U + 1]`: user u trains on `train_items[train_offsets[u - 1]:train_offsets[u]]`."""
    train_items: NDArray[np.int64]
    """Training items in time order."""
    valid_targets: Targets
    """What validation asks for."""
    test_targets: Targets
    """What the test asks for."""

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
        """Users without any target; in leave-one-out those with fewer than 3 interactions."""
        return self.report.training_only

    @property
    def valid(self) -> NDArray[np.int64]:
        """`[U]`: validation targets, 0 for a user without; ValueError where a user has several."""
        return _to_single(self.valid_targets, "valid")

    @property
    def test(self) -> NDArray[np.int64]:
        """`[U]`: test targets, 0 for a user without; ValueError where a user has several."""
        return _to_single(self.test_targets, "test")

    def sequences(self, split: str, max_length: int) -> EvaluationRows:
        """Returns users, inputs and targets of an evaluation.

        The input is everything before the targets: the training items and, for `test`, those of
        validation. All targets of a user are asked for after the same input.

        Source: UFNRec's and SASRec's published evaluation, where each user has one target.

        Args:
            split: `valid` or `test`.
            max_length: L, at least 1: the last L items are taken.

        Raises:
            ValueError: unknown split, or `max_length` below 1.

        Example:
            >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
            >>> users, sequences, targets, target_offsets = split.sequences("test", max_length=4)
            >>> users.tolist(), sequences.tolist(), targets.tolist(), target_offsets.tolist()
            ([2], [[0, 3, 4, 5]], [6], [0, 1])
        """
        rows, starts, ends = self._inputs(split)
        sequences = take_windows(self.interactions.items, starts, ends, max_length)
        offsets, targets = self._targets(split)
        # Rows without targets take no place.
        target_offsets = np.concatenate([offsets[:1], offsets[rows + 1]])
        return EvaluationRows(rows + 1, sequences, targets, target_offsets)

    def history(self, split: str) -> History:
        """Returns what full ranking excludes, row m for row m of `sequences(split)`.

        These are all items before the targets, which may be among them; a target is not excluded.

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
        return _to_history(self.interactions.items, starts, ends)

    def _targets(self, split: str) -> Targets:
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}: got {split!r}")
        return self.test_targets if split == "test" else self.valid_targets

    def _inputs(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows with targets, and where their inputs start and end in `interactions.items`."""
        rows = np.flatnonzero(np.diff(self._targets(split).offsets)).astype(np.int64, copy=False)
        ends = self.valid_ends if split == "test" else self.train_ends
        return rows, self.interactions.offsets[rows], ends[rows]


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
    ends = interactions.offsets[1:]
    held = np.diff(interactions.offsets) >= 3
    return make_split(interactions, ends - 2 * held, ends - held, SplitRule())


def make_split(
    interactions: Interactions,
    train_ends: NDArray[np.int64],
    valid_ends: NDArray[np.int64],
    rule: SplitRule,
) -> Split:
    """Returns a split by where the parts of each user end.

    Targets that a user has several times stand once. Those of users with nothing before them are
    dropped and counted, and so are those of items outside of training where the rule drops them.

    Args:
        interactions: all of them.
        train_ends: `[U]` int64 positions in `interactions.items`.
        valid_ends: `[U]` int64 positions, each at or after the one of `train_ends`.
        rule: that says so.

    Raises:
        ValueError: a part ends before it starts.

    Example:
        >>> rows = make_interactions([0, 4], [1, 2, 1, 2])
        >>> split = make_split(rows, np.array([2]), np.array([2]), SplitRule())
        >>> split.train_items.tolist(), split.test_targets.items.tolist()
        ([1, 2], [1, 2])
    """
    items, starts, ends = interactions.items, interactions.offsets[:-1], interactions.offsets[1:]
    for low, high in ((starts, train_ends), (train_ends, valid_ends), (valid_ends, ends)):
        if low.shape != high.shape or (low > high).any():
            raise ValueError("parts must be in order for each of the users, one after the other")
    train_offsets, train_items = take_stretches(items, starts, train_ends)
    is_known = np.zeros(interactions.item_count + 1, dtype=bool)
    is_known[train_items] = True
    found, cold, fresh = [], 0, np.zeros(len(starts), dtype=bool)
    for low, high in ((train_ends, valid_ends), (valid_ends, ends)):
        is_new = (low == starts) & (high > low)
        fresh |= is_new
        offsets, targets = take_stretches(items, low, np.where(is_new, low, high))
        users = np.repeat(np.arange(len(starts)), np.diff(offsets))
        kept = _mark_first(users, targets)
        unknown = kept & ~is_known[targets]
        cold += int(np.count_nonzero(unknown))
        if rule.cold_items == "drop":
            kept &= ~unknown
        offsets = to_offsets(np.bincount(users[kept], minlength=len(starts)))
        found.append(Targets(offsets, targets[kept]))
    valid, test = found
    counts = [np.diff(targets.offsets) > 0 for targets in found]
    report = SplitReport(
        training=len(train_items),
        training_only=int(np.count_nonzero(~(counts[0] | counts[1]))),
        valid_users=int(np.count_nonzero(counts[0])),
        valid_targets=len(valid.items),
        test_users=int(np.count_nonzero(counts[1])),
        test_targets=len(test.items),
        cold_targets=cold,
        users_without_input=int(np.count_nonzero(fresh)),
    )
    parts = (train_ends, valid_ends, train_offsets, train_items)
    return Split(interactions, rule, report, *parts, valid, test)


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
    when = None if times is None else to_times(times, len(values))
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


def to_times(times: ArrayLike, count: int) -> NDArray[Any]:
    """`[count]` int64, float64 or datetime64[ns] times, without what is no time."""
    array = np.asarray(times)
    if array.shape != (count,):
        raise ValueError(f"times must be {count}, one for each interaction: got {array.shape}")
    if array.dtype.kind == "M":
        found = array.astype("datetime64[ns]")
        wrong = np.isnat(found)
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


def _to_integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got {array.ndim}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return array.astype(np.int64)


def _to_history(
    items: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> History:
    """The stretches one after the other, as columns."""
    offsets, values = take_stretches(items, starts, ends)
    return History(offsets, values - 1)


def _to_single(targets: Targets, split: str) -> NDArray[np.int64]:
    counts = np.diff(targets.offsets)
    if (counts > 1).any():
        raise ValueError(f"a user has several {split} targets: take {split}_targets")
    single = np.zeros(len(counts), dtype=np.int64)
    single[counts > 0] = targets.items
    return single


def _mark_first(rows: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which items stand for the first time in their row."""
    if len(rows) < 2 or (rows[1:] > rows[:-1]).all():
        return np.ones(len(rows), dtype=bool)
    marks = np.zeros(len(rows), dtype=bool)
    keys = rows * (int(items.max()) + 1) + items
    marks[np.unique(keys, return_index=True)[1]] = True
    return marks
