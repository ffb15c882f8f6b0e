"""The nearest word embedding of each position, with the minimum taken where the product is made.

Shapes: P positions, V words, E size of an embedding.

A program has a block of positions and a share of the words.  It keeps the least distance that it
has seen and where, and in the end puts both into one integer: the bits of a float that is not
negative order as it does, and below them stands the word, so that the least integer is the nearest
word, the lowest one of several.  Programs with other shares of the words take their minimum in
memory; its order does not matter, so the result is the same each time.
"""

import os

import torch
import triton
import triton.language as tl
from torch import Tensor

# The interpreter's arithmetic in bfloat16 is wrong: it needs float32 from the load on.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
_NONE = torch.iinfo(torch.int64).max
_POSITIONS, _WORDS = 64, 64
# Programs that a multiprocessor shall have at least.
_PROGRAMS = 2


@triton.jit
def _nearest_kernel(
    latents,
    table,
    mask,
    keys,
    positions,
    words,
    size,
    latents_stride,
    latents_step,
    table_stride,
    table_step,
    share,
    HAS_MASK: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_E: tl.constexpr,
):
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    wanted = rows < positions
    if HAS_MASK:
        wanted = wanted & (tl.load(mask + rows, mask=wanted, other=0) != 0)
    # Sources stand side by side, and whole blocks of them cost nothing.
    if tl.max(wanted.to(tl.int32), 0) == 0:
        return
    begin = tl.program_id(1).to(tl.int64) * share
    end = tl.minimum(begin + share, words)
    inner = tl.arange(0, BLOCK_E)
    best = tl.full([BLOCK_P, BLOCK_V], float("inf"), tl.float32)
    where = tl.full([BLOCK_P, BLOCK_V], 0, tl.int32)
    for first in range(begin, end, BLOCK_V):
        columns = first + tl.arange(0, BLOCK_V)
        known = columns < end
        product = tl.zeros([BLOCK_P, BLOCK_V], tl.float32)
        own = tl.zeros([BLOCK_P], tl.float32)
        others = tl.zeros([BLOCK_V], tl.float32)
        for offset in range(0, size, BLOCK_E):
            part = offset + inner
            x = tl.load(
                latents + rows[:, None] * latents_stride + part[None, :] * latents_step,
                mask=wanted[:, None] & (part[None, :] < size),
                other=0.0,
            )
            w = tl.load(
                table + columns[:, None] * table_stride + part[None, :] * table_step,
                mask=known[:, None] & (part[None, :] < size),
                other=0.0,
            )
            wide_x, wide_w = x.to(tl.float32), w.to(tl.float32)
            own += tl.sum(wide_x * wide_x, 1)
            others += tl.sum(wide_w * wide_w, 1)
            if WIDEN:
                x, w = wide_x, wide_w
            # Not in TF32: its error is larger than the differences that are looked for.
            product = tl.dot(x, tl.trans(w), product, input_precision="ieee")
        distance = others[None, :] + own[:, None] - 2 * product
        # False where it is NaN, which a minimum would drop or let win.
        finite = (distance < float("inf")) & (distance > float("-inf")) & known[None, :]
        # Also for -0.0, whose bits are those of a negative number.
        distance = tl.where(distance > 0, distance, 0.0)
        nearer = finite & (distance < best)
        best = tl.where(nearer, distance, best)
        where = tl.where(nearer, columns[None, :].to(tl.int32), where)
    bits = best.to(tl.int32, bitcast=True).to(tl.int64)
    key = tl.min((bits << 32) | where.to(tl.int64), 1)
    found = tl.min(best, 1) < float("inf")
    tl.atomic_min(keys + rows, key, mask=wanted & found)


def find_nearest(latents: Tensor, table: Tensor, mask: Tensor | None, shares: int = 0) -> Tensor:
    """Returns the index of the nearest word of each position, -1 where there is none: `[P]` int64.

    Args:
        latents: `[P, E]` float32, bfloat16 or float16.
        table: `[V, E]` of the same type, V below 2**31.
        mask: `[P]` bool or None.
        shares: into how many the words are divided; 0: as many as fill the device.
    """
    (positions, size), words = latents.shape, len(table)
    keys = torch.full((positions,), _NONE, dtype=torch.int64, device=latents.device)
    if not positions:
        return keys
    blocks = triton.cdiv(positions, _POSITIONS)
    if not shares:
        shares = max(_count_processors(latents.device) * _PROGRAMS // blocks, 1)
    share = triton.cdiv(triton.cdiv(words, shares), _WORDS) * _WORDS
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(latents):
        _nearest_kernel[(blocks, triton.cdiv(words, share))](
            latents,
            table,
            None if mask is None else mask.contiguous().view(torch.uint8),
            keys,
            positions,
            words,
            size,
            *latents.stride(),
            *table.stride(),
            share,
            HAS_MASK=mask is not None,
            WIDEN=_INTERPRETED,
            BLOCK_P=_POSITIONS,
            BLOCK_V=_WORDS,
            BLOCK_E=min(max(triton.next_power_of_2(size), 16), 64),
        )
    return torch.where(keys == _NONE, -1, keys & 0xFFFFFFFF)


def _count_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
