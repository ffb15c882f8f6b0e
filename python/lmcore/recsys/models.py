"""Untrained backbones by the settings of a run."""

from __future__ import annotations

from typing import Any

from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_fmlp import FMLPConfig
from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
from lmcore.recsys.configuration_ligr import LiGRConfig
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.modeling_fmlp import FMLPModel
from lmcore.recsys.modeling_gru4rec import GRU4RecModel
from lmcore.recsys.modeling_ligr import LiGRModel
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.recipes import TrainConfig
from lmcore.training.seeding import seed_torch


def make_model(config: TrainConfig, item_count: int) -> SequenceModel:
    """Returns an untrained backbone; its first weights depend on the seed alone.

    Args:
        config: the settings.
        item_count: items of the catalogue, I.

    Raises:
        ValueError: sizes that do not fit, such as heads that do not divide the hidden size.

    Example:
        >>> make_model(TrainConfig(hidden_size=8), item_count=3).item_emb.weight.shape
        torch.Size([4, 8])
    """
    seed_torch(config.loop.seed)
    sizes: dict[str, Any] = {
        "item_count": item_count,
        "max_length": config.max_length,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "dropout": config.dropout,
    }
    try:
        heads = config.num_attention_heads
        if config.backbone == "sasrec":
            return SASRecModel(SASRecConfig(**sizes, num_attention_heads=heads))
        if config.backbone == "ligr":
            return LiGRModel(LiGRConfig(**sizes, num_attention_heads=heads))
        if config.backbone == "gru4rec":
            return GRU4RecModel(GRU4RecConfig(**sizes))
        return FMLPModel(FMLPConfig(**sizes))
    except ValueError:
        raise
    except Exception as error:
        if type(error).__name__ != "StrictDataclassClassValidationError":
            raise
        raise ValueError(str(error.__cause__ or error).strip().splitlines()[-1]) from None
