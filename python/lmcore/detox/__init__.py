"""Detoxification step by step: Detox-Chain, later CMD (arXiv 2308.08295)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore.detox.chain_files import ChainSummary, check_chains, find_grammar, make_chains
from lmcore.detox.chain_rows import ChainRow, find_problem, read_chain_row
from lmcore.detox.chains import Chain, ChainError
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
from lmcore.detox.selection import (
    ScoredText,
    Selection,
    keep_extremes,
    make_training_row,
    score_samples,
    select_generations,
)
from lmcore.detox.sheet import Judgement, read_answers, write_sheet
from lmcore.detox.similarity import load_similarity, ngram_similarity
from lmcore.detox.span_scores import SpanScores, score_characters, score_pairs, score_spans
from lmcore.detox.span_scoring import SpanFileScores, score_finder, score_span_files
from lmcore.detox.toxicity import (
    MaximumToxicity,
    expected_maximum_toxicity,
    toxic_prompt_share,
    toxic_sample_share,
)

if TYPE_CHECKING:
    from lmcore.detox.chain_collator import ChainCollator
    from lmcore.detox.chain_model import ContrastiveModel
    from lmcore.detox.chain_writing import ChainSampling, ChainWriter, load_writer
    from lmcore.detox.classifier_scorer import ClassifierScorer
    from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
    from lmcore.detox.continuing import (
        ContinuationSampling,
        ContinuedText,
        TextContinuer,
        load_continuer,
    )
    from lmcore.detox.contrastive import contrastive_loss, pool_states
    from lmcore.detox.detoxify_scorer import load_detoxify
    from lmcore.detox.filling import FilledText, FillSampling, MaskFiller, load_filler
    from lmcore.detox.generation import WritingSummary, generate_file
    from lmcore.detox.masking import MaskedText, mask_texts, mask_tokens
    from lmcore.detox.modeling_segment_cnn import SegmentCNNModel, load_segment_cnn
    from lmcore.detox.objective import compute_span_loss
    from lmcore.detox.pipeline import PipelineSummary, run_steps
    from lmcore.detox.rephrasing import RephrasedText, RephraseRule, rephrase_texts
    from lmcore.detox.span_collator import SpanCollator
    from lmcore.detox.span_files import SpanSummary, find_spans_file, mask_file
    from lmcore.detox.span_labels import SpanExample, read_labelled, score_segments
    from lmcore.detox.span_training import SpanTrainResult, train_spans
    from lmcore.detox.spans import Span, SpanFinder, TextSpans, load_span_finder
    from lmcore.detox.steps import ContinueStep, FillStep, MaskStep, SelectStep
    from lmcore.detox.tokenization import SegmentTokenizer
    from lmcore.detox.training import TrainResult, train

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "ChainCollator": "chain_collator",
    "ChainSampling": "chain_writing",
    "ChainWriter": "chain_writing",
    "ClassifierScorer": "classifier_scorer",
    "ContinuationSampling": "continuing",
    "ContinueStep": "steps",
    "ContinuedText": "continuing",
    "ContrastiveModel": "chain_model",
    "FillSampling": "filling",
    "FillStep": "steps",
    "FilledText": "filling",
    "MaskFiller": "filling",
    "MaskStep": "steps",
    "MaskedText": "masking",
    "PipelineSummary": "pipeline",
    "RephraseRule": "rephrasing",
    "RephrasedText": "rephrasing",
    "SegmentCNNConfig": "configuration_segment_cnn",
    "SegmentCNNModel": "modeling_segment_cnn",
    "SegmentTokenizer": "tokenization",
    "SelectStep": "steps",
    "Span": "spans",
    "SpanCollator": "span_collator",
    "SpanExample": "span_labels",
    "SpanFinder": "spans",
    "SpanSummary": "span_files",
    "SpanTrainResult": "span_training",
    "TextContinuer": "continuing",
    "TextSpans": "spans",
    "TrainResult": "training",
    "WritingSummary": "generation",
    "compute_span_loss": "objective",
    "contrastive_loss": "contrastive",
    "find_spans_file": "span_files",
    "generate_file": "generation",
    "load_continuer": "continuing",
    "load_detoxify": "detoxify_scorer",
    "load_filler": "filling",
    "load_segment_cnn": "modeling_segment_cnn",
    "load_span_finder": "spans",
    "load_writer": "chain_writing",
    "mask_file": "span_files",
    "mask_texts": "masking",
    "mask_tokens": "masking",
    "pool_states": "contrastive",
    "read_labelled": "span_labels",
    "rephrase_texts": "rephrasing",
    "run_steps": "pipeline",
    "score_segments": "span_labels",
    "train": "training",
    "train_spans": "span_training",
}

__all__ = [
    "CachedScorer",
    "Chain",
    "ChainCollator",
    "ChainError",
    "ChainRow",
    "ChainSampling",
    "ChainSummary",
    "ChainWriter",
    "ClassifierScorer",
    "ContinuationSampling",
    "ContinueStep",
    "ContinuedText",
    "ContrastiveModel",
    "Evaluation",
    "FillSampling",
    "FillStep",
    "FilledText",
    "Generations",
    "Judgement",
    "LexiconScorer",
    "MaskFiller",
    "MaskStep",
    "MaskedText",
    "MaximumToxicity",
    "NgramScorer",
    "PerspectiveScorer",
    "PipelineSummary",
    "Prompt",
    "RephraseRule",
    "RephrasedText",
    "ScoreSummary",
    "ScoredText",
    "Scorer",
    "SegmentCNNConfig",
    "SegmentCNNModel",
    "SegmentTokenizer",
    "SelectStep",
    "Selection",
    "Span",
    "SpanCollator",
    "SpanExample",
    "SpanFileScores",
    "SpanFinder",
    "SpanScores",
    "SpanSummary",
    "SpanTrainResult",
    "TextContinuer",
    "TextSpans",
    "TrainResult",
    "WordWeight",
    "WritingSummary",
    "check_chains",
    "check_scores",
    "compute_span_loss",
    "contrastive_loss",
    "evaluate_file",
    "evaluate_generations",
    "expected_maximum_toxicity",
    "find_grammar",
    "find_problem",
    "find_spans_file",
    "generate_file",
    "keep_extremes",
    "load_continuer",
    "load_detoxify",
    "load_filler",
    "load_scorer",
    "load_segment_cnn",
    "load_similarity",
    "load_span_finder",
    "load_writer",
    "make_chains",
    "make_training_row",
    "mask_file",
    "mask_texts",
    "mask_tokens",
    "ngram_similarity",
    "parse_generations",
    "parse_prompt",
    "pool_states",
    "read_answers",
    "read_chain_row",
    "read_labelled",
    "read_prompts",
    "rephrase_texts",
    "run_steps",
    "score_characters",
    "score_file",
    "score_finder",
    "score_pairs",
    "score_samples",
    "score_segments",
    "score_span_files",
    "score_spans",
    "select_generations",
    "toxic_prompt_share",
    "toxic_sample_share",
    "train",
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
