"""The command `lmcore ner data`."""

import gzip
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, finish, run, run_here, start
from stopped_runs import read_present

COLUMNS = "New\tB-city\nYork\tI-city\n.\tO\n\nHi\tO\nAda\tI-person\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.txt").write_text(COLUMNS)
    return tmp_path


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def data(*arguments: object) -> tuple[int, str, str]:
    return run_here("ner", "data", *arguments)


def test_summary_and_rows(folder: Path) -> None:
    entities = {"text": "Ada ran", "entities": [{"start": 0, "end": 3, "type": "person"}]}
    (folder / "b.jsonl").write_text(json.dumps(entities) + "\n[]\n")
    code, output, errors = data("a.txt", "b.jsonl", "o.jsonl", "--skip-bad-rows")
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "a.txt: 2 of 2 sentences of a taken",
        "a.txt: types from labels: city, person",
        "a.txt: labels that begin an entity without B-: 1",
        "skipped b.jsonl:2: expected a JSON object, got a list",
        "b.jsonl: 1 of 1 sentences of b taken",
        "b.jsonl: types from labels: person",
        "3 rows written, 1 sentences skipped",
    ]
    first, second, third = rows_of(folder / "o.jsonl")
    assert first["target"] == "New(B-city) York(I-city) .(O)"
    assert sorted(first["types"]) == ["city", "person"]
    assert second["labels"] == ["O", "B-person"]
    assert (third["dataset"], third["text"], third["types"]) == ("b", "Ada ran", ["person"])


def test_what_was_written_is_read(folder: Path) -> None:
    assert data("a.txt", "o.jsonl")[0] == 0
    assert data("o.jsonl", "p.jsonl", "--keep-order")[0] == 0
    assert (folder / "o.jsonl").read_bytes() == (folder / "p.jsonl").read_bytes()


def test_options_reach_the_rows(folder: Path) -> None:
    (folder / "t.txt").write_text("{types}\nof {dataset}\n{sentence}\n")
    code, _, errors = data(
        "a.txt", "o.jsonl", "--types", "river, person ,city", "--dataset", "d", "--name-dataset",
        "--context", 0, "--boundaries", "bioes", "--keep-order", "--template", "t.txt",
        "--max-words", 2, "--types-per-row", 1, "--seed", 7,
    )  # fmt: skip
    assert code == 0, errors
    first, second, third = rows_of(folder / "o.jsonl")
    assert first["instruction"] == "city\nof d\nNew York"
    assert (first["target"], first["window"]["stop"]) == ("New(B-city) York(E-city)", 2)
    assert second["target"] == ""
    assert third["target"] == "Ada(S-person)"
    assert "sentences that were cut into windows: 1" in errors
    assert "empty targets, of sentences without an entity: 1" in errors


def test_caps(folder: Path) -> None:
    (folder / "many.txt").write_text("".join(f"w{i}\tB-x\n\n" for i in range(50)))
    arguments = ["a.txt", "many.txt", "o.jsonl", "--cap", 10, "--over-sample"]
    code, _, errors = data(*arguments)
    assert code == 0
    assert "a.txt: 10 of 2 sentences of a taken" in errors
    assert "many.txt: 10 of 50 sentences of many taken" in errors
    assert data(*arguments, "--sampling", "first")[0] == 0
    words = [row["words"][0] for row in rows_of(folder / "o.jsonl")]
    assert words[10:] == [f"w{i}" for i in range(10)]
    assert data("many.txt", "o.jsonl", "--cap", 0)[0] == 0
    assert len(rows_of(folder / "o.jsonl")) == 50


def test_folders_and_pipes(folder: Path) -> None:
    (folder / "set").mkdir()
    (folder / "set/label.txt").write_text("person\ncity\n")
    (folder / "set/dev.txt").write_text(COLUMNS)
    assert data("set", "o.jsonl.gz", "--split", "dev")[0] == 0
    lines = gzip.decompress((folder / "o.jsonl.gz").read_bytes()).decode().splitlines()
    with open("a.txt") as source:
        arguments = ["-", "-", "--types", "person,city", "--dataset", "set"]
        piped = run("ner", "data", *arguments, stdin=source)
    assert piped[0] == 0
    assert piped[1].splitlines() == lines
    with open("a.txt") as source:
        check_line(run("ner", "data", "-", "-", stdin=source), "standard input")


