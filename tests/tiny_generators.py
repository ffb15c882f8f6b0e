"""Small tokenizers and models that write labelled words, made anew for each test."""

from functools import lru_cache
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    LogitsProcessorList,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from lmcore.ner.decoding import ConstrainedDecoding, Constraint
from lmcore.ner.instructions import write_instruction

TYPES = ["person", "city", "musical artist"]
SENTENCES = [
    ["Ada", "met", "Charles", "Babbage", "in", "London", "."],
    ["London", "is", "large", ",", "they", "say"],
    ["Nina", "Simone", "sang", "in", "Paris", "and", "in", "New", "York", "City"],
    ["Yes"],
]
HOSTILE = [
    ["(", "O)", "(O)", "(B-city)", ")", "a(b)", "."],
    ["</s>", "<pad>", "naïve", "東京", "🙂", "e\u0301", "x" * 40],
    ["()", "((", "))", "I-person", "O", "B-", "\\n"],
]
_TEXTS = [
    *(" ".join(f"{word}({label})" for word in words for label in ("O", "B-city"))
      for words in SENTENCES),
    *(f"a(B-{kind}) b(I-{kind}) c(O) " * 8 for kind in TYPES),
    write_instruction(["a", "b"], TYPES), "[INST] [/INST] ., : ;",
]  # fmt: skip


@lru_cache
def make_tokenizer(*, is_byte_level: bool = False, vocabulary: int = 300) -> Any:
    """Returns a tokenizer of word pieces; one of characters has no others than ASCII's."""
    if is_byte_level:
        known = Tokenizer(models.BPE())
        known.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        known.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    else:
        known = Tokenizer(models.BPE(unk_token="<unk>"))
        known.pre_tokenizer = pre_tokenizers.Metaspace()
        known.decoder = decoders.Metaspace()
        alphabet = [chr(code) for code in range(33, 127)]
    special = ["<pad>", "</s>", "<unk>", "<s>"]
    known.train_from_iterator(
        _TEXTS * 3,
        trainers.BpeTrainer(
            vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet,
            show_progress=False,
        ),
    )  # fmt: skip
    if is_byte_level:
        known.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 3)]
        )
    else:
        known.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", 1)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=known, pad_token="<pad>", eos_token="</s>", unk_token="<unk>",
        bos_token="<s>" if is_byte_level else None,
        padding_side="left" if is_byte_level else "right",
        clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_t5(tokenizer: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Returns an encoder-decoder model of random weights."""
    torch.manual_seed(seed)
    config = T5Config(
        vocab_size=len(tokenizer), d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1, initializer_factor=3.0,
        relative_attention_num_buckets=16, relative_attention_max_distance=32, dropout_rate=0.0,
    )  # fmt: skip
    return T5ForConditionalGeneration(config).to(dtype).eval()


def make_llama(tokenizer: Any, seed: int = 0, dtype: torch.dtype = torch.float64) -> Any:
    """Returns a decoder-only model of random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, bos_token_id=3,
        eos_token_id=1, initializer_range=0.2, max_position_embeddings=2048,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(dtype).eval()


def make_inputs(tokenizer: Any, sentences: list[list[str]]) -> dict[str, torch.Tensor]:
    """Returns what an encoder-decoder model reads."""
    texts = [write_instruction(words, TYPES) for words in sentences]
    encoded = tokenizer(texts, padding=True, return_tensors="pt")
    return {key: encoded[key] for key in ("input_ids", "attention_mask")}


def make_prompts(constraints: list[Constraint]) -> dict[str, torch.Tensor]:
    """Returns what a decoder-only model reads."""
    longest = max(len(constraint.prompt) for constraint in constraints)
    rows = [[0] * (longest - len(c.prompt)) + c.prompt for c in constraints]
    masks = [[0] * (longest - len(c.prompt)) + [1] * len(c.prompt) for c in constraints]
    return {"input_ids": torch.tensor(rows), "attention_mask": torch.tensor(masks)}


def generate(
    model: Any, constraints: list[Constraint], inputs: dict[str, torch.Tensor], num_beams: int = 1
) -> list[list[int]]:
    """Returns what transformers generates under the constraints, token by token."""
    length = 1 if model.config.is_encoder_decoder else inputs["input_ids"].shape[1]
    processor = ConstrainedDecoding(constraints, prompt_length=length, num_beams=num_beams)
    found = model.generate(
        **inputs,
        max_new_tokens=max(constraint.most_tokens for constraint in constraints),
        do_sample=False,
        num_beams=num_beams,
        renormalize_logits=num_beams > 1,
        logits_processor=LogitsProcessorList([processor]),
    )
    return list(found[:, length:].tolist())
