"""`BackTokenizer`: the plain round trip of each word, in one batch and only once."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from lmcore.ner import BackTokenizer, score
from lmcore.reference.matching import match_labels
from prediction_rows import VALID
from strategies import PECULIAR_WORDS, characters

LETTERS = "abcdefghijklmnopqrstuvwxyz"


def make_wordpiece() -> Tokenizer:
    """Lower-case Latin letters; a word with any other character is unknown, and left out."""
    pieces = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", *LETTERS, *(f"##{c}" for c in LETTERS), "new"]
    vocabulary = {piece: k for k, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.add_special_tokens(["[UNK]", "[PAD]", "[CLS]", "[SEP]"])
    return tokenizer


def make_unigram() -> Tokenizer:
    """Pieces as of SentencePiece; an unknown character is lost, the rest of the word is not."""
    pieces = [("<unk>", 0.0), ("</s>", 0.0), ("▁", -1.0), ("▁new", -2.0)]
    tokenizer = Tokenizer(models.Unigram(pieces + [(c, -3.0) for c in LETTERS], unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    tokenizer.add_special_tokens(["<unk>", "</s>"])
    return tokenizer


def make_byte_level() -> Tokenizer:
    """Bytes: every word comes back as it was."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({piece: k for k, piece in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def wrap(tokenizer: Tokenizer, **options: Any) -> Any:
    from transformers import PreTrainedTokenizerFast

    wrapper: Any = PreTrainedTokenizerFast
    return wrapper(tokenizer_object=tokenizer, **options)


MAKERS: dict[str, Callable[[], Tokenizer]] = {
    "WordPiece": make_wordpiece,
    "Unigram": make_unigram,
    "byte-level": make_byte_level,
}
WORDS = ["york", "new", "bront", "brontë", "北京", "👍🏽", "e\u0301", "don't", "a.b", "ǆ", ""]


def round_trip(tokenizer: Tokenizer, word: str) -> str:
    text: str = tokenizer.decode(tokenizer.encode(word).ids, skip_special_tokens=True)
    return text


def wrapped_round_trip(tokenizer: Any, word: str) -> str:
    text: str = tokenizer.decode(tokenizer(word)["input_ids"], skip_special_tokens=True)
    return text


