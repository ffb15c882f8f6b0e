"""A small OpenBA model with its tokenizer."""

import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from lmcore.openba import OpenBAForConditionalGeneration, OpenBATokenizer
from lmcore.worlds.openba import write_piece_file
from tiny_openba import make_model

PROMPTS = ["Ada met Otto in Kelp", "大海是住在茶乡的铁匠。", "Otto", "", "Ada the baker lived"]


@cache
def make_tokenizer() -> OpenBATokenizer:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "spiece.model")
        write_piece_file(file)
        return OpenBATokenizer(file)


def make_pair(seed: int = 0, **changes: Any) -> tuple[OpenBAForConditionalGeneration, Any]:
    tokenizer = make_tokenizer()
    sizes = {
        "vocab_size": tokenizer.padded_size(), "pad_token_id": tokenizer.pad_token_id,
        "eos_token_id": tokenizer.eos_token_id, "decoder_start_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return make_model(seed, **{**sizes, **changes}), tokenizer


def save_pair(folder: Path, **changes: Any) -> Path:
    for part in make_pair(**changes):
        part.save_pretrained(folder)
    return folder
