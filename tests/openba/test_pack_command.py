"""The command `lmcore openba pack`: its lines, kills and signals, two processes at once."""

import gzip
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from commands import check_line, finish, run_here, run_warm, start_warm
from lmcore.openba import IndexedDataset, OpenBATokenizer
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import read_present, wait_for_change

# Batches of a moment, and a state after each.
SMALL = """
import lmcore.openba.packing as packing
packing._BYTES_AT_ONCE, packing._SAVE_SECONDS = 200, 0.0
"""
# The tokenizer waits, so that a run is still going on when it is killed.
SLOW = (
    SMALL
    + """
import time
work = packing.PackEncoder._collect
def wait(*arguments):
    time.sleep(0.02)
    return work(*arguments)
packing.PackEncoder._collect = wait
"""
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_piece_file(tmp_path / "s.model")
    (tmp_path / "a.txt").write_text(make_world(0, documents=400).to_text(), encoding="utf-8")
    return tmp_path


def pack(*arguments: object) -> tuple[int, str, str]:
    return run_here("openba", "pack", *arguments, "--tokenizer", "s.model", "--out", "o")


def outputs(folder: Path) -> list[bytes]:
    return [(folder / f"o.{ending}").read_bytes() for ending in ("bin", "idx", "json")]


def test_summary(folder: Path) -> None:
    assert pack("a.txt", "--length", 100, "--quiet") == (
        0, "", "400 documents packed, 0 skipped: 168 groups of 100 tokens, 36 left over\n",
    )  # fmt: skip
    assert IndexedDataset("o").read_sources([160]).shape == (1, 100)
    (folder / "b.jsonl").write_text('{"text": "Ada met Otto."}\n' * 9 + "[]\n")
    code, output, errors = pack("b.jsonl", "--length", 5, "--skip-bad-rows")
    assert (code, output) == (0, "")
    assert errors.splitlines() == [
        "skipped b.jsonl:10: expected a JSON object, got a list",
        "9 documents packed, 1 skipped: 9 groups of 5 tokens, 0 left over",
    ]


def test_a_folder_of_a_tokenizer_and_standard_input(folder: Path) -> None:
    assert pack("a.txt")[0] == 0
    expected = outputs(folder)[:2]
    OpenBATokenizer("s.model").save_pretrained("t")
    arguments = ["openba", "pack", "-", "--tokenizer", "t", "--out", "o", "--no-resume"]
    with open("a.txt", "rb") as file:
        assert run_warm(*arguments, stdin=file)[0] == 0
    assert outputs(folder)[:2] == expected
    (folder / "a.txt.gz").write_bytes(gzip.compress((folder / "a.txt").read_bytes()))
    assert pack("a.txt.gz")[0] == 0
    assert outputs(folder)[:2] == expected


def test_one_line_for_what_cannot_be_used(folder: Path) -> None:
    (folder / "b.txt").write_bytes(b"good\n\xff\n")
    check_line(pack("b.txt"), "b.txt:2: not UTF-8 at byte 1")
    check_line(pack("none.txt"), "none.txt: No such file or directory")
    check_line(pack("a.txt", "--length", 10**8), "expected 100000000 tokens for a group, got 16836")
    (folder / "o.bin").symlink_to("/dev/full")
    check_line(pack("a.txt"), "o.bin: expected a file, got a device or a pipe")
    (folder / "o.bin").unlink()
    (folder / "o.bin").symlink_to("a.txt")
    check_line(pack("a.txt"), "o.bin: the output is an input too")
    (folder / "o.bin").unlink()
    content = (folder / "s.model").read_bytes()
    (folder / "words").mkdir()
    for name in ("spiece.model", "tokenizer.json", "o.json"):
        (folder / "words" / name).write_bytes(content)
    words = ("a.txt", "--tokenizer", "words/o.json", "--out", "words/o")
    check_line(run_here("openba", "pack", *words), "words/o.json: the output is an input too")
    words = ("a.txt", "--tokenizer", "words", "--out", "words/tokenizer")
    text = "words/tokenizer.json: the output is an input too"
    for more in ((), ("--pairs",)):
        check_line(run_here("openba", "pack", *words, *more), text)
    shutil.rmtree("words")
    for broken in (b"", b"text", content[:5000], content + content):
        (folder / "s.model").write_bytes(broken)
        check_line(pack("a.txt"), "s.model: not a SentencePiece model: ")
    (folder / "s.model").unlink()
    check_line(pack("a.txt"), "s.model: No such file or directory")
    (folder / "s.model").mkdir()
    check_line(pack("a.txt"), "s.model: ")
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "b.txt", "s.model"]


