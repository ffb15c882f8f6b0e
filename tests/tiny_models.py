"""Rows, tokenizers and models of a moment, seq2seq and causal, for tests of generation."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

NAMES = ("Ada", "Bob", "Eve", "York", "Rome", "Bonn")
VERBS = ("met", "left", "saw")
TYPES = ("person", "city")


def make_rows(count: int = 12) -> list[dict[str, Any]]:
    """Sentences of three words, each another one up to 54."""
    rows = []
    for number in range(count):
        name, verb, other = number % 6, number // 6 % 3, (number + number // 18 + 1) % 6
        words = [NAMES[name], VERBS[verb], NAMES[other]]
        labels = [f"B-{TYPES[name // 3]}", "O", f"B-{TYPES[other // 3]}"]
        target = " ".join(f"{word}({label})" for word, label in zip(words, labels, strict=True))
        rows.append({
            "dataset": "names", "types": list(TYPES), "words": words, "labels": labels,
            "instruction": f"Label person city . Sentence: {' '.join(words)}", "target": target,
        })  # fmt: skip
    return rows


def make_tokenizer(*, pad: bool = True) -> Any:
    """One token for each word of the rows, and the end behind what is read and learnt."""
    words = {word for row in make_rows(54) for text in ("instruction", "target")
             for word in row[text].split()}  # fmt: skip
    tokens = ["<pad>", "</s>", "<unk>", "[INST]", "[/INST]", *sorted(words)]
    core = Tokenizer(models.WordLevel({token: i for i, token in enumerate(tokens)}, "<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.post_processor = processors.TemplateProcessing("$A </s>", None, [("</s>", 1)])
    more = {"pad_token": "<pad>"} if pad else {}
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="</s>", unk_token="<unk>", padding_side="right", **more
    )


def make_t5(tokenizer: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    more: dict[str, Any] = {"decoder_start_token_id": 0}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2,
            dropout_rate=dropout, pad_token_id=0, eos_token_id=1, **more,
        )
    )  # fmt: skip


def make_llama(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=128,
            pad_token_id=0, bos_token_id=None, eos_token_id=1,
        )
    )  # fmt: skip


def save(kind: str, folder: Path, **options: Any) -> Path:
    """The folder of a tokenizer and a model, `t5` or `llama`."""
    tokenizer = make_tokenizer()
    make = {"t5": make_t5, "llama": make_llama}[kind]
    make(tokenizer, **options).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
