"""Small tokenizers of every kind, and small models of many families, in folders."""

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from lmcore.compression import Counts
from lmcore.compression.pieces.folder import load_tokenizer
from lmcore.openba import OpenBATokenizer
from lmcore.worlds.openba import make_world, write_piece_file
from tiny_openba import make_model as make_openba

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
MORE = ["Ünïcödé straße", "東京で会いました", "a\tb  c", "🙂 ok", "don't stop-now (please)!"]


@cache
def read_lines() -> list[str]:
    """English lines of a small world, and some others."""
    lines = make_world(0, documents=150).to_text().splitlines()
    return [line for line in lines if line and line.isascii()] + MORE


@cache
def train_tokenizer(kind: str) -> str:
    """A tokenizer of about 400 tokens, as the JSON of its file."""
    tokenizer, trainer = _MAKERS[kind]()
    tokenizer.train_from_iterator(read_lines() * 2, trainer)
    if kind == "fallback":
        # Trained merges, with bytes behind the special tokens.
        state = tokenizer.model.__getstate__()
        model = json.loads(state)
        texts = ["<unk>", "<s>", "</s>", *BYTES]
        texts += [text for text in model["vocab"] if text not in texts]
        ids = {text: i for i, text in enumerate(texts)}
        pairs = [tuple(pair) for pair in model["merges"]]
        tokenizer.model = models.BPE(
            ids, pairs, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    return str(tokenizer.to_str())


def _make_unigram() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=400, special_tokens=special, unk_token="<unk>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer, trainer


def _make_bytes() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    return tokenizer, trainer


def _make_fallback() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    special = ["<unk>", "<s>", "</s>"]
    # Without words between: pieces go across spaces, too.
    trainer = trainers.BpeTrainer(vocab_size=350, special_tokens=special, limit_alphabet=60)
    return tokenizer, trainer


def _make_wordpiece() -> tuple[Tokenizer, Any]:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    return tokenizer, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special)


_MAKERS: dict[str, Callable[[], tuple[Tokenizer, Any]]] = {
    "unigram": _make_unigram,
    "bytes": _make_bytes,
    "fallback": _make_fallback,
    "wordpiece": _make_wordpiece,
}
KINDS = tuple(_MAKERS)
_SPECIAL = {
    "unigram": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>",
                "pad_token": "<pad>", "mask_token": "<mask>", "cls_token": "<s>",
                "sep_token": "</s>"},
    "bytes": {"eos_token": "<|endoftext|>", "bos_token": "<|endoftext|>"},
    "fallback": {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
    "wordpiece": {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]",
                  "sep_token": "[SEP]", "mask_token": "[MASK]"},
}  # fmt: skip


def save_tokenizer(kind: str, folder: Path) -> int:
    """Writes a tokenizer as transformers does, and returns its number of tokens."""
    backend = Tokenizer.from_str(train_tokenizer(kind))
    made = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **_SPECIAL[kind])
    made.save_pretrained(folder)
    return len(made)


# Each: class, kind of tokenizer, configuration but for its size and ids.
_NARROW = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
FAMILIES: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "t5": ("T5Config", "T5ForConditionalGeneration", "unigram",
           {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 1,
            "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1}),
    "mt5": ("MT5Config", "MT5ForConditionalGeneration", "unigram",
            {"d_model": 16, "d_ff": 24, "d_kv": 8, "num_heads": 2, "num_layers": 1,
             "pad_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
             "tie_word_embeddings": False}),
    "mbart": ("MBartConfig", "MBartForConditionalGeneration", "unigram",
              {"d_model": 16, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24, "encoder_layers": 1,
               "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2,
               "max_position_embeddings": 128, "forced_eos_token_id": 2, "pad_token_id": 1}),
    "deberta": ("DebertaV2Config", "DebertaV2ForMaskedLM", "unigram",
                {**_NARROW, "num_hidden_layers": 1, "max_position_embeddings": 128,
                 "relative_attention": True, "position_buckets": 8, "pos_att_type": "p2c|c2p",
                 "pad_token_id": 1}),
    "xlmr": ("XLMRobertaConfig", "XLMRobertaForMaskedLM", "unigram",
             {**_NARROW, "num_hidden_layers": 1, "max_position_embeddings": 130,
              "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}),
    "gpt2": ("GPT2Config", "GPT2LMHeadModel", "bytes",
             {"n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 128, "bos_token_id": 0,
              "eos_token_id": 0}),
    "llama": ("LlamaConfig", "LlamaForCausalLM", "fallback",
              {**_NARROW, "num_hidden_layers": 1, "num_key_value_heads": 1, "bos_token_id": 1,
               "eos_token_id": 2, "tie_word_embeddings": False}),
    "bert": ("BertConfig", "BertForMaskedLM", "wordpiece",
             {**_NARROW, "num_hidden_layers": 1, "max_position_embeddings": 128}),
}  # fmt: skip


def save_model(name: str, folder: Path, *, more_rows: int = 5, seed: int = 0) -> Any:
    """Writes a model whose embedding has some rows behind the tokens, and returns it."""
    torch.manual_seed(seed)
    if name == "openba":
        write_piece_file(folder / "spiece.model", size=1200)
        tokenizer = OpenBATokenizer(folder / "spiece.model")
        tokenizer.save_pretrained(folder)
        model: Any = make_openba(vocab_size=tokenizer.padded_size())
    else:
        config, kind, tokens, options = FAMILIES[name]
        size = save_tokenizer(tokens, folder) + more_rows
        made = getattr(transformers, config)(vocab_size=size, **options)
        model = getattr(transformers, kind)(made).eval()
        _spread(model)
    model.save_pretrained(folder)
    return model


def _spread(model: Any) -> None:
    """Biases begin at zero, which would hide that they follow the vocabulary."""
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point() and tensor.requires_grad | (tensor.ndim == 2):
                tensor.add_(torch.randn_like(tensor) * 0.1)


def count_lines(folder: Path, lines: list[str]) -> Counts:
    """Counts of the tokens of lines, the odd ones and the even ones by themselves."""
    tokenizer = load_tokenizer(folder)
    size = len(tokenizer)
    encoded = tokenizer(lines, add_special_tokens=False)["input_ids"]
    groups = {
        group: np.bincount([number for ids in part for number in ids], minlength=size)
        for group, part in (("even", encoded[::2]), ("odd", encoded[1::2]))
    }
    return Counts(groups=groups)


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
