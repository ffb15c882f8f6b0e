"""Text diffusion in the Auto classes of transformers, as soon as something imports those."""

import sys
from collections.abc import Callable

from lmcore._auto_classes import AUTO, register_after_import


def register_auto_classes() -> None:
    """Registers text diffusion with the Auto classes; more than once does no harm.

    Example:
        >>> register_auto_classes()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("text_diffusion").model_type
        'text_diffusion'
    """
    register_after_import(_REGISTER)


def _register_config() -> None:
    from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig

    module = sys.modules[f"{AUTO}.configuration_auto"]
    module.AutoConfig.register(TextDiffusionConfig.model_type, TextDiffusionConfig, exist_ok=True)


def _register_model() -> None:
    from lmcore.diffusion import modeling_text_diffusion as models
    from lmcore.diffusion.configuration_text_diffusion import TextDiffusionConfig

    module = sys.modules[f"{AUTO}.modeling_auto"]
    module.AutoModel.register(TextDiffusionConfig, models.TextDiffusionModel, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _register_config,
    f"{AUTO}.modeling_auto": _register_model,
}
