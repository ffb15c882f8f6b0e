"""The backbones in the Auto classes of transformers, as soon as something imports those."""

import sys
from collections.abc import Callable

from lmcore._auto_classes import AUTO, register_after_import


def register_auto_classes() -> None:
    """Registers the backbones with the Auto classes; more than once does no harm.

    Example:
        >>> register_auto_classes()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("sasrec", item_count=3).model_type
        'sasrec'
    """
    register_after_import(_REGISTER)


def _register_configs() -> None:
    from lmcore.recsys.configuration_fmlp import FMLPConfig
    from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
    from lmcore.recsys.configuration_ligr import LiGRConfig
    from lmcore.recsys.configuration_sasrec import SASRecConfig

    auto = sys.modules[f"{AUTO}.configuration_auto"].AutoConfig
    for config in (SASRecConfig, GRU4RecConfig, FMLPConfig, LiGRConfig):
        auto.register(config.model_type, config, exist_ok=True)


def _register_models() -> None:
    from lmcore.recsys.modeling_fmlp import FMLPModel
    from lmcore.recsys.modeling_gru4rec import GRU4RecModel
    from lmcore.recsys.modeling_ligr import LiGRModel
    from lmcore.recsys.modeling_sasrec import SASRecModel

    auto = sys.modules[f"{AUTO}.modeling_auto"].AutoModel
    for model in (SASRecModel, GRU4RecModel, FMLPModel, LiGRModel):
        auto.register(model.config_class, model, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _register_configs,
    f"{AUTO}.modeling_auto": _register_models,
}
