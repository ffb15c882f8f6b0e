"""Sequential recommendation that uses its false negatives (UFNRec, arXiv 2208.04116)."""

from lmcore._attention import register_attention
from lmcore._extras import optional_imports

with optional_imports():
    import torch as _torch  # noqa: F401  (transformers alone would do without it)
    from transformers import AutoConfig, AutoModel

from lmcore.ops.negatives import Batch, DrawWeights, PackedBatch, SequenceSampler
from lmcore.ops.ranking import Ranks, rank_targets, ranking_metrics
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_fmlp import FMLPConfig
from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
from lmcore.recsys.configuration_ligr import LiGRConfig
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import (
    EvaluationRows,
    InteractionReport,
    Interactions,
    Split,
    leave_one_out,
    make_interactions,
)
from lmcore.recsys.evaluation import Evaluation, evaluate, load_model
from lmcore.recsys.folder import TrainedRun, load_run, read_mined_pairs
from lmcore.recsys.ids import IdMap
from lmcore.recsys.mine import FalseNegativeMiner, Injection, MinerStats
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
from lmcore.recsys.reading import read_interactions
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
from lmcore.recsys.run import SequenceRun
from lmcore.recsys.softmax import LogQ, catalogue_loss, sampled_softmax_loss
from lmcore.recsys.start import EpochLossStart, StartRule, StartSwitch, StepStart
from lmcore.recsys.teacher import EMATeacher
from lmcore.recsys.training import TrainResult, train

for _config, _model in (
    (SASRecConfig, SASRecModel),
    (GRU4RecConfig, GRU4RecModel),
    (FMLPConfig, FMLPModel),
    (LiGRConfig, LiGRModel),
):
    AutoConfig.register(_config.model_type, _config, exist_ok=True)
    AutoModel.register(_config, _model, exist_ok=True)

__all__ = [
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
    "GRU4RecConfig",
    "GRU4RecModel",
    "IdMap",
    "Injection",
    "InteractionReport",
    "Interactions",
    "LiGRConfig",
    "LiGRModel",
    "LogQ",
    "Loss",
    "MinerStats",
    "PackedBatch",
    "Ranks",
    "Recommendation",
    "SASRecConfig",
    "SASRecModel",
    "SequenceModel",
    "SequenceRun",
    "SequenceSampler",
    "Split",
    "StartRule",
    "StartSwitch",
    "StepStart",
    "TrainConfig",
    "TrainResult",
    "TrainedRun",
    "catalogue_loss",
    "consistency",
    "count_labels",
    "cross_entropy",
    "evaluate",
    "find_gbce_beta",
    "gbce",
    "gbce_mined",
    "leave_one_out",
    "load_model",
    "load_run",
    "load_sasrec",
    "make_interactions",
    "packed_logits",
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
    "take_negatives",
    "train",
    "ufn_loss",
]

register_attention()
