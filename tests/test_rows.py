"""Rows in, rows out: in order, to the same bytes after a kill at any moment, or one clear error."""

import errno
import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from commands import file_size_limited
from lmcore._row_stream import RowStream
from lmcore._rows import Row, RowReader, parse_row
from lmcore._streams import open_input, open_output

RECIPE = {"add": 1, "model": {"name": "m"}}


def write_rows(path: Path, count: int = 50) -> Path:
    rows = (json.dumps({"n": n, "text": "x" * (n % 7)}) + "\n" for n in range(count))
    content = "".join(rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def answer(row: Row) -> dict[str, Any]:
    return {"n": row.value["n"] + 1, "text": "北\u2028"}


def work(source: Path, target: Path, *, stop: int | None = None, **options: Any) -> RowStream:
    """Reads four rows ahead and writes them backwards; stops after so many rows, if asked to."""
    options.setdefault("recipe", RECIPE)
    with RowStream(source, target, **options) as stream:
        held: list[Row] = []
        for row in stream:
            if "n" not in row.value:
                stream.refuse(row, "n is missing")
                continue
            held.append(row)
            if len(held) == 4:
                while held:
                    last = held.pop()
                    stream.write(last, answer(last))
            if stop is not None and stream.rows >= stop:
                raise KeyboardInterrupt
        for row in held:
            stream.write(row, answer(row))
    return stream


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "in.jsonl")


@pytest.fixture
def expected(source: Path, tmp_path: Path) -> bytes:
    """What an unbroken stream writes."""
    target = tmp_path / "unbroken.jsonl"
    work(source, target)
    content = target.read_bytes()
    target.unlink()
    return content


# Reading.


