"""Launches of every kernel, on tensors without memory: what `compile_kernels.py` compiles.

A kernel adds a function of its name, which calls its host functions on tensors of `empty` in the
types and the kinds of arguments that matter: each launch is another piece of code.  Shapes are
those that the kernel is made for, but few: a compilation takes a second for each device.
"""

from __future__ import annotations

from collections.abc import Callable

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
    """A layer of 4,096 x 11,008 with fixed gates of 64, of 8 and of 1, and with soft ones."""
    from lmcore.kernels.pruning_mask import _masked_linear_backward as differentiate_linear
    from lmcore.kernels.pruning_mask import _masked_swiglu_backward as differentiate_swiglu
    from lmcore.kernels.pruning_mask import masked_linear, masked_swiglu, prune_columns

    x, weight = empty(4096, 4096), empty(11_008, 4096)
    bias, dy = empty(11_008), empty(4096, 11_008)
    for size in (64, 8, 1):
        fixed = [empty(features // size, dtype=torch.bool) for features in (11_008, 4096)]
        for gates in ((fixed[0], None), (None, fixed[1]), (fixed[0], fixed[1])):
            masked_linear(x, weight, None, *gates, 1)
            differentiate_linear(dy, x, weight, None, *gates, 1, [True] * 3 + [False] * 2)
    soft = [empty(features // 64, dtype=torch.float32) for features in (11_008, 4096)]
    for gates in ((soft[0], None), (None, soft[1]), (soft[0], soft[1])):
        masked_linear(x, weight, bias, *gates, 1)
        needs = [True] * 3 + [gate is not None for gate in gates]
        differentiate_linear(dy, x, weight, bias, *gates, 1, needs)
    weights = (empty(22_016, 4096), empty(4096, 11_008), None, None)
    for inner in (empty(172, dtype=torch.bool), empty(172, dtype=torch.float32)):
        masked_swiglu(x, *weights, inner, None, None, True)
        needs = [True] * 3 + [False] * 2 + [inner.is_floating_point()] + [False] * 2
        both = empty(4096, 22_016)
        differentiate_swiglu(x, both, x, *weights, inner, None, None, needs)
    wide = torch.float32
    masked_linear(empty(512, 512, dtype=wide), empty(512, 512, dtype=wide), None, soft[1], None, 1)
    prune_columns(weight, empty(512, dtype=torch.int64), empty(512, dtype=torch.int64))
