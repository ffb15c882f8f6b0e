"""Pairs as rows of ids: the authors' rows, the rule for what does not fit, and what is counted."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.diffusion.data import SHORTEST, encode_pairs, find_kept_lengths, read_targets
from lmcore.diffusion.pairs import Pair, PairReader
from lmcore.diffusion.tokenization import load_tokenizer, make_bert_tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##c"]


@pytest.fixture(scope="module")
def tokenizer():
    return make_bert_tokenizer(TOKENS)


def test_agrees_with_the_authors_rows(data_dir, golden_dir):
    expected = json.loads((golden_dir / "diffuseq" / "pairs.json").read_text())
    pairs = list(PairReader(data_dir / "text" / "qqp" / "valid.jsonl"))
    bert = load_tokenizer(data_dir / "tok" / "bert_base_uncased_vocab.txt")
    assert bert.vocabulary_size == 30522
    lengths = {case["seq_len"] for case in expected}
    assert len(expected) > 400
    assert len(lengths) > 1
    for length in lengths:
        cases = [case for case in expected if case["seq_len"] == length]
        found = encode_pairs([pairs[case["row"]] for case in cases], bert, length)
        assert found.ids.tolist() == [case["input_ids"] for case in cases]
        assert found.target_mask.astype(int).tolist() == [case["input_mask"] for case in cases]


def shorten(source: int, target: int, length: int) -> tuple[int, int]:
    """The authors' loop."""
    while source + target > length - 3:
        if source >= target:
            source, target = source - 1, target - (source == target)
        else:
            target -= 1
    return source, target


@given(st.integers(1, 60), st.integers(1, 60), st.integers(SHORTEST, 130))
def test_what_is_kept_is_what_the_loop_keeps(source, target, length):
    assert find_kept_lengths(source, target, length) == shorten(source, target, length)


def test_what_did_not_fit_is_counted(tokenizer):
    found = encode_pairs([Pair("a a a a a a", "b"), Pair("a", "b ac")], tokenizer, 10)
    assert (found.shortened, found.cut_tokens) == (1, 2)
    assert found.ids.tolist() == [
        [2, 4, 4, 4, 4, 3, 3, 2, 5, 3], [2, 4, 3, 3, 2, 5, 4, 6, 3, 0],
    ]  # fmt: skip
    assert found.source_lengths.tolist() == [7, 4]


def test_unknown_tokens_are_counted(tokenizer):
    assert encode_pairs([Pair("a x", "y"), Pair("a", "b")], tokenizer, 12).unknown_tokens == 2


def test_rows_come_back_as_text(tokenizer):
    found = encode_pairs([Pair("a b", "b ac a")], tokenizer, 16)
    assert read_targets(found.ids[0], found.source_lengths[0], tokenizer) == "[CLS] b ac a [SEP]"


def test_no_pairs_are_no_rows(tokenizer):
    found = encode_pairs([], tokenizer, 16)
    assert found.ids.shape == (0, 16)
    assert found.source_lengths.shape == (0,)


def test_more_pairs_than_are_encoded_at_once(tokenizer):
    pairs = [Pair("a" + " b" * (number % 5), "b") for number in range(2500)]
    found = encode_pairs(pairs, tokenizer, 16)
    assert len(found) == 2500
    assert np.array_equal(found.source_lengths, 4 + np.arange(2500) % 5)


@pytest.mark.parametrize("length", [-1, 0, SHORTEST - 1])
def test_a_length_that_holds_nothing_is_refused(tokenizer, length):
    with pytest.raises(ValueError, match=f"length must be at least {SHORTEST}: got {length}"):
        encode_pairs([Pair("a", "b")], tokenizer, length)


def test_a_text_without_tokens_is_refused(tokenizer):
    with pytest.raises(ValueError, match="pair 1: its target has no tokens"):
        encode_pairs([Pair("a", "b"), Pair("a", "​")], tokenizer, 16)


def test_the_fingerprint_tells_rows_apart(tokenizer):
    one, two, three = (
        encode_pairs([Pair(*texts)], tokenizer, length).find_fingerprint()
        for texts, length in ((("a", "b"), 16), (("b", "a"), 16), (("a", "b"), 17))
    )
    assert len({one, two, three}) == 3
