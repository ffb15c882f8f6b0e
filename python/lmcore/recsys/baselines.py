"""What a model must beat: the popular items, and the items that go with those of the history."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.data import Split
from lmcore.recsys.stretches import find_places, to_offsets

__all__ = ["BASELINES", "Baseline", "ItemKNN", "Popularity", "make_baseline"]

#: Their names, as `evaluate` prints them.
BASELINES = ("popularity", "item-knn")

# Pairs of items that are counted at a time, and cells of the counts: about 32 MB each.
_PAIRS = 1 << 22
# Where so many cells come on a pair, pairs are sorted instead of counted in cells.
_SPARSE = 16
_MOST = 2**31 - 1


class Baseline(Protocol):
    """What scores the catalogue by histories alone; `evaluate` takes it in place of a model."""

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        ...

    def score(self, offsets: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the scores of the catalogue for a block of histories.

        Args:
            offsets: `[n + 1]` int64, from 0: where each history begins and ends.
            columns: int64, items minus 1.

        Returns:
            `[n, I]` float64.
        """
        ...


class Popularity:
    """Scores an item by its number of interactions in the training part, for every user alike.

    Args:
        data: the split.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 2, 4], [1, 2, 1, 3]))
        >>> Popularity(data).score(np.array([0, 1]), np.array([2])).tolist()
        [[2.0, 1.0, 1.0]]
    """

    def __init__(self, data: Split) -> None:
        counts = np.bincount(data.train_items - 1, minlength=data.item_count)
        self._counts = counts.astype(np.float64)

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return len(self._counts)

    def score(self, offsets: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns one row of counts, `[n, I]` float64, seen n times.

        Args:
            offsets: `[n + 1]` int64 of the histories.
            columns: int64, their items minus 1; not looked at.
        """
        return np.broadcast_to(self._counts, (len(offsets) - 1, self.item_count))


class ItemKNN:
    """Scores an item by its nearest neighbours among the items of the history.

    Of two items with a and b training users, c of whom have both, the similarity is
    c / (sqrt(a * b) + shrinkage). An item j keeps its `neighbours` most similar other items; of
    equal ones those with the lowest ids. Its score is the sum of its similarity with those of
    them that the history holds, each once.

    Source: Sarwar et al., "Item-based collaborative filtering recommendation algorithms"
    (WWW 2001), with the shrinkage of Ferrari Dacrema et al., "Are we really making much
    progress?" (RecSys 2019), `ItemKNNCFRecommender`.

    Args:
        data: the split; its training part is looked at.
        neighbours: k, at least 1.
        shrinkage: at least 0: how much is added to the denominator, against chance among few.

    Raises:
        ValueError: a number is out of its range.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 2, 4, 6], [1, 2, 1, 2, 1, 3]))
        >>> knn = ItemKNN(data, shrinkage=0)
        >>> knn.score(np.array([0, 1]), np.array([0])).round(3).tolist()
        [[0.0, 0.816, 0.577]]
    """

    def __init__(self, data: Split, *, neighbours: int = 100, shrinkage: float = 30.0) -> None:
        if not 1 <= neighbours <= _MOST:
            raise ValueError(f"neighbours must be from 1 to {_MOST}: got {neighbours}")
        if not 0 <= shrinkage <= 1e30:
            raise ValueError(f"shrinkage must be at least 0 and at most 1e30: got {shrinkage}")
        self._count = data.item_count
        users, items = _find_pairs(data)
        source, target, similarity = _find_neighbours(
            users, items, data.user_count, data.item_count, neighbours, shrinkage
        )
        # By the item of the history, so that a score adds up rows.
        order = np.lexsort((target, source))
        self._offsets = to_offsets(np.bincount(source, minlength=data.item_count))
        self._targets, self._similarity = target[order], similarity[order]

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return self._count

    def score(self, offsets: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        """Returns the sums of similarities, `[n, I]` float64.

        Args:
            offsets: `[n + 1]` int64 of the histories.
            columns: int64, their items minus 1, in any order, also repeated.
        """
        rows, width = len(offsets) - 1, self._count
        keys = np.repeat(np.arange(rows), np.diff(offsets)) * width + columns
        # Sorted: sums do not depend on the order of a history, so that equal ones tie.
        keys = np.unique(keys)
        owners, sources = keys // max(1, width), keys % max(1, width)
        cells, entries = _find_entries(self._offsets, sources)
        cells = owners[cells] * width + self._targets[entries]
        sums: NDArray[Any] = np.bincount(cells, self._similarity[entries], minlength=rows * width)
        # Without entries, numpy counts in whole numbers.
        return sums.astype(np.float64, copy=False).reshape(rows, width)


def make_baseline(name: str, data: Split) -> Baseline:
    """Returns a baseline with its usual settings.

    Args:
        name: one of `BASELINES`.
        data: the split.

    Raises:
        ValueError: another name.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> make_baseline("popularity", leave_one_out(make_interactions([0, 2], [1, 2]))).item_count
        2
    """
    if name not in BASELINES:
        raise ValueError(f"a baseline must be one of {', '.join(BASELINES)}: got {name!r:.60}")
    return Popularity(data) if name == "popularity" else ItemKNN(data)


def _find_pairs(data: Split) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Users and columns of the training part, each pair once, by user and column."""
    users = np.repeat(np.arange(data.user_count), np.diff(data.train_offsets))
    width = max(1, data.item_count)
    keys = np.unique(users * width + data.train_items - 1)
    return keys // width, keys % width


