"""The network of text diffusion: noisy latents and their timestep in, clean latents out.

Shapes: B rows, L positions, E latent size, D hidden size, H heads, K head size, V vocabulary.

The names in `state_dict` are those of DiffuSeq's files, so that these load.  There is no attention
mask: padding is generated like any other token, and is attended to.
"""

import math
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, initialization
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
from lmcore.diffusion.process import TIME_RANGE

_MAX_PERIOD = 10000.0


def make_sinusoids(timesteps: Tensor, size: int) -> Tensor:
    """Returns cosines and sines of timesteps at frequencies from 1 down to nearly 1 / 10,000.

    Args:
        timesteps: `[B]` float.
        size: of the result, even; the first half are cosines.

    Returns:
        `[B, size]` float32.

    Example:
        >>> make_sinusoids(torch.tensor([0.0]), 4)
        tensor([[1., 1., 0., 0.]])
    """
    exponents = torch.arange(size // 2, dtype=torch.float32, device=timesteps.device) / (size // 2)
    angles = timesteps.float()[:, None] * torch.exp(-math.log(_MAX_PERIOD) * exponents)
    return torch.cat([angles.cos(), angles.sin()], -1)


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
    """Returns what queries attend to, and their weights.

    Args:
        module: that attends, which says whether it trains.
        query: `[B, H, L, K]`.
        key: `[B, H, L, K]`.
        value: `[B, H, L, K]`.
        attention_mask: None; nothing is hidden.
        scaling: of the scores.
        dropout: probability for weights.
        kwargs: for other implementations.

    Returns:
        `[B, L, H, K]` and `[B, H, L, L]`.

    Example:
        >>> ones = torch.ones(1, 1, 2, 2)
        >>> eager_attention_forward(nn.Identity(), ones, ones, ones, None, scaling=1.0)[1].tolist()
        [[[[0.5, 0.5], [0.5, 0.5]]]]
    """
    weights: Tensor = (query @ key.transpose(2, 3) * scaling).softmax(-1)
    weights = functional.dropout(weights, dropout, module.training)
    attended: Tensor = weights @ value
    return attended.transpose(1, 2), weights


class _SelfAttention(nn.Module):
    is_causal = False

    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.config = config
        self.head_size = size // config.num_attention_heads
        self.query, self.key, self.value = (nn.Linear(size, size) for _ in range(3))

    def forward(self, states: Tensor) -> Tensor:
        """Returns `[B, L, D]` for `[B, L, D]`."""
        query, key, value = (
            project(states).unflatten(-1, (-1, self.head_size)).transpose(1, 2)
            for project in (self.query, self.key, self.value)
        )
        attend: Callable[..., tuple[Tensor, Tensor | None]]
        attend = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = float(self.config.attention_dropout) if self.training else 0.0
        attended, _ = attend(
            self, query, key, value, None, dropout=dropout, scaling=self.head_size**-0.5
        )
        result: Tensor = attended.flatten(2)
        return result


class _Output(nn.Module):
    """What a sublayer adds, and the normalisation behind it."""

    def __init__(self, config: TextDiffusionConfig, size: int) -> None:
        super().__init__()
        self.dense = nn.Linear(size, config.hidden_size)
        self.LayerNorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, states: Tensor, residual: Tensor) -> Tensor:
        """Returns `[B, L, D]` for `[B, L, size]` and `[B, L, D]`."""
        result: Tensor = self.LayerNorm(self.dropout(self.dense(states)) + residual)
        return result


class _Attention(nn.Module):
    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__()
        # As BERT calls it.
        self.add_module("self", _SelfAttention(config))
        self.output = _Output(config, config.hidden_size)

    def forward(self, states: Tensor) -> Tensor:
        """Returns `[B, L, D]` for `[B, L, D]`."""
        result: Tensor = self.output(self.get_submodule("self")(states), states)
        return result


class _Intermediate(nn.Module):
    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        """Returns the inner layer of the feed-forward."""
        return functional.gelu(self.dense(states))


