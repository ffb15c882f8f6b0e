"""Every name that is offered exists, is typed, is used and is documented."""

import ast
import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lmcore
import lmcore.ner
import lmcore.ops
from lmcore import _core

PACKAGE = Path(lmcore.__file__).parent
OPS = [
    importlib.import_module(f"lmcore.ops.{module.name}")
    for module in pkgutil.iter_modules(lmcore.ops.__path__)
]


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_own(value: Any, module: ModuleType) -> bool:
    return getattr(value, "__module__", None) == module.__name__


def public_names(module: ModuleType) -> list[str]:
    names = getattr(module, "__all__", None)
    if names is not None:
        return list(names)
    return [
        name for name, value in vars(module).items() if name[0] != "_" and is_own(value, module)
    ]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    f"{value.__module__}.{name}": value
    for module in [*OPS, lmcore.ner, *(sys.modules[f"lmcore.ner.{m}"] for m in ("extract",))]
    for name, value in ((name, getattr(module, name)) for name in public_names(module))
    if inspect.isfunction(value) and not value.__module__.startswith("lmcore.reference")
}


# The compiled module.


def test_core_names_are_typed() -> None:
    stub = parse(PACKAGE / "_core.pyi")
    listed = next(
        ast.literal_eval(node.value)
        for node in stub.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    )
    defined = {node.name for node in stub.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    assert sorted(listed) == sorted(_core.__all__)
    assert defined == set(_core.__all__) - {"__version__"}
    assert listed == sorted(listed)


def test_core_names_are_used_by_ops() -> None:
    used = {
        node.attr
        for path in (PACKAGE / "ops").glob("*.py")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "_core"
    }
    assert used == set(_core.__all__) - {"__version__"}
    assert [name for name in used if not callable(getattr(_core, name))] == []


# The documented functions.


@pytest.mark.parametrize("module", OPS, ids=lambda module: module.__name__)
def test_ops_offer_what_they_define(module: ModuleType) -> None:
    assert module.__doc__
    names = public_names(module)
    assert names
    for name in names:
        assert not inspect.ismodule(getattr(module, name))
    functions = {name for name, value in vars(module).items() if inspect.isfunction(value)}
    own = {name for name in functions if name[0] != "_" and is_own(vars(module)[name], module)}
    assert own <= set(names)


def raises_or_calls(function: Callable[..., Any]) -> bool:
    """Whether an error can come out: it is raised here, or by the core."""
    tree = ast.parse(inspect.getsource(function))
    return any(
        isinstance(node, ast.Raise)
        or (isinstance(node, ast.Attribute) and ast.unparse(node.value) == "_core")
        for node in ast.walk(tree)
    )


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name: str) -> None:
    function = FUNCTIONS[name]
    documentation = inspect.getdoc(function)
    assert documentation
    first = documentation.splitlines()[0]
    assert first.endswith(".")
    assert re.match(r"(Returns|Writes|Yields)\b", first), first
    sections = re.findall(r"^(Args|Returns|Raises|Example):$", documentation, re.MULTILINE)
    assert sections == [s for s in ("Args", "Returns", "Raises", "Example") if s in sections]
    assert "Example" in sections
    assert ">>> " in documentation
    parameters = inspect.signature(function).parameters
    assert ("Args" in sections) == bool(parameters)
    described = re.findall(r"^    (\w+): ", documentation.partition("Args:")[2], re.MULTILINE)
    assert described[: len(parameters)] == list(parameters)
    if raises_or_calls(function):
        assert "Raises" in sections
    annotations = inspect.get_annotations(function)
    assert set(annotations) == {*parameters, "return"}


@pytest.mark.parametrize(
    "name", [n for n in lmcore.ner.__all__ if inspect.isclass(getattr(lmcore.ner, n))]
)
def test_classes_are_documented(name: str) -> None:
    value = getattr(lmcore.ner, name)
    assert value.__doc__
    for method, function in vars(value).items():
        if method[0] != "_" and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{method}"


# The packages.


def test_top_level_names() -> None:
    assert sorted(lmcore.__all__) == ["__version__", "ner", "ops"]
    assert lmcore.__version__ == _core.__version__
    for name in lmcore.__all__:
        assert hasattr(lmcore, name)


def test_names_of_ner() -> None:
    assert lmcore.ner.__all__ == sorted(lmcore.ner.__all__)
    for name in lmcore.ner.__all__:
        assert getattr(lmcore.ner, name).__module__.startswith("lmcore.")
    assert {"extract", "score", "score_file", "Entity", "Scores"} <= set(lmcore.ner.__all__)
