"""Small models with their tokenizers, pruned ones, and settings of recovery that take a moment."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5ForConditionalGeneration,
)

from lmcore.compression.composition import add_stage
from lmcore.compression.model_folders import prune_folder
from lmcore.compression.plan import Stage
from lmcore.compression.planning import start_plan
from lmcore.compression.recipes import tiny
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.openba.models import make_model, save_model
from lmcore.training import models
from lmcore.training.config import change
from lmcore.worlds.openba import make_world
from tiny_runs import LENGTH, make_tokenizer, small

SETTINGS: dict[str, Any] = {
    "text_tokens": LENGTH, "batch_size": 12, "micro_batch_size": 4, "validation_batch_size": 5,
    "update_every_steps": 2, "optimizer.lr": 0.01, "schedule.kind": "constant",
    "schedule.final_share": 0.0, "schedule.warmup_steps": 2, "device.device": "cpu",
    "device.threads": 1, "loop.steps": 5, "loop.validate_every_steps": 2,
    "loop.save_every_seconds": 0.0, "loop.log_every_steps": 1,
}  # fmt: skip
TARGETS = (1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0)
TEXTS = make_world(3, documents=60).to_text()
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 2, "num_heads": 2}
LLAMA = {
    "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 8,
}  # fmt: skip
BART = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24,
    "max_position_embeddings": 64,
}  # fmt: skip
KINDS: dict[str, Any] = {
    "t5": (T5Config, T5ForConditionalGeneration, {**T5, "decoder_start_token_id": 0}),
    "mt5": (
        MT5Config,
        MT5ForConditionalGeneration,
        {**T5, "decoder_start_token_id": 0, "tie_word_embeddings": False},
    ),
    "bart": (BartConfig, BartForConditionalGeneration, BART),
    "gpt2": (GPT2Config, GPT2LMHeadModel, {"n_embd": 16, "n_layer": 2, "n_head": 2,
                                           "n_positions": 64}),
    "llama": (LlamaConfig, LlamaForCausalLM, LLAMA),
}  # fmt: skip


def settings(**changes: Any) -> RecoveryConfig:
    return change(tiny(), {**SETTINGS, **changes})


def save_openba(folder: Path, **shape: Any) -> Path:
    torch.manual_seed(0)
    config = small(**{f"shape.{name}": value for name, value in shape.items()})
    save_model(make_model(config.shape, make_tokenizer()), make_tokenizer(), folder)
    return folder


def prune(source: Path, target: Path, **kept: Any) -> Path:
    """With fewer channels, and with fewer tokens if it is said."""
    cuts = {name: kept.pop(name) for name in ("cut_encoder", "cut_decoder") if name in kept}
    plan = add_stage(start_plan(source), Stage(**kept), **cuts)
    prune_folder(source, target, plan)
    return target


def make_byte_tokenizer(*, rising: bool = False, sentinels: int = 12) -> Any:
    """One of bytes and frequent pairs, with sentinels behind them."""
    tokenizer = models.make_tokenizer(TEXTS.split("\n"), 400)
    names = [f"<extra_id_{number}>" for number in range(sentinels)]
    tokenizer.add_tokens(names if rising else names[::-1], special_tokens=True)
    return tokenizer


def save(kind: str, folder: Path, *, rising: bool = False, sentinels: int = 12) -> Path:
    """A random model of transformers and its tokenizer."""
    tokenizer = make_byte_tokenizer(rising=rising, sentinels=sentinels)
    config, model, sizes = KINDS[kind]
    torch.manual_seed(0)
    ids = {name: getattr(tokenizer, name) for name in ("pad_token_id", "eos_token_id")}
    made = model(config(**sizes, **ids, bos_token_id=None, vocab_size=len(tokenizer)))
    models.save_model(made, tokenizer, folder)
    return folder
