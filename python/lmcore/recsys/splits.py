"""Splits of interactions: the last N items of each user, or what lies after a time."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.data import Interactions, Split, make_split
from lmcore.recsys.rules import DATE, SplitRule
from lmcore.recsys.stretches import take_stretches
from lmcore.recsys.times import FIRST_YEAR, LAST_YEAR

__all__ = [
    "Leakage",
    "find_leakage",
    "leave_last",
    "split_by_time",
    "split_interactions",
]

Time: TypeAlias = int | float | str | datetime | np.datetime64
"""A time as in the data: a number, or a date; as a text in ISO form."""

# Of the interactions, those before validation and before the test.
_VALID_QUANTILE, _TEST_QUANTILE = 0.8, 0.9


def leave_last(
    interactions: Interactions, count: int, *, cold_items: Literal["keep", "drop"] = "keep"
) -> Split:
    """Returns the split that keeps each user's last items for testing and as many before them.

    With 1 it is `leave_one_out`.

    Args:
        interactions: of users with any number of items; those with fewer than 2 * count + 1 are
            for training only.
        count: N, items of a user in each part.
        cold_items: whether targets that no one has in the training part are kept or dropped.

    Raises:
        TypeError: `count` is no integer.
        ValueError: `count` is below 1.

    Example:
        >>> from lmcore.recsys.data import make_interactions
        >>> split = leave_last(make_interactions([0, 2, 7], [1, 2, 3, 4, 5, 6, 7]), 2)
        >>> split.train_items.tolist(), split.valid_targets.items.tolist()
        ([1, 2, 3], [4, 5])
        >>> split.test_targets
        Targets(offsets=array([0, 0, 2]), items=array([6, 7]))
    """
    rule = SplitRule(by="leave-last", last=count, cold_items=cold_items)
    return _split_last(interactions, rule)


def split_by_time(
    interactions: Interactions,
    *,
    valid_from: Time | None = None,
    test_from: Time | None = None,
    valid_quantile: float | None = None,
    test_quantile: float | None = None,
    cold_items: Literal["keep", "drop"] = "drop",
) -> Split:
    """Returns the split by two times, which are the same for all users: nothing leaks.

    Training has what was before `valid_from`, the test what was at `test_from` or later, and
    validation the rest. A user may have any number of targets. Who has nothing before them is
    dropped from them and counted; items that no one has in training are dropped too by default,
    as RecTools' splitters do.

    Args:
        interactions: with times.
        valid_from: a number or a date, whichever the times are; a text is a date in ISO form.
        test_from: not before `valid_from`; if they are equal, nothing is for validation.
        valid_quantile: the share of the interactions that lie before validation, in (0, 1); 0.8
            where `valid_from` is None too. What has the same time is in the same part.
        test_quantile: the same for `test_from`; 0.9 where that is None too.
        cold_items: whether targets that no one has in the training part are kept or dropped.

    Raises:
        TypeError: an argument has another type.
        ValueError: the interactions have no times, a quantile is out of its range, a time is no
            time of this kind, `valid_from` is after `test_from`, both are given by a time and a
            quantile, or nothing is left for training.

    Example:
        >>> from lmcore.recsys.data import make_interactions
        >>> rows = make_interactions([0, 3, 5], [1, 2, 3, 3, 1], times=[10, 20, 30, 15, 35])
        >>> split = split_by_time(rows, valid_from=20, test_from=30)
        >>> split.train_items.tolist(), split.valid_targets.items.tolist()
        ([1, 3], [])
        >>> split.test_targets.items.tolist(), split.report.cold_targets
        ([3, 1], 1)
    """
    rule = SplitRule(
        by="time",
        valid_from=_to_plain(valid_from),
        test_from=_to_plain(test_from),
        valid_quantile=valid_quantile,
        test_quantile=test_quantile,
        cold_items=cold_items,
    )
    return split_interactions(interactions, rule)


def split_interactions(interactions: Interactions, rule: SplitRule) -> Split:
    """Returns the split by a rule; in the split's own rule, quantiles have become times.

    Args:
        interactions: with times, where the rule needs them.
        rule: says how.

    Raises:
        ValueError: as for `split_by_time`.

    Example:
        >>> from lmcore.recsys.data import make_interactions
        >>> rows = make_interactions([0, 4], [1, 2, 3, 4], times=[1, 2, 3, 4])
        >>> split_interactions(rows, SplitRule(by="time", valid_quantile=0.5)).rule.valid_from
        3
    """
    if rule.by != "time":
        return _split_last(interactions, rule)
    times = interactions.times
    if times is None:
        raise ValueError("a split by time needs times: the interactions have none")
    if not len(times):
        raise ValueError("a split by time needs interactions: there are none")
    valid_quantile = rule.valid_quantile or _VALID_QUANTILE
    test_quantile = rule.test_quantile or _TEST_QUANTILE
    valid = _find_bound("valid", rule.valid_from, valid_quantile, times)
    test = _find_bound("test", rule.test_from, test_quantile, times)
    told = _tell(valid, rule.valid_from, valid_quantile)
    if valid > test:
        raise ValueError(
            f"valid_from must not be after test_from: got {told} and "
            f"{_tell(test, rule.test_from, test_quantile)}"
        )
    found = replace(
        rule, valid_from=_to_plain(valid), test_from=_to_plain(test), valid_quantile=None,
        test_quantile=None,
    )  # fmt: skip
    ends = [_find_ends(interactions.offsets, times < bound) for bound in (valid, test)]
    if (ends[0] == interactions.offsets[:-1]).all():
        raise ValueError(
            f"valid_from {told} leaves no training item: the first time is {_to_plain(times.min())}"
        )
    return make_split(interactions, ends[0], ends[1], found)


@dataclass(kw_only=True, slots=True, frozen=True)
class Leakage:
    """How much of the training part lies in the future of the test."""

    later_share: float
    """Of the training interactions, those after the first of the test."""
    mean_share: float
    """Of the training interactions, those after an interaction of the test, in the mean."""

    def describe(self) -> str:
        """Returns one line of text.

        Example:
            >>> Leakage(later_share=0.9, mean_share=0.25).describe().partition(" and")[0]
            '90.0 % of the training interactions lie after the first test item,'
        """
        if not self.later_share:
            return "no training interaction lies after the first test item"
        return (
            f"{100 * self.later_share:.1f} % of the training interactions lie after the first "
            f"test item, and {100 * self.mean_share:.1f} % after one in the mean: training sees "
            "the future of other users, which a split by time does not"
        )


def find_leakage(split: Split) -> Leakage | None:
    """Returns how much of the training part lies in the future of the test.

    Leaving out each user's last items mixes times: what one user did last may lie years before
    what another one is trained on, and the model learns what became popular since.

    Args:
        split: of any rule.

    Returns:
        None where no times are known, or a part is empty.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> rows = make_interactions([0, 3, 5], [1, 2, 3, 3, 1], times=[10, 20, 30, 15, 35])
        >>> find_leakage(leave_one_out(rows))
        Leakage(later_share=0.3333333333333333, mean_share=0.3333333333333333)
    """
    rows = split.interactions
    if rows.times is None:
        return None
    _, training = take_stretches(rows.times, rows.offsets[:-1], split.train_ends)
    _, tested = take_stretches(rows.times, split.valid_ends, rows.offsets[1:])
    if not len(training) or not len(tested):
        return None
    training = np.sort(training)
    earlier = np.searchsorted(training, np.sort(tested), side="right")
    later = (len(training) - earlier) / len(training)
    return Leakage(later_share=float(later[0]), mean_share=float(later.mean()))


def _split_last(interactions: Interactions, rule: SplitRule) -> Split:
    ends = interactions.offsets[1:]
    held = (rule.last or 1) * (np.diff(interactions.offsets) >= rule.least)
    return make_split(interactions, ends - 2 * held, ends - held, rule)


def _find_ends(offsets: NDArray[np.int64], is_before: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Where the first interactions of each user end, of which some in a row are marked."""
    before = np.zeros(len(is_before) + 1, dtype=np.int64)
    np.cumsum(is_before, out=before[1:])
    return offsets[:-1] + before[offsets[1:]] - before[offsets[:-1]]


