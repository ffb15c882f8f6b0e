"""Small text diffusion models, and the process that the goldens were made with."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel

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
