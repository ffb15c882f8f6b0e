"""`ops.predictions.align_row` and `align_file` against their definition."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.entities import SCHEMES
from lmcore.ops.predictions import (
    Entity,
    GeneratedWord,
    Substitution,
    align_file,
    align_row,
)
from lmcore.ops.words import split_words
from lmcore.reference import predictions as reference
from parity import agree
from prediction_rows import (
    VALID,
    write_json,
    write_rows,
)
from scored_rows import (
    check_file_error,
)
from strategies import generations, label_lists, sentences, texts


@st.composite
def rows_to_align(draw: st.DrawFn) -> dict[str, Any]:
    words, types = draw(sentences()), draw(label_lists)
    row: dict[str, Any] = {"words": words, "label_list": types}
    row["prediction"] = draw(generations(words, types))
    if draw(st.booleans()):
        between = st.sampled_from(["", " ", "  ", "\n", "北", "👍🏽", "e\u0301"])
        row["text"] = "".join(draw(between) + word for word in words) + draw(between)
    if draw(st.booleans()):
        row["instance"] = {"words": row.pop("words")}
    return row


@given(rows_to_align(), st.sampled_from(SCHEMES))
def test_aligned_row(row: dict[str, Any], scheme: str) -> None:
    agree(reference.align_row, align_row, row, scheme)


@given(texts, label_lists, st.sampled_from(SCHEMES), st.data())
def test_aligned_text(text: str, types: list[str], scheme: str, data: st.DataObject) -> None:
    """Without words, the text is cut, and so are the generated words."""
    pieces = [text[start:end] for start, end in split_words(text)]
    given_words = data.draw(st.sampled_from([pieces, text.split()]))
    row = {
        "text": text,
        "label_list": types,
        "prediction": data.draw(generations(given_words, types)),
    }
    aligned = agree(reference.align_row, align_row, row, scheme)
    assert len(aligned.labels) == len(pieces)
    for entity in aligned.entities:
        assert text[entity.start : entity.end] == entity.text != ""
        assert entity.type in types


@given(st.lists(rows_to_align(), min_size=1, max_size=4), st.data())
def test_aligned_file(folder: Path, made: list[dict[str, Any]], data: st.DataObject) -> None:
    scheme = data.draw(st.sampled_from(SCHEMES))
    source = random.Random(data.draw(st.integers(0, 2**32)))
    written = [write_json(row, source, data.draw(st.booleans())).encode() for row in made]
    file, target = write_rows(folder / "in.jsonl", written), folder / "out.jsonl"
    failures = [(number, str(e)) for number, row in enumerate(made, 1) if (e := _failure(row))]
    if failures:
        number, text = failures[0]
        with pytest.raises(ValueError, match="words") as raised:
            align_file(file, target, scheme)
        assert str(raised.value) == f"{file}:{number}: {text}"
        return
    assert align_file(file, target, scheme, threads=2) == (len(made), 0, [])
    content = target.read_text(encoding="utf-8")
    assert content.endswith("\n")
    aligned = [json.loads(line) for line in content[:-1].split("\n")]
    assert aligned == [align_row(row, scheme).to_dict() for row in made]


def _failure(row: dict[str, Any]) -> ValueError | None:
    try:
        align_row(row)
    except ValueError as error:
        return error
    return None


def test_aligned_file_of_several_blocks(folder: Path, many_rows: Path) -> None:
    target = folder / "several.jsonl"
    align_file(many_rows, target, "strict", threads=2)
    made = [json.loads(line) for line in many_rows.read_bytes().splitlines()]
    aligned = [json.loads(line) for line in target.read_text(encoding="utf-8").split("\n")[:-1]]
    assert len(aligned) == len(made)
    for row, got in zip(made[::10], aligned[::10], strict=True):
        expected = agree(reference.align_row, align_row, row, "strict")
        assert got == expected.to_dict()


def test_aligned_row_says_where_entities_stand() -> None:
    row = {"text": "👩‍👩‍👧 in 北京 e\u0301a", "label_list": ["c"], "prediction": "北京(B-c) é(O)"}
    aligned = align_row(row)
    assert aligned.entities == [Entity(start=9, end=11, type="c", text="北京")]
    assert [word.word for word in aligned.omitted] == ["👩‍👩‍👧", "in"]
    generated = GeneratedWord(index=2, word="é", label="O")
    assert aligned.substituted == [Substitution(index=4, word="e\u0301a", generated=generated)]
    assert align_row(row).to_dict()["entities"] == [
        {"start": 9, "end": 11, "type": "c", "text": "北京"}
    ]


@pytest.mark.parametrize(
    ("row", "kind", "text"),
    [
        (
            {"label_list": [], "prediction": ""},
            ValueError,
            "words: this key is missing, and so is text",
        ),
        ({"words": ["a"], "prediction": ""}, ValueError, "types: this key is missing"),
        ({"text": "a", "label_list": []}, ValueError, "prediction: this key is missing"),
        (
            {"text": 1, "label_list": [], "prediction": ""},
            TypeError,
            "text: expected a string, got a number",
        ),
        (
            {"text": "a b", "words": ["a", "c"], "label_list": [], "prediction": ""},
            ValueError,
            "words: words[1] 'c' is not in text after character 1",
        ),
        (
            {"words": "ab", "label_list": [], "prediction": ""},
            TypeError,
            "words: expected a list of strings, got a string",
        ),
        (
            {"text": "\ud800", "label_list": [], "prediction": ""},
            ValueError,
            "text: holds a lone surrogate",
        ),
        (
            {**VALID, "instance": 1},
            TypeError,
            "instance: expected an object, got a number",
        ),
        ({**VALID, "instance": None}, TypeError, "instance: expected an object, got null"),
        ({**VALID, "instance": "words"}, TypeError, "instance: expected an object, got a string"),
        ({**VALID, "instance": ["words"]}, TypeError, "instance: expected an object, got a list"),
        (
            {"label_list": [], "prediction": "", "instance": {"words": {}}},
            TypeError,
            "instance.words: expected a list of strings, got an object",
        ),
        (
            {**VALID, "instance": {"words": VALID["words"]}},
            ValueError,
            "words: this key stands at the top of the row and in its instance",
        ),
        ([], TypeError, "expected a JSON object, got a list"),
    ],
)  # fmt: skip
def test_row_that_cannot_be_aligned(
    tmp_path: Path, row: Any, kind: type[Exception], text: str
) -> None:
    error = agree(reference.align_row, align_row, row)
    assert (type(error), str(error)) == (kind, text)
    target = tmp_path / "b.jsonl"
    target.write_bytes(b"before")
    file = write_rows(tmp_path / "a.jsonl", [VALID, json.dumps(row).encode(), VALID])
    with pytest.raises(kind) as raised:
        align_file(file, target)
    assert str(raised.value) == f"{file}:2: {text}"
    assert target.read_bytes() == b"before"
    assert align_file(file, target, skip_bad_rows=True) == (2, 1, [f"{file}:2: {text}"])
    assert target.read_bytes().count(b"\n") == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]


@pytest.mark.parametrize("value", [float("nan"), {1, 2}, b"bytes", object()])
def test_unread_keys_of_a_row_may_hold_anything(value: Any) -> None:
    """As for `score_examples`: a row from a data frame carries more than is read."""
    assert align_row({**VALID, "unread": value}) == align_row(VALID)


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID])
    cases: list[tuple[Path, type[OSError]]] = [
        (tmp_path / "none" / "b.jsonl", FileNotFoundError),
        (tmp_path, IsADirectoryError),
        (file / "b.jsonl", NotADirectoryError),
    ]
    for target, kind in cases:
        with pytest.raises(kind) as raised:
            align_file(file, target)
        check_file_error(raised.value, target)
    assert [path.name for path in tmp_path.iterdir()] == ["a.jsonl"]


def test_output_is_a_device_but_not_the_input(tmp_path: Path) -> None:
    file = write_rows(tmp_path / "a.jsonl", [VALID] * 3)
    before = file.read_bytes()
    (tmp_path / "soft.jsonl").symlink_to(file)
    (tmp_path / "hard.jsonl").hardlink_to(file)
    assert align_file(file, os.devnull) == (3, 0, [])
    assert Path(os.devnull).is_char_device()
    for name in ("a.jsonl", "soft.jsonl", "hard.jsonl"):
        with pytest.raises(ValueError, match=f"{name}: the output is an input too"):
            align_file(file, tmp_path / name)
    assert file.read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 3
