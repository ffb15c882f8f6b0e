"""Models that GNER trains: made from nothing here, loaded and saved as those of every system."""

from __future__ import annotations

from typing import Any

from lmcore._extras import optional_imports
from lmcore.ner.recipes import ScratchConfig
from lmcore.training.models import (
    add_lora,
    find_model,
    load_model,
    load_tokenizer,
    make_tokenizer,
    recompute_layers,
    save_model,
)

with optional_imports():
    from transformers import T5Config, T5ForConditionalGeneration

__all__ = [
    "add_lora",
    "find_model",
    "load_model",
    "load_tokenizer",
    "make_model",
    "make_tokenizer",
    "recompute_layers",
    "save_model",
]


def make_model(config: ScratchConfig, tokenizer: Any) -> Any:
    """Returns a T5-shaped model with random weights, by torch's generator.

    Args:
        config: its shape.
        tokenizer: whose tokens it knows.

    Example:
        >>> tokenizer = make_tokenizer(["Ada met Ada"], 300)
        >>> make_model(ScratchConfig(hidden_size=8), tokenizer).config.d_model
        8
    """
    # Where the decoder begins is no field of the class, and stands in every config of a T5 model.
    start: dict[str, Any] = {"decoder_start_token_id": tokenizer.pad_token_id}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer),
            d_model=config.hidden_size,
            d_ff=config.inner_size,
            d_kv=config.head_size,
            num_heads=config.heads,
            num_layers=config.encoder_layers,
            num_decoder_layers=config.decoder_layers,
            dropout_rate=config.dropout,
            pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id,
            **start,
        )
    )
