"""Detoxification step by step: Detox-Chain, later CMD (arXiv 2308.08295)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore.detox.data import Generations, Prompt, parse_generations, parse_prompt, read_prompts
from lmcore.detox.evaluation import Evaluation, evaluate_file, evaluate_generations
from lmcore.detox.lexicon_scorer import LexiconScorer
from lmcore.detox.ngram_scorer import NgramScorer
from lmcore.detox.ngram_training import train_scorer
from lmcore.detox.perspective import PerspectiveScorer
from lmcore.detox.score_cache import CachedScorer
from lmcore.detox.scorers import Scorer, WordWeight, check_scores, load_scorer
from lmcore.detox.scoring import ScoreSummary, score_file
from lmcore.detox.sheet import Judgement, read_answers, write_sheet
from lmcore.detox.similarity import load_similarity, ngram_similarity
from lmcore.detox.toxicity import (
    MaximumToxicity,
    expected_maximum_toxicity,
    toxic_prompt_share,
    toxic_sample_share,
)

if TYPE_CHECKING:
    from lmcore.detox.classifier_scorer import ClassifierScorer
    from lmcore.detox.detoxify_scorer import load_detoxify

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "ClassifierScorer": "classifier_scorer",
    "load_detoxify": "detoxify_scorer",
}

__all__ = [
    "CachedScorer",
    "ClassifierScorer",
    "Evaluation",
    "Generations",
    "Judgement",
    "LexiconScorer",
    "MaximumToxicity",
    "NgramScorer",
    "PerspectiveScorer",
    "Prompt",
    "ScoreSummary",
    "Scorer",
    "WordWeight",
    "check_scores",
    "evaluate_file",
    "evaluate_generations",
    "expected_maximum_toxicity",
    "load_detoxify",
    "load_scorer",
    "load_similarity",
    "ngram_similarity",
    "parse_generations",
    "parse_prompt",
    "read_answers",
    "read_prompts",
    "score_file",
    "toxic_prompt_share",
    "toxic_sample_share",
    "train_scorer",
    "write_sheet",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.detox.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
