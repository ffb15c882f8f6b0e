"""Tensors among the arguments of functions that need no torch."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

if TYPE_CHECKING:
    import torch


def is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    """Returns whether this is a tensor: without torch there are none.

    Args:
        value: anything.

    Example:
        >>> is_tensor([1])
        False
    """
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_host(value: Any) -> Any:
    """Returns a tensor as an array, on its memory where that is the host's; all else as it is.

    Args:
        value: a tensor of any device, or anything.

    Example:
        >>> import torch
        >>> to_host(torch.tensor([1, 2])).tolist(), to_host([1, 2])
        ([1, 2], [1, 2])
    """
    return value.detach().cpu().numpy() if is_tensor(value) else value
