"""The small model that chains are tried with."""

from __future__ import annotations

from typing import Any

from lmcore._extras import optional_imports
from lmcore.detox.recipes import ScratchConfig
from lmcore.training.models import name_loss

with optional_imports():
    from transformers import GPT2Config, GPT2LMHeadModel


def make_model(config: ScratchConfig, tokenizer: Any) -> Any:
    """Returns a GPT-2 with random weights, by torch's generator.

    Args:
        config: its shape.
        tokenizer: whose tokens it knows.

    Example:
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["a blorp"], 300)
        >>> make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer).config.n_embd
        8
    """
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=len(tokenizer),
            n_embd=config.hidden_size,
            n_layer=config.layers,
            n_head=config.heads,
            n_positions=config.positions,
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=config.dropout,
            bos_token_id=tokenizer.eos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    return name_loss(model)
