"""Launches of every kernel, on tensors without memory: what `compile_kernels.py` compiles.

A kernel adds a function of its name, which calls its host functions on tensors of `empty` in the
types and the kinds of arguments that matter: each launch is another piece of code.  Shapes are
those that the kernel is made for, but few: a compilation takes a second for each device.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

LAUNCHES: dict[str, Callable[[], None]] = {}


def register(function: Callable[[], None]) -> Callable[[], None]:
    """Puts a function that launches a kernel in the list, under its name."""
    LAUNCHES[function.__name__] = function
    return function


def empty(*shape: int, dtype: torch.dtype = torch.bfloat16) -> Tensor:
    """Returns a tensor without memory: its address counts as aligned."""
    return torch.empty(shape, dtype=dtype, device="meta")


@register
def nearest_embedding() -> None:
    """With a mask in bf16 and without one in fp32, and with embeddings that come in parts."""
    from lmcore.kernels.nearest_embedding import find_nearest

    mask = empty(16_384, dtype=torch.bool)
    find_nearest(empty(16_384, 128), empty(30_522, 128), mask)
    wide = torch.float32
    find_nearest(empty(16_384, 128, dtype=wide), empty(30_522, 128, dtype=wide), None)
    find_nearest(empty(16_384, 768), empty(30_522, 768), None)


@register
def pruning_mask() -> None:
    """A layer of 4,096 x 11,008 with fixed gates of groups of 64, 8 and 1, and with soft ones."""
    from lmcore.kernels import _gated_launches as gated

    tokens, outputs, inputs = 4096, 11_008, 4096
    x, weight, bias = empty(tokens, inputs), empty(outputs, inputs), empty(outputs)
    dy = empty(tokens, outputs)
    plain = [gated.make_axis(None, size, x.dtype) for size in (outputs, inputs)]
    kinds = [(64, torch.bool), (8, torch.bool), (1, torch.bool), (64, torch.float32)]
    for group, dtype in kinds:
        gates = [empty(size // group, dtype=dtype) for size in (outputs, inputs)]
        own = [gated.make_axis(g, len(g) * group, x.dtype) for g in gates]
        soft = dtype.is_floating_point
        for o, i in ((own[0], plain[1]), (plain[0], own[1]), (own[0], own[1])):
            gated.multiply(x, weight, o, i, bias)
            gated.multiply(dy, weight.T, i, o)
            needs = (True, soft and o is own[0], soft and i is own[1])
            gated.differentiate_weight(dy, x, weight, o, i, needs=needs)
    swiglu(gated, empty(outputs // 64, dtype=torch.bool))
    swiglu(gated, empty(outputs // 64, dtype=torch.float32))
    wide = [empty(512, 512, dtype=torch.float32) for _ in range(2)]
    axis = gated.make_axis(empty(8, dtype=torch.float32), 512, torch.float32)
    gated.multiply(*wide, axis, axis)
    gated.differentiate_weight(*wide, wide[0], axis, axis, needs=(True, True, True))
    index = empty(512, dtype=torch.int64)
    gated.gather(weight, index, index, empty(512, 512))


def swiglu(gated: Any, gate: Tensor) -> None:
    """Launches of a SwiGLU layer whose inner units have a gate, forward and backward."""
    tokens, inner, hidden = 4096, 11_008, 4096
    e, parts = gated.make_axis(gate, inner, torch.bfloat16), 2
    halves = gated.make_axis(gate if e.order is not None else None, 2 * inner, None, parts)
    plain = gated.make_axis(None, hidden, torch.bfloat16)
    x, weight_in, weight_out = (
        empty(*shape) for shape in ((tokens, hidden), (2 * inner, hidden), (hidden, inner))
    )
    units, both = gated.multiply_swiglu(x, weight_in, e, plain, None, keep=True)
    gated.multiply(units, weight_out, plain, e, packed_a=True)
    units = gated.multiply(x, weight_out.T, e, plain, packed_c=True)
    dz = gated.differentiate_swiglu(both, units, e)
    needs = (True, False, e.factors is not None)
    gated.differentiate_weight(x, units, weight_out, plain, e, needs=needs, packed_i=True)
    gated.differentiate_weight(
        dz, x, weight_in, halves, plain, needs=(True, False, False), packed_o=True
    )
    gated.multiply(dz, weight_in.T, plain, halves, packed_a=True)
