"""Rows of commands in files of gzip, from standard input and to standard output."""

import gzip
import json
import os
import signal
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, file_size_limited, run, run_here, start
from prediction_rows import VALID, make_rows, write_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", make_rows(300, datasets=["one", "two"]))


@pytest.fixture
def expected(rows: Path, tmp_path: Path) -> bytes:
    """What the core writes from one plain file into another."""
    target = tmp_path / "expected"
    assert run_here("ner", "align", rows, target)[0] == 0
    content = target.read_bytes()
    target.unlink()
    return content


def compress(file: Path) -> Path:
    compressed = file.with_name(f"{file.name}.gz")
    compressed.write_bytes(gzip.compress(file.read_bytes()))
    return compressed


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("source", ["plain", "compressed"])
@pytest.mark.parametrize("target", ["out.jsonl", "out.jsonl.gz"])
def test_compressed_files(
    rows: Path, tmp_path: Path, expected: bytes, source: str, target: str
) -> None:
    given = rows if source == "plain" else compress(rows)
    out = tmp_path / target
    assert run_here("ner", "align", given, out) == (0, "", "300 rows aligned, 0 skipped\n")
    content = out.read_bytes()
    assert (gzip.decompress(content) if out.suffix == ".gz" else content) == expected
    assert names(tmp_path) == {rows.name, given.name, target}
    run_here("ner", "align", given, out)
    assert out.read_bytes() == content
    mask = os.umask(0)
    os.umask(mask)
    assert out.stat().st_mode & 0o777 == 0o666 & ~mask


def test_standard_input_and_output(rows: Path, tmp_path: Path, expected: bytes) -> None:
    with rows.open() as file:
        process = start("ner", "align", "-", "-", stdin=file)
        output, errors = process.communicate(timeout=60)
    assert (process.returncode, output.encode()) == (0, expected)
    assert errors == "300 rows aligned, 0 skipped\n"
    with rows.open() as file:
        assert run("ner", "align", "-", tmp_path / "out.gz", stdin=file)[0] == 0
    assert gzip.decompress((tmp_path / "out.gz").read_bytes()) == expected
    code, output, _ = run("ner", "align", compress(rows), "-")
    assert (code, output.encode()) == (0, expected)


def test_pipes(tmp_path: Path) -> None:
    """A pipe by name, whose end is the end of the rows."""
    pipe, out = tmp_path / "pipe.jsonl.gz", tmp_path / "out.jsonl"
    os.mkfifo(pipe)
    content = gzip.compress((json.dumps(VALID) + "\n").encode() * 3)
    writer = threading.Thread(target=lambda: pipe.write_bytes(content), daemon=True)
    writer.start()
    assert run_here("ner", "align", pipe, out)[2] == "3 rows aligned, 0 skipped\n"
    writer.join(timeout=60)
    assert out.read_bytes().count(b"\n") == 3


# Rows that cannot be used.


@pytest.mark.parametrize("kind", ["gzip", "standard input"])
def test_bad_rows_have_the_name_that_was_given(tmp_path: Path, kind: str) -> None:
    content = "\n".join([json.dumps(VALID), "", "{", json.dumps({**VALID, "words": 3})])
    file = tmp_path / "a.jsonl"
    file.write_text(content)
    given, name = (compress(file), f"{file}.gz") if kind == "gzip" else ("-", kind)
    with file.open() as stdin:
        result = run("ner", "align", given, tmp_path / "out.gz", stdin=stdin)
    check_line(result, f"lmcore: {name}:3: not valid JSON")
    assert names(tmp_path) <= {"a.jsonl", "a.jsonl.gz"}
    with file.open() as stdin:
        result = run("ner", "align", given, tmp_path / "out.gz", "--skip-bad-rows", stdin=stdin)
    lines = result[2].splitlines()
    assert [line.partition(": ")[0] for line in lines[:2]] == [
        f"skipped {name}:{n}" for n in (3, 4)
    ]
    assert lines[2] == "1 rows aligned, 2 skipped"


