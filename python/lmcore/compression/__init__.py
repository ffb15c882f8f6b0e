"""Smaller models out of larger ones: plans, cuts, vocabularies (OpenBA-V2, arXiv 2405.05957)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lmcore.compression.choosing import Scores, Sizes, choose, choose_stage, draw_scores
    from lmcore.compression.composition import add_stage, compose, split_stages
    from lmcore.compression.counting import CountSummary, count_files
    from lmcore.compression.counts import Counts, read_counts, write_counts
    from lmcore.compression.cuts import TensorCut, apply_cut, find_shape
    from lmcore.compression.distillation import distil
    from lmcore.compression.distillation_config import DistillationConfig
    from lmcore.compression.distilled_batches import DistilledLosses, distil_batch
    from lmcore.compression.gated_model import GatedModel
    from lmcore.compression.gates import Gates, SizePolynomial
    from lmcore.compression.hidden_states import HiddenLoss
    from lmcore.compression.importance import Calibration, find_scores, score_model
    from lmcore.compression.latency import (
        Latency,
        LatencyReport,
        compare_latency,
        measure_latency,
        record_latency,
    )
    from lmcore.compression.lineage import Lineage, find_teacher, trace
    from lmcore.compression.mask_config import MaskConfig
    from lmcore.compression.mask_learning import MaskResult, learn_masks
    from lmcore.compression.model_folders import PruneSummary, prune_folder
    from lmcore.compression.pieces.folder import TokenizerFolder
    from lmcore.compression.pieces.table import PieceTable
    from lmcore.compression.plan import (
        Plan,
        Stage,
        find_kept,
        prune_shape,
    )
    from lmcore.compression.plan_files import read_plan, write_plan
    from lmcore.compression.planning import (
        add_chosen_stage,
        choose_vocabulary,
        list_shapes,
        start_plan,
    )
    from lmcore.compression.proof import Proof
    from lmcore.compression.proportions import update_proportions
    from lmcore.compression.pruning import check_plan, make_cuts, prune_config, prune_state
    from lmcore.compression.record import Record, read_record, write_record
    from lmcore.compression.recovery import RecoveryResult, recover
    from lmcore.compression.recovery_config import RecoveryConfig
    from lmcore.compression.remapping import RemapSummary, remap_file
    from lmcore.compression.scores_files import (
        StoredScores,
        digest_weights,
        read_scores,
        write_scores,
    )
    from lmcore.compression.search import Candidate
    from lmcore.compression.searched_stages import add_candidate_stages, add_searched_stages
    from lmcore.compression.shards import CutSummary, cut_checkpoint
    from lmcore.compression.targets import Conditions, Target, parse_target
    from lmcore.compression.teacher import Teacher
    from lmcore.compression.vocabulary import Selection, choose_tokens
    from lmcore.compression.vocabulary_pruning import VocabularySummary, prune_vocabulary

# By the module that holds them, which is imported when one of them is used: a plan needs few.
_MODULES = {
    "choosing": (
        "Scores",
        "Sizes",
        "choose",
        "choose_stage",
        "draw_scores",
    ),
    "counting": (
        "CountSummary",
        "count_files",
    ),
    "counts": (
        "Counts",
        "read_counts",
        "write_counts",
    ),
    "cuts": (
        "TensorCut",
        "apply_cut",
        "find_shape",
    ),
    "distillation": ("distil",),
    "distillation_config": ("DistillationConfig",),
    "distilled_batches": (
        "DistilledLosses",
        "distil_batch",
    ),
    "hidden_states": ("HiddenLoss",),
    "importance": (
        "Calibration",
        "find_scores",
        "score_model",
    ),
    "gated_model": ("GatedModel",),
    "gates": (
        "Gates",
        "SizePolynomial",
    ),
    "latency": (
        "Latency",
        "LatencyReport",
        "compare_latency",
        "measure_latency",
        "record_latency",
    ),
    "lineage": (
        "Lineage",
        "find_teacher",
        "trace",
    ),
    "mask_config": ("MaskConfig",),
    "mask_learning": (
        "MaskResult",
        "learn_masks",
    ),
    "model_folders": (
        "PruneSummary",
        "prune_folder",
    ),
    "pieces.folder": ("TokenizerFolder",),
    "pieces.table": ("PieceTable",),
    "composition": (
        "add_stage",
        "compose",
        "split_stages",
    ),
    "plan": (
        "Plan",
        "Stage",
        "find_kept",
        "prune_shape",
    ),
    "plan_files": (
        "read_plan",
        "write_plan",
    ),
    "planning": (
        "add_chosen_stage",
        "choose_vocabulary",
        "list_shapes",
        "start_plan",
    ),
    "proof": ("Proof",),
    "proportions": ("update_proportions",),
    "pruning": (
        "check_plan",
        "make_cuts",
        "prune_config",
        "prune_state",
    ),
    "record": (
        "Record",
        "read_record",
        "write_record",
    ),
    "recovery": (
        "RecoveryResult",
        "recover",
    ),
    "recovery_config": ("RecoveryConfig",),
    "remapping": (
        "RemapSummary",
        "remap_file",
    ),
    "scores_files": (
        "StoredScores",
        "digest_weights",
        "read_scores",
        "write_scores",
    ),
    "search": ("Candidate",),
    "searched_stages": (
        "add_candidate_stages",
        "add_searched_stages",
    ),
    "shards": (
        "CutSummary",
        "cut_checkpoint",
    ),
    "teacher": ("Teacher",),
    "targets": (
        "Conditions",
        "Target",
        "parse_target",
    ),
    "vocabulary": (
        "Selection",
        "choose_tokens",
    ),
    "vocabulary_pruning": (
        "VocabularySummary",
        "prune_vocabulary",
    ),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "Calibration",
    "Candidate",
    "Conditions",
    "CountSummary",
    "Counts",
    "CutSummary",
    "DistillationConfig",
    "DistilledLosses",
    "GatedModel",
    "Gates",
    "HiddenLoss",
    "Latency",
    "LatencyReport",
    "Lineage",
    "MaskConfig",
    "MaskResult",
    "PieceTable",
    "Plan",
    "Proof",
    "PruneSummary",
    "Record",
    "RecoveryConfig",
    "RecoveryResult",
    "RemapSummary",
    "Scores",
    "Selection",
    "SizePolynomial",
    "Sizes",
    "Stage",
    "StoredScores",
    "Target",
    "Teacher",
    "TensorCut",
    "TokenizerFolder",
    "VocabularySummary",
    "add_candidate_stages",
    "add_chosen_stage",
    "add_searched_stages",
    "add_stage",
    "apply_cut",
    "check_plan",
    "choose",
    "choose_stage",
    "choose_tokens",
    "choose_vocabulary",
    "compare_latency",
    "compose",
    "count_files",
    "cut_checkpoint",
    "digest_weights",
    "distil",
    "distil_batch",
    "draw_scores",
    "find_kept",
    "find_scores",
    "find_shape",
    "find_teacher",
    "learn_masks",
    "list_shapes",
    "make_cuts",
    "measure_latency",
    "parse_target",
    "prune_config",
    "prune_folder",
    "prune_shape",
    "prune_state",
    "prune_vocabulary",
    "read_counts",
    "read_plan",
    "read_record",
    "read_scores",
    "record_latency",
    "recover",
    "remap_file",
    "score_model",
    "split_stages",
    "start_plan",
    "trace",
    "update_proportions",
    "write_counts",
    "write_plan",
    "write_record",
    "write_scores",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.compression.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
