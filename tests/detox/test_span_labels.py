"""Labels of segments: the released pairs, SemEval's characters, and a scorer's."""

import gzip
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmcore.detox import read_labelled, score_segments
from lmcore.detox.span_labels import label_offsets
from lmcore.detox.span_rows import find_span_form
from lmcore.detox.tokenization import load_tokenizer
from tiny_detox import make_words


def write(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


# Real files.


def test_released_pairs(data_dir: Path) -> None:
    tokenizer = load_tokenizer(data_dir / "tok/bert_base_uncased_vocab.txt")
    found = read_labelled(data_dir / "tox/segmentcnn_jigsaw_scored.jsonl", tokenizer)
    assert (len(found.examples), found.bad_rows, found.distinct) == (439, 0, None)
    assert sum(int(example.labels.sum()) for example in found.examples) == 994
    assert all(len(ids) == len(labels) + 1 for ids, labels, _ in found.examples)


def test_released_offsets(data_dir: Path) -> None:
    tokenizer = load_tokenizer(data_dir / "tok/bert_base_uncased_vocab.txt")
    found = read_labelled(data_dir / "tox/semeval2021_tsd_trial.csv", tokenizer)
    assert (len(found.examples), found.bad_rows) == (690, 0)
    assert sum(example.toxic for example in found.examples) == 690 - 43


# By hand.


def test_pairs_by_hand(tmp_path: Path) -> None:
    rows = [
        {"content": "You are bad", "score": [0.5, 0.51]},
        {"content": "you are", "score": [0], "toxic": 1},
        {"content": "x", "tokenize_content": ["you", "zzz", "bad"], "score": [0, 1], "toxic": 0},
        {"text": "bad", "score": []},
    ]
    tokenizer = make_words()
    found = read_labelled(write(tmp_path / "a.jsonl", rows), tokenizer).examples
    assert [example.labels.tolist() for example in found] == [[0, 1], [0], [0, 1], []]
    assert [example.toxic for example in found] == [1, 1, 0, 0]
    assert found[2].ids.tolist() == [*tokenizer.find_ids(["you"]), 1, *tokenizer.find_ids(["bad"])]
    packed = tmp_path / "a.jsonl.gz"
    packed.write_bytes(gzip.compress((tmp_path / "a.jsonl").read_bytes()))
    assert str(read_labelled(packed, tokenizer, threshold=0.6).examples[0].labels) == "[0 0]"


def test_characters_by_hand(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    # Fields hold commas, quotes, line breaks, and spaces at the ends of lines.
    file.write_text(
        'spans,text\n"[4, 5, 6]","you bad ""fool"", \n  are"\n[],you are\n'
        '"[11]","İ 北京 you fool"\n',
        encoding="utf-8",
    )
    found = read_labelled(file, make_words()).examples
    assert [example.labels.tolist() for example in found] == [
        [1, 1, 0, 0, 0, 0], [0], [0, 0, 0, 1],
    ]  # fmt: skip
    assert [example.toxic for example in found] == [1, 0, 1]
    three = read_labelled(file, make_words(), segment_size=3).examples
    assert [example.labels.tolist() for example in three] == [[1, 1, 0, 0, 0], [], [0, 0, 1]]


def test_a_segment_is_toxic_that_has_a_toxic_character() -> None:
    offsets = [(0, 3), (4, 7), (8, 9), (9, 12)]
    assert label_offsets([], offsets).tolist() == [0, 0, 0]
    assert label_offsets([3], offsets).tolist() == [0, 0, 0]  # the space between
    assert label_offsets([6], offsets).tolist() == [1, 1, 0]
    assert label_offsets([9], offsets, 1).tolist() == [0, 0, 0, 1]


def test_a_scorer_sees_each_distinct_pair_once(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"text": "you are bad"}, {"content": "bad you are"}, {"prompt": {"text": "You are!"}},
        {"prompt": "bad"},
    ]  # fmt: skip
    asked: list[list[str]] = []

    def scorer(texts: Sequence[str]) -> list[float]:
        asked.append([*texts])
        return [0.9 if "bad" in text else 0.1 for text in texts]

    found = read_labelled(write(tmp_path / "a.jsonl", rows), make_words(), scorer=scorer)
    assert [example.labels.tolist() for example in found.examples] == [[0, 1], [1, 0], [0, 0], []]
    assert [example.toxic for example in found.examples] == [1, 1, 0, 1]
    pairs, texts = asked
    assert pairs == ["you are", "are bad", "bad you", "are!"]
    assert len(texts) == 4
    assert found.distinct == 4


def test_scores_are_mapped_back() -> None:
    tokenizer = make_words()
    words = ["you", "are", "you", "are", "so"]
    scores = score_segments(
        [tokenizer.find_ids(words), [], tokenizer.find_ids(["so"]), [1, 1]], tokenizer,
        lambda texts: np.arange(len(texts)) / 10,
    )  # fmt: skip
    # Of two unknown tokens nothing is left to score.
    assert [row.tolist() for row in scores] == [[0.0, 0.1, 0.0, 0.2], [], [], [0.0]]


# What cannot be used.


@pytest.mark.parametrize(
    ("row", "text"),
    [
        ({"content": "you are bad", "score": [1]},
         "score must have a label for each of the 2 segments of 3 tokens: got 1"),
        ({"content": "you are bad", "score": [1, 0, 0]},
         "score must have a label for each of the 2 segments of 3 tokens: got 3"),
        ({"content": "you", "tokenize_content": [], "score": []}, "the text has no tokens"),
        ({"content": "\x01", "score": []}, "the text has no tokens"),
        ({"content": " ", "score": []}, "content must not be empty"),
        ({"content": 1, "score": []}, "content must be a text: got int"),
        ({"score": []}, "content is missing"),
        ({"content": "you are"}, "score must be a list of numbers from 0 to 1"),
        ({"content": "you are", "score": [2]}, "score must be a list of numbers from 0 to 1"),
        ({"content": "you are", "score": [True]}, "score must be a list of numbers from 0 to 1"),
        ({"content": "you are", "score": [0], "tokenize_content": "a"},
         "tokenize_content must be a list of texts"),
        ({"content": "you are", "score": [0], "toxic": "x"},
         "toxic must be a number from 0 to 1: got 'x'"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used(tmp_path: Path, row: dict[str, Any], text: str) -> None:
    good = {"content": "you are", "score": [0]}
    file = write(tmp_path / "a.jsonl", [good, row, good])
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}:2: {text}')}$"):
        read_labelled(file, make_words())
    found = read_labelled(file, make_words(), skip_bad_rows=True)
    assert (len(found.examples), found.listed_bad_rows) == (2, [f"{file}:2: {text}"])


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('"[0, 99]",you are', "spans must be from 0 to 6, the last character: got 99"),
        ('"[-1]",you are', "spans must be from 0 to 6, the last character: got -1"),
        ('"[0.5]",you are', "spans must be a list of places of characters: got '[0.5]'"),
        ("x,you are", "spans must be a list of places of characters: got 'x'"),
        ("[]", "expected 2 columns: got 1"),
        ("[],a,b", "expected 2 columns: got 3"),
        ("[],", "the text has no tokens"),
        ('[],"a"b', "not a record of CSV: ',' expected after '\"'"),
    ],
)
def test_records_that_cannot_be_used(tmp_path: Path, line: str, text: str) -> None:
    file = tmp_path / "a.csv"
    # A record of two lines before it.
    file.write_text(f'spans,text\n[],"you\nare"\n{line}\n[],you\n')
    with pytest.raises(ValueError, match=f"^{re.escape(f'{file}:4: {text}')}$"):
        read_labelled(file, make_words())
    found = read_labelled(file, make_words(), skip_bad_rows=True)
    assert (len(found.examples), found.listed_bad_rows) == (2, [f"{file}:4: {text}"])


def test_files_that_hold_nothing(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_text("spans,text\n")
    with pytest.raises(ValueError, match=r"a\.csv: the file holds no rows$"):
        read_labelled(file, make_words())
    file.write_text("a,b\n")
    with pytest.raises(ValueError, match=r"a\.csv:1: expected columns spans and text: got \['a'"):
        read_labelled(file, make_words())
    file.write_bytes(b"spans,text\n[],\xff\n")
    with pytest.raises(ValueError, match=r"a\.csv:\d: not UTF-8$"):
        read_labelled(file, make_words())


@pytest.mark.parametrize(
    ("scores", "error", "text"),
    [
        ([0.5], ValueError, "must return 2 numbers: got the shape (1,)"),
        ([[0.5, 0.5]], ValueError, "must return 2 numbers: got the shape (1, 2)"),
        ([0.5, float("nan")], ValueError, "returned nan for texts[1], 'are bad': expected a"),
        ([0.5, 1.5], ValueError, "returned 1.5 for texts[1], 'are bad': expected a"),
        (["x", "y"], TypeError, "must return numbers: got list"),
        (None, TypeError, "must return numbers: got NoneType"),
    ],
)
def test_scorers_that_give_something_else(scores: Any, error: type[Exception], text: str) -> None:
    tokenizer = make_words()
    ids = tokenizer.find_ids(["you", "are", "bad"])
    with pytest.raises(error, match=f"^the scorer {re.escape(text)}"):
        score_segments([ids], tokenizer, lambda texts: scores)


def test_forms() -> None:
    with pytest.raises(
        ValueError, match=r"^format must be one of auto, pairs, semeval, texts: got"
    ):
        find_span_form("a", "x", scored=False)
    with pytest.raises(ValueError, match=r"^the format texts needs a scorer"):
        find_span_form("a", "texts", scored=False)
    with pytest.raises(ValueError, match=r"^a scorer goes with the format texts: got pairs$"):
        find_span_form("a", "pairs", scored=True)
    assert find_span_form("a.CSV.gz", scored=False) == "semeval"
