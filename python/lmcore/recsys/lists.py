"""The items with the highest scores of each user, and what lists of them come to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmcore.recsys.data import Split
from lmcore.recsys.metrics import Metric

__all__ = ["ListMeter", "find_best"]


def find_best(
    scores: torch.Tensor, offsets: NDArray[np.int64], excluded: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Returns the columns of the highest scores, the best first; equal scores by their column.

    Args:
        scores: `[U, C]` numbers, on any device; infinities are allowed, NaN only where excluded.
        offsets: `[U + 1]`: row u excludes the columns `excluded[offsets[u]:offsets[u + 1]]`.
        excluded: columns in any order, also repeated.
        count: columns for each row, at least 1.

    Returns:
        `[U, min(count, C)]` int64; -1 where a row has no more candidates.

    Example:
        >>> scores = torch.tensor([[0.5, 0.9, 0.5, 0.5], [0.1, 0.2, 0.3, 0.4]])
        >>> find_best(scores, np.array([0, 1, 3]), np.array([1, 3, 2]), 3).tolist()
        [[0, 2, 3], [1, 0, -1]]
    """
    rows, width = scores.shape
    count = min(count, width)
    owners = torch.from_numpy(np.repeat(np.arange(rows), np.diff(offsets))).to(scores.device)
    columns = torch.from_numpy(excluded).to(scores.device)
    scores = scores.clone(memory_format=torch.contiguous_format)
    scores[owners, columns] = -torch.inf
    top = scores.topk(count, dim=1)
    least = top.values[:, -1:]
    # Which of the columns with the last score `topk` takes is its own choice.
    tied = scores == least
    above = (top.values > least).sum(1)
    unsure = tied.sum(1) > count - above
    best = top.indices
    if bool(unsure.any()):
        some = unsure.nonzero()[:, 0]
        ties, wanted = tied[some], (count - above[some])[:, None]
        taken = (scores[some] > least[some]) | (ties & (ties.cumsum(1) <= wanted))
        best[some] = taken.nonzero()[:, 1].reshape(len(some), count)
    best = best.sort(dim=1).values
    order = scores.gather(1, best).sort(dim=1, descending=True, stable=True).indices
    found = best.gather(1, order).cpu().numpy()
    # Where the last score is -inf, what is excluded has it as well as, perhaps, a candidate.
    for row in (least[:, 0] == -torch.inf).nonzero()[:, 0].tolist():
        out = excluded[offsets[row] : offsets[row + 1]]
        kept = np.setdiff1d(np.arange(width), out, assume_unique=False)
        values = scores[row].cpu().numpy()[kept]
        chosen = kept[np.argsort(-values, kind="stable")][:count]
        found[row] = -1
        found[row, : len(chosen)] = chosen
    return found


class ListMeter:
    """Metrics of recommended lists, added up block after block.

    Coverage@K is the share of the catalogue that stands in the first K places of at least one
    user. Popularity@K is the mean over users of the mean number of training interactions of their
    first K items: the average recommendation popularity. Novelty@K is the same mean of
    -log2(users who have the item / users) over the training part: the mean inverse user
    frequency; an item that nobody has counts as one that a single user has. A user for whom no
    item is left is in no mean.

    Source: Ge et al., "Beyond accuracy" (RecSys 2010), catalogue coverage; Yin et al.,
    "Challenging the long tail recommendation" (VLDB 2012), popularity; Castells et al., "Novelty
    and diversity in recommender systems" (2015), MIUF. RecTools 0.19 has the same as
    `CatalogCoverage(normalize=True)`, `AvgRecPopularity` and `MeanInvUserFreq`.

    Args:
        metrics: those of them that are of lists are measured.
        data: its training part says what is popular.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> from lmcore.recsys.metrics import parse_metric
        >>> data = leave_one_out(make_interactions([0, 2, 4], [1, 2, 1, 3], 4))
        >>> names = ["Coverage@1", "Popularity@2", "Novelty@2"]
        >>> meter = ListMeter([parse_metric(name) for name in names], data)
        >>> meter.add(np.array([[0, 1], [0, 2]]))
        >>> meter.result()
        {'Coverage@1': 0.25, 'Popularity@2': 1.5, 'Novelty@2': 0.5}
    """

    def __init__(self, metrics: Sequence[Metric], data: Split) -> None:
        self._metrics = [metric for metric in metrics if metric.is_of_lists]
        self.count = max((metric.cutoff or 0 for metric in self._metrics), default=0)
        self._weights: dict[str, NDArray[np.float64]] = {}
        if self._metrics:
            popularity = np.bincount(data.train_items - 1, minlength=data.item_count)
            # -1 takes the last weight, which is none.
            self._weights["Popularity"] = np.append(popularity.astype(np.float64), 0.0)
            self._weights["Novelty"] = np.append(_find_novelty(data), 0.0)
        self._seen = {
            metric.name: np.zeros(data.item_count + 1, dtype=bool)
            for metric in self._metrics
            if metric.kind == "Coverage"
        }
        self._sums = dict.fromkeys((metric.name for metric in self._metrics), 0.0)
        self._users = 0

    def add(self, lists: NDArray[np.int64]) -> None:
        """Takes in a block of lists.

        Args:
            lists: `[n, at least count]` int64, as `find_best` returns them.
        """
        lengths = (lists >= 0).sum(1)
        lists = lists[lengths > 0]
        self._users += len(lists)
        for metric in self._metrics:
            part = lists[:, : metric.cutoff]
            if metric.kind == "Coverage":
                self._seen[metric.name][part.ravel()] = True
            else:
                means = self._weights[metric.kind][part].sum(1) / (part >= 0).sum(1)
                self._sums[metric.name] += float(means.sum())

    def result(self) -> dict[str, float]:
        """Returns the metrics by their names."""
        found = {name: total / max(1, self._users) for name, total in self._sums.items()}
        shares = {name: float(seen[:-1].mean()) for name, seen in self._seen.items()}
        return found | shares


def _find_novelty(data: Split) -> NDArray[np.float64]:
    """log2 of training users for each that has an item."""
    lengths = np.diff(data.train_offsets)
    users = np.repeat(np.arange(len(lengths)), lengths)
    pairs = np.unique(users * (data.item_count + 1) + data.train_items)
    having = np.bincount(pairs % (data.item_count + 1) - 1, minlength=data.item_count)
    novelty: NDArray[Any] = np.log2(max(1, np.count_nonzero(lengths)) / np.maximum(having, 1))
    return novelty
