"""Files of chains: made, gone on with, and looked at."""

import json
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.detox.chain_files import check_chains, make_chains
from lmcore.detox.chains import STUDENT
from prediction_rows import write_rows

ROW = {"prompt": "a", "generation": ["b", "c"], "cont_toxicity": [0.1, 0.7]}
TOXIC = {"mask_prompt": "<MASK>", "recover_prompt": "d"}
ROWS: list[dict[str, Any]] = [
    ROW, {**ROW, **TOXIC}, {**ROW, "cont_toxicity": [0.9, 0.7]},
    {**ROW, "cont_toxicity": [0.1, 0.2]}, {**ROW, "generation": [], "cont_toxicity": []},
    {**ROW, "generation": ["b # d", "c"]},
]  # fmt: skip


def read(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_the_authors_file(golden_dir: Path, tmp_path: Path) -> None:
    golden = json.loads((golden_dir / "detox_chain" / "chains.json").read_text(encoding="utf-8"))
    source, target = write_rows(tmp_path / "in.jsonl", golden["rows"]), tmp_path / "out.jsonl"
    summary = make_chains(source, target)
    assert read(target) == golden["chains"]
    assert (summary.toxic, summary.non_toxic, summary.left_out) == (96, 20, {"toxic": 4})
    found = check_chains(target)
    assert (found.rows, found.toxic, found.groups, found.problems) == (116, 96, 100, {})


def test_a_students_file(data_dir: Path) -> None:
    found = check_chains(data_dir / "tox" / "detoxchain_alpaca_rtp1000.jsonl", grammar="student")
    assert (found.rows, found.toxic, found.non_toxic, found.problems) == (1000, 211, 789, {})


def test_counts(tmp_path: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    summary = make_chains(source, target)
    assert (summary.rows, summary.toxic, summary.non_toxic) == (6, 1, 3)
    assert summary.left_out == {"toxic": 1, "no_generation": 1}
    assert (summary.groups, summary.problems) == (3, {"mark_in_field": 1})
    assert len(read(target)) == 4
    found = check_chains(target)
    assert (found.toxic, found.non_toxic, found.problems) == (1, 3, {"mark_in_field": 1})
    make_chains(source, tmp_path / "student.jsonl", grammar="student")
    row = read(tmp_path / "student.jsonl")[1]
    assert STUDENT.parse(row["output"]).rephrased == "d"


def test_going_on(tmp_path: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", [*ROWS, {"prompt": "a"}]), tmp_path / "out"
    with pytest.raises(ValueError, match=r"in\.jsonl:7: generation: expected a list"):
        make_chains(source, target)
    assert not target.exists()
    with pytest.raises(FileExistsError, match="grammar"):
        make_chains(source, target, grammar="student", skip_bad_rows=True)
    summary = make_chains(source, target, skip_bad_rows=True)
    assert (summary.rows, summary.resumed_rows, summary.bad_rows) == (6, 6, 1)
    whole = tmp_path / "whole"
    make_chains(source, whole, skip_bad_rows=True)
    assert target.read_bytes() == whole.read_bytes()


def test_the_command(tmp_path: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", ROWS), tmp_path / "out.jsonl"
    code, output, errors = run_here("detox", "chains", source, target)
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "6 rows read, 0 skipped: 1 toxic and 3 non-toxic chains, 3 with toxic continuations",
        "1 rows left out: all continuations are toxic",
        "1 rows left out: no continuation",
        "1 chains would be read otherwise: mark_in_field",
    ]
    code, output, _ = run_here("detox", "chains", target, "--check")
    assert json.loads(output) == {
        "rows": 4, "bad_rows": 0, "toxic": 1, "non_toxic": 3, "problems": {"mark_in_field": 1},
        "groups": 3,
    }  # fmt: skip
    check_line(run_here("detox", "chains", source), "OUT must be given")
    check_line(run_here("detox", "chains", source, target, "--check"), "OUT must not be given")
    check_line(run_here("detox", "chains", source, source), "the output is an input too")
    check_line(run_here("detox", "chains", source, "--check"), "in.jsonl:1: output: missing")
    check_line(run_here("detox", "chains", source, target, "--grammar", "x"), "grammar must be")
    both = write_rows(tmp_path / "both.jsonl", [{"output": 3}, {"output": "a\x1b[0m"}])
    code, output, errors = run_here("detox", "chains", both, "--check", "--skip-bad-rows")
    assert json.loads(output)["problems"] == {"no_text": 1}
    assert errors == f"skipped {both}:1: output: expected a text\n"
