"""The command `lmcore openba evaluate`: tables, JSON, kills, a second process, what it refuses."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, finish, run_here, run_warm, start_warm
from stopped_runs import wait_for_change
from tiny_generation import save_pair
from tiny_questions import CEVAL, make_pairs, write_json, write_text

SMALL = ["--threads", "1", "--device", "cpu", "--batch-size", "2", "--quiet"]
# Blocks of one batch, each of which is saved; and batches that wait, so that a run is still going
# on when it is killed.
STEPS = """
import lmcore.openba.evaluation as evaluation
evaluation._SAVE_SECONDS = 0.0
evaluation._BATCHES = 1
"""
SLOW = (
    STEPS
    + """
import time
import lmcore.openba.answers as answers
decode = answers.AnswerScorer._decode
def wait(*arguments):
    time.sleep(2)
    return decode(*arguments)
answers.AnswerScorer._decode = wait
"""
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_pair(tmp_path_factory.mktemp("model"), max_seq_length=1024)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_json(tmp_path / "data" / "anatomy_test.json", make_pairs(12, demos=2))
    return tmp_path


def list_states(folder: Path) -> list[int]:
    states = folder.glob(".*.lmcore-state")
    return [json.loads(path.read_bytes())["rows"] for path in states]


def test_table_and_json(folder: Path, model: Path) -> None:
    arguments = ["openba", "evaluate", model, "--task", "mmlu", "--data", "data", *SMALL]
    code, output, errors = run_here(*arguments, "--shots", 1, "--out", "rows.jsonl")
    assert (code, errors) == (0, "12 questions answered, 0 skipped\n")
    rows = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    right = sum(row["answer"] == row["prediction"] for row in rows)
    lines = output.splitlines()
    assert lines[0].split() == ["questions", "accuracy", "mean", "of", "subjects", *"ABCD"]
    assert lines[1].split()[:3] == ["anatomy", "12", f"{100 * right / 12:.2f}"]
    assert lines[-1].split()[:3] == ["all", "12", f"{100 * right / 12:.2f}"]
    code, output, _ = run_here(*arguments, "--shots", 1, "--json")
    found = json.loads(output)
    assert (code, found["correct"], found["accuracy"]) == (0, right, right / 12)
    assert (found["task"], found["by"], found["prompts"]) == ("mmlu", "letter", "mmlu")
    assert sum(found["letters"].values()) == pytest.approx(1)
    code, output, _ = run_here(*arguments, "--json", "--by", "loss", "--prompts", "ceval")
    assert (json.loads(output)["by"], json.loads(output)["prompts"]) == ("loss", "ceval")


def test_what_is_said(folder: Path, model: Path) -> None:
    rows = CEVAL + "".join(f"{n},{'q' * 9 * n},a,b,c,d,{'E' if n == 3 else ''}\n" for n in range(5))
    write_text(folder / "c" / "law_test.csv", rows)
    write_text(folder / "c" / "law_dev.csv", CEVAL + f"0,{'r' * 80},a,b,c,d,A\n")
    arguments = ["openba", "evaluate", model, "--task", "ceval", "--data", "c", *SMALL]
    check_line(run_here(*arguments), "c: no files of the split 'val': found dev, test")
    arguments += ["--split", "test"]
    check_line(run_here(*arguments), "law_test.csv:5: expected one of A, B, C, D")
    options = ["--skip-bad-rows", "--shots", 1, "--max-source-tokens", 300]
    code, output, errors = run_here(*arguments, *options)
    assert code == 0
    assert output.splitlines()[-1].split()[:3] == ["all", "4", "-"]
    assert errors.splitlines() == [
        "skipped c/law_test.csv:5: expected one of A, B, C, D under 'answer', got 'E'",
        "4 questions answered, 1 skipped",
        "4 questions were shown fewer than 1 demonstrations",
        "4 questions have no published answer: they are predicted, and do not count",
    ]


def test_control_characters_of_a_name_do_nothing(folder: Path, model: Path) -> None:
    write_json(folder / "x" / "a\x1b[2Jb.json", make_pairs(1))
    code, output, _ = run_here("openba", "evaluate", model, "--task", "mmlu", "--data", "x", *SMALL)
    assert (code, "\x1b" in output) == (0, False)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, model: Path, number: int) -> None:
    arguments: list[Any] = ["openba", "evaluate", model, "--task", "mmlu", "--data", "data", *SMALL]
    assert run_warm(*arguments, "--out", "whole.jsonl", code=STEPS)[0] == 0
    arguments += ["--out", "out.jsonl"]
    process = start_warm(*arguments, code=SLOW)
    wait_for_change(lambda: list_states(folder), process, [])  # type: ignore[arg-type]
    check_line(run_warm(*arguments), "out.jsonl: another process is writing it")
    process.send_signal(number)
    assert finish(process)[0] == (-9 if number == signal.SIGKILL else 128 + number)
    assert not Path("out.jsonl").exists()
    check_line(run_warm(*arguments, "--by", "loss", code=STEPS), "made with another by")
    code, _, errors = run_warm(*arguments, code=STEPS)
    assert code == 0
    assert " of them before, 0 skipped" in errors
    assert Path("out.jsonl").read_bytes() == Path("whole.jsonl").read_bytes()


def test_what_it_refuses(folder: Path, model: Path) -> None:
    def refuse(*options: object, text: str, name: object = model) -> None:
        check_line(run_here("openba", "evaluate", name, *SMALL, *options), text)

    data = ["--task", "mmlu", "--data", "data"]
    refuse("--task", "sat", "--data", "data", text="task must be one of mmlu, cmmlu")
    refuse("--task", "mmlu", "--data", "none", text="none: No such file or directory")
    (folder / "empty").mkdir()
    refuse("--task", "arc", "--data", "empty", text="empty: no questions of arc (*.jsonl")
    refuse(*data, "--by", "x", text="by must be one of letter, loss")
    refuse(*data, "--prompts", "x", text="prompts must be one of mmlu, mmlu-v2")
    refuse(*data, "--shots", 3, text="anatomy_test.json:2: expected 3 demonstrations")
    refuse(*data, "--out", "data/anatomy_test.json", text="the output is an input too")
    refuse(*data, "--out", "/dev/null", text="expected a file, got a device")
    refuse(*data, name="nowhere", text="nowhere: no such folder of a model")
    small = save_pair(folder / "small", vocab_size=128)
    refuse(*data, name=small, text="small: the tokenizer and the model do not fit")
    for file in model.iterdir():
        if file.name in ("config.json", "model.safetensors"):
            (folder / "bare").mkdir(exist_ok=True)
            (folder / "bare" / file.name).write_bytes(file.read_bytes())
    refuse(*data, name="bare", text="bare: not a tokenizer that can be loaded")
