"""Attention of OpenBA: rotary self-attention and cross-attention, with the heads' own layouts.

Shapes: B rows, T queries, S keys, D hidden size, H heads, K head size, P = H * K.
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.cache_utils import Cache, EncoderDecoderCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS
from transformers.utils.import_utils import is_tracing

from lmcore.openba.configuration_openba import OpenBAConfig
from lmcore.openba.masks import Mask

HIDDEN_SCORE = -10000.0
"""What the authors fill in for the score of a hidden key."""


class Rotation(NamedTuple):
    """Cosines and sines of rotary angles, each `[B or 1, 1, T, K / 2]` float32."""

    cosines: Tensor
    sines: Tensor


def make_rotation(positions: Tensor, size: int, theta: float) -> Rotation:
    """Returns the rotations of positions: pair j turns by `position * theta ** (-2j / size)`.

    There is no table that could be too short, and none that a checkpoint could lack.

    Args:
        positions: `[B or 1, T]` int64.
        size: K, even.
        theta: base of the angles.

    Example:
        >>> make_rotation(torch.tensor([[0, 1]]), 4, 10000.0).cosines.shape
        torch.Size([1, 1, 2, 2])
    """
    pairs = torch.arange(0, size, 2, device=positions.device, dtype=torch.float32)
    angles = positions[:, None, :, None].float() * theta ** (-pairs / size)
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Tensor, rotation: Rotation) -> Tensor:
    """Returns heads with dimension j and j + K / 2 turned as a pair, in the dtype they had.

    Args:
        x: `[B, H, T, K]`.
        rotation: of the same positions.

    Example:
        >>> rotation = make_rotation(torch.tensor([[0]]), 2, 10000.0)
        >>> rotate(torch.tensor([[[[1.0, 2.0]]]]), rotation).tolist()
        [[[[1.0, 2.0]]]]
    """
    first, second = x.float().chunk(2, -1)
    cosines, sines = rotation
    turned = (first * cosines - second * sines, second * cosines + first * sines)
    return torch.cat(turned, -1).to(x.dtype)


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[Tensor, Tensor]:
    """Returns what queries attend to, and their weights; scores are float32 as the authors'.

    Args:
        module: that attends, which says whether it trains.
        query: `[B, H, T, K]`.
        key: `[B, H, S, K]`.
        value: `[B, H, S, K]`.
        attention_mask: `[B, 1, T, S]`; bool is visible where true, floats are added.
        scaling: of the scores.
        dropout: probability for weights.
        kwargs: for other implementations.

    Returns:
        `[B, T, H, K]` and `[B, H, T, S]`.

    Example:
        >>> ones = torch.ones(1, 1, 2, 2)
        >>> eager_attention_forward(nn.Identity(), ones, ones, ones, None, scaling=1.0)[1].tolist()
        [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    scores = query.float() @ key.float().transpose(2, 3) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, HIDDEN_SCORE)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = functional.dropout(scores.softmax(-1), dropout, module.training).to(value.dtype)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class Attention(nn.Module):
    """What both attentions share: heads, implementation and output projection."""

    is_causal = False

    def __init__(self, config: OpenBAConfig, layer_idx: int) -> None:
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.head_dim = config.kv_channels
        self.scaling = config.kv_channels**-0.5
        self.dropout = float(config.attention_dropout)
        self.o = nn.Linear(config.heads_size, config.hidden_size, bias=config.add_qkv_bias)

    def _split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """The parts `[B, H, T, K]` of `[B, T, parts * P]`: they lie side by side in each head."""
        heads = x.view(*x.shape[:2], -1, parts, self.head_dim)
        return tuple(part.transpose(1, 2) for part in heads.unbind(3))

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Mask, **kwargs: Any
    ) -> tuple[Tensor, Tensor | None]:
        """`[B, T, D]`, and the weights where the implementation gives them."""
        if mask.blind is not None:
            query = query.masked_fill(mask.blind, 0.0)
        attend: Callable[..., tuple[Tensor, Tensor | None]]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.dropout if self.training else 0.0
        attended, weights = attend(
            self, query, key, value, mask.visible, dropout=dropout, scaling=self.scaling, **kwargs
        )
        return self.o(attended.flatten(2)), weights


