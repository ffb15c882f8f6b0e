"""`lmcore diffusion mbr`: the authors' choices, and files that do not belong together."""

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.diffusion import Generation, choose_candidates, remove_marks
from lmcore.diffusion.generations import read_generations
from lmcore.diffusion.mbr import _ROWS_AT_ONCE


def write(path: Path, texts: Sequence[str], **more: Any) -> Path:
    """A file of generated texts for the sources "0", "1", ..."""
    rows = [
        {"recover": text, "reference": f"r{k}", "source": f"{k}"} | more
        for k, text in enumerate(texts)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_choices_are_those_of_the_authors(data_dir: Path, tmp_path: Path) -> None:
    folder = data_dir / "text/bridge_gap_generations/qqp_20"
    files = sorted(folder.glob("seed*.json"))
    summary = choose_candidates(files, tmp_path / "mbr.jsonl", threads=1)
    assert (len(files), summary.rows, len(summary.chosen)) == (10, 1091, 10)
    assert read(tmp_path / "mbr.jsonl") == read(folder / "mbr.jsonl")


def test_command(tmp_path: Path) -> None:
    one = write(tmp_path / "1.jsonl", ["[CLS] a b d [SEP]", "x"], seed=1)
    two = write(tmp_path / "2.jsonl", ["[CLS] a c d[SEP]", "a b c d x"], seed=2)
    three = tmp_path / "3.jsonl.gz"
    plain = write(tmp_path / "3.jsonl", ["[CLS]q", "a b c d"], seed=3)
    three.write_bytes(gzip.compress(plain.read_bytes()))
    out = tmp_path / "out.jsonl"
    result = run_here("diffusion", "mbr", one, two, three, "--output", out, "--threads", 1)
    assert result == (0, "", "2 rows chosen, of the files in their order: 1 0 1\n")
    assert read(out) == [
        {"recover": " a b d ", "reference": "r0", "source": "0", "seed": 1},
        {"recover": "a b c d", "reference": "r1", "source": "1", "seed": 3},
    ]
    # Of equal sums the first file has it.
    assert choose_candidates([two, one], out).chosen == (2, 0)
    assert run_here("diffusion", "mbr", one, "--output", "-")[1].count("\n") == 2


def test_more_rows_than_are_held_at_once(tmp_path: Path) -> None:
    texts = [f"a {k}" for k in range(_ROWS_AT_ONCE + 1)]
    files = [write(tmp_path / f"{k}.jsonl", texts) for k in range(2)]
    assert choose_candidates(files, tmp_path / "out.jsonl").rows == len(texts)
    assert [row["recover"] for row in read(tmp_path / "out.jsonl")] == texts


def test_files_that_do_not_belong_together(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("old")
    one, other = write(tmp_path / "a", ["x", "y"]), write(tmp_path / "b", ["x"])

    def check(text: str, *files: Path) -> None:
        check_line(run_here("diffusion", "mbr", *files, "--output", out), text)
        assert out.read_text() == "old"
        assert sorted(path.name for path in tmp_path.iterdir()) == before

    before = sorted(path.name for path in tmp_path.iterdir())
    check(f"{other}: ends after 1 rows, and {one}:2 goes on", one, other)
    check(f"{other}: ends after 1 rows, and {one}:2 goes on", other, one)
    other.write_text("\n" + one.read_text().replace('"1"', '"2"'))
    check(f"{other}:3: source is another than in {one}:2; the files", one, other)
    other.write_text(one.read_text().replace("r1", "r"))
    check(f"{other}:2: reference is another than in {one}:2; the files", one, other)
    check(f"{one}: the file is named twice", one, one)
    for row, problem in {
        '{"recover": "x", "reference": "r1"}': "source: missing",
        '{"recover": 1, "reference": "", "source": ""}': "recover: expected a string, got a number",
        '{"recover": null, "reference": "", "source": ""}': "recover: expected a string, got null",
        '{"recover": "x", "reference": [], "source": ""}': "expected a string, got a list",
        '{"recover": true, "reference": "", "source": ""}': "expected a string, got a boolean",
        '{"recover": "x", "recover": "x"}': "recover",
        '["x"]': "expected a JSON object, got a list",
        '{"recover": "\\ud800", "reference": "", "source": ""}': "holds a lone surrogate",
        "{": "not valid JSON",
    }.items():
        other.write_text(one.read_text().splitlines()[0] + f"\n{row}\n")
        check(f"{other}:2: ", one, other)
        check(problem, one, other)
    other.write_text("")
    check(f"{other}: the file holds no rows", one, other)
    other.unlink()
    before.remove("b")
    check(f"{other}: No such file", one, other)
    check_line(run_here("diffusion", "mbr", one, "--output", one), "the output is an input too")


def test_no_files() -> None:
    with pytest.raises(ValueError, match=r"^files must hold at least one file$"):
        choose_candidates([], "out.jsonl")


def test_marks() -> None:
    assert remove_marks("[CLS][CLS] a[SEP] [PAD]") == " a [PAD]"
    # As `str.replace` does: what is joined by a removal stays.
    assert remove_marks("[CL[SEP]S]") == "[CLS]"


def test_rows_keep_what_else_they_hold(tmp_path: Path) -> None:
    file = write(tmp_path / "a", ["[SEP]"], note="[CLS]")
    value = {"recover": "", "reference": "r0", "source": "0", "note": "[CLS]"}
    assert list(read_generations(file)) == [Generation(1, value)]
