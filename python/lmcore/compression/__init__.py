"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from lmcore.compression.choosing import Scores, Sizes, choose, choose_stage, draw_scores
from lmcore.compression.cuts import TensorCut, apply_cut, find_shape
from lmcore.compression.model_folders import PruneSummary, prune_folder
from lmcore.compression.plan import (
    Plan,
    Stage,
    add_stage,
    compose,
    find_kept,
    prune_shape,
    split_stages,
)
from lmcore.compression.plan_files import read_plan, write_plan
from lmcore.compression.planning import add_chosen_stage, list_shapes, start_plan
from lmcore.compression.pruning import check_plan, make_cuts, prune_config, prune_state
from lmcore.compression.record import Record, read_record, write_record
from lmcore.compression.shards import CutSummary, cut_checkpoint

__all__ = [
    "CutSummary",
    "Plan",
    "PruneSummary",
    "Record",
    "Scores",
    "Sizes",
    "Stage",
    "TensorCut",
    "add_chosen_stage",
    "add_stage",
    "apply_cut",
    "check_plan",
    "choose",
    "choose_stage",
    "compose",
    "cut_checkpoint",
    "draw_scores",
    "find_kept",
    "find_shape",
    "list_shapes",
    "make_cuts",
    "prune_config",
    "prune_folder",
    "prune_shape",
    "prune_state",
    "read_plan",
    "read_record",
    "split_stages",
    "start_plan",
    "write_plan",
    "write_record",
]
