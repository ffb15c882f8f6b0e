"""The encoder and the decoder of OpenBA: pre-normalised blocks with a gated feed-forward.

Shapes: B rows, S source tokens, T target tokens, D hidden size, F inner size, V vocabulary.

The paper speaks of sandwich normalisation and RMSNorm; the released code and weights have one
LayerNorm with bias before each sublayer, and so has this.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutput,
    BaseModelOutputWithPastAndCrossAttentions,
)
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import OutputRecorder, capture_outputs

from lmcore.openba.attention import (
    CrossAttention,
    Rotation,
    SelfAttention,
    make_rotation,
    place,
    warn_of_length,
)
from lmcore.openba.checkpoints import LoadingModel
from lmcore.openba.configuration_openba import OpenBAConfig
from lmcore.openba.masks import Mask, mask_source, mask_target, read_mask


class FeedForward(nn.Module):
    """Two maps with a gate between them (SwiGLU); the gate is the first half of `fc_in`."""

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__()
        size, inner, bias = config.hidden_size, config.inner_size, config.add_ffn_bias
        self.fc_in = nn.Linear(size, 2 * inner, bias=bias)
        self.fc_out = nn.Linear(inner, size, bias=bias)

    def forward(self, states: Tensor) -> Tensor:
        """Returns `[B, T, D]` for `[B, T, D]`."""
        gate, up = self.fc_in(states).chunk(2, -1)
        result: Tensor = self.fc_out(functional.silu(gate) * up)
        return result


class EncoderBlock(GradientCheckpointingLayer):
    """Self-attention and feed-forward, each normalised before and added after."""

    def __init__(self, config: OpenBAConfig, layer_idx: int) -> None:
        super().__init__()
        self.dropout = float(config.hidden_dropout)
        self.input_layernorm = _make_norm(config)
        self.self_attn = SelfAttention(config, layer_idx, is_causal=False)
        self.post_attn_layernorm = _make_norm(config)
        self.mlp = FeedForward(config)

    def forward(self, states: Tensor, mask: Mask, rotation: Rotation, **kwargs: Any) -> Tensor:
        """Returns `[B, S, D]` for `[B, S, D]`."""
        attended, _ = self.self_attn(self.input_layernorm(states), mask, rotation, **kwargs)
        states = states + _drop(attended, self)
        inner = self.mlp(self.post_attn_layernorm(states))
        return states + _drop(inner, self)


class DecoderBlock(GradientCheckpointingLayer):
    """Causal self-attention, cross-attention and feed-forward, normalised and added likewise."""

    def __init__(self, config: OpenBAConfig, layer_idx: int) -> None:
        super().__init__()
        self.dropout = float(config.hidden_dropout)
        self.input_layernorm = _make_norm(config)
        self.self_attn = SelfAttention(config, layer_idx, is_causal=True)
        self.post_attn_layernorm = _make_norm(config)
        self.inter_attn = CrossAttention(config, layer_idx)
        self.post_inter_attn_layernorm = _make_norm(config)
        self.mlp = FeedForward(config)

    def forward(
        self,
        states: Tensor,
        source: Tensor,
        mask: Mask,
        source_mask: Mask,
        rotation: Rotation,
        cache: EncoderDecoderCache | None = None,
        projects_source: bool = True,
        **kwargs: Any,
    ) -> Tensor:
        """Returns `[B, T, D]` for `[B, T, D]` and a source `[B, S, D]`."""
        own = None if cache is None else cache.self_attention_cache
        attended, _ = self.self_attn(self.input_layernorm(states), mask, rotation, own, **kwargs)
        states = states + _drop(attended, self)
        normed = self.post_attn_layernorm(states)
        attended, _ = self.inter_attn(
            normed, source, source_mask, cache, projects_source=projects_source, **kwargs
        )
        states = states + _drop(attended, self)
        inner = self.mlp(self.post_inter_attn_layernorm(states))
        return states + _drop(inner, self)


_BLOCKS = ["EncoderBlock", "DecoderBlock"]
_CACHE_NAMES = ["cache", "past_key_values"]


class OpenBAPreTrainedModel(LoadingModel, PreTrainedModel):
    """What all models of OpenBA share: how weights start, load and are divided.

    Weights start as in the authors' pre-training (Megatron's rule): normal with the configuration's
    `initializer_range`, output projections with that over the root of twice their stack's depth,
    biases zero.
    """

    config: OpenBAConfig
    config_class = OpenBAConfig
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = _BLOCKS
    _skip_keys_device_placement = _CACHE_NAMES
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave."""
        spread = self.config.initializer_range * self.config.initializer_factor
        for name, parameter in module.named_parameters(recurse=False):
            if isinstance(module, nn.LayerNorm) and name == "weight":
                initialization.ones_(parameter)
            elif parameter.ndim >= 2:
                scale = getattr(module, "start_scale", 1.0)
                initialization.normal_(parameter, 0.0, spread * scale)
            else:
                initialization.zeros_(parameter)


