"""A concept has one name, and that name is a file in each tree; imports go one way."""

import ast
import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

import lmcore
from lmcore.cli.commands import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python/lmcore"
# Array and text concepts are computed in Rust, tensor concepts in Triton and torch.
ARRAY_CONCEPTS = [
    "words",
    "lcs",
    "matching",
    "entities",
    "predictions",
    "philox",
    "denoising",
    "cleaning",
    "duplicates",
    "examples",
    "negatives",
    "false_negatives",
    "ranking",
    "interactions",
    "vocabulary",
    "ngrams",
    "schedule",
    "segments",
]
TENSOR_CONCEPTS = [
    "attention",
    "pruning_mask",
    "nearest_embedding",
    "sampled_logits",
    "cross_entropy",
]
# Tensor concepts that torch alone computes so far.
WITHOUT_KERNEL: set[str] = set()
SHARED_TREES = [
    "python/lmcore/reference/{}.py",
    "python/lmcore/ops/{}.py",
    "tests/ops/test_{}.py",
    "benches/bench_{}.py",
]
ARRAY_TREES = ["rust/{}.rs", "rust/py/{}.rs", "tests/{}.rs", "benches/{}.rs"]
TENSOR_TREES = ["kernels/{}.py"]
# What is in those folders without being a concept.
OTHERS: dict[str, set[str]] = {
    "rust": {
        "lib",
        "append",
        "check",
        "error",
        "interrupt",
        "labels",
        "lines",
        "memory",
        "rows",
        "text",
        "threads",
    },
    "rust/py": {"mod", "arrays", "borrowed", "error", "hooks", "owned", "threads"},
    "python/lmcore/reference": {
        "__init__",
        "_arguments",
        "_coefficients",
        "_denoisers",
        "_false_negatives",
        "_reductions",
        "_rows",
        "_spacing",
    },
    "python/lmcore/ops": {
        "__init__",
        "_autocast",
        "_dispatch",
        "_loss_aware",
        "_tensors",
        "_threads",
        "tuning",
    },
    "kernels": {
        "_feature_lists",
        "_gated_launches",
        "_gated_products",
        "_interpreter",
        "_precision",
        "attention_backward",
        "attention_bias",
        "attention_blocks",
        "attention_forward",
        "rotation",
        "tuning",
    },
}
SYSTEMS = {"openba", "compression", "ner", "detox", "diffusion", "recsys"}
# Systems that may import another one.
SIBLINGS = {("compression", "openba")}
# Modules outside of ops that may import the compiled module or definitions.
EXCEPTIONS = {
    "__init__.py": {"lmcore._core"},  # the version
    "reproduce/ner/matching_speed.py": {"lmcore.reference"},  # times the definition against the op
}


def python_files() -> list[Path]:
    """The package's files; kernels stand in a folder of their own."""
    return sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> Iterator[str]:
    """Full names of what a module imports, also within functions."""
    parents = ["lmcore", *path.relative_to(PACKAGE).parent.parts]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"), str(path))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = parents[: len(parents) - node.level + 1] if node.level else []
            module = ".".join([*start, *([node.module] if node.module else [])])
            yield from (f"{module}.{name.name}" for name in node.names)


def is_in(name: str, package: str) -> bool:
    return name == package or name.startswith(f"{package}.")


# Files.


def missing_files(
    root: Path, arrays: list[str], tensors: list[str], without_kernel: Collection[str] = ()
) -> list[str]:
    """What the trees lack of these concepts."""
    kernels = [name for name in tensors if name not in without_kernel]
    files = [tree.format(name) for name in arrays + tensors for tree in SHARED_TREES]
    files += [tree.format(name) for name in arrays for tree in ARRAY_TREES]
    files += [tree.format(name) for name in kernels for tree in TENSOR_TREES]
    return [file for file in files if not (root / file).is_file()]


def strangers(root: Path, arrays: list[str], tensors: list[str]) -> list[str]:
    """What stands in the trees without being one of these concepts."""
    found = []
    for folder, others in OTHERS.items():
        concepts = {"rust": arrays, "rust/py": arrays, "kernels": tensors}
        known = others | set(concepts.get(folder, arrays + tensors))
        stems = {p.stem for p in (root / folder).iterdir() if p.suffix in (".rs", ".py")}
        found += [f"{folder}/{stem}" for stem in sorted(stems - known)]
    return found


def test_concepts_are_a_file_in_each_tree_and_nothing_else_is() -> None:
    assert missing_files(ROOT, ARRAY_CONCEPTS, TENSOR_CONCEPTS, WITHOUT_KERNEL) == []
    assert strangers(ROOT, ARRAY_CONCEPTS, TENSOR_CONCEPTS) == []


