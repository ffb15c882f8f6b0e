"""Norms and slopes of the cross-entropy of a linear head, without its logits in memory.

Shapes: P positions, K entries that take part, V of the vocabulary, H size of a state.

Forward, a program multiplies a block of positions with one share of the entries, block after block,
and keeps the largest logit, the sum of exponentials and the target's logit of each position.  What
the shares came to is put together by torch: in one order, so it is the same bits each time.
Programs that run at the same time have few blocks of positions and all shares, so that both factors
come out of the second level of the cache.

Backward, the same product is made again for a block of entries, and slopes (softmax less one at the
target, times the gradient of the loss) leave it in the type of the inputs.  Both gradients are
products of matrices with them, which torch makes: those of the weight's rows are whole after one
block, so no sum over blocks of positions is kept of them in any precision.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning
from lmcore.kernels._interpreter import INTERPRETED
from lmcore.kernels._precision import find_precision
from lmcore.kernels.tuning import Configuration

_SHARES, _GROUP = 8, 16
# 256 of these are within 32 bits.
_FARTHEST = 1 << 22
_CANDIDATES = tuple(
    {
        "BLOCK_P": p, "BLOCK_V": v, "BLOCK_H": h,
        "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True,
    }
    for p, v, h, warps, stages in (
        (128, 128, 64, 8, 3), (128, 256, 64, 8, 3), (64, 256, 64, 8, 3), (64, 128, 64, 4, 4),
    )
)  # fmt: skip
_WIDE_CANDIDATES = tuple(
    {
        "BLOCK_P": p, "BLOCK_V": v, "BLOCK_H": 32,
        "num_warps": warps, "num_stages": stages, "enable_fp_fusion": True,
    }
    for p, v, warps, stages in ((64, 64, 8, 3), (64, 128, 8, 3))
)  # fmt: skip


@triton.jit
def _multiply(
    states,
    weight,
    block,
    positions,
    first,
    last,
    entries,
    size,
    states_stride,
    states_step,
    weight_stride,
    weight_step,
    HAS_KEPT: tl.constexpr,
    IS_EVEN: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDEN: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_V: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """The logits of a block of positions and of entries, without bias.

    Beyond the last position or entry they are those of the last one again: nobody looks at them,
    and loads without conditions spare registers.  So do offsets of 32 bits within a block, which
    kept entries do not have.
    """
    inner = tl.arange(0, BLOCK_H)
    rows = tl.minimum(tl.arange(0, BLOCK_P), positions - 1 - block * BLOCK_P)
    states += block.to(tl.int64) * BLOCK_P * states_stride
    s_offsets = rows[:, None] * states_stride + inner[None, :] * states_step
    if HAS_KEPT:
        w_offsets = entries[None, :] * weight_stride + inner[:, None] * weight_step
    else:
        weight += first * weight_stride
        columns = tl.minimum(tl.arange(0, BLOCK_V), (last - first).to(tl.int32))
        w_offsets = columns[None, :] * weight_stride + inner[:, None] * weight_step
    z = tl.zeros([BLOCK_P, BLOCK_V], tl.float32)
    for offset in range(0, size, BLOCK_H):
        if IS_EVEN:
            s = tl.load(states + s_offsets)
            w = tl.load(weight + w_offsets)
        else:
            within = inner < size - offset
            s = tl.load(states + s_offsets, mask=within[None, :], other=0.0)
            w = tl.load(weight + w_offsets, mask=within[:, None], other=0.0)
        if WIDEN:
            s, w = s.to(tl.float32), w.to(tl.float32)
        z = tl.dot(s, w, z, input_precision=PRECISION)
        states += BLOCK_H * states_step
        weight += BLOCK_H * weight_step
    return z


@triton.jit
def _load_entries(kept, places, inside, entries, HAS_KEPT: tl.constexpr):
    """The rows of the weight that stand at places, and whether there are such."""
    found, known = places, inside
    if HAS_KEPT:
        found = tl.load(kept + places, mask=inside, other=0)
        # What is no entry is not read; asking beforehand would wait for the device.
        known = inside & (found >= 0) & (found < entries)
        found = tl.where(known, found, 0)
    return found, known


@triton.jit
def _norm_kernel(
    states, weight, bias, kept, places, tops, totals, owns,
    positions, count, entries, size, share,
    states_stride, states_step, weight_stride, weight_step,
    HAS_BIAS: tl.constexpr, HAS_KEPT: tl.constexpr,
    IS_EVEN: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, SHARES: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    # Blocks of positions of a group take turns within a share, shares within a group.
    program = tl.program_id(0)
    group = program // (GROUP * SHARES)
    number = program % (GROUP * SHARES) // GROUP
    block = group * GROUP + program % GROUP
    rows = block.to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    wanted = rows < positions
    if block * BLOCK_P >= positions:
        return
    target = tl.load(places + rows, mask=wanted, other=-1)
    top = tl.full([BLOCK_P], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_P], tl.float32)
    own = tl.zeros([BLOCK_P], tl.float32)
    begin = number.to(tl.int64) * share
    end = tl.minimum(begin + share, count)
    for first in range(begin, end, BLOCK_V):
        columns = first + tl.arange(0, BLOCK_V)
        inside = columns < end
        found, known = _load_entries(kept, columns, inside, entries, HAS_KEPT)
        z = _multiply(
            states, weight, block, positions, first, count - 1, found, size,
            states_stride, states_step, weight_stride, weight_step,
            HAS_KEPT, IS_EVEN, PRECISION, WIDEN, BLOCK_P, BLOCK_V, BLOCK_H,
        )  # fmt: skip
        if HAS_BIAS:
            z += tl.load(bias + found, mask=known, other=0.0).to(tl.float32)[None, :]
        own += tl.sum(tl.where(columns[None, :] == target[:, None], z, 0.0), 1)
        z = tl.where(known[None, :], z, tl.where(inside[None, :], float("nan"), float("-inf")))
        above = tl.maximum(top, tl.max(z, 1))
        # Entries may be shut out by -inf: no difference of two of them. NaN stays in the sum.
        base = tl.where(above == float("-inf"), 0.0, above)
        total = total * tl.exp(top - base) + tl.sum(tl.exp(z - base[:, None]), 1)
        top = above
    result = number.to(tl.int64) * positions + rows
    tl.store(tops + result, top, mask=wanted)
    tl.store(totals + result, total, mask=wanted)
    tl.store(owns + result, own, mask=wanted)


@triton.jit
def _slope_kernel(
    states, weight, bias, kept, places, norms, outer, slopes,
    positions, start, count, entries, size, width,
    states_stride, states_step, weight_stride, weight_step, outer_step,
    HAS_BIAS: tl.constexpr, HAS_KEPT: tl.constexpr,
    IS_EVEN: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, GROUP: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    # Few blocks of positions with all blocks of entries, and then the next few.
    across = tl.cdiv(count, BLOCK_V)
    program = tl.program_id(0)
    group = program // (GROUP * across)
    block = group * GROUP + program % GROUP
    if block * BLOCK_P >= positions:
        return
    rows = block.to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    wanted = rows < positions
    number = (program % (GROUP * across) // GROUP).to(tl.int64)
    columns = number * BLOCK_V + tl.arange(0, BLOCK_V)
    inside = columns < count
    found, known = _load_entries(kept, start + columns, inside, entries, HAS_KEPT)
    z = _multiply(
        states, weight, block, positions, start + number * BLOCK_V, start + count - 1, found, size,
        states_stride, states_step, weight_stride, weight_step,
        HAS_KEPT, IS_EVEN, PRECISION, WIDEN, BLOCK_P, BLOCK_V, BLOCK_H,
    )  # fmt: skip
    if HAS_BIAS:
        z += tl.load(bias + found, mask=known, other=0.0).to(tl.float32)[None, :]
    target = tl.load(places + rows, mask=wanted, other=-1)
    norm = tl.load(norms + rows, mask=wanted, other=0.0)
    scale = tl.load(outer + rows * outer_step, mask=wanted, other=0.0).to(tl.float32)
    is_own = (start + columns)[None, :] == target[:, None]
    slope = (tl.exp(z - norm[:, None]) - tl.where(is_own, 1.0, 0.0)) * scale[:, None]
    # A position that does not count has no gradient, whatever its logits are.
    slope = tl.where((target >= 0)[:, None] & known[None, :], slope, 0.0)
    tl.store(
        slopes + rows[:, None] * width + columns[None, :],
        slope,
        mask=wanted[:, None] & inside[None, :],
    )


def compute_norms(
    states: Tensor, weight: Tensor, places: Tensor, bias: Tensor | None, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Returns the logarithm of the sum of the exponentials, and the target's logit: `[P]` float32.

    Args:
        states: `[P, H]` float32, bfloat16 or float16.
        weight: `[V, H]` of the same type.
        places: `[P]` int64, the place of the target among what takes part, or -1.
        bias: `[V]` floating point or None.
        kept: `[K]` int64 or None.
    """
    (positions, size), entries = states.shape, len(weight)
    count = entries if kept is None else len(kept)
    states, weight = _bring_near(states), _bring_near(weight)
    tops, totals, owns = torch.zeros(3, _SHARES, positions, device=states.device)
    tops.fill_(float("-inf"))

    def launch(blocks: Configuration) -> None:
        share = triton.cdiv(triton.cdiv(count, _SHARES), blocks["BLOCK_V"]) * blocks["BLOCK_V"]
        groups = triton.cdiv(triton.cdiv(positions, blocks["BLOCK_P"]), _GROUP)
        _norm_kernel[(groups * _GROUP * _SHARES,)](
            states, weight, bias, kept, places, tops, totals, owns,
            positions, count, entries, size, share, *states.stride(), *weight.stride(),
            HAS_BIAS=bias is not None, HAS_KEPT=kept is not None,
            IS_EVEN=size % blocks["BLOCK_H"] == 0,
            PRECISION=find_precision(states.dtype), WIDEN=INTERPRETED,
            SHARES=_SHARES, GROUP=_GROUP, **blocks,
        )  # fmt: skip

    if positions and count and entries:
        # Triton launches on the current device, which need not be that of the tensors.
        with torch.cuda.device_of(states):
            launch(_choose("cross_entropy_norms", states, count, launch))
    return (tops + totals.log()).logsumexp(0), owns.sum(0)


