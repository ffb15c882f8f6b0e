"""SemEval's character F1, and recall and precision of segments."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.detox import score_characters, score_pairs, score_spans

_places = st.sets(st.integers(0, 9))


def task_f1(found: set[int], expected: set[int]) -> float:
    """As the task's own script says it."""
    if not expected:
        return 1.0 if not found else 0.0
    if not found:
        return 0.0
    right = len(found & expected)
    precision, recall = right / len(found), right / len(expected)
    return 2 * precision * recall / (precision + recall) if right else 0.0


@given(_places, _places)
def test_character_f1_is_that_of_the_task(found: set[int], expected: set[int]) -> None:
    assert score_characters(found, expected).f1 == pytest.approx(task_f1(found, expected))


def test_spans_by_hand() -> None:
    found = [[(0, 2), (1, 3)], [], [(5, 6)]]
    scores = score_spans(found, [[0, 1, 2, 3], [], []])
    assert scores.f1 == pytest.approx((6 / 7 + 1 + 0) / 3)
    assert scores.precision == pytest.approx((1 + 1 + 0) / 3)
    assert scores.recall == pytest.approx((3 / 4 + 1 + 0) / 3)
    with pytest.raises(ValueError, match=r"must have the same length: got 1 and 0$"):
        score_spans([[]], [])
    with pytest.raises(ValueError, match=r"^found must hold at least one text$"):
        score_spans([], [])


def test_pairs_by_hand() -> None:
    scores = score_pairs([[1, 1, 0], [1], []], [[1, 0, 1], [1], []])
    assert scores == (2 / 3, 2 / 3, 2 / 3)
    assert score_pairs([[0]], [[1]]) == (0.0, 0.0, 0.0)
    assert score_pairs([[0]], [[0]]) == (1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match=r"^found\[0\] and expected\[0\] must have the same leng"):
        score_pairs([[0]], [[0, 1]])
