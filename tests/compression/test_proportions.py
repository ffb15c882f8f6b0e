"""How often denoisers are drawn: the authors' numbers, and what any such rule obeys."""

import json
from typing import Any

import numpy as np
import pytest

from lmcore.compression.proportions import (
    INITIAL,
    SHIPPED_TARGETS,
    check_proportions,
    update_proportions,
)

GAPS = (0.10, 0.05, 0.20, -0.10, 0.0, 0.30, 0.02)


@pytest.fixture(scope="module")
def golden(golden_dir: Any) -> Any:
    return json.loads((golden_dir / "ul2" / "cases.json").read_text())


def test_the_authors_updates(golden: Any) -> None:
    assert golden["target_loss"] == list(SHIPPED_TARGETS)
    assert len(golden["proportions"]) > 3
    for case in golden["proportions"]:
        found = update_proportions(case["before"], case["losses"], SHIPPED_TARGETS, rule="shipped")
        np.testing.assert_allclose(found, case["after"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("shipped", (0.01877375, 0.01785885, 0.82931116, 0.07680907, 0.01698855, 0.02292715,
                     0.01733146)),
        ("paper", (0.01861102, 0.01770335, 0.82273430, 0.08419973, 0.01683995, 0.02273155,
                   0.01718014)),
    ],
)  # fmt: skip
def test_the_numbers_of_the_specification(rule: Any, expected: Any) -> None:
    found = update_proportions(INITIAL, np.array(GAPS) + 1.5, [1.5] * 7, rule=rule)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_a_loss_below_its_target_counts_as_one_at_it() -> None:
    below = update_proportions([0.5, 0.5], [0.2, 1.4], [1.0, 1.0])
    at = update_proportions([0.5, 0.5], [1.0, 1.4], [1.0, 1.0])
    assert below.tolist() == at.tolist()
    shipped = update_proportions([0.5, 0.5], [0.2, 1.4], [1.0, 1.0], rule="shipped")
    assert shipped[0] < below[0]


def test_at_the_targets_nothing_changes() -> None:
    found = update_proportions(INITIAL, SHIPPED_TARGETS, SHIPPED_TARGETS)
    np.testing.assert_allclose(found, INITIAL, rtol=1e-15)


def test_what_is_never_drawn_comes_back_by_smoothing_alone() -> None:
    given: Any = ([0.0, 1.0], [9.0, 1.0], [1.0, 1.0])
    assert update_proportions(*given).tolist() == [0, 1]
    assert update_proportions(*given, rule="shipped")[0] == pytest.approx(5e-5)


@pytest.mark.parametrize("rule", ["paper", "shipped"])
def test_the_largest_losses_leave_no_room_for_overflow(rule: Any) -> None:
    found = update_proportions([0.5, 0.5], [1e30, 0], [0, 0], rule=rule)
    assert found.sum() == pytest.approx(1)
    assert found[0] > 0.999


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (([0.5, 0.6], [1, 1], [1, 1]), "proportions must sum to 1: got 1.1"),
        (([1.5, -0.5], [1, 1], [1, 1]), "proportions must be at least 0"),
        (([0.5, np.nan], [1, 1], [1, 1]), "proportions must be at least 0"),
        (([], [], []), "proportions must be some numbers"),
        (([0.5, 0.5], [1], [1, 1]), r"losses must be \[2\]: got \[1\]"),
        (([0.5, 0.5], [1, 1], [1, 1, 1]), r"targets must be \[2\]: got \[3\]"),
        (([0.5, 0.5], [1, 1], [1, np.inf]), "targets must be finite"),
    ],
)
def test_what_is_refused(given: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        update_proportions(*given)


def test_other_refusals() -> None:
    with pytest.raises(FloatingPointError, match="losses must be finite"):
        update_proportions([0.5, 0.5], [1, np.nan], [1, 1])
    with pytest.raises(ValueError, match="rule must be paper or shipped: got 'best'"):
        update_proportions([0.5, 0.5], [1, 1], [1, 1], rule="best")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="proportions must be 7 numbers"):
        check_proportions([0.5, 0.5], 7)
