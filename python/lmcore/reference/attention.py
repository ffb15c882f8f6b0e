"""Scaled dot-product attention over the part of each row that is there.

Which keys a query sees follows from a start and a length of each row and from causal order, so
that no mask of queries x keys is handed over.  Everything is computed in float32 whatever the type
of the inputs (in float64 for float64).

Shapes: B rows, H heads, G heads of keys and values, T queries, S keys, K head size.

Source: Vaswani et al. (arXiv 1706.03762), section 3.2.1; rotary positions: Su et al.
(arXiv 2104.09864), in the layout that turns dimension j with dimension j + K / 2.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from lmcore.reference._arguments import check_int
from lmcore.reference.philox import Stream

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROUNDS = 10


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
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
    """Returns softmax(scale * q k^T + bias) v over the keys that each query sees.

    A query that sees no key, and one outside of its row's range, gives zero.

    Args:
        q: `[B, H, T, K]` floating point.
        k: `[B, G, S, K]` of the same type; G divides H.
        v: `[B, G, S, K]` of the same type.
        query_lengths: `[B]` int32 or int64, how many queries of a row are there; None: all.
        key_lengths: `[B]` int32 or int64, how many keys of a row are there; None: all.
        query_starts: `[B]` int32 or int64, the first query that is there; None: 0.
        key_starts: `[B]` int32 or int64, the first key that is there; None: 0.
        causal: whether query i, whose place is S - T + i, sees keys up to its place alone.
        scale: of the products; None: K ** -0.5.
        head_mask: `[H]` or `[B, H]` floating point or bool, which multiplies a head's output.
        bias: `[H, T + S - 1]` floating point, of distances: entry m is added where a key's place
            less the query's is m - (S - 1).
        rope: cosines and sines, each `[at least S, K]` or `[B, S, K]`, of the places.
        dropout: which share of the weights is dropped, at least 0 and below 1.
        seed: of what is dropped, below 2**64.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or a number is out of its range.

    Example:
        >>> q, k = torch.zeros(1, 1, 2, 1), torch.zeros(1, 1, 2, 1)
        >>> v = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
        >>> attention(q, k, v, causal=True).flatten()
        tensor([1., 2.])
        >>> attention(q, k, v, key_lengths=torch.tensor([1])).flatten()
        tensor([1., 1.])
    """
    numbers = {
        "query_lengths": query_lengths,
        "key_lengths": key_lengths,
        "query_starts": query_starts,
        "key_starts": key_starts,
    }
    check_arguments(q, k, v, numbers, head_mask, bias, rope, dropout, seed)
    (rows, heads, queries, size), keys = q.shape, k.shape[2]
    kind = torch.promote_types(q.dtype, torch.float32)
    asked = find_range(query_starts, query_lengths, queries, q)
    if head_mask is not None and head_mask.dtype == torch.bool:
        # A head that is shut asks nothing.
        asked = asked & head_mask[..., None, None]
    known = find_range(key_starts, key_lengths, keys, k)
    # What is not there is not read: it may be no number.
    x = torch.where(asked, q, 0).to(kind)
    y, z = (torch.where(known, part, 0).to(kind) for part in (k, v))
    if rope is not None:
        cosines, sines = (place_table(table.detach().to(kind), keys) for table in rope)
        x = rotate(x, cosines[..., keys - queries :, :], sines[..., keys - queries :, :])
        y = rotate(y, cosines, sines)
    y, z = (part.repeat_interleave(heads // k.shape[1], 1) for part in (y, z))
    scores = x @ y.transpose(2, 3) * (size**-0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + spread_bias(bias.to(kind), queries, keys)
    visible = asked & known.transpose(2, 3)
    if causal:
        visible = visible & order(queries, keys, q.device)
    scores = scores.masked_fill(~visible, -torch.inf)
    blind = (scores == -torch.inf).all(3, keepdim=True)
    weights = scores.masked_fill(blind, 0).softmax(3).masked_fill(blind, 0)
    if dropout:
        kept = keep_weights(seed, dropout, (rows, heads, queries, keys), q.device)
        weights = torch.where(kept, weights / (1 - dropout), 0)
    return apply_head_mask(weights @ z, head_mask).to(q.dtype)


def find_range(starts: Tensor | None, lengths: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Returns which positions of each row are there, `[B or 1, 1, size, 1]` bool.

    Those from the start on, as many as the length says; what of them is no position is none.

    Args:
        starts: `[B]` integers; None: 0.
        lengths: `[B]` integers; None: up to the end.
        size: how many positions there are.
        like: a tensor on the device of the result.

    Example:
        >>> find_range(torch.tensor([1]), torch.tensor([2]), 4, torch.ones(1)).flatten()
        tensor([False,  True,  True, False])
    """
    places = torch.arange(size, device=like.device)[:, None]
    found = torch.ones_like(places, dtype=torch.bool)[None, None]
    first: Tensor | int = 0
    if starts is not None:
        # Neither this nor a place less it goes around at the ends of int64.
        first = starts.long().clamp(min=-(1 << 62))[:, None, None, None]
        found = found & (places >= first)
    if lengths is not None:
        found = found & (places - first < lengths.long().clamp(max=1 << 62)[:, None, None, None])
    return found


