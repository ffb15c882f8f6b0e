"""OpenBA in the Auto classes of transformers, as soon as something imports those.

Importing transformers' models takes seconds and needs torch, while much of this package does
without.  So nothing is imported here: each part is registered when the module of transformers that
keeps it has been imported, whether that was before or comes later.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Sequence
from types import ModuleType

_AUTO = "transformers.models.auto"


def register_auto_classes() -> None:
    """Registers OpenBA with the Auto classes; more than once does no harm.

    What is registered already at the call is that whose module of transformers is imported.

    Example:
        >>> register_auto_classes()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("openba").model_type
        'openba'
    """
    for name, register in _REGISTER.items():
        if name in sys.modules:
            register()
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())


def _register_config() -> None:
    from lmcore.openba.configuration_openba import OpenBAConfig

    module = sys.modules[f"{_AUTO}.configuration_auto"]
    module.AutoConfig.register(OpenBAConfig.model_type, OpenBAConfig, exist_ok=True)


def _register_models() -> None:
    from lmcore.openba import modeling_openba as models
    from lmcore.openba.configuration_openba import OpenBAConfig

    # The import of the models imports this module of transformers on its way, and ends here again.
    if not hasattr(models, "OpenBAEncoderModel"):
        return
    module = sys.modules[f"{_AUTO}.modeling_auto"]
    module.AutoModel.register(OpenBAConfig, models.OpenBAModel, exist_ok=True)
    generating = models.OpenBAForConditionalGeneration
    module.AutoModelForSeq2SeqLM.register(OpenBAConfig, generating, exist_ok=True)


def _register_tokenizer() -> None:
    from lmcore.openba.configuration_openba import OpenBAConfig
    from lmcore.openba.tokenization_openba import OpenBATokenizer

    module = sys.modules[f"{_AUTO}.tokenization_auto"]
    # Its import imports the models on its way, which end here before it does.
    if not hasattr(module, "AutoTokenizer"):
        return
    module.AutoTokenizer.register(OpenBAConfig, OpenBATokenizer, exist_ok=True)


_REGISTER: dict[str, Callable[[], None]] = {
    f"{_AUTO}.configuration_auto": _register_config,
    f"{_AUTO}.modeling_auto": _register_models,
    f"{_AUTO}.tokenization_auto": _register_tokenizer,
}


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules that wait for a registration where Python finds them, and follows it."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name not in _REGISTER or name in self._finding:
            return None
        self._finding.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._finding.discard(name)
        if spec is None or spec.loader is None:
            return None
        run = spec.loader.exec_module

        def run_and_register(module: ModuleType) -> None:
            run(module)
            _REGISTER[name]()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec
