"""Where a target stands among scored candidates, and the means that are reported of it.

Source: UFNRec (arXiv 2208.04116), its evaluator, for HR@k and NDCG@k over sampled candidates;
Krichene and Rendle, "On sampled metrics for item recommendation" (KDD 2020), for ranking the
whole catalogue. The authors' evaluator leaves ties to the order of its sort; here a rule says.

| ties          | the target stands                                                   |
| ------------- | ------------------------------------------------------------------- |
| `average`     | in the middle of those with its score: the mean over all their orders |
| `optimistic`  | before them                                                         |
| `pessimistic` | behind them                                                         |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lmcore.reference._arguments import (
    as_integers,
    check_int,
    id_in_range,
    no_such_id,
    one_of,
    same_length,
)

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

TIES = ("average", "optimistic", "pessimistic")


def rank_targets(
    scores: Sequence[Sequence[float]],
    targets: Sequence[int],
    offsets: Sequence[int],
    excluded: Sequence[int],
    ties: str = "average",
) -> tuple[list[float], list[int]]:
    """Returns the rank of each user's target, from 0, and how many others have its score.

    Args:
        scores: U rows of C scores, one per candidate.
        targets: U columns.
        offsets: U + 1 integers; user u's part of `excluded` is offsets[u]:offsets[u + 1].
        excluded: columns that are no candidates, in any order, also repeated; a target is a
            candidate all the same.
        ties: one of `TIES`.

    Raises:
        ValueError: unknown rule, wrong lengths or offsets, or a candidate's score is not a number.
        IndexError: a column outside 0..C-1.

    Example:
        >>> rank_targets([[0.1, 0.9, 0.5, 0.5]], targets=[2], offsets=[0, 1], excluded=[1])
        ([0.5], [1])
    """
    one_of("ties", ties, TIES)
    size = len(scores[0]) if scores else 0
    arrays = as_columns(size, targets, offsets, excluded)
    targets, offsets, excluded = (array.tolist() for array in arrays)
    same_length(targets=targets, scores=scores)
    _check(size, targets, offsets, excluded)
    ranks, tied = [], []
    for u, (row, t) in enumerate(zip(scores, targets, strict=True)):
        left_out = set(excluded[offsets[u] : offsets[u + 1]]) - {t}
        greater = equal = 0
        for c in range(size):
            if c in left_out:
                continue
            if math.isnan(row[c]) or math.isnan(row[t]):
                first = next(k for k in range(size) if k not in left_out and math.isnan(row[k]))
                raise ValueError(f"scores[{u}, {first}] must be a number: got nan")
            greater += row[c] > row[t]
            equal += c != t and row[c] == row[t]
        before = {"average": equal / 2, "optimistic": 0, "pessimistic": equal}[ties]
        ranks.append(float(greater + before))
        tied.append(equal)
    return ranks, tied


def ranking_metrics(
    ranks: Sequence[float], cutoffs: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Returns the means over users of HR@k and NDCG@k for each cutoff, and of 1 / (rank + 1).

    Args:
        ranks: one per user, from 0.
        cutoffs: each at least 1 and below 2**63.

    Raises:
        TypeError: a cutoff is not an int.
        ValueError: no ranks, a rank that is negative or not finite, or a cutoff out of its range.

    Example:
        >>> ranking_metrics([0, 2], cutoffs=[1, 5])
        {'HR@1': 0.5, 'HR@5': 1.0, 'NDCG@1': 0.5, 'NDCG@5': 0.75, 'MRR': 0.6666666666666666}
    """
    cutoffs = check_cutoffs(cutoffs)
    if len(ranks) == 0:
        raise ValueError("the length of ranks must be at least 1: got 0")
    for i, rank in enumerate(ranks):
        if not 0 <= rank < math.inf:
            raise ValueError(f"ranks[{i}] must be at least 0 and finite: got {float(rank)!r}")
    users = len(ranks)
    hits = {f"HR@{k}": sum(rank < k for rank in ranks) / users for k in cutoffs}
    gains = {
        f"NDCG@{k}": math.fsum(1 / math.log2(rank + 2) for rank in ranks if rank < k) / users
        for k in cutoffs
    }
    return {**hits, **gains, "MRR": math.fsum(1 / (rank + 1) for rank in ranks) / users}


def check_cutoffs(cutoffs: Sequence[int]) -> list[int]:
    """Returns cutoffs as ints in their range."""
    return [check_int(f"cutoffs[{i}]", k, 1, 1 << 63) for i, k in enumerate(cutoffs)]


def as_columns(
    size: int, targets: ArrayLike, offsets: ArrayLike, excluded: ArrayLike
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Returns targets, offsets and excluded columns as int64 arrays."""

    def refuse_target(index: tuple[int, ...], column: int) -> IndexError:
        return no_such_id("targets", index[0], column, 0, size)

    def refuse_excluded(index: tuple[int, ...], column: int) -> IndexError:
        user = int(bounds.searchsorted(index[0], side="right")) - 1
        return no_such_id("excluded", index[0], column, 0, size, row=user)

    columns = as_integers("targets", targets, "[users]", refuse_target)
    bounds = as_integers("offsets", offsets, "[users + 1]")
    return columns, bounds, as_integers("excluded", excluded, "[excluded]", refuse_excluded)


def _check(
    size: int, targets: Sequence[int], offsets: Sequence[int], excluded: Sequence[int]
) -> None:
    users = len(targets)
    if len(offsets) != users + 1:
        raise ValueError(f"the length of offsets must be {users + 1}: got {len(offsets)}")
    if offsets[0] != 0:
        raise ValueError(f"offsets[0] must be 0: got {offsets[0]}")
    for u in range(users):
        if offsets[u + 1] < offsets[u]:
            raise ValueError(
                f"offsets[{u + 1}] must be at least {offsets[u]}: got {offsets[u + 1]}"
            )
    if offsets[users] != len(excluded):
        raise ValueError(
            f"offsets[{users}] must be {len(excluded)}, the length of excluded: "
            f"got {offsets[users]}"
        )
    for u in range(users):
        id_in_range("targets", u, targets[u], 0, size)
        for k in range(offsets[u], offsets[u + 1]):
            id_in_range("excluded", k, excluded[k], 0, size, row=u)
