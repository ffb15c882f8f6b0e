"""The items that a model would show to users next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.data import Interactions
from lmcore.recsys.evaluation import check_catalogue
from lmcore.recsys.lists import find_best
from lmcore.recsys.scoring import iterate_features

# Users whose windows and features exist at a time, at most, and bytes of their scores.
_USERS = 512
_SCORE_BYTES = 1 << 27


@dataclass(kw_only=True, slots=True, frozen=True)
class Recommendation:
    """What one user is recommended."""

    user: int | str
    """Original id."""
    items: list[tuple[int | str, float]]
    """Original ids and scores, the best first."""

    def to_dict(self) -> dict[str, Any]:
        """Returns the user and a list of items with scores."""
        items = [{"item": item, "score": score} for item, score in self.items]
        return {"user": self.user, "items": items}


@torch.no_grad()
def recommend(
    model: SequenceModel,
    data: Interactions,
    users: Iterable[int | str] | None = None,
    *,
    count: int = 10,
) -> Iterator[Recommendation]:
    """Yields for each user the items with the highest scores that are not in the history.

    The history is everything that `data` holds of the user, held-out items included. Equal scores
    stand in the order of the items. Users are worked on in blocks, so that the first result comes
    early and the memory does not grow with their number.

    Args:
        model: a backbone.
        data: the interactions, with the ids that the model was trained on.
        users: original ids; all users if None.
        count: items for each user; fewer where the history leaves fewer.

    Raises:
        ValueError: an unknown user, a count below 1, a model of another catalogue, or a score
            that is not a number.

    Example:
        >>> from lmcore.recsys.configuration_sasrec import SASRecConfig
        >>> from lmcore.recsys.data import make_interactions
        >>> from lmcore.recsys.modeling_sasrec import SASRecModel
        >>> model = SASRecModel(SASRecConfig(item_count=3, max_length=2, hidden_size=8))
        >>> data = make_interactions([0, 2, 3], [1, 3, 2], 3)
        >>> [item for item, score in next(recommend(model, data, [1])).items]
        [2]
    """
    if count < 1:
        raise ValueError(f"count must be at least 1: got {count}")
    check_catalogue(model, data.item_count)
    if users is None:
        chosen = np.arange(1, data.user_count + 1, dtype=np.int64)
    else:
        chosen = data.id_map.find_users(users)
    empty = chosen[data.offsets[chosen] == data.offsets[chosen - 1]]
    if empty.size:
        raise ValueError(f"user {data.user_ids[int(empty[0]) - 1]} has no interactions")
    # A score and its copy take 4 bytes each, and a count of equal scores 8.
    size = max(1, min(_USERS, _SCORE_BYTES // (16 * data.item_count)))
    for block, features in _iterate_users(model, data, chosen, size):
        offsets, columns = data.history(block)
        scores = model.score_catalogue(features).float().cpu()
        wrong = scores.isnan().any(dim=1).nonzero()
        if len(wrong):
            user = data.user_ids[int(block[int(wrong[0])]) - 1]
            raise ValueError(f"user {user} has scores that are not numbers: the model is broken")
        best = find_best(scores, offsets, columns, count)
        for row, user in enumerate(block.tolist()):
            items = best[row][best[row] >= 0].tolist()
            values = scores[row, items].tolist()
            yield Recommendation(
                user=_plain(data.user_ids[user - 1]),
                items=[(_plain(data.item_ids[c]), v) for c, v in zip(items, values, strict=True)],
            )


def _iterate_users(
    model: SequenceModel, data: Interactions, users: NDArray[np.int64], size: int
) -> Iterator[tuple[NDArray[np.int64], torch.Tensor]]:
    """Yields `[size]` users and `[size, H]` features; windows are made for `_USERS` of them."""
    for start in range(0, len(users), _USERS):
        block = users[start : start + _USERS]
        windows = data.sequences(model.config.max_length, block)
        # One block, taken at once: the model is not left in evaluation mode between results.
        [(_, features)] = iterate_features(model, windows, len(block))
        for first in range(0, len(block), size):
            yield block[first : first + size], features[first : first + size]


def _plain(value: Any) -> int | str:
    return value if isinstance(value, str) else int(value)
