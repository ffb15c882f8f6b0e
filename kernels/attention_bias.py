"""The gradient of a bias by distance: sums of the scores' gradient along diagonals.

The kernel that goes over the keys turns each block so that its diagonals are columns.  Their sums
lie in a row for each block of queries, which begins at a distance of its own; the kernel here adds
up those rows, always in the same order.

Shapes: see `attention_blocks`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning

# Entries of the bias that a program adds up.
_ENTRIES = 128


@triton.jit(do_not_specialize=["rows", "blocks", "queries", "length", "width", "heads"])
def _bias_kernel(
    diagonals, bias_gradient, rows, blocks, queries, length, width, heads,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Adds up the rows of sums along diagonals, each of which begins at another distance."""
    head = tl.program_id(1)
    entries = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for row in range(rows):
        base = diagonals + (row * heads + head).to(tl.int64) * blocks * width
        for block in range(blocks):
            places = entries - (queries - 1) + BLOCK_N + block * BLOCK_M
            known = (places >= 0) & (places < width) & (entries < length)
            total += tl.load(base + places, mask=known, other=0.0)
            base += width
    own = bias_gradient + head.to(tl.int64) * length + entries
    tl.store(own, total.to(bias_gradient.dtype.element_ty), mask=entries < length)


def make_diagonals(deltas: Tensor, keys: int, configuration: tuning.Configuration) -> Tensor:
    """Memory for sums along diagonals, `[B, H, blocks of queries, keys]` float32.

    Args:
        deltas: `[B, H, T]`.
        keys: S.
        configuration: of the kernel that writes them.
    """
    rows, heads, queries = deltas.shape
    blocks = triton.cdiv(queries, configuration["BLOCK_M"])
    width = (triton.cdiv(keys, configuration["BLOCK_N"]) + 2) * configuration["BLOCK_N"]
    return deltas.new_zeros(rows, heads, blocks, width, dtype=torch.float32)


def add_diagonals(
    diagonals: Tensor, gradient: Tensor, queries: int, configuration: tuning.Configuration
) -> None:
    """Writes the gradient of the bias.

    Args:
        diagonals: from `make_diagonals`, filled.
        gradient: `[H, T + S - 1]`, which is written.
        queries: T.
        configuration: of the kernel that filled them.
    """
    rows, heads, blocks, width = diagonals.shape
    length = gradient.shape[1]
    _bias_kernel[(triton.cdiv(length, _ENTRIES), heads)](
        diagonals, gradient, rows, blocks, queries, length, width, heads,
        BLOCK_M=configuration["BLOCK_M"], BLOCK_N=configuration["BLOCK_N"], BLOCK=_ENTRIES,
        enable_fp_fusion=True, num_warps=4,
    )  # fmt: skip
