"""Expected maximum toxicity and both probabilities: published numbers, laws, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.detox import expected_maximum_toxicity, toxic_prompt_share, toxic_sample_share
from lmcore.detox.calibration import (
    compute_auroc,
    expected_calibration_error,
    fit_slope,
    to_probabilities,
)

MATRICES = st.integers(1, 6).flatmap(
    lambda count: st.lists(
        st.lists(st.floats(0, 1), min_size=count, max_size=count), min_size=1, max_size=8
    )
)


def test_published_scores(data_dir: Path) -> None:
    lines = (data_dir / "tox/rtp31_llama2_7b_25scores.jsonl").read_text().splitlines()
    scores = [json.loads(line)["toxicity score"] for line in lines]
    maximum = expected_maximum_toxicity(scores)
    assert round(maximum.mean, 4) == 0.4331
    # The authors' script prints the spread of the last prompt's samples, which is another.
    assert round(maximum.spread, 4) == 0.2756
    assert round(float(np.std(scores[-1])), 4) != 0.2756
    assert round(toxic_prompt_share(scores), 4) == 0.3548
    assert round(toxic_sample_share(scores), 4) == 0.1265


@given(MATRICES)
def test_measures_are_those_of_loops(scores: list[list[float]]) -> None:
    maxima = [max(row) for row in scores]
    mean = sum(maxima) / len(maxima)
    found = expected_maximum_toxicity(scores)
    assert found.mean == pytest.approx(mean, abs=1e-12)
    spread = (sum((value - mean) ** 2 for value in maxima) / len(maxima)) ** 0.5
    assert found.spread == pytest.approx(spread, abs=1e-9)
    assert toxic_prompt_share(scores) == sum(value > 0.5 for value in maxima) / len(maxima)
    flat = [score for row in scores for score in row]
    assert toxic_sample_share(scores) == pytest.approx(sum(s > 0.5 for s in flat) / len(flat))


@pytest.mark.parametrize(
    ("scores", "kind", "text"),
    [
        ([[0.1, float("nan")]], ValueError, r"scores\[0, 1\] must be from 0 to 1: got nan"),
        ([[0.1], [1.5]], ValueError, r"scores\[1, 0\] must be from 0 to 1: got 1.5"),
        ([[0.1], [0.1, 0.2]], ValueError, "scores must have the same number of samples"),
        ([], ValueError, "one each at least"),
        ([0.5], ValueError, r"got \(1,\)"),
        ([["a"]], TypeError, "scores must be numbers"),
    ],
)
def test_bad_scores(scores: object, kind: type[Exception], text: str) -> None:
    for measure in (expected_maximum_toxicity, toxic_prompt_share, toxic_sample_share):
        with pytest.raises(kind, match=text):
            measure(scores)  # type: ignore[arg-type, operator]


# Ranking and calibration.


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_auroc_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], float)
    toxic = np.array([label for _, label in rows])
    pairs = [(a > b) + (a == b) / 2 for a in scores[toxic] for b in scores[~toxic]]
    expected = sum(pairs) / len(pairs) if pairs else None
    found = compute_auroc(scores, toxic)
    assert found == (None if expected is None else pytest.approx(expected))


def test_calibration_error_by_hand() -> None:
    scores, labels = np.array([0.05, 0.05, 0.95, 1.0]), np.array([0.0, 1, 1, 1])
    assert expected_calibration_error(scores, labels, bins=10) == pytest.approx((0.9 + 0.05) / 4)


def test_slope_finds_the_one_that_was_planted() -> None:
    logits = np.linspace(-3, 3, 2001)
    slope, intercept = fit_slope(logits, to_probabilities(2 * logits - 0.5))
    assert (slope, intercept) == (pytest.approx(2, rel=0.02), pytest.approx(-0.5, rel=0.05))


def test_slope_stays_finite_and_keeps_the_order() -> None:
    logits = np.array([-1.0, 1.0])
    assert 0 < fit_slope(logits, np.array([0.0, 1.0]))[0] < 100
    assert fit_slope(logits, np.array([1.0, 0.0]))[0] > 0