def test_lines_have_their_numbers(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n\n \t\n{"a": "\xe2\x80\xa8"} \n{"a": 3}')
    rows = [Row(1, {"a": 1}), Row(4, {"a": "\u2028"}), Row(5, {"a": 3})]
    assert list(RowReader(file)) == rows
    compressed = tmp_path / "a.jsonl.gz"
    compressed.write_bytes(gzip.compress(file.read_bytes()[:10]) + gzip.compress(b"}\n"))
    assert list(RowReader(compressed)) == rows[:1]


BAD = {
    b"[1]": "expected a JSON object, got a list",
    b"1": "expected a JSON object, got a number",
    b"null": "expected a JSON object, got null",
    b"{": "not valid JSON: ",
    b'{"a": 1, "a": 2}': "not valid JSON: the key 'a' stands twice",
    b'{"a": NaN}': "not valid JSON: NaN is no number of JSON",
    b'{"a": 1e400}': "not valid JSON: 1e400 is too large a number",
    b"[" * 200_000: "not valid JSON: lists or objects are nested too deeply",
    b'{"a": "\xff"}': "not UTF-8 at byte 8",
    b'{"a": "\xed\xa0\x80"}': "not UTF-8 at byte 8",
    b'{"a": "\\ud83d"}': "holds a lone surrogate",
    b'{"\\uDC00": 1}': "holds a lone surrogate",
}


@pytest.mark.parametrize("line", BAD, ids=lambda line: ascii(line[:20]))
def test_bad_rows(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(b'{"n": 1}\n\n' + line + b'\n{"n": 2}\n')
    rows = RowReader(file)
    with pytest.raises(ValueError, match=r"object|JSON|UTF-8|surrogate") as caught:
        list(rows)
    assert str(caught.value).startswith(f"{file}:3: {BAD[line]}")
    skipping = RowReader(file, skip_bad_rows=True)
    assert [row.line for row in skipping] == [1, 4]
    assert (skipping.bad_rows, skipping.listed_bad_rows) == (1, [str(caught.value)])


def test_a_pair_of_surrogates_is_text() -> None:
    assert parse_row(b'{"a": "\\ud83d\\ude80"}') == {"a": "\U0001f680"}


def test_many_bad_rows_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text("[]\n" * 1500)
    reader = RowReader(file, skip_bad_rows=True)
    assert list(reader) == []
    assert (reader.bad_rows, len(reader.listed_bad_rows)) == (1500, 1000)


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf"])
def test_files_without_rows(tmp_path: Path, content: bytes) -> None:
    file, target = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    file.write_bytes(content)
    for read in (lambda: list(RowReader(file)), lambda: work(file, target)):
        with pytest.raises(ValueError, match=r"a\.jsonl: the file holds no rows"):
            read()
    assert names(tmp_path) == {"a.jsonl"}


def test_inputs_that_cannot_be_read(tmp_path: Path) -> None:
    for name in ("none", ".", "none.gz"):
        with pytest.raises(OSError, match=r"No such file|Is a directory") as caught:
            list(RowReader(tmp_path / name))
        assert caught.value.filename == str(tmp_path / name)


CUT = gzip.compress(b'{"n": 1}\n', mtime=0)[:-3]  # the same text in each process that collects it


@pytest.mark.parametrize("content", [b"text", b"", CUT, b"\x1f\x8b"])
def test_broken_gzip(tmp_path: Path, content: bytes) -> None:
    """Cut short, rows before the end are no reason to take the file for whole."""
    file, target = tmp_path / "a.jsonl.gz", tmp_path / "b.jsonl"
    file.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"a\.jsonl\.gz:?\d?: (not a whole|the file holds no rows)"
    ):
        work(file, target, skip_bad_rows=True)
    assert not target.exists()
    with open_input(file) as source:
        if content:
            with pytest.raises(ValueError, match="not a whole file of gzip"):
                source.read()
        else:  # to Python, an empty file is one of gzip
            assert source.read() == b""


@pytest.mark.parametrize("name", ["in.jsonl", "in.jsonl.gz"])
def test_progress_counts_bytes_on_the_disk(tmp_path: Path, name: str) -> None:
    file = write_rows(tmp_path / name, 30_000)
    seen: list[int] = []
    assert len(list(RowReader(file, progress=seen.append))) == 30_000
    assert seen == sorted(seen)
    assert len(set(seen)) > 1 or name.endswith("gz")  # of which all fits into one block
    assert seen[-1] == file.stat().st_size


# The order of the output.


@given(st.permutations(range(12)), st.lists(st.integers(0, 3), min_size=12, max_size=12))
def test_any_order_of_work_gives_the_order_of_the_input(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], copies: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("order")
    target = folder / "out.jsonl"
    with RowStream(write_rows(folder / "in.jsonl", 12), target, RECIPE) as stream:
        rows = list(stream)
        for place in order:
            stream.write(rows[place], *[{"n": place}] * copies[place])
    found = [json.loads(line)["n"] for line in target.read_text().splitlines()]
    assert found == [n for n in range(12) for _ in range(copies[n])]
    assert names(folder) == {"in.jsonl", "out.jsonl"}


def test_refused_rows_leave_no_trace_in_the_output(source: Path, tmp_path: Path) -> None:
    lines = source.read_text().splitlines()
    source.write_text("\n".join([*lines[:3], '{"m": 1}', "", "{", *lines[3:]]))
    target = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=r"in\.jsonl:4: n is missing"):
        work(source, target)
    stream = work(source, target, skip_bad_rows=True)
    assert (stream.rows, stream.bad_rows) == (50, 2)
    assert [row.rpartition("in.jsonl:")[2][:2] for row in stream.listed_bad_rows] == ["4:", "6:"]
    assert len(target.read_text().splitlines()) == 50


def test_wrong_use(source: Path, tmp_path: Path) -> None:
    with suppress(KeyboardInterrupt), RowStream(source, tmp_path / "out", RECIPE) as stream:
        row = next(iter(stream))
        stream.write(row)
        with pytest.raises(ValueError, match="line 1 is not read, or written already"):
            stream.write(row)
        raise KeyboardInterrupt
    with RowStream(source, tmp_path / "part", RECIPE) as stream:
        stream.write(next(iter(stream)), {"n": 1})
        with pytest.raises(RuntimeError, match="the rows of a stream are read once"):
            next(iter(stream))
    assert (tmp_path / "part").read_text() == '{"n": 1}\n'
    with (
        pytest.raises(RuntimeError, match="rows were read and not written: lines 1"),
        RowStream(source, tmp_path / "other", RECIPE) as stream,
    ):
        next(iter(stream))
    assert names(tmp_path) & {"out", "other"} == set()


