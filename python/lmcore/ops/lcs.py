"""Longest common subsequence with the alignment that GNER's matcher picks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeGuard

from lmcore import _core

_MOST_ITEMS = (1 << 32) - 1  # the core numbers them with 32 bits
_PART = 1 << 24

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
        ValueError: a string holds a lone surrogate, an array is not one-dimensional, or an
            integer needs more than 64 bits.
        MemoryError: the memory is refused, as it is to 2**32 - 1 items and more.

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
    # Lists of integers that numpy has no type for become floats or objects.
    if array.dtype.kind in "fO" and isinstance(items, Sequence):
        array = np.asarray(items, dtype=object)
        if all(isinstance(item, int | np.integer) for item in array.flat):
            for index, item in enumerate(array.flat):
                _check_integer(f"{name}[{index}]", int(item))
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(
            f"{name} must hold only str or only integers: got {np.asarray(items).dtype}"
        )
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got shape {array.shape}")
    if array.size >= _MOST_ITEMS:  # before anything takes as many steps
        raise MemoryError(f"not enough memory for {array.size} values")
    if array.dtype == np.uint64:
        for start in range(0, array.size, _PART):  # between parts, Ctrl-C is heard
            index = start + int(array[start : start + _PART].argmax())
            _check_integer(f"{name}[{index}]", int(array[index]))
    return np.require(array, dtype=np.int64, requirements="A")


def _check_integer(name: str, value: int) -> None:
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f"{name} must be at least -2**63 and below 2**63: got {value}")
