"""Text diffusion in few steps: Bridge-Gap Diffusion (arXiv 2305.04465)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.diffusion.generations import Generation, remove_marks
from lmcore.diffusion.mbr import ChoiceSummary, choose_candidates
from lmcore.diffusion.scoring import FileScores, score_file, score_texts

if TYPE_CHECKING:
    from lmcore.diffusion.model_scores import (
        BertScores,
        Perplexity,
        compute_bert_scores,
        compute_perplexity,
    )

# What needs torch or transformers, by the module that holds it: the others do without.
_LAZY = {
    "BertScores": "model_scores",
    "Perplexity": "model_scores",
    "compute_bert_scores": "model_scores",
    "compute_perplexity": "model_scores",
}

__all__ = [
    "BertScores",
    "ChoiceSummary",
    "FileScores",
    "Generation",
    "Perplexity",
    "choose_candidates",
    "compute_bert_scores",
    "compute_perplexity",
    "remove_marks",
    "score_file",
    "score_texts",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.diffusion.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
