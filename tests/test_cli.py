"""The command `lmcore`: what it prints, where, and with which exit code."""

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import lmcore
from lmcore.cli import app
from lmcore.ner import align_row, score_files
from lmcore.ops.entities import SCHEMES
from prediction_rows import VALID, interrupt_reader, make_rows, write_rows

COMMANDS = [
    [],
    ["ner"],
    ["ner", "score"],
    ["ner", "align"],
    ["ner", "data"],
    ["detox"],
    ["detox", "score"],
    ["detox", "train-scorer"],
    ["detox", "evaluate"],
    ["detox", "chains"],
    ["diffusion"],
    ["diffusion", "mbr"],
    ["diffusion", "profile"],
    ["diffusion", "score"],
    ["openba"],
    ["openba", "chain"],
    ["openba", "cost"],
    ["openba", "format"],
    ["openba", "generate"],
    ["openba", "instructions"],
    ["openba", "pack"],
    ["recsys"],
    ["recsys", "train"],
    ["recsys", "recipe"],
    ["recsys", "evaluate"],
    ["recsys", "recommend"],
    ["reproduce"],
]
_START = "import runpy, signal; signal.signal(signal.SIGINT, signal.default_int_handler); "


def run(*arguments: object) -> Result:
    """Runs a command within this process."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="lmcore")


def start(*arguments: object, **options: Any) -> subprocess.Popen[str]:
    """Starts `python -m lmcore`; Ctrl-C works even where the tests run in the background."""
    code = f"{_START}runpy.run_module('lmcore', run_name='__main__', alter_sys=True)"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        env={**os.environ, "HF_HUB_OFFLINE": "1", "PYTHONIOENCODING": "utf-8"},
        **options,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def check_failure(code: int, output: str, errors: str, text: str = "") -> None:
    """One line on standard error, exit code 2, and nothing else."""
    assert (code, output) == (2, "")
    assert re.fullmatch(r"lmcore: [^\n]+\n", errors), errors
    assert "Traceback" not in errors
    assert text in errors


def check_failed(result: Result, text: str = "") -> None:
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    check_failure(result.exit_code, result.stdout, result.stderr, text)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cli")


@pytest.fixture(scope="module")
def file(folder: Path) -> Path:
    return write_rows(folder / "rows.jsonl", make_rows(500, datasets=["one", "two", "北"]))


@pytest.fixture(scope="module")
def mixed(folder: Path) -> Path:
    """Two usable rows and three bad ones."""
    return write_rows(folder / "mixed.jsonl", [VALID, b"{", VALID, b"[]", b'{"label_list": 1}'])


# Help and version.


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help(command: list[str]) -> None:
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: {' '.join(['lmcore', *command])}")
    assert result.stderr == ""


def test_help_names_every_option() -> None:
    shared = ["--scheme", "--tokenizer", "--skip-bad-rows", "--threads"]
    for command, options in {
        "score": [*shared, "--html", "--worst", "--json"],
        "align": [*shared, "--text", "--types", "--prediction"],
    }.items():
        text = run("ner", command, "--help").stdout
        assert [option for option in options if option not in text] == []
        assert all(scheme in text for scheme in SCHEMES)
    assert "ner" in run("--help").stdout
    assert "reproduce" in run("--help").stdout


def test_version_and_module() -> None:
    code, output, errors = finish(start("--version"))
    assert (code, output, errors) == (0, f"{lmcore.__version__}\n", "")
    assert run("--version").stdout == output


@pytest.mark.parametrize(
    "arguments",
    [
        ["--other"],
        ["other"],
        ["ner", "other"],
        ["ner", "score"],
        ["ner", "score", "--other", "a.jsonl"],
        ["ner", "score", "--threads", "0", "a.jsonl"],
        ["ner", "score", "--threads", "x", "a.jsonl"],
        ["ner", "score", "--worst", "-1", "a.jsonl"],
        ["ner", "score", "a.jsonl", "--scheme"],
        ["reproduce", "--seeds", "0"],
        ["recsys", "train"],
        ["recsys", "train", "plain", "--data", "a.txt"],
        ["recsys", "train", "plain", "--data", "a.txt", "--out", "b", "--epochs", "0"],
        ["recsys", "evaluate", "b"],
        ["recsys", "recommend", "b"],
    ],
)
def test_wrong_use(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert re.search(r"^Error: .+", result.stderr, re.MULTILINE)
    assert "Traceback" not in result.stderr


# Scores.


def test_score_table(file: Path) -> None:
    result = run("ner", "score", file)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[0] == "scheme gner"
    scores = score_files([file])
    for name, part in scores.datasets.items():
        row = next(line.split() for line in lines if line.split()[:1] == [name])
        assert row[1:5] == [str(part.rows), *(f"{100 * value:.2f}" for value in part.quality)]
    mean = next(line.split() for line in lines if line.startswith("mean"))
    assert mean[3] == f"{100 * scores.mean.f1:.2f}"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_score_json(file: Path, scheme: str) -> None:
    result = run("ner", "score", file, "--json", "--scheme", scheme)
    assert (result.exit_code, result.stderr) == (0, "")
    assert result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == score_files([file], scheme=scheme).to_dict()


def test_score_json_is_all_that_is_printed(file: Path, folder: Path) -> None:
    """With every other option too, and with standard output and error apart."""
    other = folder / "copy.jsonl"
    other.write_bytes(file.read_bytes())
    page = folder / "printed.html"
    options = ["--html", page, "--threads", 2, "--skip-bad-rows", "--worst", 1]
    code, output, errors = finish(start("ner", "score", file, other, "--json", *options))
    assert (code, errors) == (0, "")
    assert json.loads(output) == score_files([file, other]).to_dict()
    assert "北" in output


def test_score_threads(file: Path) -> None:
    outputs = {run("ner", "score", file, "--threads", n).stdout for n in (1, 2, 8)}
    assert len(outputs) == 1


def test_score_html(file: Path, tmp_path: Path) -> None:
    page = tmp_path / "scores.html"
    page.write_text("before")
    with_page = run("ner", "score", file, "--html", page, "--worst", 3)
    assert (with_page.exit_code, with_page.stderr) == (0, "")
    assert with_page.stdout == run("ner", "score", file).stdout
    text = page.read_text(encoding="utf-8")
    assert text.startswith("<!doctype html>")
    assert text.count("<section>") == 9
    assert page.stat().st_mode & 0o777 == 0o666 & ~_umask()
    assert [path.name for path in tmp_path.iterdir()] == ["scores.html"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_score_skips_bad_rows(mixed: Path) -> None:
    check_failed(run("ner", "score", mixed), f"{mixed}:2: not valid JSON")
    result = run("ner", "score", mixed, "--skip-bad-rows")
    assert (result.exit_code, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert lines[-4] == "skipped 3 bad rows"
    assert [line.split(":")[1] for line in lines[-3:]] == ["2", "4", "5"]
    parsed = json.loads(run("ner", "score", mixed, "--skip-bad-rows", "--json").stdout)
    assert parsed["bad_rows"]["count"] == 3
    assert parsed["bad_rows"]["rows"] == [line.strip() for line in lines[-3:]]
    assert parsed["datasets"]["mixed"]["rows"] == 2


# One sentence, and files of aligned rows.


def test_align_arguments() -> None:
    result = run(
        *("ner", "align", "--text", "in 北京 and New York", "--types", "city, person"),
        *("--prediction", "in(O) 北京(B-city) New(B-city) york(I-city)"),
    )
    assert (result.exit_code, result.stderr) == (0, "")
    aligned = json.loads(result.stdout)
    assert [entity["text"] for entity in aligned["entities"]] == ["北京", "New York"]
    assert aligned["matching"] == "subsequence"
    assert "北京" in result.stdout


@pytest.mark.parametrize("scheme", SCHEMES)
def test_align_arguments_with_a_scheme(scheme: str) -> None:
    row = {"text": "a b", "label_list": ["x", "y"], "prediction": "a(I-x) b(I-y)"}
    arguments = ["--text", "a b", "--types", "x,y", "--prediction", row["prediction"]]
    result = run("ner", "align", *arguments, "--scheme", scheme)
    assert json.loads(result.stdout) == align_row(row, scheme).to_dict()


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_align_file(file: Path, folder: Path, scheme: str, threads: int) -> None:
    target = folder / "aligned.jsonl"
    options = ["--scheme", scheme, "--threads", threads]
    result = run("ner", "align", file, target, *options)
    assert (result.exit_code, result.stdout) == (0, "")
    assert result.stderr == "500 rows aligned, 0 skipped\n"
    made = [json.loads(line) for line in file.read_bytes().splitlines()]
    written = target.read_text(encoding="utf-8").split("\n")
    assert written.pop() == ""
    assert [json.loads(line) for line in written] == [
        align_row(row, scheme).to_dict() for row in made
    ]


def test_align_skips_bad_rows(mixed: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    check_failed(run("ner", "align", mixed, target), f"{mixed}:2: not valid JSON")
    assert list(tmp_path.iterdir()) == []
    result = run("ner", "align", mixed, target, "--skip-bad-rows")
    assert (result.exit_code, result.stdout) == (0, "")
    lines = result.stderr.splitlines()
    assert [line.split(": ")[0] for line in lines[:-1]] == [
        f"skipped {mixed}:{n}" for n in (2, 4, 5)
    ]
    assert lines[-1] == "2 rows aligned, 3 skipped"
    assert target.read_bytes().count(b"\n") == 2


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["in.jsonl"],
        ["in.jsonl", "out.jsonl", "more.jsonl"],
        ["in.jsonl", "out.jsonl", "--text", "a"],
        ["in.jsonl", "out.jsonl", "--types", "a"],
        ["--text", "a", "--types", "x"],
        ["--text", "a", "--prediction", "x"],
        ["--types", "a", "--prediction", "x"],
    ],
)
def test_align_needs_files_or_a_sentence(arguments: list[str]) -> None:
    check_failed(run("ner", "align", *arguments), "--text, --types and --prediction")


# Bad input: one line, exit code 2.


def failing_commands(folder: Path, file: Path, mixed: Path) -> Iterator[tuple[list[object], str]]:
    empty = folder / "empty.jsonl"
    empty.touch()
    blank = folder / "blank.jsonl"
    blank.write_text(" \n\n")
    only_bad = write_rows(folder / "only-bad.jsonl", [b"{"])
    none, target = folder / "none.jsonl", folder / "never.jsonl"
    for source, text in [
        (none, "No such file or directory"),
        (folder, "Is a directory"),
        (empty, "holds no rows"),
        (blank, "holds no rows"),
        (mixed, f"{mixed}:2: not valid JSON"),
    ]:
        yield ["ner", "score", source], text
        yield ["ner", "score", file, source, "--json"], text
        yield ["ner", "align", source, target], text
    yield ["ner", "score", empty, "--skip-bad-rows"], "holds no rows"
    yield ["ner", "score", only_bad, "--skip-bad-rows"], f"{only_bad}:1: not valid JSON"
    yield ["ner", "score", file, "--scheme", "other"], "scheme must be one of"
    yield ["ner", "align", file, target, "--scheme", "other"], "scheme must be one of"
    yield ["ner", "score", file, "--html", folder], "Is a directory"
    yield ["ner", "score", file, "--html", none / "a.html", "--json"], "No such file or directory"
    yield ["ner", "score", file, "--html", file / "a.html"], "Not a directory"
    yield ["ner", "align", file, folder], "Is a directory"
    yield ["ner", "align", file, none / "a.jsonl"], "No such file or directory"
    yield ["ner", "align", file, file / "a.jsonl"], "Not a directory"


def test_failures(folder: Path, file: Path, mixed: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    for command, text in failing_commands(folder, file, mixed):
        result = run(*command)
        check_failed(result, text)
        paths = [part for part in command[2:] if isinstance(part, Path)]
        assert any(str(path) in result.stderr for path in paths) or "scheme" in text
    after = sorted(path.name for path in folder.iterdir())
    assert set(after) - set(before) <= {"empty.jsonl", "blank.jsonl", "only-bad.jsonl"}


def test_failures_of_the_process(folder: Path, file: Path, mixed: Path) -> None:
    """The same through `python -m lmcore`, for one of each kind."""
    for command, text in [
        (["ner", "score", folder / "none.jsonl"], "No such file or directory"),
        (["ner", "score", mixed, "--json"], f"{mixed}:2: not valid JSON"),
        (["ner", "align", file, folder], "Is a directory"),
    ]:
        check_failure(*finish(start(*command)), text)


BAD_ROWS = {
    "no key": (b"{}", "types"),
    "wrong type": (b'{"label_list": 1}', "label_list"),
    "list item": (b'{"label_list": [], "words": [1], "labels": []}', "words"),
    "length": (json.dumps({**VALID, "labels": []}).encode(), "labels"),
    "label": (json.dumps({**VALID, "labels": ["O", "O", "B-\n"]}).encode(), "labels"),
    "line separators": (
        json.dumps({**VALID, "labels": ["O", "O", "\x85\u2028"]}).encode(),
        "labels",
    ),
    "surrogate": (rb'{"label_list": ["\ud800"]}', "label_list"),
    "UTF-8": (b'"\xff"', "not UTF-8"),
    "object": (b"1", "expected a JSON object"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_is_named_on_one_line(tmp_path: Path, name: str) -> None:
    line, key = BAD_ROWS[name]
    file = write_rows(tmp_path / "a.jsonl", [VALID, VALID, line])
    result = run("ner", "score", file)
    check_failed(result, f"{file}:3: {key}")
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize("name", ["a\nb.jsonl", "北\u2028.jsonl", " .jsonl"])
def test_peculiar_file_names(tmp_path: Path, name: str) -> None:
    check_failed(run("ner", "score", tmp_path / name), "No such file or directory")
    file = write_rows(tmp_path / name, [VALID])
    parsed = json.loads(run("ner", "score", file, "--json").stdout)
    assert list(parsed["datasets"]) == [name.removesuffix(".jsonl")]


def test_closed_pipe(file: Path) -> None:
    """The reader of the output may go: no traceback."""
    process = start("ner", "score", file)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    with process.stderr:
        assert "Traceback" not in process.stderr.read()
    process.wait(timeout=60)


# Ctrl-C.


@pytest.mark.parametrize("command", ["score", "align"])
@pytest.mark.parametrize("threads", [1, 2])
def test_ctrl_c(tmp_path: Path, command: str, threads: int) -> None:
    source, target = tmp_path / "endless.jsonl", tmp_path / "out"
    os.mkfifo(source)
    process = start(
        *("ner", command, source, *([target] if command == "align" else ["--html", target])),
        *("--threads", threads),
    )
    assert interrupt_reader(process, source) == ("", "lmcore: interrupted\n")
    assert process.returncode == 130
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


# Tokenizers.


@pytest.fixture
def tokenizer(tmp_path: Path) -> Path:
    """A saved tokenizer that does not know the letter ë."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = [("<unk>", 0.0), ("▁", -1.0), *((letter, -3.0) for letter in letters)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    folder = tmp_path / "tokenizer"
    tokenizer_class: Any = PreTrainedTokenizerFast
    tokenizer_class(tokenizer_object=made, unk_token="<unk>").save_pretrained(folder)
    return folder


