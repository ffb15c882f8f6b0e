"""Segments: the runs of n tokens of each text, which ones are distinct, and texts without some.

Source: Detox-Chain (arXiv 2308.08295), section 2: a segment is a pair of adjacent tokens; the table
of its section 2.4 compares runs of one, two and three. Masking is `mask_toxic_span.py` of the
released code.

A text of tokens x_0 ... x_(k-1) has the segments s_j = x_j ... x_(j+n-1), and none if k < n.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from lmcore.reference._arguments import in_range

MOST_SIZE = 16


def list_segments(
    ids: Sequence[int], offsets: Sequence[int], size: int = 2
) -> tuple[list[list[int]], list[int], list[int]]:
    """Returns the distinct segments of texts, which one each segment is, and where texts start.

    Args:
        ids: tokens of all texts, one text after the other.
        offsets: text r has the ids from `offsets[r]` to `offsets[r + 1]`.
        size: n, tokens of a segment.

    Returns:
        The distinct segments in the order of first appearance, for each segment of the texts the
        index of the distinct one, and the offsets of each text's segments.

    Raises:
        ValueError: a size outside its range, or offsets that do not ascend from 0 to the end.

    Example:
        >>> list_segments([5, 6, 5, 6, 7], [0, 4, 5])
        ([[5, 6], [6, 5]], [0, 1, 0], [0, 3, 3])
    """
    texts = _cut(ids, offsets, size)
    numbers: dict[tuple[int, ...], int] = {}
    inverse, starts = [], [0]
    for x in texts:
        for j in range(len(x) - size + 1):
            s_j = tuple(x[j : j + size])
            inverse.append(numbers.setdefault(s_j, len(numbers)))
        starts.append(len(inverse))
    return [list(segment) for segment in numbers], inverse, starts


def mask_segments(
    ids: Sequence[int], offsets: Sequence[int], labels: Sequence[int], mask_id: int, size: int = 2
) -> tuple[list[int], list[int]]:
    """Returns texts with a mask in place of each run of tokens that are of toxic segments.

    Args:
        ids: tokens of all texts, one text after the other.
        offsets: text r has the ids from `offsets[r]` to `offsets[r + 1]`.
        labels: 1 for each toxic segment, 0 for each other one, text by text.
        mask_id: the mask; where it stands in a text already, it is one, too.
        size: n, tokens of a segment.

    Returns:
        The ids of the masked texts, one text after the other, and their offsets.

    Raises:
        ValueError: a size outside its range, offsets that do not ascend from 0 to the end, or
            labels that are not one for each segment, 0 or 1.

    Example:
        >>> mask_segments([5, 6, 7, 8, 9], [0, 5], [0, 1, 1, 0], 3)
        ([5, 3, 9], [0, 3])
    """
    texts = _cut(ids, offsets, size)
    total = sum(max(0, len(x) - size + 1) for x in texts)
    if len(labels) != total:
        raise ValueError(f"labels must be {total} values long: got {len(labels)}")
    masked: list[int] = []
    ends, first = [0], 0
    for x in texts:
        tokens = list(x)
        for j in range(len(x) - size + 1):
            in_range(f"labels[{first}]", labels[first], 0, most=1)
            if labels[first] == 1:
                tokens[j : j + size] = [mask_id] * size
            first += 1
        for t, token in enumerate(tokens):
            if not (token == mask_id and t and tokens[t - 1] == mask_id):
                masked.append(token)
        ends.append(len(masked))
    return masked, ends


def _cut(ids: Sequence[int], offsets: Sequence[int], size: int) -> list[Sequence[int]]:
    in_range("size", size, 1, most=MOST_SIZE)
    if not len(offsets):
        raise ValueError("offsets must be at least 1 value long: got 0")
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] must be 0: got {offsets[0]}")
    for r, (start, end) in enumerate(pairwise(offsets), 1):
        if end < start:
            raise ValueError(f"offsets[{r}] must be at least {start}: got {end}")
    if offsets[-1] != len(ids):
        raise ValueError(
            f"offsets[{len(offsets) - 1}] must be {len(ids)}, the length of ids: got {offsets[-1]}"
        )
    return [ids[a:b] for a, b in pairwise(offsets)]
