"""GPT-2: maps are kept transposed, queries, keys and values in three blocks of one map."""

from typing import Any

from lmcore.compression.families.family import (
    FFN,
    HIDDEN,
    QKV,
    QUERIES,
    VOCABULARY,
    WHOLE,
    Family,
    Tensors,
)

_LAYER = "h.{decoder}"


def _refuse_scale(config: dict[str, Any]) -> dict[str, Any]:
    """Scores that are divided by the number of their layer change when that does."""
    if config.get("scale_attn_by_inverse_layer_idx"):
        raise ValueError("scale_attn_by_inverse_layer_idx must be false: layers get new numbers")
    return config


GPT2 = Family(
    model_types=("gpt2",),
    prefix="transformer.",
    fields={
        "decoder_layers": ("n_layer",),
        "hidden_size": ("n_embd",),
        "heads": ("n_head",),
        "inner_size": ("n_inner",),
        "vocabulary_size": ("vocab_size",),
    },
    tensors=(
        Tensors("(wte|lm_head).weight", (VOCABULARY, HIDDEN)),
        Tensors("wpe.weight", (WHOLE, HIDDEN)),
        Tensors("ln_f.(weight|bias)", (HIDDEN,)),
        Tensors("score.weight", (WHOLE, HIDDEN)),
        Tensors(f"{_LAYER}.ln_(1|2).(weight|bias)", (HIDDEN,)),
        Tensors(f"{_LAYER}.attn.c_attn.weight", (HIDDEN, QKV)),
        Tensors(f"{_LAYER}.attn.c_attn.bias", (QKV,)),
        Tensors(f"{_LAYER}.attn.c_proj.weight", (QUERIES, HIDDEN)),
        Tensors(f"{_LAYER}.attn.c_proj.bias", (HIDDEN,)),
        # Masks that old files hold.
        Tensors(f"{_LAYER}.attn.bias", (WHOLE,) * 4),
        Tensors(f"{_LAYER}.attn.masked_bias", ()),
        Tensors(f"{_LAYER}.mlp.c_fc.weight", (HIDDEN, FFN)),
        Tensors(f"{_LAYER}.mlp.c_fc.bias", (FFN,)),
        Tensors(f"{_LAYER}.mlp.c_proj.weight", (FFN, HIDDEN)),
        Tensors(f"{_LAYER}.mlp.c_proj.bias", (HIDDEN,)),
    ),
    transposed=True,
    token_ids={"bos_token_id": 50256, "eos_token_id": 50256},
    complete=_refuse_scale,
)
