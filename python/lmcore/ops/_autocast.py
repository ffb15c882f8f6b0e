"""Types under autocast, for operators that it does not know."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def cast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Returns the factors of products in the type of autocast, where it holds and knows theirs.

    Args:
        tensors: of any shape, on one device, at least one.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16):
        ...     cast(torch.ones(1), torch.ones(1))[0].dtype
        torch.bfloat16
    """
    kinds = (tensor.dtype for tensor in tensors)
    device = tensors[0].device
    if not _holds(device) or not all(
        kind.is_floating_point and kind != torch.float64 for kind in kinds
    ):
        return tensors
    dtype = torch.get_autocast_dtype(device.type)
    return tuple(tensor.to(dtype) for tensor in tensors)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Returns a context in which torch computes in the types of its tensors.

    Args:
        device: of the tensors.

    Example:
        >>> x = torch.ones(2, 2)
        >>> with torch.autocast("cpu"), without_autocast(x.device):
        ...     (x @ x).dtype
        torch.float32
    """
    return torch.autocast(device.type, enabled=False) if _holds(device) else nullcontext()


def _holds(device: torch.device) -> bool:
    kind = device.type
    return torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
