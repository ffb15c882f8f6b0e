"""The command `lmcore compression vocabulary`: its report, its exit codes, one line for errors."""

import json
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForMaskedLM, AutoTokenizer

from commands import check_line, run_here
from lmcore.compression import write_counts
from lmcore.compression.record import read_record
from tiny_vocabularies import count_lines, read_lines, save_model, write_lines


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("command")
    (path / "old").mkdir()
    save_model("bert", path / "old")
    write_counts(path / "counts", count_lines(path / "old", read_lines()))
    write_lines(path / "text.txt", read_lines())
    return path


@pytest.fixture
def here(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("old", "counts", "text.txt"):
        (tmp_path / name).symlink_to(folder / name)
    return tmp_path


def prune(*arguments: object) -> tuple[int, str, str]:
    return run_here("compression", "vocabulary", "old", "new", "--counts", "counts", *arguments)


def test_report(here: Path) -> None:
    code, output, errors = prune("--keep", 150, "--keep-per", "odd=90", "--multiple", 16,
                                 "--prove", "text.txt", "--quiet")  # fmt: skip
    assert (code, errors) == (0, "")
    rows = dict(line.rsplit("  ", 1) for line in output.splitlines())
    rows = {name.strip(): value.strip() for name, value in rows.items()}
    record = read_record("new").about["vocabulary"]
    proof = record["proof"]
    assert rows == {
        "tokens": "400 -> 150",
        "rows of the embedding": "405 -> 160",
        "special tokens, bytes and their like": "5",
        "single characters that occur": str(record["characters"]),
        "counted tokens that stay: even": f"{record['coverage']['even']:.3%}",
        "counted tokens that stay: odd": f"{record['coverage']['odd']:.3%}",
        "bytes of weights": f"{Path('new/model.safetensors').stat().st_size:,}",
        "lines whose tokens all stay": f"{proof['surviving_lines']} of 80",
        "lines with unknown words": "0",
        "tokens of all lines": f"{proof['tokens_before']:,} -> {proof['tokens_after']:,} "
        f"({proof['rise']:+.3%})",
        "tensors with the same bits": str(proof["tensors"]),
        "logits compared": f"{proof['logits']:,}, at most {proof['largest_difference']:.3g} apart",
        "proof": "holds",
    }
    assert (record["keep"], record["keep_per"], record["multiple"]) == (150, {"odd": 90}, 16)
    assert record["coverage"]["odd"] > record["coverage"]["even"]
    tokenizer = AutoTokenizer.from_pretrained("new")
    model = AutoModelForMaskedLM.from_pretrained("new")
    assert (len(tokenizer), model.config.vocab_size) == (150, 160)
    made = model(**tokenizer("Ada met Otto.", return_tensors="pt"))
    assert made.logits.shape[-1] == 160


def test_a_proof_that_fails_exits_with_1(here: Path) -> None:
    write_counts("few", count_lines(here / "old", ["Ada met Otto.", "Otto"]))
    (here / "text").write_text("Ada met Otto.\n\n東京\n", encoding="utf-8")
    options = ["--keep", 20, "--prove", "text", "--no-logits", "--quiet", "--counts", "few"]
    code, output, errors = run_here("compression", "vocabulary", "old", "new", *options)
    assert code == 1
    assert output.splitlines()[-1].split() == ["proof", "FAILED:", "1", "differences"]
    assert errors.startswith("lmcore: text:3: the text that the ids give back is another: ")
    assert len(errors.splitlines()) == 1
    # What is there can be looked at, and says so itself.
    assert json.loads(Path("new/pruning.json").read_text())["about"]["vocabulary"]["proof"][
        "failed"
    ] == 1  # fmt: skip


def test_what_the_authors_counts_look_like(here: Path) -> None:
    (here / "ids.txt").write_text("".join(f"{i} {400 - i}\n" for i in range(399, 4, -2)))
    code, _, errors = run_here("compression", "vocabulary", "old", "new", "--counts", "ids.txt",
                               "--keep", 200, "--quiet")  # fmt: skip
    assert (code, errors) == (0, "")
    assert read_record("new").about["vocabulary"]["coverage"].keys() == {"all"}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--keep", 20], "keep must be at least "),
        (["--keep", 401], "keep must be from 1 to 400, the number of tokens: got 401"),
        (["--keep", 200, "--keep-per", "fr=1"], "keep_per names the group 'fr': there are even"),
        (["--keep", 120, "--keep-per", "odd=400"], "for what keep_per asks of 'odd'"),
        (["--keep", 200, "--prove", "none"], "none: No such file or directory"),
        (["--keep", 200, "--prove", "counts"], "counts:1: not UTF-8"),
    ],
)
def test_one_line_for_what_cannot_be_used(here: Path, arguments: list[Any], text: str) -> None:
    check_line(prune(*arguments, "--quiet"), text)
    assert not Path("new").exists()


def test_outputs_that_exist_and_inputs_that_do_not(here: Path) -> None:
    Path("new").mkdir()
    check_line(prune("--keep", 200), "new: exists already: name a new folder")
    Path("new").rmdir()
    Path("new").symlink_to("nowhere")
    check_line(prune("--keep", 200), "new: exists already: name a new folder")
    Path("new").unlink()
    command = ["compression", "vocabulary"]
    check_line(run_here(*command, "no", "new", "--counts", "counts", "--keep", 9), "no: not a fol")
    check_line(run_here(*command, "old", "new", "--counts", "no", "--keep", 9), "no: No such file")
    (here / "bad").write_text("1 2\n1 3\n")
    check_line(run_here(*command, "old", "new", "--counts", "bad", "--keep", 9), "stands twice")
    (here / "empty").mkdir()
    check_line(run_here(*command, "empty", "new", "--counts", "counts", "--keep", 9), "empty: ")


@pytest.mark.parametrize(
    "attempt", ["", "odd", "=3", "odd=", "odd=-1", "odd=1.5", "odd=9999999999"]
)
def test_shares_that_are_none(here: Path, attempt: str) -> None:
    code, output, errors = prune("--keep", 200, f"--keep-per={attempt}")
    assert (code, output) == (2, "")
    assert "expected GROUP=N with N from 0 to 2147483647: got " in errors
    assert not Path("new").exists()
