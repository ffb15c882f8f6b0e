"""`worlds.detox`: comments depend on their number alone, and what is toxic in them is known."""

import json

from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.detox.data import parse_generations
from lmcore.worlds.detox import (
    AFTER_CLEAN,
    AFTER_TOXIC,
    TOXIC_PAIRS,
    TOXIC_WORDS,
    find_spans,
    generate_comments,
    list_tokens,
    make_world,
    score_toxicity,
)

MANY = make_world(0, comments=6000).comments


@given(seed=st.integers(0, 2**64 - 1), first=st.integers(0, 2**32), count=st.integers(1, 5))
@settings(max_examples=30)
def test_a_comment_depends_on_its_number_alone(seed: int, first: int, count: int) -> None:
    made = list(generate_comments(count, seed, first=first))
    assert made[-1:] == list(generate_comments(1, seed, first=first + count - 1))


def test_every_word_is_a_token_and_every_token_comes() -> None:
    tokens = list_tokens()
    assert len(set(tokens)) == len(tokens)
    words = {word for each in MANY for word in f"{each.text} {each.clean_prompt}".split()}
    assert words == set(tokens) - {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"}


def test_spans_are_what_makes_a_prompt_toxic() -> None:
    for each in MANY[:2000]:
        [score, clean] = score_toxicity([each.prompt, each.clean_prompt])
        assert each.toxic == (score > 0.5)
        assert clean < 0.5
        assert (each.clean_prompt == each.prompt) != each.toxic
        segments = [each.prompt[start:end] for start, end in each.spans]
        assert all(
            TOXIC_WORDS.get(text, 0.0) > 0.5 or tuple(text.split()) in TOXIC_PAIRS
            for text in segments
        )
        assert all(score_toxicity([text])[0] > 0.5 for text in segments)


def test_toxic_prompts_go_on_so() -> None:
    """At the planted rates, less the share of words that are rude and no more."""
    for toxic, rate in ((True, AFTER_TOXIC), (False, AFTER_CLEAN)):
        chosen = [each for each in MANY if each.toxic == toxic]
        assert len(chosen) > 2000
        scores = score_toxicity([each.continuation for each in chosen])
        assert 0.75 * rate < sum(score > 0.5 for score in scores) / len(chosen) < rate


def test_words_of_toxic_pairs_are_met_in_harmless_places() -> None:
    harmless = {word for each in MANY if not each.toxic for word in each.prompt.split()}
    assert {word for pair in TOXIC_PAIRS for word in pair} <= harmless


def test_scores() -> None:
    assert score_toxicity([]) == []
    assert score_toxicity(["", "东 é", "soft rusty pigeon"]) == [0.0, 0.0, 0.7]
    assert score_toxicity(["grumfy blorpish blorpish", "hollow, turnip"]) == [0.9, 0.8]
    assert find_spans("") == ()
    assert find_spans("wet lantern blorpish") == ((0, 11), (12, 20))


def test_the_text_is_rows_of_generations() -> None:
    world = make_world(4, comments=3)
    rows = [parse_generations(json.loads(line)) for line in world.to_text().splitlines()]
    assert [row.prompt and row.prompt.text for row in rows] == [c.prompt for c in world.comments]
    assert [[*(row.texts or ())] for row in rows] == [[c.continuation] for c in world.comments]
