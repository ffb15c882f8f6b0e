"""T5, T5 v1.1, mT5 and UMT5, with gated and plain feed-forwards, tied and untied heads.

Biases of distances are learned for each head. T5 and mT5 have them in the first layer of a stack,
for all its layers: head j of every layer adds column j. So all layers of a stack keep the same
heads there, and the table stays with whichever layer becomes the first. UMT5 has a table in each
layer.
"""

from lmcore.compression.families.family import (
    FFN,
    HIDDEN,
    QUERIES,
    QUERY_HEADS,
    VOCABULARY,
    WHOLE,
    Family,
    Tensors,
)

_BIAS = "layer.0.SelfAttention.relative_attention_bias.weight"
_LAYERS = [
    Tensors(f"{stack}.{name}", axes)
    for stack in ("encoder", "decoder")
    for name, axes in (
        ("embed_tokens.weight", (VOCABULARY, HIDDEN)),
        ("final_layer_norm.weight", (HIDDEN,)),
        (f"block.{{{stack}}}.layer.(0|1|2).layer_norm.weight", (HIDDEN,)),
        (f"block.{{{stack}}}.layer.0.SelfAttention.(q|k|v).weight", (QUERIES, HIDDEN)),
        (f"block.{{{stack}}}.layer.0.SelfAttention.o.weight", (HIDDEN, QUERIES)),
        (f"block.{{{stack}}}.layer.1.EncDecAttention.(q|k|v).weight", (QUERIES, HIDDEN)),
        (f"block.{{{stack}}}.layer.1.EncDecAttention.o.weight", (HIDDEN, QUERIES)),
        (f"block.{{{stack}}}.layer.(1|2).DenseReluDense.(wi|wi_0|wi_1).weight", (FFN, HIDDEN)),
        (f"block.{{{stack}}}.layer.(1|2).DenseReluDense.wo.weight", (HIDDEN, FFN)),
    )
]
_ENDS = [Tensors("(shared|lm_head).weight", (VOCABULARY, HIDDEN))]
_FIELDS = {
    "encoder_layers": ("num_layers",),
    "decoder_layers": ("num_decoder_layers",),
    "hidden_size": ("d_model",),
    "heads": ("num_heads",),
    "head_size": ("d_kv",),
    "inner_size": ("d_ff",),
    "vocabulary_size": ("vocab_size",),
}
_IDS = {"pad_token_id": 0, "eos_token_id": 1}

T5 = Family(
    model_types=("t5", "mt5"),
    fields=_FIELDS,
    tensors=(
        *_ENDS,
        Tensors(f"encoder.block.0.{_BIAS}", (WHOLE, QUERY_HEADS), "encoder"),
        Tensors(f"decoder.block.0.{_BIAS}", (WHOLE, QUERY_HEADS), "decoder"),
        # Early checkpoints have one for cross-attention, too, which nothing reads.
        Tensors(
            "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight",
            (WHOLE, QUERY_HEADS),
            "decoder",
        ),
        *_LAYERS,
    ),
    shared_heads=True,
    shallow_cache=True,
    token_ids=_IDS,
)
UMT5 = Family(
    model_types=("umt5",),
    fields=_FIELDS,
    tensors=(
        *_ENDS,
        Tensors(f"encoder.block.{{encoder}}.{_BIAS}", (WHOLE, QUERY_HEADS)),
        Tensors(f"decoder.block.{{decoder}}.{_BIAS}", (WHOLE, QUERY_HEADS)),
        *_LAYERS,
    ),
    shallow_cache=True,
    token_ids=_IDS,
)
