"""Own classes in the Auto classes of transformers, as soon as something imports those.

Importing transformers' models takes seconds and needs torch, while much of a system's package does
without.  So nothing is imported here: each part is registered when the module of transformers that
keeps it has been imported, whether that was before or comes later.

Modules of transformers import each other, and ours import them, so that a registration has to wait
until the outermost one of both is whole: `transformers.modeling_layers` imports the Auto classes
before it has defined what it is imported for.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType

AUTO = "transformers.models.auto"
_PACKAGES = ("transformers.", "lmcore.")
# Systems with models of their own; the import of each registers them.
_SYSTEMS = ("lmcore.openba", "lmcore.diffusion", "lmcore.detox")

_waiting: dict[str, list[Callable[[], None]]] = {}


class _Imports(threading.local):
    """What a thread is importing of both packages: how deep, and what is whole by now."""

    def __init__(self) -> None:
        self.depth = 0
        self.whole: list[str] = []


_imports = _Imports()


def register_systems() -> None:
    """Registers the models of all systems, for what loads a folder without knowing whose it is.

    Example:
        >>> register_systems()
        >>> from transformers import AutoConfig
        >>> AutoConfig.for_model("openba").model_type
        'openba'
    """
    for name in _SYSTEMS:
        importlib.import_module(name)


def register_after_import(registers: Mapping[str, Callable[[], None]]) -> None:
    """Calls functions when modules have been imported; more than once does no harm.

    Those whose module is imported already are called now.

    Args:
        registers: by the full name of the module that each waits for.

    Example:
        >>> register_after_import({"sys": lambda: print("is imported")})
        is imported
    """
    for name, register in registers.items():
        known = _waiting.setdefault(name, [])
        if register not in known:
            known.append(register)
        if name in sys.modules:
            _imports.whole.append(name)
    if not any(isinstance(finder, _AfterImport) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterImport())
    if _imports.depth == 0:
        _register_whole()


class _AfterImport(importlib.abc.MetaPathFinder):
    """Finds the modules of both packages where Python finds them, and follows their imports."""

    def __init__(self) -> None:
        self._finding: set[str] = set()

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        known = name in _waiting or name.startswith(_PACKAGES)
        if not known or name in self._finding:
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
            _imports.depth += 1
            try:
                run(module)
            finally:
                _imports.depth -= 1
            if name in _waiting:
                _imports.whole.append(name)
            if _imports.depth == 0:
                _register_whole()

        spec.loader.exec_module = run_and_register  # type: ignore[method-assign]
        return spec


def _register_whole() -> None:
    """Registers for all modules that are imported by now; what it imports may add to them."""
    while _imports.whole:
        for register in _waiting[_imports.whole.pop(0)]:
            register()
