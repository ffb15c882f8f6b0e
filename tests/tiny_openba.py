"""Small OpenBA models, and what OpenBA computes, written down plainly."""

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import layer_norm, linear, silu

from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration

# Heads that are together wider than the hidden size, and a decoder deeper than the encoder.
SIZES = {
    "vocab_size": 61, "hidden_size": 32, "kv_channels": 12, "num_heads": 4, "ffn_hidden_size": 40,
    "encoder_layers": 2, "decoder_layers": 3, "max_seq_length": 64, "decoder_max_seq_length": 64,
    "swiglu_rule": False, "hidden_dropout": 0.0, "attention_dropout": 0.0, "add_qkv_bias": True,
    "add_ffn_bias": True, "add_lm_head_bias": True, "tie_word_embeddings": False,
}  # fmt: skip


def make_config(**changes: Any) -> OpenBAConfig:
    return OpenBAConfig(**{**SIZES, **changes})


def make_model(seed: int = 0, **changes: Any) -> OpenBAForConditionalGeneration:
    """Weights are spread so that attention, biases and normalisation all matter."""
    torch.manual_seed(seed)
    model = OpenBAForConditionalGeneration(make_config(**changes)).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model


def make_batch(seed: int = 0, *, rows: int = 3, source: int = 9, target: int = 7) -> dict[str, Any]:
    """Sources with padding on the right, targets whose padding the loss leaves out."""
    generator = torch.Generator().manual_seed(seed)
    ids = torch.randint(2, 60, (rows, source), generator=generator)
    labels = torch.randint(2, 60, (rows, target), generator=generator)
    mask = torch.ones_like(ids)
    for row in range(1, rows):
        mask[row, source - row :] = 0
        labels[row, target - row :] = -100
    return {"input_ids": ids * mask, "attention_mask": mask, "labels": labels}


def define_logits(
    model: OpenBAForConditionalGeneration,
    ids: Tensor,
    target: Tensor,
    mask: Tensor | None = None,
    target_mask: Tensor | None = None,
    positions: Tensor | None = None,
) -> Tensor:
    """Logits by the specification, section 2.4, head by head, with scores filled by -10000.

    Args:
        ids: `[B, S]`.
        target: `[B, T]`.
        mask: `[B, S]` bool.
        target_mask: `[B, T]` bool, or `[B, T, T]` that is taken as it is.
        positions: `[B, S]`, of the source.
    """
    config, weights = model.config, model.state_dict()
    heads, size = config.num_heads, config.kv_channels

    def project(x: Tensor, name: str) -> Tensor:
        return linear(x, weights[f"{name}.weight"], weights.get(f"{name}.bias"))

    def norm(x: Tensor, name: str) -> Tensor:
        shape = (config.hidden_size,)
        return layer_norm(x, shape, weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    def turn(x: Tensor, places: Tensor) -> Tensor:
        half = size // 2
        turned = torch.empty_like(x)
        for j in range(half):
            angle = places.double() * config.rope_theta ** (-2 * j / size)
            cos, sin = angle.cos().float(), angle.sin().float()
            turned[..., j] = x[..., j] * cos - x[..., j + half] * sin
            turned[..., j + half] = x[..., j + half] * cos + x[..., j] * sin
        return turned

    def attend(queries: Tensor, keys: Tensor, values: Tensor, seen: Tensor) -> Tensor:
        scores = queries @ keys.transpose(1, 2) / math.sqrt(size)
        return scores.masked_fill(~seen, -10000.0).softmax(-1) @ values

    def self_attention(x: Tensor, name: str, seen: Tensor, places: Tensor) -> Tensor:
        parts = project(x, f"{name}.qkv")
        results = []
        for head in range(heads):
            own = parts[..., head * 3 * size : (head + 1) * 3 * size]
            q, k, v = own[..., :size], own[..., size : 2 * size], own[..., 2 * size :]
            results.append(attend(turn(q, places), turn(k, places), v, seen))
        return project(torch.cat(results, -1), f"{name}.o")

    def cross_attention(x: Tensor, name: str, source: Tensor, seen: Tensor) -> Tensor:
        queries, parts = project(x, f"{name}.q"), project(source, f"{name}.kv")
        results = []
        for head in range(heads):
            q = queries[..., head * size : (head + 1) * size]
            own = parts[..., head * 2 * size : (head + 1) * 2 * size]
            results.append(attend(q, own[..., :size], own[..., size:], seen))
        return project(torch.cat(results, -1), f"{name}.o")

    def feed(x: Tensor, name: str) -> Tensor:
        inner = project(x, f"{name}.fc_in")
        half = inner.shape[-1] // 2
        return project(silu(inner[..., :half]) * inner[..., half:], f"{name}.fc_out")

    table = weights["encoder.embed_tokens.weight"]
    mask = torch.ones_like(ids, dtype=torch.bool) if mask is None else mask
    seen = mask[:, None, :]
    places = torch.arange(ids.shape[1]).expand_as(ids) if positions is None else positions
    x = table[ids]
    for i in range(config.encoder_layers):
        block = f"encoder.block.{i}"
        normed = norm(x, f"{block}.input_layernorm")
        x = x + self_attention(normed, f"{block}.self_attn", seen, places)
        x = x + feed(norm(x, f"{block}.post_attn_layernorm"), f"{block}.mlp")
    source = norm(x, "encoder.final_layernorm")

    length = target.shape[1]
    causal = torch.ones(length, length).tril().bool()[None]
    if target_mask is not None:
        causal = target_mask if target_mask.ndim == 3 else causal & target_mask[:, None, :]
    places = torch.arange(length).expand_as(target)
    x = table[target]
    for i in range(config.decoder_layers):
        block = f"decoder.block.{i}"
        normed = norm(x, f"{block}.input_layernorm")
        x = x + self_attention(normed, f"{block}.self_attn", causal, places)
        normed = norm(x, f"{block}.post_attn_layernorm")
        x = x + cross_attention(normed, f"{block}.inter_attn", source, seen)
        x = x + feed(norm(x, f"{block}.post_inter_attn_layernorm"), f"{block}.mlp")
    x = norm(x, "decoder.final_layernorm")
    if config.tie_word_embeddings:
        x = x * config.hidden_size**-0.5
    return project(x, "lm_head")
