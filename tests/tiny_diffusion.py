"""Small runs of text diffusion, on generated paraphrases."""

from typing import Any

from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.recipes import TrainConfig, tiny
from lmcore.diffusion.tokenization import TextTokenizer, make_bert_tokenizer
from lmcore.training.config import change
from lmcore.worlds.diffusion import list_tokens, make_world

SMALL: dict[str, Any] = {
    "shape.latent_size": 8, "shape.hidden_size": 16, "shape.layers": 1, "shape.heads": 2,
    "shape.ffn_size": 16, "shape.time_size": 8, "shape.dropout": 0.1, "diffusion_steps": 60,
    "batch_size": 6, "micro_batch_size": 2, "validation_pairs": 5, "average": 0.9,
    "schedule.warmup_steps": 1, "loop.steps": 5, "loop.validate_every_steps": 2,
    "loop.log_every_steps": 1, "loop.save_every_seconds": 0.0, "device.device": "cpu",
    "device.threads": 1,
}  # fmt: skip


def small(**changes: Any) -> TrainConfig:
    return change(tiny(), {**SMALL, **changes})


def make_tokenizer() -> TextTokenizer:
    return make_bert_tokenizer(list_tokens())


def make_pairs(count: int, seed: int = 0) -> list[Pair]:
    return [Pair(pair.source, pair.target) for pair in make_world(seed, pairs=count).pairs]
