"""Timesteps of a batch that are drawn by their losses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from lmcore import _core
from lmcore.reference._arguments import as_float, as_floats, as_integers, check_int
from lmcore.reference._spacing import MOST_STEPS, check_total
from lmcore.reference.schedule import LARGEST_LOSS

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

# Rows of a batch are below.
ROWS = 1 << 32


class TimestepDraw(NamedTuple):
    """Timesteps that a batch is trained at, and the weights of their losses."""

    timesteps: NDArray[np.int64]
    """`[B]` int64."""
    weights: NDArray[np.float64]
    """`[B]` float64, 1 / (T p): the mean of weighted losses is that of timesteps drawn alike."""


class LossAwareSampler:
    """Timesteps that are drawn the more often the larger their losses were.

    Each timestep has a history of its last losses. Until all histories are full, timesteps are
    drawn alike. Then p is in proportion to the root of the mean squared loss, mixed with a share of
    all timesteps alike; weights 1 / (T p) keep the expected loss. Where all losses are 0,
    timesteps are drawn alike.

    Several processes hold a sampler each. Each draws the rows of its share by `first_row`; then
    timesteps and losses of all are gathered in the order of the rows, and every process updates
    with the whole: all hold the same state, whatever their number. A draw depends on (seed, step,
    row) and that state alone.

    Source: Nichol and Dhariwal (arXiv 2102.09672), section 3.3, as DiffuSeq has it.

    Args:
        total: T, from 1 to 2**24.
        history: H, losses that are kept of each timestep, from 1 to 2**24.
        uniform_share: what share of the draws is of all timesteps alike, from 0 to 1.

    Raises:
        MemoryError: histories do not fit.
        TypeError: `total` or `history` is no int.
        ValueError: an argument is out of its range.

    Example:
        >>> sampler = LossAwareSampler(2, history=1)
        >>> sampler.update([0, 1], [3.0, 1.0])
        >>> sampler.weigh()
        array([0.74975, 0.25025])
    """

    def __init__(self, total: int, *, history: int = 10, uniform_share: float = 0.001) -> None:
        self.total, self.uniform_share = check_total(total), _check_share(uniform_share)
        length = check_int("history", history, 1, most=MOST_STEPS)
        self._history = np.zeros((self.total, length))
        self._counts = np.zeros(self.total, np.int64)

    def weigh(self) -> NDArray[np.float64] | None:
        """Returns how likely each timestep is, `[T]` float64; None while histories fill.

        Example:
            >>> LossAwareSampler(2000).weigh() is None
            True
        """
        return _core.weigh_timesteps(self._history, self._counts, self.uniform_share)

    def draw(self, rows: int, *, seed: int, step: int, first_row: int = 0) -> TimestepDraw:
        """Returns timesteps for the rows of a batch, and the weights of their losses.

        Args:
            rows: B.
            seed: below 2**64.
            step: of the training, below 2**64.
            first_row: of the whole batch, where a process has a share of it; rows are below
                2**32.

        Raises:
            MemoryError: so many rows do not fit.
            TypeError: an argument is no int.
            ValueError: an argument is out of its range.

        Example:
            >>> LossAwareSampler(2000).draw(2, seed=1, step=0).weights
            array([1., 1.])
        """
        batch = check_batch(seed, step, first_row)
        rows = check_int("rows", rows, 0, most=ROWS)
        return TimestepDraw(
            *_core.draw_by_loss(self._history, self._counts, self.uniform_share, rows, *batch)
        )

    def update(self, timesteps: ArrayLike, losses: ArrayLike) -> None:
        """Adds losses in their order; a full history loses its oldest.

        Args:
            timesteps: `[B]` integers below T.
            losses: `[B]` numbers of at most 1e150 in size, not yet weighted.

        Raises:
            IndexError: a timestep is not below T; nothing was added.
            TypeError: timesteps that are no integers, or losses that are no numbers.
            ValueError: other lengths, or a loss that is NaN or too large; nothing was added.

        Example:
            >>> LossAwareSampler(2000).update([7, 7], [0.5, 0.25])
        """
        given = as_integers("timesteps", timesteps, "[B]"), as_floats("losses", losses, "[B]")
        _core.add_losses(self._history, self._counts, *given)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Returns copies of all that the sampler holds.

        `history` is `[T, H]` float64, the oldest loss first and zeros behind the last; `counts` is
        `[T]` int64, how many losses each has. The share is a setting, and not in it.

        Example:
            >>> sorted(LossAwareSampler(2000).state_dict())
            ['counts', 'history']
        """
        return {"history": self._history.copy(), "counts": self._counts.copy()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Replaces all that the sampler holds.

        Args:
            state: what `state_dict` returned, of as many timesteps and as long a history.

        Raises:
            TypeError: `state` is no mapping of arrays of numbers.
            ValueError: arrays are missing, have another shape, or hold what is no state.

        Example:
            >>> sampler = LossAwareSampler(2000)
            >>> sampler.load_state_dict(LossAwareSampler(2000).state_dict())
        """
        self._history, self._counts = _check_state(state, *self._history.shape)


def check_batch(seed: int, step: int, first_row: int) -> tuple[int, int, int]:
    """Returns what a draw depends on but for its row, each in its range.

    Args:
        seed: below 2**64.
        step: below 2**64.
        first_row: at most 2**32.

    Raises:
        TypeError: one of them is no int.
        ValueError: one of them is out of its range.

    Example:
        >>> check_batch(1, 2, 0)
        (1, 2, 0)
    """
    return (
        check_int("seed", seed, 0, 1 << 64),
        check_int("step", step, 0, 1 << 64),
        check_int("first_row", first_row, 0, most=ROWS),
    )


def _check_share(uniform_share: float) -> float:
    share = as_float("uniform_share", uniform_share)
    if not 0 <= share <= 1:
        raise ValueError(f"uniform_share must be at least 0 and at most 1: got {share!r}")
    return share


def _check_state(
    state: Mapping[str, ArrayLike], total: int, length: int
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Returns copies of a state's arrays, checked."""
    if not isinstance(state, Mapping):
        raise TypeError(f"state must be a mapping: got {type(state).__name__}")
    if set(state) != {"history", "counts"}:
        raise ValueError(f"state must hold history, counts: got {', '.join(map(str, state))}")
    history = as_floats("state['history']", state["history"], "[T, H]")
    counts = as_integers("state['counts']", state["counts"], "[T]")
    for name, array, shape in (("history", history, (total, length)), ("counts", counts, (total,))):
        if array.shape != shape:
            raise ValueError(
                f"state[{name!r}] must have the shape {list(shape)}: got {list(array.shape)}"
            )
    held = np.arange(length) < counts[:, None]
    tests = {
        f"counts must be at least 0 and at most {length}": (counts >= 0) & (counts <= length),
        "history must be at least -1e150 and at most 1e150": np.abs(history) <= LARGEST_LOSS,
        "history must be 0 where it holds no loss": held | (history == 0),
    }
    for rule, holds in tests.items():
        if not holds.all():
            raise ValueError(f"state: {rule}")
    return history.copy(), counts.copy()
