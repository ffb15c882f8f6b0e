"""`ops.words`: cutting text, the laws of cutting, and the definition."""

import itertools
import sys
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.words import locate_words, split_words
from lmcore.reference import words as reference
from parity import agree
from strategies import sentences, surrogate_texts, texts, words


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in agree(reference.split_words, split_words, text)]


# Golden: what the rule says, case by case.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n\u3000\x1c", []),
        ("EU rejects German call.", ["EU", "rejects", "German", "call", "."]),
        ("EU-wide ban", ["EU-wide", "ban"]),
        ("a-b-c -d e- f--g", ["a-b-c", "-", "d", "e", "-", "f", "-", "-", "g"]),
        ("U.S. $1,000.50", ["U", ".", "S", ".", "$", "1", ",", "000", ".", "50"]),
        ("don't snake_case", ["don", "'", "t", "snake_case"]),
        ("北京2008年", ["北", "京", "2008", "年"]),
        ("カタカナ ｶﾞ 々〇", ["カ", "タ", "カ", "ナ", "ｶ", "ﾞ", "々", "〇"]),
        ("한국어 tiếng-Việt", ["한국어", "tiếng-Việt"]),
        ("北-京 a-京", ["北", "-", "京", "a", "-", "京"]),
        ("e\u0301te\u0301", ["e\u0301te\u0301"]),
        ("\u0301a", ["\u0301a"]),
        ("か\u3099い", ["か\u3099", "い"]),
        ("👍🏽👍", ["👍🏽", "👍"]),
        ("👩\u200d👩\u200d👧x", ["👩\u200d👩\u200d👧", "x"]),
        ("🇪🇺🇩🇪🇫", ["🇪🇺", "🇩🇪", "🇫"]),
        ("❤\ufe0f!", ["❤\ufe0f", "!"]),
        ("1\ufe0f\u20e3", ["1\ufe0f\u20e3"]),
        ("x\u200d y", ["x", "\u200d", "y"]),
        ("\U00020000\U0002ffffa", ["\U00020000", "\U0002ffff", "a"]),
    ],
)
def test_rule(text: str, expected: list[str]) -> None:
    assert cut(text) == expected


@pytest.mark.parametrize(
    ("text", "given_words", "expected"),
    [
        ("New York, USA", ["New York", ",", "USA"], [(0, 8), (8, 9), (10, 13)]),
        ("aaaa", ["a", "aa"], [(0, 1), (1, 3)]),
        ("北京 北京", ["北京", "京"], [(0, 2), (4, 5)]),
        ("👩🏽 é", ["🏽", "é"], [(1, 2), (3, 4)]),
        ("", [], []),
        ("ab", ["", "b", ""], [(0, 0), (1, 2), (2, 2)]),
    ],
)
def test_places(text: str, given_words: list[str], expected: list[tuple[int, int]]) -> None:
    assert agree(reference.locate_words, locate_words, text, given_words) == expected


def test_word_that_is_missing_is_named() -> None:
    for text, missing in (("a 北 b", ["北", "a"]), ("ab", ["ab", "b"]), ("é", ["e"])):
        error = agree(reference.locate_words, locate_words, text, missing)
        assert isinstance(error, ValueError)
        used = 3 if len(missing) == 2 and missing[0] == "北" else len(text) * (len(missing) - 1)
        place = len(missing) - 1
        expected = f"words[{place}] {missing[-1]!r} is not in text after character {used}"
        assert str(error) == expected


# Laws.


@given(texts)
def test_words_and_white_space_make_up_the_text(text: str) -> None:
    end = 0
    for start, next_end in split_words(text):
        assert text[end:start].strip() == ""
        assert end <= start < next_end <= len(text)
        assert not any(character.isspace() for character in text[start:next_end])
        end = next_end
    assert text[end:].strip() == ""


@given(texts)
def test_words_stand_where_they_were_cut(text: str) -> None:
    spans = split_words(text)
    assert locate_words(text, [text[start:end] for start, end in spans]) == spans


@given(texts)
def test_each_word_is_one_word(text: str) -> None:
    for start, end in split_words(text):
        assert split_words(text[start:end]) == [(0, end - start)]


@given(texts, texts)
def test_white_space_separates(one: str, two: str) -> None:
    moved = [(start + len(one) + 1, end + len(one) + 1) for start, end in split_words(two)]
    assert split_words(one + "\n" + two) == split_words(one) + moved


@given(sentences(), st.sampled_from(["", " ", "\u3000x\n"]))
def test_words_are_found_in_their_concatenation(sentence: list[str], between: str) -> None:
    text = between.join(sentence)
    spans = locate_words(text, sentence)
    assert [text[start:end] for start, end in spans] == sentence
    assert all(one[1] <= two[0] for one, two in itertools.pairwise(spans))


# Laws: every character that this interpreter knows is read as Python reads it.


def test_every_character_is_cut_as_defined() -> None:
    wrong = []
    for character in map(chr, range(sys.maxunicode + 1)):
        if unicodedata.category(character) in ("Cn", "Cs"):
            continue
        text = f"a{character}-{character} !{character}\u200d{character}"
        if split_words(text) != reference.split_words(text):
            wrong.append(f"U+{ord(character):04X}")
    assert wrong == []


# Parity.


@given(texts)
def test_cutting_agrees(text: str) -> None:
    agree(reference.split_words, split_words, text)


@given(st.lists(words, max_size=20).map("".join))
def test_cutting_of_words_run_together_agrees(text: str) -> None:
    agree(reference.split_words, split_words, text)


@given(texts, sentences(max_size=6))
def test_places_agree(text: str, sentence: list[str]) -> None:
    agree(reference.locate_words, locate_words, text, sentence)


@given(sentences(max_size=8), st.data())
def test_places_of_some_words_agree(sentence: list[str], data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(["", " ", "é"])).join(sentence)
    some = data.draw(st.lists(st.sampled_from([*sentence, "a", ""]), max_size=6))
    agree(reference.locate_words, locate_words, text, some)


@given(surrogate_texts)
def test_lone_surrogates_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"^text holds a lone surrogate$"):
        split_words(text)
    with pytest.raises(ValueError, match=r"^text holds a lone surrogate$"):
        locate_words(text, [])
    with pytest.raises(ValueError, match=r"^words\[1\] holds a lone surrogate$"):
        locate_words("a", ["a", text])


@pytest.mark.parametrize(
    ("op", "arguments", "name"),
    [
        (split_words, (None,), "text"),
        (split_words, (b"a",), "text"),
        (locate_words, (["a"], ["a"]), "text"),
        (locate_words, ("a", "a"), "words"),
        (locate_words, ("a", 3), "words"),
        (locate_words, ("a", ["a", 3]), r"words\[1\]"),
    ],
)
def test_wrong_types_are_named(op: Any, arguments: Any, name: str) -> None:
    with pytest.raises(TypeError, match=rf"^{name} must be"):
        op(*arguments)
