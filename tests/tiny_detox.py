"""Small Segment-CNNs: one that knows which tokens are toxic, without any training."""

import math
from pathlib import Path
from typing import Any

import torch

from lmcore.detox import SegmentCNNConfig, SegmentCNNModel, SpanFinder
from lmcore.detox.tokenization import SegmentTokenizer, make_tokenizer

WORDS = [
    "you", "are", "a", "nice", "person", "fool", "##ish", "bad", "?", "!", ".", ",", "'", "s", "i",
    "##stanbul", "cafe", "北", "京", "坏", "人", "so", "and", "the", "e", "1",
]  # fmt: skip
TOXIC = {"fool", "bad", "坏"}
SIZES: dict[str, Any] = {
    "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8,
    "max_position_embeddings": 64, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip


def make_words() -> SegmentTokenizer:
    return make_tokenizer(WORDS)


def make_config(tokenizer: SegmentTokenizer, **changes: Any) -> SegmentCNNConfig:
    return SegmentCNNConfig(**{"vocab_size": tokenizer.vocabulary_size, **SIZES, **changes})


def make_model(tokenizer: SegmentTokenizer, seed: int = 0, **changes: Any) -> SegmentCNNModel:
    torch.manual_seed(seed)
    return SegmentCNNModel(make_config(tokenizer, **changes)).eval()


@torch.no_grad()
def make_oracle(tokenizer: SegmentTokenizer, **changes: Any) -> SegmentCNNModel:
    """A model for which a segment is toxic that has a token of `TOXIC`, wherever it stands."""
    model = make_model(tokenizer, **changes)
    size = model.config.segment_size
    bert, sign = model.bert, torch.tensor([1.0, -1.0] * 4)
    for parameter in model.parameters():
        parameter.zero_()
    for name, module in model.named_modules():
        if name.endswith("LayerNorm"):
            module.weight.fill_(1.0)
    table = bert.embeddings.word_embeddings.weight
    table.copy_(-sign.expand_as(table))
    for token in TOXIC:
        table[tokenizer.find_ids([token])] = sign
    # With no toxic token the mean over channels is tanh(-n w), and with one tanh((2 - n) w).
    none, one = (math.tanh(0.1 * total) for total in (-size, 2 - size))
    model.conv.weight.fill_(0.1)
    model.span_classifier.weight[1] = 5 * sign
    model.span_classifier.bias[1] = -40 * (none + one) / 2
    return model


def make_finder(**settings: Any) -> SpanFinder:
    tokenizer = make_words()
    changes = {name: settings.pop(name) for name in ("segment_size",) if name in settings}
    return SpanFinder(make_oracle(tokenizer, **changes), tokenizer, **settings)


def save_segment_cnn(folder: Path) -> Path:
    """Writes the oracle and its tokenizer."""
    tokenizer = make_words()
    make_oracle(tokenizer).save_pretrained(folder)
    tokenizer.save(folder)
    return folder
