"""For whom a model ranks well, and what it takes for false negatives: by bands of counts.

Items stand in bands by how often the training part has them, users by how many items they have
there. A band holds whole counts, so that what is equally popular is never torn apart.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

# These bring torch, which is imported when something is measured.
if TYPE_CHECKING:
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import Split


@dataclass(kw_only=True, slots=True, frozen=True)
class Bands:
    """What stands in which band."""

    of: NDArray[np.int64]
    """`[C]`, the band of each; bands go up with the counts, from 0."""
    low: tuple[int, ...]
    """Lowest count of each band."""
    high: tuple[int, ...]
    """Highest count of each band."""


def make_bands(counts: NDArray[np.int64], most: int = 5) -> Bands:
    """Returns bands of about equal numbers, of which none is empty.

    Args:
        counts: `[C]`, at least one.
        most: how many bands, at least 1; fewer where counts repeat so often that some are empty.

    Raises:
        ValueError: there are no counts, or `most` is below 1.

    Example:
        >>> bands = make_bands(np.array([1, 1, 1, 2, 5, 9]), 3)
        >>> bands.of.tolist(), bands.low, bands.high
        ([0, 0, 0, 0, 1, 1], (1, 5), (2, 9))
    """
    if not len(counts):
        raise ValueError("counts must not be empty")
    if most < 1:
        raise ValueError(f"most must be at least 1: got {most}")
    places = np.arange(1, most) * len(counts) // most
    # A band begins with what stands at its place; what is equal to it comes along.
    edges = np.sort(counts)[places]
    _, of = np.unique(np.searchsorted(edges, counts, side="right"), return_inverse=True)
    parts = [counts[of == band] for band in range(of.max() + 1)]
    return Bands(
        of=of.astype(np.int64),
        low=tuple(int(part.min()) for part in parts),
        high=tuple(int(part.max()) for part in parts),
    )


def band_items(data: Split, most: int = 5) -> Bands:
    """Returns bands of the items, item i at i - 1, by how often the training part has them.

    Args:
        data: the split.
        most: how many bands.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 4, 8], [1, 2, 3, 1, 1, 2, 1, 3]))
        >>> band_items(data, 2).of.tolist()
        [1, 1, 0]
    """
    return make_bands(np.bincount(data.train_items, minlength=data.item_count + 1)[1:], most)


def band_users(data: Split, most: int = 5) -> Bands:
    """Returns bands of the users, user u at u - 1, by how many items they train on.

    Args:
        data: the split.
        most: how many bands.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 3, 9], [1, 2, 3, 1, 2, 3, 1, 2, 3]))
        >>> band_users(data, 2).low
        (1, 4)
    """
    return make_bands(np.diff(data.train_offsets), most)


def find_ranks(
    model: SequenceModel, data: Split, split: str = "test"
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Returns users, targets and the targets' ranks from 0 among all items outside of histories.

    Args:
        model: a backbone.
        data: the leave-one-out split.
        split: `valid` or `test`.

    Example:
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> data = leave_one_out(make_interactions([0, 3, 6], [1, 2, 3, 3, 2, 1]))
        >>> model = SASRecModel(SASRecConfig(item_count=3, max_length=4, hidden_size=8))
        >>> users, targets, ranks = find_ranks(model, data)
        >>> users.tolist(), targets.tolist(), ranks.tolist()
        ([1, 2], [3, 1], [0.0, 0.0])
    """
    import torch

    from lmcore.ops.ranking import rank_targets
    from lmcore.recsys.scoring import iterate_features

    rows = data.sequences(split, model.config.max_length)
    offsets, seen = data.history(split)
    ranks = []
    with torch.no_grad():
        for start, features in iterate_features(model, rows.sequences, 256):
            targets = rows.targets[start : start + len(features)]
            bounds = offsets[start : start + len(features) + 1]
            found = rank_targets(
                model.score_catalogue(features).float(),
                targets - 1,
                bounds - bounds[0],
                seen[bounds[0] : bounds[-1]],
                threads=1,
            )
            ranks.append(np.asarray(found.ranks))
    return rows.users, rows.targets, np.concatenate(ranks)


