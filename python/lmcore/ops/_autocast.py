"""What autocast does to operators of our own: what it does to products of matrices."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_autocast(device: torch.device) -> bool:
    """Returns whether autocast holds for a device.

    Args:
        device: of the tensors.

    Example:
        >>> is_autocast(torch.device("cpu"))
        False
    """
    return torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a block without autocast: a definition says itself what it computes in.

    Args:
        device: of the tensors.

    Example:
        >>> with without_autocast(torch.device("cpu")):
        ...     pass
    """
    return torch.autocast(device.type, enabled=False) if is_autocast(device) else nullcontext()


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
    if not (known and is_autocast(first.device)):
        return first, second
    dtype = torch.get_autocast_dtype(first.device.type)
    return first.to(dtype), second.to(dtype)
