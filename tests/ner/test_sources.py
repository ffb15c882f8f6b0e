"""Predictions in other forms: what is read from them, and what of them is refused or counted."""

import contextlib
import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner import score, score_files
from lmcore.ner.mentions import Mention, cut_sentence, label_words, read_answer, write_generation
from lmcore.ner.sources import convert_row, detect_form
from lmcore.ops.matching import match_labels
from prediction_rows import VALID, make_rows, write_rows
from strategies import sentences

TYPES = ["person", "city"]
WORDS = ["Ada", "met", "Max", "in", "New", "York"]
GOLD = ["B-person", "O", "B-person", "O", "B-city", "I-city"]
ROW: dict[str, Any] = {"types": TYPES, "words": WORDS, "labels": GOLD}
TEXT = "Ada met Max in New York"

# Each says: Ada and Max are persons, New York is a city.
ANSWERS = [
    {"person": ["Ada", "Max"], "city": ["New York"]},
    {"person": ["Ada", "Max"], "city": "New York"},
    {"person": ["Ada", "Max"], "city": ["new york"], "other": []},
    {"entities": [["Ada", "person"], ["Max", "person"], ["New York", "city"]]},
    [["Ada", "person"], ["Max", "person"], ["New York", "city"]],
    [
        {"start": 0, "end": 3, "label": "person", "score": 0.9, "text": "Ada"},
        {"start": 8, "end": 11, "label": "person"},
        {"start": 15, "end": 23, "label": "city"},
    ],
    [
        {"text": "Ada", "type": "person"},
        {"word": "Max", "entity_group": "person"},
        {"mention": "New York", "type": "city"},
    ],
]


@pytest.mark.parametrize("as_text", [False, True, "fenced"])
@pytest.mark.parametrize("answer", ANSWERS)
def test_every_form_of_an_answer(answer: Any, as_text: Any) -> None:
    prediction = answer
    if as_text:
        text = json.dumps(answer)
        prediction = f"```json\n{text}\n```" if as_text == "fenced" else text
    converted = convert_row({**ROW, "prediction": prediction})
    match = match_labels(WORDS, converted.row["prediction"], TYPES)
    assert match.labels == GOLD
    assert (converted.left_out, converted.unreadable) == (0, 0)


@pytest.mark.parametrize("key", ["entities", "spans"])
@pytest.mark.parametrize("gold", ANSWERS)
def test_gold_entities_in_the_same_forms(gold: Any, key: str) -> None:
    row = convert_row({"text": TEXT, key: gold, "prediction": []}).row
    assert row["words"] == WORDS
    assert row["labels"] == GOLD
    assert row["types"] == ["city", "person"]


def test_gold_spans_of_words() -> None:
    gold = [[0, 0, "person"], [2, 2, "person"], [4, 5, "city"]]
    row = {"tokenized_text": WORDS, "ner": gold, "prediction": {"city": ["New York"]}}
    assert convert_row(row).row["labels"] == GOLD
    with pytest.raises(ValueError, match=r"^ner: expected words from 0 to 5: got 4 to 6$"):
        convert_row({**row, "ner": [[4, 6, "city"]]})


def test_a_list_of_texts_has_the_one_type() -> None:
    assert read_answer('["Ada"]', ["person"]) == [Mention("person", "Ada")]
    with pytest.raises(ValueError, match="expected one type for a list of texts: got 2 types"):
        read_answer(["Ada"], TYPES)


@pytest.mark.parametrize(
    ("prediction", "left_out"),
    [
        ({"city": ["Paris"]}, 1),
        ({"city": ["York", "New York", "New"]}, 2),
        ({"person": ["Ad", "M"]}, 2),
        ([{"start": 0, "end": 2, "label": "person"}], 1),
        ([{"start": -1, "end": 99, "label": "person"}], 1),
        ({"person": ["", " "]}, 2),
        ({"person": ["Ada", "Ada"]}, 0),
    ],
)
def test_entities_that_labels_cannot_hold_are_wrong(prediction: Any, left_out: int) -> None:
    assert convert_row({**ROW, "prediction": prediction}).left_out == left_out


