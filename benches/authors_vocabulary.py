"""Counting of ids as OpenBA-V2's authors do it, written for timing.

Same steps, same data structures and same cost as their code, in our words: each id of a numpy
array is looked up in a dictionary, special ids are skipped, and the pairs are sorted by count.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from numpy.typing import NDArray


def count_ids(documents: list[NDArray[Any]], special_ids: Collection[int] = ()) -> dict[int, int]:
    """Returns how often each id occurs, the most frequent first."""
    counts: dict[int, int] = {}
    for document in documents:
        for token in document:
            if token in special_ids:
                continue
            if token not in counts:
                counts[token] = 0
            counts[token] += 1
    return dict(sorted(counts.items(), key=lambda pair: pair[1], reverse=True))
