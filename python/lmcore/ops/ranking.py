"""Where a target stands among scored candidates, and the means that are reported of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore import _core
from lmcore.ops._dispatch import choose
from lmcore.ops._tensors import is_tensor, to_host
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import one_of, same_length
from lmcore.reference.ranking import TIES, as_columns, check_cutoffs

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import ArrayLike, NDArray

__all__ = ["TIES", "Ranks", "rank_targets", "ranking_metrics"]

# How much of those with the target's score stands before it.
_SHARES = {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}


class Ranks(NamedTuple):
    """Where the targets stand."""

    ranks: NDArray[np.float64]
    """`[U]` float64, from 0; a multiple of 1/2 under the rule `average`."""
    ties: NDArray[np.int64]
    """`[U]` int64: how many other candidates have exactly the target's score."""


def rank_targets(
    scores: ArrayLike | torch.Tensor,
    targets: ArrayLike | torch.Tensor,
    offsets: ArrayLike | torch.Tensor | None = None,
    excluded: ArrayLike | torch.Tensor | None = None,
    *,
    ties: str = "average",
    threads: int | None = None,
) -> Ranks:
    """Returns the rank of each user's target among the candidates, from 0.

    The rank is the number of candidates with a greater score, plus, of the others with the
    target's score, half (`average`: the mean over all their orders), none (`optimistic`) or all
    (`pessimistic`). It does not depend on the order of the candidates.

    Full protocol: one column per item of the catalogue, the user's history excluded. A block of
    users at a time (256 rows of scores, say) keeps users x items from existing at once.
    Sampled protocol: the target's score in column 0, those of the drawn candidates after it,
    nothing excluded. A drawn candidate that is the target itself has its score, so it counts as
    a tie.

    Rows of an array or of a tensor on the CPU are read in place, also if they lie apart (as
    those of `scores[:, 1:]` do). Scores on another device are compared there, and only counts
    come back.

    Source: UFNRec (arXiv 2208.04116), its evaluator; Krichene and Rendle, "On sampled metrics
    for item recommendation" (KDD 2020).

    Args:
        scores: `[U, C]` float32 or float64, array or tensor; infinities are allowed.
        targets: `[U]` integers, the target's column.
        offsets: `[U + 1]` integers; user u's part of `excluded` is offsets[u]:offsets[u + 1].
            None, together with `excluded`, excludes nothing.
        excluded: integers, columns that are no candidates, in any order, also repeated. A
            target stays a candidate even if it is among them.
        ties: `average`, `optimistic` or `pessimistic`.
        threads: number of threads on the CPU; all cores if None. The result does not depend
            on it.

    Returns:
        Ranks `[U]` float64, and numbers of ties `[U]` int64.

    Raises:
        TypeError: scores that are neither float32 nor float64, or others that are not integers.
        ValueError: unknown rule, wrong shapes, lengths or offsets, threads below 1, or a
            candidate's score is not a number.
        IndexError: a column outside 0..C-1.

    Example:
        >>> import numpy as np
        >>> scores = np.array([[0.1, 0.9, 0.5, 0.5], [0.4, 0.3, 0.2, 0.1]], dtype=np.float32)
        >>> ranks, ties = rank_targets(scores, targets=[2, 3], offsets=[0, 1, 1], excluded=[1])
        >>> ranks.tolist(), ties.tolist()
        ([0.5, 3.0], [1, 0])
    """
    import numpy as np

    one_of("ties", ties, TIES)
    if (offsets is None) != (excluded is None):
        given, missing = ("excluded", "offsets") if offsets is None else ("offsets", "excluded")
        raise ValueError(f"{given} needs {missing}: got None")
    tensor = scores if is_tensor(scores) else None
    array: Any = tensor if tensor is not None else np.asarray(scores)
    kind = array.dtype.name if tensor is None else str(tensor.dtype).removeprefix("torch.")
    if kind not in ("float32", "float64"):
        raise TypeError(f"scores must be float32 or float64: got {array.dtype}")
    if array.ndim != 2:
        raise ValueError(f"scores must have the shape [users, columns]: got {tuple(array.shape)}")
    if offsets is None or excluded is None:
        offsets, excluded = np.zeros(len(array) + 1, np.int64), np.zeros(0, np.int64)
    columns = as_columns(array.shape[1], *map(to_host, (targets, offsets, excluded)))
    if tensor is not None:
        tensor = tensor.detach()
        if choose(tensor) != "core":
            return _rank_by_torch(tensor, *columns, ties)
        array = tensor.numpy()
    # Another byte order or odd addresses are copied into the usual form.
    array = np.require(array, dtype=array.dtype.newbyteorder("="), requirements=["A"])
    return Ranks(*_core.rank_targets(array, *columns, ties, limit_threads(threads)))


