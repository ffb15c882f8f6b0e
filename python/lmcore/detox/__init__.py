"""Detoxification: toxic segments found, masked and rephrased (Detox-Chain, arXiv 2308.08295)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore._extras import optional_imports
from lmcore.detox.registration import register_auto_classes

if TYPE_CHECKING:
    from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
    from lmcore.detox.modeling_segment_cnn import SegmentCNNModel, load_segment_cnn
    from lmcore.detox.objective import compute_span_loss

# What needs torch, transformers or tokenizers, by the module that holds it: the others do without.
_LAZY = {
    "SegmentCNNConfig": "configuration_segment_cnn",
    "SegmentCNNModel": "modeling_segment_cnn",
    "compute_span_loss": "objective",
    "load_segment_cnn": "modeling_segment_cnn",
}

__all__ = [
    "SegmentCNNConfig",
    "SegmentCNNModel",
    "compute_span_loss",
    "load_segment_cnn",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with optional_imports():
        module = import_module(f"lmcore.detox.{_LAZY[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
