"""Noise schedules of diffusion models, their coefficients, and the timesteps of a batch.

Source: Bridge-Gap Diffusion (arXiv 2305.04465) and its code, which has the schedules from
Diffusion-LM and DiffuSeq; draws are made here by Philox4x32-10, so that each depends on
(seed, step, row) alone. b is beta, a the cumulative product of 1 - b.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate, pairwise
from operator import mul

import numpy as np

from lmcore.reference._arguments import check_int, id_in_range, in_range, one_of, same_length
from lmcore.reference._coefficients import Coefficients
from lmcore.reference._spacing import (
    ADAPTIVE_DECAY,
    MOST_STEPS,
    adaptive_timesteps,
    check_total,
    order_timesteps,
    space_timesteps,
)
from lmcore.reference.philox import Stream, random_below, random_uniform

__all__ = [
    "ADAPTIVE_DECAY",
    "LARGEST_LOSS",
    "MOST_STEPS",
    "SCHEDULES",
    "Coefficients",
    "LossAwareSampler",
    "adaptive_timesteps",
    "draw_neighbours",
    "draw_timesteps",
    "find_neighbours",
    "make_betas",
    "make_coefficients",
    "order_timesteps",
    "shift_timesteps",
    "space_betas",
    "space_timesteps",
]

# The schedules, and how many timesteps have betas above 0 and below 1: at least, and at most.
SCHEDULES = {
    "linear": (21, MOST_STEPS),
    "cosine": (1, MOST_STEPS),
    "sqrt": (1, 9999),
    "trunc_cos": (1, MOST_STEPS),
    "trunc_lin": (1, MOST_STEPS),
    "pw_lin": (21, MOST_STEPS),
}
LARGEST_LOSS = 1e150

_LARGEST_BETA = 0.999
_ROWS = 1 << 32
# The least number with all of its digits: what divides by less than this is not finite.
_LEAST = 2.0**-1022


def make_betas(name: str, steps: int) -> list[float]:
    """The definition of `lmcore.ops.schedule.make_betas`, with the same arguments.

    Example:
        >>> [round(b, 8) for b in make_betas("sqrt", 2000)[:2]]
        [0.01464131, 0.00888909]
    """
    one_of("name", name, tuple(SCHEDULES))
    least, most = SCHEDULES[name]
    steps = check_int("steps", steps, least, most=most)
    scale = 1000 / steps
    low, high = scale * 0.0001, scale * 0.02
    match name:
        case "linear":
            return _line(low, high, steps)
        case "trunc_lin":
            return _line(
                low + 0.01, scale * 0.001 + 0.01 if high + 0.01 > 1 else high + 0.01, steps
            )
        case "pw_lin":
            return _line(low + 0.01, low, 10) + _line(low, high, steps - 10)
        case "cosine":
            return _ratios(lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2, steps)
        case "trunc_cos":

            def a(u: float) -> float:
                return math.cos((u + 0.1) / 1.1 * math.pi / 2) ** 2

            return [min(1 - a(0), _LARGEST_BETA), *_ratios(a, steps)[:-1]]
        case _:
            return _ratios(lambda u: 1 - math.sqrt(u + 0.0001), steps)


def space_betas(betas: Sequence[float], kept: Iterable[int]) -> list[float]:
    """The definition of `lmcore.ops.schedule.space_betas`, with the same arguments.

    Example:
        >>> [round(b, 6) for b in space_betas(make_betas("sqrt", 2000), [0, 667, 1334, 1999])]
        [0.014641, 0.567418, 0.566497, 0.999999]
    """
    a = _cumulate(betas)
    spaced, before = [], 1.0
    for t in order_timesteps(len(a), kept):
        spaced.append(1 - a[t] / before)
        before = a[t]
    return spaced


def make_coefficients(betas: Sequence[float], kept: Iterable[int] | None = None) -> Coefficients:
    """The definition of `lmcore.ops.schedule.make_coefficients`, with the same arguments.

    Example:
        >>> make_coefficients([0.5, 0.5]).alphas_cumprod
        array([0.5 , 0.25])
    """
    timesteps = list(range(len(betas))) if kept is None else order_timesteps(len(betas), kept)
    b = list(betas) if kept is None else space_betas(betas, timesteps)
    a = _cumulate(b, "betas" if kept is None else "spaced betas")
    before = [1.0, *a[:-1]]
    variance = [b * (1 - p) / (1 - a) for a, b, p in zip(a, b, before, strict=True)]
    # The first one is 0, and has no logarithm.
    clipped = [variance[1] if len(b) > 1 else b[0], *variance[1:]]
    fields = {
        "betas": b,
        "alphas_cumprod": a,
        "alphas_cumprod_prev": before,
        "sqrt_alphas_cumprod": [math.sqrt(a) for a in a],
        "sqrt_one_minus_alphas_cumprod": [math.sqrt(1 - a) for a in a],
        "sqrt_recip_alphas_cumprod": [math.sqrt(1 / a) for a in a],
        "sqrt_recipm1_alphas_cumprod": [math.sqrt(1 / a - 1) for a in a],
        "posterior_mean_coef1": [
            b * math.sqrt(p) / (1 - a) for a, b, p in zip(a, b, before, strict=True)
        ],
        "posterior_mean_coef2": [
            (1 - p) * math.sqrt(1 - b) / (1 - a) for a, b, p in zip(a, b, before, strict=True)
        ],
        "posterior_variance": variance,
        "posterior_log_variance_clipped": [math.log(v) for v in clipped],
        "fixed_large_variance": [clipped[0], *b[1:]],
    }
    arrays = {name: np.array(values) for name, values in fields.items()}
    return Coefficients(total=len(betas), timesteps=np.array(timesteps, np.int64), **arrays)


def find_neighbours(betas: Sequence[float], tolerance: float = 0.05) -> tuple[list[int], list[int]]:
    """Returns the farthest later and earlier timesteps of similar noise, -1 where there is none.

    Source: Bridge-Gap Diffusion, `fill_noise_map`.

    Example:
        >>> find_neighbours(make_betas("sqrt", 50))[0][:3]
        [0, 2, 3]
    """
    if not 0 < tolerance < math.inf:
        raise ValueError(f"tolerance must be finite and above 0: got {tolerance!r}")
    s = [math.sqrt(1 - a) for a in accumulate((1 - b for b in _check_betas(betas)), mul)]
    up, down = [], []
    for here in s:
        end = next((u for u, other in enumerate(s) if other - here > tolerance), len(s))
        start = next(d for d, other in enumerate(s) if here - other <= tolerance)
        up.append(end - 1 if end < len(s) else -1)
        down.append(start or -1)
    return up, down


def draw_neighbours(
    timesteps: Sequence[int],
    up: Sequence[int],
    down: Sequence[int],
    *,
    seed: int,
    step: int,
    far: bool = False,
    first_row: int = 0,
) -> list[int]:
    """Returns a neighbour of each timestep: of the window, all as likely, or its far end.

    Source: Bridge-Gap Diffusion, `make_t_similar_by_noise`.

    Example:
        >>> draw_neighbours([1, 1], [0, 1, -1], [-1, -1, 0], seed=0, step=0)
        [1, 1]
    """
    same_length(up=up, down=down)
    _check_rows(first_row, len(timesteps))
    drawn = []
    for row, t in enumerate(timesteps):
        id_in_range("timesteps", row, t, 0, len(up))
        is_up, place = _is_later(seed, step, first_row + row), 2 * (first_row + row) + 1
        last = up[t] if is_up else down[t]
        if last != -1:
            least, end = (t, len(up)) if is_up else (0, t + 1)
            id_in_range("up" if is_up else "down", t, last, least, end if is_up else None,
                        most=None if is_up else t)  # fmt: skip
        if last in (-1, t) or far:
            drawn.append(t if last == -1 else last)
        else:
            width = random_below(seed, Stream.NEIGHBOURS, step, place, abs(last - t))
            drawn.append(min(t + 1, last) + width)
    return drawn


def shift_timesteps(
    timesteps: Sequence[int],
    total: int,
    distance: int = 10,
    *,
    seed: int,
    step: int,
    first_row: int = 0,
) -> list[int]:
    """The definition of `lmcore.ops.schedule.shift_timesteps`, with the same arguments.

    Example:
        >>> shift_timesteps([0, 5], 6, 0, seed=0, step=0)
        [0, 5]
    """
    total = check_total(total)
    distance = check_int("distance", distance, 0, most=MOST_STEPS)
    _check_rows(first_row, len(timesteps))
    shifted = []
    for row, t in enumerate(timesteps):
        id_in_range("timesteps", row, t, 0, total)
        sign = 1 if _is_later(seed, step, first_row + row) else -1
        shifted.append(min(max(t + sign * distance, 0), total - 1))
    return shifted


def draw_timesteps(total: int, rows: int, *, seed: int, step: int, first_row: int = 0) -> list[int]:
    """The definition of `lmcore.ops.schedule.draw_timesteps`, with the same arguments.

    Example:
        >>> draw_timesteps(1, 3, seed=0, step=0)
        [0, 0, 0]
    """
    total = check_total(total)
    _check_rows(first_row, rows)
    numbers = range(first_row, first_row + rows)
    return [random_below(seed, Stream.TIMESTEPS, step, row, total) for row in numbers]


class LossAwareSampler:
    """The definition of `lmcore.ops.schedule.LossAwareSampler`: a list of losses a timestep.

    Source: improved diffusion, the sampler by second moments, as DiffuSeq has it.
    """

    def __init__(self, total: int, *, history: int = 10, uniform_share: float = 0.001) -> None:
        self.losses: list[list[float]] = [[] for _ in range(total)]
        self.length, self.uniform_share = history, uniform_share

    def draw(
        self, rows: int, *, seed: int, step: int, first_row: int = 0
    ) -> tuple[list[int], list[float]]:
        """Returns timesteps, and the weights of their losses."""
        total, p = len(self.losses), self.weigh()
        if p is None:
            drawn = draw_timesteps(total, rows, seed=seed, step=step, first_row=first_row)
            return drawn, [1.0] * rows
        _check_rows(first_row, rows)
        sums = list(accumulate(p))
        timesteps = []
        for row in range(first_row, first_row + rows):
            number = random_uniform(seed, Stream.TIMESTEPS, step, row) * sums[-1]
            timesteps.append(next((t for t, s in enumerate(sums) if number < s), total - 1))
        return timesteps, [1 / (total * (p[t] / sums[-1])) for t in timesteps]

    def update(self, timesteps: Sequence[int], losses: Sequence[float]) -> None:
        """Adds losses in their order; a full list loses its oldest."""
        same_length(timesteps=timesteps, losses=losses)
        for row, (t, loss) in enumerate(zip(timesteps, losses, strict=True)):
            id_in_range("timesteps", row, t, 0, len(self.losses))
            if not abs(loss) <= LARGEST_LOSS:
                raise ValueError(
                    f"losses[{row}] must be at least -1e150 and at most 1e150: got {loss!r}"
                )
        for t, loss in zip(timesteps, losses, strict=True):
            self.losses[t] = [*self.losses[t], float(loss)][-self.length :]

    def weigh(self) -> list[float] | None:
        """Returns how likely each timestep is, None while some list is not full."""
        if any(len(losses) < self.length for losses in self.losses):
            return None
        w = [math.sqrt(_sum(loss * loss for loss in h) / self.length) for h in self.losses]
        total, alike = _sum(w), 1 / len(w)
        shares = [weight / total if total > 0 else alike for weight in w]
        return [p * (1 - self.uniform_share) + self.uniform_share * alike for p in shares]


def _line(first: float, last: float, count: int) -> list[float]:
    width = (last - first) / max(count - 1, 1)
    return [last if 0 < k == count - 1 else k * width + first for k in range(count)]


def _ratios(a: Callable[[float], float], count: int) -> list[float]:
    products = [a(k / count) for k in range(count + 1)]
    pairs = pairwise(products)
    return [min(1 - after / before, _LARGEST_BETA) for before, after in pairs]


def _check_betas(betas: Sequence[float], name: str = "betas") -> Sequence[float]:
    in_range("the length of betas", len(betas), 1, most=MOST_STEPS)
    for index, beta in enumerate(betas):
        if not 0 < beta < 1:
            raise ValueError(f"{name}[{index}] must be above 0 and below 1: got {float(beta)!r}")
    return betas


def _cumulate(betas: Sequence[float], name: str = "betas") -> list[float]:
    """Returns the cumulative products of 1 - beta: below 1, and not so small that they vanish."""
    products = list(accumulate((1 - beta for beta in _check_betas(betas, name)), mul))
    for index, product in enumerate(products):
        if not _LEAST <= product < 1:
            raise ValueError(
                f"{name}[{index}] must leave a product of 1 - beta that is at least 2**-1022 and "
                f"below 1: got {product!r}"
            )
    return products


def _check_rows(first_row: int, rows: int) -> None:
    in_range("first_row", first_row, 0, most=_ROWS - rows)


def _is_later(seed: int, step: int, row: int) -> bool:
    return random_below(seed, Stream.NEIGHBOURS, step, 2 * row, 2) == 1


def _sum(values: Iterable[float]) -> float:
    """Returns the sum from the first to the last: `sum` is more exact in newer Pythons."""
    total = 0.0
    for value in values:
        total += value
    return total