def ranking_metrics(
    ranks: ArrayLike | torch.Tensor, cutoffs: Sequence[int] = (1, 5, 10)
) -> dict[str, float]:
    """Returns the means over users of HR@k and NDCG@k for each cutoff k, and of MRR.

    HR@k: 1 where the rank is below k, else 0. NDCG@k: 1 / log2(rank + 2) where the rank is below
    k, else 0. MRR: 1 / (rank + 1). The rank of a tied target may be a fraction, which these
    formulas take as it is: two candidates that share the first place have rank 1/2, a hit at 1.

    Source: UFNRec (arXiv 2208.04116), its evaluator.

    Args:
        ranks: `[U]` numbers from 0, as `rank_targets` returns them, of one or of many blocks.
        cutoffs: each at least 1 and below 2**63.

    Returns:
        Keys `HR@k` for each k, `NDCG@k` for each k, and `MRR`.

    Raises:
        TypeError: ranks that are not numbers, or cutoffs that are not integers.
        ValueError: no ranks, a rank that is negative or not finite, or a cutoff out of its range.

    Example:
        >>> ranking_metrics([0, 2], cutoffs=[1, 5])
        {'HR@1': 0.5, 'HR@5': 1.0, 'NDCG@1': 0.5, 'NDCG@5': 0.75, 'MRR': 0.6666666666666666}
    """
    import numpy as np

    array = np.asarray(to_host(ranks))
    if array.size and array.dtype.kind not in "iuf":
        raise TypeError(f"ranks must be numbers: got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"ranks must have one dimension: got {array.shape}")
    numbers = check_cutoffs(cutoffs)
    hits, gains, reciprocal = _core.ranking_metrics(
        np.require(array, np.float64, ["C", "A"]), numbers
    )
    metrics = {f"HR@{k}": value for k, value in zip(numbers, hits, strict=True)}
    metrics |= {f"NDCG@{k}": value for k, value in zip(numbers, gains, strict=True)}
    return {**metrics, "MRR": reciprocal}


def _rank_by_torch(
    scores: torch.Tensor,
    targets: NDArray[np.int64],
    offsets: NDArray[np.int64],
    excluded: NDArray[np.int64],
    ties: str,
) -> Ranks:
    """Counts with torch where the scores are; needs one byte of memory there per score."""
    import torch

    same_length(targets=targets, scores=scores)
    width = scores.shape[1]
    rows, columns = _core.list_excluded(width, targets, offsets, excluded)
    row, column = (torch.from_numpy(part).to(scores.device) for part in (rows, columns))
    own = scores.gather(1, torch.from_numpy(targets.copy()).to(scores.device)[:, None])
    out, rival = scores[row, column], own[row, 0]
    counts = []
    for whole, part in (
        (scores > own, out > rival),
        (scores == own, out == rival),
        (scores.isnan(), out.isnan()),
    ):
        count = whole.sum(dim=1)
        counts.append(count.index_add(0, row, part.to(count.dtype), alpha=-1))
    greater, equal, unordered = torch.stack(counts).cpu().numpy()
    if unordered.any():
        user = int((unordered > 0).argmax())
        is_unordered = scores[user].isnan().cpu().numpy()
        is_unordered[columns[rows == user]] = False
        first = int(is_unordered.argmax())
        raise ValueError(f"scores[{user}, {first}] must be a number: got nan")
    return Ranks(greater + _SHARES[ties] * (equal - 1), equal - 1)
