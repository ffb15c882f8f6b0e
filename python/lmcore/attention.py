"""`attn_implementation="lmcore"`: attention by lengths for the models of transformers.

Importing this module, or a system of lmcore that has models, registers it.  A mask of queries x
keys is never made: of a padding mask, the start and the length of each row are kept, and later
tokens are hidden by order.  What these cannot say is an error that names another implementation:
masks with holes, sliding windows, packed sequences, functions of one's own, dense masks.

    import lmcore.attention
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="lmcore")

Padding may be on either side.  A query that sees no key, as padding on the left before the first
token, gets zeros.

What models hand from the mask function to the attention is a tensor `[B, 1, N, S + 1]` int32, which
passes where dense masks do, and holds N numbers of a row, each many times in one place of memory:
with N = 1 there is causal order alone; otherwise starts and lengths of the keys; with N = 3 they
are seen in causal order, the last query beside the last key; with N = 4 as well, and the fourth is
the place of the first query, since the keys of a static cache go on behind the last query.

Scores of S keys take no mask of S + 1: models that compute attention themselves, and ask this for
a mask because of its name alone, end with an error and not with numbers of another mask or of none.

Shapes: B rows, H heads, G heads of keys and values, T queries, S keys, K head size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.masking_utils import bidirectional_mask_function, causal_mask_function
from transformers.utils.import_utils import is_tracing

from lmcore._attention import NAME, register_attention
from lmcore.ops.attention import attention

__all__ = ["attend", "draw_seed", "make_ranges", "register_attention"]

_OTHERS = 'attn_implementation="sdpa" takes it'
# Options of other implementations that change numbers, and who has them.
_REFUSED = {
    **dict.fromkeys(("softcap", "s_aux", "sinks", "output_attentions"), '"eager"'),
    **dict.fromkeys(("indices", "block_indices"), '"sdpa" or "eager"'),
    **dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), '"flash_attention_2"'),
}
_HOLES = f"attention_mask must show tokens in one run in each row: {_OTHERS}"


def make_ranges(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: Tensor | None = None,
    allow_is_causal_skip: bool = True,
    allow_is_bidirectional_skip: bool = False,
    device: torch.device | str = "cpu",
    **kwargs: Any,
) -> Tensor | None:
    """Returns which keys each row has, in the place of a mask; the arguments are transformers'.

    On a CUDA device nothing waits: a mask with holes ends the work of the device with an error.

    Args:
        batch_size: B.
        q_length: T.
        kv_length: S.
        q_offset: place of the first query; a tensor with a static cache.
        kv_offset: place of the first key, which must be 0.
        mask_function: transformers' for causal order or for none.
        attention_mask: `[B, at most S]` bool, the tokens that are there; None: all.
        allow_is_causal_skip: whether the result may say that there is causal order alone.
        allow_is_bidirectional_skip: whether None may say that nothing is hidden.
        device: of the result.
        kwargs: of other implementations.

    Returns:
        `[B, 1, N, S + 1]` int32, as above; None where each query sees all keys.

    Raises:
        ValueError: starts and lengths cannot say which keys are seen.

    Example:
        >>> padded = torch.tensor([[True, True, False], [False, True, True]])
        >>> make_ranges(
        ...     2, 3, 3, attention_mask=padded, mask_function=bidirectional_mask_function
        ... )[:, 0, :, 0]
        tensor([[0, 2],
                [1, 2]], dtype=torch.int32)
    """
    is_causal = mask_function is causal_mask_function
    if not is_causal and mask_function is not bidirectional_mask_function:
        raise ValueError(
            f'attn_implementation="{NAME}" takes causal order or none, and padding: a sliding '
            "window, packed sequences (position_ids that start again; while compiling, any without "
            f"an attention_mask) or another mask function need another one; {_OTHERS}"
        )
    if not isinstance(kv_offset, int) or kv_offset:
        raise ValueError(f"keys must start at place 0, as in a cache of all tokens; {_OTHERS}")
    if attention_mask is not None:
        if attention_mask.ndim != 2:
            # On a GPU it would pass for a mask with holes, and end the work of the device.
            got = list(attention_mask.shape)
            raise ValueError(f"attention_mask must have the shape [batch, tokens]: got {got}")
        attention_mask = functional.pad(
            attention_mask.bool(), (0, kv_length - attention_mask.shape[1])
        )
        if _can_ask(attention_mask) and bool(attention_mask.all()):
            attention_mask = None
    # A query alone is the last one, and sees all keys up to its own place.
    aligned = isinstance(q_offset, int) and q_offset + q_length == kv_length
    alone = aligned and q_length == 1
    if attention_mask is None:
        if (alone and allow_is_causal_skip) if is_causal else allow_is_bidirectional_skip:
            return None
        starts = torch.zeros(batch_size, dtype=torch.int32, device=device)
        if is_causal and allow_is_causal_skip and aligned and q_length == kv_length:
            return _spread([starts], kv_length)
        lengths = torch.full_like(starts, kv_length)
    else:
        starts, lengths = _find_ranges(attention_mask)
    columns = [starts, lengths]
    if is_causal and not alone:
        if isinstance(q_offset, Tensor):
            first = q_offset.to(starts.device, torch.int32).expand_as(starts)
        else:
            # Not made on the host: a copy of it to a GPU would wait.
            first = torch.full_like(starts, q_offset)
        if q_length == 1:
            # Also the one query of a static cache needs no order.
            columns[1] = torch.minimum(lengths, first + 1 - starts).clamp(min=0)
        else:
            columns += [first] if aligned else [first, first]
    return _spread(columns, kv_length)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    position_bias: Tensor | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Returns what queries attend to, and no weights; the arguments are transformers'.

    Args:
        module: that attends; its `is_causal` counts where there is neither mask nor argument.
        query: `[B, H, T, K]`.
        key: `[B, G, S, K]`.
        value: `[B, G, S, K]`.
        attention_mask: what `make_ranges` returns.
        dropout: probability for weights; its draws follow a seed of torch's generator.
        scaling: of the scores; None: K ** -0.5.
        is_causal: whether later keys are hidden where there is no mask.
        position_bias: `[1, H, T, S]`, which depends on the distance alone, as T5's.
        kwargs: of other implementations.

    Returns:
        `[B, T, H, K]`, and None.

    Raises:
        ValueError: the mask is dense, or something is asked for that this has not.

    Example:
        >>> ones = torch.ones(1, 1, 3, 2)
        >>> values = torch.arange(3.0).view(1, 1, 3, 1).expand(1, 1, 3, 2)
        >>> attend(nn.Identity(), ones, ones, values, None, is_causal=True)[0][0, :, 0, 0]
        tensor([0.0000, 0.5000, 1.0000])
    """
    queries, keys = query.shape[2], key.shape[2]
    for name, other in _REFUSED.items():
        if kwargs.get(name) is not None and kwargs[name] is not False:
            raise ValueError(f'attn_implementation="{NAME}" has no {name}: {other} has it')
    window = kwargs.get("sliding_window")
    if window is not None and keys > window:
        raise ValueError(f"{keys} keys are more than the sliding_window of {window}: {_OTHERS}")
    ranges: dict[str, Any] = {}
    first = None
    if attention_mask is None:
        asked = is_causal if is_causal is not None else getattr(module, "is_causal", True)
        causal = bool(asked) and queries > 1
        if causal and keys > queries:
            # As elsewhere in transformers: the first keys are those of the queries.
            key, value, keys = key[:, :, :queries], value[:, :, :queries], queries
            position_bias = None if position_bias is None else position_bias[..., :queries]
    else:
        _check_ranges(attention_mask, keys)
        columns = attention_mask[:, 0, :, 0].unbind(-1)
        if len(columns) > 1:
            ranges = {"key_starts": columns[0], "key_lengths": columns[1]}
        causal, first = len(columns) != 2, columns[3] if len(columns) > 3 else None
    bias = None if position_bias is None else _tabulate(position_bias)
    if attention_mask is None and causal and keys < queries:
        # So again: later queries see all keys.  What fills up is none.
        ranges = {"key_lengths": torch.full((len(key),), keys, device=key.device)}
        key, value = (functional.pad(part, (0, 0, 0, queries - keys)) for part in (key, value))
        bias = None if bias is None else functional.pad(bias, (0, queries - keys))
    if first is not None and bias is not None:
        raise ValueError(f"a static cache has no position bias here: {_OTHERS}")
    if first is not None:
        query = _place(query, first, keys)
        ranges |= {"query_starts": first, "query_lengths": torch.full_like(first, queries)}
    found = attention(
        query, key, value, **ranges, causal=causal, scale=scaling, bias=bias, dropout=dropout,
        seed=draw_seed() if dropout else 0,
    )  # fmt: skip
    if first is not None:
        found = found.gather(2, _list_places(first, queries, found))
    return found.transpose(1, 2).contiguous(), None


