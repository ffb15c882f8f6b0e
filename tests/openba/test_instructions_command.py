"""The commands `lmcore openba instructions` and `pack --pairs`: lines, kills, two processes."""

import json
import signal
import sys
import time
from pathlib import Path

import pytest

from commands import check_line, finish, run_here, run_warm, start_warm
from lmcore.openba import IndexedDataset
from lmcore.worlds.openba import make_world, write_piece_file
from stopped_runs import read_present, wait_for_change

ARGUMENTS = ["openba", "instructions", "en.jsonl", "zh.jsonl", "--templates", "t.json"]
# A part of the rows at a time, and a rest behind each.
SLOW = """
import time
import lmcore.openba.instructions as instructions
instructions._ROWS_AT_ONCE = 5
render = instructions._render
def wait(*arguments):
    for lines in render(*arguments):
        yield lines
        time.sleep(0.05)
instructions._render = wait
"""
SLOW_PACKING = """
import time
import lmcore.openba.packing as packing
import lmcore.openba.pair_packing as pair_packing
packing._BYTES_AT_ONCE, packing._SAVE_SECONDS = 200, 0.0
work = pair_packing._PairEncoder._collect
def wait(*arguments):
    time.sleep(0.02)
    return work(*arguments)
pair_packing._PairEncoder._collect = wait
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    texts = make_world(0, documents=200).texts
    for name in ("en", "zh"):
        rows = [{"text": text, "answer": text[:9], "id": n} for n, text in enumerate(texts)]
        content = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(content, encoding="utf-8")
    templates = {
        name: [{"source": f"{word} {{text}}", "target": "{answer}", "language": name}]
        for name, word in (("en", "Begin:"), ("zh", "开始："))
    }
    (tmp_path / "t.json").write_text(json.dumps(templates), encoding="utf-8")
    return tmp_path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


BEFORE = ["en.jsonl", "t.json", "zh.jsonl"]


def test_the_table_and_the_lines(folder: Path) -> None:
    code, output, errors = run_here(*ARGUMENTS, "--out", "o.jsonl", "--cap", 150, "--quiet")
    assert code == 0
    assert [" ".join(line.split()) for line in output.splitlines()] == [
        "task language rows over cap over ratio repeated written share",
        "en en 200 50 0 0 150 66.7%",
        "zh zh 200 50 75 0 75 33.3%",
    ]
    assert errors.splitlines() == [
        "225 rows written, 0 skipped: 66.7% en, 33.3% zh",
        "en is short of the ratio: 75 rows of the other language are left out",
    ]
    rows = Path("o.jsonl").read_text()
    # Rows on standard output have the rest beside them.
    code, output, errors = run_here(*ARGUMENTS, "--out", "-", "--cap", 150, "--quiet")
    assert (code, output) == (0, rows)
    assert errors.splitlines()[0].split()[0] == "task"
    code, output, errors = run_here(*ARGUMENTS, "--out", "o.jsonl", "--repeat", "--json")
    found = json.loads(output)
    assert (found["rows"], found["short"]) == (600, "en")
    assert found["tasks"][0]["repeated"] == 200
    assert errors == ""
    errors = run_here(*ARGUMENTS, "--out", "o.jsonl", "--repeat")[2]
    assert errors.splitlines()[-1] == "en is short of the ratio: 200 of its rows are repeated"


def test_names_from_data_do_nothing_on_a_terminal(folder: Path) -> None:
    task = "\x1b[2Jred"
    Path("t.json").write_text(
        json.dumps({task: [{"source": "{text}", "target": "{answer}", "language": "en"}]})
    )
    Path("a.jsonl").write_text(json.dumps({"task": task, "text": "\x1b]0;x", "answer": "b"}))
    arguments = ["openba", "instructions", "a.jsonl", "--templates", "t.json", "--out"]
    code, output, errors = run_here(*arguments, "-", "--ratio", "none", "--quiet")
    assert code == 0
    assert "\x1b" not in output + errors
    assert json.loads(output)["source"] == "\x1b]0;x"
    check_line(run_here(*arguments, "o.jsonl"), "needs rows of both languages: got none of zh")


def test_standard_input(folder: Path) -> None:
    assert run_here(*ARGUMENTS, "--out", "o.jsonl")[0] == 0
    rows = []
    for name in ("en", "zh"):
        lines = Path(f"{name}.jsonl").read_text().splitlines()
        rows += [json.dumps({"task": name, **json.loads(line)}) for line in lines]
    Path("all.jsonl").write_text("\n".join(rows))
    with open("all.jsonl", "rb") as file:
        arguments = ["openba", "instructions", "-", "--templates", "t.json", "--out", "p.jsonl"]
        assert run_warm(*arguments, stdin=file)[0] == 0
    assert Path("p.jsonl").read_bytes() == Path("o.jsonl").read_bytes()


def test_one_line_for_what_cannot_be_used(folder: Path) -> None:
    with open("en.jsonl", "a") as file:
        file.write('{"text": "a", "answer": ""}\n')
    check_line(run_here(*ARGUMENTS, "--out", "o.jsonl"), "en.jsonl:201: the target is empty")
    assert names(folder) == BEFORE
    code, _, errors = run_here(*ARGUMENTS, "--out", "o.jsonl", "--skip-bad-rows")
    assert code == 0
    assert errors.splitlines()[0] == "skipped en.jsonl:201: the target is empty"
    check_line(run_here(*ARGUMENTS, "--out", "none/o.jsonl"), "none/o.jsonl: No such file")
    check_line(run_here(*ARGUMENTS, "--out", "t.json"), "t.json: the output is an input too")
    check_line(run_here(*ARGUMENTS, "--out", "-", "--json"), "--json and the rows cannot both go")
    for link in ("/dev/full",):
        Path("full").symlink_to(link)
        check_line(
            run_here(*ARGUMENTS, "--out", "full", "--skip-bad-rows"), "full: No space left on"
        )
    Path("t.json").write_text('{"en": [{"source": "{x", "target": "y"}]}')
    check_line(run_here(*ARGUMENTS, "--out", "o.jsonl"), "t.json: task 'en', template 1: source: ")


def rows_so_far(folder: Path) -> int:
    return sum(map(len, read_present(folder.glob(".*.lmcore-rows"))))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_leaves_nothing_that_looks_whole(folder: Path, number: int) -> None:
    assert run_here(*ARGUMENTS, "--out", "o.jsonl")[0] == 0
    expected = Path("o.jsonl").read_bytes()
    Path("o.jsonl").write_text("an old one")
    process = start_warm(*ARGUMENTS, "--out", "o.jsonl", code=SLOW)
    wait_for_change(lambda: rows_so_far(folder) > 0, process, False)
    process.send_signal(number)
    code, _, _ = finish(process)
    assert code == (-9 if number == signal.SIGKILL else 128 + number)
    assert Path("o.jsonl").read_text() == "an old one"
    assert run_here(*ARGUMENTS, "--out", "o.jsonl")[0] == 0
    assert Path("o.jsonl").read_bytes() == expected
    assert names(folder) == sorted([*BEFORE, "o.jsonl"])


def test_of_two_processes_one_goes_on(folder: Path) -> None:
    process = start_warm(*ARGUMENTS, "--out", "o.jsonl", code=SLOW)
    wait_for_change(lambda: bool(list(folder.glob(".*.lmcore-rows"))), process, False)
    check_line(run_here(*ARGUMENTS, "--out", "o.jsonl"), "o.jsonl: another process is writing it")
    assert run_here(*ARGUMENTS, "--out", "p.jsonl")[0] == 0
    assert finish(process)[0] == 0
    assert Path("p.jsonl").read_bytes() == Path("o.jsonl").read_bytes()


# Pairs.

PACK = ["openba", "pack", "o.jsonl", "--pairs", "--tokenizer", "s.model", "--out", "o"]


@pytest.fixture
def packed(folder: Path) -> Path:
    write_piece_file(folder / "s.model")
    assert run_here(*ARGUMENTS, "--out", "o.jsonl")[0] == 0
    return folder


def outputs() -> list[bytes]:
    return [Path(f"o.{ending}").read_bytes() for ending in ("bin", "idx", "json")]


def test_pairs_are_packed(packed: Path) -> None:
    with open("o.jsonl", "a") as file:
        file.write('{"source": "a"}\n')
    check_line(run_here(*PACK), "o.jsonl:301: expected a text under 'target', got None")
    code, output, errors = run_here(*PACK, "--skip-bad-rows")
    assert (code, output) == (0, "")
    lines = errors.splitlines()
    assert lines[0] == "skipped o.jsonl:301: expected a text under 'target', got None"
    assert lines[1].startswith("300 pairs packed, 1 skipped: ")
    numbers = json.loads(Path("o.json").read_text())
    longest = int(IndexedDataset("o").sizes[:, 0].max()) + 3
    assert numbers["encoder_lengths"]["max"] == longest
    assert lines[2].startswith("encoder length: ")
    assert lines[2].endswith(f"{longest} for all")
    check_line(run_here(*PACK, "--format", "text"), "--pairs reads jsonl: got --format text")
    check_line(run_here(*PACK, "--length", 100), "--length cuts groups of texts, and not --pairs")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_packing_goes_on_to_the_same_bytes(packed: Path, number: int) -> None:
    assert run_here(*PACK)[0] == 0
    expected = outputs()
    for path in packed.glob("o.[bij]*"):
        if path.name != "o.jsonl":
            path.unlink()
    for _ in range(2):
        states = read_present(packed.glob(".*.lmcore-state"))
        process = start_warm(*PACK, code=SLOW_PACKING)
        wait_for_change(lambda: read_present(packed.glob(".*.lmcore-state")), process, states)
        process.send_signal(number)
        assert finish(process)[0] == (-9 if number == signal.SIGKILL else 128 + number)
        assert not Path("o.bin").exists()
    code, _, errors = run_here(*PACK)
    assert code == 0
    assert " of them before, 0 skipped" in errors
    assert outputs() == expected
    assert not list(packed.glob(".*"))


def test_of_two_packings_one_goes_on(packed: Path) -> None:
    process = start_warm(*PACK, code=SLOW_PACKING)
    wait_for_change(lambda: bool(list(packed.glob(".*.lmcore-rows"))), process, False)
    check_line(run_here(*PACK), "o.bin: another process is writing it")
    assert finish(process)[0] == 0
    assert len(IndexedDataset("o")) == 300


@pytest.mark.alone
def test_an_interrupt_is_heard_at_once(folder: Path) -> None:
    with open("en.jsonl", "a") as file:
        file.writelines(
            json.dumps({"text": "a" * 50, "answer": "b"}) + "\n" for _ in range(400_000)
        )
    process = start_warm(*ARGUMENTS, "--out", "o.jsonl")
    wait_for_change(lambda: bool(list(folder.glob(".*.lmcore-rows"))), process, False)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    begin = time.monotonic()
    assert finish(process)[0] == 130
    assert time.monotonic() - begin < 0.5
    assert names(folder) == BEFORE


def test_the_rows_that_are_kept_meanwhile_have_no_name(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They lie in the folder of the output, where there is room, and go with the process."""
    if not sys.platform.startswith("linux"):
        pytest.skip("open files are looked for in /proc")
    from lmcore.openba import instruction_rows

    places: list[str] = []
    take = instruction_rows.RowPool.take

    def look(pool: instruction_rows.RowPool, rows: object) -> object:
        places.append(str(Path(f"/proc/self/fd/{pool._kept.fileno()}").readlink()))
        return take(pool, rows)  # type: ignore[arg-type]

    monkeypatch.setattr(instruction_rows.RowPool, "take", look)
    assert run_here(*ARGUMENTS, "--out", "o.jsonl")[0] == 0
    assert Path(places[0].removesuffix(" (deleted)")).parent == folder
    assert names(folder) == sorted([*BEFORE, "o.jsonl"])
