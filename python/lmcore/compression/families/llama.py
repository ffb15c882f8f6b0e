"""LLaMA, Mistral, Qwen2 and Qwen3: grouped queries, of which whole groups are cut."""

from dataclasses import replace
from typing import Any

from lmcore.compression.families.family import (
    FFN,
    HIDDEN,
    KEYS,
    QUERIES,
    VOCABULARY,
    WHOLE,
    Family,
    Tensors,
)

MOST = 1000
"""Of layers, as in a plan."""
_LAYER = "layers.{decoder}"


def _name_layers(config: dict[str, Any]) -> dict[str, Any]:
    """Writes out which layers of Qwen see a window alone: it follows from their numbers."""
    if config.get("layer_types") or not config.get("use_sliding_window"):
        return config
    full, window = config.get("max_window_layers", 28), config.get("sliding_window", 4096)
    count = config.get("num_hidden_layers")
    for name, value in (("max_window_layers", full), ("num_hidden_layers", count)):
        if not isinstance(value, int) or not 0 <= value <= MOST:
            raise ValueError(f"{name} must be from 0 to {MOST}: got {value!r:.60}")
    return config | {
        "layer_types": [
            "full_attention" if window is None or layer < full else "sliding_attention"
            for layer in range(count or 0)
        ]
    }


MISTRAL = Family(
    model_types=("mistral",),
    prefix="model.",
    fields={
        "decoder_layers": ("num_hidden_layers",),
        "hidden_size": ("hidden_size",),
        "heads": ("num_attention_heads",),
        "groups": ("num_key_value_heads",),
        "head_size": ("head_dim",),
        "inner_size": ("intermediate_size",),
        "vocabulary_size": ("vocab_size",),
    },
    tensors=(
        Tensors("embed_tokens.weight", (VOCABULARY, HIDDEN)),
        Tensors("lm_head.weight", (VOCABULARY, HIDDEN)),
        Tensors("norm.weight", (HIDDEN,)),
        Tensors("score.weight", (WHOLE, HIDDEN)),
        Tensors(f"{_LAYER}.(input|post_attention)_layernorm.weight", (HIDDEN,)),
        Tensors(f"{_LAYER}.self_attn.q_proj.weight", (QUERIES, HIDDEN)),
        Tensors(f"{_LAYER}.self_attn.q_proj.bias", (QUERIES,)),
        Tensors(f"{_LAYER}.self_attn.(k|v)_proj.weight", (KEYS, HIDDEN)),
        Tensors(f"{_LAYER}.self_attn.(k|v)_proj.bias", (KEYS,)),
        Tensors(f"{_LAYER}.self_attn.(q|k)_norm.weight", (WHOLE,)),
        Tensors(f"{_LAYER}.self_attn.o_proj.weight", (HIDDEN, QUERIES)),
        Tensors(f"{_LAYER}.self_attn.o_proj.bias", (HIDDEN,)),
        Tensors(f"{_LAYER}.self_attn.rotary_emb.inv_freq", (WHOLE,)),
        Tensors(f"{_LAYER}.mlp.(gate|up)_proj.weight", (FFN, HIDDEN)),
        Tensors(f"{_LAYER}.mlp.(gate|up)_proj.bias", (FFN,)),
        Tensors(f"{_LAYER}.mlp.down_proj.weight", (HIDDEN, FFN)),
        Tensors(f"{_LAYER}.mlp.down_proj.bias", (HIDDEN,)),
    ),
    token_ids={"bos_token_id": 1, "eos_token_id": 2},
)
# Its configuration wants heads to divide the hidden size, although it says how large a head is.
LLAMA = replace(MISTRAL, model_types=("llama",), heads_divide_hidden=True)
QWEN = replace(
    MISTRAL,
    model_types=("qwen2", "qwen3"),
    layer_fields=("layer_types",),
    token_ids={},
    complete=_name_layers,
)
