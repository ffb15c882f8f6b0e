"""What the kernels of attention share: the range of a row, blocks of a head, what is dropped.

Shapes: B rows, H heads, G heads of keys and values, T queries, S keys, K head size.

A head is read in blocks of positions x a power of two that holds the head size.  Numbers that
change from batch to batch are arguments which nothing is compiled for.  Strides come as multiples
of `ALIGN`, by which the kernel multiplies them: so the compiler knows that 16 bytes at a time can
be copied without passing through registers, and keeps several blocks on their way.
"""

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import torch
import triton
import triton.language as tl
from torch import Tensor

# Starts and lengths of queries, starts and lengths of keys, each `[B]` integers.
Ranges: TypeAlias = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]

# `reference.philox.Stream.ATTENTION_DROPOUT`, which a kernel does not import.
STREAM = 241
_STREAM = tl.constexpr(STREAM)
_LARGEST = tl.constexpr(1 << 62)
# Elements that every stride is a multiple of, where head sizes and layouts allow it.
_ALIGN = 8
_LARGEST_SPLIT = 128


@triton.jit
def find_range(starts, lengths, row, size):
    """First position of a row that is there, and the one behind the last, int32."""
    begin = tl.full([], 0, tl.int64)
    if starts is not None:
        begin = tl.maximum(tl.load(starts + row).to(tl.int64), -_LARGEST)
    end = tl.full([], 0, tl.int64) + size
    if lengths is not None:
        # Neither sum goes around: a length may be the largest number.
        end = tl.minimum(begin + tl.minimum(tl.load(lengths + row).to(tl.int64), _LARGEST), size)
    begin = tl.minimum(tl.maximum(begin, 0), size)
    return begin.to(tl.int32), tl.maximum(end, begin).to(tl.int32)


@triton.jit
def load_block(
    base, rows, stride, wanted, SIZE: tl.constexpr, BLOCK_K: tl.constexpr, MASKED: tl.constexpr
):
    """`[len(rows), BLOCK_K]` of a head, zero where not wanted, which is not read."""
    inner = tl.arange(0, BLOCK_K)
    places = base + rows.to(tl.int64)[:, None] * stride + inner[None, :]
    if MASKED:
        if SIZE == BLOCK_K:
            return tl.load(places, mask=wanted[:, None], other=0.0)
        return tl.load(places, mask=wanted[:, None] & (inner < SIZE)[None, :], other=0.0)
    if SIZE == BLOCK_K:
        return tl.load(places)
    return tl.load(places, mask=(inner < SIZE)[None, :], other=0.0)


@triton.jit
def store_block(base, rows, stride, values, wanted, SIZE: tl.constexpr, BLOCK_K: tl.constexpr):
    """The counterpart of `load_block`, in the type of the memory."""
    inner = tl.arange(0, BLOCK_K)
    tl.store(
        base + rows.to(tl.int64)[:, None] * stride + inner[None, :],
        values.to(base.dtype.element_ty),
        mask=wanted[:, None] & (inner < SIZE)[None, :],
    )


@triton.jit
def keep_weights(seed_low, seed_high, item, rows, first, threshold, BLOCK: tl.constexpr):
    """Which weights of `[len(rows), BLOCK]` keys from an even one on are kept."""
    pairs = first // 2 + tl.arange(0, BLOCK // 2)
    spread = tl.zeros_like(rows)[:, None] + pairs[None, :]
    seed = (seed_high.to(tl.uint32).to(tl.uint64) << 32) | seed_low.to(tl.uint32).to(tl.uint64)
    _, even, _, odd = tl.philox(
        seed,
        spread.to(tl.uint32),
        (spread * 0 + rows[:, None]).to(tl.uint32),
        (spread * 0 + item).to(tl.uint32),
        (spread * 0 + _STREAM).to(tl.uint32),
    )
    return tl.interleave(even, odd) >= threshold.to(tl.uint32)


def lay_heads(tensor: Tensor) -> Tensor:
    """A tensor whose features of a head lie side by side: itself, or a copy."""
    return tensor if tensor.stride(3) == 1 or tensor.shape[3] == 1 else tensor.contiguous()


def make_heads(like: Tensor) -> Tensor:
    """Memory for `[B, H, T, K]` in which positions lie apart, as the next layer reads them."""
    rows, heads, length, size = like.shape
    return like.new_empty(rows, length, heads, size).transpose(1, 2)


def find_alignment(*tensors: Tensor) -> int:
    """What strides and head sizes of all of them are multiples of: 8, or 1."""
    numbers = [number for tensor in tensors for number in (tensor.shape[3], *tensor.stride()[:3])]
    return 1 if any(number % _ALIGN for number in numbers) else _ALIGN


def split_seed(seed: int) -> tuple[int, int]:
    """Lower and upper half as int32, so that their type is the same for every seed."""
    low, high = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    return as_int32(low), as_int32(high)


def as_int32(number: int) -> int:
    """The int32 with the bits of a number below 2**32."""
    return (number ^ 0x80000000) - 0x80000000


def find_precision(dtype: torch.dtype, block: int) -> str:
    """How products are computed: float32 on tensor cores in three parts, close to float32.

    Of the largest heads three parts do not fit into the registers.
    """
    if dtype != torch.float32:
        return "tf32"
    return "tf32x3" if block <= _LARGEST_SPLIT else "ieee"


def make_candidates(*sizes: tuple[int, int, int, int]) -> list[dict[str, int]]:
    """Configurations by queries and keys of a block, warps, and stages of the pipeline."""
    names = ("BLOCK_M", "BLOCK_N", "num_warps", "num_stages")
    return [dict(zip(names, numbers, strict=True)) for numbers in sizes]


def find_candidates(
    table: Mapping[tuple[int, int], Sequence[dict[str, int]]], dtype: torch.dtype, block: int
) -> Sequence[dict[str, int]]:
    """Configurations for bytes of an element and the power of two that holds a head.

    Args:
        table: by bytes and largest power of two.
        dtype: of the inputs.
        block: the power of two.
    """
    fitting = [key for key in table if key[0] == dtype.itemsize and key[1] >= block]
    return table[min(fitting)]
