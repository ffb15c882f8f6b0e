"""How many rows of each task are taken: a cap for each, and a ratio of two languages.

With a cap, no task is more than so many rows (the mixing by numbers of examples of T5 and FLAN).
Then one language has too many rows for the ratio, and all of its tasks give up the same share;
or the rows of the other one are repeated. Source: OpenBA, stage III, specification section 5.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray


def cap_groups(draws: Sequence[NDArray[np.uint64]], cap: int | None) -> list[int]:
    """Returns how many rows each language of one task keeps under the task's cap.

    The rows with the least draws are kept, whatever their language.

    Args:
        draws: for each language the draws of its rows, `[rows]` in ascending order.
        cap: most rows of all; None keeps them.

    Example:
        >>> cap_groups([np.array([1, 5, 6], np.uint64), np.array([2, 9], np.uint64)], 3)
        [2, 1]
    """
    counts = [len(part) for part in draws]
    if cap is None or sum(counts) <= cap:
        return counts
    language = np.repeat(np.arange(len(draws)), counts)
    kept = language[np.argsort(np.concatenate(draws), kind="stable")[:cap]]
    return [int((kept == number).sum()) for number in range(len(draws))]


def balance_languages(
    counts: tuple[int, int], ratio: tuple[Fraction, Fraction], *, repeat: bool
) -> tuple[int, int]:
    """Returns how many rows of two languages stand in a ratio.

    Args:
        counts: rows of each, at least one.
        ratio: shares of each, above 0.
        repeat: give the one that is short more rows; or else the other one fewer.

    Example:
        >>> two_to_one = (Fraction(2), Fraction(1))
        >>> balance_languages((900, 100), two_to_one, repeat=False)
        (200, 100)
        >>> balance_languages((900, 100), two_to_one, repeat=True)
        (900, 450)
    """
    first, second = counts
    share, other = ratio
    if (first * other > second * share) != repeat:
        return max(1, round(second * share / other)), second
    return first, max(1, round(first * other / share))


def divide(total: int, counts: Sequence[int]) -> list[int]:
    """Returns a total divided in proportion to counts, in whole numbers.

    What rounding leaves goes to the largest remainders, of equal ones to the first.

    Args:
        total: to divide.
        counts: not all of them 0.

    Example:
        >>> divide(10, [1, 1, 1])
        [4, 3, 3]
    """
    whole = sum(counts)
    parts = [total * count // whole for count in counts]
    rests = [total * count % whole for count in counts]
    order = sorted(range(len(counts)), key=lambda index: -rests[index])
    for index in order[: total - sum(parts)]:
        parts[index] += 1
    return parts


def parse_ratio(text: str) -> tuple[Fraction, Fraction] | None:
    """Returns the two sides of a ratio such as `2:1` or `66.7:33.3`; None for `none`.

    Args:
        text: English to Chinese.

    Raises:
        ValueError: it is none, or a side is not above 0 and at most 1000.

    Example:
        >>> parse_ratio("66.7:33.3"), parse_ratio("none")
        ((Fraction(667, 10), Fraction(333, 10)), None)
    """
    if text == "none":
        return None
    sides = text.split(":")
    problem = (
        f"ratio must be two numbers above 0 and at most 1000, EN:ZH, or none: got {text!r:.60}"
    )
    if len(sides) != 2 or not all(
        len(side) <= 10 and side.isascii() and side.replace(".", "", 1).isdigit() for side in sides
    ):
        raise ValueError(problem)
    first, second = (Fraction(side) for side in sides)
    if not 0 < min(first, second) <= max(first, second) <= 1000:
        raise ValueError(problem)
    return first, second
