"""Blocks of scores, of models and of baselines alike."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.baselines import Baseline
from lmcore.recsys.data import History

__all__ = ["ScoreBlock", "iterate_features", "iterate_scores"]

# Windows whose features are computed at a time.
_WINDOWS = 1024


class ScoreBlock(Protocol):
    """Some users in a row, and how to score items for them."""

    users: slice
    """Which rows of the windows they are."""

    def catalogue(self) -> torch.Tensor:
        """Returns `[block, I]` scores of all items."""
        ...

    def items(self, items: torch.Tensor) -> torch.Tensor:
        """Returns `[block, N]` scores of `[block, N]` items from 1."""
        ...


@torch.no_grad()
def iterate_features(
    model: SequenceModel, sequences: NDArray[np.int64], size: int
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yields the features at the last position, block after block, in evaluation mode.

    Args:
        model: a backbone.
        sequences: `[M, L]` int64 windows; each ends with an item.
        size: windows at a time.

    Yields:
        The first row of the block, and `[block, H]` features on the model's device.

    Example:
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> model = SASRecModel(SASRecConfig(item_count=3, max_length=2, hidden_size=8))
        >>> windows = np.array([[0, 1], [2, 3], [0, 2]])
        >>> [(start, len(block)) for start, block in iterate_features(model, windows, 2)]
        [(0, 2), (2, 1)]
    """
    with _evaluating(model):
        for start in range(0, len(sequences), size):
            windows = torch.from_numpy(sequences[start : start + size]).to(model.device)
            count, length = windows.shape
            last = torch.arange(1, count + 1, device=model.device) * length - 1
            yield start, model.forward_packed(windows, last)


def iterate_scores(
    model: SequenceModel | Baseline, sequences: NDArray[np.int64], history: History, size: int
) -> Iterator[ScoreBlock]:
    """Yields blocks of users that a model, or a baseline, scores.

    Args:
        model: a backbone, which reads the windows, or a baseline, which reads the histories.
        sequences: `[M, L]` int64 windows; each ends with an item.
        history: M rows.
        size: users of a block, at most.

    Example:
        >>> from lmcore.recsys.baselines import Popularity
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> data = leave_one_out(make_interactions([0, 4], [1, 2, 1, 3]))
        >>> windows = data.sequences("test", 2).sequences
        >>> [block] = iterate_scores(Popularity(data), windows, data.history("test"), 9)
        >>> block.catalogue().tolist()
        [[1.0, 1.0, 0.0]]
    """
    if isinstance(model, SequenceModel):
        for start, features in iterate_features(model, sequences, max(size, _WINDOWS)):
            for first in range(0, len(features), size):
                # What is left of the windows may be fewer users than a block has.
                yield _ModelBlock(model, start + first, features[first : first + size])
        return
    for start in range(0, len(sequences), size):
        bounds = history.offsets[start : start + size + 1]
        columns = history.columns[bounds[0] : bounds[-1]]
        yield _BaselineBlock(start, model.score(bounds - bounds[0], columns))


class _ModelBlock:
    def __init__(self, model: SequenceModel, start: int, features: torch.Tensor) -> None:
        self.users = slice(start, start + len(features))
        self._model, self._features = model, features

    def catalogue(self) -> torch.Tensor:
        return self._model.score_catalogue(self._features).float()

    def items(self, items: torch.Tensor) -> torch.Tensor:
        items = items.to(self._features.device)
        scores = self._model.score_items(self._features, items)
        # The same item has the same score wherever it stands, whatever rounding did.
        return torch.where(items == items[:, :1], scores[:, :1], scores).float()


class _BaselineBlock:
    def __init__(self, start: int, scores: NDArray[np.float64]) -> None:
        self.users = slice(start, start + len(scores))
        # Rows that are one row in memory are not written to, but torch must be able to.
        self._scores = torch.from_numpy(np.require(scores, requirements="W"))

    def catalogue(self) -> torch.Tensor:
        return self._scores

    def items(self, items: torch.Tensor) -> torch.Tensor:
        return self._scores.gather(1, items - 1)


@contextmanager
def _evaluating(model: SequenceModel) -> Iterator[None]:
    training = model.training
    model.train(False)
    try:
        yield
    finally:
        model.train(training)
