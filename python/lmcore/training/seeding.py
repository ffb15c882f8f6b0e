"""Where random numbers of a run begin."""

from __future__ import annotations

from lmcore.ops.philox import Stream, random_bits


def seed_torch(seed: int, epoch: int = 0, rank: int = 0) -> int:
    """Returns the seed that torch's generators, of all devices, were set to.

    It is a function of the arguments. A run that calls this at the start of each epoch needs no
    saved state of a generator: a resumed epoch sees the same numbers as an unbroken one.

    Args:
        seed: of the run, below 2**64.
        epoch: 0 for what comes before training, such as a model's first weights; below 2**40.
        rank: of the process, below 2**20.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> import torch
        >>> first = seed_torch(1), torch.rand(1).item()
        >>> first == (seed_torch(1), torch.rand(1).item())
        True
    """
    import torch

    for name, value, bits in (("epoch", epoch, 40), ("rank", rank, 20)):
        if not 0 <= value < 1 << bits:
            raise ValueError(f"{name} must be at least 0 and below 2**{bits}: got {value}")
    value = int(random_bits(seed, Stream.TORCH_SEEDS, (epoch << 20) | rank, 1)[0])
    torch.manual_seed(value)
    return value
