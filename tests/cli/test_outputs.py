"""Where outputs go: files, devices, pipes, links, and never an input."""

import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from commands import SMALL, check_line, file_size_limited, run, run_here, write_pairs
from lmcore._files import find_output, whole_file, write_text
from lmcore.ner import align_file
from prediction_rows import VALID, write_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [VALID] * 3)


def write_page(source: Path, target: Path | str) -> tuple[int, str, str]:
    return run_here("ner", "score", source, "--html", target)


def write_aligned(source: Path, target: Path | str) -> tuple[int, str, str]:
    return run_here("ner", "align", source, target)


both = pytest.mark.parametrize("write", [write_page, write_aligned])
Write = Callable[[Path, Path | str], tuple[int, str, str]]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# Devices and pipes.


@both
def test_a_device_stays_one(rows: Path, tmp_path: Path, write: Write) -> None:
    """A node of our own stands for /dev/null, which a failure would destroy."""
    device = tmp_path / "null"
    try:
        os.mknod(device, stat.S_IFCHR | 0o666, os.makedev(1, 3))
        device.open("wb").close()
    except PermissionError:
        pytest.skip("making a device takes root")
    assert write(rows, device)[0] == 0
    assert stat.S_ISCHR(device.stat().st_mode)
    assert names(tmp_path) == {"null", "rows.jsonl"}


@both
def test_a_pipe_is_written(rows: Path, tmp_path: Path, write: Write) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_bytes()), daemon=True)
    reader.start()
    assert write(rows, pipe)[0] == 0
    reader.join(timeout=60)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert read[0].startswith((b"<!doctype html>", b'{"labels"'))


def test_full_device_is_named(rows: Path) -> None:
    for write in (write_page, write_aligned):
        result = write(rows, "/dev/full")
        check_line((result[0], "", result[2]), "/dev/full: No space left on device")


# Links.


@both
def test_a_link_is_followed(rows: Path, tmp_path: Path, write: Write) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "there").write_text("before")
    (folder / "there").chmod(0o600)
    for name, target in (("link", folder / "there"), ("new", folder / "absent")):
        link = tmp_path / name
        link.symlink_to(target)
        assert write(rows, link)[0] == 0
        assert link.is_symlink()
        assert target.read_bytes().startswith((b"<!doctype html>", b'{"labels"'))
    assert names(folder) == {"there", "absent"}


