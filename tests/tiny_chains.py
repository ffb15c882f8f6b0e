"""Chains with nonsense for toxic words, and models of a moment that write them."""

from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel, T5Config, T5ForConditionalGeneration

from lmcore.detox.chains import PAPER, Chain, Grammar
from lmcore.training.models import make_tokenizer, name_loss

WORDS = {"you": "come in", "sea": "is blue", "man": "sings low", "owl": "sees us"}
TOXIC = ("blorp", "zarg")


def make_row(word: str, toxic: str | None, count: int = 2, grammar: Grammar = PAPER) -> Any:
    """A row of training; of a toxic word or of none, with some toxic continuations."""
    steps = {} if toxic is None else {"masked": f"{word} <MASK>", "rephrased": f"{word} friend"}
    prompt = word if toxic is None else f"{word} {toxic}"
    chain = Chain(prompt=prompt, toxic=toxic is not None, continuation=WORDS[word], **steps)
    negatives = [f"{bad} {word} off" for bad in ("blorp", "zarg", "glib")[:count]]
    return {
        "label": "non-toxic" if toxic is None else "toxic",
        "output": grammar.write(chain), "cl_template": grammar.write_template(chain),
        "cont_generation": [WORDS[word], *negatives],
    }  # fmt: skip


def make_rows(count: int = 12) -> list[Any]:
    """Rows with no, one, two and three toxic continuations."""
    words, toxic = list(WORDS), [None, *TOXIC]
    return [
        make_row(words[n % 4], toxic[n % 3], count=(2, 1, 3, 0, 2)[n % 5]) for n in range(count)
    ]


def make_words(*, pad: bool = True) -> Any:
    """A tokenizer; without padding the token of the end is also that."""
    texts = [text for row in make_rows() for text in (row["output"], *row["cont_generation"])]
    tokenizer = make_tokenizer(texts * 3, 420)
    if not pad:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def make_gpt2(tokenizer: Any, dropout: float = 0.0, size: int = 16) -> Any:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tokenizer), n_embd=size, n_layer=2, n_head=2, n_positions=160,
        resid_pdrop=dropout, embd_pdrop=dropout, attn_pdrop=dropout,
        bos_token_id=tokenizer.eos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    return name_loss(GPT2LMHeadModel(config))


def make_t5(tokenizer: Any, dropout: float = 0.0) -> Any:
    torch.manual_seed(0)
    more: dict[str, Any] = {"decoder_start_token_id": tokenizer.pad_token_id}
    return T5ForConditionalGeneration(
        T5Config(
            vocab_size=len(tokenizer), d_model=16, d_kv=8, d_ff=24, num_heads=2, num_layers=2,
            dropout_rate=dropout, pad_token_id=tokenizer.pad_token_id,
            eos_token_id=tokenizer.eos_token_id, **more,
        )
    )  # fmt: skip


def save(kind: str, folder: Path, **options: Any) -> Path:
    """The folder of a tokenizer and a model, `gpt2` or `t5`."""
    tokenizer = make_words()
    make = {"t5": make_t5, "gpt2": make_gpt2}[kind]
    for part in (tokenizer, make(tokenizer, **options)):
        part.save_pretrained(folder)
    return folder