@pytest.mark.parametrize("cut", [0, 5, -3, None])
def test_gzip_that_is_broken(rows: Path, tmp_path: Path, cut: int | None) -> None:
    """Rows before the end are no reason to take the file for whole."""
    broken = compress(rows)
    content = broken.read_bytes()[:cut] if cut is not None else b"no gzip"
    broken.write_bytes(content)
    for target in ("out.jsonl", "out.jsonl.gz", "-"):
        out = target if target == "-" else tmp_path / target
        result = run("ner", "align", broken, out)
        assert result[0] == 2
        last = result[2].splitlines()[-1]
        assert last.startswith(f"lmcore: {broken}: "), last
        assert "not a whole file of gzip" in last or cut == 0
    assert names(tmp_path) == {"rows.jsonl", "rows.jsonl.gz"}


def test_inputs_that_are_not_there(tmp_path: Path) -> None:
    result = run_here("ner", "align", tmp_path / "none.gz", tmp_path / "out")
    check_line(result, f"{tmp_path / 'none.gz'}: No such file or directory")
    closed = run("ner", "align", "-", tmp_path / "out", preexec_fn=lambda: os.close(0))
    assert closed[0] == 2
    assert "standard input: " in closed[2]
    check_line(run("ner", "align", "-", "-", stdin=subprocess.DEVNULL), "standard input: the file")
    assert names(tmp_path) == set()


# Where rows go.


def test_an_output_that_is_the_input(rows: Path, tmp_path: Path) -> None:
    before = compress(rows).read_bytes()
    given = tmp_path / "rows.jsonl.gz"
    check_line(run_here("ner", "align", given, given), "the output is an input too")
    os.link(given, tmp_path / "other")
    check_line(run_here("ner", "align", given, tmp_path / "other"), "the output is an input too")
    with rows.open() as file:
        check_line(run("ner", "align", "-", rows, stdin=file), "the output is an input too")
    assert given.read_bytes() == before


def test_a_full_disk(tmp_path: Path) -> None:
    many = compress(write_rows(tmp_path / "many.jsonl", make_rows(3000, datasets=["one"])))
    before = names(tmp_path)
    for target in ("out.jsonl", "out.jsonl.gz"):
        with file_size_limited(4000):
            result = run_here("ner", "align", many, tmp_path / target)
        check_line(result, f"{tmp_path / target}: File too large")
        assert names(tmp_path) == before
    with open("/dev/full", "wb") as full:
        code, _, errors = run("ner", "align", many, "-", stdout=full)
    assert (code, errors) == (2, "lmcore: standard output: No space left on device\n")


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    many = write_rows(tmp_path / "many.jsonl", make_rows(20_000, datasets=["one"]))
    process = start("ner", "align", many, "-")
    assert process.stdout is not None
    assert process.stderr is not None
    json.loads(process.stdout.readline())
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("source", ["pipe.jsonl", "pipe.jsonl.gz"])
def test_a_signal_while_nothing_comes(tmp_path: Path, number: int, source: str) -> None:
    pipe = tmp_path / source
    os.mkfifo(pipe)
    process = start("ner", "align", pipe, tmp_path / "out.gz")
    with pipe.open("wb", buffering=0) as writer:
        writer.write(gzip.compress(b"{}\n")[:12])
        time.sleep(0.3)
        begin = time.monotonic()
        process.send_signal(number)
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - begin < 5
    expected: Any = ("", "lmcore: interrupted\n") if number == signal.SIGINT else ("", "")
    assert (output, errors) == expected
    assert process.returncode == 128 + number
    assert names(tmp_path) == {source}


def test_a_kill_leaves_no_output(tmp_path: Path) -> None:
    """Started again, the command ends with the bytes of an unbroken one."""
    many = compress(write_rows(tmp_path / "many.jsonl", make_rows(20_000, datasets=["one"])))
    out = tmp_path / "out.jsonl.gz"
    process = start("ner", "align", many, out, "--threads", 1)
    while not any(name.startswith(".lmcore-") for name in names(tmp_path)):
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    process.communicate(timeout=60)
    assert not out.exists()
    assert run_here("ner", "align", many, out)[0] == 0
    assert run_here("ner", "align", tmp_path / "many.jsonl", tmp_path / "plain")[0] == 0
    assert gzip.decompress(out.read_bytes()) == (tmp_path / "plain").read_bytes()
