"""The experiment on real texts: how they are split, what its scores are of, and when it fails."""

import json
from pathlib import Path

import pytest

from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.diffusion import real_texts
from lmcore.reproduce.diffusion.real_texts import few_steps_suffice
from lmcore.reproduce.diffusion.text_pairs import (
    Question,
    TextSet,
    read_original,
    read_split,
    read_words,
)

SET = TextSet(folder="texts", files=("one.jsonl", "two.jsonl"), length=12, blanks="[]")


def write(folder: Path, monkeypatch: pytest.MonkeyPatch, *files: list[tuple[str, str]]) -> None:
    monkeypatch.setenv("LMCORE_DATA", str(folder))
    (folder / "texts").mkdir(exist_ok=True)
    for name, pairs in zip(SET.files, files, strict=True):
        rows = (json.dumps({"src": source, "trg": target}) + "\n" for source, target in pairs)
        (folder / "texts" / name).write_text("".join(rows))


def test_no_source_is_both_asked_and_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pairs = [(f"Source {k}", f"an answer, {k}") for k in range(40)]
    write(tmp_path, monkeypatch, pairs, [(a, "another") for a, _ in pairs])
    split = read_split(SET, tests=100, most_words=100)
    asked = {one.source for one in split.tests}
    assert 0 < len(asked) < 20
    assert {pair.source for pair in split.train} == {a.lower() for a, _ in pairs} - asked
    first = split.tests[0]
    number = int(first.source.split()[1])
    answers = (f"an answer , {number}", "another")
    assert first == Question(f"one.jsonl, pair {number + 1}", first.source, answers)
    # Neither is a source of the tests a target.
    write(tmp_path, monkeypatch, [*pairs, ("Source 1.", first.source)], [("b", first.source)])
    again = read_split(SET, tests=100, most_words=100)
    assert again.tests[0] == first._replace(references=answers[:1])
    assert not any(first.source in pair for pair in again.train)
    # What is asked does not depend on how much of it is wanted.
    assert read_split(SET, tests=1, most_words=100).tests == again.tests[:1]


def test_what_is_left_out_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = [(f"a[{k}]", "b b c") for k in range(30)]
    long = ("a " * 4, "b " * 4)  # one word more than a row of 12 has room for
    write(tmp_path, monkeypatch, pairs, [long] * 10)
    split = read_split(SET, tests=100, most_words=100)
    assert split.left_out == pytest.approx(25)
    assert all(pair.source.startswith("a ") and "[" not in pair.source for pair in split.train)
    vocabulary = split.tokenizer.tokenizer.get_vocab()
    # Numbers come once, and once is too seldom.
    assert {*vocabulary} == {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "c"}
    assert split.unknown == 0
    assert read_split(SET, tests=100, most_words=1).unknown == pytest.approx(100 / 3)
    write(tmp_path, monkeypatch, pairs[:1], [long])
    with pytest.raises(ValueError, match=r"^texts: \d sources for tests, \d pairs$"):
        read_split(SET, tests=1, most_words=9)


def test_a_text_ends_where_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, monkeypatch, [(f"a {k}", "b a") for k in range(30)], [("a", "b")])
    tokenizer = read_split(SET, tests=1, most_words=9).tokenizer
    ids = {name: tokenizer.tokenizer.token_to_id(name) for name in ("a", "b")}
    a, b, start, end = ids["a"], ids["b"], tokenizer.start, tokenizer.end
    assert read_words([start, a, b, end, a, tokenizer.pad], tokenizer) == "a b"
    assert read_words([a, tokenizer.pad, tokenizer.unknown or 0, b], tokenizer) == "a [UNK] b"
    assert read_words([end, a], tokenizer) == read_words([], tokenizer) == ""


@pytest.mark.usefixtures("data_dir")
@pytest.mark.parametrize("name", real_texts._SETS)
def test_numbers_of_pairs_are_those_of_the_files(name: str) -> None:
    texts = real_texts._SETS[name]
    split = read_split(texts, tests=3, most_words=100, most_pairs=300)
    blanks = str.maketrans("", "", f" {texts.blanks}")
    compared = 0
    for one in split.tests:
        original = read_original(texts, one.place)
        assert [*original] == ["source", "reference"]
        for text, words in zip(original.values(), (one.source, one.references[0]), strict=True):
            if text.isascii():  # accents are taken off
                compared += 1
                assert words.translate(blanks) == text.lower().translate(blanks)
    assert compared
    asked = {one.source for one in split.tests}
    assert not any(asked & {*pair} for pair in split.train)
    most = max(sum(len(text.split()) for text in pair) for pair in split.train)
    assert most <= texts.length - 5


@pytest.mark.parametrize(
    ("lost", "spread", "holds"), [(0.5, 0.4, False), (0.3, 0.4, True), (-2.0, 0.1, True)]
)
def test_the_rule_can_fail(lost: float, spread: float, holds: bool) -> None:
    assert few_steps_suffice({"lost": Estimate(mean=lost, spread=spread)}) == holds
