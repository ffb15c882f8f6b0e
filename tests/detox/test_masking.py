"""Masks in texts: the authors' on their own labels, and ours in the text as it was given."""

import json
import time
from pathlib import Path

import pytest

from lmcore.detox import mask_texts, mask_tokens
from lmcore.detox.tokenization import SegmentTokenizer, load_tokenizer
from tiny_detox import make_finder, make_words


@pytest.fixture(scope="module")
def bert(data_dir: Path) -> SegmentTokenizer:
    return load_tokenizer(data_dir / "tok/bert_base_uncased_vocab.txt")


def test_masks_are_those_of_the_authors(golden_dir: Path, bert: SegmentTokenizer) -> None:
    rows = json.loads((golden_dir / "detox/masking.json").read_text(encoding="utf-8"))
    encoded = bert.encode([row["text"] for row in rows])
    assert [tokens.ids for tokens in encoded] == [row["token_ids"] for row in rows]
    found = mask_tokens(
        [row["token_ids"] for row in rows], [row["span_labels"] for row in rows], bert
    )
    assert [text for text, _ in found] == [row["masked"] for row in rows]
    assert [count for _, count in found] == [row["masked"].count("<MASK>") for row in rows]


def test_masks_by_hand() -> None:
    tokenizer = make_words()
    ids = tokenizer.find_ids(["you", "are", "bad", "you", "fool", "!"])
    found = mask_tokens(
        [ids, ids, ids, ids[:1], []],
        [[0, 1, 0, 0, 1], [0, 1, 0, 1, 0], [0] * 5, [], []],
        tokenizer,
    )
    assert found == [
        ("you <MASK> you <MASK>", 2), ("you <MASK>!", 1), ("you are bad you fool!", 0), ("you", 0),
        ("", 0),
    ]  # fmt: skip
    (three,) = mask_tokens([ids], [[0, 0, 1, 0]], tokenizer, segment_size=3)
    assert three == ("you are <MASK>!", 1)
    with pytest.raises(ValueError, match=r"^labels\[1\] must be 5 values long: got 4$"):
        mask_tokens([ids, ids], [[0] * 5, [0] * 4], tokenizer)


def test_forms_of_masked_texts() -> None:
    finder = make_finder()
    texts = ["You are NICE, you FOOL!", "You are  nice", "", "Bad"]
    pieces = mask_texts(finder, texts)
    assert [one.masked for one in pieces] == ["you are nice, <MASK>", "you are nice", "", "bad"]
    given = mask_texts(finder, texts, form="text")
    assert [one.masked for one in given] == ["You are NICE, <MASK>", "You are  nice", "", "Bad"]
    for found in (pieces, given):
        assert [one.masks for one in found] == [1, 0, 0, 0]
        assert [one.text for one in found] == texts
    with pytest.raises(ValueError, match=r"^form must be one of pieces, text: got 'x'$"):
        mask_texts(finder, texts, form="x")


def test_masking_is_linear() -> None:
    """The released loop takes a time that grows with the square of the length."""
    tokenizer = make_words()
    ids = tokenizer.find_ids(["you"]) * 400_000
    start = time.process_time()
    (found,) = mask_tokens([ids], [[0, 1, 0, 0] * 99_999 + [0] * 3], tokenizer)
    assert found[1] == 99_999
    assert time.process_time() - start < 3
