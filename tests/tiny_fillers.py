"""Small models that fill gaps and go on with texts, and a filler that needs no model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import BartConfig, BartForConditionalGeneration

from lmcore.detox import FilledText, FillSampling, MaskedText, MaskFiller
from lmcore.training.models import make_tokenizer
from tiny_chains import make_gpt2, make_t5

TEXTS = ["you are a nice person", "the sea is blue and so are you", "come in"]


def make_words(kind: str) -> Any:
    """A tokenizer with BART's token for masks, or with four sentinels."""
    tokenizer = make_tokenizer(TEXTS, 300)
    if kind == "bart":
        tokenizer.add_special_tokens({"mask_token": "<mask>"})
    elif kind == "t5":
        names = [f"<extra_id_{number}>" for number in range(4)]
        tokenizer.add_tokens(names, special_tokens=True)
    return tokenizer


def make_bart(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in (("layers", 1), ("attention_heads", 2), ("ffn_dim", 24))
    }
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, max_position_embeddings=64, dropout=0.0,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.eos_token_id,
        eos_token_id=tokenizer.eos_token_id, decoder_start_token_id=tokenizer.eos_token_id,
        forced_eos_token_id=tokenizer.eos_token_id, **sizes,
    )  # fmt: skip
    return BartForConditionalGeneration(config).eval()


def make_filler(kind: str = "bart", **sampling: Any) -> MaskFiller:
    tokenizer = make_words(kind)
    model = make_bart(tokenizer) if kind == "bart" else make_t5(tokenizer)
    return MaskFiller(model, tokenizer, FillSampling(**sampling))


def save(kind: str, folder: Path) -> Path:
    """The folder of a model and its tokenizer: `bart`, `t5` or `gpt2`."""
    tokenizer = make_words(kind)
    make = {"bart": make_bart, "t5": make_t5, "gpt2": make_gpt2}[kind]
    for part in (tokenizer, make(tokenizer)):
        part.save_pretrained(folder)
    return folder


class ListFiller:
    """Gives each attempt's words, the same for all masks of a text; None loses the mask."""

    def __init__(self, *words: str | None) -> None:
        self.words = words
        self.calls: list[tuple[int, list[int]]] = []

    def check(self, masked: MaskedText) -> None:
        """Takes any text."""

    def fill(
        self, texts: Sequence[MaskedText], numbers: Sequence[int], *, seed: int, attempt: int
    ) -> list[FilledText]:
        self.calls.append((attempt, list(numbers)))
        word = self.words[attempt]
        return [
            FilledText(masked=one.masked, text=None, problem="lost_mask")
            if word is None
            else FilledText(masked=one.masked, text=one.masked.replace("<MASK>", word))
            for one in texts
        ]