def score_bands(ranks: NDArray[np.float64], of: NDArray[np.int64], bands: Bands) -> dict[str, Any]:
    """Returns the metrics of each band: its lowest count, its targets, HR@10 and NDCG@10.

    Args:
        ranks: `[T]`, from 0.
        of: `[T]`, in which band each target, or its user, stands.
        bands: all of them.

    Returns:
        Lists with an entry for each band; metrics are None in a band without targets.

    Example:
        >>> bands = make_bands(np.array([1, 2, 3]), 3)
        >>> found = score_bands(np.array([0.0, 20.0, 0.0]), np.array([0, 0, 2]), bands)
        >>> found["targets"], found["NDCG@10"]
        ([2, 0, 1], [0.5, None, 1.0])
    """
    from lmcore.ops.ranking import ranking_metrics

    parts = [ranks[of == band] for band in range(len(bands.low))]
    metrics = [ranking_metrics(part, [10]) if len(part) else None for part in parts]
    return {
        "low": list(bands.low),
        "high": list(bands.high),
        "targets": [len(part) for part in parts],
        "HR@10": [found and found["HR@10"] for found in metrics],
        "NDCG@10": [found and found["NDCG@10"] for found in metrics],
    }


def check_held_out(pairs: NDArray[np.int64], data: Split, bands: Bands) -> dict[str, Any]:
    """Returns which share of (user, item) pairs is held out, and what chance would give.

    Chance is an item drawn in place of the pair's, for the same user, from what she does not
    have in the training part: from all of it, and for a band from the same band.

    Args:
        pairs: `[K, 2]`, distinct rows; no item is in the user's training part.
        data: the leave-one-out split.
        bands: of the items, as `band_items` returns them.

    Returns:
        `pairs`, their number; `held_out` and `by_chance`, shares, None where there are no pairs;
        and `bands`, for each band the same three and its lowest and highest count.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 4, 8], [1, 2, 3, 4, 2, 1, 3, 4], 6))
        >>> found = check_held_out(np.array([[1, 3], [2, 5]]), data, band_items(data))
        >>> found["held_out"], found["by_chance"]
        (0.5, 0.5)
    """
    width, rows = data.item_count + 1, np.arange(data.user_count)
    held_out = np.stack([data.valid, data.test])
    # Keys of distinct (user, item): an item that a user has twice is one that is not drawn, and
    # held-out items that she trains on, too, are none to find.
    known = np.unique(np.repeat(rows, np.diff(data.train_offsets)) * width + data.train_items)
    hidden = np.setdiff1d((rows * width + held_out)[held_out > 0], known)
    count = len(bands.low)

    def count_bands(keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """`[users, bands]`."""
        users, items = np.divmod(keys, width)
        cells = np.bincount(users * count + bands.of[items - 1], minlength=len(rows) * count)
        return cells.reshape(len(rows), count)

    hits = count_bands(hidden)
    drawable = np.bincount(bands.of, minlength=count) - count_bands(known)
    users, items = pairs[:, 0] - 1, pairs[:, 1]
    found = np.isin(users * width + items, hidden)
    band = bands.of[items - 1]
    alike = hits[users, band] / drawable[users, band]
    at_random = hits[users].sum(axis=1) / drawable[users].sum(axis=1)

    def describe(some: NDArray[np.bool_], chance: NDArray[np.float64]) -> dict[str, Any]:
        number = int(some.sum())
        shares = (found[some].mean(), chance[some].mean()) if number else (None, None)
        return {
            "pairs": number,
            "held_out": None if shares[0] is None else float(shares[0]),
            "by_chance": None if shares[1] is None else float(shares[1]),
        }

    return {
        **describe(np.ones(len(pairs), dtype=bool), at_random),
        "bands": [
            {"low": low, "high": high, **describe(band == number, alike)}
            for number, (low, high) in enumerate(zip(bands.low, bands.high, strict=True))
        ],
    }
