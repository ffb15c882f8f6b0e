"""Named entity recognition by generation (GNER, arXiv 2402.16602).

Any model's `word(label) word(label) ...` text becomes entities with offsets, and scores.
"""

from lmcore.ner.back_tokenization import BackTokenizer
from lmcore.ner.evaluation import DatasetScores, Scores, score, score_file, score_files
from lmcore.ner.extraction import extract
from lmcore.ops.matching import Match, match_labels, match_labels_batch, parse_generation
from lmcore.ops.predictions import AlignedRow, Entity, WorstSentence, align_file, align_row

__all__ = [
    "AlignedRow",
    "BackTokenizer",
    "DatasetScores",
    "Entity",
    "Match",
    "Scores",
    "WorstSentence",
    "align_file",
    "align_row",
    "extract",
    "match_labels",
    "match_labels_batch",
    "parse_generation",
    "score",
    "score_file",
    "score_files",
]