def draw_seed() -> int:
    """Returns a seed for dropout from torch's generator on the CPU, which waits for no device.

    Example:
        >>> _ = torch.manual_seed(0)
        >>> first = draw_seed()
        >>> draw_seed() != first
        True
    """
    return int(torch.randint(1 << 62, (), device="cpu"))


def _can_ask(tensor: Tensor) -> bool:
    """Whether the values of a tensor are here, without a wait."""
    return tensor.device.type == "cpu" and not is_tracing(tensor)


def _assert_on_device(condition: Tensor, text: str) -> None:
    # A compiler of torch writes the text into a program, between quotes that it does not escape.
    torch._assert_async(condition, text.replace('"', ""))


def _find_ranges(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Starts and lengths of the runs in `[B, S]` bool."""
    starts, lengths = mask.int().argmax(1), mask.sum(1)
    places = torch.arange(mask.shape[1], device=mask.device) - starts[:, None]
    fits = ((places >= 0) & (places < lengths[:, None])) == mask
    if _can_ask(mask):
        if not bool(fits.all()):
            row = int((~fits.all(1)).nonzero()[0, 0])
            raise ValueError(f"{_HOLES}; row {row} has a hole")
    elif mask.device.type != "meta":
        _assert_on_device(fits.all(), _HOLES)
    return starts, lengths


def _spread(columns: list[Tensor], keys: int) -> Tensor:
    """Ranges `[B, 1, N, keys + 1]` of N numbers of rows, each `[B]`."""
    made = torch.stack([column.to(torch.int32) for column in columns], -1)
    return made[:, None, :, None].expand(-1, -1, -1, keys + 1)


def _check_ranges(mask: Any, keys: int) -> None:
    is_ours = isinstance(mask, Tensor) and mask.dtype == torch.int32 and mask.ndim == 4
    if is_ours and mask.shape[1] == 1 and 1 <= mask.shape[2] <= 4:
        if mask.shape[3] == keys + 1:
            return
        raise ValueError(f"attention_mask must cover the {keys} keys: got {mask.shape[3] - 1}")
    got = f"{mask.dtype} {list(mask.shape)}" if isinstance(mask, Tensor) else type(mask).__name__
    raise ValueError(
        f'attn_implementation="{NAME}" takes an attention_mask [batch, tokens], of which '
        f"transformers makes ranges, and no dense mask: got {got}; {_OTHERS}"
    )


def _tabulate(bias: Tensor) -> Tensor:
    """The table `[H, T + S - 1]` of a bias that depends on the distance alone."""
    if bias.shape[0] != 1:
        raise ValueError(f"position_bias must be that of all rows: got {list(bias.shape)}")
    table = torch.cat([bias[0, :, :, 0].flip(-1), bias[0, :, 0, 1:]], -1)
    # Along a diagonal each is as the one before.
    found = bias.detach()
    same = (found[..., 1:, 1:] == found[..., :-1, :-1]).all()
    text = f"position_bias must depend on the distance of query and key alone; {_OTHERS}"
    if _can_ask(same):
        if not bool(same):
            raise ValueError(text)
    elif same.device.type != "meta":
        _assert_on_device(same, text)
    return table


def _list_places(first: Tensor, queries: int, like: Tensor) -> Tensor:
    """The places of queries as an index of dimension 2, `[B, H, T, K]`."""
    places = first.long()[:, None] + torch.arange(queries, device=first.device)
    return places[:, None, :, None].expand(-1, like.shape[1], -1, like.shape[3])


def _place(query: Tensor, first: Tensor, keys: int) -> Tensor:
    """Queries at their places among as many as there are keys."""
    room = query.new_zeros(*query.shape[:2], keys, query.shape[3])
    return room.scatter(2, _list_places(first, query.shape[2], query), query)


register_attention()