def test_permissions_are_kept(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.touch(0o600)
    write_text(private, "text")
    assert (stat.S_IMODE(private.stat().st_mode), private.read_text()) == (0o600, "text")


@pytest.mark.parametrize("name", ["loop", "loop/a"])
def test_a_circle_of_links(rows: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / "loop").symlink_to("loop")
    check_line(write_page(rows, tmp_path / name), f"{name}: Too many levels of symbolic links")


# Inputs.


@both
@pytest.mark.parametrize("kind", ["itself", "relative", "symbolic link", "hard link"])
def test_an_input_is_not_overwritten(rows: Path, tmp_path: Path, write: Write, kind: str) -> None:
    before = rows.read_bytes()
    target = tmp_path / "other"
    if kind == "itself":
        target = rows
    elif kind == "relative":
        target = rows.parent / ".." / rows.parent.name / rows.name
    elif kind == "symbolic link":
        target.symlink_to(rows)
    else:
        target.hardlink_to(rows)
    check_line(write(rows, target), f"{target}: the output is an input too")
    assert rows.read_bytes() == before


def test_the_second_input_is_one_too(rows: Path, tmp_path: Path) -> None:
    other = write_rows(tmp_path / "other.jsonl", [VALID])
    check_line(run_here("ner", "score", rows, other, "--html", other), "the output is an input too")


def test_align_file_of_the_library(rows: Path) -> None:
    with pytest.raises(ValueError, match="the output is an input too"):
        align_file(rows, rows)
    assert rows.read_bytes().count(b"\n") == 3


@pytest.mark.parametrize("name", ["log.jsonl", "recipe.json", "states/step-1/state.pt", "models/a"])
@pytest.mark.parametrize("link", [False, True])
def test_training_keeps_its_data(tmp_path: Path, name: str, link: bool) -> None:
    out = tmp_path / "run"
    (out / name).parent.mkdir(parents=True)
    data = write_pairs(out / name)
    given = data
    if link:
        given = tmp_path / "data.txt"
        given.symlink_to(data)
    before = data.read_bytes()
    result = run_here("recsys", "train", "plain", "--data", given, "--out", out, *SMALL)
    check_line(result, f"{data}: the output is an input too")
    assert data.read_bytes() == before
    assert names(out) == {name.partition("/")[0]}


def test_data_beside_the_files_of_a_run(tmp_path: Path) -> None:
    data = write_pairs(tmp_path / "pairs.txt")
    arguments = ["--data", data, "--out", tmp_path, "--epochs", 1, *SMALL]
    assert run_here("recsys", "train", "plain", *arguments)[0] == 0


def test_a_file_that_is_standard_output(rows: Path, tmp_path: Path) -> None:
    """Renamed over, what is printed would go to a file without a name."""
    printed = tmp_path / "printed"
    for name, command in [("/dev/stdout", ["score", rows, "--html"]), (printed, ["align", rows])]:
        with open(printed, "wb") as file:
            code, _, errors = run("ner", *command, name, stdout=file)
        check_line((code, "", errors), f"{name}: standard output goes to this file")
    assert printed.read_bytes() == b""


def test_standard_output_as_a_pipe(rows: Path) -> None:
    code, output, errors = run("ner", "align", rows, "/dev/stdout")
    assert (code, errors) == (0, "3 rows aligned, 0 skipped\n")
    assert output.count('{"labels"') == 3


# Names.


@pytest.mark.parametrize(
    "command",
    [
        ["ner", "score", ""],
        ["ner", "score", "ROWS", "--html", ""],
        ["ner", "align", "ROWS", ""],
        ["ner", "align", "", "x"],
        ["recsys", "train", "plain", "--data", "", "--out", "x"],
        ["recsys", "train", "plain", "--data", "x", "--out", ""],
        ["recsys", "evaluate", "", "--data", "x"],
        ["recsys", "evaluate", "x", "--data", ""],
        ["recsys", "recommend", "x", "1", "--data", ""],
        ["reproduce", "--out", ""],
    ],
    ids=" ".join,
)
def test_empty_names(
    rows: Path, tmp_path: Path, command: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, output, errors = run_here(*[rows if part == "ROWS" else part for part in command])
    assert (code, output) == (2, "")
    assert "the name must not be empty" in errors
    assert names(tmp_path) == {"rows.jsonl"}


def test_wrong_names_are_seen_before_the_work(tmp_path: Path) -> None:
    """The input does not even exist: the output is looked at first."""
    none = tmp_path / "none.jsonl"
    for target, reason in [
        (tmp_path, "Is a directory"),
        (tmp_path / "no/a", "No such file or directory"),
        (f"{tmp_path}/new/", "Is a directory"),
    ]:
        for write in (write_page, write_aligned):
            check_line(write(none, target), f"{target}: {reason}")


# The function itself.


def test_an_error_within_leaves_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("before")

    def fail() -> None:
        with whole_file(path) as place:
            place.write_text("half")
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert (path.read_text(), names(tmp_path)) == ("before", {"a"})


def test_the_error_names_the_output(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def fail(filename: str | None) -> None:
        with whole_file(path) as place:
            if filename is None:
                raise OSError(errno.ENOSPC, "full")
            raise OSError(errno.ENOSPC, "full", str(place))

    for filename in (None, "own"):
        with pytest.raises(OSError, match="No space left on device") as caught:
            fail(filename)
        assert caught.value.filename == str(path)


def test_lone_surrogates_are_written(tmp_path: Path) -> None:
    """The name of a file that is not UTF-8 stands on a page."""
    write_text(tmp_path / "a", "x\udcffy")
    assert (tmp_path / "a").read_text() == "x\\udcffy"


def test_inputs_that_do_not_exist(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    assert find_output(path, [tmp_path / "none"]) == path


# Full disks.


@pytest.mark.parametrize("size", [0, 40, 8192])
def test_page_above_the_limit(rows: Path, tmp_path: Path, size: int) -> None:
    many = write_rows(tmp_path / "many.jsonl", [{**VALID, "prediction": "x(O)"}] * 99)
    with file_size_limited(size):
        result = write_page(many, tmp_path / "page.html")
    check_line(result, f"{tmp_path / 'page.html'}: File too large")
    assert names(tmp_path) == {"rows.jsonl", "many.jsonl"}


def test_rows_above_the_limit(rows: Path, tmp_path: Path) -> None:
    with file_size_limited(100):
        result = write_aligned(rows, tmp_path / "aligned.jsonl")
    check_line(result, f"{tmp_path / 'aligned.jsonl'}: File too large")
    assert names(tmp_path) == {"rows.jsonl"}


@pytest.mark.parametrize(
    ("size", "place"),
    [(64, "recipe.json"), (4000, "models/step-"), (9000, "states/step-")],
)
def test_training_above_the_limit(tmp_path: Path, size: int, place: str) -> None:
    """Weights are written by safetensors and states by torch, each with an error of its own."""
    data, out = write_pairs(tmp_path / "pairs.txt"), tmp_path / "run"
    late = ["--set", "loop.save_every_seconds=60"]
    arguments = ["--data", data, "--out", out, "--epochs", 1, *SMALL, *late]
    with file_size_limited(size):
        result = run_here("recsys", "train", "plain", *arguments)
    check_line(result, str(out / place), ": File too large")
    assert not [name for name in names(out) if name.startswith(".lmcore-")]