def order(queries: int, keys: int, device: torch.device) -> Tensor:
    """Returns which keys a query sees in causal order, `[queries, keys]` bool.

    Args:
        queries: how many.
        keys: how many; the last query stands beside the last of them.
        device: of the result.

    Example:
        >>> order(1, 3, torch.device("cpu"))
        tensor([[True, True, True]])
    """
    return torch.ones(queries, keys, dtype=torch.bool, device=device).tril(keys - queries)


def spread_bias(table: Tensor, queries: int, keys: int) -> Tensor:
    """Returns the bias of each query and key, `[H, queries, keys]`.

    Args:
        table: `[H, queries + keys - 1]`, by distance.
        queries: how many.
        keys: how many.

    Example:
        >>> spread_bias(torch.arange(4.0)[None], 2, 3)
        tensor([[[1., 2., 3.],
                 [0., 1., 2.]]])
    """
    i = torch.arange(queries, device=table.device)[:, None]
    j = torch.arange(keys, device=table.device)
    return table[:, j - i + queries - 1]


def place_table(table: Tensor, keys: int) -> Tensor:
    """Returns a rotary table by place: `[B, 1, keys, K]`, or `[keys, K]` where rows share it.

    Args:
        table: `[B, keys, K]` or `[at least keys, K]`.
        keys: how many places.

    Example:
        >>> place_table(torch.ones(9, 2), 3).shape
        torch.Size([3, 2])
    """
    return table[:, None] if table.dim() == 3 else table[:keys]


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Returns heads with dimension j and j + K / 2 turned as a pair.

    Args:
        x: `[B, H, T, K]`.
        cosines: of the shape of x, or one that is spread over it.
        sines: of the same shape.

    Example:
        >>> rotate(torch.tensor([1.0, 2.0]), torch.zeros(2), torch.ones(2))
        tensor([-2.,  1.])
    """
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat([-second, first], -1) * sines


def keep_weights(
    seed: int, dropout: float, shape: tuple[int, int, int, int], device: torch.device
) -> Tensor:
    """Returns which weights are kept, `[B, H, T, S]` bool.

    The weight of key j for query i in head h of row b is kept where the upper half of the 64
    random bits of (seed, stream 241, item, j) is at least 2**32 times `dropout`, rounded.  The
    item has b H + h as its upper and i as its lower 32 bits, so that neither the number of queries
    nor that of keys changes what is drawn.

    Args:
        seed: below 2**64.
        dropout: the share that is dropped.
        shape: B, H, T, S.
        device: of the result.

    Example:
        >>> keep_weights(1, 0.5, (1, 1, 1, 4), torch.device("cpu")).shape
        torch.Size([1, 1, 1, 4])
    """
    rows, heads, queries, keys = shape
    pairs = torch.arange((keys + 1) // 2, device=device)
    lower = torch.arange(queries, device=device)[:, None]
    upper = torch.arange(rows * heads, device=device).view(rows, heads, 1, 1)
    words = mix(
        (pairs, lower, upper, torch.full_like(pairs, Stream.ATTENTION_DROPOUT)),
        (seed & _MASK, seed >> 32),
    )
    # Two positions share a block: its second word is the upper half of the even one's bits.
    high = torch.stack([words[1], words[3]], -1).flatten(3)[..., :keys]
    return high >= find_threshold(dropout)


def find_threshold(dropout: float) -> int:
    """Returns below which number of 32 bits a weight is dropped.

    Args:
        dropout: the share that is dropped.

    Example:
        >>> find_threshold(0.5) == 2**31
        True
    """
    return min(round(dropout * 2**32), _MASK)


def mix(
    counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the four words that Philox4x32-10 makes of many counters and a key.

    Args:
        counter: int64 of values below 2**32, of shapes that are spread over one another.
        key: two words below 2**32.

    Example:
        >>> zero = torch.zeros((), dtype=torch.int64)
        >>> [f"{word:08x}" for word in mix((zero, zero, zero, zero), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(_ROUNDS):
        # These wrap around at 2**63, which leaves their bits as they are.
        product_0, product_1 = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (
            (product_1 >> 32 & _MASK) ^ c1 ^ k0,
            product_1 & _MASK,
            (product_0 >> 32 & _MASK) ^ c3 ^ k1,
            product_0 & _MASK,
        )
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return c0, c1, c2, c3


def apply_head_mask(x: Tensor, head_mask: Tensor | None) -> Tensor:
    """Returns heads, each times its number; what a bool shuts is zero, whatever stands there.

    Args:
        x: `[B, H, T, K]`.
        head_mask: `[H]` or `[B, H]` floating point or bool; None: all are open.

    Example:
        >>> apply_head_mask(torch.ones(1, 2, 1, 1), torch.tensor([True, False])).flatten()
        tensor([1., 0.])
    """
    if head_mask is None:
        return x
    whole = head_mask[..., None, None]
    return torch.where(whole, x, 0) if head_mask.dtype == torch.bool else x * whole.to(x.dtype)


def check_arguments(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    numbers: Mapping[str, Tensor | None],
    head_mask: Tensor | None,
    bias: Tensor | None,
    rope: tuple[Tensor, Tensor] | None,
    dropout: float,
    seed: int,
) -> None:
    """Checks the arguments of `attention`.

    Args:
        q: as there.
        k: as there.
        v: as there.
        numbers: starts and lengths by their names.
        head_mask: as there.
        bias: as there.
        rope: as there.
        dropout: as there.
        seed: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or a number is out of its range.

    Example:
        >>> x = torch.ones(1, 2, 3, 4)
        >>> check_arguments(x, x, x, {}, None, None, None, 0.0, 0)
    """
    _check_heads(q, k, v)
    (rows, heads, queries, size), keys = q.shape, k.shape[2]
    for name, tensor in numbers.items():
        if tensor is None:
            continue
        if tensor.dtype not in (torch.int32, torch.int64):
            raise TypeError(f"{name} must be of int32 or int64: got {tensor.dtype}")
        _check_shape(name, tensor, (rows,))
    if head_mask is not None:
        if not (head_mask.is_floating_point() or head_mask.dtype == torch.bool):
            raise TypeError(f"head_mask must be of floating point or bool: got {head_mask.dtype}")
        _check_shape("head_mask", head_mask, (heads,), (rows, heads))
    if bias is not None:
        _check_floating("bias", bias)
        _check_shape("bias", bias, (heads, max(queries + keys - 1, 0)))
    if rope is not None:
        _check_rope(rope, rows, queries, keys, size)
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout must be at least 0 and below 1: got {dropout}")
    check_int("seed", seed, 0, 1 << 64)


def _check_heads(q: Tensor, k: Tensor, v: Tensor) -> None:
    _check_floating("query", q)
    for name, tensor in (("key", k), ("value", v)):
        if tensor.dtype != q.dtype:
            raise TypeError(f"{name} must be of {q.dtype} as query is: got {tensor.dtype}")
    if q.dim() != 4 or not q.shape[3]:
        raise ValueError(
            f"query must have the shape [rows, heads, queries, at least 1]: got {list(q.shape)}"
        )
    rows, heads, _, size = q.shape
    if k.dim() != 4 or (k.shape[0], k.shape[3]) != (rows, size):
        raise ValueError(
            f"key must have the shape [{rows}, heads, keys, {size}]: got {list(k.shape)}"
        )
    if not k.shape[1] or heads % k.shape[1]:
        raise ValueError(f"heads of key must divide the {heads} of query: got {k.shape[1]}")
    _check_shape("value", v, tuple(k.shape))


def _check_rope(rope: tuple[Tensor, Tensor], rows: int, queries: int, keys: int, size: int) -> None:
    if len(rope) != 2:
        raise ValueError(f"rope must hold cosines and sines: got {len(rope)} tensors")
    if size % 2:
        raise ValueError(f"rope needs an even head size: got {size}")
    if queries > keys:
        raise ValueError(f"rope needs as many keys as queries: got {keys} and {queries}")
    for name, table in zip(("cosines", "sines"), rope, strict=True):
        _check_floating(f"rope's {name}", table)
        fits = table.dim() == 2 and table.shape[0] >= keys and table.shape[1] == size
        if not fits and table.shape != (rows, keys, size):
            raise ValueError(
                f"rope's {name} must have the shape [at least {keys}, {size}] or "
                f"[{rows}, {keys}, {size}]: got {list(table.shape)}"
            )


def _check_floating(name: str, tensor: Tensor) -> None:
    if not tensor.is_floating_point():
        raise TypeError(f"{name} must be of floating point: got {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor, *shapes: tuple[int, ...]) -> None:
    if tuple(tensor.shape) not in shapes:
        wanted = " or ".join(str(list(shape)) for shape in shapes)
        raise ValueError(f"{name} must have the shape {wanted}: got {list(tensor.shape)}")