BRONTE = {
    "text": "Brontë",
    "words": ["Brontë"],
    "labels": ["B-x"],
    "label_list": ["x"],
    "prediction": "Bront(B-x)",
}


def test_tokenizer(tokenizer: Path, tmp_path: Path) -> None:
    file, target = write_rows(tmp_path / "a.jsonl", [BRONTE]), tmp_path / "b.jsonl"
    for options, correct in ([], 0), (["--tokenizer", tokenizer], 1):
        result = run("ner", "score", file, "--json", *options)
        assert result.exit_code == 0
        assert json.loads(result.stdout)["datasets"]["a"]["counts"]["correct"] == correct
        assert run("ner", "align", file, target, *options).exit_code == 0
        assert len(json.loads(target.read_bytes())["entities"]) == correct


def test_tokenizer_for_one_sentence(tokenizer: Path) -> None:
    """An option that is taken must count, or be refused."""
    arguments = ["--text", "Brontë", "--types", "x", "--prediction", "Bront(B-x)"]
    result = run("ner", "align", *arguments, "--tokenizer", tokenizer)
    if result.exit_code == 0:
        assert [e["text"] for e in json.loads(result.stdout)["entities"]] == ["Brontë"]
    else:
        check_failed(result, "--tokenizer")


def test_published_tokenizer(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names on the hub have a slash and are no folders."""
    asked = []

    def load(name: str) -> Any:
        asked.append(name)
        return lambda words: words

    monkeypatch.setattr("lmcore.ner.BackTokenizer.from_pretrained", load)
    result = run("ner", "score", file, "--json", "--tokenizer", "google/flan-t5-base")
    assert (result.exit_code, asked) == (0, ["google/flan-t5-base"]), result.stderr
    assert json.loads(result.stdout) == score_files([file]).to_dict()


def test_unknown_tokenizer(file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "tokenizer.json").write_text("{")
    (broken / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    empty = tmp_path / "empty"
    empty.mkdir()
    score, align = ["score", file], ["align", file, tmp_path / "b.jsonl"]
    for command, name in [
        (score, tmp_path / "none"),
        (align, tmp_path / "none"),
        (score, empty),
        (score, broken),
        (score, "no/such-tokenizer"),
        (score, ""),
    ]:
        code, output, errors = finish(start("ner", *command, "--tokenizer", name))
        # Without torch, transformers says so itself.
        lines = errors.splitlines(keepends=True)
        own = [line for line in lines if not line.startswith("[transformers]")]
        check_failure(code, output, "".join(own), "--tokenizer")
    assert not (tmp_path / "b.jsonl").exists()


def test_command_needs_no_transformers(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it, scores are made, and asking for a tokenizer fails on one line."""
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError):
        importlib.import_module("transformers")
    assert run("ner", "score", file).exit_code == 0
    check_failed(run("ner", "score", file, "--tokenizer", "any"), "transformers")
