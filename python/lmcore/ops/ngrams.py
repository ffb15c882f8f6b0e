"""N-grams of words: BLEU of sentences, the candidate that others agree with most, and counts.

The words of a text are what `str.split` makes of it; words that were cut in another way are joined
by spaces first. The definition is `lmcore.reference.ngrams`, and every number is the same to the
last bit: logarithms, roundings and the order of additions are those of NLTK and numpy.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers, check_int, no_such_id
from lmcore.reference.ngrams import MOST_ORDER, SMOOTHINGS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

_MOST_ROWS = 1 << 32

__all__ = [
    "SMOOTHINGS",
    "Choices",
    "NgramCounts",
    "choose_candidates",
    "count_ngrams",
    "self_bleu",
    "sentence_bleu",
]


class Choices(NamedTuple):
    """The candidates that were chosen."""

    best: NDArray[np.int64]
    """`[groups]` int64, the index of the chosen candidate in its group."""
    sums: NDArray[np.float64]
    """`[candidates]` float64, group by group: the sum of a candidate's BLEU against the others."""


class NgramCounts(NamedTuple):
    """How often n-grams occur."""

    occurrences: list[NDArray[np.int64]]
    """For n = 1, 2, ... int64 of each n-gram, in the order of first appearance."""
    most: NDArray[np.int64]
    """`[texts, order]` int64: of the most frequent n-gram within each text; 0 if it has none."""


def sentence_bleu(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    order: int = 4,
    smoothing: str = "method4",
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Returns BLEU-1 to BLEU-N of each hypothesis against its references.

    What NLTK's `sentence_bleu` returns with weights of 1 / n for each n: precisions clipped by the
    largest count in any reference, the nearest reference length (the shorter of two), and 0 where
    no word is shared. A text that is shorter than n words has no match of n.

    Source: Papineni et al. (ACL 2002); Chen and Cherry (WMT 2014) for the smoothing, method 4 as
    NLTK has it since 3.6.

    Args:
        hypotheses: R texts.
        references: R times one text or more.
        order: N, at most 16.
        smoothing: `method1` takes 0.1 n-grams for none, `method4` for the k-th n without a match
            ln(words) / (5 * 2**k).
        threads: number of threads; all cores if None. The result does not depend on it.

    Returns:
        `[R, N]` float64.

    Raises:
        MemoryError: the memory is refused.
        TypeError: something that is no str where one should be.
        ValueError: lengths that differ, a hypothesis without references, a setting that does not
            exist, or a lone surrogate.

    Example:
        >>> sentence_bleu(["the cat sat"], [["the cat sat down", "a cat sat"]], order=2).round(3)
        array([[1., 1.]])
    """
    number = _check_order(order)
    return _core.sentence_bleu(hypotheses, references, number, smoothing, limit_threads(threads))


def self_bleu(
    texts: Sequence[str],
    rows: ArrayLike | None = None,
    *,
    order: int = 5,
    smoothing: str = "method1",
) -> NDArray[np.float64]:
    """Returns BLEU-1 to BLEU-N of some of the texts, each against all others.

    Time grows with the number of words, not with the number of pairs: of each n-gram the largest
    count and that of all others are known at once.

    Source: Zhu et al. (SIGIR 2018), Texygen; the evaluator of Bridge-Gap Diffusion
    (arXiv 2305.04465) divides the sum over up to 1,000 rows by 1,000.

    Args:
        texts: T texts, two or more.
        rows: `[R]` integers, which of them; all if None.
        order: N, at most 16.
        smoothing: as for `sentence_bleu`.

    Returns:
        `[R, N]` float64.

    Raises:
        IndexError: a row that does not exist.
        MemoryError: the memory is refused.
        TypeError: something that is no str or no integer where one should be.
        ValueError: fewer than two texts, a setting that does not exist, or a lone surrogate.

    Example:
        >>> self_bleu(["a b", "a b", "a c"], order=1).tolist()
        [[1.0], [1.0], [0.5]]
    """
    import numpy as np

    number = _check_order(order)
    if rows is None:
        rows = range(len(texts))
    # A view may have any number of items: before anything takes as many steps.
    if isinstance(rows, np.ndarray) and rows.size >= _MOST_ROWS:
        raise MemoryError(f"not enough memory for {rows.size} values")
    places = as_integers(
        "rows", rows, "[R]", lambda at, row: no_such_id("rows", at[0], row, 0, len(texts))
    )
    return _core.self_bleu(texts, places, number, smoothing)


def choose_candidates(
    groups: Sequence[Sequence[str]],
    *,
    order: int = 4,
    smoothing: str = "method4",
    threads: int | None = None,
) -> Choices:
    """Returns the candidate of each group that the others agree with most: minimum Bayes risk.

    The sum of a candidate is that of its BLEU-N against each of the others as the only reference.
    The first of the largest wins, and numbers are added in numpy's order.

    Source: Kumar and Byrne (NAACL 2004); Bridge-Gap Diffusion (arXiv 2305.04465), its evaluator.

    Args:
        groups: of each source the candidates, one or more.
        order: N, at most 16.
        smoothing: as for `sentence_bleu`.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        MemoryError: the memory is refused; a group takes room for each pair of its candidates.
        TypeError: something that is no str where one should be.
        ValueError: a group without candidates, a setting that does not exist, or a lone surrogate.

    Example:
        >>> choose_candidates([["a b d", "a c d", "a b c d"], ["x"]]).best.tolist()
        [2, 0]
    """
    number = _check_order(order)
    found = _core.choose_candidates(groups, number, smoothing, limit_threads(threads))
    return Choices(*found)


def count_ngrams(texts: Sequence[str], order: int = 4) -> NgramCounts:
    """Returns how often each n-gram occurs in all texts for n = 1 to N, and within each text.

    Distinct-n is `len(occurrences[n - 1])` in proportion to their sum; repetition-n (k) is the
    share of texts whose `most[:, n - 1]` is above k.

    Source: the evaluator of Bridge-Gap Diffusion (arXiv 2305.04465).

    Args:
        texts: T texts.
        order: N, at most 16.

    Raises:
        MemoryError: the memory is refused.
        TypeError: something that is no str where one should be.
        ValueError: an order that does not exist, or a lone surrogate.

    Example:
        >>> counts = count_ngrams(["a b a", "b"], order=2)
        >>> [n.tolist() for n in counts.occurrences], counts.most.tolist()
        ([[2, 2], [1, 1]], [[2, 1], [1, 0]])
    """
    return NgramCounts(*_core.count_ngrams(texts, _check_order(order)))


def _check_order(order: int) -> int:
    return check_int("order", order, 1, most=MOST_ORDER)
