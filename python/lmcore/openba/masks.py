"""Which keys a query sees, in the form that each attention implementation takes.

Shapes: B rows, T queries, S keys.

The authors fill the score of a hidden key with -10000, so a query that sees no key at all attends
to all of them alike. The implementations of attention do not agree on such a query: some give
zeros, some NaN. Here it sees every key and is set to zero, which is that uniform mean in all of
them. Attention by lengths (`lmcore`) has no mask that could show every key to one query alone:
there a row without source tokens is treated so, and a target's padding before its first token gets
zero.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers.cache_utils import Cache
from transformers.masking_utils import create_bidirectional_mask, create_causal_mask
from transformers.utils.import_utils import is_tracing

from lmcore._attention import NAME
from lmcore.openba.configuration_openba import OpenBAConfig


class Mask(NamedTuple):
    """What an attention is told of its keys.

    Attributes:
        visible: as the implementation takes it; None where nothing is hidden, or only what a
            causal attention hides by itself.
        blind: `[B, 1, T or 1, 1]` bool, queries that see no key; None if there is none.
    """

    visible: Any
    blind: Tensor | None


def mask_source(
    config: OpenBAConfig, states: Tensor, mask: Tensor | None, source: Tensor | None = None
) -> Mask:
    """Returns which source tokens the encoder, or the decoder's cross-attention, sees.

    Args:
        config: names the implementation of attention.
        states: `[B, T, D]`, those of the queries.
        mask: `[B, S]`, visible where at least 0.5; `[B, 1, T, S]` bool, or floats that are added
            to the scores; None hides nothing.
        source: `[B, S, D]`, the encoder's output for cross-attention.

    Raises:
        ValueError: the mask has another shape.

    Example:
        >>> config = OpenBAConfig(attn_implementation="sdpa")
        >>> mask_source(config, torch.ones(1, 2, 4), torch.tensor([[1, 0]])).visible.tolist()
        [[[[True, False], [True, False]]]]
    """
    if mask is not None and mask.ndim not in (2, 4):
        raise ValueError(
            f"attention_mask must have the shape [batch, source] or [batch, 1, queries, source]: "
            f"got {list(mask.shape)}"
        )
    keys = states if source is None else source
    blind = None
    if mask is not None and mask.ndim == 2:
        if mask.shape != keys.shape[:2]:
            raise ValueError(
                f"attention_mask must have the shape {list(keys.shape[:2])} of the source: "
                f"got {list(mask.shape)}"
            )
        mask = read_mask(mask)
        nothing = ~mask.any(1)
        # Attention by lengths does not wait for a GPU, and here is nothing to gain from an answer.
        if is_tracing(mask) or config._attn_implementation == NAME or bool(nothing.any()):
            mask = mask | nothing[:, None]
            blind = nothing[:, None, None, None]
    made = create_bidirectional_mask(
        config=config, inputs_embeds=states, attention_mask=mask, encoder_hidden_states=source
    )
    return Mask(made, blind) if blind is not None else _mark_blind(made)


def mask_target(
    config: OpenBAConfig, states: Tensor, mask: Tensor | None, cache: Cache | None
) -> Mask:
    """Returns which target tokens the decoder's self-attention sees.

    Args:
        config: names the implementation of attention.
        states: `[B, T, D]`, those of the queries.
        mask: `[B, S]`, visible where at least 0.5 and not later, cached tokens included;
            `[B, T, S]` or `[B, 1, T, S]` bool, which is not made causal; `[B, 1, T, S]` floats
            are added to the scores; None hides later tokens only.
        cache: of the self-attention.

    Raises:
        ValueError: the mask has another shape.

    Example:
        >>> config = OpenBAConfig(attn_implementation="eager")
        >>> mask_target(config, torch.ones(1, 2, 4), None, None).visible.tolist()
        [[[[True, False], [True, True]]]]
    """
    if mask is not None and mask.ndim not in (2, 3, 4):
        raise ValueError(
            f"decoder_attention_mask must have 2, 3 or 4 dimensions: got {list(mask.shape)}"
        )
    if mask is not None and mask.ndim < 4:
        if cache is None and mask.shape[:: 2 if mask.ndim == 3 else 1] != states.shape[:2]:
            raise ValueError(
                f"decoder_attention_mask must cover the {list(states.shape[:2])} target tokens: "
                f"got {list(mask.shape)}"
            )
        mask = read_mask(mask)
        if mask.ndim == 3:
            return _mark_blind(_prepare(config, mask[:, None], states))
    made = create_causal_mask(config=config, inputs_embeds=states, attention_mask=mask, cache=cache)
    if config._attn_implementation == "eager" and (mask is None or mask.ndim == 2):
        made = made == 0
    return _mark_blind(made)


def read_mask(mask: Tensor) -> Tensor:
    """Returns a mask of the authors' kind as bool: visible where at least 0.5.

    Args:
        mask: of any shape and dtype.

    Example:
        >>> read_mask(torch.tensor([1, 0])).tolist()
        [True, False]
    """
    return mask if mask.dtype == torch.bool else mask >= 0.5


def _prepare(config: OpenBAConfig, mask: Tensor, states: Tensor) -> Tensor:
    """A `[B, 1, T, S]` bool mask for implementations that take none."""
    if config._attn_implementation != "flex_attention":
        return mask
    lowest = torch.finfo(states.dtype).min
    return torch.zeros_like(mask, dtype=states.dtype).masked_fill(~mask, lowest)


def _mark_blind(mask: Any) -> Mask:
    if not isinstance(mask, Tensor) or mask.ndim != 4 or mask.dtype != torch.bool:
        return Mask(mask, None)
    blind = ~mask.any(-1, keepdim=True)
    if not is_tracing(mask) and not bool(blind.any()):
        return Mask(mask, None)
    return Mask(mask | blind, blind)
