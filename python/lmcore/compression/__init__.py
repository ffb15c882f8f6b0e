"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from lmcore.compression.counting import CountSummary, count_files
from lmcore.compression.counts import Counts, read_counts, write_counts
from lmcore.compression.cuts import TensorCut, apply_cut, find_shape
from lmcore.compression.pieces.folder import TokenizerFolder
from lmcore.compression.pieces.table import PieceTable
from lmcore.compression.proof import Proof
from lmcore.compression.record import Record, read_record, write_record
from lmcore.compression.remapping import RemapSummary, remap_file
from lmcore.compression.shards import CutSummary, cut_checkpoint
from lmcore.compression.vocabulary import Selection, choose_tokens
from lmcore.compression.vocabulary_pruning import VocabularySummary, prune_vocabulary

__all__ = [
    "CountSummary",
    "Counts",
    "CutSummary",
    "PieceTable",
    "Proof",
    "Record",
    "RemapSummary",
    "Selection",
    "TensorCut",
    "TokenizerFolder",
    "VocabularySummary",
    "apply_cut",
    "choose_tokens",
    "count_files",
    "cut_checkpoint",
    "find_shape",
    "prune_vocabulary",
    "read_counts",
    "read_record",
    "remap_file",
    "write_counts",
    "write_record",
]
