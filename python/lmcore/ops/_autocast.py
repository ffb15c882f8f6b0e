"""Types of products under autocast, for operators that it does not know."""

from __future__ import annotations

import torch
from torch import Tensor


def cast(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Returns both factors in the type of autocast, where it holds and knows their types.

    Args:
        first: of any shape.
        second: of any shape.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     cast(torch.ones(1), torch.ones(1))[0].dtype
        torch.bfloat16
    """
    kinds = (first.dtype, second.dtype)
    known = all(kind.is_floating_point and kind != torch.float64 for kind in kinds)
    device = first.device.type
    if not (
        known and torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    ):
        return first, second
    dtype = torch.get_autocast_dtype(device)
    return first.to(dtype), second.to(dtype)
