"""OpenBA V1 and V2, under the released names of its tensors and under ours."""

from lmcore.compression.families.family import (
    FFN,
    GATED,
    HIDDEN,
    KV_OF_HEAD,
    QKV_OF_HEAD,
    QUERIES,
    VOCABULARY,
    Family,
    Tensors,
)

_STACKS = [
    Tensors(f"{stack}.{name}", axes)
    for stack in ("encoder", "decoder")
    for name, axes in (
        ("embed_tokens.weight", (VOCABULARY, HIDDEN)),
        ("final_layernorm.(weight|bias)", (HIDDEN,)),
        (f"block.{{{stack}}}.(input|post_attn|post_inter_attn)_layernorm.(weight|bias)", (HIDDEN,)),
        # Queries, keys and values stand side by side within a head.
        (f"block.{{{stack}}}.self_attn.qkv.weight", (QKV_OF_HEAD, HIDDEN)),
        (f"block.{{{stack}}}.self_attn.qkv.bias", (QKV_OF_HEAD,)),
        (f"block.{{{stack}}}.inter_attn.q.weight", (QUERIES, HIDDEN)),
        (f"block.{{{stack}}}.inter_attn.q.bias", (QUERIES,)),
        (f"block.{{{stack}}}.inter_attn.kv.weight", (KV_OF_HEAD, HIDDEN)),
        (f"block.{{{stack}}}.inter_attn.kv.bias", (KV_OF_HEAD,)),
        (f"block.{{{stack}}}.(self|inter)_attn.o.weight", (HIDDEN, QUERIES)),
        (f"block.{{{stack}}}.(self|inter)_attn.o.bias", (HIDDEN,)),
        (f"block.{{{stack}}}.mlp.fc_in.weight", (GATED, HIDDEN)),
        (f"block.{{{stack}}}.mlp.fc_in.bias", (GATED,)),
        (f"block.{{{stack}}}.mlp.fc_out.weight", (HIDDEN, FFN)),
        (f"block.{{{stack}}}.mlp.fc_out.bias", (HIDDEN,)),
    )
]

OPENBA = Family(
    model_types=("openba",),
    fields={
        "encoder_layers": ("encoder_layers", "num_layers"),
        "decoder_layers": ("decoder_layers", "num_decoder_layers"),
        "hidden_size": ("hidden_size",),
        "heads": ("num_heads",),
        "head_size": ("kv_channels",),
        "inner_size": ("ffn_hidden_size",),
        "vocabulary_size": ("vocab_size",),
    },
    tensors=(
        Tensors("shared_embedding.weight", (VOCABULARY, HIDDEN)),
        Tensors("lm_head.weight", (VOCABULARY, HIDDEN)),
        Tensors("lm_head.bias", (VOCABULARY,)),
        *_STACKS,
    ),
    # What is left of V1's inner layers need not be what its rule gives: it is read as it stands.
    constants={"swiglu_rule": False},
    token_ids={"pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0},
)
