"""Attention forward: softmax and product with the values while the scores are made.

A program has a block of queries of one head.  It goes over the keys that the block can see, from
the first that is there to the last, and keeps the largest score, the sum of the exponentials and
the sum of the values so far (FlashAttention-2, arXiv 2307.08691, algorithm 1).  Blocks of which
every query sees every key come first and have no mask; those at the causal diagonal and at the end
come last.  Exponentials are powers of two, with log2(e) in the scale.

Shapes: see `attention_blocks`.
"""

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning
from lmcore.kernels._interpreter import INTERPRETED
from lmcore.kernels.attention_blocks import (
    Ranges,
    as_int32,
    find_alignment,
    find_candidates,
    find_precision,
    find_range,
    keep_weights,
    lay_heads,
    load_block,
    make_candidates,
    make_heads,
    split_seed,
    store_block,
)

_LOG2E = tl.constexpr(1.4426950408889634)
# By bytes of an element and largest power of two that holds a head.
_CANDIDATES = {
    (2, 64): make_candidates((128, 64, 8, 3), (128, 128, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3)),
    (2, 128): make_candidates((128, 64, 8, 3), (128, 64, 4, 3), (64, 64, 4, 3)),
    (2, 256): make_candidates((64, 64, 8, 2), (128, 32, 8, 2), (128, 64, 8, 2)),
    (4, 64): make_candidates((64, 32, 4, 3), (64, 32, 4, 2)),
    (4, 128): make_candidates((16, 32, 4, 2), (32, 16, 4, 2)),
    (4, 256): make_candidates((32, 16, 8, 1)),
}
# What no code is compiled for.
NUMBERS = [
    "query_row", "query_head", "query_step", "key_row", "key_head", "key_step",
    "value_row", "value_head", "value_step", "mask_row", "mask_head", "heads", "share", "queries",
    "keys", "scale", "seed_low", "seed_high", "threshold", "boost",
]  # fmt: skip
POINTERS = [
    "query_starts", "query_lengths", "key_starts", "key_lengths", "head_mask", "bias",
]  # fmt: skip


