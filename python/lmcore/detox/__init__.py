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
from lmcore.detox.registration import register_auto_classes
from lmcore.detox.score_cache import CachedScorer
from lmcore.detox.scorers import Scorer, WordWeight, check_scores, load_scorer
from lmcore.detox.scoring import ScoreSummary, score_file
from lmcore.detox.sheet import Judgement, read_answers, write_sheet
from lmcore.detox.similarity import load_similarity, ngram_similarity
from lmcore.detox.span_scores import SpanScores, score_characters, score_pairs, score_spans
from lmcore.detox.toxicity import (
    MaximumToxicity,
    expected_maximum_toxicity,
    toxic_prompt_share,
    toxic_sample_share,
)

if TYPE_CHECKING:
    from lmcore.detox.classifier_scorer import ClassifierScorer
    from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
    from lmcore.detox.detoxify_scorer import load_detoxify
    from lmcore.detox.masking import MaskedText, mask_texts, mask_tokens
    from lmcore.detox.modeling_segment_cnn import SegmentCNNModel, load_segment_cnn
    from lmcore.detox.objective import compute_span_loss
    from lmcore.detox.span_collator import SpanCollator
    from lmcore.detox.span_files import SpanSummary, find_spans_file, mask_file
    from lmcore.detox.span_labels import SpanExample, read_labelled, score_segments
    from lmcore.detox.span_training import SpanTrainResult, train_spans
    from lmcore.detox.spans import Span, SpanFinder, TextSpans, load_span_finder
    from lmcore.detox.tokenization import SegmentTokenizer

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "ClassifierScorer": "classifier_scorer",
    "MaskedText": "masking",
    "SegmentCNNConfig": "configuration_segment_cnn",
    "SegmentCNNModel": "modeling_segment_cnn",
    "SegmentTokenizer": "tokenization",
    "Span": "spans",
    "SpanCollator": "span_collator",
    "SpanExample": "span_labels",
    "SpanFinder": "spans",
    "SpanSummary": "span_files",
    "SpanTrainResult": "span_training",
    "TextSpans": "spans",
    "compute_span_loss": "objective",
    "find_spans_file": "span_files",
    "load_detoxify": "detoxify_scorer",
    "load_segment_cnn": "modeling_segment_cnn",
    "load_span_finder": "spans",
    "mask_file": "span_files",
    "mask_texts": "masking",
    "mask_tokens": "masking",
    "read_labelled": "span_labels",
    "score_segments": "span_labels",
    "train_spans": "span_training",
}

__all__ = [
    "CachedScorer",
    "ClassifierScorer",
    "Evaluation",
    "Generations",
    "Judgement",
    "LexiconScorer",
    "MaskedText",
    "MaximumToxicity",
    "NgramScorer",
    "PerspectiveScorer",
    "Prompt",
    "ScoreSummary",
    "Scorer",
    "SegmentCNNConfig",
    "SegmentCNNModel",
    "SegmentTokenizer",
    "Span",
    "SpanCollator",
    "SpanExample",
    "SpanFinder",
    "SpanScores",
    "SpanSummary",
    "SpanTrainResult",
    "TextSpans",
    "WordWeight",
    "check_scores",
    "compute_span_loss",
    "evaluate_file",
    "evaluate_generations",
    "expected_maximum_toxicity",
    "find_spans_file",
    "load_detoxify",
    "load_scorer",
    "load_segment_cnn",
    "load_similarity",
    "load_span_finder",
    "mask_file",
    "mask_texts",
    "mask_tokens",
    "ngram_similarity",
    "parse_generations",
    "parse_prompt",
    "read_answers",
    "read_labelled",
    "read_prompts",
    "score_characters",
    "score_file",
    "score_pairs",
    "score_segments",
    "score_spans",
    "toxic_prompt_share",
    "toxic_sample_share",
    "train_scorer",
    "train_spans",
    "write_sheet",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.detox.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
