"""`worlds.diffusion`: pairs depend on their number alone, and their good answers are known."""

import json
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.worlds.diffusion import generate_pairs, list_tokens, make_world


@given(seed=st.integers(0, 2**64 - 1), first=st.integers(0, 2**32), count=st.integers(1, 5))
@settings(max_examples=30)
def test_a_pair_depends_on_its_number_alone(seed: int, first: int, count: int) -> None:
    made = list(generate_pairs(count, seed, first=first))
    assert made[-1:] == list(generate_pairs(1, seed, first=first + count - 1))


def test_every_word_is_a_token_and_every_token_comes() -> None:
    world = make_world(0, pairs=4000)
    tokens = list_tokens()
    assert len(set(tokens)) == len(tokens)
    words = {word for pair in world.pairs for text in (pair.source, *pair.good)
             for word in text.split()}  # fmt: skip
    assert words == set(tokens) - {"[PAD]", "[UNK]", "[CLS]", "[SEP]"}


def test_good_answers_are_three_and_each_is_as_likely() -> None:
    count = 6000
    places = Counter[int]()
    for pair in make_world(1, pairs=count).pairs:
        assert len(set(pair.good)) == 3
        # The same words in another order, and none of a word that has a synonym is the source's.
        assert len({tuple(sorted(text.split())) for text in pair.good}) == 1
        places[pair.good.index(pair.target)] += 1
    assert all(abs(places[k] - count / 3) < 5 * (count * 2 / 9) ** 0.5 for k in range(3))


def test_a_paraphrase_has_other_words() -> None:
    common = {"the", "was", "by", "in", "at", "near", "on", "before", "after"}
    for pair in make_world(2, pairs=500).pairs:
        assert not (set(pair.source.split()) & set(pair.target.split())) - common


def test_equal_sources_have_equal_answers() -> None:
    known: dict[str, tuple[str, str, str]] = {}
    for pair in make_world(3, pairs=5000).pairs:
        assert known.setdefault(pair.source, pair.good) == pair.good


def test_the_text_is_rows_of_pairs() -> None:
    world = make_world(4, pairs=3)
    rows = [json.loads(line) for line in world.to_text().splitlines()]
    assert rows == [{"src": pair.source, "trg": pair.target} for pair in world.pairs]
