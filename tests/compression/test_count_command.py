"""The command `lmcore compression count`: its lines, kills and signals, two processes at once."""

import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from commands import check_line, finish, run, run_here, run_warm, start_warm
from lmcore.compression import read_counts
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import read_present, wait_for_change

# Batches of a moment, a state after each, and a wait in between.
SLOW = """
import time
import lmcore.compression.counting as counting
counting._BYTES_AT_ONCE, counting._SAVE_SECONDS = 200, 0.0
add = counting._Run._add
def wait(*arguments):
    time.sleep(0.02)
    add(*arguments)
counting._Run._add = wait
"""
ARGUMENTS = ["compression", "count", "a.txt", "--tokenizer", "t", "--out", "o", "--quiet"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "t").mkdir()
    write_piece_file(tmp_path / "t/spiece.model")
    (tmp_path / "a.txt").write_text(make_world(0, documents=400).to_text(), encoding="utf-8")
    return tmp_path


def count(*arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "count", *arguments, "--tokenizer", "t", "--out", "o")


def test_summary(folder: Path) -> None:
    code, output, errors = count("a.txt", "--by", "language")
    assert code == 0
    lines = output.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["en", "zh", "other"]
    counts = read_counts("o")
    kinds = int((counts.groups["en"] > 0).sum())
    tokens = int(counts.groups["en"].sum())
    assert lines[0] == f"en: {tokens:,} tokens, {kinds:,} of {counts.vocabulary_size:,} kinds"
    assert errors == f"{counts.tokens:,} tokens counted, in 400 documents, 0 skipped\n"
    (folder / "b.txt").write_text("Ada met Otto.\n")
    (folder / "c.jsonl").write_text('{"t": "Ada"}\n[]\n')
    code, output, errors = count(
        "b.txt", "c.jsonl", "--group", "x=b.*", "--group", "x=nothing", "--key", "t"
    )
    check_line((code, output, errors), "group x: 'nothing' fits none of the files")
    code, output, errors = count(
        "b.txt", "c.jsonl", "--group", "x=b.*", "--key", "t", "--skip-bad-rows"
    )
    assert [line.partition(" ")[0] for line in output.splitlines()] == ["x:", "other:"]
    assert errors.splitlines() == [
        "skipped c.jsonl:2: expected a JSON object, got a list",
        "5 tokens counted, in 2 documents, 1 skipped",
    ]


def test_standard_input_and_ids(folder: Path) -> None:
    assert count("a.txt")[0] == 0
    whole = (folder / "o").read_bytes()
    with open("a.txt", "rb") as file:
        assert run_warm(*ARGUMENTS[:2], "-", *ARGUMENTS[3:], stdin=file)[0] == 0
    assert (folder / "o").read_bytes() == whole
    assert (
        run_here("openba", "pack", "a.txt", "--tokenizer", "t", "--out", "p", "--length", 7)[0] == 0
    )
    assert count("p")[0] == 0
    # Packed documents have ends besides.
    assert read_counts("o").total[1] in (399, 400)


def test_one_line_for_what_cannot_be_used(folder: Path) -> None:
    (folder / "b.txt").write_bytes(b"good\n\xff\n")
    check_line(count("b.txt"), "b.txt:2: not UTF-8 at byte 1")
    check_line(count("none.txt"), "none.txt: No such file or directory")
    check_line(count("a.txt", "--by", "x"), "by must be one of group, language: got 'x'")
    check_line(count("a.txt", "--group", "a/b=a.txt"), "a group's name must be of letters")
    np.save("a.npy", np.array([10**9]))
    check_line(count("a.npy"), "a.npy, from token 0 on: an id that the tokenizer lacks: ids[0] ")
    (folder / "t/spiece.model").write_bytes(b"text")
    check_line(count("a.txt"), "t/spiece.model: not a SentencePiece model: ")
    (folder / "t/spiece.model").unlink()
    check_line(count("a.txt"), "t: not a folder of a tokenizer: expected tokenizer.json, ")
    code, _, errors = count("a.txt", "--group", "a")
    assert code == 2
    assert "--group: expected NAME=PATTERN, got 'a'" in errors
    assert not (folder / "o").exists()


def read_states(folder: Path) -> list[bytes]:
    return read_present(folder.glob(".*.lmcore-state"))


def wait_for_state(folder: Path, process: "subprocess.Popen[str]", before: list[bytes]) -> None:
    """Until more documents are done."""
    wait_for_change(lambda: read_states(folder), process, before)


def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path) -> None:
    assert run_here(*ARGUMENTS)[0] == 0
    whole = (folder / "o").read_bytes()
    (folder / "o").unlink()
    for number in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT):
        before = read_states(folder)
        process = start_warm(*ARGUMENTS, code=SLOW)
        wait_for_state(folder, process, before)
        if number == signal.SIGINT:
            check_line(run_here(*ARGUMENTS), "o: another process is writing it")
        process.send_signal(number)
        code, output, errors = finish(process)
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
        assert (output, errors) == ("", "lmcore: interrupted\n" if number == signal.SIGINT else "")
        assert not (folder / "o").exists()
    code, _, errors = run_here(*ARGUMENTS)
    assert code == 0
    assert " of them before, in 400 documents" in errors
    assert (folder / "o").read_bytes() == whole
    assert not list(folder.glob(".*"))


@pytest.mark.alone
def test_an_interrupt_does_not_wait_for_a_long_document(folder: Path) -> None:
    (folder / "a.txt").write_text("Ada met Otto in Alder. " * 400_000)
    process = start_warm(*ARGUMENTS)
    # It is read, and the tokenizer is at work, when the file of counts is there.
    end = time.monotonic() + 60
    while not list(folder.glob(".*.lmcore-rows")):
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert process.stderr is not None
    assert process.stderr.readline() == "lmcore: interrupted\n"
    assert time.monotonic() - begin < 0.5
    assert finish(process) == (130, "", "")


def test_the_help_needs_no_torch(folder: Path) -> None:
    code = "import sys\nimport atexit\natexit.register(lambda: print('torch' in sys.modules))"
    for arguments in (["compression", "--help"], ARGUMENTS):
        code_of_exit, output, _ = run(*arguments, code=code)
        assert code_of_exit == 0
        assert output.splitlines()[-1] == "False"
