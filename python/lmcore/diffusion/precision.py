"""The types in which a model samples: its network may be narrow, its words are not."""

from __future__ import annotations

from typing import Any

import torch

from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.training.config import DeviceConfig
from lmcore.training.processes import choose_precision, find_device

PRECISIONS = ("auto", "float32", "bfloat16")
_WORDS = ("word_embedding", "lm_head")


def find_precision(device: str = "auto", precision: str = "auto") -> torch.dtype:
    """Returns the type in which a device shall compute.

    Args:
        device: as for `lmcore.training.processes.find_device`.
        precision: one of `PRECISIONS`.

    Raises:
        ValueError: there is no such precision, or bfloat16 is asked for where there is none.

    Example:
        >>> find_precision("cpu")
        torch.float32
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}: got {precision!r:.60}")
    if precision == "float32":
        return torch.float32
    found = choose_precision(DeviceConfig(precision="bfloat16", device=device)).precision
    if found != "bfloat16" and precision == "bfloat16":
        raise ValueError(f"precision bfloat16: {find_device(device).type} lacks it here")
    return torch.bfloat16 if found == "bfloat16" else torch.float32


def narrow_denoiser(model: TextDiffusionModel, kind: torch.dtype) -> TextDiffusionModel:
    """Returns a model with all of its weights converted but its words.

    What latents are rounded to and read by stays as exact as it was.

    Args:
        model: of text diffusion; changed in place.
        kind: of its other weights.

    Example:
        >>> from lmcore.diffusion import TextDiffusionConfig
        >>> model = TextDiffusionModel(TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... ))
        >>> model = narrow_denoiser(model, torch.bfloat16)
        >>> model.position_embeddings.weight.dtype, model.lm_head.weight.dtype
        (torch.bfloat16, torch.float32)
    """
    modules: dict[str, Any] = dict(model.named_children())
    for name, module in modules.items():
        if name not in _WORDS:
            module.to(kind)
    return model
