"""`lmcore ner score` and `lmcore ner errors`: what they say of files in other forms, and refuse."""

import gzip
import json
import os
from pathlib import Path

import pytest

from commands import check_line, run, run_here
from prediction_rows import VALID, make_rows, write_rows

EMPTY = {**VALID, "prediction": '{"x": ["New York"]}'}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "a.jsonl", make_rows(60, datasets=["one", "two"]))


def test_predictions_without_labels_are_said(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID, EMPTY, EMPTY])
    for options in ([], ["--json"]):
        code, output, errors = run_here("ner", "score", file, *options)
        assert code == 0
        assert output
        assert errors == (
            f"warning: 2 of 3 predictions hold no `word(label)`, the first at {file}:2: "
            "each of their words counts as O\n"
        )
    # A sentence without words has nothing to say.
    nothing = {**VALID, "words": [], "labels": [], "prediction": ""}
    file = write_rows(tmp_path / "b.jsonl", [VALID, nothing])
    assert run_here("ner", "score", file)[2] == ""


def test_the_form_is_detected_and_said(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [EMPTY])
    code, output, errors = run_here("ner", "score", file)
    assert (code, errors) == (0, f"{file}: read in the form json\n")
    assert "100.00" in output
    code, output, errors = run_here("ner", "score", file, "--format", "gner")
    assert code == 0
    assert "warning: 1 of 1 predictions hold no" in errors


def test_standard_input_and_gzip(file: Path, tmp_path: Path) -> None:
    rows = [json.loads(line) for line in file.read_text().strip().split("\n")]
    plain = json.loads(run_here("ner", "score", file, "--json")[1])
    for content, name in ((file.read_bytes(), "-"), (gzip.compress(file.read_bytes()), "b.gz")):
        packed = tmp_path / name
        packed.write_bytes(content)
        with packed.open("rb") as source:
            arguments = ["-"] if name == "-" else [packed]
            code, output, errors = run("ner", "score", *arguments, "--json", stdin=source)
        assert (code, errors) == (0, "")
        assert json.loads(output) == plain
    assert len(rows) == 60
    with (tmp_path / "-").open("rb") as source:
        check_line(run("ner", "score", "-", "--by-type", stdin=source), "- can be read once")


def test_by_type_prints_what_json_holds(file: Path) -> None:
    code, output, errors = run_here("ner", "score", file, "--by-type")
    assert (code, errors) == (0, "")
    assert "by type: one" in output
    assert "matches in part: two" in output
    part = json.loads(run_here("ner", "score", file, "--by-type", "--json")[1])["datasets"]["one"]
    assert set(part["partial"]) == {"strict", "exact", "partial", "type"}
    gold = sum(scores["counts"]["gold"] for scores in part["types"].values())
    assert gold == part["counts"]["gold"]


def test_by_type_of_several_files(file: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "b.jsonl", make_rows(30, seed=1, datasets=["two", "three"]))
    result = json.loads(run_here("ner", "score", file, other, "--by-type", "--json")[1])
    assert set(result["datasets"]) == {"one", "a.jsonl: two", "b.jsonl: two", "three"}
    for part in result["datasets"].values():
        gold = sum(scores["counts"]["gold"] for scores in part["types"].values())
        assert gold == part["counts"]["gold"]
    arguments = ["ner", "score", file, other, "--by-type", "--merge", "--json"]
    merged = json.loads(run_here(*arguments)[1])
    assert set(merged["datasets"]) == {"one", "two", "three"}


def test_two_models(file: Path, tmp_path: Path) -> None:
    code, output, errors = run_here("ner", "score", file, "--against", file, "--resamples", 20)
    assert (code, errors) == (0, "")
    assert "may be chance" in output
    assert "20 paired samples of the rows, seed 0" in output
    result = json.loads(run_here("ner", "score", file, "--against", file, "--json")[1])
    assert list(result["differences"]) == ["one", "two", "mean"]
    other = write_rows(tmp_path / "b.jsonl", make_rows(60, seed=1, datasets=["one", "two"]))
    check_line(run_here("ner", "score", file, "--against", other), "the words are not those of")
    for wrong in ([file, other], [file, "--html", "x.html"]):
        check_line(
            run_here("ner", "score", *wrong, "--against", other), "--against compares one file"
        )


def test_errors(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "errors.html"
    code, output, errors = run_here("ner", "errors", file, "--html", page, "--examples", 2)
    assert (code, errors) == (0, "")
    assert output.startswith("scheme gner\n")
    assert page.read_text().startswith("<!doctype html>")
    (report,) = json.loads(run_here("ner", "errors", file, "--json")[1]).values()
    kinds = report["total"]
    scores = json.loads(run_here("ner", "score", file, "--by-type", "--json")[1])
    assert kinds["gold"] >= sum(part["counts"]["gold"] for part in scores["datasets"].values())
    output = run_here("ner", "errors", file, "--against", file)[1]
    assert output.count(str(file)) >= 2
    check_line(run_here("ner", "errors", file, "--html", file), "is an input")


def test_a_data_set_s_name_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    row = {**EMPTY, "dataset": "a\x1b[2J\nb", "types": ["x", "\x1b]0;t\x07"]}
    row.pop("label_list")
    file = write_rows(tmp_path / "a\x1b.jsonl", [row, {**row, "prediction": "New(B-\x1b)"}])
    commands = [
        ["score", file, "--by-type"],
        ["score", file, "--format", "gner"],
        ["score", file, "--against", file],
        ["errors", file],
        ["errors", file, "--against", file],
    ]
    for command in commands:
        code, output, errors = run_here("ner", *command)
        assert code == 0, errors
        assert "\x1b" not in output + errors
        assert "\x07" not in output + errors


@pytest.mark.parametrize("command", ["score", "errors"])
def test_a_pipe_is_read_as_it_comes(command: str, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    writer = os.fork()
    if writer == 0:
        with pipe.open("w") as file:
            file.write((json.dumps(VALID) + "\n") * 50)
        os._exit(0)
    code, output, errors = run("ner", command, pipe)
    os.waitpid(writer, 0)
    assert (code, errors) == (0, "")
    assert output


def test_an_unknown_form(file: Path) -> None:
    for command in ("score", "errors"):
        check_line(
            run_here("ner", command, file, "--format", "x"), "form must be one of auto, gner"
        )