# Going on.


@pytest.mark.parametrize("stop", [1, 4, 25, 48])
@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_interrupt_keeps_what_is_done(
    source: Path, tmp_path: Path, expected: bytes, stop: int, name: str
) -> None:
    target = tmp_path / name
    with pytest.raises(KeyboardInterrupt):
        work(source, target, stop=stop)
    assert not target.exists()
    stream = work(source, target)
    assert (stream.rows, stream.resumed_rows) == (50, (stop + 3) // 4 * 4)
    content = target.read_bytes()
    assert (gzip.decompress(content) if target.suffix == ".gz" else content) == expected
    assert names(tmp_path) == {"in.jsonl", name}
    work(source, target)  # a whole output is made anew
    assert target.read_bytes() == content


def test_nothing_done_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        work(source, tmp_path / "out.jsonl", stop=0)
    assert names(tmp_path) == {"in.jsonl"}


def test_bad_rows_are_told_as_by_an_unbroken_stream(source: Path, tmp_path: Path) -> None:
    lines = source.read_text().splitlines()
    source.write_text("\n".join(["{", *lines[:20], "[]", *lines[20:], "1"]))
    whole = work(source, tmp_path / "whole", skip_bad_rows=True)
    for stop in (4, 24):
        with pytest.raises(KeyboardInterrupt):
            work(source, tmp_path / "out", stop=stop, skip_bad_rows=True)
    stream = work(source, tmp_path / "out", skip_bad_rows=True)
    assert (stream.bad_rows, stream.listed_bad_rows) == (3, whole.listed_bad_rows)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "whole").read_bytes()


BEGIN = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_rows import work
source, target = Path(sys.argv[1]), Path(sys.argv[2])
"""


def start(code: str, *arguments: object, **options: Any) -> "subprocess.Popen[bytes]":
    begin = BEGIN.format(path=[str(Path(__file__).parent), *sys.path])
    command = [sys.executable, "-c", begin + code, *map(str, arguments)]
    return subprocess.Popen(command, **options)


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_kill_at_any_event_ends_with_the_same_bytes(
    source: Path, tmp_path: Path, expected: bytes, name: str
) -> None:
    """A child is killed at its k-th call of the system, for each k, and the next one goes on."""
    code = """
def count(limit):
    seen = 0
    def hook(event, arguments):
        nonlocal seen
        if event in ("open", "os.rename", "os.remove", "os.chmod", "os.truncate"):
            seen += 1
            if seen == limit:
                os.kill(os.getpid(), 9)
    sys.addaudithook(hook)

for k in range(1, 400):
    child = os.fork()
    if not child:
        try:
            count(k)
            work(source, target, stop=16 if k % 3 == 0 else None, save_seconds=0)
        except KeyboardInterrupt:
            os._exit(1)
        finally:
            os._exit(0)
    if os.waitpid(child, 0)[1] == 0:
        break
    if k % 2:  # go on from here in every other case, or add a kill to it
        work(source, target, save_seconds=0)
        target.rename(target.with_name(f"done-{k}"))
print(k)
"""
    process = start(code, source, tmp_path / name, stdout=subprocess.PIPE)
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0
    assert 20 < int(output) < 399
    made = [tmp_path / name, *tmp_path.glob("done-*")]
    assert len(made) > 10
    for file in made:
        content = file.read_bytes()
        assert (gzip.decompress(content) if name.endswith("gz") else content) == expected
    assert len({file.read_bytes() for file in made}) == 1
    assert names(tmp_path) - {"in.jsonl", name} == {file.name for file in made[1:]}


def test_kills_of_a_slow_stream(tmp_path: Path) -> None:
    """In the middle of the work, several times; what was saved is not made again."""
    source, target = write_rows(tmp_path / "in.jsonl", 60), tmp_path / "out.jsonl"
    work(source, tmp_path / "whole")
    code = """
