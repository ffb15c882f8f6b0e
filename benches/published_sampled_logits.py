"""Cross-entropy with negative sampling as CCE- computes it, rebuilt from its description.

Source: arXiv 2509.09682, which takes the indexed product of cut cross-entropy (arXiv 2411.09009) to
sampled items.  A program has a block of positions and one column of items: it gathers one row for
each position and multiplies.  The softmax over the few columns is torch's.  In the backward pass a
program of the same shape adds the gradients of its states and of its rows, both atomically in
float32.  Gradients below a threshold are not left out here: all contenders compute the same.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_POSITIONS, _WIDEST = 32, 128


@triton.jit
def _product_kernel(
    states, table, ids, logits, positions, size, columns,
    BLOCK_P: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    column = tl.program_id(1)
    wanted = rows < positions
    item = tl.load(ids + rows * columns + column, mask=wanted, other=0)
    total = tl.zeros([BLOCK_P], tl.float32)
    for offset in range(0, size, BLOCK_H):
        part = offset + tl.arange(0, BLOCK_H)
        inside = wanted[:, None] & (part[None, :] < size)
        s = tl.load(states + rows[:, None] * size + part[None, :], mask=inside, other=0.0)
        w = tl.load(table + item[:, None] * size + part[None, :], mask=inside, other=0.0)
        total += tl.sum(s.to(tl.float32) * w.to(tl.float32), 1)
    tl.store(logits + rows * columns + column, total, mask=wanted)


@triton.jit
def _gradient_kernel(
    gradient, states, table, ids, for_states, for_table, positions, size, columns,
    BLOCK_P: tl.constexpr, BLOCK_H: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    column = tl.program_id(1)
    wanted = rows < positions
    item = tl.load(ids + rows * columns + column, mask=wanted, other=0)
    slope = tl.load(gradient + rows * columns + column, mask=wanted, other=0.0)
    for offset in range(0, size, BLOCK_H):
        part = offset + tl.arange(0, BLOCK_H)
        inside = wanted[:, None] & (part[None, :] < size)
        s = tl.load(states + rows[:, None] * size + part[None, :], mask=inside, other=0.0)
        w = tl.load(table + item[:, None] * size + part[None, :], mask=inside, other=0.0)
        tl.atomic_add(
            for_states + rows[:, None] * size + part[None, :],
            slope[:, None] * w.to(tl.float32), mask=inside, sem="relaxed",
        )  # fmt: skip
        tl.atomic_add(
            for_table + item[:, None] * size + part[None, :],
            slope[:, None] * s.to(tl.float32), mask=inside, sem="relaxed",
        )  # fmt: skip


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx, states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        (positions, size), columns = states.shape, ids.shape[1]
        logits = states.new_empty(positions, columns, dtype=torch.float32)
        ctx.blocks = {
            "BLOCK_P": _POSITIONS,
            "BLOCK_H": min(triton.next_power_of_2(size), _WIDEST),
        }
        grid = (triton.cdiv(positions, _POSITIONS), columns)
        _product_kernel[grid](
            states, table, ids, logits, positions, size, columns, **ctx.blocks
        )  # fmt: skip
        norms = logits.logsumexp(1)
        ctx.save_for_backward(states, table, ids, logits, norms)
        return (norms - logits[:, 0]).mean()

    @staticmethod
    def backward(ctx, outer: Tensor) -> tuple[Tensor, Tensor, None]:
        states, table, ids, logits, norms = ctx.saved_tensors
        (positions, size), columns = states.shape, ids.shape[1]
        slopes = (logits - norms[:, None]).exp_()
        slopes[:, 0] -= 1
        slopes *= outer / positions
        for_states = torch.zeros_like(states, dtype=torch.float32)
        for_table = torch.zeros_like(table, dtype=torch.float32)
        _gradient_kernel[(triton.cdiv(positions, _POSITIONS), columns)](
            slopes, states, table, ids, for_states, for_table, positions, size, columns,
            **ctx.blocks,
        )  # fmt: skip
        return for_states.to(states.dtype), for_table.to(table.dtype), None


def compute_loss(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """Returns the mean cross-entropy of column 0 among all columns.

    Args:
        states: `[P, H]`.
        table: `[V, H]` of the same type.
        ids: `[P, 1 + N]` int64.
    """
    return _Loss.apply(states.contiguous(), table.contiguous(), ids.contiguous())
