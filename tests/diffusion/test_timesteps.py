"""The views of a batch: which timesteps each kind of penalty takes."""

from typing import Any

import numpy as np
import pytest

from lmcore.diffusion.recipes import PenaltyConfig
from lmcore.diffusion.timesteps import TimestepChoice
from lmcore.ops.schedule import find_neighbours, make_betas

BETAS = make_betas("sqrt", 200)
ROWS = 4000


def draw(**penalty: Any) -> tuple[np.ndarray[Any, Any], ...]:
    return TimestepChoice(BETAS, PenaltyConfig(**penalty), seed=3).draw(7, ROWS).views


def test_without_a_penalty_there_is_one_view() -> None:
    assert len(draw(kind="none")) == 1


def test_noise_takes_the_far_end_and_noise_random_all_of_the_window() -> None:
    near = find_neighbours(BETAS, 0.1)
    own, far = draw(kind="l2_noise", tolerance=0.1)
    ends = np.stack([near.up[own], near.down[own]])
    held = far != own
    assert held.mean() > 0.8
    assert (far == ends).any(0)[held].all()
    own, found = draw(kind="l2_noise_random", tolerance=0.1)
    ends = np.stack([near.up[own], near.down[own]])
    held = found != own
    low, high = np.minimum(ends.min(0), own), np.maximum(ends.max(0), own)
    assert ((found >= low) & (found <= high))[held & (ends.min(0) >= 0)].all()
    assert 0 < (found == ends).any(0)[held].mean() < 0.5


@pytest.mark.parametrize("kind", ["l2", "cosine"])
def test_other_kinds_take_a_distance_in_timesteps(kind: str) -> None:
    own, other = draw(kind=kind, distance=6)
    expected = np.stack([(own + step).clip(0, len(BETAS) - 1) for step in (-6, 6)])
    assert (other == expected).any(0).all()
    assert 0.4 < (other > own).mean() < 0.6


def test_near_and_far_are_drawn_apart() -> None:
    own, near, far = draw(kind="near_far", distance=6, far_distance=40)
    inside = (own >= 40) & (own < len(BETAS) - 40)
    assert (abs(near - own)[inside] == 6).all()
    assert (abs(far - own)[inside] == 40).all()
    assert 0.4 < ((near > own) == (far > own))[inside].mean() < 0.6
