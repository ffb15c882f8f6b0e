"""Sequential recommendation that uses its false negatives (UFNRec, arXiv 2208.04116)."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lmcore._attention import register_attention
from lmcore._extras import MissingExtra, optional_imports
from lmcore.ops.negatives import Batch, DrawWeights, PackedBatch, SequenceSampler
from lmcore.ops.ranking import Ranks, rank_targets, ranking_metrics
from lmcore.recsys.filters import filter_interactions
from lmcore.recsys.frames import interactions_from_frame
from lmcore.recsys.ids import IdMap
from lmcore.recsys.injection import Injection
from lmcore.recsys.metrics import Metric, measure_ranks, parse_metric
from lmcore.recsys.mine import FalseNegativeMiner, MinerStats
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.registration import register_auto_classes
from lmcore.recsys.reports import FilterReport, InteractionReport, SplitReport
from lmcore.recsys.start import EpochLossStart, StartRule, StartSwitch, StepStart

if TYPE_CHECKING:
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.baselines import Baseline, ItemKNN, Popularity
    from lmcore.recsys.configuration_fmlp import FMLPConfig
    from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
    from lmcore.recsys.configuration_ligr import LiGRConfig
    from lmcore.recsys.configuration_sasrec import SASRecConfig
    from lmcore.recsys.data import (
        EvaluationRows,
        Interactions,
        Split,
        Targets,
        leave_one_out,
        make_interactions,
    )
    from lmcore.recsys.evaluation import Evaluation, evaluate, evaluate_baselines
    from lmcore.recsys.folder import TrainedRun, load_run, read_mined_pairs
    from lmcore.recsys.loading import load_model
    from lmcore.recsys.modeling_fmlp import FMLPModel
    from lmcore.recsys.modeling_gru4rec import GRU4RecModel
    from lmcore.recsys.modeling_ligr import LiGRModel
    from lmcore.recsys.modeling_sasrec import SASRecModel, load_sasrec
    from lmcore.recsys.objective import (
        Counts,
        Loss,
        count_labels,
        find_gbce_beta,
        packed_logits,
        take_negatives,
        ufn_loss,
    )
    from lmcore.recsys.recipes import (
        TrainConfig,
        consistency,
        cross_entropy,
        gbce,
        gbce_mined,
        patient,
        plain,
        representation,
        reversal,
        sampled_softmax,
        sampled_softmax_mined,
    )
    from lmcore.recsys.recommendation import Recommendation, recommend
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.run import SequenceRun
    from lmcore.recsys.softmax import LogQ, catalogue_loss, sampled_softmax_loss
    from lmcore.recsys.splits import (
        Leakage,
        find_leakage,
        leave_last,
        split_by_time,
        split_interactions,
    )
    from lmcore.recsys.teacher import EMATeacher
    from lmcore.recsys.training import TrainResult, train

# Looked for, not imported: a recipe is shown, and files are read, before a model is made.
for _package in ("torch", "transformers"):
    if find_spec(_package) is None:
        raise MissingExtra(_package, "train")

# What imports torch, transformers or pydantic, by the module that holds it: the others do without.
_LAZY = {
    "Baseline": "baselines",
    "Counts": "objective",
    "EMATeacher": "teacher",
    "Evaluation": "evaluation",
    "EvaluationRows": "data",
    "FMLPConfig": "configuration_fmlp",
    "FMLPModel": "modeling_fmlp",
    "GRU4RecConfig": "configuration_gru4rec",
    "GRU4RecModel": "modeling_gru4rec",
    "Interactions": "data",
    "ItemKNN": "baselines",
    "Leakage": "splits",
    "LiGRConfig": "configuration_ligr",
    "LiGRModel": "modeling_ligr",
    "LogQ": "softmax",
    "Loss": "objective",
    "Popularity": "baselines",
    "Recommendation": "recommendation",
    "SASRecConfig": "configuration_sasrec",
    "SASRecModel": "modeling_sasrec",
    "SequenceModel": "backbone",
    "SequenceRun": "run",
    "Split": "data",
    "SplitRule": "rules",
    "Targets": "data",
    "TrainConfig": "recipes",
    "TrainResult": "training",
    "TrainedRun": "folder",
    "catalogue_loss": "softmax",
    "consistency": "recipes",
    "count_labels": "objective",
    "cross_entropy": "recipes",
    "evaluate": "evaluation",
    "evaluate_baselines": "evaluation",
    "find_gbce_beta": "objective",
    "find_leakage": "splits",
    "gbce": "recipes",
    "gbce_mined": "recipes",
    "leave_last": "splits",
    "leave_one_out": "data",
    "load_model": "loading",
    "load_run": "folder",
    "load_sasrec": "modeling_sasrec",
    "make_interactions": "data",
    "packed_logits": "objective",
    "patient": "recipes",
    "plain": "recipes",
    "read_mined_pairs": "folder",
    "recommend": "recommendation",
    "representation": "recipes",
    "reversal": "recipes",
    "sampled_softmax": "recipes",
    "sampled_softmax_loss": "softmax",
    "sampled_softmax_mined": "recipes",
    "split_by_time": "splits",
    "split_interactions": "splits",
    "take_negatives": "objective",
    "train": "training",
    "ufn_loss": "objective",
}

__all__ = [
    "Baseline",
    "Batch",
    "Counts",
    "DrawWeights",
    "EMATeacher",
    "EpochLossStart",
    "Evaluation",
    "EvaluationRows",
    "FMLPConfig",
    "FMLPModel",
    "FalseNegativeMiner",
    "FilterReport",
    "GRU4RecConfig",
    "GRU4RecModel",
    "IdMap",
    "Injection",
    "InteractionReport",
    "Interactions",
    "ItemKNN",
    "Leakage",
    "LiGRConfig",
    "LiGRModel",
    "LogQ",
    "Loss",
    "Metric",
    "MinerStats",
    "PackedBatch",
    "Popularity",
    "Ranks",
    "Recommendation",
    "SASRecConfig",
    "SASRecModel",
    "SequenceModel",
    "SequenceRun",
    "SequenceSampler",
    "Split",
    "SplitReport",
    "SplitRule",
    "StartRule",
    "StartSwitch",
    "StepStart",
    "Targets",
    "TrainConfig",
    "TrainResult",
    "TrainedRun",
    "catalogue_loss",
    "consistency",
    "count_labels",
    "cross_entropy",
    "evaluate",
    "evaluate_baselines",
    "filter_interactions",
    "find_gbce_beta",
    "find_leakage",
    "gbce",
    "gbce_mined",
    "interactions_from_frame",
    "leave_last",
    "leave_one_out",
    "load_model",
    "load_run",
    "load_sasrec",
    "make_interactions",
    "measure_ranks",
    "packed_logits",
    "parse_metric",
    "patient",
    "plain",
    "rank_targets",
    "ranking_metrics",
    "read_interactions",
    "read_mined_pairs",
    "recommend",
    "representation",
    "reversal",
    "sampled_softmax",
    "sampled_softmax_loss",
    "sampled_softmax_mined",
    "split_by_time",
    "split_interactions",
    "take_negatives",
    "train",
    "ufn_loss",
]

register_auto_classes()
register_attention()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.recsys.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