def test_a_tensor_concept_needs_a_kernel_and_no_rust(tmp_path: Path) -> None:
    for folder in [*OTHERS, "tests/ops", "benches"]:
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    arrays, tensors = ["words"], ["attention"]
    made = missing_files(tmp_path, arrays, tensors)
    assert [file for file in made if "attention" in file] == [
        *(tree.format("attention") for tree in SHARED_TREES),
        "kernels/attention.py",
    ]
    for file in made:
        (tmp_path / file).touch()
        assert file not in missing_files(tmp_path, arrays, tensors)
    assert missing_files(tmp_path, arrays, tensors) == strangers(tmp_path, arrays, tensors) == []
    (tmp_path / "kernels/words.py").touch()
    (tmp_path / "rust/attention.rs").touch()
    assert strangers(tmp_path, arrays, tensors) == ["rust/attention", "kernels/words"]


def test_what_is_without_a_kernel_has_none() -> None:
    assert set(TENSOR_CONCEPTS) >= WITHOUT_KERNEL
    assert [name for name in WITHOUT_KERNEL if (ROOT / f"kernels/{name}.py").exists()] == []


def test_parts_stand_in_the_folder_of_what_they_are_parts_of() -> None:
    folders = {path.name for path in (ROOT / "rust").iterdir() if path.is_dir()}
    assert folders - {"py"} <= {*ARRAY_CONCEPTS, *OTHERS["rust"]}


def test_benches_and_tests_are_declared() -> None:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert sorted(bench["name"] for bench in cargo["bench"]) == sorted(ARRAY_CONCEPTS)
    table = (ROOT / "rust/lib.rs").read_text(encoding="utf-8")
    assert [c for c in ARRAY_CONCEPTS if f"| [`{c}`] |" not in table] == []


def test_core_knows_no_python() -> None:
    for path in (ROOT / "rust").rglob("*.rs"):
        if (ROOT / "rust/py") not in path.parents:
            text = path.read_text(encoding="utf-8")
            named = re.findall(r"\b(?:pyo3|numpy)\b", text)
            assert named == [], path.relative_to(ROOT)


def test_unsafe_code_stands_in_two_files() -> None:
    """What calls the interpreter, and what does not and is tested without it."""
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    assert cargo["lints"]["rust"]["unsafe_code"] == "deny"
    allowing = {p.name for p in (ROOT / "rust").rglob("*.rs") if "unsafe_code" in p.read_text()}
    assert allowing == {"append.rs", "borrowed.rs"}


def test_kernels_are_no_package_of_that_name() -> None:
    """transformers imports a package named `kernels` where there is one."""
    assert not (ROOT / "kernels/__init__.py").exists()
    link = PACKAGE / "kernels"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "kernels"


def test_ignored_files_are_anchored() -> None:
    """An unanchored `data/` would leave a package out of the wheel."""
    lines = (ROOT / ".gitignore").read_text(encoding="utf-8").split()
    assert [line for line in lines if not line.startswith("/")] == ["__pycache__/"]


# The direction of imports.


@pytest.mark.parametrize("folder", ["reference", "kernels"])
def test_definitions_and_kernels_stand_alone(folder: str) -> None:
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        for name in imports(path):
            assert not is_in(name, "lmcore") or is_in(name, f"lmcore.{folder}"), (path, name)


def test_only_ops_reach_below() -> None:
    below = ["lmcore._core", "lmcore.reference", "lmcore.kernels"]
    for path in python_files():
        place = path.relative_to(PACKAGE)
        if place.parts[0] in ("ops", "reference", "kernels"):
            continue
        allowed = EXCEPTIONS.get(place.as_posix(), set())
        for name in imports(path):
            reached = {package for package in below if is_in(name, package)}
            assert reached <= allowed, (place, name)


def test_ops_reach_nothing_above() -> None:
    files = ("_files", "_json")
    allowed = ("_core", "reference", "kernels", "ops", *files)
    for file in files:
        assert not any(is_in(name, "lmcore") for name in imports(PACKAGE / f"{file}.py"))
    for path in (PACKAGE / "ops").glob("*.py"):
        for name in imports(path):
            known = any(is_in(name, f"lmcore.{package}") for package in allowed)
            assert not is_in(name, "lmcore") or known


def test_no_system_imports_another() -> None:
    for path in python_files():
        system = path.relative_to(PACKAGE).parts[0]
        if system not in SYSTEMS:
            continue
        for name in imports(path):
            if is_in(name, "lmcore"):
                other = (name.split(".", 2) if "." in name else [name, ""])[1]
                assert other == system or other not in SYSTEMS or (system, other) in SIBLINGS
                assert other not in ("reproduce", "cli"), (path, name)