# A head is a slice of the rows of `qkv`, `q` and `kv`, so a share of the rows is a share of the
# heads; `fc_in` is divided in both of its halves.
_PLAN = {
    "block.*.self_attn.qkv": "colwise",
    "block.*.self_attn.o": "rowwise",
    "block.*.mlp.fc_in": "packed_colwise",
    "block.*.mlp.fc_out": "rowwise",
}
_ENCODER_PLAN = {"embed_tokens": "embedding_rowwise", **_PLAN}
_DECODER_PLAN = {
    **_PLAN,
    "block.*.inter_attn.q": "colwise",
    "block.*.inter_attn.kv": "colwise",
    "block.*.inter_attn.o": "rowwise",
}
# What no block holds is gathered by the whole model, the embedding among it, which may be tied.
_SHARDS = {"block.*": "free_full_weight"}
_ENCODER_OUTPUTS = {
    "hidden_states": EncoderBlock,
    "attentions": OutputRecorder(SelfAttention, index=1),
}
_DECODER_OUTPUTS = {
    "hidden_states": DecoderBlock,
    "attentions": OutputRecorder(SelfAttention, index=1),
    "cross_attentions": OutputRecorder(CrossAttention, index=1),
}


class OpenBAEncoder(OpenBAPreTrainedModel):
    """Returns the encoder's states of a source; it holds the embedding that the decoder uses too.

    Args:
        config: the sizes.

    Example:
        >>> config = OpenBAConfig(vocab_size=9, hidden_size=8, encoder_layers=1)
        >>> OpenBAEncoder(config)(torch.tensor([[3, 1]])).last_hidden_state.shape
        torch.Size([1, 2, 8])
    """

    _can_record_outputs = _ENCODER_OUTPUTS
    _tp_plan = _ENCODER_PLAN
    _fsdp_plan = _SHARDS

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        blocks = (EncoderBlock(config, i) for i in range(config.encoder_layers))
        self.block = nn.ModuleList(blocks)
        self.final_layernorm = _make_norm(config)
        self.gradient_checkpointing = False
        self._warned: set[str] = set()
        _scale_outputs(self.block)
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Returns the embedding."""
        return self.embed_tokens

    def set_input_embeddings(self, value: Any) -> None:
        """Takes another embedding."""
        self.embed_tokens = value

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Returns the states of the source tokens, normalised.

        Args:
            input_ids: `[B, S]` int64.
            attention_mask: `[B, S]`, visible where at least 0.5; `[B, 1, S, S]` bool, or floats
                that are added to the scores; None hides nothing.
            position_ids: `[B or 1, S]` int64; as the configuration says if None.
            inputs_embeds: `[B, S, D]` in place of `input_ids`.
            kwargs: of transformers, such as `output_hidden_states`.

        Raises:
            ValueError: not exactly one of ids and embeddings is given, or the mask's shape is
                another.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give input_ids or inputs_embeds, and not both")
        states: Tensor = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if position_ids is None:
            length = states.shape[1]
            warn_of_length(length, self.config.max_seq_length, "max_seq_length", self._warned)
            shown = None if attention_mask is None else read_mask(attention_mask)
            shift = self.config.shift_positions
            position_ids = place(length, 0, shown, shift=shift, device=states.device)
        mask = mask_source(self.config, states, attention_mask)
        rotation = _make_rotation(self.config, position_ids)
        kwargs.pop("use_cache", None)
        for block in self.block:
            states = block(states, mask, rotation, **kwargs)
        return BaseModelOutput(last_hidden_state=self.final_layernorm(states))


class OpenBADecoder(OpenBAPreTrainedModel):
    """Returns the decoder's states of embedded target tokens.

    Args:
        config: the sizes.

    Example:
        >>> config = OpenBAConfig(vocab_size=9, hidden_size=8, decoder_layers=1)
        >>> states = OpenBADecoder(config)(torch.ones(1, 3, 8), torch.ones(1, 2, 8))
        >>> states.last_hidden_state.shape
        torch.Size([1, 3, 8])
    """

    _can_record_outputs = _DECODER_OUTPUTS
    _tp_plan = _DECODER_PLAN
    _fsdp_plan = _SHARDS

    def __init__(self, config: OpenBAConfig) -> None:
        super().__init__(config)
        blocks = (DecoderBlock(config, i) for i in range(config.decoder_layers))
        self.block = nn.ModuleList(blocks)
        self.final_layernorm = _make_norm(config)
        self.gradient_checkpointing = False
        self._warned: set[str] = set()
        _scale_outputs(self.block)
        self.post_init()  # type: ignore[no-untyped-call]

    @merge_with_config_defaults  # type: ignore[untyped-decorator]
    @capture_outputs  # type: ignore[untyped-decorator]
    def forward(
        self,
        inputs_embeds: Tensor,
        encoder_hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        encoder_attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: EncoderDecoderCache | None = None,
        use_cache: bool | None = None,
        projects_source: bool = True,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Returns the states of the target tokens, normalised.

        Args:
            inputs_embeds: `[B, T, D]`, those of the new tokens.
            encoder_hidden_states: `[B, S, D]`.
            attention_mask: `[B, past + T]`, visible where at least 0.5 and not later;
                `[B, T, past + T]` or `[B, 1, T, past + T]` bool, which is not made causal;
                `[B, 1, T, past + T]` floats are added to the scores.
            encoder_attention_mask: `[B, S]`, as the encoder's.
            position_ids: `[B or 1, T]` int64; behind the cached ones if None.
            cache: of the tokens before; it is extended.
            use_cache: whether to make a cache where none is given.
            projects_source: whether cross-attention makes keys and values of the source. Without,
                few queries are answered sooner, and the same but for rounding: their maps work on
                the queries. Dropout of weights is left out then, and no weights are recorded.
            kwargs: of transformers, such as `output_hidden_states`.

        Raises:
            ValueError: a mask's shape is another, or there is a cache for keys that are not made.
            TypeError: the cache is of another kind.
        """
        if cache is not None and not isinstance(cache, EncoderDecoderCache):
            raise TypeError(f"cache must be an EncoderDecoderCache: got {type(cache).__name__}")
        if use_cache and cache is None:
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
        if cache is not None and not projects_source:
            raise ValueError("a cache keeps keys and values, which are not made of the source")
        own = None if cache is None else cache.self_attention_cache
        states = inputs_embeds
        if position_ids is None:
            past = 0 if own is None else own.get_seq_length()
            self._warn_of_length(states.shape[1], past, own)
            shown = None if attention_mask is None else read_mask(attention_mask)
            shift = self.config.shift_positions
            position_ids = place(states.shape[1], past, shown, shift=shift, device=states.device)
        mask = mask_target(self.config, states, attention_mask, own)
        source = encoder_hidden_states
        source_mask = mask_source(self.config, states, encoder_attention_mask, source)
        rotation = _make_rotation(self.config, position_ids)
        for block in self.block:
            states = block(
                states, source, mask, source_mask, rotation, cache=cache,
                projects_source=projects_source, **kwargs,
            )  # fmt: skip
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=self.final_layernorm(states), cache=cache
        )

    def _warn_of_length(self, new: int, past: int | Tensor, cache: Cache | None) -> None:
        # The length of a static cache is a tensor, which is not asked for its value: it may lie
        # on a GPU. Its room tells what it is for.
        room = cache is not None and not isinstance(past, int)
        length = cache.get_max_length() if room else past + new  # type: ignore[union-attr]
        setting = "decoder_max_seq_length"
        warn_of_length(int(length), self.config.decoder_max_seq_length, setting, self._warned)


def _drop(added: Tensor, block: EncoderBlock | DecoderBlock) -> Tensor:
    # Asked here, a token that is generated is spared three calls in each block.
    if not (block.training and block.dropout):
        return added
    return functional.dropout(added, block.dropout)


def _make_norm(config: OpenBAConfig) -> nn.LayerNorm:
    return nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


def _make_rotation(config: OpenBAConfig, positions: Tensor) -> Rotation:
    return make_rotation(positions, config.kv_channels, float(config.rope_theta))


def _scale_outputs(blocks: nn.ModuleList) -> None:
    """What is added to the states starts smaller, the more of it there is."""
    for name, module in blocks.named_modules():
        if name.rpartition(".")[2] in ("o", "fc_out"):
            module.start_scale = (2 * len(blocks)) ** -0.5
