"""The command `lmcore ner predict`."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from commands import check_line, finish, run_here, start_warm
from tiny_generators import SENTENCES, TYPES, make_llama, make_t5, make_tokenizer

SMALL = ["--constrained", "--threads", "1", "--device", "cpu", "--batch-size", "2"]


def save(folder: Path, kind: str = "t5") -> Path:
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    make = make_t5 if kind == "t5" else make_llama
    make(tokenizer, dtype=torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(tmp_path / "model")


def write_rows(path: Path, count: int = 6, **more: Any) -> Path:
    rows = [
        {"types": TYPES, "words": words, "labels": ["O"] * len(words), **more}
        for words in (SENTENCES[place % len(SENTENCES)] for place in range(count))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_what_it_writes_can_be_scored(tmp_path: Path, kind: str) -> None:
    source, target = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    folder = save(tmp_path / "model", kind)
    code, output, errors = run_here("ner", "predict", folder, source, target, *SMALL)
    assert (code, output) == (0, "")
    assert errors.splitlines()[-1].startswith("6 rows predicted, 0 skipped: 6 sentences, ")
    rows = [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()]
    assert [row["words"] for row in rows] == [SENTENCES[place % 4] for place in range(6)]
    code, output, _ = run_here("ner", "score", target, "--json")
    assert code == 0
    matching = json.loads(output)["datasets"]["out"]["matching"]
    assert matching == {"exact": 6, "subsequence": 0, "lcs": 0}


def test_texts_from_standard_input(tmp_path: Path, model: Path) -> None:
    process = start_warm(
        "ner", "predict", model, "-", "-", "--types", "person, city", *SMALL, stdin=-1
    )
    output, errors = process.communicate('{"text": "Ada met 東."}\n', timeout=120)
    assert process.returncode == 0
    row = json.loads(output)
    assert row["types"] == ["person", "city"]
    assert row["words"] == ["Ada", "met", "東", "."]
    assert "1 of 8 characters (12.5%) cannot be written by the model's tokenizer" in errors


def test_what_is_cut_is_said(tmp_path: Path, model: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", 4), tmp_path / "out.jsonl"
    free = ["--threads", "1", "--device", "cpu", "--max-source-tokens", "30"]
    _, _, errors = run_here(
        "ner", "predict", model, source, target, *free, "--max-new-tokens", "12"
    )
    lines = errors.splitlines()
    assert lines[-3].endswith("sentences were cut into 23 windows")
    assert lines[-2] == "4 instructions were truncated: the model read a beginning"
    assert lines[-1] == "4 generated texts were truncated before their end"


def test_wrong_arguments(tmp_path: Path, model: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl"), tmp_path / "out.jsonl"
    given = ["ner", "predict", model, source, target]
    check_line(run_here("ner", "predict", tmp_path / "no", source, target), "no such folder")
    check_line(run_here("ner", "predict", tmp_path, source, target), "not a model")
    check_line(run_here("ner", "predict", model, tmp_path / "no", target, *SMALL), "No such file")
    check_line(run_here("ner", "predict", model, source, source), "the output is an input too")
    check_line(run_here(*given, "--types", " ,"), "--types must name at least one")
    check_line(run_here(*given, "--device", "tpu"), "device")
    for name, value in [
        ("--batch-size", "0"), ("--num-beams", "-1"), ("--max-source-tokens", "7"),
        ("--max-new-tokens", str(2**31)), ("--overlap", "-1"), ("--batch-size", "nan"),
    ]:  # fmt: skip
        code, output, errors = run_here(*given, name, value)
        assert (code, output) == (2, ""), (name, value)
        assert name in errors
    assert not target.exists()


def test_bad_rows(tmp_path: Path, model: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", 2), tmp_path / "out.jsonl"
    with source.open("a", encoding="utf-8") as file:
        file.write('["a"]\n{"words": ["a"]}\n')
    given = ["ner", "predict", model, source, target, *SMALL]
    check_line(run_here(*given), "in.jsonl:3: expected a JSON object, got a list")
    code, _, errors = run_here(*given, "--skip-bad-rows")
    assert code == 0
    assert "in.jsonl:4: types is missing (or label_list), and none are given" in errors
    assert "2 rows predicted, 2 skipped: 2 sentences" in errors


def test_kills_end_with_the_same_bytes(tmp_path: Path, model: Path) -> None:
    source, target = write_rows(tmp_path / "in.jsonl", 16), tmp_path / "out.jsonl"
    whole = tmp_path / "whole.jsonl"
    code = """
import lmcore.ner.prediction as prediction, time
prediction._BATCHES = 1
make = prediction.RowStream
prediction.RowStream = lambda *given, **more: make(*given, **more, save_seconds=0)
predict = prediction.Predictor.predict
def slow(self, sentences, **more):
    time.sleep(PAUSE)
    print("block", flush=True, file=sys.stderr)
    return predict(self, sentences, **more)
prediction.Predictor.predict = slow
"""
    given = ["ner", "predict", model, source]
    result = finish(start_warm(*given, whole, *SMALL, code=code.replace("PAUSE", "0")))
    assert result[0] == 0, result
    for _ in range(2):
        process = start_warm(*given, target, *SMALL, code=code.replace("PAUSE", "0.2"))
        assert process.stderr is not None
        with process.stderr as lines:
            while "block" not in lines.readline():
                pass
            assert "block" in lines.readline()
            process.send_signal(signal.SIGKILL)
        assert process.wait(timeout=60) == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.close()
    assert not target.exists()
    code_, _, errors = finish(start_warm(*given, target, *SMALL, code=code.replace("PAUSE", "0")))
    assert code_ == 0
    assert "of them before" in errors
    assert target.read_bytes() == whole.read_bytes()
