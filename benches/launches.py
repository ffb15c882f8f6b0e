"""Launches of every kernel, on tensors without memory: what `compile_kernels.py` compiles.

A kernel adds a function of its name, which calls its host functions on tensors of `empty` in the
types and the kinds of arguments that matter: each launch is another piece of code.  Shapes are
those that the kernel is made for, but few: a compilation takes a second for each device.
"""

from __future__ import annotations

import sys
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
def attention() -> None:
    """Forward and backward; with `--defaults` at two head sizes, since others take minutes."""
    from lmcore.kernels.rotation import rotate

    _attend(64, "all", torch.bfloat16)
    _attend(128, "causal", torch.bfloat16)
    tables = [empty(512, 64, dtype=torch.float32) for _ in range(2)]
    rotate(empty(8, 512, 16, 64).transpose(1, 2), *tables, 0, back=False)
    if "--defaults" in sys.argv[1:]:
        return
    for size, kind in ((64, "plain"), (80, "causal"), (256, "plain")):
        _attend(size, kind, torch.bfloat16)
    for size in (64, 128, 256):
        _attend(size, "causal", torch.float32)


def _attend(size: int, kind: str, dtype: torch.dtype) -> None:
    """`all` has a bias, a soft head mask and dropout: what is computed beside the products."""
    from lmcore.kernels.attention_backward import backward
    from lmcore.kernels.attention_forward import forward

    heads = empty(8, 512, 16, size, dtype=dtype).transpose(1, 2)
    sums = empty(8, 16, 512, dtype=torch.float32)
    is_all = kind == "all"
    mask = empty(8, 16, dtype=torch.float32) if is_all else None
    bias = empty(16, 1023, dtype=torch.float32) if is_all else None
    ranges = (None, None, None, empty(8, dtype=torch.int32))
    options = {
        "causal": kind == "causal", "scale": 0.1, "seed": 1, "keep": is_all,
        "dropout": 0.1 if is_all else 0.0,
    }  # fmt: skip
    forward(heads, heads, heads, ranges, mask, bias, **options)
    backward(
        heads, heads, heads, heads, heads, sums, heads, ranges, mask, bias, needs_bias=is_all,
        **options,
    )  # fmt: skip


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
def sampled_logits() -> None:
    """A loss with a mask in bf16, the others without one in fp32, and both orders of sums."""
    from lmcore.kernels.sampled_logits import compute_gradients, compute_logits

    ids = empty(6400, dtype=torch.int64), empty(6400, 100, dtype=torch.int64)
    scale, bias = empty(6400, dtype=torch.float32), empty(57_000, dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float32):
        inputs = empty(6400, 64, dtype=dtype), empty(57_000, 64, dtype=dtype), *ids, bias
        mask = empty(6400, dtype=torch.bool) if dtype == torch.bfloat16 else None
        for kind in ("logits", "softmax") if mask is None else ("bce",):
            logits, _, norms = compute_logits(kind, *inputs, mask)
            outer = (None, None) if kind == "logits" else (scale, norms)
            for deterministic in (False, True):
                compute_gradients(
                    kind, logits, *outer, *inputs, mask, 0, deterministic, (True, True, True)
                )


@register
def cross_entropy() -> None:
    """All entries in bf16, and kept ones with a bias in fp32."""
    from lmcore.kernels.cross_entropy import compute_norms, compute_slopes

    places, outer = empty(16_384, dtype=torch.int64), empty(16_384, dtype=torch.float32)
    for dtype in (torch.bfloat16, torch.float32):
        inputs = empty(16_384, 2048, dtype=dtype), empty(248_320, 2048, dtype=dtype), places
        is_wide = dtype == torch.float32
        bias = empty(248_320, dtype=dtype) if is_wide else None
        kept = empty(50_000, dtype=torch.int64) if is_wide else None
        norms, _ = compute_norms(*inputs, bias, kept)
        slopes = empty(16_384, 8192, dtype=dtype)
        compute_slopes(*inputs, bias, kept, norms, outer, 0, slopes)


@register
def pruning_mask() -> None:
    """A layer of 4,096 x 11,008 with soft gates, and with fixed ones of groups of 64 and of 1."""
    from lmcore.kernels import _gated_launches as gated

    tokens, outputs, inputs = 4096, 11_008, 4096
    x, weight, bias = empty(tokens, inputs), empty(outputs, inputs), empty(outputs)
    dy = empty(tokens, outputs)
    for group, dtype in ((64, torch.float32), (64, torch.bool), (1, torch.bool)):
        o, i = (
            gated.make_axis(empty(size // group, dtype=dtype), size, x.dtype)
            for size in (outputs, inputs)
        )
        gated.multiply(x, weight, o, i, bias)
        soft = dtype.is_floating_point
        gated.differentiate_weight(dy, x, weight, o, i, needs=(True, soft, soft))
    swiglu(gated, empty(outputs // 64, dtype=torch.bool))
    index = empty(512, dtype=torch.int64)
    gated.gather(weight, index, index, empty(512, 512))


def swiglu(gated: Any, gate: Tensor) -> None:
    """Launches of a SwiGLU layer whose inner units have a gate: those of no other layer."""
    tokens, inner, hidden = 4096, 11_008, 4096
    e = gated.make_axis(gate, inner, torch.bfloat16)
    plain = gated.make_axis(None, hidden, torch.bfloat16)
    units, both = gated.multiply_swiglu(
        empty(tokens, hidden), empty(2 * inner, hidden), e, plain, None, keep=True
    )
    gated.differentiate_swiglu(both, units, e)
    gated.multiply(units, empty(hidden, inner), plain, e, packed_a=True)
