"""Tokenizers of segments: the released data's pairs, and texts as BERT writes them."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders

from lmcore.detox.tokenization import load_tokenizer, make_tokenizer, tidy
from tiny_detox import WORDS, make_words


def test_pairs_are_those_of_the_released_data(data_dir: Path) -> None:
    tokenizer = load_tokenizer(data_dir / "tok/bert_base_uncased_vocab.txt")
    lines = (data_dir / "tox/segmentcnn_jigsaw_scored.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    encoded = tokenizer.encode([row["content"] for row in rows])
    for row, (ids, offsets) in zip(rows, encoded, strict=True):
        assert tokenizer.find_ids(row["tokenize_content"]) == ids
        assert all(0 <= a < b <= len(row["content"]) for a, b in offsets)
        pairs = np.array([ids[:-1], ids[1:]]).T
        assert tokenizer.decode_segments(pairs, skip_special_tokens=True) == row["span"]


_ids = st.integers(0, len(WORDS) + 4)


@given(st.lists(st.lists(_ids, max_size=7), max_size=5), st.booleans())
def test_texts_are_those_of_the_library(rows: list[list[int]], skip: bool) -> None:
    tokenizer = make_words()
    theirs = make_words().tokenizer
    theirs.decoder = decoders.WordPiece(cleanup=False)
    expected = [tidy(theirs.decode(row, skip_special_tokens=skip)) for row in rows]
    assert tokenizer.decode(rows, skip_special_tokens=skip) == expected


@given(st.integers(1, 5).flatmap(
    lambda n: st.lists(st.lists(_ids, min_size=n, max_size=n), min_size=1, max_size=9)
), st.booleans())  # fmt: skip
def test_segments_are_texts(rows: list[list[int]], skip: bool) -> None:
    tokenizer = make_words()
    found = tokenizer.decode_segments(np.array(rows), skip_special_tokens=skip)
    assert found == tokenizer.decode(rows, skip_special_tokens=skip)


def test_files(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(["a", "b", "B"])
    tokenizer.save(tmp_path)
    assert load_tokenizer(tmp_path).encode(["A b"]) == tokenizer.encode(["A b"])
    (tmp_path / "tokenizer.json").unlink()
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\nb\nB\n")
    assert load_tokenizer(tmp_path).encode(["A B"])[0].ids == [5, 6]
    (tmp_path / "tokenizer_config.json").write_text('{"do_lower_case": false}')
    assert load_tokenizer(tmp_path).encode(["A B"])[0].ids == [1, 7]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"[PAD]\n[UNK]\n[CLS]\n[SEP]\n", r"there is no token \[MASK\]"),
        (b"[PAD]\na\na\n", "'a' stands in line 2 and 3"),
        (b"[PAD]\n\na\n", "line 2 holds no token"),
        (b"\xff", "not UTF-8 at byte 1"),
    ],
)
def test_files_that_are_no_tokenizer(tmp_path: Path, content: bytes, text: str) -> None:
    file = tmp_path / "vocab.txt"
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"vocab\.txt: {text}$"):
        load_tokenizer(file)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tokenizer\.json: not a file of tokenizers: "):
        load_tokenizer(tmp_path)