def _find_neighbours(
    users: NDArray[np.int64],
    items: NDArray[np.int64],
    user_count: int,
    item_count: int,
    neighbours: int,
    shrinkage: float,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Neighbours, the items that have them, and similarities; a block of items at a time."""
    by_user = to_offsets(np.bincount(users, minlength=user_count))
    by_item = to_offsets(np.bincount(items, minlength=item_count))
    having = users[np.argsort(items, kind="stable")]
    sizes = np.diff(by_item).astype(np.float64)
    # Pairs that an item takes part in, with itself too.
    work = np.add.reduceat(np.append(np.diff(by_user)[having], 0), by_item[:-1]) * (sizes > 0)
    # A cell for each item, where pairs are worth so many.
    cells_of_each = np.where(work * _SPARSE >= item_count, item_count, 0)
    done = np.concatenate([[0], np.cumsum(work + cells_of_each)])
    found: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]] = []
    start = 0
    while start < item_count:
        end = max(start + 1, int(np.searchsorted(done, done[start] + _PAIRS, "right")) - 1)
        rows, entries = _find_entries(by_item, np.arange(start, end))
        cells, others = _find_entries(by_user, having[entries])
        keys = rows[cells] * item_count + items[others]
        cells_there = (end - start) * item_count
        if cells_there > max(item_count, _PAIRS) or len(keys) * _SPARSE < cells_there:
            keys, common = np.unique(keys, return_counts=True)
        else:
            counts = np.bincount(keys, minlength=cells_there)
            keys = np.flatnonzero(counts != 0)  # three times as fast as on numbers
            common = counts[keys]
        target, source = start + keys // item_count, keys % item_count
        kept = source != target
        target, source = target[kept], source[kept]
        norms = np.sqrt(sizes[source] * sizes[target])
        similarity = common[kept] / (norms + shrinkage)
        order = np.lexsort((source, -similarity, target))
        # The place of each among the neighbours of its item.
        first = np.searchsorted(target, np.arange(start, end))
        place = np.arange(len(order)) - first[target - start]
        order = order[place < neighbours]
        found.append((source[order], target[order], similarity[order]))
        start = end
    if not found:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    source, target, similarity = (np.concatenate(part) for part in zip(*found, strict=True))
    return source, target, similarity


def _find_entries(
    offsets: NDArray[np.int64], rows: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """For all entries of some rows: which of these rows, and where the entry stands."""
    starts, entries = find_places(offsets[rows], offsets[rows + 1])
    return np.repeat(np.arange(len(rows)), np.diff(starts)), entries