def test_bad_rows_are_passed_over_by_the_second_command(folder: Path) -> None:
    (folder / "a.txt").write_bytes((folder / "a.txt").read_bytes() + b"\xff\n")
    check_line(pack("a.txt"), "a.txt:401: not UTF-8 at byte 1")
    code, _, errors = pack("a.txt", "--skip-bad-rows")
    assert code == 0
    assert errors.splitlines()[0] == "skipped a.txt:401: not UTF-8 at byte 1"


ARGUMENTS = ["openba", "pack", "a.txt", "--tokenizer", "s.model", "--out", "o", "--length", "50"]


def read_states(folder: Path) -> list[bytes]:
    return read_present(folder.glob(".*.lmcore-state"))


def wait_for_state(folder: Path, process: "subprocess.Popen[str]", before: list[bytes]) -> None:
    """Until more documents are done."""
    wait_for_change(lambda: read_states(folder), process, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, number: int) -> None:
    assert run_here(*ARGUMENTS)[0] == 0
    expected = outputs(folder)
    for path in folder.glob("o.*"):
        path.unlink()
    for _ in range(2):
        before = read_states(folder)
        process = start_warm(*ARGUMENTS, code=SLOW)
        wait_for_state(folder, process, before)
        process.send_signal(number)
        code, output, errors = finish(process)
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
        assert (output, errors) == ("", "lmcore: interrupted\n" if number == signal.SIGINT else "")
        assert not (folder / "o.bin").exists()
    code, _, errors = run_here(*ARGUMENTS)
    assert code == 0
    assert ", 0 of them before" not in errors
    assert " of them before, 0 skipped" in errors
    assert outputs(folder) == expected
    assert not list(folder.glob(".*"))


@pytest.mark.alone
def test_an_interrupt_does_not_wait_for_a_long_document(folder: Path) -> None:
    (folder / "a.txt").write_text("Ada met Otto in Alder. " * 400_000)
    process = start_warm(*ARGUMENTS)
    # It is read, and the tokenizer is at work, when the file of tokens is there.
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


def test_of_two_processes_one_goes_on(folder: Path) -> None:
    first = start_warm(*ARGUMENTS, code=SLOW)
    wait_for_state(folder, first, [])
    check_line(run_here(*ARGUMENTS), "o.bin: another process is writing it")
    assert finish(first)[0] == 0
    assert len(IndexedDataset("o")) == 336
    # Another name in the same folder is another matter.
    assert run_here(*ARGUMENTS[:-3], "p")[0] == 0


def test_other_files_are_not_gone_on_with(folder: Path) -> None:
    process = start_warm(*ARGUMENTS, code=SLOW)
    wait_for_state(folder, process, [])
    process.kill()
    process.communicate()
    (folder / "b.txt").write_text("Ada met Otto.\n" * 100)
    check_line(pack("b.txt", "--length", 50), "made with another files; start anew without resume")
    assert pack("b.txt", "--length", 50, "--no-resume")[0] == 0
    assert json.loads((folder / "o.json").read_text())["documents"] == 100


def test_no_network_is_asked(folder: Path) -> None:
    code = (
        "import sys\n"
        "def refuse(event, arguments):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo'):\n"
        "        raise SystemExit(f'{event} {arguments}')\n"
        "sys.addaudithook(refuse)\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "HF_HUB_OFFLINE"}
    OpenBATokenizer("s.model").save_pretrained("t")
    for tokenizer in ("s.model", "t"):
        arguments = ["openba", "pack", "a.txt", "--tokenizer", tokenizer, "--out", "o"]
        done = subprocess.run(
            [*_python(code), *arguments],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def _python(code: str) -> list[str]:
    import sys

    return [sys.executable, "-c", f"{code}\nfrom lmcore.cli import main\nmain()"]
