"""OpenBA in the Auto classes of transformers, as soon as something imports those."""

import sys
from collections.abc import Callable

from lmcore._auto_classes import AUTO, register_after_import


def register_auto_classes() -> None:
    """Registers OpenBA with the Auto classes; more than once does no harm.

    What is registered already at the call is that whose module of transformers is imported.

    Example:
        >>> register_auto_classes()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("openba").model_type
        'openba'
    """
    register_after_import(_REGISTER)


def _register_config() -> None:
    from lmcore.openba.configuration_openba import OpenBAConfig

    module = sys.modules[f"{AUTO}.configuration_auto"]
    module.AutoConfig.register(OpenBAConfig.model_type, OpenBAConfig, exist_ok=True)


def _register_models() -> None:
    from lmcore.openba import modeling_openba as models
    from lmcore.openba.configuration_openba import OpenBAConfig

    module = sys.modules[f"{AUTO}.modeling_auto"]
    module.AutoModel.register(OpenBAConfig, models.OpenBAModel, exist_ok=True)
    generating = models.OpenBAForConditionalGeneration
    module.AutoModelForSeq2SeqLM.register(OpenBAConfig, generating, exist_ok=True)


def _register_tokenizer() -> None:
    from lmcore.openba.configuration_openba import OpenBAConfig
    from lmcore.openba.tokenization_openba import OpenBATokenizer

    module = sys.modules[f"{AUTO}.tokenization_auto"]
    module.AutoTokenizer.register(OpenBAConfig, OpenBATokenizer, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{AUTO}.configuration_auto": _register_config,
    f"{AUTO}.modeling_auto": _register_models,
    f"{AUTO}.tokenization_auto": _register_tokenizer,
}
