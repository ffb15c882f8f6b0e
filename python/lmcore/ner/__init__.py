"""Named entity recognition by generation (GNER, arXiv 2402.16602).

Sentences become instructions and targets, and any model's `word(label) word(label) ...` text
becomes entities with offsets, and scores.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.ner.back_tokenization import BackTokenizer
from lmcore.ner.breakdown import Breakdown, break_down
from lmcore.ner.comparison import Comparison, compare_files
from lmcore.ner.confidence import Calibration, CalibrationBin, measure_calibration
from lmcore.ner.data import DataSummary, write_examples
from lmcore.ner.errors import ErrorReport, find_errors
from lmcore.ner.evaluation import DatasetScores, Scores, score, score_file, score_files
from lmcore.ner.examples import Example, ExampleConfig, ExampleReport, build_examples
from lmcore.ner.extraction import extract
from lmcore.ner.instructions import write_instruction, write_target
from lmcore.ner.labelled import LabelledRow, Reading, read_labelled
from lmcore.ner.reading import SentenceReader, read_sentences
from lmcore.ner.sampling import SampleConfig
from lmcore.ner.sentences import Sentence, make_sentence
from lmcore.ops.matching import Match, match_labels, match_labels_batch, parse_generation
from lmcore.ops.predictions import AlignedRow, Entity, WorstSentence, align_file, align_row

if TYPE_CHECKING:
    from lmcore.ner.collator import GNERCollator
    from lmcore.ner.decoding import ConstrainedDecoding, Constraint, ConstraintMaker
    from lmcore.ner.generation import Generation
    from lmcore.ner.prediction import (
        PredictionCounts,
        PredictionSummary,
        RecognizedEntity,
        predict,
        predict_file,
    )
    from lmcore.ner.recipes import TrainConfig
    from lmcore.ner.recognizer import Recognizer, TextReport
    from lmcore.ner.training import TrainResult, train

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
    "GNERCollator": "collator",
    "TrainConfig": "recipes",
    "TrainResult": "training",
    "train": "training",
}

__all__ = [
    "AlignedRow",
    "BackTokenizer",
    "Breakdown",
    "Calibration",
    "CalibrationBin",
    "Comparison",
    "ConstrainedDecoding",
    "Constraint",
    "ConstraintMaker",
    "DataSummary",
    "DatasetScores",
    "Entity",
    "ErrorReport",
    "Example",
    "ExampleConfig",
    "ExampleReport",
    "GNERCollator",
    "Generation",
    "LabelledRow",
    "Match",
    "PredictionCounts",
    "PredictionSummary",
    "Reading",
    "RecognizedEntity",
    "Recognizer",
    "SampleConfig",
    "Scores",
    "Sentence",
    "SentenceReader",
    "TextReport",
    "TrainConfig",
    "TrainResult",
    "WorstSentence",
    "align_file",
    "align_row",
    "break_down",
    "build_examples",
    "compare_files",
    "extract",
    "find_errors",
    "make_sentence",
    "match_labels",
    "match_labels_batch",
    "measure_calibration",
    "parse_generation",
    "predict",
    "predict_file",
    "read_labelled",
    "read_sentences",
    "score",
    "score_file",
    "score_files",
    "train",
    "write_examples",
    "write_instruction",
    "write_target",
]


def __getattr__(name: str) -> Any:
    if name not in _NEEDS_TORCH:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.ner.{_NEEDS_TORCH[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
