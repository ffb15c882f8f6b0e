"""OpenBA, a bilingual encoder-decoder with a shallow encoder (arXiv 2309.10706)."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lmcore.openba.registration import register_auto_classes

if TYPE_CHECKING:
    from lmcore.openba.configuration_openba import OpenBAConfig
    from lmcore.openba.modeling_openba import (
        OpenBAEncoderModel,
        OpenBAForConditionalGeneration,
        OpenBAModel,
    )

# What needs torch or transformers, by the module that holds it: the others do without.
_LAZY = {
    "OpenBAConfig": "configuration_openba",
    "OpenBAEncoderModel": "modeling_openba",
    "OpenBAForConditionalGeneration": "modeling_openba",
    "OpenBAModel": "modeling_openba",
}

__all__ = [
    "OpenBAConfig",
    "OpenBAEncoderModel",
    "OpenBAForConditionalGeneration",
    "OpenBAModel",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"lmcore.openba.{_LAZY[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
