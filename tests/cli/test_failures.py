"""What is a user's mistake is one line; a bug shows its traceback; an absent extra has a name."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from commands import SMALL, check_line, run, run_here, write_pairs
from lmcore.cli.failures import is_answer
from lmcore.ops.negatives import SequenceSampler
from lmcore.ops.predictions import align_row
from lmcore.recsys.ids import IdMap
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.recipes import TrainConfig
from prediction_rows import VALID, write_rows
from test_extras import EVERY_EXTRA, WITHOUT


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [VALID] * 3)


# Bugs.

BUGS = {
    "explicit": lambda: (_ for _ in ()).throw(TypeError("a bug")),
    "implicit": lambda: None + 1,  # type: ignore[operator]
    "of a library": lambda: int("a bug"),
    "key": lambda: {}["a bug"],
    "place": lambda: [][1],
    "attribute": lambda: None.bug,  # type: ignore[attr-defined]
    "import": lambda: importlib.import_module("a_bug_that_is_not_installed"),
    "runtime": lambda: iter([]).__next__(),
}


@pytest.mark.parametrize("place", ["ner.report.format_table", "ner.evaluation._dataset_scores"])
@pytest.mark.parametrize("bug", BUGS)
def test_bugs_come_out(rows: Path, monkeypatch: pytest.MonkeyPatch, place: str, bug: str) -> None:
    monkeypatch.setattr(f"lmcore.{place}", lambda *_: BUGS[bug]())
    with pytest.raises(Exception, match=r".*") as caught:
        run_here("ner", "score", rows)
    assert not isinstance(caught.value, SystemExit)


def test_a_bug_shows_its_traceback(rows: Path) -> None:
    code = "import lmcore.ner.report as report; report.format_table = lambda *_: None + 1"
    status, output, errors = run("ner", "score", rows, code=code)
    assert (status, output) == (1, "")
    assert errors.startswith("Traceback (most recent call last):\n")
    assert errors.splitlines()[-1].startswith("TypeError: unsupported operand")


def test_a_bug_in_our_own_code_comes_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The mistake lies in a module of lmcore: what counts is that no `raise` of ours made it."""
    data = write_pairs(tmp_path / "pairs.txt")
    monkeypatch.setattr("lmcore.recsys.arranging.number_ids", lambda _: None)
    with pytest.raises(TypeError, match="cannot unpack"):
        run_here("recsys", "train", "plain", "--data", data, "--out", tmp_path / "run", *SMALL)


ANSWERS: dict[str, Callable[[], Any]] = {
    "core": lambda: align_row({"text": "a"}),
    "core's class": lambda: SequenceSampler([0, 1], [1], 0),
    "facade": lambda: SequenceSampler([0, 1], ["x"], 3),  # type: ignore[list-item]
    "definition": lambda: SequenceSampler([0, 1], [1], 3, order="other"),
    "settings": lambda: TrainConfig(alpha=-1.0),
    "reader": lambda: read_interactions("pyproject.toml"),
    "ids": lambda: IdMap.identity(1, 1).find_items([2]),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_refusals_are_answers(name: str) -> None:
    with pytest.raises((TypeError, ValueError, IndexError)) as caught:
        ANSWERS[name]()
    assert is_answer(caught.value)


def test_other_errors_are_none() -> None:
    for bug in BUGS.values():
        with pytest.raises(Exception, match=r".*") as caught:
            bug()
        assert not is_answer(caught.value)
    assert not is_answer(ValueError("never raised"))


# Extras.


@pytest.mark.parametrize(
    ("command", "package", "extra"),
    [
        (["recsys", "train", "plain", "--data", "a", "--out", "b"], "torch", "train"),
        (["recsys", "recipe"], "torch", "train"),
        (["recsys", "evaluate", "a", "--data", "b"], "torch", "train"),
        (["recsys", "recommend", "a", "1"], "torch", "train"),
        (["ner", "score", "ROWS", "--tokenizer", "a"], "transformers", "train"),
        (["ner", "align", "ROWS", "OUT", "--tokenizer", "a"], "transformers", "train"),
        (["reproduce", "--only", "ner"], "matplotlib", "report"),
        (["reproduce"], "matplotlib", "report"),
    ],
    ids=lambda value: " ".join(value[:2]) if isinstance(value, list) else value,
)
def test_absent_extras(
    rows: Path, tmp_path: Path, command: list[str], package: str, extra: str
) -> None:
    """A process in which none of what extras bring is installed."""
    names = {"ROWS": str(rows), "OUT": str(tmp_path / "out.jsonl")}
    arguments = [names.get(part, part) for part in command]
    code = WITHOUT.format(absent=EVERY_EXTRA)
    result = run(*arguments, code=code, cwd=tmp_path)
    called = " ".join(command[: 1 if command[0] == "reproduce" else 2])
    check_line(result)
    expected = f'lmcore {called} needs {package}: pip install "lmcore-research[{extra}]"'
    assert result[2] == f"lmcore: {expected}\n"


def test_base_install_scores(rows: Path, tmp_path: Path) -> None:
    code = WITHOUT.format(absent=EVERY_EXTRA)
    page = tmp_path / "page.html"
    assert run("ner", "score", rows, "--html", page, code=code)[::2] == (0, "")
    assert run("ner", "align", rows, tmp_path / "out.jsonl", code=code)[0] == 0


# A run remembers how its data was read.


def test_recommend_reads_as_the_training_did(tmp_path: Path) -> None:
    data, out = write_pairs(tmp_path / "pairs.txt"), tmp_path / "run"
    lines = [*data.read_text().splitlines(keepends=True), "7 x\n", "8\n"]
    data.write_text("".join(lines))
    arguments = ["--data", data, "--out", out, "--epochs", 1, *SMALL, "--skip-bad-rows"]
    assert run_here("recsys", "train", "plain", *arguments)[0] == 0
    code, printed, errors = run_here("recsys", "recommend", out, 1)
    assert code == 0, errors
    assert printed.count("\n") == 1
    assert [line.partition(": ")[0] for line in errors.splitlines()] == [
        f"skipped {data}:{n}" for n in (321, 322)
    ]
    # Other data is read as the options say.
    check_line(run_here("recsys", "recommend", out, 1, "--data", data), "pairs.txt:321: ")
    # A run of sequences whose first user has one item is not guessed to be one.
    data = tmp_path / "sequences.txt"
    rows = "".join(f"{user} {user % 5 + 1} {user % 4 + 6} 11 12\n" for user in range(2, 30))
    data.write_text(f"1 3\n{rows}")
    arguments = ["--data", data, "--out", tmp_path / "other", "--epochs", 1, *SMALL]
    assert run_here("recsys", "train", "plain", *arguments, "--format", "sequences")[0] == 0
    assert run_here("recsys", "recommend", tmp_path / "other", 2)[0] == 0
    # It goes on, however the same data is given.
    copy = tmp_path / "clean.txt"
    copy.write_text("".join(line for line in lines if line not in ("7 x\n", "8\n")))
    again = ["--data", copy, "--out", out, "--epochs", 1, *SMALL]
    assert run_here("recsys", "train", "plain", *again)[0] == 0


def test_module_is_the_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lmcore", "--version"], capture_output=True, text=True, check=True
    )
    assert run("--version") == (0, done.stdout, "")