class TextDiffusionLayer(GradientCheckpointingLayer):
    """Attention and feed-forward, each normalised after the addition, as in BERT.

    Args:
        config: the sizes.

    Example:
        >>> sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16}
        >>> TextDiffusionLayer(TextDiffusionConfig(**sizes))(torch.zeros(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__()
        self.attention = _Attention(config)
        self.intermediate = _Intermediate(config)
        self.output = _Output(config, config.intermediate_size)

    def forward(self, states: Tensor) -> Tensor:
        """Returns states with what the layer adds.

        Args:
            states: `[B, L, D]`.

        Returns:
            `[B, L, D]`.
        """
        states = self.attention(states)
        result: Tensor = self.output(self.intermediate(states), states)
        return result


class _Transformer(nn.Module):
    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__()
        layers = (TextDiffusionLayer(config) for _ in range(config.num_hidden_layers))
        self.layer = nn.ModuleList(layers)

    def forward(self, states: Tensor) -> Tensor:
        """Returns `[B, L, D]` for `[B, L, D]`."""
        for layer in self.layer:
            states = layer(states)
        return states


_LAYERS = ["TextDiffusionLayer"]
_TIED = {"lm_head.weight": "word_embedding.weight"}
# A table of 0, 1, 2, ... in the released files.
_IGNORED = [r"^position_ids$"]


class TextDiffusionModel(PreTrainedModel):
    """Returns estimates of clean latents for noisy ones.

    Weights start as torch's own layers do, embeddings from the standard normal distribution: the
    released code starts so.

    Source: DiffuSeq (arXiv 2210.08933), `transformer_model.py`.

    Args:
        config: the sizes.

    Example:
        >>> config = TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )
        >>> model = TextDiffusionModel(config)
        >>> latents = model.embed(torch.tensor([[1, 2, 3]]))
        >>> model(latents, torch.tensor([999.5])).shape
        torch.Size([1, 3, 4])
        >>> model.get_logits(latents).shape
        torch.Size([1, 3, 9])
    """

    config: TextDiffusionConfig
    config_class = TextDiffusionConfig
    base_model_prefix = ""
    main_input_name = "latents"
    supports_gradient_checkpointing = True
    _no_split_modules = _LAYERS
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _tied_weights_keys = _TIED
    _keys_to_ignore_on_load_unexpected = _IGNORED

    def __init__(self, config: TextDiffusionConfig) -> None:
        super().__init__(config)
        size, latent, wide = config.hidden_size, config.latent_size, 4 * config.time_size
        self.word_embedding = nn.Embedding(config.vocab_size, latent)
        self.lm_head = nn.Linear(latent, config.vocab_size)
        self.time_embed = nn.Sequential(
            nn.Linear(config.time_size, wide), nn.SiLU(), nn.Linear(wide, size)
        )
        if latent != size:
            self.input_up_proj = _make_projection(latent, size, size)
            self.output_down_proj = _make_projection(size, size, latent)
        self.input_transformers = _Transformer(config)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, size)
        self.LayerNorm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.dropout)
        self.gradient_checkpointing = False
        self.post_init()  # type: ignore[no-untyped-call]

    def get_input_embeddings(self) -> nn.Module:
        """Returns the table of word embeddings."""
        table: nn.Module = self.word_embedding
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Takes another table of word embeddings.

        Args:
            value: the embedding.
        """
        self.word_embedding = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        """Returns the output layer."""
        layer: nn.Module = self.lm_head
        return layer

    def set_output_embeddings(self, new_embeddings: nn.Module) -> None:
        """Takes another output layer.

        Args:
            new_embeddings: the layer.
        """
        self.lm_head = cast(nn.Linear, new_embeddings)

    def embed(self, ids: Tensor) -> Tensor:
        """Returns the latents of tokens.

        Args:
            ids: `[...]` int64 or int32.

        Returns:
            `[..., E]`.

        Raises:
            TypeError: `ids` are not integers.
            IndexError: an id is not below V; on a CPU, elsewhere the check would wait.
        """
        if ids.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"ids must be int64 or int32: got {ids.dtype}")
        if ids.device.type == "cpu" and ids.numel() and not torch.compiler.is_compiling():
            vocabulary = self.config.vocab_size
            wrong = (ids < 0) | (ids >= vocabulary)
            if wrong.any():
                place = wrong.nonzero()[0].tolist()
                raise IndexError(
                    f"ids must be below the vocabulary {vocabulary}: "
                    f"got {int(ids[tuple(place)])} at {place}"
                )
        result: Tensor = self.word_embedding(ids)
        return result

    def get_logits(self, latents: Tensor) -> Tensor:
        """Returns the scores of all words.

        Args:
            latents: `[..., E]`.

        Returns:
            `[..., V]`.
        """
        result: Tensor = self.lm_head(latents)
        return result

    def forward(self, latents: Tensor, timesteps: Tensor) -> Tensor:
        """Returns estimates of the clean latents.

        Args:
            latents: `[B, L, E]` noisy ones, in the type of the weights.
            timesteps: `[B]` float, from 0 to 1000: those of the training process, times 1000 / T,
                also where a shorter process samples.

        Returns:
            `[B, L, E]`.

        Raises:
            TypeError: `timesteps` are not of floating point.
            ValueError: shapes do not fit, there are more positions than the model has embeddings,
                or, on a CPU, a timestep lies outside its range.
        """
        self._check(latents, timesteps)
        kind = self.position_embeddings.weight.dtype
        times = self.time_embed(make_sinusoids(timesteps, self.config.time_size).to(kind))
        states = latents
        if self.config.latent_size != self.config.hidden_size:
            states = self.input_up_proj(latents)
        states = states + self.position_embeddings.weight[: latents.shape[1]] + times[:, None]
        states = self.input_transformers(self.dropout(self.LayerNorm(states)))
        if self.config.latent_size != self.config.hidden_size:
            states = self.output_down_proj(states)
        estimates: Tensor = states.to(latents.dtype)
        return estimates

    def _check(self, latents: Tensor, timesteps: Tensor) -> None:
        size, most = self.config.latent_size, self.config.max_position_embeddings
        if latents.ndim != 3 or latents.shape[2] != size:
            raise ValueError(
                f"latents must have the shape [batch, length, {size}]: got {list(latents.shape)}"
            )
        if latents.shape[1] > most:
            raise ValueError(f"latents must have at most {most} positions: got {latents.shape[1]}")
        if timesteps.shape != latents.shape[:1]:
            raise ValueError(
                f"timesteps must have the shape [{len(latents)}]: got {list(timesteps.shape)}"
            )
        if not timesteps.is_floating_point():
            raise TypeError(f"timesteps must be of floating point: got {timesteps.dtype}")
        # Elsewhere the check would wait for the device, and a compiled graph would break at it.
        if timesteps.device.type != "cpu" or torch.compiler.is_compiling():
            return
        wrong = ~((timesteps >= 0) & (timesteps <= TIME_RANGE))
        if wrong.any():
            row = int(wrong.nonzero()[0, 0])
            raise ValueError(
                f"timesteps must be from 0 to {TIME_RANGE:.0f}: got {timesteps[row]} in row {row}"
            )

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Starts the parameters that no checkpoint gave."""
        if isinstance(module, nn.LayerNorm):
            initialization.ones_(module.weight)
            initialization.zeros_(module.bias)
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight)
        elif isinstance(module, nn.Linear):
            # The output layer's is replaced by the table of words.
            initialization.kaiming_uniform_(module.weight, a=math.sqrt(5))
            bound = module.in_features**-0.5
            initialization.uniform_(module.bias, -bound, bound)


def _make_projection(inputs: int, inner: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(inputs, inner), nn.Tanh(), nn.Linear(inner, outputs))
