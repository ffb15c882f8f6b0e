"""Named entity recognition by generation (GNER, arXiv 2402.16602).

Any model's `word(label) word(label) ...` text becomes entities with offsets, and scores.
"""

from lmcore.ner.back_tokenization import BackTokenizer
from lmcore.ner.breakdown import Breakdown, break_down
from lmcore.ner.comparison import Comparison, compare_files
from lmcore.ner.errors import ErrorReport, find_errors
from lmcore.ner.evaluation import DatasetScores, Scores, score, score_file, score_files
from lmcore.ner.extraction import extract
from lmcore.ner.labelled import LabelledRow, Reading, read_labelled
from lmcore.ops.matching import Match, match_labels, match_labels_batch, parse_generation
from lmcore.ops.predictions import AlignedRow, Entity, WorstSentence, align_file, align_row

__all__ = [
    "AlignedRow",
    "BackTokenizer",
    "Breakdown",
    "Comparison",
    "DatasetScores",
    "Entity",
    "ErrorReport",
    "LabelledRow",
    "Match",
    "Reading",
    "Scores",
    "WorstSentence",
    "align_file",
    "align_row",
    "break_down",
    "compare_files",
    "extract",
    "find_errors",
    "match_labels",
    "match_labels_batch",
    "parse_generation",
    "read_labelled",
    "score",
    "score_file",
    "score_files",
]
