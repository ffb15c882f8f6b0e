"""Text diffusion in few steps: Distance Penalty and Adaptive Decay Sampling (arXiv 2305.04465)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._attention import register_attention
from lmcore._extras import optional_imports
from lmcore.diffusion.generations import Generation, remove_marks
from lmcore.diffusion.mbr import ChoiceSummary, choose_candidates
from lmcore.diffusion.pairs import Pair, PairReader, References, group_references
from lmcore.diffusion.profile import Curve, Profile, read_profile, write_profile
from lmcore.diffusion.proportions import adaptive_timesteps, find_proportions
from lmcore.diffusion.registration import register_auto_classes
from lmcore.diffusion.scoring import FileScores, score_file, score_texts

if TYPE_CHECKING:
    from lmcore.diffusion.chains import Chain, render_chains, trace_chains, trace_file
    from lmcore.diffusion.checkpoints import convert_checkpoint, load_checkpoint
    from lmcore.diffusion.classifier import LatentClassifier, train_classifier
    from lmcore.diffusion.collator import PairCollator
    from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig
    from lmcore.diffusion.distillation import Halving
    from lmcore.diffusion.guidance import ClassifierGuide, GuidanceConfig
    from lmcore.diffusion.model_scores import (
        BertScores,
        Perplexity,
        compute_bert_scores,
        compute_perplexity,
    )
    from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
    from lmcore.diffusion.models import load_model
    from lmcore.diffusion.noise import SamplingNoise
    from lmcore.diffusion.objective import Losses, Penalty, View, compute_losses
    from lmcore.diffusion.process import Process
    from lmcore.diffusion.profile_plots import plot_profiles
    from lmcore.diffusion.profiling import make_profile
    from lmcore.diffusion.samples import SampleSummary, sample_file, sample_files
    from lmcore.diffusion.sampling import Draft, Sampler, Step, sample_latents, sample_tokens
    from lmcore.diffusion.spacing import choose_timesteps, make_process
    from lmcore.diffusion.texts import SamplingConfig, TextGenerator, generate_texts, load_generator
    from lmcore.diffusion.tokenization import TextTokenizer, load_tokenizer
    from lmcore.diffusion.training import TrainResult, train

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "BertScores": "model_scores",
    "Chain": "chains",
    "ClassifierGuide": "guidance",
    "Draft": "sampling",
    "GuidanceConfig": "guidance",
    "Halving": "distillation",
    "LatentClassifier": "classifier",
    "Losses": "objective",
    "PairCollator": "collator",
    "Penalty": "objective",
    "Perplexity": "model_scores",
    "Process": "process",
    "SampleSummary": "samples",
    "Sampler": "sampling",
    "SamplingConfig": "texts",
    "SamplingNoise": "noise",
    "Step": "sampling",
    "TextDiffusionConfig": "configuration_text_diffusion",
    "TextDiffusionModel": "modeling_text_diffusion",
    "TextGenerator": "texts",
    "TextTokenizer": "tokenization",
    "TrainResult": "training",
    "View": "objective",
    "choose_timesteps": "spacing",
    "compute_bert_scores": "model_scores",
    "compute_losses": "objective",
    "compute_perplexity": "model_scores",
    "convert_checkpoint": "checkpoints",
    "generate_texts": "texts",
    "load_checkpoint": "checkpoints",
    "load_generator": "texts",
    "load_model": "models",
    "load_tokenizer": "tokenization",
    "make_process": "spacing",
    "make_profile": "profiling",
    "plot_profiles": "profile_plots",
    "render_chains": "chains",
    "sample_file": "samples",
    "sample_files": "samples",
    "sample_latents": "sampling",
    "sample_tokens": "sampling",
    "trace_chains": "chains",
    "trace_file": "chains",
    "train": "training",
    "train_classifier": "classifier",
}

__all__ = [
    "BertScores",
    "Chain",
    "ChoiceSummary",
    "ClassifierGuide",
    "Curve",
    "Draft",
    "FileScores",
    "Generation",
    "GuidanceConfig",
    "Halving",
    "LatentClassifier",
    "Losses",
    "Pair",
    "PairCollator",
    "PairReader",
    "Penalty",
    "Perplexity",
    "Process",
    "Profile",
    "References",
    "SampleSummary",
    "Sampler",
    "SamplingConfig",
    "SamplingNoise",
    "Step",
    "TextDiffusionConfig",
    "TextDiffusionModel",
    "TextGenerator",
    "TextTokenizer",
    "TrainResult",
    "View",
    "adaptive_timesteps",
    "choose_candidates",
    "choose_timesteps",
    "compute_bert_scores",
    "compute_losses",
    "compute_perplexity",
    "convert_checkpoint",
    "find_proportions",
    "generate_texts",
    "group_references",
    "load_checkpoint",
    "load_generator",
    "load_model",
    "load_tokenizer",
    "make_process",
    "make_profile",
    "plot_profiles",
    "read_profile",
    "remove_marks",
    "render_chains",
    "sample_file",
    "sample_files",
    "sample_latents",
    "sample_tokens",
    "score_file",
    "score_texts",
    "trace_chains",
    "trace_file",
    "train",
    "train_classifier",
    "write_profile",
]

register_auto_classes()
register_attention()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.diffusion.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
