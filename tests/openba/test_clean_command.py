"""The command `lmcore openba clean`: its lines, kills and signals, two processes at once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from commands import check_line, file_size_limited, finish, run, run_here, run_warm, start_warm
from lmcore._partial import Partial
from lmcore.openba.cleaned_files import clean_files
from stopped_runs import read_present, wait_for_change

# Batches of a moment, and a state after each; the rules wait, so that a run is still going on
# when it is killed.
SLOW = """
import time
import lmcore.openba.cleaned_output as module
module._BYTES_AT_ONCE, module._SAVE_SECONDS = 2000, 0.0
work = module.clean_texts
def wait(*arguments, **options):
    time.sleep(0.02)
    return work(*arguments, **options)
module.clean_texts = wait
"""
LINE = "The {} of them went over the {} hills to see www.a{}.org and all stayed there."


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(("a.txt", "b.txt")):
        lines = [LINE.format(k % 97, k % 211 + number, k) for k in range(600)]
        lines += [f"{LINE.format(k, k, k)} It was late. {LINE.format(0, k, 0)}" for k in range(50)]
        (tmp_path / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    rows = [{"n": k, "text": LINE.format(k % 40, k, k)} for k in range(300)]
    content = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "c.jsonl").write_text(content, encoding="utf-8")
    return tmp_path


FILES = ["a.txt", "b.txt", "c.jsonl"]
ARGUMENTS = ["openba", "clean", *FILES, "--out", "out", "--threads", "1"]


def clean(*arguments: object) -> tuple[int, str, str]:
    return run_here("openba", "clean", *arguments, "--out", "out")


def outputs(folder: Path) -> list[bytes]:
    return [(folder / "out" / name).read_bytes() for name in (*FILES, "report.json")]


def test_summary(folder: Path) -> None:
    line = LINE.format(1, 2, 3)
    (folder / "d.txt").write_text(f"{line}\n{line}\nGo!\n")
    code, output, errors = clean("d.txt")
    left, whole = len(line) - len("www.a3.org"), 2 * len(line) + 3
    assert code == 0
    assert errors == f"3 documents read, 0 skipped: 1 kept, {left} of {whole} characters\n"
    lines = [row.split() for row in output.splitlines()]
    assert lines[0] == ["rule", "documents", "characters"]
    assert ["links", "2", "20"] in lines
    assert ["duplicate_documents", "1", str(left)] in lines
    assert ["empty", "1", "0"] in lines
    code, output, errors = clean("d.txt", "--json", "--without", "links", "--minimum-words", 1)
    found = json.loads(output)
    assert (found["documents"], found["kept_documents"], found["resumed_documents"]) == (3, 2, 0)
    assert "links" not in found["rules"]


def test_standard_input(folder: Path) -> None:
    assert clean("a.txt")[0] == 0
    expected = (folder / "out" / "a.txt").read_bytes()
    with open("a.txt", "rb") as file:
        assert run_warm("openba", "clean", "-", "--out", "out", stdin=file)[0] == 0
    assert (folder / "out" / "standard-input.txt").read_bytes() == expected


def test_one_line_for_what_cannot_be_used(folder: Path) -> None:
    (folder / "d.jsonl").write_text('{"text": "a"}\n{"text": 3}\n')
    check_line(clean("d.jsonl"), "d.jsonl:2: expected a text under 'text', got 3")
    check_line(clean("none.txt"), "none.txt: No such file or directory")
    check_line(clean("a.txt", "--without", "speed"), "rule must be one of html, links, ")
    check_line(clean("a.txt", "--language", "xx"), "language must be one of ")
    check_line(clean("a.txt", "a.txt"), "a.txt: its output is a.txt, as that of a.txt")
    check_line(run_here("openba", "clean", "a.txt", "--out", "."), "the output is an input too")
    check_line(run_here("openba", "clean", "a.txt", "--out", "b.txt"), "b.txt: File exists")
    check_line(clean("a.txt", "--max-memory", 2_100_000), "fill max_memory, 2100000 bytes")
    (folder / "out" / "report.json").symlink_to("/dev/full")
    check_line(clean("a.txt"), "report.json: expected a file, got a device or a pipe")
    code, _, errors = clean("d.jsonl", "--skip-bad-rows", "--no-resume")
    check_line((code, "", errors), "report.json: expected a file")
    (folder / "out" / "report.json").unlink()
    code, _, errors = clean("d.jsonl", "--skip-bad-rows")
    assert code == 0
    assert errors.splitlines()[0] == "skipped d.jsonl:2: expected a text under 'text', got 3"


def read_states(folder: Path) -> list[bytes]:
    files = sorted((folder / "out").glob(".*.lmcore-*"))
    return read_present(path for path in files if path.name.endswith(("-state", "-done")))


def wait_for_state(folder: Path, process: subprocess.Popen[str], before: list[bytes]) -> None:
    wait_for_change(lambda: read_states(folder), process, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on_to_the_same_bytes(folder: Path, number: int) -> None:
    assert run_here(*ARGUMENTS)[0] == 0
    expected = outputs(folder)
    for path in (folder / "out").iterdir():
        path.unlink()
    starts = 0
    while True:
        before = read_states(folder) if (folder / "out").exists() else []
        process = start_warm(*ARGUMENTS, code=SLOW)
        for _ in range(12):
            if process.poll() is None:
                wait_for_state(folder, process, before)
                before = read_states(folder)
        process.send_signal(number)
        code, output, errors = finish(process)
        if code == 0:
            break
        starts += 1
        assert code == (-9 if number == signal.SIGKILL else 128 + number)
        assert (output, errors) == ("", "lmcore: interrupted\n" if number == signal.SIGINT else "")
        assert not (folder / "out" / "report.json").exists()
        if starts == 4:
            code, output, errors = run_here(*ARGUMENTS)
            assert code == 0
            break
    assert starts >= 2
    assert " of them before, 0 skipped" in errors
    assert outputs(folder) == expected
    assert sorted(path.name for path in (folder / "out").iterdir()) == sorted(
        [*FILES, "report.json"]
    )


def test_of_two_processes_one_goes_on(folder: Path) -> None:
    first = start_warm(*ARGUMENTS, code=SLOW)
    wait_for_state(folder, first, [])
    check_line(run_here(*ARGUMENTS), "out: another process is cleaning into it")
    assert finish(first)[0] == 0
    # Another folder is another matter.
    assert run_here(*ARGUMENTS[:-3], "other")[0] == 0
    assert (folder / "other" / "a.txt").read_bytes() == outputs(folder)[0]


def stop_early(folder: Path, states: int = 3) -> None:
    process = start_warm(*ARGUMENTS, code=SLOW)
    before: list[bytes] = []
    for _ in range(states):
        wait_for_state(folder, process, before)
        before = read_states(folder)
    process.kill()
    process.communicate()


def find_hidden(folder: Path, ending: str) -> Path:
    (found,) = (folder / "out").glob(f".*.lmcore-{ending}")
    return found


def test_what_does_not_belong_is_not_gone_on_with(folder: Path) -> None:
    stop_early(folder)
    check_line(run_here(*ARGUMENTS, "--without", "html"), "made with another rules; start anew")
    lines = (folder / "a.txt").read_text()
    (folder / "a.txt").write_text(lines.replace("The 0", "The X", 1))
    check_line(run_here(*ARGUMENTS), "made from another beginning of a.txt")
    (folder / "a.txt").write_text(lines)
    hashes = find_hidden(folder, "hashes")
    content = hashes.read_bytes()
    hashes.write_bytes(content[:5] + bytes([content[5] ^ 1]) + content[6:])
    check_line(run_here(*ARGUMENTS), "their hashes are not those that were written")
    hashes.write_bytes(content[:50])
    check_line(run_here(*ARGUMENTS), "their hashes are not those that were written")
    hashes.unlink()
    check_line(run_here(*ARGUMENTS), "their hashes are missing")
    hashes.write_bytes(content)
    state = find_hidden(folder, "state")
    good = state.read_text()
    for change in ({"more": {}}, {"more": {"counts": {}, "hashes": {}}}, {"more": 3}):
        state.write_text(json.dumps(json.loads(good) | change))
        check_line(run_here(*ARGUMENTS), "cannot be gone on with")
    (folder / "out" / ".lmcore-key").unlink()
    state.write_text(good)
    check_line(run_here(*ARGUMENTS), "made with another hash_key")
    code, _, errors = run_here(*ARGUMENTS, "--no-resume")
    assert (code, "of them before" in errors) == (0, False)


def test_a_broken_output_is_made_again(folder: Path) -> None:
    assert run_here(*ARGUMENTS)[0] == 0
    expected = outputs(folder)
    for path in (folder / "out").iterdir():
        path.unlink()
    process = start_warm(*ARGUMENTS, code=SLOW)
    while not (folder / "out" / "b.txt").exists() or not list(
        (folder / "out").glob(".*.lmcore-state")
    ):
        assert process.poll() is None
    process.kill()
    process.communicate()
    (folder / "out" / "a.txt").write_text("other\n")
    assert run_here(*ARGUMENTS)[0] == 0
    assert outputs(folder) == expected


def test_an_input_that_changed_behind_its_output_is_not_gone_on_with(folder: Path) -> None:
    process = start_warm(*ARGUMENTS, code=SLOW)
    while not list((folder / "out").glob(".*.lmcore-done")):
        assert process.poll() is None
    process.kill()
    process.communicate()
    content = (folder / "a.txt").read_text()
    (folder / "a.txt").write_text(content.replace("over", "into", 1))  # of the same size
    check_line(run_here(*ARGUMENTS), "out/a.txt: it is there, made of 650 documents that its input")
    (folder / "a.txt").write_text(content)  # a copy, of another time
    code, _, errors = run_here(*ARGUMENTS)
    assert (code, " of them before" in errors) == (0, True)


def test_names_of_the_runs_own_files(folder: Path) -> None:
    """What is removed at the end is no output."""
    for name in (".lock", ".lmcore-key", f".{'a' * 16}.lmcore-rows", "report.json"):
        (folder / name).write_text("text\n")
        check_line(clean(name), f"{name}: its output is {name}, ")


@pytest.mark.parametrize("name", [".lmcore-key", "hashes"])
def test_a_link_in_the_place_of_our_files_is_not_written_through(folder: Path, name: str) -> None:
    assert clean("a.txt")[0] == 0
    if name == "hashes":
        name = Partial("", folder / "out" / "a.txt").rows.name.replace("rows", "hashes")
    (folder / "other").write_text("text")
    (folder / "out" / name).symlink_to(folder / "other")
    clean("a.txt")
    assert (folder / "other").read_text() == "text"
    assert clean("a.txt", "--no-resume")[0] == 0
    assert (folder / "other").read_text() == "text"


def test_rows_as_deep_as_they_can_be_read(folder: Path) -> None:
    """Writing a row needs more of the stack than reading it."""
    rows = [f'{{"text": "{LINE}", "x": {"[" * depth}{"]" * depth}}}' for depth in range(900, 999)]
    (folder / "d.jsonl").write_text("\n".join(rows))
    with ThreadPoolExecutor(1) as pool:  # whose stack is empty
        summary = pool.submit(clean_files, ["d.jsonl"], "out", skip_bad_rows=True).result()
    assert 0 < summary.bad_rows < 99
    (problem,) = {row.partition(": ")[2] for row in summary.listed_bad_rows}
    assert problem == "not valid JSON: lists or objects are nested too deeply"


def test_a_full_disk_is_named_and_the_run_goes_on(folder: Path) -> None:
    assert run_here(*ARGUMENTS)[0] == 0
    expected = outputs(folder)
    for path in (folder / "out").iterdir():
        path.unlink()
    with file_size_limited(20_000):
        check_line(run_here(*ARGUMENTS), "File too large")
    assert not (folder / "out" / "report.json").exists()
    assert run_here(*ARGUMENTS)[0] == 0
    assert outputs(folder) == expected


def test_a_pipe_by_name(folder: Path) -> None:
    assert clean("a.txt")[0] == 0
    os.mkfifo("d.txt")
    process = start_warm("openba", "clean", "d.txt", "--out", "out", "--quiet")
    (folder / "d.txt").write_bytes((folder / "a.txt").read_bytes())
    assert finish(process)[0] == 0
    assert (folder / "out" / "d.txt").read_bytes() == (folder / "out" / "a.txt").read_bytes()


def test_a_long_line_is_refused_or_fits(folder: Path) -> None:
    """A line of 3 GB under a limit on memory ends with a line, not with an abort."""
    with open("d.txt", "wb") as file:
        file.truncate(3 << 30)
    code = "import resource; resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))"
    arguments = ["openba", "clean", "d.txt", "--out", "out", "--threads", "1", "--quiet"]
    check_line(run(*arguments, code=code), "out of memory")
    assert not (folder / "out" / "d.txt").exists()
    Path("d.txt").unlink()
