"""Longest common subsequence with the alignment that GNER's matcher picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from lmcore import _core

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def longest_common_subsequence(
    a: Sequence[str] | Sequence[int] | NDArray[np.integer],
    b: Sequence[str] | Sequence[int] | NDArray[np.integer],
) -> NDArray[np.int64]:
    """Returns, for each item of `a`, the index of its partner in `b`, or -1.

    Among the alignments of maximal length it returns the one of GNER's patience sorting
    (the definition is `lmcore.reference.lcs`), found by a banded bit-parallel LCS: about
    n + n * (unmatched items) / 64 word operations, and memory that does not grow with n * m.

    Source: GNER (arXiv 2402.16602), Hierarchical Matching.

    Args:
        a: n strings, or `[n]` integers.
        b: m strings, or `[m]` integers.

    Returns:
        `[n]` int64; the values that are not -1 strictly increase.

    Raises:
        TypeError: items are neither all str nor all integers.
        ValueError: a string holds a lone surrogate, or an array is not one-dimensional.

    Example:
        >>> longest_common_subsequence("a b b a".split(), "b a a b".split()).tolist()
        [-1, -1, 0, 1]
        >>> longest_common_subsequence([1, 2, 3], [3, 1, 3]).tolist()
        [1, -1, 2]
    """
    if _holds_strings(a) and _holds_strings(b):
        return _core.longest_common_subsequence_strings(a, b)
    return _core.longest_common_subsequence_integers(_integers(a, "a"), _integers(b, "b"))


def _holds_strings(items: object) -> TypeGuard[Sequence[str]]:
    return isinstance(items, Sequence) and (not items or isinstance(items[0], str))


def _integers(items: object, name: str) -> NDArray[np.int64]:
    import numpy as np

    array = np.asarray(items)
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must hold only str or only integers: got {array.dtype}")
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got shape {array.shape}")
    if array.dtype == np.uint64 and array.size and array.max() > np.iinfo(np.int64).max:
        raise ValueError(f"{name} must hold integers below 2**63: got {array.max()}")
    return array.astype(np.int64, copy=False)
