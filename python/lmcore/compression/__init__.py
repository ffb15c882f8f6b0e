"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from lmcore.compression.cuts import TensorCut, apply_cut, find_shape
from lmcore.compression.shards import CutSummary, cut_checkpoint

__all__ = ["CutSummary", "TensorCut", "apply_cut", "cut_checkpoint", "find_shape"]
