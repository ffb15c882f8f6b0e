"""Inputs of attention, and its ways side by side."""

import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor

from lmcore.ops._dispatch import use
from lmcore.ops.attention import attention

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
NEEDS_TRITON = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
WAYS = ["core", "reference", pytest.param("kernel", marks=NEEDS_TRITON)]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator).to(dtype)


def make_heads(
    rows: int, heads: int, groups: int, queries: int, keys: int, size: int,
    seed: int = 0, dtype: torch.dtype = torch.float32,
) -> list[Tensor]:  # fmt: skip
    """Query, key and value."""
    shapes = [(heads, queries), (groups, keys), (groups, keys)]
    return [
        draw(rows, *shape, size, seed=seed + place, dtype=dtype)
        for place, shape in enumerate(shapes)
    ]


def make_rope(places: int, size: int) -> tuple[Tensor, Tensor]:
    angles = torch.arange(places)[:, None] * 100.0 ** (-torch.arange(0, size, 2) / size)
    angles = torch.cat([angles, angles], 1)
    return angles.cos(), angles.sin()


def run(way: Any, *tensors: Tensor, **options: Any) -> Tensor:
    """The output, on the CPU."""
    device = GPU if way == "kernel" else torch.device("cpu")
    moved = {name: move(option, device) for name, option in options.items()}
    with use(way):
        found = attention(*(tensor.to(device) for tensor in tensors), **moved)
    assert found.shape == tensors[0].shape
    assert found.dtype == tensors[0].dtype
    return found.cpu()


def move(option: Any, device: torch.device) -> Any:
    if isinstance(option, tuple):
        return tuple(part.to(device) for part in option)
    return option.to(device) if isinstance(option, Tensor) else option


def differentiate(
    way: Any, *tensors: Tensor, seed: int = 9, **options: Any
) -> dict[str, Tensor | None]:
    """The output and all gradients of a random sum of it."""
    names = ["query", "key", "value"]
    leaves = {
        name: tensor.detach().clone().requires_grad_()
        for name, tensor in [*zip(names, tensors, strict=True), *options.items()]
        if isinstance(tensor, Tensor) and tensor.is_floating_point()
    }
    out = run(way, *(leaves[name] for name in names), **(options | {
        name: leaf for name, leaf in leaves.items() if name not in names
    }))  # fmt: skip
    weights = draw(*out.shape, seed=seed, dtype=out.dtype)
    gradients = torch.autograd.grad(out, list(leaves.values()), weights)
    return {"out": out.detach(), **dict(zip(leaves, gradients, strict=True))}
