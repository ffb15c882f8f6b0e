"""The experiment on guidance: what a text is found to hold, targets, and when the claim fails."""

import os

import numpy as np
import pytest

from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.diffusion.attributes import (
    Span,
    Value,
    allow_span,
    find_spans,
    has_value,
    make_tokenizer,
    read_restaurants,
    read_values,
    tag_words,
)
from lmcore.reproduce.diffusion.controlled_texts import (
    CLAIMS,
    control_helps,
    measure_controlled_texts,
)

TEXTS = [
    "The Blue Spice is a coffee shop, not cheap.",
    "A coffee shop: the blue spice is cheap",
] * 2


@pytest.fixture(scope="module")
def parser() -> None:
    try:
        import textblob  # noqa: F401
    except ImportError as error:
        if os.environ.get("LMCORE_REQUIRE_DATA") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))


def test_values_are_found_by_their_words() -> None:
    tokenizer = make_tokenizer(TEXTS)
    source = (
        "name[Blue Spice], eatType[coffee shop], priceRange[cheap], familyFriendly[cheap], x[é]"
    )
    values = read_values(source, tokenizer)
    assert [value.field for value in values] == ["name", "eatType", "priceRange"]
    first, second, other = tokenizer.encode_batch([*TEXTS[:2], "blue coffee spice shop cheap"])
    assert [has_value(first, value) for value in values] == [True] * 3
    assert [has_value(second, value) for value in values] == [True] * 3
    assert [has_value(other, value) for value in values] == [False, False, True]
    assert not has_value([], values[0])
    assert has_value([5], Value("x", (5,)))


def test_words_that_come_once_have_no_token() -> None:
    tokenizer = make_tokenizer(["a b b", "A"])
    assert tokenizer.encode_batch(["a b c"]) == [[4, 5, tokenizer.unknown]]


def test_spans_are_whole_phrases() -> None:
    tags = ["B-NP", "I-NP", "I-NP", "O", "B-PP", "B-NP", "I-VP", "B-VP"]
    spans = [Span(0, 2, "NP"), Span(4, 4, "PP"), Span(5, 5, "NP"), Span(7, 7, "VP")]
    assert find_spans(tags) == spans
    assert find_spans([]) == []


@pytest.mark.parametrize("span", [Span(1, 2, "NP"), Span(0, 0, "VP"), Span(2, 5, "NP")])
def test_tags_that_are_allowed_are_those_of_the_span(span: Span) -> None:
    """Of all tags of six words, those that a target allows are those in which it is found."""
    kinds = ["B-NP", "B-VP", "I-NP", "I-VP", "O"]
    allowed = allow_span(span, kinds, 8, 2)
    draws = np.random.default_rng(0)
    found = []
    for case in range(400):
        row = draws.integers(len(kinds), size=6)
        if case % 2:  # nearly right ones
            row = np.array([draws.choice(np.flatnonzero(one)) for one in allowed[2:]])
            row[draws.integers(6)] = draws.integers(len(kinds))
        is_allowed = bool(allowed[np.arange(2, 8), row].all())
        assert is_allowed == (span in find_spans([kinds[k] for k in row]))
        found.append(is_allowed)
    assert {*found} == {True, False}
    assert allowed[:2].all()


@pytest.mark.usefixtures("parser")
def test_each_word_has_a_tag() -> None:
    text = "the blue spice is a family - friendly pub / bar [UNK] near the river ."
    words = text.split()
    tags = tag_words(words)
    assert len(tags) == len(words)
    spans = find_spans(tags)
    assert spans[0] == Span(0, 2, "NP")
    assert Span(3, 3, "VP") in spans


@pytest.mark.usefixtures("data_dir")
def test_restaurants_that_are_held_out_are_in_no_text() -> None:
    world = read_restaurants(3, 40)
    assert len(world.held) == 40
    assert len(world.trained) + sum(len(one.targets) for one in world.held) == 9365
    assert world == read_restaurants(3, 40)
    assert world.held != read_restaurants(4, 40).held


@pytest.mark.parametrize(
    ("content", "spans", "holds"), [(9, 9, True), (9, 1, False), (1, 9, False), (-9, 9, False)]
)
def test_the_rule_can_fail(content: float, spans: float, holds: bool) -> None:
    gains = {"gain/content": content, "gain/spans": spans}
    estimates = {name: Estimate(mean=mean, spread=2.0) for name, mean in gains.items()}
    assert control_helps(estimates) == holds


@pytest.mark.usefixtures("data_dir", "parser")
def test_every_arm_is_measured_and_described() -> None:
    values = measure_controlled_texts(0, "tiny").values
    arms = {f"{task}/{n}/{arm}" for task in ("content", "spans") for n in (2, 3)
            for arm in ("none", "guided")}  # fmt: skip
    assert arms <= values.keys()
    assert all(0 <= values[name] <= 100 for name in arms)
    (claim,) = CLAIMS
    found = {name: Estimate(mean=value, spread=0.0) for name, value in values.items()}
    lines = claim.describe(found).splitlines()
    assert lines[0] == "texts that hold their target, %, at 2 and 3 steps"
    assert len(lines) == 6