# What cannot be used.


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["a.txt"], "give inputs and an output, IN... OUT.jsonl: got 'a.txt' alone"),
        (["a.txt", "a.txt"], "a.txt: the output is an input too"),
        (["none.txt", "o.jsonl"], "none.txt: No such file or directory"),
        (["a.txt", "none/o.jsonl"], "none/o.jsonl: No such file or directory"),
        (["a.txt", "o.jsonl", "--label-column", "3"], "a.txt:1: expected 3 columns: got 2"),
        (["a.txt", "o.jsonl", "--format", "rows"], "a.txt:1: not valid JSON"),
        (["a.txt", "o.jsonl", "--format", "datasets"], "format datasets reads a folder"),
        (["a.txt", "o.jsonl", "--types", "person"], "a.txt:1: label of word 1, 'B-city'"),
        (["a.txt", "o.jsonl", "--types", "person,a)b"], "closing parenthesis"),
        (["a.txt", "o.jsonl", "--template", "a.txt"], "a template must hold {types} once"),
        (["a.txt", "o.jsonl", "--template", "none"], "none: No such file or directory"),
        (["a.txt", "o.jsonl", "--overlap", "3"], "overlap goes with max_words"),
        (["a.txt", "o.jsonl", "--overlap", "3", "--max-words", "3"], "overlap must be at least 0"),
        (["a.txt", "o.jsonl", "--over-sample", "--cap", "0"], "over_sample goes with a cap"),
        (["a.txt", "o.jsonl", "--split", "dev"], "a.txt: split goes with a folder"),
        ([".", "o.jsonl"], ".: expected label.txt and train.txt, or what save_to_disk"),
    ],
)
def test_one_line_and_exit_2(folder: Path, arguments: list[str], problem: str) -> None:
    (folder / "o.jsonl").write_text("before")
    check_line(data(*arguments), problem)
    assert (folder / "o.jsonl").read_text() == "before"
    assert (folder / "a.txt").read_text() == COLUMNS
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "o.jsonl"]


def test_hostile_texts_do_not_act_on_the_terminal(folder: Path) -> None:
    (folder / "b.txt").write_text("\x1b[2J\tB-\x1b]0;x\x07\n")
    code, output, errors = data("b.txt", "o.jsonl")
    assert code == 0
    assert "\x1b" not in errors + output
    assert "\x1b" not in (folder / "o.jsonl").read_text()
    assert rows_of(folder / "o.jsonl")[0]["words"] == ["\x1b[2J"]


def test_devices_and_closed_pipes(folder: Path) -> None:
    (folder / "many.txt").write_text("".join(f"w{i}\tB-x\n\n" for i in range(20_000)))
    assert data("many.txt", "/dev/null")[0] == 0
    with open("/dev/full", "w") as full:
        result = run("ner", "data", "many.txt", "-", stdout=full)
    assert result[0] == 2
    assert result[2] == "lmcore: standard output: No space left on device\n"
    reading, writing = os.pipe()
    process = start("ner", "data", "many.txt", "-", stdout=writing)
    os.close(writing)
    os.close(reading)
    assert finish(process)[0] == 141


def test_a_killed_run_leaves_nothing_and_a_new_one_makes_the_same(folder: Path) -> None:
    (folder / "many.txt").write_text("".join(f"w{i}\tB-x\n\n" for i in range(60_000)))
    arguments = ["ner", "data", "many.txt", "o.jsonl", "--cap", "0"]
    process = start(*arguments)
    deadline = time.monotonic() + 60
    while not any(read_present(folder.glob(".lmcore-*"))):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "many.txt"]
    made = []
    for _ in range(2):
        assert run(*arguments)[0] == 0
        made.append((folder / "o.jsonl").read_bytes())
    assert made[0] == made[1]


def test_memory_does_not_grow_with_the_file(folder: Path) -> None:
    """Peaks of a short and a long file, in kilobytes, within processes of their own."""
    peaks = []
    for count in (2_000, 60_000):
        text = "".join(f"w{i} some more words\tO\nx\tB-x\n\n" for i in range(count))
        (folder / "many.txt").write_text(text)
        code = (
            "import atexit, resource; atexit.register(lambda: print("
            "resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stdout, flush=True))"
        )
        result = run("ner", "data", "many.txt", "/dev/null", "--cap", "0", code=code)
        assert result[0] == 0, result
        peaks.append(int(result[1]))
    assert peaks[1] - peaks[0] < 8_000
