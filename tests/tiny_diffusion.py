"""Small runs and models of text diffusion, on generated paraphrases and on random numbers."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
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


# Models and the process that the goldens were made with.

SIZES = {
    "vocab_size": 30, "latent_size": 6, "hidden_size": 16, "num_hidden_layers": 2,
    "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 12,
    "time_size": 8, "dropout": 0.0, "attention_dropout": 0.0, "diffusion_steps": 40,
}  # fmt: skip


def make_config(**changes: Any) -> TextDiffusionConfig:
    return TextDiffusionConfig(**{**SIZES, **changes})


def make_model(seed: int = 0, **changes: Any) -> TextDiffusionModel:
    torch.manual_seed(seed)
    return TextDiffusionModel(make_config(**changes)).eval()


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sqrt_betas(steps: int) -> NDArray[np.float64]:
    """1 - abar grows as a square root: DiffuSeq's schedule."""
    left = 1 - np.sqrt(np.arange(steps + 1) / steps + 1e-4)
    return np.minimum(1 - left[1:] / left[:-1], 0.999)


def respace(betas: NDArray[np.float64], kept: list[int]) -> NDArray[np.float64]:
    """Betas whose products are those of the kept steps."""
    left = np.cumprod(1 - betas)[kept]
    return 1 - left / np.append(1.0, left[:-1])
