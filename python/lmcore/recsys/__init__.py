"""Sequential recommendation that uses its false negatives (UFNRec, arXiv 2208.04116)."""

from lmcore._attention import register_attention
from lmcore._extras import optional_imports

with optional_imports():
    import torch as _torch  # noqa: F401  (transformers alone would do without it)
    from transformers import AutoConfig, AutoModel

from lmcore.ops.negatives import Batch, PackedBatch, SequenceSampler
from lmcore.ops.ranking import Ranks, rank_targets, ranking_metrics
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.baselines import Baseline, ItemKNN, Popularity
from lmcore.recsys.configuration_fmlp import FMLPConfig
from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import (
    EvaluationRows,
    InteractionReport,
    Interactions,
    Split,
    Targets,
    leave_one_out,
    make_interactions,
)
from lmcore.recsys.evaluation import Evaluation, evaluate, evaluate_baselines, load_model
from lmcore.recsys.filters import filter_interactions
from lmcore.recsys.folder import TrainedRun, load_run, read_mined_pairs
from lmcore.recsys.frames import interactions_from_frame
from lmcore.recsys.ids import IdMap
from lmcore.recsys.metrics import Metric, measure_ranks, parse_metric
from lmcore.recsys.mine import FalseNegativeMiner, Injection, MinerStats
from lmcore.recsys.modeling_fmlp import FMLPModel
from lmcore.recsys.modeling_gru4rec import GRU4RecModel
from lmcore.recsys.modeling_sasrec import SASRecModel, load_sasrec
from lmcore.recsys.objective import (
    Counts,
    Loss,
    count_labels,
    packed_logits,
    take_negatives,
    ufn_loss,
)
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.recipes import (
    TrainConfig,
    consistency,
    patient,
    plain,
    representation,
    reversal,
)
from lmcore.recsys.recommendation import Recommendation, recommend
from lmcore.recsys.reports import FilterReport, SplitReport
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.run import SequenceRun
from lmcore.recsys.splits import (
    Leakage,
    find_leakage,
    leave_last,
    split_by_time,
    split_interactions,
)
from lmcore.recsys.start import EpochLossStart, StartRule, StartSwitch, StepStart
from lmcore.recsys.teacher import EMATeacher
from lmcore.recsys.training import TrainResult, train

for _config, _model in (
    (SASRecConfig, SASRecModel),
    (GRU4RecConfig, GRU4RecModel),
    (FMLPConfig, FMLPModel),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

__all__ = [
    "Baseline",
    "Batch",
    "Counts",
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
    "consistency",
    "count_labels",
    "evaluate",
    "evaluate_baselines",
    "filter_interactions",
    "find_leakage",
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
    "split_by_time",
    "split_interactions",
    "take_negatives",
    "train",
    "ufn_loss",
]

register_attention()
