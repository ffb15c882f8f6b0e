"""Named entity recognition by generation (GNER, arXiv 2402.16602).

Any model's `word(label) word(label) ...` text becomes entities with offsets, and scores.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.ner.back_tokenization import BackTokenizer
from lmcore.ner.confidence import Calibration, CalibrationBin, measure_calibration
from lmcore.ner.evaluation import DatasetScores, Scores, score, score_file, score_files
from lmcore.ner.extraction import extract
from lmcore.ops.matching import Match, match_labels, match_labels_batch, parse_generation
from lmcore.ops.predictions import AlignedRow, Entity, WorstSentence, align_file, align_row

if TYPE_CHECKING:
    from lmcore.ner.decoding import ConstrainedDecoding, Constraint, ConstraintMaker
    from lmcore.ner.generation import Generation
    from lmcore.ner.prediction import (
        PredictionCounts,
        PredictionSummary,
        RecognizedEntity,
        predict,
        predict_file,
    )
    from lmcore.ner.recognizer import Recognizer, TextReport

# What needs torch, by the module that holds it: the others do without.
_NEEDS_TORCH = {
    "ConstrainedDecoding": "decoding",
    "Constraint": "decoding",
    "ConstraintMaker": "decoding",
    "Generation": "generation",
    "PredictionCounts": "prediction",
    "PredictionSummary": "prediction",
    "RecognizedEntity": "prediction",
    "Recognizer": "recognizer",
    "TextReport": "recognizer",
    "predict": "prediction",
    "predict_file": "prediction",
}

__all__ = [
    "AlignedRow",
    "BackTokenizer",
    "Calibration",
    "CalibrationBin",
    "ConstrainedDecoding",
    "Constraint",
    "ConstraintMaker",
    "DatasetScores",
    "Entity",
    "Generation",
    "Match",
    "PredictionCounts",
    "PredictionSummary",
    "RecognizedEntity",
    "Recognizer",
    "Scores",
    "TextReport",
    "WorstSentence",
    "align_file",
    "align_row",
    "extract",
    "match_labels",
    "match_labels_batch",
    "measure_calibration",
    "parse_generation",
    "predict",
    "predict_file",
    "score",
    "score_file",
    "score_files",
]


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.ner.{_NEEDS_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return __all__
