"""BERT, with what stands on it: pooler, masked words, classes, spans."""

from lmcore.compression.families.family import (
    FFN,
    HIDDEN,
    QUERIES,
    VOCABULARY,
    WHOLE,
    Family,
    Tensors,
)

_LAYER = "encoder.layer.{encoder}"
# Files of the first years call the weights of a norm gamma and beta.
_NORM = "(weight|bias|gamma|beta)"

BERT = Family(
    model_types=("bert",),
    prefix="bert.",
    fields={
        "encoder_layers": ("num_hidden_layers",),
        "hidden_size": ("hidden_size",),
        "heads": ("num_attention_heads",),
        "inner_size": ("intermediate_size",),
        "vocabulary_size": ("vocab_size",),
    },
    tensors=(
        Tensors("embeddings.word_embeddings.weight", (VOCABULARY, HIDDEN)),
        Tensors("embeddings.(position|token_type)_embeddings.weight", (WHOLE, HIDDEN)),
        Tensors("embeddings.(position_ids|token_type_ids)", (WHOLE, WHOLE)),
        Tensors(f"embeddings.LayerNorm.{_NORM}", (HIDDEN,)),
        Tensors(f"{_LAYER}.attention.self.(query|key|value).weight", (QUERIES, HIDDEN)),
        Tensors(f"{_LAYER}.attention.self.(query|key|value).bias", (QUERIES,)),
        Tensors(f"{_LAYER}.attention.output.dense.weight", (HIDDEN, QUERIES)),
        Tensors(f"{_LAYER}.attention.output.dense.bias", (HIDDEN,)),
        Tensors(f"{_LAYER}.(attention.output|output).LayerNorm.{_NORM}", (HIDDEN,)),
        Tensors(f"{_LAYER}.intermediate.dense.weight", (FFN, HIDDEN)),
        Tensors(f"{_LAYER}.intermediate.dense.bias", (FFN,)),
        Tensors(f"{_LAYER}.output.dense.weight", (HIDDEN, FFN)),
        Tensors(f"{_LAYER}.output.dense.bias", (HIDDEN,)),
        Tensors("(pooler|cls.predictions.transform).dense.weight", (HIDDEN, HIDDEN)),
        Tensors("(pooler|cls.predictions.transform).dense.bias", (HIDDEN,)),
        Tensors(f"cls.predictions.transform.LayerNorm.{_NORM}", (HIDDEN,)),
        Tensors("cls.predictions.decoder.weight", (VOCABULARY, HIDDEN)),
        Tensors("cls.predictions.(decoder.bias|bias)", (VOCABULARY,)),
        Tensors("(cls.seq_relationship|classifier|qa_outputs).weight", (WHOLE, HIDDEN)),
        Tensors("(cls.seq_relationship|classifier|qa_outputs).bias", (WHOLE,)),
    ),
    token_ids={"pad_token_id": 0},
)
