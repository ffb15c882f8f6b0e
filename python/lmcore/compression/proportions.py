"""How often each denoiser is drawn in D-UL2: more often where a model is behind its targets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Rule = Literal["paper", "shipped"]

INITIAL = (0.02, 0.02, 0.8, 0.1, 0.02, 0.02, 0.02)
"""Proportions of the seven denoisers of UL2 that the authors begin with."""
SHIPPED_TARGETS = (1.154, 1.594, 2.106, 1.298, 1.723, 2.151, 2.151)
"""Losses of OpenBA's 15B before pruning, as the authors' code has them. The last two are equal,
which is probably a slip."""
SMOOTHING = 1e-4
"""Which part of the shipped rule's proportions is shared out equally."""


def update_proportions(
    proportions: Sequence[float] | NDArray[np.float64],
    losses: Sequence[float] | NDArray[np.float64],
    targets: Sequence[float] | NDArray[np.float64],
    *,
    rule: Rule = "paper",
) -> NDArray[np.float64]:
    """Returns new proportions: `[K]` float64 whose sum is 1.

    Each proportion is multiplied by exp(loss - target), and their sum is made 1 again. By the
    paper's rule a loss below its target counts as one that is at it. The shipped rule has no such
    bound, and mixes in a ten-thousandth of equal proportions; it computes in float32 up to there.

    Source: OpenBA-V2 (arXiv 2405.05957), algorithm 1; `update_proportion` of its code.

    Args:
        proportions: `[K]`, those of the step before; their sum is 1.
        losses: `[K]`, of the model under each denoiser.
        targets: `[K]`, of the model before it was pruned.
        rule: `paper` or `shipped`.

    Raises:
        FloatingPointError: a loss is not finite.
        ValueError: there are not as many of each, proportions are negative or do not sum to 1, a
            target is not finite, or there is no such rule.

    Example:
        >>> update_proportions([0.5, 0.5], [2.0, 1.0], [1.5, 1.5]).round(3).tolist()
        [0.622, 0.378]
    """
    old = check_proportions(proportions)
    found, wanted = np.asarray(losses, np.float64), np.asarray(targets, np.float64)
    for name, values in (("losses", found), ("targets", wanted)):
        if values.shape != old.shape:
            raise ValueError(f"{name} must be [{len(old)}]: got {list(values.shape)}")
    if not np.isfinite(wanted).all():
        raise ValueError(f"targets must be finite: got {wanted.tolist()}")
    if not np.isfinite(found).all():
        raise FloatingPointError(f"losses must be finite: got {found.tolist()}")
    if rule == "shipped":
        return _update_as_shipped(old, found, wanted)
    if rule != "paper":
        raise ValueError(f"rule must be paper or shipped: got {rule!r:.60}")
    gaps = np.maximum(found - wanted, 0)
    # The largest gap becomes 1, so that none overflows.
    weights = old * np.exp(gaps - gaps[old > 0].max())
    return np.asarray(weights / weights.sum(), np.float64)


def check_proportions(
    proportions: Sequence[float] | NDArray[np.float64], count: int | None = None
) -> NDArray[np.float64]:
    """Returns proportions as `[K]` float64.

    Args:
        proportions: `[K]`.
        count: K; None: any number.

    Raises:
        ValueError: they are not so many, negative, not finite, or do not sum to 1.

    Example:
        >>> check_proportions([0.5, 0.6])
        Traceback (most recent call last):
        ValueError: proportions must sum to 1: got 1.1
    """
    found = np.array(proportions, np.float64)
    if found.ndim != 1 or not len(found) or count not in (None, len(found)):
        wanted = "some numbers" if count is None else f"{count} numbers"
        raise ValueError(f"proportions must be {wanted}: got {list(found.shape)}")
    if not np.isfinite(found).all() or (found < 0).any():
        raise ValueError(f"proportions must be at least 0: got {found.tolist()}")
    total = math.fsum(found)
    if abs(total - 1) > 1e-6:
        raise ValueError(f"proportions must sum to 1: got {total:.6g}")
    return found


def _update_as_shipped(
    old: NDArray[np.float64], losses: NDArray[np.float64], targets: NDArray[np.float64]
) -> NDArray[np.float64]:
    with np.errstate(divide="ignore"):  # a proportion of 0 stays one, but for the smoothing
        scores = np.log(old.astype(np.float32))
    scores = scores + (losses.astype(np.float32) - targets.astype(np.float32))
    weights = np.exp(scores - scores.max())
    weights /= weights.sum()
    smoothed = np.float32(1 - SMOOTHING) * weights + np.float32(SMOOTHING / len(old))
    whole = smoothed.astype(np.float64)
    return np.asarray(whole / whole.sum(), np.float64)
