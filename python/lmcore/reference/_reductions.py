"""Losses of positions, summed up: what the definitions of losses share."""

from __future__ import annotations

from torch import Tensor

REDUCTIONS = ("mean", "sum", "none")


def reduce(losses: Tensor, counted: Tensor | None, reduction: str) -> Tensor:
    """Returns the mean or the sum over positions that count, or the losses as they are.

    Args:
        losses: `[P]`, 0 where a position does not count.
        counted: `[P]` bool, or None: all.
        reduction: one of `REDUCTIONS`.

    Example:
        >>> import torch
        >>> reduce(torch.tensor([4.0, 0.0]), torch.tensor([True, False]), "mean")
        tensor(4.)
    """
    if reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    # Of no positions it is NaN, as torch has it.
    return losses.mean() if counted is None else losses.sum() / counted.sum()


def check_reduction(reduction: str) -> None:
    """Checks the name of a reduction.

    Args:
        reduction: one of `REDUCTIONS`.

    Raises:
        ValueError: it is none.

    Example:
        >>> check_reduction("sum")
    """
    if reduction not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {', '.join(REDUCTIONS)}: got {reduction!r}")
