"""Attention by lengths as operators of torch, which compiled graphs and gradients know.

Shapes: see `attention_blocks`.
"""

from typing import Any

import torch
from torch import Tensor

from lmcore.kernels import attention_backward, attention_forward, rotation
from lmcore.kernels.attention_blocks import Ranges, make_heads


@torch.library.custom_op("lmcore::rotate", mutates_args=())
def _rotate(states: Tensor, cosines: Tensor, sines: Tensor, offset: int, back: bool) -> Tensor:
    return rotation.rotate(states, cosines, sines, offset, back=back)


@_rotate.register_fake
def _(states: Tensor, cosines: Tensor, sines: Tensor, offset: int, back: bool) -> Tensor:
    return make_heads(states)


def _keep_tables(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, cosines, sines, ctx.offset, ctx.back = inputs
    ctx.save_for_backward(cosines, sines)


def _rotate_back(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    cosines, sines = ctx.saved_tensors
    return _rotate(gradient, cosines, sines, ctx.offset, not ctx.back), None, None, None, None


_rotate.register_autograd(_rotate_back, setup_context=_keep_tables)


@torch.library.custom_op("lmcore::attention", mutates_args=())
def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor | None,
    query_lengths: Tensor | None,
    key_starts: Tensor | None,
    key_lengths: Tensor | None,
    head_mask: Tensor | None,
    bias: Tensor | None,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    ranges = (query_starts, query_lengths, key_starts, key_lengths)
    return attention_forward.forward(
        query, key, value, ranges, head_mask, bias,
        causal=causal, scale=scale, dropout=dropout, seed=seed, keep=keep,
    )  # fmt: skip


@_attend.register_fake
def _(query: Tensor, *others: Any) -> tuple[Tensor, Tensor, Tensor]:
    logsumexp = query.new_empty(query.shape[:3], dtype=torch.float32)
    plain = make_heads(query) if others[-1] else query.new_empty(0)
    return make_heads(query), logsumexp, plain


@torch.library.custom_op("lmcore::attention_backward", mutates_args=())
def _attend_backward(
    gradient: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    query_starts: Tensor | None,
    query_lengths: Tensor | None,
    key_starts: Tensor | None,
    key_lengths: Tensor | None,
    head_mask: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    logsumexp: Tensor,
    plain: Tensor,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
    keep: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    ranges = (query_starts, query_lengths, key_starts, key_lengths)
    return attention_backward.backward(
        gradient, query, key, value, out, logsumexp, plain, ranges, head_mask, bias,
        causal=causal, scale=scale, dropout=dropout, seed=seed, keep=keep, needs_bias=needs_bias,
    )  # fmt: skip


@_attend_backward.register_fake
def _(
    gradient: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    bias, (keep, needs_bias) = others[5], others[-2:]
    mask = query.shape[:2] if keep else (0,)
    return (
        make_heads(query),
        make_heads(key),
        make_heads(value),
        query.new_empty(mask, dtype=torch.float32),
        bias.new_empty(bias.shape) if needs_bias else query.new_empty(0),
    )


def _keep_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    *tensors, causal, scale, dropout, seed, keep = inputs
    ctx.mark_non_differentiable(*output[1:])
    # Or torch would hand zeros over as the gradients of these.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*tensors, *output)
    ctx.numbers = (causal, scale, dropout, seed, keep)


def _differentiate(ctx: Any, gradient: Tensor | None, *_: Any) -> tuple[Any, ...]:
    if gradient is None:
        return (None,) * 14
    *numbers, keep = ctx.numbers
    needs = ctx.needs_input_grad
    mask, bias = ctx.saved_tensors[7:9]
    query, key, value, grad_mask, grad_bias = _attend_backward(
        gradient, *ctx.saved_tensors, *numbers, keep, bias is not None and needs[8]
    )
    return (
        query,
        key,
        value,
        *[None] * 4,
        grad_mask.to(mask.dtype) if keep else None,
        grad_bias if needs[8] else None,
        *[None] * 5,
    )


_attend.register_autograd(_differentiate, setup_context=_keep_context)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    ranges: Ranges,
    head_mask: Tensor | None,
    bias: Tensor | None,
    rope: tuple[Tensor, Tensor] | None,
    *,
    causal: bool,
    scale: float,
    dropout: float,
    seed: int,
) -> Tensor:
    """Returns the output of attention, `[B, H, T, K]`, with its gradient.

    Args:
        query: `[B, H, T, K]` float32, bfloat16 or float16, K at most 256.
        key: `[B, G, S, K]` of the same type.
        value: `[B, G, S, K]` of the same type.
        ranges: starts and lengths of queries, starts and lengths of keys, each `[B]` or None.
        head_mask: `[H]` or `[B, H]` floating point or bool, or None.
        bias: `[H, T + S - 1]` floating point or None.
        rope: cosines and sines, or None.
        causal: whether later keys are hidden.
        scale: of the products, finite.
        dropout: the share that is dropped.
        seed: below 2**64.
    """
    if rope is not None:
        cosines, sines = (table.detach() for table in rope)
        query = _rotate(query, cosines, sines, key.shape[2] - query.shape[2], False)
        key = _rotate(key, cosines, sines, 0, False)
    if scale <= 0:
        # The largest score is that of the largest product.
        query, scale = (-query, -scale) if scale else (query * 0, 1.0)
    keep = False
    if head_mask is not None:
        keep = torch.is_grad_enabled() and head_mask.requires_grad
        head_mask = head_mask.expand(query.shape[:2])
    # An argument of an operator is an int64.
    signed = seed - (1 << 64) if seed >= 1 << 63 else seed
    out, _, _ = _attend(
        query, key, value, *ranges, head_mask, bias, causal, float(scale), float(dropout), signed,
        keep,
    )  # fmt: skip
    return out
