"""Standard output that is full, closed or of another encoding, and what data may do to it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from commands import SMALL, check_line, run, run_here, start, write_pairs
from lmcore._text import escape, to_json
from prediction_rows import VALID, write_rows


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.jsonl", [VALID] * 3)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("streams")
    data = write_pairs(folder / "pairs.txt")
    arguments = ["--data", data, "--out", folder / "run", "--epochs", 1, *SMALL]
    assert run_here("recsys", "train", "plain", *arguments)[0] == 0
    return folder / "run"


# A full disk behind `>`.


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["--version"],
        ["ner", "score", "ROWS"],
        ["ner", "score", "ROWS", "--json"],
        ["recsys", "recipe", "plain"],
        ["ner", "align", "--text", "a", "--types", "x", "--prediction", "a(B-x)"],
    ],
    ids=" ".join,
)
def test_full_standard_output(rows: Path, command: list[str]) -> None:
    arguments = [str(rows) if part == "ROWS" else part for part in command]
    with open("/dev/full", "wb") as full:
        code, _, errors = run(*arguments, stdout=full)
    assert (code, errors) == (2, "lmcore: standard output: No space left on device\n")


def test_no_standard_output(rows: Path) -> None:
    result = run("ner", "score", rows, preexec_fn=lambda: os.close(1), stdout=None)
    assert result[::2] == (2, "lmcore: standard output: Bad file descriptor\n")


# A reader that goes away.


@pytest.mark.parametrize(
    "command",
    [
        ["--help"],
        ["ner", "score", "ROWS"],
        ["ner", "score", "ROWS", "--json"],
        ["recsys", "recipe", "plain"],
    ],
    ids=" ".join,
)
def test_closed_pipe(rows: Path, command: list[str]) -> None:
    arguments = [str(rows) if part == "ROWS" else part for part in command]
    process = start(*arguments)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141


def test_head_of_recommendations(trained: Path, tmp_path: Path) -> None:
    """More than a pipe holds: the command is still writing when the reader goes."""
    data = write_pairs(tmp_path / "many.txt", users=3000)
    process = start("recsys", "recommend", trained, "all", "--data", data)
    assert process.stdout is not None
    assert process.stderr is not None
    first = json.loads(process.stdout.readline())
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert (first["user"], process.wait(timeout=60)) == (1, 141)


def test_nobody_hears_the_failure(tmp_path: Path) -> None:
    """Standard error closed too: the exit code is what is left."""
    process = start("ner", "score", tmp_path / "none.jsonl", stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stdout is not None
    process.stderr.close()
    with process.stdout:
        assert process.wait(timeout=60) == 2


# What data may do to a terminal.

HOSTILE = "a\x1b[2J\x9b1m\u202eb\nlmcore: c\x7f"
HIDDEN = [*map(chr, range(0x20)), "\x7f", "\x85", "\x9b", "\u2028", "\u202e", "\u2066", "\ud83d"]


def is_safe(text: str) -> bool:
    """One line or several, in which nothing acts on a terminal."""
    return not any(character in text for character in HIDDEN if character != "\n")


def test_escape() -> None:
    assert escape(HOSTILE) == r"a\x1b[2J\x9b1m\u202eb\nlmcore: c\x7f"
    assert escape("\t\r\n") == r"\t\r\n"
    assert escape("\udcff") == r"\xff"
    assert escape("\ud800") == r"\ud800"
    plain = "北 ë \u0301 👩\u200d🚀 می\u200cخواهم \\n"
    assert escape(plain) == plain


@pytest.mark.parametrize("character", HIDDEN, ids=ascii)
def test_json_reads_as_it_was(character: str) -> None:
    value = {character: [f"x{character}", 1.5, None], "北": "ë"}
    for text in (to_json(value), to_json(value, indent=2), to_json(value, encoding="latin-1")):
        assert is_safe(text)
        assert json.loads(text) == value
    to_json(value, encoding="latin-1").encode("ascii")


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        to_json(float("nan"))


def hostile_rows(folder: Path, **changes: Any) -> Path:
    return write_rows(folder / "hostile.jsonl", [{**VALID, "dataset": HOSTILE, **changes}])


def test_names_of_data_sets(tmp_path: Path) -> None:
    file = hostile_rows(tmp_path)
    code, table, errors = run_here("ner", "score", file)
    assert (code, errors) == (0, "")
    assert is_safe(table)
    assert table.count(escape(HOSTILE)) == 3
    assert table.count("\n") == run_here("ner", "score", write_rows(file, [VALID]))[1].count("\n")
    printed = run_here("ner", "score", hostile_rows(tmp_path), "--json")[1]
    assert is_safe(printed)
    assert printed.count("\n") == 1
    assert list(json.loads(printed)["datasets"]) == [HOSTILE]


def test_pages_escape_markup(tmp_path: Path) -> None:
    """Names, words, labels, generated texts and paths."""
    tag = "<script>x</script>"
    row = {
        "dataset": f"d{tag}", "words": [f"w{tag}", "b"], "labels": [f"B-t{tag}", "O"],
        "label_list": [f"t{tag}"], "prediction": f"other{tag}(B-t{tag}) b(O) {tag}",
    }  # fmt: skip
    folder = tmp_path / "p<script>x<"
    folder.mkdir()
    file = write_rows(folder / "rows.jsonl", [row, {"label_list": f"l{tag}"}])
    page = tmp_path / "page.html"
    assert run_here("ner", "score", file, "--html", page, "--skip-bad-rows")[0] == 0
    text = page.read_text(encoding="utf-8")
    assert "<script" not in text
    for name in "dwtp":
        assert f"{name}&lt;script&gt;" in text


def test_messages(tmp_path: Path) -> None:
    """Words, ids, keys and paths in errors and in lists of skipped rows."""
    bad = [hostile_rows(tmp_path, labels=[HOSTILE, "O", "O"])]
    for name, content in [
        ("a.inter", f"user_id:token\titem_id:token\ttimestamp:float\nu\ti\t{HOSTILE[:-12]}\n"),
        ("b.txt", f"1 {HOSTILE[:8]}\n"),
        (f"{HOSTILE.replace('/', '')}.txt", "1 x\n"),
    ]:
        (tmp_path / name).write_text(content)
        bad.append(tmp_path / name)
    results = [run_here("ner", "score", bad[0]), run_here("ner", "align", bad[0], tmp_path / "o")]
    results[1:] = []
    arguments = ("--out", tmp_path / "run", *SMALL)
    results += [
        run_here("recsys", "train", "plain", "--data", path, *arguments) for path in bad[1:]
    ]
    for result in results:
        check_line(result)
        assert is_safe(result[2]), result
    listed = run_here("recsys", "train", "plain", "--data", bad[2], *arguments, "--skip-bad-rows")
    assert listed[0] == 2
    assert is_safe(listed[2])
    assert listed[2].count("\n") == 1


def test_wrong_use(tmp_path: Path) -> None:
    for arguments in (["ner", HOSTILE], ["ner", "align", *[HOSTILE] * 3], [f"--{HOSTILE}"]):
        code, output, errors = run_here(*arguments)
        assert (code, output) == (2, "")
        assert is_safe(errors)
        assert not any(line.startswith("lmcore: c") for line in errors.splitlines())


def test_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [{**VALID, "dataset": "北🚀"}])
    latin = "import sys; sys.stdout.reconfigure(encoding='latin-1')"
    code, table, errors = run("ner", "score", file, code=latin)
    assert (code, errors) == (0, "")
    assert r"\u5317\U0001f680" in table
    code, printed, errors = run("ner", "score", file, "--json", code=latin)
    assert (code, errors) == (0, "")
    assert list(json.loads(printed)["datasets"]) == ["北🚀"]


def test_examples_for_a_terminal_of_another_encoding(tmp_path: Path) -> None:
    """What it cannot show is escaped, in rows of the core and in others."""
    source, target = tmp_path / "a.txt", tmp_path / "a.jsonl"
    source.write_text("北🚀\tB-city\né\tO\n\n", encoding="utf-8")
    assert run_here("ner", "data", source, target)[0] == 0
    for name in ("latin-1", "ascii", "utf8"):
        code = f"import sys; sys.stdout.reconfigure(encoding={name!r})"
        code, printed, _ = run("ner", "data", source, "-", code=code)
        assert code == 0
        assert json.loads(printed) == json.loads(target.read_text(encoding="utf-8"))
