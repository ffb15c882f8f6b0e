"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from lmcore.compression.counting import CountSummary, count_files
from lmcore.compression.counts import Counts, read_counts, write_counts
from lmcore.compression.remapping import RemapSummary, remap_file

__all__ = [
    "CountSummary",
    "Counts",
    "RemapSummary",
    "count_files",
    "read_counts",
    "remap_file",
    "write_counts",
]
