"""Attention by lengths of the rows, without a mask of queries x keys."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.ops._autocast import cast
from lmcore.ops._dispatch import choose
from lmcore.reference import attention as reference

__all__ = ["attention"]

# Head sizes that the kernel has; above, a block of a head is too large for a multiprocessor.
_LARGEST = 256


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    query_lengths: Tensor | None = None,
    key_lengths: Tensor | None = None,
    query_starts: Tensor | None = None,
    key_starts: Tensor | None = None,
    causal: bool = False,
    scale: float | None = None,
    head_mask: Tensor | None = None,
    bias: Tensor | None = None,
    rope: tuple[Tensor, Tensor] | None = None,
    dropout: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """Returns softmax(scale * query key^T + bias) value over the keys that each query sees.

    The keys of row b are `key_starts[b]` and the `key_lengths[b] - 1` behind it, and so are its
    queries; what of such a range is no position of the tensor is left out.  Padding on the right
    has lengths alone, padding on the left starts.  What is outside is not read, so it may be NaN,
    and gets no gradient; a value that causal order alone hides may reach others where it is NaN,
    as in torch's own attention.  A query outside of its range, one that sees no key, and one whose
    scores are all minus infinity give zero.  In causal order the last query stands beside the last
    key of the tensors, as with a cache.

    There is a gradient to query, key, value, a `head_mask` of floating point, and `bias`.  Scores
    and sums are float32 (float64 for float64).  On a CUDA device blocks that no query sees, and
    heads that a bool shuts, are left out; lengths stay on the device, and other lengths or sizes
    compile nothing anew.  Without lengths, head mask, bias, rope and dropout it is torch's own
    attention there, but for causal order of another number of queries than of keys.  Under
    autocast query, key and value have its type.

    Source: Vaswani et al. (arXiv 1706.03762), section 3.2.1; in blocks: FlashAttention-2
    (arXiv 2307.08691); rotary positions: Su et al. (arXiv 2104.09864).

    Args:
        query: `[B, H, T, K]` floating point.
        key: `[B, G, S, K]` of the same type; G divides H, and heads side by side share one.
        value: `[B, G, S, K]` of the same type.
        query_lengths: `[B]` int32 or int64; None: up to the end.
        key_lengths: `[B]` int32 or int64; None: up to the end.
        query_starts: `[B]` int32 or int64; None: 0.
        key_starts: `[B]` int32 or int64; None: 0.
        causal: whether query i, whose place is S - T + i, sees keys up to its place alone.
        scale: of the products; None: K ** -0.5.
        head_mask: `[H]` or `[B, H]` floating point or bool, which multiplies a head's output.
        bias: `[H, T + S - 1]` floating point, by distance: entry m is added where the key's place
            less the query's is m - (S - 1).
        rope: cosines and sines by place, each `[at least S, K]` or `[B, S, K]` floating point,
            with which queries and keys are turned, dimension j with j + K / 2.
        dropout: the share of the weights that is dropped, at least 0 and below 1.
        seed: of what is dropped, below 2**64: a function of (seed, row, head, query, key) alone,
            by Philox, the same on every device.

    Returns:
        `[B, H, T, K]` of the same type.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, a number is out of its range, or tensors are on several
            devices.

    Example:
        >>> query, key = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 3, 1)
        >>> value = torch.tensor([1.0, 3.0, 8.0]).view(1, 1, 3, 1)
        >>> attention(query, key, value, causal=True).flatten()
        tensor([2., 4.])
        >>> attention(query, key, value, key_lengths=torch.tensor([2])).flatten()
        tensor([2., 2.])
    """
    numbers = {
        "query_lengths": query_lengths,
        "key_lengths": key_lengths,
        "query_starts": query_starts,
        "key_starts": key_starts,
    }
    others = (*numbers.values(), head_mask, bias, *(rope or ()))
    way = choose(query, key, value, *(tensor for tensor in others if tensor is not None))
    query, key, value = cast(query, key, value)
    is_empty = not (query.numel() and key.numel())
    is_plain = not any(tensor is not None for tensor in others) and not dropout
    # Where nothing is hidden torch's own is as fast on a GPU, but order of a part of the queries
    # is a mask to it.
    queries = query.shape[2:3]
    is_plain = is_plain and (not causal or queries == key.shape[2:3] or queries == (1,))
    way = "core" if query.is_cuda and is_plain and way == "kernel" else way
    # Torch gives no gradient to the bias of a tensor without elements.
    if way == "core" and not dropout and not is_empty:
        reference.check_arguments(query, key, value, numbers, head_mask, bias, rope, dropout, seed)
        return _attend_by_torch(query, key, value, numbers, causal, scale, head_mask, bias, rope)
    if way == "kernel" and query.dtype != torch.float64 and query.shape[-1] <= _LARGEST:
        reference.check_arguments(query, key, value, numbers, head_mask, bias, rope, dropout, seed)
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels.attention import attend

        ranges = (query_starts, query_lengths, key_starts, key_lengths)
        size = query.shape[3]
        return attend(
            query, key, value, ranges, head_mask, bias, rope, causal=causal,
            scale=size**-0.5 if scale is None else scale, dropout=dropout, seed=seed,
        )  # fmt: skip
    return reference.attention(
        query, key, value, **numbers, causal=causal, scale=scale, head_mask=head_mask, bias=bias,
        rope=rope, dropout=dropout, seed=seed,
    )  # fmt: skip


def _find_range(kind: str, tensor: Tensor, numbers: Mapping[str, Tensor | None]) -> Tensor | None:
    """Which queries or keys are there, `[B, 1, T, 1]`; None: all."""
    starts, lengths = numbers[f"{kind}_starts"], numbers[f"{kind}_lengths"]
    if starts is None and lengths is None:
        return None
    return reference.find_range(starts, lengths, tensor.shape[2], tensor)


def _attend_by_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    numbers: Mapping[str, Tensor | None],
    causal: bool,
    scale: float | None,
    head_mask: Tensor | None,
    bias: Tensor | None,
    rope: tuple[Tensor, Tensor] | None,
) -> Tensor:
    """The definition without dropout by torch's own attention, with a mask made of the ranges."""
    (heads, queries), (groups, keys) = query.shape[1:3], key.shape[1:3]
    dtype = query.dtype
    # A single query is the last one, and sees all keys.
    causal = causal and queries > 1
    asked, known = _find_range("query", query, numbers), _find_range("key", key, numbers)
    mask = None if known is None else known.transpose(2, 3)
    if head_mask is not None and head_mask.dtype == torch.bool:
        # A head that is shut asks nothing, and nothing is asked of keys that only such ones share.
        is_open = head_mask[..., None, None]
        shared = head_mask.unflatten(-1, (groups, -1)).any(-1)[..., None, None]
        asked = is_open if asked is None else asked & is_open
        known = shared if known is None else known & shared
    if asked is not None:
        query = torch.where(asked, query, 0)
    if known is not None:
        key, value = torch.where(known, key, 0), torch.where(known, value, 0)
    if rope is not None:
        kind = torch.promote_types(dtype, torch.float32)
        cosines, sines = (reference.place_table(t.detach().to(kind), keys) for t in rope)
        mine = (table[..., keys - queries :, :] for table in (cosines, sines))
        query = reference.rotate(query.to(kind), *mine).to(dtype)
        key = reference.rotate(key.to(kind), cosines, sines).to(dtype)
    ordered = causal and queries == keys and mask is None and bias is None
    if causal and not ordered:
        before = reference.order(queries, keys, query.device)
        mask = before if mask is None else mask & before
    if bias is not None:
        spread = reference.spread_bias(bias.to(dtype), queries, keys)
        mask = spread if mask is None else torch.where(mask, spread, -torch.inf)
    with torch.autocast(query.device.type, enabled=False):
        found = functional.scaled_dot_product_attention(
            query, key, value, mask, is_causal=ordered, scale=scale, enable_gqa=groups != heads
        )
    if asked is not None:
        found = torch.where(asked, found, 0)
    return reference.apply_head_mask(found, head_mask)
