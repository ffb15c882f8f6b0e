"""Interactions, and their split into training, validation and test."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.interactions import History, Interactions, make_interactions, to_history
from lmcore.recsys.reports import SplitReport
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.stretches import take_stretches, take_windows, to_offsets

__all__ = [
    "EvaluationRows",
    "History",
    "Interactions",
    "Split",
    "Targets",
    "leave_one_out",
    "make_interactions",
    "make_split",
]

SPLITS = ("valid", "test")


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
        return to_history(self.interactions.items, starts, ends)

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
