"""How often the ids of a vocabulary occur, how they rank, and what they become in another one.

Source: OpenBA-V2 (arXiv 2405.05957), pruning of the vocabulary: count, keep the most frequent, map
old ids to new ones. The authors leave ties to their sort; here the smaller id comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from lmcore.reference._arguments import check_int, in_range

MOST_IDS = 1 << 31
NEW_IDS_END = 1 << 31
# The numbers that a type of new ids holds: the least, and one more than the most.
NEW_IDS = {
    "uint16": (0, 1 << 16),
    "int32": (-1 << 31, 1 << 31),
    "int64": (-1 << 63, 1 << 63),
}


def count_ids(
    ids: Sequence[int], vocabulary_size: int, *, unknown: bool = False
) -> tuple[list[int], int]:
    """Returns how often each id occurs, and how many ids the vocabulary lacks.

    Args:
        ids: N integers.
        vocabulary_size: V, ids are from 0 to V - 1.
        unknown: count ids outside instead of raising.

    Raises:
        IndexError: an id outside, where they are not counted.
        ValueError: `vocabulary_size` is below 1 or above 2**31.

    Example:
        >>> count_ids([2, 0, 2], 3)
        ([1, 0, 2], 0)
    """
    size = check_int("vocabulary_size", vocabulary_size, 1, most=MOST_IDS)
    counts = [0] * size
    outside = [i for i, token in enumerate(ids) if not 0 <= token < size]
    if outside and not unknown:
        i = outside[0]
        raise IndexError(
            f"ids[{i}] must be at least 0 and below {size}: got {ids[i]}, the first of "
            f"{len(outside)} outside"
        )
    for token in ids:
        if 0 <= token < size:
            counts[token] += 1
    return counts, len(outside)


def rank_ids(counts: Sequence[int]) -> list[int]:
    """Returns the ids by falling count; of equal counts the smaller id comes first.

    Args:
        counts: of ids 0, 1, ..., V - 1.

    Raises:
        ValueError: a count is negative.

    Example:
        >>> rank_ids([3, 5, 3, 9])
        [3, 1, 0, 2]
    """
    for token, count in enumerate(counts):
        if count < 0:
            raise ValueError(f"counts[{token}] must be at least 0: got {count}")
    return sorted(range(len(counts)), key=lambda token: (-counts[token], token))


def remap_ids(
    ids: Sequence[int], table: Sequence[int], *, fill: int | None = None, dtype: str = "int32"
) -> tuple[list[int], int, list[int], list[int]]:
    """Returns the new ids, how many have none, which have none, and how many of each.

    Args:
        ids: N integers.
        table: the new id of each old one; -1 where it has none.
        fill: what an id becomes that has none, as one that the table lacks.
        dtype: of the new ids: `uint16`, `int32` or `int64`.

    Raises:
        IndexError: an id has no new one, and there is no `fill`.
        ValueError: the table is empty, or the dtype holds a new id or `fill` not.

    Example:
        >>> remap_ids([2, 0, 1], [1, -1, 0], fill=9)
        ([0, 1, 9], 1, [1], [1])
    """
    least, end = NEW_IDS[dtype]
    if fill is not None:
        in_range("fill", fill, least, end)
    in_range("the length of table", len(table), 1, most=MOST_IDS)
    for old, new in enumerate(table):
        if not -1 <= new < min(end, NEW_IDS_END):
            most = min(end, NEW_IDS_END)
            raise ValueError(f"table[{old}] must be at least -1 and below {most}: got {new}")
    out, lost, first = [], dict[int, int](), None
    for i, token in enumerate(ids):
        new = table[token] if 0 <= token < len(table) else -1
        if new == -1:
            lost[token] = lost.get(token, 0) + 1
            first = i if first is None else first
        out.append(new if new != -1 or fill is None else fill)
    count = sum(lost.values())
    if first is not None and fill is None:
        raise IndexError(
            f"ids[{first}] must have a new id in the table: got {ids[first]}, the first of "
            f"{count} without"
        )
    ranked = sorted(lost, key=lambda token: (-lost[token], token))
    return out, count, ranked, [lost[token] for token in ranked]
