"""Attention backward: gradients of queries and of the bias, then of keys and values.

Weights are made again from the scores and their log-sum-exp.  The first kernel has a block of
queries, as forward has, and also sums output x gradient, which both kernels need; the second has a
block of keys and goes over the queries that see it, head by head of those that share it.  No
program writes where another one does, so that the same input has the same gradients each time.

The gradient of the bias is described in `attention_bias`.

Source: FlashAttention-2 (arXiv 2307.08691), algorithm 2.  Shapes: see `attention_blocks`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning
from lmcore.kernels.attention_bias import add_diagonals, make_diagonals
from lmcore.kernels.attention_blocks import (
    Ranges,
    find_candidates,
    find_range,
    keep_weights,
    lay_heads,
    load_block,
    make_candidates,
    make_heads,
    store_block,
)
from lmcore.kernels.attention_forward import NUMBERS, POINTERS, make_arguments

_LOG2E = tl.constexpr(1.4426950408889634)
# By bytes of an element and largest power of two that holds a head.
_QUERIES = {
    (2, 64): make_candidates((64, 64, 4, 3), (128, 64, 8, 2)),
    (2, 128): make_candidates((64, 64, 8, 2), (128, 64, 8, 2)),
    (2, 256): make_candidates((64, 32, 8, 2), (32, 32, 8, 2)),
    (4, 64): make_candidates((32, 32, 8, 2), (16, 32, 4, 2)),
    (4, 128): make_candidates((16, 16, 4, 2), (32, 32, 8, 1)),
    (4, 256): make_candidates((16, 16, 8, 2)),
}
_KEYS = {
    (2, 64): make_candidates((32, 128, 8, 3), (64, 128, 8, 2), (64, 64, 8, 2)),
    (2, 128): make_candidates((32, 64, 8, 2), (64, 64, 8, 2), (32, 128, 8, 2)),
    (2, 256): make_candidates((32, 32, 8, 2), (32, 32, 8, 1)),
    (4, 64): make_candidates((32, 32, 8, 2), (32, 32, 4, 2)),
    (4, 128): make_candidates((16, 16, 4, 1), (16, 32, 8, 1)),
    (4, 256): make_candidates((16, 16, 8, 1)),
}
_GRADIENT = ["gradient_row", "gradient_head", "gradient_step", "natural", "width"]


@triton.jit
def _descend_keys(
    dq, carried, q, do, sums, delta, gate, key_base, value_base, key_step, value_step, begin, end,
    rows, asked, first_known, last_known, bias_base, diagonals, queries, shift, scale, boost,
    seed_low, seed_high, item, threshold,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, BIAS: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDEN: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    for first in tl.range(begin, end, BLOCK_N):
        columns = first + tl.arange(0, BLOCK_N)
        there = (columns >= first_known) & (columns < last_known)
        k = load_block(key_base, columns, key_step, there, SIZE, BLOCK_K, MASKED)
        v = load_block(value_base, columns, value_step, there, SIZE, BLOCK_K, MASKED)
        if WIDEN:
            k, v = k.to(tl.float32), v.to(tl.float32)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale
        if BIAS:
            own = bias_base + (columns[None, :] - rows[:, None] + queries - 1)
            readable = (rows < queries)[:, None] & there[None, :]
            scores += tl.load(own, mask=readable, other=0.0).to(tl.float32) * _LOG2E
        if MASKED:
            visible = asked[:, None] & there[None, :]
            if CAUSAL:
                visible = visible & (columns[None, :] <= (rows + shift)[:, None])
            scores = tl.where(visible, scores, float("-inf"))
        weights = tl.exp2(scores - sums[:, None])
        change = tl.dot(do, tl.trans(v), input_precision=PRECISION) * gate
        if DROPOUT:
            kept = keep_weights(seed_low, seed_high, item, rows, first, threshold, BLOCK_N)
            change = tl.where(kept, change * boost, 0.0)
        slope = weights * (change - delta[:, None])
        if MASKED:
            # A gradient that is no number shall not come through a weight of zero.
            slope = tl.where(visible, slope, 0.0)
        if diagonals is not None:
            # Row r is turned by r: column t then holds the diagonal t, or t - BLOCK_N.
            places = tl.arange(0, BLOCK_N)[None, :] + tl.arange(0, BLOCK_M)[:, None]
            turned = tl.gather(slope, places % BLOCK_N, 1)
            upper = tl.sum(tl.where(places < BLOCK_N, turned, 0.0), 0)
            lower = tl.sum(tl.where(places < BLOCK_N, 0.0, turned), 0)
            tl.store(diagonals + first + tl.arange(0, BLOCK_N), carried + lower)
            carried = upper
        dq = tl.dot(slope.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq, carried


@triton.jit(do_not_specialize=[*NUMBERS, *_GRADIENT], do_not_specialize_on_alignment=[*POINTERS])
def _queries_kernel(
    query, key, value, out, plain, logsumexp, gradient, deltas, products, query_gradient, diagonals,
    query_starts, query_lengths, key_starts, key_lengths, head_mask, bias,
    query_row, query_head, query_step, key_row, key_head, key_step,
    value_row, value_head, value_step, gradient_row, gradient_head, gradient_step,
    mask_row, mask_head, heads, share, queries, keys, scale, natural, seed_low, seed_high,
    threshold, boost, width,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr,
    ALIGN: tl.constexpr, WIDEN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
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
    if DROPOUT or diagonals is not None:
        # Two keys share a block of random words, and sums along diagonals lie by absolute places.
        begin = begin // BLOCK_N * BLOCK_N
    if CAUSAL:
        end = tl.minimum(end, tl.minimum((block + 1) * BLOCK_M, last_asked) + shift)
    first_asked = tl.maximum(first_asked, block * BLOCK_M)
    end = tl.where(first_asked < tl.minimum(last_asked, (block + 1) * BLOCK_M), end, begin)
    whole = end
    if CAUSAL:
        whole = tl.minimum(end, block * BLOCK_M + shift + 1)
    whole = begin + tl.maximum(whole - begin, 0) // BLOCK_N * BLOCK_N
    if DROPOUT or diagonals is not None:
        whole = begin

    query_step = query_step * ALIGN
    key_step = key_step * ALIGN
    value_step = value_step * ALIGN
    gradient_step = gradient_step * ALIGN
    step = heads * SIZE
    base = (row * queries * heads + head) * SIZE
    query_base = query + (row * query_row + head * query_head) * ALIGN
    key_base = key + (row * key_row + group * key_head) * ALIGN
    value_base = value + (row * value_row + group * value_head) * ALIGN
    gradient_base = gradient + (row * gradient_row + head * gradient_head) * ALIGN
    bias_base = bias
    if bias is not None:
        bias_base = bias + head * (queries + keys - 1)
    q = load_block(query_base, rows, query_step, asked, SIZE, BLOCK_K, True)
    do = load_block(gradient_base, rows, gradient_step, asked, SIZE, BLOCK_K, True)
    result = out if plain is None else plain
    result = load_block(result + base, rows, step, asked, SIZE, BLOCK_K, True)
    own = item.to(tl.int64) * queries + rows
    sums = tl.load(logsumexp + own, mask=asked, other=float("inf"))
    delta = tl.sum(result.to(tl.float32) * do.to(tl.float32), 1)
    if plain is not None:
        tl.store(products + own, delta, mask=rows < queries)
        delta *= gate
    tl.store(deltas + own, delta, mask=rows < queries)
    if WIDEN:
        q, do = q.to(tl.float32), do.to(tl.float32)
    if not SOFT:
        gate = 1.0

    dq = tl.zeros([BLOCK_M, BLOCK_K], tl.float32)
    carried = tl.zeros([BLOCK_N], tl.float32)
    diagonal_base = diagonals
    if diagonals is not None:
        diagonal_base = diagonals + (item.to(tl.int64) * blocks + block) * width
    else:
        if not DROPOUT:
            dq, carried = _descend_keys(
                dq, carried, q, do, sums, delta, gate, key_base, value_base, key_step, value_step,
                begin, whole, rows, asked, first_known, last_known, bias_base, diagonal_base,
                queries, shift, scale, boost, seed_low, seed_high, item, threshold,
                CAUSAL, DROPOUT, bias is not None, SIZE, BLOCK_M, BLOCK_N, BLOCK_K, WIDEN,
                PRECISION, False,
            )  # fmt: skip
    dq, carried = _descend_keys(
        dq, carried, q, do, sums, delta, gate, key_base, value_base, key_step, value_step,
        whole, end, rows, asked, first_known, last_known, bias_base, diagonal_base, queries,
        shift, scale, boost, seed_low, seed_high, item, threshold,
        CAUSAL, DROPOUT, bias is not None, SIZE, BLOCK_M, BLOCK_N, BLOCK_K, WIDEN, PRECISION, True,
    )  # fmt: skip
    if diagonals is not None:
        behind = whole + tl.cdiv(tl.maximum(end - whole, 0), BLOCK_N) * BLOCK_N
        tl.store(diagonal_base + behind + tl.arange(0, BLOCK_N), carried)
    # A key that is no number makes none of what does not see it.
    dq = tl.where(asked[:, None], dq * natural, 0.0)
    store_block(query_gradient + base, rows, step, dq, rows < queries, SIZE, BLOCK_K)


@triton.jit
def _descend_queries(
    dk, dv, k, v, gate, query_base, gradient_base, query_step, gradient_step, sums_base,
    deltas_base, begin, end, columns, there, first, last_asked, bias_base, queries, shift, scale,
    boost, seed_low, seed_high, item, threshold,
    DROPOUT: tl.constexpr, BIAS: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, WIDEN: tl.constexpr,
    PRECISION: tl.constexpr, MASKED: tl.constexpr,
):  # fmt: skip
    for start in tl.range(begin, end, BLOCK_M):
        rows = start + tl.arange(0, BLOCK_M)
        asked = rows < last_asked
        q = load_block(query_base, rows, query_step, asked, SIZE, BLOCK_K, True)
        do = load_block(gradient_base, rows, gradient_step, asked, SIZE, BLOCK_K, True)
        # Weights of queries that are not there become 2 ** -infinity.
        sums = tl.load(sums_base + rows, mask=asked, other=float("inf"))
        delta = tl.load(deltas_base + rows, mask=asked, other=0.0)
        if WIDEN:
            q, do = q.to(tl.float32), do.to(tl.float32)
        scores = tl.dot(k, tl.trans(q), input_precision=PRECISION) * scale
        if BIAS:
            own = bias_base + (columns[:, None] - rows[None, :] + queries - 1)
            readable = there[:, None] & asked[None, :]
            scores += tl.load(own, mask=readable, other=0.0).to(tl.float32) * _LOG2E
        if MASKED:
            visible = columns[:, None] <= (rows + shift)[None, :]
            scores = tl.where(visible, scores, float("-inf"))
        weights = tl.exp2(scores - sums[None, :])
        change = tl.dot(v, tl.trans(do), input_precision=PRECISION)
        kept_weights = weights
        if SOFT:
            change *= gate
            kept_weights = weights * gate
        if DROPOUT:
            kept = keep_weights(seed_low, seed_high, item, rows, first, threshold, BLOCK_N)
            kept = tl.trans(kept)
            kept_weights = tl.where(kept, kept_weights * boost, 0.0)
            change = tl.where(kept, change * boost, 0.0)
        dv = tl.dot(kept_weights.to(do.dtype), do, dv, input_precision=PRECISION)
        slope = weights * (change - delta[None, :])
        if MASKED:
            slope = tl.where(visible, slope, 0.0)
        dk = tl.dot(slope.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton.jit(do_not_specialize=[*NUMBERS, *_GRADIENT], do_not_specialize_on_alignment=[*POINTERS])
def _keys_kernel(
    query, key, value, logsumexp, gradient, deltas, key_gradient, value_gradient,
    query_starts, query_lengths, key_starts, key_lengths, head_mask, bias,
    query_row, query_head, query_step, key_row, key_head, key_step,
    value_row, value_head, value_step, gradient_row, gradient_head, gradient_step,
    mask_row, mask_head, heads, share, queries, keys, scale, natural, seed_low, seed_high,
    threshold, boost,
    CAUSAL: tl.constexpr, DROPOUT: tl.constexpr, SOFT: tl.constexpr, SIZE: tl.constexpr,
    ALIGN: tl.constexpr, WIDEN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
):  # fmt: skip
    blocks = tl.cdiv(keys, BLOCK_N)
    groups = heads // share
    block = tl.program_id(0) % blocks
    place = tl.program_id(0) // blocks
    row, group = (place // groups).to(tl.int64), (place % groups).to(tl.int64)
    first = block * BLOCK_N
    columns = first + tl.arange(0, BLOCK_N)
    first_asked, last_asked = find_range(query_starts, query_lengths, row, queries)
    first_known, last_known = find_range(key_starts, key_lengths, row, keys)
    there = (columns >= first_known) & (columns < last_known)
    shift = keys - queries
    begin, end = first_asked, last_asked
    if CAUSAL:
        begin = tl.minimum(tl.maximum(begin, tl.maximum(first, first_known) - shift), end)
    end = tl.where((last_known <= first) | (first_known >= first + BLOCK_N), begin, end)
    whole = begin
    if CAUSAL:
        # From here on every query sees the whole block.
        crossing = tl.maximum(first + BLOCK_N - 1 - shift - begin, 0)
        whole = tl.minimum(begin + tl.cdiv(crossing, BLOCK_M) * BLOCK_M, end)

    query_step = query_step * ALIGN
    key_step = key_step * ALIGN
    value_step = value_step * ALIGN
    gradient_step = gradient_step * ALIGN
    key_base = key + (row * key_row + group * key_head) * ALIGN
    value_base = value + (row * value_row + group * value_head) * ALIGN
    k = load_block(key_base, columns, key_step, there, SIZE, BLOCK_K, True)
    v = load_block(value_base, columns, value_step, there, SIZE, BLOCK_K, True)
    if WIDEN:
        k, v = k.to(tl.float32), v.to(tl.float32)
    dk = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    dv = tl.zeros([BLOCK_N, BLOCK_K], tl.float32)
    for part in range(share):
        head = group * share + part
        item = (row * heads + head).to(tl.int32)
        gate, own_whole, own_end = 1.0, whole, end
        if head_mask is not None:
            gate = tl.load(head_mask + row * mask_row + head * mask_head).to(tl.float32)
            if not SOFT:
                own_whole = tl.where(gate == 0, begin, whole)
                own_end = tl.where(gate == 0, begin, end)
        query_base = query + (row * query_row + head * query_head) * ALIGN
        gradient_base = gradient + (row * gradient_row + head * gradient_head) * ALIGN
        sums_base = logsumexp + item.to(tl.int64) * queries
        deltas_base = deltas + item.to(tl.int64) * queries
        bias_base = bias
        if bias is not None:
            bias_base = bias + head * (queries + keys - 1)
        if CAUSAL:
            dk, dv = _descend_queries(
                dk, dv, k, v, gate, query_base, gradient_base, query_step, gradient_step, sums_base,
                deltas_base, begin, own_whole, columns, there, first, last_asked, bias_base,
                queries, shift, scale, boost, seed_low, seed_high, item, threshold,
                DROPOUT, bias is not None, SOFT, SIZE, BLOCK_M, BLOCK_N, BLOCK_K, WIDEN, PRECISION,
                True,
            )  # fmt: skip
        dk, dv = _descend_queries(
            dk, dv, k, v, gate, query_base, gradient_base, query_step, gradient_step, sums_base,
            deltas_base, own_whole, own_end, columns, there, first, last_asked, bias_base,
            queries, shift, scale, boost, seed_low, seed_high, item, threshold,
            DROPOUT, bias is not None, SOFT, SIZE, BLOCK_M, BLOCK_N, BLOCK_K, WIDEN, PRECISION,
            False,
        )  # fmt: skip
    step = groups * SIZE
    base = (row * keys * groups + group) * SIZE
    inside = columns < keys
    # What is not there has no gradient, also where its scores are no numbers.
    dk = tl.where(there[:, None], dk * natural, 0.0)
    dv = tl.where(there[:, None], dv, 0.0)
    store_block(key_gradient + base, columns, step, dk, inside, SIZE, BLOCK_K)
    store_block(value_gradient + base, columns, step, dv, inside, SIZE, BLOCK_K)


def backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    logsumexp: Tensor,
    plain: Tensor,
    ranges: Ranges,
    head_mask: Tensor | None,
    bias: Tensor | None,
    *,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
    keep: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Returns the gradients of query, key, value, head mask and bias.

    The last two are empty tensors where they are not asked for; that of the mask is `[B, H]`
    float32.

    Args:
        gradient: `[B, H, T, K]`, of the output.
        query: as in `forward`.
        key: as in `forward`.
        value: as in `forward`.
        out: from `forward`.
        logsumexp: from `forward`.
        plain: from `forward`, `[B, H, T, K]` or empty.
        ranges: as in `forward`.
        head_mask: as in `forward`.
        bias: as in `forward`.
        causal: as in `forward`.
        scale: as in `forward`.
        dropout: as in `forward`.
        seed: as in `forward`.
        keep: as in `forward`.
        needs_bias: whether the gradient of the bias is asked for.
    """
    gradient, query, key, value = map(lay_heads, (gradient, query, key, value))
    rows, heads, queries, _ = query.shape
    groups, keys = key.shape[1:3]
    grad_query, grad_key, grad_value = make_heads(query), make_heads(key), make_heads(value)
    products = torch.zeros_like(logsumexp) if keep else logsumexp.new_empty(0)
    grad_bias = query.new_empty(0)
    if bias is not None and needs_bias:
        grad_bias = bias.new_zeros(bias.shape)
    if not out.numel() or not key.numel():
        for tensor in (grad_query, grad_key, grad_value):
            tensor.zero_()
        return grad_query, grad_key, grad_value, _sum_products(products, keep), grad_bias
    arguments = make_arguments(
        query, key, value, ranges, head_mask, bias,
        causal=causal, scale=scale, dropout=dropout, seed=seed, gradient=gradient,
    )  # fmt: skip
    deltas = torch.empty_like(logsumexp)
    arguments |= {
        "natural": scale,
        "logsumexp": logsumexp,
        "deltas": deltas,
    }

    def launch_queries(configuration: tuning.Configuration) -> None:
        blocks = triton.cdiv(queries, configuration["BLOCK_M"])
        diagonals = None
        if grad_bias.numel():
            diagonals = make_diagonals(deltas, keys, configuration)
        _queries_kernel[(blocks * rows * heads,)](
            out=out,
            plain=plain if keep else None,
            products=products if keep else None,
            query_gradient=grad_query,
            diagonals=diagonals,
            width=0 if diagonals is None else diagonals.shape[3],
            **arguments,
            enable_fp_fusion=True,
            **configuration,
        )
        if diagonals is not None:
            add_diagonals(diagonals, grad_bias, queries, configuration)

    def launch_keys(configuration: tuning.Configuration) -> None:
        blocks = triton.cdiv(keys, configuration["BLOCK_N"])
        _keys_kernel[(blocks * rows * groups,)](
            key_gradient=grad_key,
            value_gradient=grad_value,
            **arguments,
            enable_fp_fusion=True,
            **configuration,
        )

    # What is computed beside the products takes registers, as a larger head does.
    beside = (dropout > 0) + (bias is not None)
    block = min(arguments["BLOCK_K"] << beside, 256)
    sizes = {"queries": queries, "keys": keys, "size": query.shape[3]}
    # From 1 on: 0 and 1 are one class of sizes, but these have candidates of their own.
    sizes |= {"causal": 1 + causal, "beside": 1 + beside}
    with torch.cuda.device_of(query):
        # The first also sums what the second reads.
        for name, table, launch in (
            ("attention_queries", _QUERIES, launch_queries),
            ("attention_keys", _KEYS, launch_keys),
        ):
            candidates = find_candidates(table, query.dtype, block)
            if name == "attention_queries" and grad_bias.numel():
                name += "_bias"
                # A block must be as wide as it is high to be turned.
                candidates = [one for one in candidates if one["BLOCK_M"] <= one["BLOCK_N"]]
            launch(tuning.choose(name, sizes, query.dtype, query.device, candidates, launch))
    return grad_query, grad_key, grad_value, _sum_products(products, keep), grad_bias


def _sum_products(products: Tensor, keep: bool) -> Tensor:
    return products.sum(2) if keep else products