def test_cost_is_arithmetic() -> None:
    """It knows no system, and imports nothing that is large."""
    allowed = ("lmcore.cost", "lmcore._json", "lmcore._tables")
    for path in (PACKAGE / "cost").glob("*.py"):
        for name in imports(path):
            assert not name.startswith(("torch", "transformers", "numpy")), (path, name)
            assert not is_in(name, "lmcore") or any(is_in(name, part) for part in allowed)


def test_no_relative_import_of_a_parent() -> None:
    for path in python_files():
        tree = ast.parse(path.read_text(encoding="utf-8"))
        levels = [node.level for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        assert max(levels, default=0) <= 1, path


# The import of the package.


def run_python(code: str, *options: str) -> str:
    return subprocess.run(
        [sys.executable, *options, "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_import_is_light() -> None:
    code = "import sys, lmcore, lmcore.cli; print(*sorted(m for m in sys.modules if '.' not in m))"
    modules = set(run_python(code).split())
    assert modules & {"torch", "transformers", "tokenizers", "numpy", "matplotlib"} == set()
    assert "lmcore" in modules


@pytest.mark.parametrize("options", [["--help"], ["--version"], ["recsys", "train", "--help"]])
def test_help_is_light(options: list[str]) -> None:
    """Help imports what describes commands, and nothing that they need when they run."""
    code = (
        "import contextlib, io, sys; from lmcore.cli import main; sys.argv[1:] = {}\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
        "print(*sorted(m for m in sys.modules if '.' not in m))"
    )
    modules = set(run_python(code.format(options)).split())
    assert (
        modules & {"torch", "transformers", "tokenizers", "numpy", "matplotlib", "tqdm", "rich"}
        == set()
    )
    assert "typer" in modules


@pytest.mark.parametrize(
    ("options", "imported"),
    [(["--help"], set()), (["--version"], set()), (["ner", "--help"], {"ner"}),
     (["recsys", "evaluate", "--help"], {"recsys"}), (["other"], set()), ([], set())],
    ids=" ".join,
)  # fmt: skip
def test_a_command_imports_its_own_module(options: list[str], imported: set[str]) -> None:
    """What a command needs is imported when that command runs, and what others need is not."""
    code = (
        "import contextlib, io, sys; from lmcore.cli import main; sys.argv[1:] = {}\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()), "
        "contextlib.redirect_stderr(io.StringIO()): main()\n"
        "print(*sorted(m for m in sys.modules if m.startswith('lmcore.')))"
    )
    modules = set(run_python(code.format(options)).split())
    commands = {f"lmcore.cli.{name}" for name in PACKAGES}
    assert modules & commands == {f"lmcore.cli.{name}" for name in imported}
    if not imported:
        assert {"lmcore.cli", "lmcore.cli.commands"} <= modules
        assert not any(name.startswith(("lmcore.ops", "lmcore.ner")) for name in modules)


def command_files(name: str) -> list[Path]:
    """The module of a package's commands, or the modules of a folder of that name."""
    module = PACKAGE / "cli" / f"{name}.py"
    return [module] if module.is_file() else sorted((PACKAGE / "cli" / name).glob("*.py"))


def test_a_package_and_its_commands_have_one_name() -> None:
    for name in PACKAGES:
        assert (PACKAGE / name / "__init__.py").is_file()
        assert [*command_files(name)], name
    others = {"__init__", "commands", "failures", "options", "terminal"}
    found = {path.stem for path in (PACKAGE / "cli").iterdir() if path.name != "__pycache__"}
    assert found == {*PACKAGES, *others}


def test_commands_are_short() -> None:
    """A command reads its options, calls the library and prints: in under ten lines."""
    long = set()
    for name, path in [(package, path) for package in PACKAGES for path in command_files(package)]:
        text = path.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.FunctionDef) and node.name.endswith("_command"):
                # Behind the docstring, which is the help.
                body = text.splitlines()[node.body[1].lineno - 1 : node.end_lineno]
                if len([line for line in body if line.strip()]) >= 10:
                    long.add(f"{name} {node.name.removesuffix('_command')}")
    assert long == set()


@pytest.mark.alone
def test_import_is_quick() -> None:
    """Under 150 ms, best of several: the machine may do other things at the same time."""
    code = (
        "import time; start = time.perf_counter(); import lmcore; "
        "print(time.perf_counter() - start)"
    )
    assert min(float(run_python(code)) for _ in range(7)) < 0.150


# The distribution.


def cargo_version() -> str:
    cargo = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    return str(cargo["package"]["version"])


def test_version_is_written_once() -> None:
    assert lmcore.__version__ == cargo_version()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" not in project
    assert project["dynamic"] == ["version"]
    try:
        installed = importlib.metadata.version("lmcore-research")
    except importlib.metadata.PackageNotFoundError:
        return  # a checkout on the path has no metadata
    assert installed == lmcore.__version__
