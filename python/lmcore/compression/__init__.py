"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from lmcore.compression.cuts import TensorCut, apply_cut, find_shape

__all__ = ["TensorCut", "apply_cut", "find_shape"]
