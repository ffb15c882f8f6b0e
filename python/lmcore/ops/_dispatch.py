"""What computes a function of tensors: the core, a kernel, or the definition in torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    import torch

Implementation: TypeAlias = Literal["core", "kernel", "reference"]

_used: ContextVar[Implementation | None] = ContextVar("used", default=None)


def choose(*tensors: torch.Tensor) -> Implementation:
    """Returns what computes these: where they are decides, unless `use` says it.

    `core` stands for tensors on the CPU, whose memory the compiled module reads; `kernel` for
    tensors on a CUDA device; `reference`, which is torch itself, for any other device. What has
    no core, or no kernel, takes its definition in their place.

    Args:
        tensors: at least one.

    Raises:
        ValueError: the tensors are on several devices.

    Example:
        >>> import torch
        >>> choose(torch.ones(2), torch.ones(3))
        'core'
    """
    devices = dict.fromkeys(tensor.device for tensor in tensors)
    if len(devices) != 1:
        got = ", ".join(map(str, devices)) or "no tensor"
        raise ValueError(f"tensors must be on one device: got {got}")
    (device,) = devices
    used = _used.get()
    if used is not None:
        return used
    if device.type == "cpu":
        return "core"
    return "kernel" if device.type == "cuda" else "reference"


@contextmanager
def use(name: Implementation) -> Iterator[None]:
    """Yields while `choose` returns this name: for tests and benches, which compare the ways.

    It holds for this thread, or this task, until the block ends.

    Args:
        name: `core`, `kernel` or `reference`.

    Raises:
        ValueError: another name.

    Example:
        >>> import torch
        >>> with use("reference"):
        ...     choose(torch.ones(2))
        'reference'
    """
    known = get_args(Implementation)
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}: got {name!r}")
    token = _used.set(name)
    try:
        yield
    finally:
        _used.reset(token)
