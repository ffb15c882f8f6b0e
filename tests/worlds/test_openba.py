"""`worlds.openba`: documents cost what they say, and the piece file cuts them into their words."""

import hashlib
import math
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.openba import OpenBATokenizer
from lmcore.worlds.openba import (
    LANGUAGES,
    World,
    generate_documents,
    list_pieces,
    make_instructions,
    make_world,
    write_piece_file,
)
from lmcore.worlds.openba.tasks import list_wordings

languages = st.sampled_from(sorted(LANGUAGES))


@given(language=languages, seed=st.integers(0, 2**64 - 1), first=st.integers(0, 2**32),
       count=st.integers(1, 5))  # fmt: skip
@settings(max_examples=30)
def test_a_document_depends_on_its_number_alone(
    language: str, seed: int, first: int, count: int
) -> None:
    made = list(generate_documents(language, count, seed, first=first))
    assert made[-1:] == list(generate_documents(language, 1, seed, first=first + count - 1))
    for document in made:
        assert set(document.words) <= set(LANGUAGES[language].words())
        assert "\n" not in document.text
        assert document.nats > 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_equal_texts_cost_the_same_and_costs_are_probabilities(language: str) -> None:
    """Exp(-nats) is how often a text comes: no text is made in two ways."""
    openings: Counter[str] = Counter()
    count = 4000
    costs: dict[str, float] = {}
    for document in generate_documents(language, count, 7):
        openings[" ".join(document.words[:6])] += 1
        assert costs.setdefault(document.text, document.nats) == document.nats
    # Name, role and place: 16 * 8 * 16 openings, each as likely.
    size = 16 * 8 * 16
    expected = size * (1 - math.exp(-count / size))
    assert abs(len(openings) - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize("language", LANGUAGES)
def test_words_are_not_made_of_each_other_by_chance(language: str) -> None:
    words = LANGUAGES[language].words()
    assert len(set(words)) == len(words)
    lists = ("names", "places", "roles", "verbs", "nouns", "adjectives", "seasons", "animals")
    sizes = [len(set(getattr(LANGUAGES[language], name))) for name in lists]
    assert sizes == [16, 16, 8, 32, 64, 16, 4, 8]


def test_the_last_sentence_repeats_the_first() -> None:
    for document in generate_documents("en", 50, 3):
        first, *_, last = document.text.rstrip(".").split(". ")
        name, role, place = (first.split()[index] for index in (0, 2, -1))
        assert last == f"So {name} the {role} went home to {place}"


# The first 32 digits of SHA-256 of a corpus, and its nats per token.
WORLDS = {
    0: ("26443377a648107643e9df3cc1745df6", 0.721752),
    1: ("991afa945e0b4aa6eb1b58502a2871eb", 0.723277),
}


@pytest.mark.parametrize("seed", WORLDS)
def test_worlds_stay_what_they_are(seed: int) -> None:
    world = make_world(seed)
    digest = hashlib.sha256(world.to_text().encode()).hexdigest()[:32]
    assert (digest, round(world.entropy(), 6)) == WORLDS[seed]


def test_a_larger_world_begins_with_the_smaller_one() -> None:
    small, large = make_world(5, documents=11), make_world(5, documents=40)
    assert large.documents[:11] == small.documents
    assert isinstance(small, World)


def test_bad_arguments() -> None:
    with pytest.raises(ValueError, match=r"^language must be one of en, zh: got 'de'$"):
        next(generate_documents("de", 1, 0))
    with pytest.raises(ValueError, match=r"^count and first must be at least 0: got -1 and 0$"):
        next(generate_documents("en", -1, 0))
    with pytest.raises(ValueError, match=r"^documents must be at least 1: got 0$"):
        make_world(0, documents=0)
    with pytest.raises(ValueError, match=r"^size must be at least \d+, .*: got 100$"):
        list_pieces(100)


def test_pieces_are_laid_out_as_those_of_mt5(tmp_path: Path) -> None:
    path = tmp_path / "spiece.model"
    assert write_piece_file(path, size=250_100) == 250_100
    pieces = list_pieces(250_100)
    assert [text for text, _, _ in pieces[:4]] == ["<pad>", "</s>", "<unk>", "<0x00>"]
    assert len({text for text, _, _ in pieces}) == 250_100
    # A larger file begins with the smaller one.
    assert pieces[: len(list_pieces())] == list_pieces()
    first = path.read_bytes()
    write_piece_file(path, size=250_100)
    assert path.read_bytes() == first


def test_pieces_within_words_are_taken_as_they_are(tmp_path: Path) -> None:
    plain = {text for text, _, _ in list_pieces()}
    assert {text for text, _, _ in list_pieces(more=["(O)", "river"])} - plain == {"(O)", "river"}
    path = tmp_path / "spiece.model"
    write_piece_file(path, texts=["the river"], pieces=["(O)", "(B-", ")", "river"])
    tokens = OpenBATokenizer(path).tokenize("the(O) river(B-river)")
    assert tokens == ["▁the", "(O)", "▁river", "(B-", "river", ")"]


def test_words_of_other_texts_are_pieces_too(tmp_path: Path) -> None:
    plain = {text for text, _, _ in list_pieces()}
    more = {text for text, _, _ in list_pieces(texts=["Where did Ada live? 谁住在"])}
    # A letter that a word of the documents holds is a piece already.
    assert more - plain == {"▁Where", "▁did", "▁live", "谁"}
    path = tmp_path / "spiece.model"
    write_piece_file(path, texts=list_wordings())
    tokenizer = OpenBATokenizer(path)
    for row in make_instructions(0, rows=60).rows:
        tokens = tokenizer.tokenize(row.source)
        assert not any(token.startswith("<0x") for token in tokens)
        if row.language == "en":
            assert len(tokens) <= len(row.source.split()) + sum(map(row.source.count, ".?:"))
