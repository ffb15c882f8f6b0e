"""Rotary positions: dimension j and j + K / 2 of a head turned as a pair, by the token's place.

Attention turns queries and keys by this pass before its own, and their gradients back behind it.
In the loop over the keys every block of queries would turn them again, in registers, through which
a key then cannot pass on its way from memory to the tensor cores.

Shapes: B rows, H heads, T positions, K head size.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels.attention_blocks import find_alignment, lay_heads, make_heads

_POSITIONS = 32
# What no code is compiled for.
NUMBERS = [
    "heads_row", "heads_head", "heads_step", "table_row", "table_step", "offset", "heads", "length",
]  # fmt: skip


@triton.jit(do_not_specialize=NUMBERS)
def _rotation_kernel(
    states, cosines, sines, out, heads_row, heads_head, heads_step, table_row, table_step, offset,
    heads, length,
    SIZE: tl.constexpr, BACK: tl.constexpr, ALIGN: tl.constexpr, BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(length, BLOCK_T)
    item = tl.program_id(0) // blocks
    row, head = (item // heads).to(tl.int64), (item % heads).to(tl.int64)
    half: tl.constexpr = SIZE // 2
    places = (tl.program_id(0) % blocks * BLOCK_T + tl.arange(0, BLOCK_T)).to(tl.int64)[:, None]
    inner = tl.arange(0, BLOCK_K)[None, :]
    known = (places < length) & (inner < half)
    heads_step = heads_step * ALIGN
    own = states + (row * heads_row + head * heads_head) * ALIGN
    own += places * heads_step + inner
    table = row * table_row + (places + offset) * table_step + inner
    first = tl.load(own, mask=known, other=0.0).to(tl.float32)
    second = tl.load(own + half, mask=known, other=0.0).to(tl.float32)
    first_cosine = tl.load(cosines + table, mask=known, other=0.0).to(tl.float32)
    second_cosine = tl.load(cosines + table + half, mask=known, other=0.0).to(tl.float32)
    first_sine = tl.load(sines + table, mask=known, other=0.0).to(tl.float32)
    second_sine = tl.load(sines + table + half, mask=known, other=0.0).to(tl.float32)
    if BACK:
        # The transposed map: tables need not be those of a turn.
        first_sine, second_sine = -second_sine, -first_sine
    base = (row * length * heads + head) * SIZE
    target = out + base + places * heads * SIZE + inner
    kind: tl.constexpr = out.dtype.element_ty
    tl.store(target, (first * first_cosine - second * first_sine).to(kind), mask=known)
    tl.store(target + half, (second * second_cosine + first * second_sine).to(kind), mask=known)


def rotate(states: Tensor, cosines: Tensor, sines: Tensor, offset: int, *, back: bool) -> Tensor:
    """Returns heads turned by their places, or, for gradients, by the transposed map.

    Args:
        states: `[B, H, T, K]`, K even.
        cosines: `[places, K]` or `[B, places, K]` floating point.
        sines: the same.
        offset: the place of the first position.
        back: whether the map is transposed.
    """
    states = lay_heads(states)
    cosines, sines = cosines.contiguous(), sines.contiguous()
    rows, heads, length, size = states.shape
    out = make_heads(states)
    if not out.numel():
        return out
    align = find_alignment(states)
    strides = [stride // align for stride in states.stride()[:3]]
    table_row = cosines.stride(0) if cosines.dim() == 3 else 0
    with torch.cuda.device_of(states):
        _rotation_kernel[(triton.cdiv(length, _POSITIONS) * rows * heads,)](
            states, cosines, sines, out, *strides, table_row, cosines.stride(-2),
            offset, heads, length,
            enable_fp_fusion=True, SIZE=size, BACK=back, ALIGN=align, BLOCK_T=_POSITIONS,
            BLOCK_K=triton.next_power_of_2(size // 2),
        )  # fmt: skip
    return out
