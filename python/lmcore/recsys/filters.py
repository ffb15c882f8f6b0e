"""Filters: users and items with few interactions are left out, until none is left with fewer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._text import count_noun
from lmcore.recsys.ids import IdMap, Ids, count_remapped, to_count
from lmcore.recsys.interactions import Interactions
from lmcore.recsys.reports import FilterReport
from lmcore.recsys.stretches import count_repeated, take_stretches, to_offsets

__all__ = ["filter_interactions", "keep_items"]

# A round over all rows is worth it while it takes more of them than this share away.
_SWEEP_SHARE = 1 / 64


def filter_interactions(
    interactions: Interactions,
    *,
    core: int | None = None,
    min_user: int | None = None,
    min_item: int | None = None,
) -> tuple[Interactions, FilterReport]:
    """Returns the interactions of users and items that have enough of them, and counts.

    Leaving out a user takes interactions from items, and the other way round, so that it is
    repeated until nothing changes. The result is the largest set in which each user has
    `min_user` and each item `min_item` interactions: for `core` the k-core, in which both have
    k. Repeated interactions count each time. Ids are numbered anew in their order, times and the
    order of a user's items stay.

    Args:
        interactions: all of them.
        core: k; at least as many of each user and of each item.
        min_user: fewest interactions of a user.
        min_item: fewest interactions of an item.

    Raises:
        TypeError: a number is no integer.
        ValueError: a number is below 1, or no interaction is left.

    Example:
        >>> from lmcore.recsys.interactions import make_interactions
        >>> rows = make_interactions([0, 2, 4, 5], [1, 3, 1, 3, 2])
        >>> kept, report = filter_interactions(rows, core=2)
        >>> kept.items.tolist(), kept.user_ids.tolist(), kept.item_ids.tolist()
        ([1, 2, 1, 2], [1, 2], [1, 3])
        >>> report.describe()
        'kept 2 of 3 users, 2 of 3 items, 4 of 5 interactions (users of at least 2, items of at least 2)'
    """  # noqa: E501 - the line of a report
    least = {"core": core, "min_user": min_user, "min_item": min_item}
    for name, value in least.items():
        if value is not None and to_count(name, value) < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    of_user = max(core or 1, min_user or 1)
    of_item = max(core or 1, min_item or 1)
    rows = _find_core(interactions, of_user, of_item)
    report = FilterReport(
        min_user=of_user,
        min_item=of_item,
        users=(interactions.user_count, 0),
        items=(interactions.item_count, 0),
        interactions=(len(interactions.items), len(rows)),
    )
    if not len(rows):
        before = [
            count_noun(count, noun)
            for (count, _), noun in (
                (report.interactions, "interaction"), (report.users, "user"), (report.items, "item")
            )
        ]  # fmt: skip
        raise ValueError(
            f"no interaction is left where each user has at least {of_user} and each item at "
            f"least {of_item}: there were {before[0]} of {before[1]} with {before[2]}"
        )
    found = _take_rows(interactions, rows, keeps_catalogue=False)
    report = replace(
        report,
        users=(report.users[0], found.user_count),
        items=(report.items[0], found.item_count),
    )
    return replace(found, filtered=report), report


def keep_items(interactions: Interactions, id_map: IdMap, min_user: int) -> Interactions:
    """Returns interactions in the ids of a catalogue that an earlier filter left.

    Items outside of it are left out, and then users with too few interactions. Of the data that
    were filtered, this is exactly what the filter left.

    Args:
        interactions: all of them, in their own ids.
        id_map: of the filtered data; its users are not used.
        min_user: fewest interactions of a user, as in the filter.

    Raises:
        ValueError: no interaction is left.

    Example:
        >>> from lmcore.recsys.interactions import make_interactions
        >>> rows = make_interactions([0, 2, 4, 5], [1, 3, 1, 3, 2])
        >>> kept, _ = filter_interactions(rows, core=2)
        >>> keep_items(rows, kept.id_map, 2).items.tolist()
        [1, 2, 1, 2]
    """
    numbers = _find_numbers(interactions.item_ids, id_map.items)[interactions.items - 1]
    known = np.flatnonzero(numbers)
    users = _number_users(interactions)[known]
    enough = np.bincount(users, minlength=interactions.user_count) >= max(min_user, 1)
    rows = known[enough[users]]
    if not len(rows):
        raise ValueError("no interaction is left of items that the model knows")
    items = IdMap(interactions.user_ids, id_map.items)
    renamed = replace(interactions, items=numbers, id_map=items)
    return _take_rows(renamed, rows, keeps_catalogue=True)


def _find_core(interactions: Interactions, of_user: int, of_item: int) -> NDArray[np.int64]:
    """Rows of the largest set in which all users and items have enough."""
    # Half the bytes where the numbers fit.
    kind = np.int32 if max(interactions.user_count, interactions.item_count) < 2**31 else np.int64
    users: NDArray[Any] = _number_users(interactions).astype(kind)
    items: NDArray[Any] = (interactions.items - 1).astype(kind)
    rows = np.arange(len(items), dtype=np.int64)
    sizes = (interactions.user_count, interactions.item_count)
    while len(rows):
        # Sums over all rows are quick, as long as they take many away.
        kept = np.bincount(users, minlength=sizes[0])[users] >= of_user
        kept &= np.bincount(items, minlength=sizes[1])[items] >= of_item
        count = int(np.count_nonzero(kept))
        if count == len(rows):
            break
        is_slow = len(rows) - count < _SWEEP_SHARE * len(rows)
        rows, users, items = rows[kept], users[kept], items[kept]
        if is_slow:
            rows = rows[_peel(users, items, sizes, of_user, of_item)]
            break
    return rows


def _peel(
    users: NDArray[Any],
    items: NDArray[Any],
    sizes: tuple[int, int],
    of_user: int,
    of_item: int,
) -> NDArray[np.bool_]:
    """Which rows stay, looking only at what the last round took away: a row goes once."""
    kept = np.ones(len(users), dtype=bool)
    sides = [_Side(users, sizes[0], of_user), _Side(items, sizes[1], of_item)]
    while any(len(side.few) for side in sides):
        for side, other in (sides, sides[::-1]):
            gone = side.take_few()
            gone = gone[kept[gone]]
            kept[gone] = False
            other.lose(gone)
    return kept


class _Side:
    """Users or items: how many rows each has left, and which have too few."""

    def __init__(self, numbers: NDArray[Any], size: int, least: int) -> None:
        self.numbers, self.least = numbers, least
        self.counts = np.bincount(numbers, minlength=size)
        self.offsets, self.rows = to_offsets(self.counts), np.argsort(numbers)
        self.few = np.flatnonzero((self.counts < least) & (self.counts > 0))

    def take_few(self) -> NDArray[np.int64]:
        """All rows of those with too few, each of which is taken once."""
        few, self.few = self.few, self.few[:0]
        return take_stretches(self.rows, self.offsets[few], self.offsets[few + 1])[1]

    def lose(self, rows: NDArray[np.int64]) -> None:
        """Counts rows that are gone."""
        touched, losses = np.unique(self.numbers[rows], return_counts=True)
        before = self.counts[touched]
        self.counts[touched] = before - losses
        fresh = touched[(before >= self.least) & (before - losses < self.least)]
        self.few = np.concatenate([self.few, fresh])


def _take_rows(
    interactions: Interactions, rows: NDArray[np.int64], *, keeps_catalogue: bool
) -> Interactions:
    """Some interactions in their order, with ids numbered anew."""
    old = _number_users(interactions)[rows]
    counts = np.bincount(old, minlength=interactions.user_count)
    users = np.flatnonzero(counts)
    items, item_ids = interactions.items[rows], interactions.item_ids
    if not keeps_catalogue:
        is_kept = np.zeros(len(item_ids) + 1, dtype=bool)
        is_kept[items] = True
        items, item_ids = np.cumsum(is_kept)[items], _take_ids(item_ids, is_kept[1:])
    user_ids = _take_ids(interactions.user_ids, counts > 0)
    lengths = counts[users]
    report = replace(
        interactions.report,
        users=len(users),
        items=len(item_ids),
        interactions=len(items),
        repeated=count_repeated(np.repeat(np.arange(len(users)), lengths), items),
        remapped_users=count_remapped(user_ids),
        remapped_items=count_remapped(item_ids),
    )
    times = None if interactions.times is None else interactions.times[rows]
    return Interactions(to_offsets(lengths), items, IdMap(user_ids, item_ids), report, times)


def _number_users(interactions: Interactions) -> NDArray[np.int64]:
    """Users from 0 of all rows."""
    lengths = np.diff(interactions.offsets)
    return np.repeat(np.arange(len(lengths), dtype=np.int64), lengths)


def _take_ids(ids: Ids, kept: NDArray[np.bool_]) -> Ids:
    if isinstance(ids, np.ndarray):
        return ids[kept]
    return tuple(ids[index] for index in np.flatnonzero(kept).tolist())


def _find_numbers(ids: Ids, known: Ids) -> NDArray[np.int64]:
    """The number that each id has among others; 0 if none."""
    if isinstance(ids, np.ndarray) and isinstance(known, np.ndarray):
        places = np.searchsorted(known, ids)
        inside = places < len(known)
        found = np.zeros(len(ids), dtype=np.int64)
        found[inside] = np.where(known[places[inside]] == ids[inside], places[inside] + 1, 0)
        return found
    # Where one side has texts, integers are what they would be printed as.
    numbers = {str(name): number for number, name in enumerate(known, 1)}
    return np.array([numbers.get(str(name), 0) for name in ids], dtype=np.int64)
