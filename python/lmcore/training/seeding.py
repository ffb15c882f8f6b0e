"""Where random numbers of a run begin."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from lmcore.ops.philox import Stream, random_bits

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def seed_torch(seed: int, step: int = 0, data_rank: int = 0) -> int:
    """Returns the seed that torch's generators, of all devices, were set to.

    It is a function of the arguments. A run that calls this before each step needs no saved state
    of a generator: whichever step it goes on with sees the numbers of an unbroken run.

    Args:
        seed: of the run, below 2**64.
        step: 0 for what comes before training, such as a model's first weights; below 2**40.
        data_rank: which part of a batch this process computes, below 2**20.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import torch
        >>> first = seed_torch(1), torch.rand(1).item()
        >>> first == (seed_torch(1), torch.rand(1).item())
        True
    """
    for name, value, bits in (("step", step, 40), ("data_rank", data_rank, 20)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must be at least 0 and below 2**{bits}: got {value}")
    value = int(random_bits(seed, Stream.TORCH_SEEDS, (step << 20) | data_rank, 1)[0])
    _seed_generators()(value)
    return value


@functools.cache
def _seed_generators() -> Callable[[int], object]:
    """What seeds all generators; where there is only the CPU's, in a hundredth of the time."""
    import torch

    others = (torch.cuda, torch.xpu, torch.mps)
    if any(module.is_available() for module in others if hasattr(module, "is_available")):
        return torch.manual_seed
    return torch.default_generator.manual_seed


def permute(seed: int, epoch: int, count: int) -> NDArray[np.int64]:
    """Returns a permutation of 0 to `count` - 1, each equally likely: the order of examples.

    Args:
        seed: below 2**64.
        epoch: which pass over the examples it is, below 2**64.
        count: how many there are.

    Returns:
        `[count]` int64, a function of the arguments.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> sorted(permute(seed=1, epoch=0, count=3).tolist())
        [0, 1, 2]
    """
    # Keys of 64 bits are equal with a probability of count**2 / 2**65.
    return random_bits(seed, Stream.ORDERS, epoch, count).argsort(kind="stable")