def test_those_count_as_predicted(tmp_path: Path) -> None:
    row = {**ROW, "prediction": {"person": ["Ada"], "city": ["Paris"]}}
    file = write_rows(tmp_path / "a.jsonl", [row, row])
    scores = score_files([file])
    assert scores.datasets["a"].entities == (6, 4, 2)
    assert (scores.left_out, scores.forms) == (2, {str(file): "json"})


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"prediction": 3}, ValueError, "prediction: expected an object or a list of entities"),
        ({"prediction": [3]}, ValueError, "prediction: expected an entity with a type"),
        ({"prediction": {"person": [3]}}, ValueError, "expected texts of the type 'person': got 3"),
        ({"types": [1], "prediction": []}, TypeError, "types: expected a list of strings"),
        ({"words": "Ada", "prediction": []}, TypeError, "words: expected a list of strings"),
        ({"text": 1, "prediction": []}, TypeError, "text: expected a string, got int"),
        ({"text": "other", "prediction": []}, ValueError, r"words\[0\] 'Ada' is not in text"),
        ({}, ValueError, "prediction: this key is missing"),
    ],
)
def test_rows_that_cannot_be_read(changes: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        convert_row({**ROW, **changes})


@pytest.mark.parametrize(
    "gold", [{"city": ["Paris"]}, {"city": ["New York", "York"]}, {"person": ["Ad"]}]
)
def test_gold_entities_that_labels_cannot_hold(gold: Any) -> None:
    with pytest.raises(ValueError, match="is not in the sentence between whole words, or overl"):
        convert_row({"text": TEXT, "entities": gold, "prediction": []})


@given(sentences(max_size=6), st.data())
def test_written_labels_are_read_as_they_were(words: list[str], data: st.DataObject) -> None:
    label = st.sampled_from(["O", "B-x", "I-x", "B-y z", "B-)", "I-"])
    labels = data.draw(st.lists(label, min_size=len(words), max_size=len(words)))
    with contextlib.suppress(ValueError):  # some cannot be written
        text = write_generation(words, labels)
        assert match_labels(words, text, ["x", "y z", ")", ""]).labels == labels


@given(st.text(max_size=30), st.lists(st.tuples(st.integers(-3, 33), st.integers(-3, 33))))
def test_places_are_those_of_whole_words(text: str, spans: list[tuple[int, int]]) -> None:
    if any("\ud800" <= character <= "\udfff" for character in text):
        return
    mentions = [Mention("x", "", start, end) for start, end in spans]
    sentence = cut_sentence(text, None, mentions)
    assert all(text[a:b] == w for (a, b), w in zip(sentence.offsets, sentence.words, strict=True))
    labelled = label_words(sentence, mentions)
    assert len(labelled.labels) == len(sentence.words)
    assert len(labelled.left_out) <= len(mentions)


# Files.


CONLL = """-DOCSTART- -X- O O

Ada NNP S-per B-per
met VBD O O


New NNP B-loc I-loc
York X E-loc O
"""


def test_columns_of_labels(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_text(CONLL)
    (part,) = score_files([file], scheme="strict").datasets.values()
    assert (part.rows, part.words, part.types) == (2, 4, ("loc", "per"))
    assert part.entities == (2, 2, 1)
    assert part.errors.boundary == 1


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a B-x O\nb O\n", "1: word 2 of the sentence: expected a word, a gold and a predicted"),
        (
            "a O O\n\nb x O\n",
            "3: word 1 of the sentence: expected O or a label such as B-type: got",
        ),
        ("a O B-\n", "1: word 1 of the sentence: expected O or a label"),
        ("a\tb(O)c\tO\tO\n(O)\tO\tO\n", "1: the word '(O)' with the label 'O' cannot be scored"),
    ],
)
def test_columns_that_cannot_be_read(tmp_path: Path, text: str, problem: str) -> None:
    file = tmp_path / "a.conll"
    file.write_text(text + "\nc O O\n")
    with pytest.raises(ValueError, match=re.escape(f"{file}:{problem}")):
        score_files([file], form="conll")
    scores = score_files([file], form="conll", skip_bad_rows=True)
    assert scores.bad_rows == 1
    assert scores.listed_bad_rows[0].startswith(f"{file}:{problem}")


def test_columns_that_are_not_text(tmp_path: Path) -> None:
    file = tmp_path / "a.conll"
    file.write_bytes(b"a\xff O O\n")
    with pytest.raises(ValueError, match=r"a\.conll:1: 'utf-8' codec"):
        score_files([file])