class Counting:
    """A tokenizer that counts its batches."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.asked: list[Sequence[str]] = []

    def encode_batch_fast(self, words: Sequence[str], *args: Any, **kwargs: Any) -> Any:
        self.asked.append(list(words))
        return self.tokenizer.encode_batch_fast(words, *args, **kwargs)

    def decode_batch(self, ids: Any, *args: Any, **kwargs: Any) -> Any:
        return self.tokenizer.decode_batch(ids, *args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.tokenizer, name)


# Laws.


@pytest.mark.parametrize("maker", MAKERS)
@given(st.lists(st.one_of(st.text(characters, max_size=6), st.sampled_from(PECULIAR_WORDS))))
def test_round_trip_of_each_word(maker: str, words: list[str]) -> None:
    words = [word.lower() for word in words]
    tokenizer = MAKERS[maker]()
    back = BackTokenizer(tokenizer)
    expected = [round_trip(MAKERS[maker](), word) for word in words]
    assert back(words) == expected
    assert back(words[::-1]) == expected[::-1]
    if maker == "byte-level":
        assert expected == words


def test_unknown_characters_are_lost() -> None:
    assert BackTokenizer(make_wordpiece())(WORDS[:5]) == ["york", "new", "bront", "", ""]
    assert BackTokenizer(make_unigram())(WORDS[:5]) == ["york", "new", "bront", "bront", ""]
    assert BackTokenizer(make_byte_level())(WORDS) == WORDS


@pytest.mark.parametrize("maker", MAKERS)
def test_each_word_is_asked_for_once(maker: str) -> None:
    counting = Counting(MAKERS[maker]())
    back = BackTokenizer(counting)
    first = back(["b", "a", "b", "c", "a"])
    assert counting.asked == [["b", "a", "c"]]
    assert back(["c", "d", "a", "d"]) == [first[3], "d", first[1], "d"]
    assert counting.asked == [["b", "a", "c"], ["d"]]
    assert back(["a"] * 3) == ["a"] * 3
    assert back([]) == []
    assert len(counting.asked) == 2


def test_remembered_words_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lmcore.ner.back_tokenization._LIMIT", 3)
    counting = Counting(make_wordpiece())
    back = BackTokenizer(counting)
    for words in (["a", "b"], ["c", "a"], ["a", "d"], ["a", "b", "e", "f", "g", "a"], ["a"]):
        assert back(words) == words
    assert counting.asked[:3] == [["a", "b"], ["c"], ["a", "d"]]


@pytest.mark.parametrize("maker", MAKERS)
def test_padding_and_truncation_of_the_file_do_not_show(maker: str) -> None:
    """Saved tokenizers often pad and cut sentences; a word among others is still the word."""
    tokenizer = MAKERS[maker]()
    expected = [round_trip(tokenizer, word) for word in WORDS]
    tokenizer.add_tokens(["<pad>"])
    tokenizer.enable_padding(pad_id=tokenizer.token_to_id("<pad>"), pad_token="<pad>")
    assert [round_trip(tokenizer, word) for word in WORDS] == expected
    assert BackTokenizer(tokenizer)(WORDS) == expected
    tokenizer.enable_truncation(2)
    BackTokenizer(tokenizer)(WORDS)
    # The caller's tokenizer stays as it is.
    assert (tokenizer.truncation or {}).get("max_length") == 2
    assert (tokenizer.padding or {}).get("pad_token") == "<pad>"


@pytest.mark.parametrize("maker", MAKERS)
@pytest.mark.parametrize("cleans", [False, True])
def test_transformers_tokenizer(maker: str, cleans: bool) -> None:
    options = {"WordPiece": {"unk_token": "[UNK]"}, "Unigram": {"unk_token": "<unk>"}}
    given = {**options.get(maker, {}), "clean_up_tokenization_spaces": cleans}
    tokenizer = wrap(MAKERS[maker](), **given)
    expected = [wrapped_round_trip(tokenizer, word) for word in WORDS]
    back = BackTokenizer(wrap(MAKERS[maker](), **given))
    assert back(WORDS) == expected
    assert back(WORDS[::-1]) == expected[::-1]


def test_transformers_tokenizer_that_pads_and_truncates() -> None:
    def make() -> Any:
        saved = make_wordpiece()
        saved.enable_truncation(3)
        saved.enable_padding(pad_id=1, pad_token="[PAD]")
        return wrap(saved, unk_token="[UNK]", pad_token="[PAD]", model_max_length=4)

    words = ["york", "a", "brontosaurus"]
    expected = [wrapped_round_trip(make(), word) for word in words]
    assert expected == words
    assert BackTokenizer(make())(words) == expected


def test_saved_tokenizer(tmp_path: Path) -> None:
    wrap(make_unigram(), unk_token="<unk>", eos_token="</s>").save_pretrained(tmp_path)
    for name in (tmp_path, str(tmp_path)):
        assert BackTokenizer.from_pretrained(name)(WORDS[:4]) == ["york", "new", "bront", "bront"]


def test_no_such_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises((OSError, ValueError)):
        BackTokenizer.from_pretrained(tmp_path / "none")
    with pytest.raises((OSError, ValueError)):
        BackTokenizer.from_pretrained(tmp_path)


@pytest.mark.parametrize("other", [None, "name", {}, lambda words: words, os])
def test_other_objects(other: Any) -> None:
    with pytest.raises(TypeError, match=r"^tokenizer must be a transformers tokenizer or a "):
        BackTokenizer(other)


# In use.


@pytest.mark.parametrize("maker", MAKERS)
def test_scores_with_a_tokenizer(maker: str) -> None:
    words, generation = ["The", "Brontë", "北京", "York"], "the(O) bront(B-x) (O) York(B-x)"
    row = {"label_list": ["x"], "words": words, "labels": ["O", "B-x", "O", "B-x"]}
    tokenizer = MAKERS[maker]()
    compared = [round_trip(tokenizer, word.lower()) for word in words]
    match = match_labels(words, generation, ["x"], compared)
    counting = Counting(tokenizer)
    back = BackTokenizer(counting)
    rows = [{**row, "prediction": generation}, VALID] * 50
    part = score(rows, back_tokenize=back).datasets["examples"]
    assert part.entities.correct == 50 * (1 + match.labels.count("B-x"))
    assert (match.labels.count("B-x") == 2) == (maker == "Unigram")
    (asked,) = counting.asked
    assert sorted(asked) == sorted({w.lower() for w in [*words, *VALID["words"]]})
