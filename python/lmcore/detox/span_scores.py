"""How well toxic spans are found: SemEval-2021's character F1, recall and precision of segments."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple


class SpanScores(NamedTuple):
    """Precision, recall and F1, each from 0 to 1."""

    precision: float
    recall: float
    f1: float


def compute_ratios(right: int, found: int, expected: int) -> SpanScores:
    """Returns precision, recall and F1 of counts; where nothing can be missed, nothing is.

    Args:
        right: found that were expected.
        found: of any kind.
        expected: those that should be found.

    Example:
        >>> compute_ratios(1, 2, 1).precision
        0.5
        >>> compute_ratios(0, 0, 0).f1
        1.0
    """
    if not found and not expected:
        return SpanScores(1.0, 1.0, 1.0)
    precision = right / found if found else 0.0
    recall = right / expected if expected else 0.0
    return SpanScores(precision, recall, 2 * right / (found + expected))


def score_characters(found: Collection[int], expected: Collection[int]) -> SpanScores:
    """Returns precision, recall and F1 of the toxic characters of one text.

    With no character expected, F1 is 1 where none was found, and 0 else.

    Source: Pavlopoulos et al., SemEval-2021 task 5; Da San Martino et al. (EMNLP 2019).

    Args:
        found: places of characters.
        expected: places of characters.

    Example:
        >>> score_characters({1, 2}, {2, 3, 4}).f1
        0.4
    """
    own, gold = set(found), set(expected)
    return compute_ratios(len(own & gold), len(own), len(gold))


def average(scores: Sequence[SpanScores]) -> SpanScores:
    """Returns the means over texts.

    Args:
        scores: of each text, of one at least.

    Example:
        >>> average([SpanScores(1.0, 1.0, 1.0), SpanScores(0.5, 0.0, 0.0)])
        SpanScores(precision=0.75, recall=0.5, f1=0.5)
    """
    return SpanScores(*(sum(column) / len(scores) for column in zip(*scores, strict=True)))


def score_spans(
    found: Sequence[Iterable[tuple[int, int]]], expected: Sequence[Collection[int]]
) -> SpanScores:
    """Returns the means over texts of precision, recall and F1 of toxic characters.

    The mean of F1 is the score of SemEval-2021, task 5.

    Args:
        found: of each text its spans, half-open ranges of characters.
        expected: of each text the places of its toxic characters.

    Raises:
        ValueError: there are no texts, or not as many of both.

    Example:
        >>> score_spans([[(0, 2)], []], [[0, 1], [3]]).f1
        0.5
    """
    if len(found) != len(expected):
        raise ValueError(
            f"found and expected must have the same length: got {len(found)} and {len(expected)}"
        )
    if not found:
        raise ValueError("found must hold at least one text")
    scores = [
        score_characters({place for start, end in spans for place in range(start, end)}, gold)
        for spans, gold in zip(found, expected, strict=True)
    ]
    return average(scores)


def score_pairs(found: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> SpanScores:
    """Returns precision, recall and F1 of toxic segments, over those of all texts together.

    Source: Detox-Chain (arXiv 2308.08295), its table of steps gives the recall.

    Args:
        found: of each text the labels of its segments, 1 for toxic.
        expected: the same, as they should be.

    Raises:
        ValueError: the texts or the segments of a text are not as many in both.

    Example:
        >>> score_pairs([[1, 0, 1]], [[1, 1, 0]])
        SpanScores(precision=0.5, recall=0.5, f1=0.5)
    """
    if len(found) != len(expected):
        raise ValueError(
            f"found and expected must have the same length: got {len(found)} and {len(expected)}"
        )
    right = own = gold = 0
    for row, (one, other) in enumerate(zip(found, expected, strict=True)):
        if len(one) != len(other):
            raise ValueError(
                f"found[{row}] and expected[{row}] must have the same length: got {len(one)} and "
                f"{len(other)}"
            )
        right += sum(a == b == 1 for a, b in zip(one, other, strict=True))
        own += sum(label == 1 for label in one)
        gold += sum(label == 1 for label in other)
    return compute_ratios(right, own, gold)
