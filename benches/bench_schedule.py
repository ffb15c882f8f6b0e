"""Schedules, neighbours and the draws of a batch against the authors' loops and numpy.

Schedules are made once for a model: they are no bottleneck anywhere, and numpy is as good.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

import authors_schedule as authors
from lmcore.ops.schedule import (
    ADAPTIVE_DECAY,
    LossAwareSampler,
    draw_neighbours,
    draw_timesteps,
    find_neighbours,
    make_betas,
    make_coefficients,
    space_timesteps,
)
from timing import Row, compare, print_conditions, save

TOTAL = 2000
TOLERANCE = 0.05


def numpy_betas() -> NDArray[np.float64]:
    """Betas of `sqrt`, all at once."""
    products = 1 - np.sqrt(np.arange(TOTAL + 1) / TOTAL + 1e-4)
    return np.minimum(1 - products[1:] / products[:-1], 0.999)


def numpy_spaced(betas: NDArray[np.float64], kept: list[int]) -> authors.Process:
    """The process of kept timesteps, all at once."""
    products = np.cumprod(1 - betas)[kept]
    return authors.Process(1 - products / np.append(1.0, products[:-1]))


def numpy_neighbours(betas: NDArray[np.float64]) -> tuple[NDArray[np.int64], ...]:
    """Neighbours by two searches in sorted noise; rounding may move one by a timestep."""
    noise = np.sqrt(1 - np.cumprod(1 - betas))
    up = np.searchsorted(noise, noise + TOLERANCE, "right")
    down = np.searchsorted(noise, noise - TOLERANCE, "left")
    return np.where(up < TOTAL, up - 1, -1), np.where(down > 0, down, -1)


def numpy_draws(
    timesteps: NDArray[np.int64], up: NDArray[np.int64], down: NDArray[np.int64],
    generator: np.random.Generator,
) -> NDArray[np.int64]:  # fmt: skip
    """Neighbours of a batch, all at once."""
    is_up = generator.random(len(timesteps)) < 0.5
    last = np.where(is_up, up[timesteps], down[timesteps])
    width = np.where(last < 0, 0, np.abs(last - timesteps))
    place = (generator.random(len(timesteps)) * width).astype(np.int64)
    drawn = np.where(is_up, timesteps + 1, last) + place
    return np.where(width == 0, timesteps, drawn)


def check(betas: NDArray[np.float64]) -> None:
    """Asserts that all make the same schedules and maps, and that draws keep to them."""
    assert np.allclose(authors.make_betas(TOTAL), betas, rtol=1e-12, atol=0)
    assert np.allclose(numpy_betas(), betas, rtol=1e-12, atol=0)
    kept = authors.space_sections(TOTAL, authors.count_adaptive(20, ADAPTIVE_DECAY))
    assert sorted(kept) == space_timesteps(TOTAL, "adp_20").tolist()
    spaced = authors.space_process(betas, kept)
    mine = make_coefficients(betas, sorted(kept))
    assert np.allclose(spaced.mean_1, mine.posterior_mean_coef1, rtol=1e-9, atol=0)
    near = find_neighbours(betas, TOLERANCE)
    maps = authors.find_neighbours(authors.Process(betas).noise, TOLERANCE)
    for direction, known in zip(near, maps, strict=True):
        assert {t: u for t, u in enumerate(direction.tolist()) if u != -1} == known
    timesteps = draw_timesteps(TOTAL, 2048, seed=0, step=0)
    for drawn in (
        draw_neighbours(timesteps, near, seed=0, step=0),
        authors.draw_neighbours(torch.from_numpy(timesteps), *maps).numpy(),
        numpy_draws(timesteps, *near, np.random.default_rng(0)),
    ):
        up, down = near.up[timesteps], near.down[timesteps]
        later, earlier = drawn > timesteps, drawn < timesteps
        assert (drawn[later] <= up[later]).all()
        assert (drawn[earlier] >= down[earlier]).all()
        assert (down[earlier] != -1).all()
        assert min(later.mean(), earlier.mean()) > 0.3
    samplers = authors.LossAwareSampler(TOTAL), LossAwareSampler(TOTAL)
    for sampler in samplers:
        fill(sampler)
    assert np.allclose(samplers[0].weigh(), samplers[1].weigh(), rtol=1e-12, atol=0)


def fill(sampler: authors.LossAwareSampler | LossAwareSampler) -> None:
    """Fills all histories."""
    for k in range(12):
        losses = np.abs(np.sin(np.arange(TOTAL) + 31 * k)) + 0.1
        sampler.update(list(range(TOTAL)), losses.tolist())


def schedule_rows(betas: NDArray[np.float64]) -> list[Row]:
    """Times what is made once for a model."""
    counts = authors.count_adaptive(20, ADAPTIVE_DECAY)
    kept = sorted(authors.space_sections(TOTAL, counts))
    noise = authors.Process(betas).noise

    def make_all() -> None:
        make_coefficients(make_betas("sqrt", TOTAL))

    def space() -> None:
        make_coefficients(betas, space_timesteps(TOTAL, "adp_20"))

    def find() -> None:
        find_neighbours(betas, TOLERANCE)

    cases: list[tuple[str, list[tuple[str, Callable[[], object]]], Callable[[], object]]] = [
        (
            "betas and coefficients of 2,000 timesteps, sqrt",
            [
                ("authors' loop", lambda: authors.Process(authors.make_betas(TOTAL))),
                ("numpy", lambda: authors.Process(numpy_betas())),
            ],
            make_all,
        ),
        (
            "20 kept timesteps and their coefficients, adp_20",
            [
                (
                    "authors' loop",
                    lambda: authors.space_process(betas, authors.space_sections(TOTAL, counts)),
                ),
                ("numpy, the timesteps known", lambda: numpy_spaced(betas, kept)),
            ],
            space,
        ),
        (
            "neighbours by noise of 2,000 timesteps",
            [
                ("authors' loop", lambda: authors.find_neighbours(noise, TOLERANCE)),
                ("numpy, two searches", lambda: numpy_neighbours(betas)),
            ],
            find,
        ),
    ]
    rows = []
    for case, opponents, ours in cases:
        for name, call in opponents:
            # Respacing makes twenty values of each kind: calls of numpy are all that it costs.
            goal = "" if ours is space else "20" if name == "authors' loop" else "1"
            rows += compare("schedule", case, (name, call), ("lmcore", ours, goal), rounds=31)
    return rows


def draw_rows(betas: NDArray[np.float64], batch: int) -> list[Row]:
    """Times what is drawn for each batch."""
    near = find_neighbours(betas, TOLERANCE)
    maps = authors.find_neighbours(authors.Process(betas).noise, TOLERANCE)
    timesteps = draw_timesteps(TOTAL, batch, seed=0, step=0)
    tensor, generator = torch.from_numpy(timesteps), np.random.default_rng(0)
    theirs, mine = authors.LossAwareSampler(TOTAL), LossAwareSampler(TOTAL)
    for sampler in (theirs, mine):
        fill(sampler)
    losses = np.sin(timesteps) ** 2
    listed = timesteps.tolist(), losses.tolist()
    draw = ("lmcore", lambda: draw_neighbours(timesteps, near, seed=0, step=0))
    case = f"neighbours of a batch of {batch}"
    goal = "100" if batch == 2048 else ""
    return [
        *compare(
            "schedule", case,
            ("authors' loop", lambda: authors.draw_neighbours(tensor, *maps)), (*draw, goal),
            rounds=21,
        ),
        *compare(
            "schedule", case,
            ("numpy", lambda: numpy_draws(timesteps, *near, generator)), (*draw, ""),
            rounds=21,
        ),
        *compare(
            "schedule", f"timesteps of a batch of {batch} by their losses",
            ("authors'", lambda: theirs.draw(batch)),
            ("lmcore", lambda: mine.draw(batch, seed=0, step=0), ""),
            rounds=21,
        ),
        *compare(
            "schedule", f"losses of a batch of {batch}",
            ("authors' loop", lambda: theirs.update(*listed)),
            ("lmcore", lambda: mine.update(timesteps, losses), ""),
            rounds=21,
        ),
    ]  # fmt: skip


def main() -> None:
    """Runs all cases."""
    print_conditions()
    torch.set_num_threads(1)
    betas = make_betas("sqrt", TOTAL)
    check(betas)
    rows = schedule_rows(betas)
    for batch in (256, 2048):
        rows += draw_rows(betas, batch)
    save("schedule", rows)


if __name__ == "__main__":
    main()
