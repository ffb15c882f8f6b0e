"""Noise schedules of diffusion models, their coefficients, and the timesteps of a batch.

What is made once for a model, its kept timesteps and their coefficients, is made in Python and
numpy, where it takes less than a tenth of a millisecond; betas, neighbours and what is drawn for
each batch come from the core.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from lmcore import _core
from lmcore.ops._loss_aware import ROWS, LossAwareSampler, TimestepDraw, check_batch
from lmcore.reference import _spacing
from lmcore.reference._arguments import (
    as_float,
    as_floats,
    as_integers,
    check_int,
    in_range,
    one_of,
)
from lmcore.reference._coefficients import Coefficients
from lmcore.reference._spacing import ADAPTIVE_DECAY, MOST_STEPS
from lmcore.reference.schedule import LARGEST_LOSS, SCHEDULES

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "ADAPTIVE_DECAY",
    "LARGEST_LOSS",
    "MOST_STEPS",
    "SCHEDULES",
    "Coefficients",
    "LossAwareSampler",
    "NoiseNeighbours",
    "TimestepDraw",
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

_LEAST = np.finfo(np.float64).tiny


class NoiseNeighbours(NamedTuple):
    """For each timestep the farthest ones whose noise is similar, `[T]` int64 each."""

    up: NDArray[np.int64]
    """The latest one, or -1 where all later ones are as similar."""
    down: NDArray[np.int64]
    """The earliest one, or -1 where all earlier ones are as similar."""


def make_betas(name: str, steps: int) -> NDArray[np.float64]:
    """Returns the betas of a schedule: how much of a latent each timestep replaces by noise.

    Source: Diffusion-LM (arXiv 2205.14217), `sqrt`; Nichol and Dhariwal (arXiv 2102.09672),
    `cosine`; Ho et al. (arXiv 2006.11239), `linear`; the others from the code of Diffusion-LM.

    Args:
        name: `linear`, `cosine`, `sqrt`, `trunc_cos`, `trunc_lin` or `pw_lin`.
        steps: T, from 1 to 2**24; at least 21 for `linear` and `pw_lin`, whose betas reach 1 with
            fewer, and at most 9,999 for `sqrt`, of which no signal is left before the last
            timestep with more.

    Returns:
        `[T]` float64, above 0 and below 1.

    Raises:
        TypeError: `steps` is no int.
        ValueError: another name, or `steps` is out of its range.

    Example:
        >>> make_betas("sqrt", 2000)[[0, 1, 1999]].round(8)
        array([0.01464131, 0.00888909, 0.999     ])
    """
    one_of("name", name, tuple(SCHEDULES))
    least, most = SCHEDULES[name]
    return _core.make_betas(name, check_int("steps", steps, least, most=most))


def space_timesteps(total: int, spec: str | Sequence[int]) -> NDArray[np.int64]:
    """Returns the timesteps that a specification keeps, exactly as the authors' code does.

    `adp_N` is Adaptive Decay Sampling. It has the authors' fault: with N below 4 the last timestep,
    at which sampling starts from noise, is not kept, and `adp_1` keeps two. `adaptive_timesteps`
    has no such fault. `x2_N` is denser at much noise by a square, and keeps fewer than N where
    several fall on one; `ddimN` is a stride from 0. Counts stand for sections of equal length, of
    which each but the last loses its last point: `[1, 1, 1]` keeps one timestep.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), its `space_timesteps`.

    Args:
        total: T, from 1 to 2**24.
        spec: `adp_N`, `x2_N`, `ddimN`, counts as in `10,20`, or a list of counts.

    Returns:
        `[N]` int64, ascending. A list of timesteps themselves goes to `order_timesteps`.

    Raises:
        TypeError: a count is no int.
        ValueError: another specification, N out of range, more points than a section has
            timesteps, or a stride that no N timesteps have.

    Example:
        >>> space_timesteps(2000, "adp_5"), space_timesteps(2000, "adp_2")
        (array([   0,  667, 1000, 1334, 1999]), array([  0, 667]))
    """
    return np.array(_spacing.space_timesteps(total, spec), np.int64)


def adaptive_timesteps(
    total: int, steps: int, proportions: Sequence[float] = ADAPTIVE_DECAY
) -> list[int]:
    """Returns timesteps for sampling, the noisiest first, shared among sections of equal length.

    The last timestep T - 1 is always kept, and there are `steps` of them. From 4 steps on and with
    the default proportions these are the timesteps of `adp_N`, which `space_timesteps` has as the
    authors do. Schedulers of diffusers take this list as `timesteps`.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), Adaptive Decay Sampling.

    Args:
        total: T, from 1 to 2**24.
        steps: N, at least 1 and at most T.
        proportions: what share of the steps each section gets, from the least noise to the most;
            1 in sum, and at most T of them. Each gets one step at least if there are enough, and
            the last one, which has the most noise, in any case.

    Raises:
        TypeError: `total` or `steps` is no int.
        ValueError: an argument is out of its range, or a section has more steps than timesteps.

    Example:
        >>> adaptive_timesteps(2000, 5), adaptive_timesteps(2000, 2)
        ([1999, 1334, 1000, 667, 0], [1999, 667])
        >>> adaptive_timesteps(1000, 4, [0.25, 0.75])
        [999, 750, 500, 0]
    """
    return _spacing.adaptive_timesteps(total, steps, proportions)


def order_timesteps(total: int, timesteps: ArrayLike) -> NDArray[np.int64]:
    """Returns any timesteps in ascending order, after a look at each.

    Args:
        total: T, from 1 to 2**24.
        timesteps: `[N]` integers in any order.

    Raises:
        IndexError: a timestep is not below T.
        TypeError: timesteps that are no integers.
        ValueError: a timestep stands there twice, or there is none.

    Example:
        >>> order_timesteps(2000, [1999, 0, 700])
        array([   0,  700, 1999])
    """
    size, given = _spacing.check_total(total), as_integers("kept", timesteps, "[N]")
    in_range("the length of kept", len(given), 1, most=size)
    return np.array(_spacing.order_timesteps(size, given.tolist()), np.int64)


def space_betas(betas: ArrayLike, kept: ArrayLike) -> NDArray[np.float64]:
    """Returns the betas of a process that goes from one kept timestep to the next.

    Source: Nichol and Dhariwal (arXiv 2102.09672), section 4: 1 - a[t_k] / a[t_(k - 1)] of the
    cumulative products a.

    Args:
        betas: `[T]`, above 0 and below 1.
        kept: `[N]` integers, timesteps in any order, each once.

    Returns:
        `[N]` float64, from little to much noise.

    Raises:
        IndexError: a timestep is not below T.
        TypeError: `kept` are no integers.
        ValueError: a beta is out of its range, or a timestep stands there twice.

    Example:
        >>> space_betas(make_betas("sqrt", 2000), [0, 667, 1334, 1999]).round(6)
        array([0.014641, 0.567418, 0.566497, 0.999999])
    """
    a = _cumulate(as_floats("betas", betas, "[T]"))
    return _space(a, order_timesteps(len(a), kept))


def make_coefficients(betas: ArrayLike, kept: ArrayLike | None = None) -> Coefficients:
    """Returns what a process of diffusion computes with, for all timesteps or for kept ones.

    Source: Ho et al. (arXiv 2006.11239), equations 4 and 7; Nichol and Dhariwal
    (arXiv 2102.09672), section 4.

    Args:
        betas: `[T]`, above 0 and below 1.
        kept: `[N]` integers, timesteps in any order, each once; None for all.

    Raises:
        IndexError: a timestep is not below T.
        TypeError: `kept` are no integers.
        ValueError: a beta is out of its range, betas leave nothing of 1 - beta in product, or a
            timestep stands there twice.

    Example:
        >>> c = make_coefficients(make_betas("sqrt", 2000), adaptive_timesteps(2000, 4))
        >>> c.timesteps, c.betas.round(3), c.total
        (array([   0,  667, 1334, 1999]), array([0.015, 0.567, 0.566, 1.   ]), 2000)
    """
    b = as_floats("betas", betas, "[T]")
    total, timesteps, a = len(b), np.arange(len(b)), _cumulate(b)
    if kept is not None:
        timesteps = order_timesteps(total, kept)
        b = _space(a, timesteps)
        a = _cumulate(b, "spaced betas")
    before = np.concatenate([[1.0], a[:-1]])
    rest = 1 - a
    variance = b * (1 - before) / rest
    # The first one is 0, and has no logarithm.
    clipped = np.concatenate([variance[1:2] if len(b) > 1 else b, variance[1:]])
    return Coefficients(
        total=total,
        timesteps=timesteps,
        betas=b,
        alphas_cumprod=a,
        alphas_cumprod_prev=before,
        sqrt_alphas_cumprod=np.sqrt(a),
        sqrt_one_minus_alphas_cumprod=np.sqrt(rest),
        sqrt_recip_alphas_cumprod=np.sqrt(1 / a),
        sqrt_recipm1_alphas_cumprod=np.sqrt(1 / a - 1),
        posterior_mean_coef1=b * np.sqrt(before) / rest,
        posterior_mean_coef2=(1 - before) * np.sqrt(1 - b) / rest,
        posterior_variance=variance,
        posterior_log_variance_clipped=np.log(clipped),
        fixed_large_variance=np.concatenate([clipped[:1], b[1:]]),
    )


def find_neighbours(betas: ArrayLike, tolerance: float = 0.05) -> NoiseNeighbours:
    """Returns the farthest timesteps whose noise, sqrt(1 - a), differs by no more than a tolerance.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), `fill_noise_map`.

    Args:
        betas: `[T]`, above 0 and below 1.
        tolerance: finite and above 0.

    Raises:
        ValueError: a beta or the tolerance is out of its range.

    Example:
        >>> near = find_neighbours(make_betas("sqrt", 2000))
        >>> near.up[[0, 10, 400, 1999]], near.down[[0, 10, 400]]
        (array([  1,  19, 531,  -1]), array([ -1,   5, 295]))
    """
    found = _core.find_neighbours(
        as_floats("betas", betas, "[T]"), as_float("tolerance", tolerance)
    )
    return NoiseNeighbours(*found)


def draw_neighbours(
    timesteps: ArrayLike,
    neighbours: NoiseNeighbours,
    *,
    seed: int,
    step: int,
    far: bool = False,
    first_row: int = 0,
) -> NDArray[np.int64]:
    """Returns a neighbour by noise of each timestep, later or earlier with equal chance.

    It is one of the window, all as likely, and never the timestep itself; where the window is
    empty or has no entry, it is the timestep itself, and Distance Penalty leaves the row out.
    A draw depends on (seed, step, row) alone.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), `make_t_similar_by_noise`.

    Args:
        timesteps: `[B]` integers below T.
        neighbours: of `find_neighbours`.
        seed: below 2**64.
        step: of the training, below 2**64.
        far: take the far end of the window instead (`l2_noise`).
        first_row: of the whole batch, where a process has a share of it; rows are below 2**32.

    Returns:
        `[B]` int64.

    Raises:
        IndexError: a timestep, or an entry of the neighbours, is out of its range.
        TypeError: timesteps that are no integers.
        ValueError: an argument is out of its range.

    Example:
        >>> near = find_neighbours(make_betas("sqrt", 2000))
        >>> draw_neighbours([0, 400, 400], near, seed=1, step=0, far=True)
        array([  1, 531, 295])
    """
    up, down = neighbours
    return _core.draw_neighbours(
        as_integers("timesteps", timesteps, "[B]"),
        as_integers("up", up, "[T]"),
        as_integers("down", down, "[T]"),
        bool(far),
        *check_batch(seed, step, first_row),
    )


def shift_timesteps(
    timesteps: ArrayLike,
    total: int,
    distance: int = 10,
    *,
    seed: int,
    step: int,
    first_row: int = 0,
) -> NDArray[np.int64]:
    """Returns the timesteps `distance` later or earlier, with equal chance.

    None goes farther than the ends, 0 and T - 1.

    Distance Penalty of kind `l2` leaves rows out that come to 0 or T - 1. A draw depends on
    (seed, step, row) alone.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), its code.

    Args:
        timesteps: `[B]` integers below T.
        total: T, from 1 to 2**24.
        distance: from 0 to 2**24.
        seed: below 2**64.
        step: of the training, below 2**64.
        first_row: of the whole batch, where a process has a share of it; rows are below 2**32.

    Returns:
        `[B]` int64.

    Raises:
        IndexError: a timestep is not below T.
        TypeError: timesteps that are no integers.
        ValueError: an argument is out of its range.

    Example:
        >>> shift_timesteps([5, 400, 400], 2000, seed=1, step=0)
        array([ 15, 410, 390])
    """
    return _core.shift_timesteps(
        as_integers("timesteps", timesteps, "[B]"),
        _spacing.check_total(total),
        check_int("distance", distance, 0, most=MOST_STEPS),
        *check_batch(seed, step, first_row),
    )


def draw_timesteps(
    total: int, rows: int, *, seed: int, step: int, first_row: int = 0
) -> NDArray[np.int64]:
    """Returns timesteps for the rows of a batch, all as likely.

    A draw depends on (seed, step, row) alone.

    Args:
        total: T, from 1 to 2**24.
        rows: B.
        seed: below 2**64.
        step: of the training, below 2**64.
        first_row: of the whole batch, where a process has a share of it; rows are below 2**32.

    Returns:
        `[B]` int64.

    Raises:
        MemoryError: so many rows do not fit.
        TypeError: an argument is no int.
        ValueError: an argument is out of its range.

    Example:
        >>> whole = draw_timesteps(2000, 4, seed=1, step=7)
        >>> bool((whole[2:] == draw_timesteps(2000, 2, seed=1, step=7, first_row=2)).all())
        True
    """
    batch = check_batch(seed, step, first_row)
    rows = check_int("rows", rows, 0, most=ROWS)
    return _core.draw_timesteps(_spacing.check_total(total), rows, *batch)


def _cumulate(betas: NDArray[np.float64], name: str = "betas") -> NDArray[np.float64]:
    """Returns the cumulative products of 1 - beta: below 1, and not so small that they vanish."""
    in_range("the length of betas", len(betas), 1, most=MOST_STEPS)
    inside = (betas > 0) & (betas < 1)
    if not inside.all():
        index = int(inside.argmin())
        got = float(betas[index])
        raise ValueError(f"{name}[{index}] must be above 0 and below 1: got {got!r}")
    products: NDArray[np.float64] = np.multiply.accumulate(1 - betas)
    inside = (products >= _LEAST) & (products < 1)
    if not inside.all():
        index = int(inside.argmin())
        raise ValueError(
            f"{name}[{index}] must leave a product of 1 - beta that is at least 2**-1022 and "
            f"below 1: got {float(products[index])!r}"
        )
    return products


def _space(products: NDArray[np.float64], kept: NDArray[np.int64]) -> NDArray[np.float64]:
    chosen = products[kept]
    spaced: NDArray[np.float64] = 1 - chosen / np.concatenate([[1.0], chosen[:-1]])
    return spaced
