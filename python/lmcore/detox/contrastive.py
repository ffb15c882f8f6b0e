"""The contrastive term: a model's own continuation is drawn to the clean one (section 4.2).

    l = -log( exp(cos(z, p) / tau) / sum over a in A of exp(cos(z, a) / tau) )

z is the anchor, what the model goes on with itself; p the clean continuation, A that and the toxic
ones. Each stands for a text by the mean of its hidden states: of all positions, padding as well,
in the authors' code (`released`), or of its tokens alone (`corrected`).
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Pooling = Literal["released", "corrected"]


def pool_states(states: Tensor, mask: Tensor, pooling: Pooling = "corrected") -> Tensor:
    """Returns one vector for each text, the mean of its hidden states.

    Source: section 4.2 of the specification, step 4.

    Args:
        states: `[texts, length, hidden]`, of any float type; the mean is taken in float32.
        mask: `[texts, length]`, 1 for tokens and 0 for padding.
        pooling: `released`, over all positions; `corrected`, over tokens. A text without tokens
            has zeros then.

    Returns:
        `[texts, hidden]` float32.

    Raises:
        ValueError: there is no such pooling, or the shapes do not go together.

    Example:
        >>> states = torch.tensor([[[2.0], [4.0]]])
        >>> pool_states(states, torch.tensor([[1, 0]])).item()
        2.0
        >>> pool_states(states, torch.tensor([[1, 0]]), "released").item()
        3.0
    """
    if pooling not in get_args(Pooling):
        raise ValueError(f"pooling must be released or corrected: got {pooling!r:.60}")
    if states.ndim != 3 or mask.shape != states.shape[:2]:
        raise ValueError(
            "states must be [texts, length, hidden] and mask [texts, length]: got "
            f"{list(states.shape)} and {list(mask.shape)}"
        )
    if pooling == "released":
        return states.float().mean(1)
    weights = mask.to(torch.float32)[..., None]
    # What padding holds does not matter, not even if it is no number.
    kept = states.float().masked_fill(weights == 0, 0.0)
    return kept.sum(1) / weights.sum(1).clamp(min=1.0)


def contrastive_loss(
    anchors: Tensor,
    candidates: Tensor,
    present: Tensor | None = None,
    *,
    temperature: float = 1.0,
) -> Tensor:
    """Returns the contrastive term of each group.

    At temperature 1 it lies between log(1 + k e^-2) and log(1 + k e^2) for k negatives, and is
    log(k + 1) where all similarities are equal.

    Source: section 4.2 of the specification, step 5.

    Args:
        anchors: `[groups, hidden]`, of the model's own continuations.
        candidates: `[groups, 1 + negatives, hidden]`, of the clean continuation, then of toxic
            ones.
        present: `[groups, 1 + negatives]` bool; which there are; all if None. What stands in the
            place of others does not matter.
        temperature: above 0.

    Returns:
        `[groups]` float32.

    Raises:
        ValueError: the shapes do not go together, a group lacks its clean or any toxic
            continuation, or the temperature is not above 0.

    Example:
        >>> equal = torch.ones(1, 4, 8)
        >>> round(contrastive_loss(torch.ones(1, 8), equal).item(), 4)  # log(4)
        1.3863
    """
    if candidates.ndim != 3 or anchors.shape != candidates[:, 0].shape:
        raise ValueError(
            "anchors must be [groups, hidden] and candidates [groups, 1 + negatives, hidden]: got "
            f"{list(anchors.shape)} and {list(candidates.shape)}"
        )
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0: got {temperature}")
    if present is None:
        present = torch.ones(candidates.shape[:2], dtype=torch.bool, device=candidates.device)
    elif present.shape != candidates.shape[:2] or present.dtype != torch.bool:
        raise ValueError(
            f"present must be {list(candidates.shape[:2])} bool: got {list(present.shape)} "
            f"{present.dtype}"
        )
    if not bool((present[:, 0] & present[:, 1:].any(1)).all()):
        raise ValueError("every group needs its clean continuation and at least one toxic one")
    # Zeros of an absent text have no direction: ones take their place, and no gradient.
    kept = candidates.float().masked_fill(~present[..., None], 1.0)
    similarities = functional.cosine_similarity(anchors.float()[:, None], kept, dim=-1)
    scores = (similarities / temperature).masked_fill(~present, -torch.inf)
    return torch.logsumexp(scores, 1) - scores[:, 0]