def compute_slopes(
    states: Tensor,
    weight: Tensor,
    places: Tensor,
    bias: Tensor | None,
    kept: Tensor | None,
    norms: Tensor,
    outer: Tensor,
    start: int,
    slopes: Tensor,
) -> None:
    """Writes the gradients of the logits of a block of entries, in the type of the states.

    Args:
        states: as there.
        weight: as there.
        places: as there.
        bias: as there.
        kept: as there.
        norms: `[P]` float32.
        outer: `[P]` float32, the gradient of the losses.
        start: the first place of the block.
        slopes: `[P, C]`, contiguous: where to.
    """
    (positions, size), entries = states.shape, len(weight)
    count = slopes.shape[1]
    states, weight = _bring_near(states), _bring_near(weight)

    def launch(blocks: Configuration) -> None:
        groups = triton.cdiv(triton.cdiv(positions, blocks["BLOCK_P"]), _GROUP)
        across = triton.cdiv(count, blocks["BLOCK_V"])
        _slope_kernel[(groups * _GROUP * across,)](
            states, weight, bias, kept, places, norms, outer, slopes,
            positions, start, count, entries, size, slopes.stride(0),
            *states.stride(), *weight.stride(), outer.stride(0),
            HAS_BIAS=bias is not None, HAS_KEPT=kept is not None,
            IS_EVEN=size % blocks["BLOCK_H"] == 0,
            PRECISION=find_precision(states.dtype), WIDEN=INTERPRETED, GROUP=_GROUP, **blocks,
        )  # fmt: skip

    if positions and count and entries:
        with torch.cuda.device_of(states):
            launch(_choose("cross_entropy_slopes", states, count, launch))


def _choose(kernel: str, states: Tensor, count: int, launch: tuning.Launch) -> Configuration:
    positions, size = states.shape
    sizes = {"positions": positions, "entries": count, "size": size}
    candidates = _WIDE_CANDIDATES if states.dtype == torch.float32 else _CANDIDATES
    return tuning.choose(kernel, sizes, states.dtype, states.device, candidates, launch)


def _bring_near(matrix: Tensor) -> Tensor:
    """Rows and columns of a block must be within 32 bits of each other."""
    return matrix.contiguous() if max(matrix.stride()) > _FARTHEST else matrix