import test_rows, time
made = test_rows.answer
def answer(row):
    time.sleep(0.02)
    sys.stdout.write(f"{row.line}\\n")
    sys.stdout.flush()
    return made(row)
test_rows.answer = answer
work(source, target, save_seconds=0)
"""
    seen: list[int] = []
    for _ in range(3):
        process = start(code, source, target, stdout=subprocess.PIPE)
        assert process.stdout is not None
        with process.stdout as lines:
            seen += [int(lines.readline()) for _ in range(12)]
            process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert not target.exists()
    stream = work(source, target)
    assert stream.resumed_rows >= 24
    assert target.read_bytes() == (tmp_path / "whole").read_bytes()
    assert len(seen) - len(set(seen)) <= 8  # at most what was read ahead, after each kill
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", "whole"}


def test_a_second_process_is_kept_out(source: Path, tmp_path: Path, expected: bytes) -> None:
    target = tmp_path / "out.jsonl"
    with RowStream(source, target, RECIPE) as stream:
        for row in stream:
            stream.write(row, answer(row))
            if row.line == 9:
                with pytest.raises(FileExistsError, match=r"out\.jsonl: another process is writ"):
                    work(source, target)
                with pytest.raises(FileExistsError, match="another process"):
                    work(source, target, resume=False)
    assert target.read_bytes() == expected


def test_a_file_system_without_locks(
    source: Path, tmp_path: Path, expected: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with pytest.warns(RuntimeWarning, match=r"out\.jsonl: cannot be locked \(No locks available\)"):
        work(source, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == expected


# What is there is of something else, or broken.


@pytest.fixture
def begun(source: Path, tmp_path: Path) -> Path:
    """An output of which 24 rows are there."""
    target = tmp_path / "out.jsonl"
    with pytest.raises(KeyboardInterrupt):
        work(source, target, stop=24)
    return target


def find(folder: Path, part: str) -> Path:
    (file,) = folder.glob(f".*.lmcore-{part}")
    return file


@pytest.mark.parametrize(
    ("recipe", "key"),
    [({"add": 2, "model": {"name": "m"}}, "add"), ({"add": 1}, "model"), ({**RECIPE, "x": 1}, "x"),
     ({**RECIPE, "model": {"name": "o"}}, "model")],
)  # fmt: skip
def test_another_recipe(
    source: Path, begun: Path, expected: bytes, recipe: dict[str, Any], key: str
) -> None:
    match = f"out.jsonl: 24 rows of it are there, made with another {key}; start anew"
    with pytest.raises(FileExistsError, match=match):
        work(source, begun, recipe=recipe)
    assert work(source, begun).resumed_rows == 24  # nothing was lost
    assert begun.read_bytes() == expected


def test_starting_anew(source: Path, begun: Path, expected: bytes, tmp_path: Path) -> None:
    assert work(source, begun, resume=False).resumed_rows == 0
    assert begun.read_bytes() == expected
    assert names(tmp_path) == {"in.jsonl", "out.jsonl"}


def test_another_beginning_of_the_input(source: Path, begun: Path) -> None:
    before = source.read_bytes()
    lines = before.splitlines(keepends=True)
    for content in (
        before.replace(b'"n": 3,', b'"n": 4,'),
        b"".join(lines[1:]),
        b"".join(lines[:10]),
        b"\n" + before,
        b"".join([*lines[:23], b"\n", *lines[24:]]),
    ):
        source.write_bytes(content)
        match = "24 rows of it are there, made from another beginning of"
        with pytest.raises(FileExistsError, match=match):
            work(source, begun)
    source.write_bytes(before)
    assert work(source, begun).resumed_rows == 24


def test_what_follows_may_be_mended(source: Path, begun: Path, expected: bytes) -> None:
    """A bad row ends a stream; with the row mended it goes on."""
    lines = source.read_bytes().splitlines(keepends=True)
    source.write_bytes(b"".join([*lines[:40], b"{\n", *lines[41:]]))
    with pytest.raises(ValueError, match=r"in\.jsonl:41: not valid JSON"):
        work(source, begun)
    source.write_bytes(b"".join(lines))
    assert work(source, begun).resumed_rows == 40
    assert begun.read_bytes() == expected


@pytest.mark.parametrize("place", [0, 100, 300])
def test_a_flipped_bit_in_the_rows(source: Path, begun: Path, tmp_path: Path, place: int) -> None:
    rows = find(tmp_path, "rows")
    content = bytearray(rows.read_bytes())
    content[place] ^= 1
    rows.write_bytes(content)
    with pytest.raises(ValueError, match=r"out\.jsonl: .* its rows are not those that were writ"):
        work(source, begun)
    rows.write_bytes(content[:-40])
    with pytest.raises(ValueError, match=r"out\.jsonl: .* 40 bytes are missing"):
        work(source, begun)
    assert work(source, begun, resume=False).rows == 50


@pytest.mark.parametrize(
    "change",
    [{"line": -1}, {"line": 2**63}, {"line": "1"}, {"line": True}, {"line": 1.5}, {"rows": None},
     {"output_bytes": 10**15}, {"output_digest": 3}, {"listed_bad_rows": [1]}, {"more": 1},
     {"input_digest": "0"}, {"line": 25}, {"output_bytes": 10}],
    ids=str,
)  # fmt: skip
def test_a_changed_state(source: Path, begun: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    state = find(tmp_path, "state")
    state.write_text(json.dumps(json.loads(state.read_text()) | change))
    with pytest.raises((ValueError, FileExistsError), match="start anew without resume"):
        work(source, begun)
    assert not begun.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 200_000, '{"line": 1, "line": 2}'])
def test_a_broken_state(source: Path, begun: Path, tmp_path: Path, text: str) -> None:
    find(tmp_path, "state").write_text(text)
    with pytest.raises(ValueError, match=r"not the state of an output|its state has other keys"):
        work(source, begun)


def test_rows_that_are_gone(source: Path, begun: Path, tmp_path: Path, expected: bytes) -> None:
    """As after a kill behind the last renaming: the state speaks of an output that is done."""
    find(tmp_path, "rows").unlink()
    assert work(source, begun).resumed_rows == 0
    assert begun.read_bytes() == expected


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_something_else_in_the_place_of_the_rows(
    source: Path, begun: Path, tmp_path: Path, kind: str
) -> None:
    rows = find(tmp_path, "rows")
    rows.unlink()
    if kind == "link":
        rows.symlink_to(source)
    elif kind == "pipe":
        os.mkfifo(rows)
    else:
        rows.mkdir()
    before = source.read_bytes()
    with pytest.raises((ValueError, OSError), match=r"out\.jsonl|Too many levels|Is a directory"):
        work(source, begun)
    assert source.read_bytes() == before


# Where rows go, and come from.


def test_an_output_that_is_the_input(source: Path, tmp_path: Path) -> None:
    before = source.read_bytes()
    (tmp_path / "link").symlink_to(source)
    os.link(source, tmp_path / "other")
    for target in (source, tmp_path / "link", tmp_path / "other"):
        with pytest.raises(ValueError, match="the output is an input too"):
            work(source, target)
    with source.open() as file:
        process = start("work(Path('-'), target)", "-", source, stdin=file, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert b"the output is an input too" in errors
    assert source.read_bytes() == before


def test_a_link_is_followed_and_permissions_are_kept(
    source: Path, tmp_path: Path, expected: bytes
) -> None:
    there, link = tmp_path / "there", tmp_path / "link"
    there.touch(0o640)
    there.chmod(0o640)
    link.symlink_to(there)
    work(source, link)
    assert (link.is_symlink(), there.read_bytes()) == (True, expected)
    assert there.stat().st_mode & 0o777 == 0o640
    work(source, tmp_path / "new")
    mask = os.umask(0)
    os.umask(mask)
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o666 & ~mask


def test_a_long_name(source: Path, tmp_path: Path, expected: bytes) -> None:
    target = tmp_path / ("n" * 255)
    with pytest.raises(KeyboardInterrupt):
        work(source, target, stop=8)
    work(source, target)
    assert target.read_bytes() == expected


def test_pipes_by_name(source: Path, tmp_path: Path, expected: bytes) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    os.mkfifo(first)
    os.mkfifo(second)
    read: list[bytes] = []
    feeder = threading.Thread(target=lambda: first.write_bytes(source.read_bytes()), daemon=True)
    reader = threading.Thread(target=lambda: read.append(second.read_bytes()), daemon=True)
    feeder.start()
    reader.start()
    work(first, second)
    feeder.join(timeout=60)
    reader.join(timeout=60)
    assert read == [expected]
    assert names(tmp_path) == {"in.jsonl", "first", "second"}


@pytest.mark.parametrize("compressed", [False, True])
def test_standard_input_and_output(
    source: Path, tmp_path: Path, expected: bytes, compressed: bool
) -> None:
    process = start(
        "work(Path('-'), Path('-'))", "-", "-", stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    output, _ = process.communicate(source.read_bytes(), timeout=60)
    assert (process.returncode, output) == (0, expected)
    target = tmp_path / ("out.gz" if compressed else "out")
    for stop in (12, None):  # the same input, given again, goes on
        process = start(
            f"print(work(Path('-'), target, stop={stop}).resumed_rows)", "-", target,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        output, _ = process.communicate(source.read_bytes(), timeout=60)
    assert output == b"12\n"
    content = target.read_bytes()
    assert (gzip.decompress(content) if compressed else content) == expected


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    source = write_rows(tmp_path / "in.jsonl", 20_000)
    process = start(
        "try:\n    work(source, Path('-'))\nexcept BrokenPipeError:\n    os._exit(41)",
        source, "-", stdout=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=60) == 41


def test_full_devices_are_named(source: Path) -> None:
    with pytest.raises(OSError, match="No space left") as caught:
        work(source, Path("/dev/full"))
    assert caught.value.filename == "/dev/full"
    with open("/dev/full", "wb") as full:
        code = "try:\n    work(source, Path('-'))\nexcept OSError as e: sys.exit(e.filename)"
        process = start(code, source, "-", stdout=full, stderr=subprocess.PIPE)
        _, errors = process.communicate(timeout=60)
    assert errors.startswith(b"standard output\n")


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_full_disk_goes_on_when_there_is_room(tmp_path: Path, name: str) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", 3000), tmp_path / name
    work(source, tmp_path / "whole")
    with file_size_limited(30_000), pytest.raises(OSError, match="File too large") as caught:
        work(source, target, save_seconds=0)
    assert caught.value.filename == str(target)
    assert not target.exists()
    assert work(source, target, save_seconds=0).resumed_rows > 100
    content = target.read_bytes()
    whole = (tmp_path / "whole").read_bytes()
    assert (gzip.decompress(content) if target.suffix == ".gz" else content) == whole


def test_folders_that_do_not_exist(source: Path, tmp_path: Path) -> None:
    for target in (tmp_path / "none" / "out", tmp_path, tmp_path / "in.jsonl" / "out"):
        with pytest.raises(OSError, match=r"No such file|Is a directory|Not a directory"):
            work(source, target)


def test_equal_rows_are_equal_files_of_gzip(tmp_path: Path) -> None:
    for name in ("a.gz", "b.gz"):
        with open_output(tmp_path / name) as file:
            file.write(b"text" * 100)
        time.sleep(0.01)
    first, second = ((tmp_path / name).read_bytes() for name in ("a.gz", "b.gz"))
    assert first == second
    assert first[4:8] == bytes(4)  # no time
