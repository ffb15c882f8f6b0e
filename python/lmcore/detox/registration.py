"""Segment-CNN in the Auto classes of transformers, as soon as something imports those."""

import sys
from collections.abc import Callable

from lmcore._auto_classes import AUTO, register_after_import


def register_auto_classes() -> None:
    """Registers Segment-CNN with the Auto classes; more than once does no harm.

    Example:
        >>> register_auto_classes()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("segment_cnn").model_type
        'segment_cnn'
    """
    register_after_import(_REGISTER)


def _register_config() -> None:
    from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig

    module = sys.modules[f"{AUTO}.configuration_auto"]
    module.AutoConfig.register(SegmentCNNConfig.model_type, SegmentCNNConfig, exist_ok=True)


def _register_model() -> None:
    from lmcore.detox import modeling_segment_cnn as models

    module, kind = sys.modules[f"{AUTO}.modeling_auto"], models.SegmentCNNModel
    module.AutoModel.register(kind.config_class, kind, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _register_config,
    f"{AUTO}.modeling_auto": _register_model,
}