class SelfAttention(Attention):
    """Attention within a text, causal in the decoder.

    The rows of `qkv` lie by heads: K of a head's query, K of its key, K of its value.
    """

    def __init__(self, config: OpenBAConfig, layer_idx: int, *, is_causal: bool) -> None:
        super().__init__(config, layer_idx)
        self.is_causal = is_causal
        size = 3 * config.heads_size
        self.qkv = nn.Linear(config.hidden_size, size, bias=config.add_qkv_bias)

    def forward(
        self,
        states: Tensor,
        mask: Mask,
        rotation: Rotation,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns `[B, T, D]` for `[B, T, D]`, and the weights if the implementation has them."""
        query, key, value = self._split(self.qkv(states), 3)
        query, key = rotate(query, rotation), rotate(key, rotation)
        if cache is not None:
            key, value = cache.update(key, value, self.layer_idx)
        return self._attend(query, key, value, mask, **kwargs)


class CrossAttention(Attention):
    """Attention of the decoder to the encoder's output, without rotation.

    The rows of `kv` lie by heads: K of a head's key, K of its value.
    """

    def __init__(self, config: OpenBAConfig, layer_idx: int) -> None:
        super().__init__(config, layer_idx)
        self.q = nn.Linear(config.hidden_size, config.heads_size, bias=config.add_qkv_bias)
        self.kv = nn.Linear(config.hidden_size, 2 * config.heads_size, bias=config.add_qkv_bias)

    def forward(
        self,
        states: Tensor,
        source: Tensor,
        mask: Mask,
        cache: EncoderDecoderCache | None = None,
        *,
        projects_source: bool = True,
        **kwargs: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """Returns `[B, T, D]` for `[B, T, D]`, and the weights if the implementation has them."""
        (query,) = self._split(self.q(states), 1)
        if not projects_source:
            return self._attend_to_states(query, source, mask), None
        if cache is not None and cache.is_updated.get(self.layer_idx):
            layer: Any = cache.cross_attention_cache.layers[self.layer_idx]
            key, value = layer.keys, layer.values
        else:
            key, value = self._split(self.kv(source), 2)
            if cache is not None:
                key, value = cache.cross_attention_cache.update(key, value, self.layer_idx)
                cache.is_updated[self.layer_idx] = True
        # A static cache may have more room than the source has tokens.
        length = source.shape[1]
        key, value = key[:, :, :length], value[:, :, :length]
        return self._attend(query, key, value, mask, **kwargs)

    def _attend_to_states(self, query: Tensor, source: Tensor, mask: Mask) -> Tensor:
        """The same with the maps of keys and values on the side of the queries.

        A score `q . (W s + b)` is `(W^T q) . s` and a number that all keys of a query share, which
        the softmax forgets; a mean of values is the map of the mean of the states, as weights add
        up to one. So each source token costs T * H * D multiplications, and not P * D: less
        wherever there are fewer queries than K.
        """
        rows, heads, count, size = query.shape
        if mask.blind is not None:
            query = query.masked_fill(mask.blind, 0.0)
        key, value = self.kv.weight.view(heads, 2, size, -1).unbind(1)
        asked = (query * self.scaling) @ key
        scores = (asked.flatten(1, 2) @ source.mT).float().view(rows, heads, count, -1)
        visible = mask.visible
        if visible is not None and visible.dtype == torch.bool:
            scores = scores.masked_fill(~visible, HIDDEN_SCORE)
        elif visible is not None:
            scores = scores + visible
        weights = scores.softmax(-1).to(source.dtype)
        read = (weights.flatten(1, 2) @ source).view(rows, heads, count, -1)
        attended = read @ value.mT
        if self.kv.bias is not None:
            attended = attended + self.kv.bias.view(heads, 2, 1, size)[:, 1]
        result: Tensor = self.o(attended.transpose(1, 2).flatten(2))
        return result


def place(
    length: int,
    past: int | Tensor,
    mask: Tensor | None,
    *,
    shift: bool,
    device: torch.device,
) -> Tensor:
    """Returns the positions of new tokens, `[B or 1, length]` int64.

    Args:
        length: of the new tokens.
        past: number of cached ones before them.
        mask: `[B, past + length]` bool, or None where nothing is hidden.
        shift: whether hidden tokens on the left take no positions.
        device: of the result.

    Example:
        >>> mask = torch.tensor([[False, True, True]])
        >>> place(3, 0, mask, shift=True, device=mask.device).tolist()
        [[0, 0, 1]]
    """
    positions = (torch.arange(length, device=device) + past)[None]
    if shift and mask is not None and mask.ndim == 2:
        left = (mask.long().cumsum(1) == 0).sum(1, keepdim=True)
        positions = (positions - left).clamp(min=0)
    return positions


def warn_of_length(length: int, trained: int, setting: str, warned: set[str]) -> None:
    """Checks that positions are those a model was trained with, and warns once where not.

    Args:
        length: positions that are used.
        trained: positions that the configuration names.
        setting: that names them.
        warned: settings that were warned of, to which this one is added.

    Example:
        >>> warn_of_length(5, 8, "max_seq_length", set())
    """
    if length <= trained or setting in warned or is_tracing():
        return
    warned.add(setting)
    warnings.warn(
        f"{length} positions are more than the {trained} of {setting} that the model was trained "
        "with; rotary positions go on, and its answers may become worse",
        RuntimeWarning,
        stacklevel=2,
    )
