"""Text diffusion in few steps: Distance Penalty and Adaptive Decay Sampling (arXiv 2305.04465)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.diffusion.registration import register_auto_classes

if TYPE_CHECKING:
    from lmcore.diffusion.chains import Chain, render_chains, trace_chains, trace_file
    from lmcore.diffusion.checkpoints import convert_checkpoint, load_checkpoint
    from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
    from lmcore.diffusion.generation import (
        Generation,
        TextGenerator,
        generate_texts,
        load_generator,
    )
    from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
    from lmcore.diffusion.noise import SamplingNoise
    from lmcore.diffusion.objective import Losses, Penalty, View, compute_losses, shift_timesteps
    from lmcore.diffusion.process import Process
    from lmcore.diffusion.samples import SampleSummary, sample_file, sample_files
    from lmcore.diffusion.sampling import Sampler, Step, sample_latents, sample_tokens
    from lmcore.diffusion.spacing import choose_timesteps, make_process

# What needs torch or transformers, by the module that holds it: the others do without.
_LAZY = {
    "Chain": "chains",
    "Generation": "generation",
    "Losses": "objective",
    "Penalty": "objective",
    "Process": "process",
    "SampleSummary": "samples",
    "Sampler": "sampling",
    "SamplingNoise": "noise",
    "Step": "sampling",
    "TextDiffusionConfig": "configuration_text_diffusion",
    "TextDiffusionModel": "modeling_text_diffusion",
    "TextGenerator": "generation",
    "View": "objective",
    "choose_timesteps": "spacing",
    "compute_losses": "objective",
    "convert_checkpoint": "checkpoints",
    "generate_texts": "generation",
    "load_checkpoint": "checkpoints",
    "load_generator": "generation",
    "make_process": "spacing",
    "render_chains": "chains",
    "sample_file": "samples",
    "sample_files": "samples",
    "sample_latents": "sampling",
    "sample_tokens": "sampling",
    "shift_timesteps": "objective",
    "trace_chains": "chains",
    "trace_file": "chains",
}

__all__ = [
    "Chain",
    "Generation",
    "Losses",
    "Penalty",
    "Process",
    "SampleSummary",
    "Sampler",
    "SamplingNoise",
    "Step",
    "TextDiffusionConfig",
    "TextDiffusionModel",
    "TextGenerator",
    "View",
    "choose_timesteps",
    "compute_losses",
    "convert_checkpoint",
    "generate_texts",
    "load_checkpoint",
    "load_generator",
    "make_process",
    "render_chains",
    "sample_file",
    "sample_files",
    "sample_latents",
    "sample_tokens",
    "shift_timesteps",
    "trace_chains",
    "trace_file",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.diffusion.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
