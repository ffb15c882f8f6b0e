"""Longest common subsequence with the alignment that GNER's fast matcher picks.

Source: GNER (arXiv 2402.16602), Hierarchical Matching: the LCS of two word
sequences is the longest strictly increasing subsequence (LIS) of their matching
pairs, found by patience sorting.

Letters follow the paper: `a` are the n words of the input, `b` the m generated words.
"""

from collections.abc import Hashable, Sequence


def longest_common_subsequence(a: Sequence[Hashable], b: Sequence[Hashable]) -> list[int]:
    """Returns, for each item of `a`, the index of its partner in `b`, or -1.

    Among the alignments of maximal length it returns one: pairs are visited in the
    order of `a`, and for equal items of `b` from the last to the first; the walk back
    starts at the pair that was put last on the last pile.

    Args:
        a: n items.
        b: m items.

    Returns:
        n indices into `b`; those that are not -1 strictly increase.

    Example:
        >>> longest_common_subsequence("a b b a".split(), "b a a b".split())
        [-1, -1, 0, 1]
    """
    positions: dict[Hashable, list[int]] = {}
    for j in range(len(b) - 1, -1, -1):
        positions.setdefault(b[j], []).append(j)

    # A pile holds (i, j, parent): parent is the index of the predecessor on the pile before.
    piles: list[list[tuple[int, int, int]]] = []
    tops: list[int] = []
    for i, word in enumerate(a):
        for j in positions.get(word, ()):
            low, high = 0, len(tops)
            while low < high:
                middle = (low + high) // 2
                if tops[middle] >= j:
                    high = middle
                else:
                    low = middle + 1
            if low == len(tops):
                tops.append(j)
                piles.append([])
            tops[low] = j
            parent = len(piles[low - 1]) - 1 if low > 0 else -1
            piles[low].append((i, j, parent))

    alignment = [-1] * len(a)
    index = len(piles[-1]) - 1 if piles else -1
    for pile in reversed(piles):
        i, j, index = pile[index]
        alignment[i] = j
    return alignment
