"""Tokenizers of files: BERT's vocabularies, files of the library, and what is none."""

import re

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from lmcore.diffusion.tokenization import load_tokenizer, make_bert_tokenizer

TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "ab", "##c", "é", "e"]


def test_a_vocabulary_file_is_berts_tokenizer(data_dir):
    from transformers import BertTokenizer

    file = data_dir / "tok" / "bert_base_uncased_vocab.txt"
    theirs, ours = BertTokenizer(vocab=str(file), do_lower_case=True), load_tokenizer(file)
    texts = ["Why is Tokyo so BIG?", "naïve café — 東京 \u0301x", "a" * 200, "[MASK] [SEP] x", ""]
    expected = theirs(texts, add_special_tokens=False)["input_ids"]
    # What is special stays one token for both, but for [MASK], which pairs have no use for.
    for text, ids, row in zip(texts, ours.encode_batch(texts), expected, strict=True):
        if "[MASK]" not in text:
            assert ids == row, text


def test_a_saved_tokenizer_is_the_same(tmp_path):
    tokenizer = make_bert_tokenizer(TOKENS, lowercase=False)
    tokenizer.save(tmp_path)
    found = load_tokenizer(tmp_path)
    texts = ["abc é É", "ab", "zz"]
    assert found.encode_batch(texts) == tokenizer.encode_batch(texts)
    assert (found.start, found.end, found.pad, found.unknown) == (2, 3, 0, 1)
    assert found.vocabulary_size == 8


def test_accents_and_case_are_kept_on_request():
    assert make_bert_tokenizer(TOKENS).encode_batch(["É"]) == [[7]]
    assert make_bert_tokenizer(TOKENS, lowercase=False).encode_batch(["é", "É"]) == [[6], [1]]


def test_a_file_that_cuts_texts_does_not_cut_here(tmp_path):
    vocabulary = {"<pad>": 0, "</s>": 1, "<s>": 2, "a": 3}
    known = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    known.pre_tokenizer = pre_tokenizers.Whitespace()
    known.enable_truncation(2)
    known.enable_padding(length=9)
    known.save(str(tmp_path / "t.json"))
    found = load_tokenizer(tmp_path / "t.json")
    assert found.encode_batch(["a a a"]) == [[3, 3, 3]]
    assert (found.start, found.end, found.pad, found.unknown) == (2, 1, 0, None)


def test_padding_within_a_text_stays():
    tokenizer = make_bert_tokenizer(TOKENS)
    assert tokenizer.decode([2, 0, 4, 5, 3, 0, 0]) == "[CLS] [PAD] abc [SEP]"
    assert tokenizer.decode([2, 4, 5, 3], skip_special_tokens=True) == "abc"
    assert tokenizer.decode([0, 0]) == ""


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("v.txt", b"[PAD]\n[UNK]\n[CLS]\n", "v.txt: there is no token [SEP] or </s>"),
        ("v.txt", b"[PAD]\n[CLS]\n[SEP]\n", "v.txt: there is no token [UNK]"),
        ("v.txt", b"[PAD]\n[UNK]\n[CLS]\n[SEP]\na\na\n", "'a' stands in line 5 and 6"),
        ("v.txt", b"[PAD]\n\n[CLS]\n", "v.txt: line 2 holds no token"),
        ("v.txt", b"\xff", "v.txt: not UTF-8 at byte 1"),
        ("t.json", b"{}", "t.json: not a file of tokenizers"),
        ("t.json", b"[" * 200_000, "t.json: not a file of tokenizers"),
    ],
)
def test_what_is_no_tokenizer_is_named(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(problem)):
        load_tokenizer(tmp_path / name)


def test_a_folder_without_one_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        load_tokenizer(tmp_path)
