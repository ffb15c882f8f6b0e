"""Every name that is offered exists, is typed, is used and is documented."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import lmcore
import lmcore.compression
import lmcore.compression.families
import lmcore.compression.pieces
import lmcore.cost
import lmcore.detox
import lmcore.diffusion
import lmcore.ner.extraction
import lmcore.openba
import lmcore.ops
import lmcore.recsys
import lmcore.training
from lmcore import _core

PACKAGE = Path(lmcore.__file__).parent


def import_all(package: ModuleType) -> list[ModuleType]:
    found = (module.name for module in pkgutil.iter_modules(package.__path__))
    names = [name for name in found if name != "__main__"]  # which is run, not imported
    return [importlib.import_module(f"{package.__name__}.{name}") for name in names]


PACKAGES = [
    "lmcore",
    *(
        module.name
        for module in pkgutil.walk_packages(lmcore.__path__, "lmcore.")
        if module.ispkg and module.name != "lmcore.kernels"
    ),
]
OPS = import_all(lmcore.ops)
TRAINING = import_all(lmcore.training)
RECSYS = import_all(lmcore.recsys)
OPENBA = import_all(lmcore.openba)
COST = import_all(lmcore.cost)
DETOX = import_all(lmcore.detox)
DIFFUSION = import_all(lmcore.diffusion)
COMPRESSION = [
    module
    for package in (lmcore.compression, lmcore.compression.families, lmcore.compression.pieces)
    for module in import_all(package)
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
    for module in [
        *OPS,
        lmcore.ner,
        lmcore.ner.extraction,
        *TRAINING,
        *RECSYS,
        *OPENBA,
        *COST,
        *COMPRESSION,
        *DETOX,
        *DIFFUSION,
    ]
    for name, value in ((name, getattr(module, name)) for name in public_names(module))
    if inspect.isfunction(value) and not value.__module__.startswith("lmcore.reference")
}
CLASSES: dict[str, type] = {
    f"{module.__name__}.{name}": value
    for module in [
        lmcore.detox,
        lmcore.diffusion,
        lmcore.ner,
        lmcore.openba,
        lmcore.recsys,
        *TRAINING,
        *COMPRESSION,
        *DETOX,
        *DIFFUSION,
    ]
    for name, value in ((name, getattr(module, name)) for name in public_names(module))
    if inspect.isclass(value)
}
# Those that do the work of a system; the others are records, which functions return.
WORKERS = {
    name: value
    for name, value in CLASSES.items()
    if name.startswith(
        (
            "lmcore.compression.",
            "lmcore.detox.",
            "lmcore.diffusion.",
            "lmcore.openba.",
            "lmcore.recsys.",
            "lmcore.training.",
        )
    )
    and not (dataclasses.is_dataclass(value) or issubclass(value, tuple))
    and not getattr(value, "_is_protocol", False)
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


def described_arguments(documentation: str) -> list[str]:
    return re.findall(r"^    (\w+): ", documentation.partition("Args:")[2], re.MULTILINE)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_are_documented(name: str) -> None:
    function = FUNCTIONS[name]
    documentation = inspect.getdoc(function)
    assert documentation
    first = documentation.splitlines()[0]
    assert first.endswith(".")
    assert re.match(r"(Returns|Writes|Yields|Checks|Registers)\b", first), first
    known = ("Args", "Returns", "Yields", "Raises", "Example")
    sections = re.findall(rf"^({'|'.join(known)}):$", documentation, re.MULTILINE)
    assert sections == [s for s in known if s in sections]
    assert "Example" in sections
    assert ">>> " in documentation
    parameters = inspect.signature(function).parameters
    assert ("Args" in sections) == bool(parameters)
    assert described_arguments(documentation)[: len(parameters)] == list(parameters)
    if parameters and raises_or_calls(function):  # without any, nothing can be wrong
        assert "Raises" in sections
    annotations = inspect.get_annotations(function)
    assert set(annotations) == {*parameters, "return"}


@pytest.mark.parametrize("name", CLASSES)
def test_classes_are_documented(name: str) -> None:
    value = CLASSES[name]
    assert value.__doc__
    for method, function in vars(value).items():
        if method[0] != "_" and inspect.isfunction(function):
            assert inspect.getdoc(function), f"{name}.{method}"


@pytest.mark.parametrize("name", WORKERS)
def test_working_classes_have_examples(name: str) -> None:
    value = WORKERS[name]
    documentation = inspect.getdoc(value) or ""
    assert ">>> " in documentation
    for method, function in vars(value).items():
        parameters = list(inspect.signature(function).parameters) if callable(function) else []
        if method[0] != "_" and inspect.isfunction(function) and len(parameters) > 1:
            described = described_arguments(inspect.getdoc(function) or "")
            assert described[: len(parameters) - 1] == parameters[1:], f"{name}.{method}"


# The packages.


def test_top_level_names() -> None:
    systems = ["compression", "detox", "diffusion", "ner", "openba", "ops", "recsys"]
    assert lmcore.__all__ == ["__version__", *systems, "training"]
    assert lmcore.__version__ == _core.__version__
    for name in lmcore.__all__:
        assert hasattr(lmcore, name)
    with pytest.raises(AttributeError, match=r"^module 'lmcore' has no attribute 'recsis'$"):
        lmcore.recsis  # noqa: B018


def test_packages_with_torch_are_imported_at_first_use() -> None:
    code = (
        "import sys, lmcore; "
        "assert {'recsys', 'training', 'ner'} <= set(dir(lmcore)); "
        "assert 'torch' not in sys.modules and 'lmcore.training' not in sys.modules; "
        "lmcore.training; assert 'torch' not in sys.modules; "
        "print(lmcore.recsys.plain().negatives)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, encoding="utf-8"
    )
    assert done.stdout == "100\n"


@pytest.mark.parametrize(
    "package",
    [
        lmcore.compression,
        lmcore.detox,
        lmcore.diffusion,
        lmcore.ner,
        lmcore.openba,
        lmcore.recsys,
    ],
    ids=lambda p: p.__name__,
)
def test_names_of_systems(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__)
    for name in package.__all__:
        assert getattr(package, name).__module__.startswith("lmcore.")


def test_packages_hide_none_of_their_modules() -> None:
    """`lmcore.ner.extract` is a function, so the module has another name: a noun."""
    hidden = set()
    for name in PACKAGES:
        package = importlib.import_module(name)
        for module in import_all(package):
            found = getattr(package, module.__name__.rpartition(".")[2])
            if found is not module:
                hidden.add(module.__name__)
    assert hidden == set()


def test_names_that_documents_promise() -> None:
    assert {"extract", "score", "score_file", "Entity", "Scores"} <= set(lmcore.ner.__all__)
    assert {
        "EMATeacher",
        "FalseNegativeMiner",
        "SequenceSampler",
        "evaluate",
        "rank_targets",
        "ranking_metrics",
        "read_interactions",
        "recommend",
        "train",
    } <= set(lmcore.recsys.__all__)
