"""The base install does without what the extras bring, and says which extra is missing."""

import pickle
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from lmcore._extras import DISTRIBUTION, EXTRAS, MissingExtra, optional_imports
from tiny_families import save_model, save_run

ROOT = Path(__file__).parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

# Stands for an environment in which the packages named first are not installed.
WITHOUT = """
from importlib.machinery import PathFinder

find = PathFinder.find_spec

def find_installed(name, path=None, target=None):
    return None if name.partition(".")[0] in {absent!r} else find(name, path, target)

# Some packages ask an instance.
PathFinder.find_spec = staticmethod(find_installed)
"""
# Later versions of typer bring pydantic themselves, and do not work without it.
EVERY_EXTRA = tuple(p for packages in EXTRAS.values() for p in packages if p != "pydantic")
WORDS = ((0, "nice"), (1, "blap"))
OF_TRAINING = tuple(p for p in EXTRAS["train"] if p in EVERY_EXTRA)


def run_without(absent: tuple[str, ...], code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(absent=absent) + code],
        capture_output=True,
        text=True,
        check=False,
    )


def requirement_names(requirements: list[str]) -> set[str]:
    """Names of required distributions, as they are imported."""
    names = {re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requirements}
    return {name.replace("-", "_") for name in names}


def test_extras_bring_what_the_table_says() -> None:
    extras = PROJECT["optional-dependencies"]
    for extra, packages in EXTRAS.items():
        assert requirement_names(extras[extra]) == set(packages), extra
    every = ",".join(extra for extra in EXTRAS if extra != "eval")  # which brings too much
    assert extras["all"] == [f"{DISTRIBUTION}[{every}]"]
    assert PROJECT["name"] == DISTRIBUTION


def test_base_install_is_light() -> None:
    assert requirement_names(PROJECT["dependencies"]) == {"numpy", "rich", "tqdm", "typer"}


def test_toxicity_is_scored_without_extras(tmp_path: Path) -> None:
    """The local scorer is trained and used, and generations are measured, without torch."""
    rows = [f'{{"text": "{word} {n}", "label": {k}}}' for n in range(9) for k, word in WORDS]
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    generated = '{"prompt": "a", "generations": ["nice", "blap"]}'
    (tmp_path / "made.jsonl").write_text(generated)
    commands = [
        ["train-scorer", "rows.jsonl", "--out", "scorer", "--bits", "10"],
        ["score", "made.jsonl", "out.jsonl", "--scorer", "scorer", "--words"],
        ["evaluate", "made.jsonl", "--scorer", "scorer", "--cache", "cache"],
    ]
    code = f"""
import os, sys
from lmcore.cli.commands import app
os.chdir({str(tmp_path)!r})
for command in {commands!r}:
    app(["detox", *command], standalone_mode=False)
assert not {{"torch", "transformers"}} & set(sys.modules)
"""
    done = run_without(EVERY_EXTRA, code)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.jsonl").exists()
    assert "expected_maximum_toxicity" in done.stdout


def test_a_run_is_pruned_without_torch(tmp_path: Path) -> None:
    """The best model of a run is found, planned for and pruned, and nothing of it takes torch.

    A plan needs no extra; to prune, torch must be installed, though it is not imported.
    """
    save_run(tmp_path / "run", save_model("t5", tmp_path / "model"))
    for absent, command in (
        (EVERY_EXTRA, ["plan", "run", "plan.json", "--ffn", "9"]),
        ((), ["prune", "run", "small", "--plan", "plan.json", "--quiet"]),
    ):
        code = f"""
import os, sys
from lmcore.cli.commands import app
os.chdir({str(tmp_path)!r})
code = app(["compression", *{command!r}], standalone_mode=False)
assert not {{"torch", "transformers"}} & set(sys.modules)
sys.exit(code)
"""
        done = run_without(absent, code)
        assert done.returncode == 0, done.stderr
    assert [*(tmp_path / "small").glob("*.safetensors")]


@pytest.mark.parametrize(
    ("name", "package"),
    [
        ("recsys", "torch"),
        ("recsys", "transformers"),
        ("recsys.data", "torch"),
        ("recsys.training", "transformers"),
        ("training.config", "pydantic"),
        ("training", "torch"),
        ("training.loop", "torch"),
    ],
)
def test_import_names_the_missing_extra(name: str, package: str) -> None:
    done = run_without((package,), f"import lmcore.{name}")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    expected = f'{package} is not installed: pip install "lmcore-research[train]"'
    assert last == f"lmcore._extras.MissingExtra: {expected}"


@pytest.mark.parametrize(
    "code",
    [
        "import lmcore; lmcore.recsys",
        "from lmcore.diffusion import Process",
        "from lmcore.ner import BackTokenizer; BackTokenizer.from_pretrained('x')",
        "from lmcore.reproduce import reproduce; reproduce(['four_arms'], out='{folder}')",
    ],
)
def test_use_names_the_missing_extra(code: str, tmp_path: Path) -> None:
    out = tmp_path / "report"
    done = run_without(EXTRAS["train"], code.format(folder=out))
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith('pip install "lmcore-research[train]"')
    assert not out.exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["recsys", "train", "plain", "--data", "rows.txt", "--out", "{folder}"],
        ["recsys", "evaluate", "{folder}", "--data", "rows.txt"],
        ["reproduce", "--only", "recsys", "--out", "{folder}"],
    ],
    ids=lambda arguments: " ".join(arguments[:2]),
)
def test_command_names_the_missing_extra_in_one_line(arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    given = [argument.format(folder=out) for argument in arguments]
    code = f"import lmcore.cli; sys.argv[1:] = {given!r}; lmcore.cli.main()"
    done = run_without(OF_TRAINING, f"import sys\n{code}")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("lmcore: ")
    assert 'pip install "lmcore-research[train]"' in line
    assert done.stdout == ""
    assert not out.exists()


def test_matching_and_scoring_need_no_extra() -> None:
    code = """
import lmcore, lmcore.cli, lmcore.reproduce, lmcore.worlds.ner, lmcore.worlds.recsys
from lmcore.ops import entities, false_negatives, lcs, matching, negatives, philox, predictions
from lmcore.ops import ranking, words
row = {"words": ["New", "York"], "labels": ["B-city", "I-city"], "label_list": ["city"],
       "prediction": "New(B-city) York(I-city)"}
print(lmcore.ner.score([row], scheme="strict").mean.f1)
print(ranking.rank_targets([[0.5, 1.0]], [1]).ranks)
"""
    done = run_without(EVERY_EXTRA, code)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "1.0\n[0.]\n"


def test_other_import_errors_are_not_ours() -> None:
    with pytest.raises(ModuleNotFoundError, match="no_such_module") as caught, optional_imports():
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    assert not isinstance(caught.value, MissingExtra)


def test_error_has_its_parts_in_another_process_too() -> None:
    error = pickle.loads(pickle.dumps(MissingExtra("matplotlib", "report")))
    assert (error.package, error.extra, error.name) == ("matplotlib", "report", "matplotlib")
    assert str(error) == 'matplotlib is not installed: pip install "lmcore-research[report]"'
