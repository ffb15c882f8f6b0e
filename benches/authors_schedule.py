"""Schedules and draws as the text diffusion's authors make them, written for timing.

Same steps, same data structures and same cost as their code, in our words: betas one by one,
kept timesteps in sets, a process that is built of all timesteps and again of those it keeps, maps
of neighbours in dictionaries, a loop over the rows of a batch that takes each timestep out of a
tensor, and losses that are shifted row by row.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


def make_betas(steps: int, largest: float = 0.999) -> NDArray[np.float64]:
    """Returns the betas of the schedule `sqrt`."""

    def product(u: float) -> float:
        return 1 - np.sqrt(u + 0.0001)

    betas = []
    for step in range(steps):
        here, after = step / steps, (step + 1) / steps
        betas.append(min(1 - product(after) / product(here), largest))
    return np.array(betas)


class Process:
    """All coefficients of a schedule."""

    def __init__(self, betas: Any) -> None:
        self.betas = betas = np.array(betas, dtype=np.float64)
        alphas = 1.0 - betas
        self.products = np.cumprod(alphas, axis=0)
        self.products_before = np.append(1.0, self.products[:-1])
        self.products_after = np.append(self.products[1:], 0.0)
        self.sqrt_products = np.sqrt(self.products)
        self.noise = np.sqrt(1.0 - self.products)
        self.log_rest = np.log(1.0 - self.products)
        self.sqrt_recip = np.sqrt(1.0 / self.products)
        self.sqrt_recip_less_1 = np.sqrt(1.0 / self.products - 1)
        rest = 1.0 - self.products
        self.variance = betas * (1.0 - self.products_before) / rest
        self.log_variance = np.log(np.append(self.variance[1], self.variance[1:]))
        self.mean_1 = betas * np.sqrt(self.products_before) / rest
        self.mean_2 = (1.0 - self.products_before) * np.sqrt(alphas) / rest


def space_sections(total: int, counts: list[int]) -> set[int]:
    """Returns the points of sections, each but the last without its last point."""
    size, longer = divmod(total, len(counts))
    start, kept = 0, []
    for index, count in enumerate(counts):
        length = size + (1 if index < longer else 0)
        width = (length - 1) / (count - 1) if count > 1 else 1
        place, points = 0.0, []
        for _ in range(count):
            points.append(start + round(place))
            place += width
        kept += points if index + 1 == len(counts) else points[:-1]
        start += length
    return set(kept)


def space_process(betas: NDArray[np.float64], kept: set[int]) -> Process:
    """Returns the process of the kept timesteps."""
    whole = Process(betas)
    spaced, before, timesteps = [], 1.0, []
    for step, product in enumerate(whole.products):
        if step in kept:
            spaced.append(1 - product / before)
            before = product
            timesteps.append(step)
    return Process(np.array(spaced))


def find_neighbours(noise: NDArray[np.float64], tolerance: float) -> tuple[dict[int, int], ...]:
    """Returns the farthest neighbours up and down, in dictionaries."""
    total = len(noise)
    up: dict[int, int] = {}
    far = 0
    for step in range(total):
        while far < total and noise[far] - noise[step] <= tolerance:
            far += 1
        if far == total:
            break
        up[step] = far - 1
    down: dict[int, int] = {}
    far = total - 1
    for step in range(total - 1, -1, -1):
        while far >= 0 and noise[step] - noise[far] <= tolerance:
            far -= 1
        if far < 0:
            break
        down[step] = far + 1
    return up, down


def draw_neighbours(
    timesteps: torch.Tensor, up: dict[int, int], down: dict[int, int]
) -> torch.Tensor:
    """Returns a neighbour of each timestep, row by row."""
    directions = torch.randn(timesteps.shape)
    drawn = timesteps.clone()
    for row in range(len(timesteps)):
        step = timesteps[row].item()
        if directions[row].item() > 0:
            if step in up and up[step] > step:
                drawn[row] = random.randint(step + 1, up[step])
        elif step in down and down[step] < step:
            drawn[row] = random.randint(down[step], step - 1)
    return drawn


class LossAwareSampler:
    """Timesteps in proportion to their losses."""

    def __init__(self, total: int, length: int = 10, share: float = 0.001) -> None:
        self.total, self.length, self.share = total, length, share
        self.history = np.zeros([total, length], dtype=np.float64)
        self.counts = np.zeros([total], dtype=int)

    def weigh(self) -> NDArray[np.float64]:
        """Returns how likely each timestep is."""
        if not (self.counts == self.length).all():
            return np.ones([self.total], dtype=np.float64)
        weights: NDArray[np.float64] = np.sqrt(np.mean(self.history**2, axis=-1))
        weights /= np.sum(weights)
        weights *= 1 - self.share
        weights += self.share / len(weights)
        return weights

    def draw(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns timesteps, and the weights of their losses."""
        weights = self.weigh()
        p = weights / np.sum(weights)
        drawn = np.random.choice(len(p), size=(rows,), p=p)
        scales = 1 / (len(p) * p[drawn])
        return torch.from_numpy(drawn).long(), torch.from_numpy(scales).float()

    def update(self, timesteps: list[int], losses: list[float]) -> None:
        """Adds losses row by row."""
        for step, loss in zip(timesteps, losses, strict=True):
            if self.counts[step] == self.length:
                self.history[step, :-1] = self.history[step, 1:]
                self.history[step, -1] = loss
            else:
                self.history[step, self.counts[step]] = loss
                self.counts[step] += 1


def count_adaptive(steps: int, shares: tuple[float, ...]) -> list[int]:
    """Returns how many points each third gets, before the first two lose their last."""
    first, second = (max(round(share * steps), 1) for share in shares[:2])
    assert math.isclose(sum(shares), 1)
    return [first + 1, second + 1, steps - first - second]