@triton.jit
def _attend_blocks(
    total, norm, top, q, key_base, value_base, key_step, value_step, begin, end, rows, known,
    bias_base, queries, shift, scale, seed_low, seed_high, item, threshold,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, BIAS: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDEN: tl.constexpr, PRECISION: tl.constexpr,
    MASKED: tl.constexpr,
):  # fmt: skip
    """Goes over keys from begin to end; `known` are the first that is there and the last + 1."""
    first_known, last_known = known
    for first in tl.range(begin, end, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        there = (columns >= first_known) & (columns < last_known)
        k = load_block(key_base, columns, key_step, there, SIZE, BLOCK_K, MASKED)
        if WIDEN:
            k = k.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if BIAS:
            own = bias_base + (columns[None, :] - rows[:, None] + queries - 1)
            readable = (rows < queries)[:, None] & there[None, :]
            added = tl.load(own, mask=readable, other=0.0).to(tl.float32)
            scores = scores * scale + added * _LOG2E
        if MASKED:
            visible = there[None, :]
            if CAUSAL:
                visible = visible & (columns[None, :] <= (rows + shift)[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        # A maximum drops NaN; the sum does not.
        largest = tl.max(scores, 1)
        if not BIAS:
            largest = largest * scale
        larger = tl.maximum(top, largest)
        # Of minus infinity alone no difference is a number.
        base = tl.where(larger == float("-inf"), 0.0, larger)
        if BIAS:
            weights = tl.exp2(scores - base[:, None])
        else:
            weights = tl.exp2(scores * scale - base[:, None])
        shrink = tl.exp2(top - base)
        norm = norm * shrink + tl.sum(weights, 1)
        if DROPOUT:
            kept = keep_weights(seed_low, seed_high, item, rows, first, threshold, BLOCK_N)
            weights = tl.where(kept, weights, 0.0)
        v = load_block(value_base, columns, value_step, there, SIZE, BLOCK_K, MASKED)
        if WIDEN:
            v = v.to(tl.float32)
        total = total * shrink[:, None]
        total = tl.dot(weights.to(v.dtype), v, total, input_precision=PRECISION)
        top = larger
    return total, norm, top


@triton.jit(do_not_specialize=NUMBERS, do_not_specialize_on_alignment=POINTERS)
def _forward_kernel(
    query, key, value, out, plain, logsumexp,
    query_starts, query_lengths, key_starts, key_lengths, head_mask, bias,
    query_row, query_head, query_step, key_row, key_head, key_step,
    value_row, value_head, value_step, mask_row, mask_head,
    heads, share, queries, keys, scale, seed_low, seed_high, threshold, boost,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr,
    ALIGN: tl.constexpr, WIDEN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    # Blocks of one head stand side by side: they share its keys in the cache. In causal order the
    # longest begin.
    blocks = tl.cdiv(queries, BLOCK_M)
    block = tl.program_id(0) % blocks
    if CAUSAL:
        block = blocks - 1 - block
    item = tl.program_id(0) // blocks
    row, head = (item // heads).to(tl.int64), (item % heads).to(tl.int64)
    group = head // share
    rows = block * BLOCK_M + tl.arange(0, BLOCK_M)
    first_asked, last_asked = find_range(query_starts, query_lengths, row, queries)
    first_known, last_known = find_range(key_starts, key_lengths, row, keys)
    gate = 1.0
    if head_mask is not None:
        gate = tl.load(head_mask + row * mask_row + head * mask_head).to(tl.float32)
        if not SOFT:
            # A head that is shut asks nothing.
            last_asked = tl.where(gate == 0, first_asked, last_asked)
    asked = (rows >= first_asked) & (rows < last_asked)
    shift = keys - queries
    begin, end = first_known, last_known
    if DROPOUT:
        # Two keys share a block of random words.
        begin = begin // 2 * 2
    if CAUSAL:
        end = tl.minimum(end, tl.minimum((block + 1) * BLOCK_M, last_asked) + shift)
    first_asked = tl.maximum(first_asked, block * BLOCK_M)
    end = tl.where(first_asked < tl.minimum(last_asked, (block + 1) * BLOCK_M), end, begin)
    whole = end
    if CAUSAL:
        whole = tl.minimum(end, block * BLOCK_M + shift + 1)
    whole = begin + tl.maximum(whole - begin, 0) // BLOCK_N * BLOCK_N
    if DROPOUT:
        whole = begin

    query_step = query_step * ALIGN
    key_step = key_step * ALIGN
    value_step = value_step * ALIGN
    query_base = query + (row * query_row + head * query_head) * ALIGN
    key_base = key + (row * key_row + group * key_head) * ALIGN
    value_base = value + (row * value_row + group * value_head) * ALIGN
    bias_base = bias
    if bias is not None:
        bias_base = bias + head * (queries + keys - 1)
    q = load_block(query_base, rows, query_step, asked, SIZE, BLOCK_K, True)
    if WIDEN:
        q = q.to(tl.float32)
    total = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    norm = tl.zeros([BLOCK_M], tl.float32)
    top = tl.full([BLOCK_M], float("-inf"), tl.float32)
    known = (first_known, last_known)
    if not DROPOUT:
        total, norm, top = _attend_blocks(
            total, norm, top, q, key_base, value_base, key_step, value_step, begin, whole, rows,
            known, bias_base, queries, shift, scale, seed_low, seed_high, item, threshold,
            CAUSAL, DROPOUT, bias is not None, SIZE, BLOCK_N, BLOCK_K, WIDEN, PRECISION, False,
        )  # fmt: skip
    total, norm, top = _attend_blocks(
        total, norm, top, q, key_base, value_base, key_step, value_step, whole, end, rows, known,
        bias_base, queries, shift, scale, seed_low, seed_high, item, threshold,
        CAUSAL, DROPOUT, bias is not None, SIZE, BLOCK_N, BLOCK_K, WIDEN, PRECISION, True,
    )  # fmt: skip
    sees = asked & (norm != 0)
    norm = tl.where(sees, norm, 1.0)
    result = tl.where(sees[:, None], total * (boost / norm)[:, None], 0.0)
    inside = rows < queries
    step = heads * SIZE
    base = (row * queries * heads + head) * SIZE
    if plain is not None:
        store_block(plain + base, rows, step, result, inside, SIZE, BLOCK_K)
    if SOFT:
        result = tl.where(sees[:, None], result * gate, 0.0)
    store_block(out + base, rows, step, result, inside, SIZE, BLOCK_K)
    # Of a query that sees nothing every weight is 2 ** -infinity again.
    sums = tl.where(sees, top + tl.log2(norm), float("inf"))
    tl.store(logsumexp + item.to(tl.int64) * queries + rows, sums, mask=inside)


def make_arguments(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ranges: Ranges,
    head_mask: Tensor | None,
    bias: Tensor | None,
    *,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
    gradient: Tensor | None = None,
) -> dict[str, Any]:
    """What all kernels of attention are called with; see `forward`."""
    names = ("query_starts", "query_lengths", "key_starts", "key_lengths")
    low, high = split_seed(seed)
    is_soft = head_mask is not None and head_mask.dtype != torch.bool
    mask = head_mask
    if mask is not None and not is_soft:
        mask = mask.view(torch.uint8)
    heads = {"query": query, "key": key, "value": value}
    if gradient is not None:
        heads["gradient"] = gradient
    align = find_alignment(*heads.values())
    arguments: dict[str, Any] = dict(heads)
    for name, tensor in heads.items():
        for part, stride in zip(("row", "head", "step"), tensor.stride(), strict=False):
            arguments[f"{name}_{part}"] = stride // align
    arguments |= {
        name: None if tensor is None else tensor.contiguous()
        for name, tensor in zip(names, ranges, strict=True)
    }
    size = query.shape[3]
    block = max(triton.next_power_of_2(size), 16)
    return arguments | {
        "head_mask": mask,
        "mask_row": 0 if mask is None else mask.stride(0),
        "mask_head": 0 if mask is None else mask.stride(1),
        "bias": None if bias is None else bias.contiguous(),
        "heads": query.shape[1],
        "share": query.shape[1] // key.shape[1],
        "queries": query.shape[2],
        "keys": key.shape[2],
        # The kernels' exponentials are powers of two.
        "scale": scale * math.log2(math.e),
        "seed_low": low,
        "seed_high": high,
        "threshold": as_int32(min(round(dropout * 2**32), 0xFFFFFFFF)),
        "boost": 1 / (1 - dropout),
        "CAUSAL": causal,
        "DROPOUT": dropout > 0,
        "SOFT": is_soft,
        "SIZE": size,
        "ALIGN": align,
        "WIDEN": INTERPRETED,
        "PRECISION": find_precision(query.dtype, block),
        "BLOCK_K": block,
    }


def forward(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ranges: Ranges,
    head_mask: Tensor | None,
    bias: Tensor | None,
    *,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the output, the log2-sum-exp2 of scores `[B, H, T]`, and the output without mask.

    Args:
        query: `[B, H, T, K]`.
        key: `[B, G, S, K]`.
        value: `[B, G, S, K]`.
        ranges: starts and lengths of queries, starts and lengths of keys, each `[B]` or None.
        head_mask: `[B, H]` or None.
        bias: `[H, T + S - 1]` or None.
        causal: whether later keys are hidden.
        scale: above 0.
        dropout: the share that is dropped.
        seed: of what is dropped.
        keep: whether the output without mask is kept; an empty tensor otherwise.
    """
    rows, heads, queries, size = query.shape
    query, key, value = lay_heads(query), lay_heads(key), lay_heads(value)
    out = make_heads(query)
    plain = make_heads(query) if keep else query.new_empty(0)
    logsumexp = query.new_empty(rows, heads, queries, dtype=torch.float32)
    if not out.numel():
        return out, logsumexp, plain
    arguments = make_arguments(
        query, key, value, ranges, head_mask, bias,
        causal=causal, scale=scale, dropout=dropout, seed=seed,
    )  # fmt: skip

    def launch(configuration: tuning.Configuration) -> None:
        blocks = triton.cdiv(queries, configuration["BLOCK_M"])
        _forward_kernel[(blocks * rows * heads,)](
            out=out,
            plain=plain if keep else None,
            logsumexp=logsumexp,
            **arguments,
            enable_fp_fusion=True,
            **configuration,
        )

    candidates = find_candidates(_CANDIDATES, query.dtype, arguments["BLOCK_K"])
    sizes = {"queries": queries, "keys": key.shape[2], "size": size}
    # From 1 on: 0 and 1 are one class of sizes. A bias takes shared memory.
    sizes |= {"causal": 1 + causal, "bias": 1 + (bias is not None)}
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(query):
        launch(tuning.choose("attention", sizes, query.dtype, query.device, candidates, launch))
    return out, logsumexp, plain
