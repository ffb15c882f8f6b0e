"""Rows to sentences, and windows back into one."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ner.instructions import write_instruction
from lmcore.ner.merging import (
    Part,
    cut_part,
    find_seams,
    group_rows,
    join_labels,
    read_sentence,
)

WORDS = list("abcdefgh")
LABELS = ["O", "B-x", "I-x", "I-x", "O", "B-y", "B-x", "O"]


def window(start: int, stop: int, **more: Any) -> dict[str, Any]:
    words = WORDS[start:stop]
    return {
        "dataset": "d", "types": ["x", "y"], "words": words, "labels": LABELS[start:stop],
        "instruction": write_instruction(words, ["y", "x"], dataset="d"),
        "window": {"start": start, "stop": stop, "of": 8, "sentence": 3}, **more,
    }  # fmt: skip


def test_windows_become_their_sentence() -> None:
    sentence = read_sentence([window(0, 4), window(2, 7), window(6, 8)])
    assert sentence.words == WORDS
    assert sentence.row == {
        "dataset": "d", "types": ["x", "y"], "words": WORDS, "labels": LABELS,
    }  # fmt: skip
    assert [part.start for part in sentence.parts] == [0, 2, 6]
    assert sentence.text == " ".join(WORDS)
    assert sentence.offsets[3] == (6, 7)


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([window(0, 4), window(5, 8)], "expected words from 4 on: got 5 to 8 of 8"),
        ([window(2, 8)], "expected words from 0 on: got 2 to 8"),
        ([window(0, 4)], "the words from 4 to 8 of the sentence are missing"),
        ([window(0, 8), window(6, 8)], "expected words from 8 on: got 6 to 8"),
        ([window(0, 8, words=["a"])], "words 0 to 8 are not the 1 of the row"),
        ([window(0, 4), window(2, 8, words=list("xdefgh"))], "are not those before it"),
        ([window(0, 8, window=3)], "window must hold start, stop and of"),
        ([window(0, 8, window={"start": 0.0, "stop": 8, "of": 8})], "whole numbers"),
    ],
)
def test_windows_that_are_no_sentence(rows: list[dict[str, Any]], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        read_sentence(rows)


def test_neighbours_of_one_sentence_are_grouped() -> None:
    other = window(0, 8, window={"start": 0, "stop": 8, "of": 8, "sentence": 4})
    rows = [window(0, 4), window(4, 8), other, {}, {}, window(0, 8), {"window": "none"}]
    sizes = [[place for place, _ in group] for group in group_rows(enumerate(rows))]
    assert sizes == [[0, 1], [2], [3], [4], [5], [6]]


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 12))
def test_windows_cover_each_word_once(count: int, most: int, overlap: int) -> None:
    part = Part(start=0, words=["a"] * count, instruction=None)
    windows = cut_part(part, lambda start, stop: stop - start <= most, overlap)
    assert all(0 < stop - start <= most for start, stop in windows)
    owned = [place for start, stop in find_seams(windows) for place in range(start, stop)]
    assert owned == list(range(count))
    for (start, stop), (begin, end) in zip(windows, find_seams(windows), strict=True):
        assert start <= begin <= end <= stop
    labels = [f"B-{place}" for place in range(count)]
    assert join_labels([(start, labels[start:stop]) for start, stop in windows]) == labels


def test_a_word_that_does_not_fit_has_a_window_of_its_own() -> None:
    part = Part(start=0, words=["a", "b"], instruction=None)
    assert cut_part(part, lambda start, stop: False, 4) == [(0, 1), (1, 2)]


def test_an_inside_without_its_entity_begins_one() -> None:
    assert join_labels([(0, ["O", "B-x"]), (2, ["I-x", "I-x"])]) == ["O", "B-x", "I-x", "I-x"]
    assert join_labels([(0, ["O", "O"]), (2, ["I-x", "I-x"])]) == ["O", "O", "B-x", "I-x"]
    assert join_labels([(0, ["B-y"]), (1, ["I-x"])]) == ["B-y", "B-x"]


def test_the_words_of_an_instruction_are_exchanged() -> None:
    words = ["Ada", "(x)", "ran"]
    own = write_instruction(words, ["t"], dataset="d")
    part = Part(start=0, words=words, instruction=own)
    assert part.instruct(["t"]) == own
    assert part.instruct(["t"], 1, 3) == write_instruction(words[1:3], ["t"], dataset="d")
    frame = Part(start=0, words=words, instruction="Satz: Ada (x) ran. Namen?")
    assert frame.instruct(["t"], 0, 1) == "Satz: Ada. Namen?"
    other = Part(start=0, words=words, instruction="something else")
    assert other.instruct(["t"], 0, 1) == write_instruction(["Ada"], ["t"])
    assert Part(start=0, words=words, instruction=None).instruct(["t"]) == write_instruction(
        words, ["t"]
    )


def test_rows_of_the_authors() -> None:
    row = {
        "dataset": "d", "split": "test", "label_list": ["x"],
        "instance": {
            "id": "7", "words": ["a", "b"], "labels": ["O", "O"],
            "instruction_inputs": "Ask: a b", "prompt_labels": "a(O) b(O)",
        },
    }  # fmt: skip
    sentence = read_sentence([row])
    assert sentence.words == ["a", "b"]
    assert sentence.types == ["x"]
    assert sentence.parts[0].instruct(["x"]) == "Ask: a b"
    assert sentence.row == row


def test_texts_and_types_for_rows_without() -> None:
    sentence = read_sentence([{"text": "我爱 Ada."}], ["人"])
    assert sentence.row == {"text": "我爱 Ada.", "types": ["人"], "words": ["我", "爱", "Ada", "."]}
    assert sentence.split
    both = read_sentence([{"text": "a  b", "words": ["a", "b"], "types": ["x"]}], ["y"])
    assert both.types == ["x"]
    assert both.offsets == [(0, 1), (3, 4)]
    gold = read_sentence([{"text": "a", "types": ["x"], "entities": [1]}])
    assert gold.row["gold_entities"] == [1]


@pytest.mark.parametrize(
    ("row", "error", "problem"),
    [
        ({"words": ["a"]}, ValueError, "types is missing"),
        ({"words": ["a"], "types": []}, ValueError, "at least one"),
        ({"words": ["a"], "types": ["a)"]}, ValueError, "parenthesis"),
        ({"words": ["a"], "types": "x"}, TypeError, "types must be a list of strings"),
        ({"words": ["a"], "types": [3]}, TypeError, r"types\[0\] must be a string: got 3"),
        ({"types": ["x"]}, ValueError, "words is missing, and so is text"),
        ({"types": ["x"], "words": "a b"}, TypeError, "words must be a list of strings"),
        ({"types": ["x"], "words": ["a", None]}, TypeError, r"words\[1\] must be a string"),
        ({"types": ["x"], "words": []}, ValueError, "no words"),
        ({"types": ["x"], "text": " "}, ValueError, "no words"),
        ({"types": ["x"], "text": 3}, TypeError, "text must be a string"),
        ({"types": ["x"], "text": "a", "words": ["b"]}, ValueError, "do not stand in the text"),
        ({"types": ["x"], "words": ["a"], "instruction": 3}, TypeError, "instruction must be"),
    ],
)
def test_rows_that_cannot_be_used(
    row: dict[str, Any], error: type[Exception], problem: str
) -> None:
    with pytest.raises(error, match=problem):
        read_sentence([row])
