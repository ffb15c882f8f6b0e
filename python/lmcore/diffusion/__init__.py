"""Text diffusion in few steps: Distance Penalty and Adaptive Decay Sampling (arXiv 2305.04465)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore.diffusion.registration import register_auto_classes

if TYPE_CHECKING:
    from lmcore.diffusion.checkpoints import convert_checkpoint, load_checkpoint
    from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
    from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
    from lmcore.diffusion.noise import SamplingNoise
    from lmcore.diffusion.objective import Losses, Penalty, View, compute_losses
    from lmcore.diffusion.process import Process
    from lmcore.diffusion.sampling import Sampler, Step, sample_latents, sample_tokens

# What needs torch or transformers, by the module that holds it: the others do without.
_LAZY = {
    "Losses": "objective",
    "Penalty": "objective",
    "Process": "process",
    "Sampler": "sampling",
    "SamplingNoise": "noise",
    "Step": "sampling",
    "TextDiffusionConfig": "configuration_text_diffusion",
    "TextDiffusionModel": "modeling_text_diffusion",
    "View": "objective",
    "compute_losses": "objective",
    "convert_checkpoint": "checkpoints",
    "load_checkpoint": "checkpoints",
    "sample_latents": "sampling",
    "sample_tokens": "sampling",
}

__all__ = [
    "Losses",
    "Penalty",
    "Process",
    "Sampler",
    "SamplingNoise",
    "Step",
    "TextDiffusionConfig",
    "TextDiffusionModel",
    "View",
    "compute_losses",
    "convert_checkpoint",
    "load_checkpoint",
    "sample_latents",
    "sample_tokens",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.diffusion.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
