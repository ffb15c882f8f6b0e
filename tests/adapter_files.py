"""The files of `examples/adapters`, and the libraries that they are for."""

import importlib.util
import sys
import warnings
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(ROOT.glob("examples/adapters/*.py"))


def load(library: str, name: str) -> ModuleType:
    """Returns an adapter; skips the module that asks where the library is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the libraries warn when they are imported
        reason = f"{library} is not installed: its versions of other packages are not ours"
        pytest.importorskip(library, reason=f"{reason}; .ci/run has an environment for it")
        spec = importlib.util.spec_from_file_location(name, ROOT / f"examples/adapters/{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return module