def test_compressed_files_have_the_same_scores(tmp_path: Path) -> None:
    made = make_rows(2000)
    plain = write_rows(
        tmp_path / "a.jsonl", [{k: v for k, v in r.items() if k != "dataset"} for r in made]
    )
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    done: list[int] = []
    scores = score_files([packed], progress=done.append)
    assert scores.to_dict() == score_files([plain]).to_dict()
    assert done[-1] == packed.stat().st_size
    packed.write_bytes(packed.read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"a\.jsonl\.gz:\d+: not a whole file of gzip"):
        score_files([packed])


def test_converted_rows_keep_their_numbers(tmp_path: Path) -> None:
    rows = [{**ROW, "prediction": ANSWERS[0]}] * 1500
    content = [json.dumps(row).encode() for row in rows]
    content[700] = b"\n" + json.dumps({**ROW, "prediction": 1}).encode()
    content[900] = b"{"
    file = write_rows(tmp_path / "a.jsonl", content)
    scores = score_files([file], skip_bad_rows=True)
    assert scores.datasets["a"].rows == 1498
    first, second = scores.listed_bad_rows
    assert first.startswith(f"{file}:702: prediction: expected an object or a list")
    assert second.startswith(f"{file}:902: not valid JSON")
    with pytest.raises(ValueError, match=r"a\.jsonl:702: prediction: expected an object"):
        score_files([file])


@pytest.mark.parametrize(
    ("row", "form"),
    [
        (VALID, "gner"),
        ({**VALID, "prediction": ""}, "gner"),
        ({**VALID, "prediction": "plain text"}, "gner"),
        ({**VALID, "prediction": "[]"}, "json"),
        ({**VALID, "prediction": []}, "json"),
        ({"text": "a", "entities": [], "prediction": "a(O)"}, "json"),
        ([], "gner"),
    ],
)
def test_detection(row: Any, form: str) -> None:
    assert detect_form(json.dumps(row).encode()) == form


def test_generated_text_among_json_is_read_as_it_is(tmp_path: Path) -> None:
    rows = [{**ROW, "prediction": ANSWERS[0]}, {**ROW, "prediction": "Ada(B-person) x(O)"},
            {**ROW, "prediction": "none"}]  # fmt: skip
    scores = score_files([write_rows(tmp_path / "a.jsonl", rows)])
    assert scores.datasets["a"].entities == (9, 4, 4)
    assert (scores.unreadable, scores.datasets["a"].empty_predictions) == (1, 1)


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": NaN}', '{"a": [], "a": []}', "[1e999]"])
def test_hostile_answers_count_as_empty(text: str) -> None:
    converted = convert_row({**ROW, "prediction": text})
    assert (converted.row["prediction"], converted.unreadable) == ("", 1)


# Several files.


def test_files_are_kept_apart(tmp_path: Path) -> None:
    rows = make_rows(60, datasets=["one", "two"])
    files = [write_rows(tmp_path / f"{k}.jsonl", rows[k : k + 30]) for k in (0, 30)]
    scores = score_files(files, scheme="strict")
    expected = {f"{k}.jsonl: {name}" for k in (0, 30) for name in ("one", "two")}
    assert set(scores.datasets) == expected
    assert scores.compares
    for file, part in zip(("0.jsonl", "30.jsonl"), (rows[:30], rows[30:]), strict=True):
        assert scores.means[file] == score(part, scheme="strict").mean
    assert list(scores.to_dict()["means"]) == ["0.jsonl", "30.jsonl"]
    merged = score_files(files, scheme="strict", merge=True)
    assert merged.to_dict() == score(rows, scheme="strict").to_dict()
    assert not merged.compares


def test_files_of_one_name_are_called_by_their_paths(tmp_path: Path) -> None:
    files = []
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        files.append(write_rows(tmp_path / name / "a.jsonl", [VALID]))
    assert list(score_files(files).datasets) == [f"{file}: a" for file in files]


def test_data_sets_of_different_names_keep_them(tmp_path: Path) -> None:
    files = [write_rows(tmp_path / f"{name}.jsonl", [VALID]) for name in ("a", "b")]
    scores = score_files(files)
    assert list(scores.datasets) == ["a", "b"]
    assert "means" not in scores.to_dict()
