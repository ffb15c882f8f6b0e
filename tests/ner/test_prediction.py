"""Prediction of rows: order, windows, what is cut, and a kill at any moment."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lmcore.ner import score
from lmcore.ner.generation import Annotator, Generation
from lmcore.ner.instructions import write_instruction
from lmcore.ner.prediction import predict, predict_file
from lmcore.training.fingerprint import fingerprint_model
from tiny_generators import HOSTILE, SENTENCES, TYPES, make_llama, make_t5, make_tokenizer

CONSTRAINED = Generation(constrained=True, batch_size=3)


def make_rows(count: int = 20, seed: int = 0) -> list[dict[str, Any]]:
    generator = random.Random(seed)
    rows = []
    for number in range(count):
        words = generator.choice([*SENTENCES, *HOSTILE])[: generator.randint(1, 10)]
        rows.append({
            "dataset": "d", "id": str(number), "label_list": TYPES, "words": words,
            "labels": ["O"] * len(words), "instruction": write_instruction(words, TYPES),
        })  # fmt: skip
    return rows


def make_case(kind: str = "t5", dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    return (make_t5 if kind == "t5" else make_llama)(tokenizer, dtype=dtype), tokenizer


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("generation", [
    CONSTRAINED, replace(CONSTRAINED, num_beams=2), Generation(batch_size=3, max_new_tokens=40),
    Generation(batch_size=3, num_beams=2, max_new_tokens=40),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_rows_keep_their_order_and_what_they_hold(kind: str, generation: Generation) -> None:
    model, tokenizer = make_case(kind)
    rows = make_rows()
    found = list(predict(model, tokenizer, rows, generation=generation))
    assert len(found) == len(rows)
    for row, own in zip(rows, found, strict=True):
        assert {key: own[key] for key in row} == row
        assert len(own["predicted_labels"]) == len(row["words"])
        text = " ".join(row["words"])
        for entity in own["entities"]:
            assert text[entity["start"] : entity["end"]] == entity["text"]
            assert 0 <= entity["confidence"] <= 1
            assert entity["type"] in TYPES
        begins = [label for label in own["predicted_labels"] if label[0] == "B"]
        if generation.constrained:
            assert len(own["entities"]) == len(begins)
            assert "truncated" not in own
    assert score(found).datasets["d"].rows == len(rows)


def test_each_row_is_what_it_is_alone() -> None:
    model, tokenizer = make_case()
    rows = make_rows(9)
    together = list(predict(model, tokenizer, rows, generation=CONSTRAINED))
    for row, own in zip(rows, together, strict=True):
        [alone] = predict(model, tokenizer, [row], generation=CONSTRAINED)
        assert alone["predicted_labels"] == own["predicted_labels"]
        confidences = [entity["confidence"] for entity in own["entities"]]
        assert [entity["confidence"] for entity in alone["entities"]] == pytest.approx(
            confidences, abs=1e-5
        )


def test_batches_hold_similar_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = make_case()
    spreads = []
    answer = Annotator._answer

    def spy(self: Any, questions: Any, sources: Any) -> Any:
        spreads.append([len(source) for source in sources])
        return answer(self, questions, sources)

    monkeypatch.setattr(Annotator, "_answer", spy)
    list(predict(model, tokenizer, make_rows(30), generation=CONSTRAINED))
    lengths = [length for batch in spreads for length in batch]
    assert lengths == sorted(lengths, reverse=True)
    assert [len(batch) for batch in spreads] == [3] * 10


def test_long_sentences_are_cut_into_windows_and_joined() -> None:
    model, tokenizer = make_case()
    words = [*SENTENCES[0], *SENTENCES[2]] * 4
    row = {"types": TYPES, "words": words, "labels": ["O"] * len(words)}
    needed = len(tokenizer(write_instruction([], TYPES))["input_ids"])
    generation = replace(CONSTRAINED, max_source_tokens=needed + 24)
    [found] = predict(model, tokenizer, [row], generation=generation, overlap_words=4)
    assert found["windows"] == len(found["window_predictions"]) > 2
    assert len(found["predicted_labels"]) == len(words)
    assert "truncated" not in found
    assert found["prediction"] == " ".join(
        f"{word}({label})" for word, label in zip(words, found["predicted_labels"], strict=True)
    )
    whole = " ".join(words)
    assert all(whole[e["start"] : e["end"]] == e["text"] for e in found["entities"])
    [short] = predict(model, tokenizer, [row], generation=CONSTRAINED)
    assert "windows" not in short


def test_windows_of_ner_data_become_sentences_again() -> None:
    model, tokenizer = make_case()
    words = [*SENTENCES[2], *SENTENCES[1]]
    rows = []
    for number, (start, stop) in enumerate([(0, 10), (6, 16), (0, 16)]):
        own = words[start:stop]
        rows.append({
            "types": TYPES, "words": own, "labels": ["O"] * len(own),
            "instruction": write_instruction(own, TYPES),
            "window": {"start": start, "stop": stop, "of": 16, "sentence": number // 2},
        })  # fmt: skip
    parts = [{key: row[key] for key in ("types", "words", "instruction")} for row in rows]
    first, second, _ = predict(model, tokenizer, parts, generation=CONSTRAINED)
    joined, whole = predict(model, tokenizer, rows, generation=CONSTRAINED)
    assert joined["words"] == whole["words"] == words
    expected = [*first["predicted_labels"][:8], *second["predicted_labels"][2:]]
    if expected[8][:2] == "I-" and expected[7][2:] != expected[8][2:]:
        expected[8] = f"B-{expected[8][2:]}"
    assert joined["predicted_labels"] == expected
    assert joined["windows"] == 2
    assert "windows" not in whole


def test_what_is_truncated_is_said() -> None:
    model, tokenizer = make_case()
    rows = [{"types": TYPES, "words": ["Ada"]}, {"types": TYPES, "words": ["x" * 60]}]
    short = Generation(max_source_tokens=30, max_new_tokens=5)
    for row in predict(model, tokenizer, rows, generation=short):
        assert row["truncated"] == ["source", "output"]
    [row] = predict(
        model, tokenizer, rows[:1], generation=Generation(constrained=True, max_source_tokens=30)
    )
    assert row["truncated"] == ["source"]
    model, tokenizer = make_case("llama")
    [row] = predict(
        model, tokenizer, rows[:1], generation=Generation(constrained=True, max_source_tokens=30)
    )
    assert row["truncated"] == ["source"]


def test_characters_that_the_tokenizer_drops_are_counted(tmp_path: Path) -> None:
    model, tokenizer = make_case()
    rows = [{"types": TYPES, "words": ["naïve", "東京", "ok"]}]
    source = write_rows(tmp_path / "in.jsonl", rows)
    summary = predict_file(model, tokenizer, source, tmp_path / "out.jsonl", generation=CONSTRAINED)
    assert (summary.counts.dropped_characters, summary.counts.characters) == (3, 9)
    assert summary.counts.dropped_share == pytest.approx(1 / 3)
    model, tokenizer = make_case("llama")
    summary = predict_file(model, tokenizer, source, tmp_path / "b.jsonl", generation=CONSTRAINED)
    assert summary.counts.dropped_characters == 0


class StopError(Exception):
    """In the place of a kill."""


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 7])
def test_a_run_that_ends_early_goes_on_to_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stop: int
) -> None:
    """In float32, where what a sentence shares its batch with changes the last digits."""
    monkeypatch.setattr("lmcore.ner.prediction._BATCHES", 2)
    model, tokenizer = make_case(dtype=torch.float32)
    source = write_rows(tmp_path / "in.jsonl", make_rows(20))
    expected = tmp_path / "expected.jsonl"
    predict_file(model, tokenizer, source, expected, generation=CONSTRAINED)
    calls = 0

    def count(_: int) -> None:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise StopError

    target = tmp_path / "out.jsonl"
    with pytest.raises(StopError):
        predict_file(model, tokenizer, source, target, generation=CONSTRAINED, progress=count)
    assert not target.exists()
    summary = predict_file(model, tokenizer, source, target, generation=CONSTRAINED)
    assert summary.resumed_rows == (stop - 1) // 2 * 6
    assert summary.counts.sentences == 20 - summary.resumed_rows
    assert target.read_bytes() == expected.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "expected.jsonl", "in.jsonl", "out.jsonl",
    ]  # fmt: skip


def test_another_model_or_other_settings_do_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lmcore.ner.prediction._BATCHES", 1)
    model, tokenizer = make_case()
    source, target = write_rows(tmp_path / "in.jsonl", make_rows(9)), tmp_path / "out.jsonl"
    done = 0

    def stop(count: int) -> None:
        nonlocal done
        done += count
        if done > 3:
            raise StopError

    with pytest.raises(StopError):
        predict_file(model, tokenizer, source, target, generation=CONSTRAINED, progress=stop)
    with pytest.raises(FileExistsError, match="num_beams"):
        predict_file(model, tokenizer, source, target, generation=replace(CONSTRAINED, num_beams=2))
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    with pytest.raises(FileExistsError, match="model"):
        predict_file(model, tokenizer, source, target, generation=CONSTRAINED)
    predict_file(model, tokenizer, source, target, generation=CONSTRAINED, resume=False)
    assert len(target.read_text().splitlines()) == 9


def test_bad_rows_are_named_or_skipped(tmp_path: Path) -> None:
    model, tokenizer = make_case()
    rows = make_rows(3)
    same = {"words": ["a"], "types": ["東", "京"]}
    broken = {"words": ["a"], "types": TYPES, "window": {"start": 1, "stop": 2, "of": 2,
                                                        "sentence": 0}}  # fmt: skip
    source = write_rows(tmp_path / "in.jsonl", [rows[0], same, rows[1], broken, rows[2]])
    target = tmp_path / "out.jsonl"
    with pytest.raises(ValueError, match=r"in.jsonl:2: the labels 'B-東' and 'B-京' are"):
        predict_file(model, tokenizer, source, target, generation=CONSTRAINED)
    summary = predict_file(
        model, tokenizer, source, target, generation=CONSTRAINED, skip_bad_rows=True
    )
    assert (summary.rows, summary.bad_rows) == (3, 2)
    assert ":4: window: expected words from 0 on" in summary.listed_bad_rows[1]
    with pytest.raises(ValueError, match="row 1: the labels"):
        list(predict(model, tokenizer, [rows[0], same], generation=CONSTRAINED))
    with pytest.raises(TypeError, match="row 0: words must be a list"):
        list(predict(model, tokenizer, [{"words": "a", "types": TYPES}]))


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"batch_size": 0}, ValueError), ({"num_beams": 0}, ValueError),
        ({"max_source_tokens": 7}, ValueError), ({"max_new_tokens": 0}, ValueError),
        ({"batch_size": 1.5}, TypeError), ({"batch_size": True}, TypeError),
    ],
)  # fmt: skip
def test_settings_out_of_range(given: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=f"{next(iter(given))} must be"):
        Generation(**given)


def test_overlap_out_of_range() -> None:
    model, tokenizer = make_case()
    with pytest.raises(ValueError, match="overlap_words must be at least 0"):
        list(predict(model, tokenizer, [], overlap_words=-1))
    assert list(predict(model, tokenizer, [])) == []


def test_fingerprints_tell_models_apart() -> None:
    model, tokenizer = make_case()
    assert fingerprint_model(model, tokenizer) == fingerprint_model(make_t5(tokenizer), tokenizer)
    other = make_t5(tokenizer, seed=1)
    assert fingerprint_model(model, tokenizer) != fingerprint_model(other, tokenizer)
    longer = make_tokenizer(vocabulary=280)
    assert fingerprint_model(model, tokenizer) != fingerprint_model(model, longer)


def test_streams_of_gzip(tmp_path: Path) -> None:
    import gzip

    model, tokenizer = make_case()
    source = write_rows(tmp_path / "in.jsonl", make_rows(4))
    packed = tmp_path / "in.jsonl.gz"
    with gzip.open(packed, "wb") as file, source.open("rb") as rows:
        shutil.copyfileobj(rows, file)
    predict_file(model, tokenizer, source, tmp_path / "a.jsonl", generation=CONSTRAINED)
    predict_file(model, tokenizer, packed, tmp_path / "b.jsonl.gz", generation=CONSTRAINED)
    with gzip.open(tmp_path / "b.jsonl.gz") as file:
        assert file.read() == (tmp_path / "a.jsonl").read_bytes()