def _tell(bound: Any, time: float | str | None, quantile: float) -> str:
    """A bound for an error, and how it was found where it was not given."""
    found = "" if time is not None else f" (at {quantile} of the interactions)"
    return f"{_to_plain(bound)}{found}"


def _find_bound(part: str, time: float | str | None, quantile: float, times: NDArray[Any]) -> Any:
    """The time at which a part starts, comparable with the times of the data."""
    if time is None:
        # As a fraction, so that 0.29 of 100 is 29.
        index = int(Fraction(str(quantile)) * len(times))
        return np.partition(times, index)[index]
    name = f"{part}_from"
    if times.dtype.kind != "M":
        if isinstance(time, str):
            raise ValueError(f"{name} must be a number, as the times of the data are: got {time!r}")
        if isinstance(time, float) and not math.isfinite(time):
            raise ValueError(f"{name} must be finite: got {time}")
        return time
    try:
        if not isinstance(time, str) or not DATE.fullmatch(time):
            raise ValueError
        found = np.datetime64(time)
        year = found.astype("datetime64[Y]").astype(int) + 1970
        if not FIRST_YEAR <= year <= LAST_YEAR:
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{name} must be a date, as the times of the data are, such as 2014-07-01: got {time!r}"
        ) from None
    return found.astype("datetime64[ns]")


def _to_plain(time: Any) -> Any:
    """A time as a rule and JSON hold it: a number, or a date in ISO form."""
    if isinstance(time, datetime):
        if time.tzinfo is not None:
            time = time.astimezone(UTC).replace(tzinfo=None)
        time = np.datetime64(time)
    if isinstance(time, np.datetime64):
        return str(time)
    return time.item() if isinstance(time, np.generic) else time
