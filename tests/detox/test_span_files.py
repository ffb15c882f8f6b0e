"""Files of texts to files of spans and masks, and the commands: streamed, resumed, refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from commands import check_line, run_here
from lmcore.detox import SpanFinder, find_spans_file, load_span_finder, mask_file
from tiny_detox import WORDS, make_finder, save_segment_cnn

TEXTS = [
    "You are a FOOL, you", "you are nice", "BAD İ 北京坏人 so", "bad", "you " * 100 + "bad so",
]  # fmt: skip


@pytest.fixture(scope="module")
def finder() -> SpanFinder:
    return make_finder()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_segment_cnn(tmp_path_factory.mktemp("segment_cnn"))


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


# Functions.


def test_spans_of_a_file(tmp_path: Path, finder: SpanFinder) -> None:
    rows: list[dict[str, Any]] = [{"id": k, "text": text} for k, text in enumerate(TEXTS)]
    rows[1] = {"id": 1, "prompt": {"text": TEXTS[1], "toxicity": None}}
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = find_spans_file(finder, source, target)
    found = read(target)
    assert [row["id"] for row in found] == [0, 1, 2, 3, 4]
    for text, row in zip(TEXTS, found, strict=True):
        assert [text[a:b] for a, b in row["spans"]] == row["span_texts"]
        assert len(row["span_scores"]) == len(row["spans"])
    assert found[0]["span_texts"] == ["a FOOL,"]
    assert found[1] == rows[1] | {
        "spans": [], "span_texts": [], "span_scores": [], "text_score": found[1]["text_score"]
    }  # fmt: skip
    assert found[2]["span_texts"] == ["BAD İ", "京坏人"]
    assert found[4]["spans"] == [[396, 406]]
    assert (done.rows, done.toxic, done.spans, done.windowed) == (5, 3, 4, 1)


def test_masks_of_a_file(tmp_path: Path, finder: SpanFinder) -> None:
    rows = [
        {"prompt": "You BAD fool", "toxicity": 0.9}, {"prompt": "You BAD fool", "toxicity": 0.5},
        {"prompt": {"text": "You BAD fool", "toxicity": 0.1}}, {"text": "You BAD fool"},
        {"prompt": {"text": "You are", "toxicity": None}},
    ]  # fmt: skip
    source, target = write(tmp_path / "in.jsonl", rows), tmp_path / "out.jsonl"
    done = mask_file(finder, source, target)
    assert [(row["masked"], row["masks"]) for row in read(target)] == [
        ("<MASK>", 1), ("You BAD fool", 0), ("You BAD fool", 0), ("<MASK>", 1), ("you are", 0),
    ]  # fmt: skip
    assert (done.rows, done.toxic, done.spans, done.passed) == (5, 2, 2, 2)
    done = mask_file(finder, source, target, prompt_threshold=None, form="text", resume=False)
    assert [row["masked"] for row in read(target)] == ["<MASK>"] * 4 + ["You are"]
    assert done.passed == 0
    with pytest.raises(ValueError, match=r"^form must be one of pieces, text: got 'x'$"):
        mask_file(finder, source, target, form="x")


def test_a_stopped_run_goes_on_to_the_same_bytes(
    tmp_path: Path, finder: SpanFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [" ".join(WORDS[(k * j) % len(WORDS)] for j in range(k % 9 + 1)) for k in range(50)]
    source = write(tmp_path / "in.jsonl", [{"text": text} for text in texts])
    whole, parts = tmp_path / "whole.jsonl", tmp_path / "parts.jsonl"
    expected = find_spans_file(finder, source, whole, block_rows=8)
    find, calls = finder.find, 0

    def stop(texts: Sequence[str]) -> Any:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return find(texts)

    monkeypatch.setattr(finder, "find", stop)
    with pytest.raises(KeyboardInterrupt):
        find_spans_file(finder, source, parts, block_rows=8)
    assert not parts.exists()
    with pytest.raises(FileExistsError):
        find_spans_file(finder, source, parts, block_rows=9)
    done = find_spans_file(finder, source, parts, block_rows=8)
    assert done.resumed_rows == 24
    assert (done.rows, done.bad_rows) == (50, 0)
    assert parts.read_bytes() == whole.read_bytes()
    assert expected.rows == 50


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"id": 1}, "text is missing"),
        ({"text": ["a"]}, "text must be a text: got list"),
        ({"prompt": {"text": None}}, "prompt.text must be a text: got NoneType"),
        ({"text": " \n"}, "text must not be empty"),
        ({"text": "a", "spans": []}, "spans stands in the row, and would be written over"),
        ({"text": "a", "toxicity": 2}, "toxicity must be a number from 0 to 1: got 2"),
        ([], "expected a JSON object, got a list"),
    ],
)
def test_rows_that_cannot_be_used(tmp_path: Path, finder: SpanFinder, row: Any, text: str) -> None:
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    write(source, [{"text": "bad so"}, row, {"text": "you"}])
    with pytest.raises(ValueError, match=r"in\.jsonl:2: ") as raised:
        find_spans_file(finder, source, target)
    assert str(raised.value) == f"{source}:2: {text}"
    assert not target.exists()
    done = find_spans_file(finder, source, target, skip_bad_rows=True)
    assert (done.rows, done.listed_bad_rows) == (2, [f"{source}:2: {text}"])
    assert [row["text"] for row in read(target)] == ["bad so", "you"]


def test_a_narrow_model_finds_the_same(folder: Path) -> None:
    wide = load_span_finder(folder, device="cpu").find(TEXTS)
    narrow = load_span_finder(folder, device="cpu", precision="bfloat16").find(TEXTS)
    for expected, got in zip(wide, narrow, strict=True):
        assert got.labels.tolist() == expected.labels.tolist()
        assert got.scores == pytest.approx(expected.scores, abs=0.05)
    with pytest.raises(ValueError, match=r"^precision must be one of float32, bfloat16: got 'x'$"):
        load_span_finder(folder, precision="x")


# Commands.


def test_span_commands(tmp_path: Path, folder: Path) -> None:
    source = write(tmp_path / "in.jsonl", [{"text": "You are BAD"}])
    out, masked, high = (tmp_path / f"{name}.jsonl" for name in ("out", "masked", "high"))
    options = ["--model", folder, "--device", "cpu", "--threads", "1"]
    code, output, errors = run_here("detox", "spans", source, out, *options)
    assert (code, output) == (0, "")
    assert errors.endswith("1 rows, 0 skipped: 1 spans in 1 of them\n")
    assert read(out)[0]["spans"] == [[4, 11]]
    code, _, errors = run_here("detox", "mask", out, masked, *options, "--form", "text")
    assert (code, read(masked)[0]["masked"]) == (0, "You <MASK>"), errors
    assert read(masked)[0]["spans"] == [[4, 11]]  # what a step before wrote stays
    run_here("detox", "spans", source, high, *options, "--threshold", "0.9999")
    assert read(high)[0]["spans"] == []


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["spans", "IN", "IN", "--model", "DIR"], "IN"),
        (["spans", "IN", "OUT", "--model", "NOWHERE"], "NOWHERE"),
        (["spans", "IN", "OUT", "--model", "DIR", "--window", "99"], "max_length must be at most"),
        (["spans", "IN", "OUT", "--model", "DIR", "--overlap", "0"], "overlap must be at least 1"),
        (["mask", "IN", "OUT", "--model", "DIR", "--form", "x"], "form must be one of"),
        (["train-spans", "IN", "--out", "RUN", "--recipe", "x"], "RECIPE must be one of tiny, "),
        (["train-spans", "IN", "--out", "RUN", "--tokenizer", "DIR"], "IN:1: content is missing"),
        (["train-spans", "IN", "--out", "RUN"], "tokenizer must be given"),
        (["train-spans", "IN", "--out", "RUN", "--format", "texts", "--tokenizer", "DIR"],
         "the format texts needs a scorer"),
    ],
)  # fmt: skip
def test_commands_that_cannot_be(
    tmp_path: Path, folder: Path, arguments: list[str], text: str
) -> None:
    source = write(tmp_path / "in.jsonl", [{"prompt": "You are BAD"}])
    names = {
        "IN": source, "OUT": tmp_path / "out.jsonl", "DIR": folder, "RUN": tmp_path / "run",
        "NOWHERE": tmp_path / "nowhere",
    }  # fmt: skip
    found = run_here("detox", *(names.get(argument, argument) for argument in arguments))
    for name, path in names.items():
        text = text.replace(name, str(path)) if text.startswith(name) else text
    check_line(found, text)
    assert not (tmp_path / "out.jsonl").exists()
    assert not (tmp_path / "run").exists()


def test_train_command(tmp_path: Path, folder: Path) -> None:
    long = {"content": "a " * 200, "score": [0] * 199}
    source = write(tmp_path / "in.jsonl", [{"content": "you are bad", "score": [0, 1]}, long])
    out = tmp_path / "run"
    code, output, errors = run_here(
        "detox", "train-spans", source, "--out", out, "--recipe", "tiny", "--model", folder,
        "--valid", source, "--device", "cpu", "--threads", "1", "--quiet", "--epochs", "2",
        "--set", "batch_size=2", "--set", "max_length=16",
    )  # fmt: skip
    assert code == 0, errors
    assert "1 texts do not fit into a row, and lost 186 tokens" in errors
    found = json.loads(output)
    assert (found["steps"], found["texts"], found["cut_texts"]) == (2, 2, 1)
    assert found["pair_f1"] == 1.0
    assert sorted(path.name for path in (out / "best").iterdir()) == [
        "config.json", "manifest.json", "model.safetensors", "tokenizer.json"
    ]  # fmt: skip
    _, output, _ = run_here("detox", "span-recipe", "tiny")
    assert json.loads(output)["span_loss"] == "corrected"
