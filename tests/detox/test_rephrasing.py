"""Attempts at a masked text, and which of them is taken."""

from collections.abc import Sequence
from typing import Any

import pytest

from lmcore.detox import (
    MaskedText,
    RephrasedText,
    RephraseRule,
    keep_extremes,
    rephrase_texts,
    score_samples,
)
from tiny_fillers import ListFiller

TOXIC = {"blorp": 0.9, "zarg": 0.7, "glib": 0.4}


def score(texts: Sequence[str]) -> list[float]:
    return [max((TOXIC.get(word, 0.0) for word in text.split()), default=0.0) for text in texts]


def near(texts: Sequence[str], others: Sequence[str]) -> list[float]:
    """Similar are texts of one length."""
    return [1 / (1 + abs(len(a) - len(b))) for a, b in zip(texts, others, strict=True)]


def mask(text: str = "you <MASK>", prompt: str = "you blorp") -> MaskedText:
    return MaskedText(text=prompt, masked=text, masks=text.count("<MASK>"), toxicity=None)


def rephrase(filler: Any, texts: Sequence[MaskedText], **options: Any) -> list[RephrasedText]:
    return rephrase_texts(
        texts, filler, score, numbers=range(len(texts)), similarity=near, **options
    )


def test_the_first_acceptable_text_is_taken() -> None:
    filler = ListFiller("zarg", None, "friend", "never")
    [found] = rephrase(filler, [mask()])
    assert (found.text, found.attempts, found.problems) == ("you friend", 3, ("lost_mask",))
    assert (found.toxicity, found.similarity) == (0.0, 0.5)
    assert found.is_acceptable
    assert found.context == "you friend"


def test_the_student_wants_similar_texts() -> None:
    filler = ListFiller("wide friend", "small", "never")
    [found] = rephrase(filler, [mask()], rule=RephraseRule(least_similarity=0.4))
    assert (found.text, found.attempts) == ("you small", 2)
    [found] = rephrase(
        ListFiller("some wide friend", "wide friend"), [mask()],
        rule=RephraseRule(attempts=2, least_similarity=0.4),
    )  # fmt: skip
    assert (found.text, found.is_clean, found.is_similar) == ("you wide friend", True, False)
    assert not found.is_acceptable


def test_without_a_clean_text_the_least_toxic_one_is_kept() -> None:
    rule = RephraseRule(attempts=4, threshold=0.3)
    filler = ListFiller("blorp", "my glib", "glib", "zarg")
    [found] = rephrase(filler, [mask()], rule=rule)
    assert (found.text, found.toxicity, found.attempts) == ("you glib", 0.4, 4)
    assert (found.is_clean, found.is_similar) == (False, True)
    # A text that is toxic to the threshold is clean.
    assert rephrase(ListFiller("glib"), [mask()], rule=RephraseRule(threshold=0.4))[0].is_clean


def test_texts_that_no_attempt_filled() -> None:
    [found] = rephrase(ListFiller(None, None), [mask()], rule=RephraseRule(attempts=2))
    assert found == RephrasedText(
        masked=mask(), text=None, toxicity=None, similarity=None, attempts=2, is_clean=False,
        is_similar=False, problems=("lost_mask", "lost_mask"),
    )  # fmt: skip
    assert found.context is None


def test_each_attempt_is_at_what_is_left() -> None:
    filler = ListFiller("friend", "zarg")
    texts = [mask(), mask("clean", "clean"), mask("blorp <MASK>"), mask("blorp", "blorp")]
    found = rephrase(filler, texts, rule=RephraseRule(attempts=2))
    assert filler.calls == [(0, [0, 2]), (1, [2])]
    assert [one.attempts for one in found] == [1, 0, 2, 0]
    # What has no mask stays, and is looked at as well.
    assert [one.context for one in found][1::2] == ["clean", "blorp"]
    assert [one.is_clean for one in found] == [True, True, False, False]


@pytest.mark.parametrize(
    ("scores", "error"),
    [([float("nan")], ValueError), ([], ValueError), ([0.1, 0.2], ValueError), (["a"], TypeError)],
)
def test_scorers_that_give_something_else(scores: Any, error: type[Exception]) -> None:
    for text in (mask(), mask("clean", "clean")):
        with pytest.raises(error, match=r"^the scorer (must return|returned) "):
            rephrase_texts([text], ListFiller("a"), lambda texts: scores, numbers=[1])  # type: ignore[arg-type]
    with pytest.raises(error, match=r"^the scorer (must return|returned) "):
        score_samples([["a"]], lambda texts: scores)


@pytest.mark.parametrize("count", range(8))
def test_extremes_are_the_authors(count: int) -> None:
    """`[g0, g-3, g-2, g-1]` of what is sorted, each once."""
    scores = [((k * 5) % 8) / 8 for k in range(count)]
    texts = [f"t{k}" for k in range(count)]
    ranked = sorted(zip(scores, texts, strict=True))
    places = [0, count - 3, count - 2, count - 1]
    expected = [ranked[k] for k in sorted({max(place, 0) for place in places})] if count else []
    kept, own = keep_extremes(texts, scores)
    assert list(zip(own, kept, strict=True)) == expected
    assert keep_extremes([*texts, " "], [*scores, 0.0]) == (kept, own)


def test_each_continuation_is_scored_once() -> None:
    seen: list[str] = []

    def look(texts: Sequence[str]) -> list[float]:
        seen.extend(texts)
        return score(texts)

    found = score_samples([["a blorp", "", "b"], ["b", "\n"], []], look)
    assert seen == ["a blorp", "b"]
    assert [one.scores for one in found] == [(0.9, 0.0, 0.0), (0.0, 0.0), ()]
    assert [one.kept for one in found] == [("b", "a blorp"), ("b",), ()]
