"""The timesteps of a batch: its own, and those at which Distance Penalty looks at it again.

All is drawn for the whole batch as a function of (seed, step, row), so that how rows are shared
among processes changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.diffusion.recipes import PenaltyConfig
from lmcore.ops.schedule import (
    LossAwareSampler,
    draw_neighbours,
    draw_timesteps,
    find_neighbours,
    shift_timesteps,
)

_BY_NOISE = ("l2_noise", "l2_noise_random")
_DISTANCES = {
    "l2": ("distance",), "cosine": ("distance",), "near_far": ("distance", "far_distance"),
}  # fmt: skip
# Of `near_far`, whose second timestep is drawn apart from its first.
_FAR_STEPS = 1 << 40


@dataclass(kw_only=True, slots=True, frozen=True)
class BatchTimesteps:
    """What a batch is trained at."""

    views: tuple[NDArray[np.int64], ...]
    """`[B]` int64 each: the timesteps of each view, the first the batch's own."""
    weights: NDArray[np.float64]
    """`[B]` float64, of the losses."""


class TimestepChoice:
    """Draws the timesteps of each batch, and learns from its losses where that is asked for.

    Args:
        betas: `[T]` float64, of the process.
        penalty: which views there are.
        is_loss_aware: whether timesteps are drawn by their losses, or all alike.
        seed: below 2**64.

    Raises:
        ValueError: a beta or a setting is out of its range.

    Example:
        >>> from lmcore.ops.schedule import make_betas
        >>> choice = TimestepChoice(make_betas("sqrt", 100), PenaltyConfig(), seed=1)
        >>> [len(view) for view in choice.draw(step=1, rows=4).views]
        [4, 4]
    """

    def __init__(
        self, betas: ArrayLike, penalty: PenaltyConfig, *, is_loss_aware: bool = False, seed: int
    ) -> None:
        self.total, self.penalty, self.seed = len(np.asarray(betas)), penalty, seed
        for name in _DISTANCES.get(penalty.kind, ()):
            if getattr(penalty, name) >= self.total:  # no row would have a penalty
                raise ValueError(
                    f"penalty.{name} must be below the {self.total} steps: got "
                    f"{getattr(penalty, name)}"
                )
        self._neighbours = None
        if penalty.kind in _BY_NOISE:
            self._neighbours = find_neighbours(betas, penalty.tolerance)
        self.sampler = LossAwareSampler(self.total) if is_loss_aware else None

    def draw(self, step: int, rows: int) -> BatchTimesteps:
        """Returns what the batch of a step is trained at.

        Args:
            step: of the training.
            rows: B.
        """
        if self.sampler is None:
            own = draw_timesteps(self.total, rows, seed=self.seed, step=step)
            weights = np.ones(rows)
        else:
            own, weights = self.sampler.draw(rows, seed=self.seed, step=step)
        return BatchTimesteps(views=(own, *self._find_others(own, step)), weights=weights)

    def update(self, timesteps: ArrayLike, losses: ArrayLike) -> None:
        """Takes note of the losses of a batch, in the order of its rows.

        Args:
            timesteps: `[B]` integers, the batch's own.
            losses: `[B]` numbers, without weights.
        """
        if self.sampler is not None:
            self.sampler.update(timesteps, losses)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next batch depends on, but for (seed, step)."""
        return {} if self.sampler is None else dict(self.sampler.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a choice with the same settings.

        Raises:
            ValueError: it is none.
        """
        if self.sampler is not None:
            self.sampler.load_state_dict(state)

    def _find_others(self, own: NDArray[np.int64], step: int) -> list[NDArray[np.int64]]:
        penalty, seed = self.penalty, self.seed
        if penalty.kind == "none":
            return []
        if self._neighbours is not None:
            is_far = penalty.kind == "l2_noise"
            near = draw_neighbours(own, self._neighbours, seed=seed, step=step, far=is_far)
            return [near]
        near = shift_timesteps(own, self.total, penalty.distance, seed=seed, step=step)
        if penalty.kind != "near_far":
            return [near]
        far = shift_timesteps(
            own, self.total, penalty.far_distance, seed=seed, step=step + _FAR_STEPS
        )
        return [near, far]
