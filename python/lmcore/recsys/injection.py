"""What a step of mining trains on: negatives, and which of them are reversed.

Shape letters: B batch, L window length, N negatives per position, P valid positions, R reversed
negatives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore.ops._tensors import is_tensor
from lmcore.ops.false_negatives import Reversed

__all__ = ["Injection"]

Array: TypeAlias = Any
"""A numpy array or a torch tensor."""


@dataclass(slots=True, frozen=True)
class Injection:
    """What a step trains on; arrays are of the kind and on the device of the given negatives."""

    negatives: Array
    """`[B, L, N]` or `[P, N]`: the given array, or a new one for other devices than the CPU."""
    reversed_indices: Array
    """`[R]` int64: indices of the reversed negatives in the flattened negatives."""
    reversed: Reversed
    """The same as rows, positions, slots and counts, in numpy."""
    host_negatives: NDArray[Any]
    """The negatives in numpy."""

    @property
    def labels(self) -> Array:
        """`[B, L, 1 + N]` or `[P, 1 + N]` float32, made anew at each call.

        1 for the positive in column 0 (at padding too) and for the reversed negatives, else 0.
        """
        host = self.host_negatives
        shape = (*host.shape[:-1], host.shape[-1] + 1)
        indices = self.reversed.flat_indices(host.shape[-1]) + self.reversed.blocks + 1
        device = self.negatives.device if is_tensor(self.negatives) else None
        if device is None or device.type == "cpu":
            ones = np.zeros(shape, dtype=np.float32)
            ones[..., 0] = 1
            ones.reshape(-1)[indices] = 1
            if device is None:
                return ones
            import torch

            # Calls of torch cost more than writing so few numbers; the memory is shared.
            return torch.from_numpy(ones)
        import torch

        # Labels are made on their device: only the indices of the reversed ones cross.
        labels = torch.zeros(shape, dtype=torch.float32, device=device)
        labels[..., 0] = 1
        labels.view(-1).index_fill_(0, torch.from_numpy(indices).to(device), 1)
        return labels

    @property
    def reversed_count(self) -> int:
        """R."""
        return len(self.reversed)
