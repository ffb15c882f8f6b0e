"""The claims on GNER: verdicts can fail, and what is timed is equal before."""

import math

import pytest

from lmcore.reproduce import CLAIMS
from lmcore.reproduce.claim import Estimate, decide_verdict
from lmcore.reproduce.ner import matching_speed


def estimates_of(values: dict[str, float], spread: float = 0.0) -> dict[str, Estimate]:
    return {name: Estimate(mean=value, spread=spread) for name, value in values.items()}


GAINS = {
    f"gain/{mix}/{method}": gain
    for mix in ("LLaMA", "T5")
    for method, gain in (("positions", 1.0), ("subsequence", 5.0), ("truth", -0.01))
}


@pytest.mark.parametrize(
    ("change", "spread", "verdict"),
    [
        ({}, 0.1, "reproduced"),
        ({}, 0.5, "not reproduced"),
        ({"gain/T5/positions": -0.2}, 0.1, "not reproduced"),
        ({"gain/LLaMA/subsequence": 0.1}, 0.1, "not reproduced"),
        ({"gain/T5/truth": -0.2}, 0.0, "not reproduced"),
        ({"gain/T5/truth": math.nan}, 0.0, "not reproduced"),
    ],
)
def test_matching_rescue_can_fail(change: dict[str, float], spread: float, verdict: str) -> None:
    estimates = estimates_of(GAINS | change, spread)
    assert decide_verdict(CLAIMS["matching_rescue"], estimates, seed_count=3) == verdict


SPEEDUPS = {
    **{f"{band}/lcs_python": 7.0 for band in ("0-60", "60-100", "100-200")},
    **{f"{band}/matching_python": 18.0 for band in ("0-60", "60-100", "100-200")},
}


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({}, "reproduced"),
        ({"100-200/lcs_python": 6.0}, "not reproduced"),
        ({"60-100/matching_python": 12.5}, "not reproduced"),
    ],
)
def test_matching_speed_can_fail(change: dict[str, float], verdict: str) -> None:
    estimates = estimates_of(SPEEDUPS | change)
    assert decide_verdict(CLAIMS["matching_speed"], estimates, seed_count=3) == verdict


@pytest.mark.parametrize(
    ("a", "b", "alignment"),
    [
        ("a b c", "", [-1, -1, -1]),
        ("a a b", "a b", [-1, 0, 1]),
        ("a b b a", "b a a b", [-1, -1, 0, 2]),
    ],
)
@pytest.mark.parametrize("tuned", [False, True])
def test_the_dynamic_programme_breaks_ties_as_the_paper_s(
    a: str, b: str, alignment: list[int], tuned: bool
) -> None:
    found = matching_speed.align_by_dynamic_programme(a.split(), b.split(), tuned=tuned)
    assert found == alignment


def test_a_disagreement_is_reported_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(matching_speed, "align_words", lambda a, _: ("lcs", [-1] * len(a)))
    with pytest.raises(RuntimeError, match="align_words and its definition disagree"):
        matching_speed.measure_speed(seed=0, size="tiny")
