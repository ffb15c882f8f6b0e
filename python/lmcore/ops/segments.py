"""Segments: the runs of n tokens of each text, which ones are distinct, and texts without some.

A text stands as ids between two offsets, as a tokenizer of many texts gives them.  The definition
is `lmcore.reference.segments`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers, check_int
from lmcore.reference.segments import MOST_SIZE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["MOST_SIZE", "MaskedTexts", "Segments", "list_segments", "mask_segments"]


class Segments(NamedTuple):
    """The segments of texts."""

    distinct: NDArray[np.int64]
    """`[D, n]` int64: the ids of each distinct segment, in the order of first appearance."""
    inverse: NDArray[np.int64]
    """`[S]` int64: of each segment, text by text, the index of the distinct one that it is."""
    offsets: NDArray[np.int64]
    """`[R + 1]` int64: text r has the segments from `offsets[r]` to `offsets[r + 1]`."""


class MaskedTexts(NamedTuple):
    """Texts with masks in place of toxic segments."""

    ids: NDArray[np.int64]
    """`[T']` int64, one text after the other."""
    offsets: NDArray[np.int64]
    """`[R + 1]` int64: text r has the ids from `offsets[r]` to `offsets[r + 1]`."""


def list_segments(ids: ArrayLike, offsets: ArrayLike, size: int = 2) -> Segments:
    """Returns the distinct segments of texts, and which one each segment is.

    What is computed for each distinct segment once, such as a score, is mapped back to all of them
    by `scores[segments.inverse]`.

    Source: Detox-Chain (arXiv 2308.08295), section 2: pairs of adjacent tokens; the table of its
    section 2.4 compares runs of one, two and three tokens.

    Args:
        ids: `[T]` integers, tokens of all texts, one text after the other.
        offsets: `[R + 1]` integers: text r has the ids from `offsets[r]` to `offsets[r + 1]`.
        size: n, tokens of a segment, at most 16. A text of fewer tokens has no segments.

    Raises:
        MemoryError: the memory is refused.
        TypeError: ids or offsets that are no integers.
        ValueError: a size outside its range, or offsets that do not ascend from 0 to T.

    Example:
        >>> found = list_segments([5, 6, 5, 6, 7], [0, 4, 5])
        >>> found.distinct.tolist(), found.inverse.tolist(), found.offsets.tolist()
        ([[5, 6], [6, 5]], [0, 1, 0], [0, 3, 3])
    """
    number = _check_size(size)
    return Segments(*_core.list_segments(*_as_texts(ids, offsets), number))


def mask_segments(
    ids: ArrayLike,
    offsets: ArrayLike,
    labels: ArrayLike,
    mask_id: int,
    *,
    size: int = 2,
    threads: int | None = None,
) -> MaskedTexts:
    """Returns texts with one mask in place of each run of tokens that are of toxic segments.

    All tokens of a toxic segment are masked, and masks beside each other become one: one walk,
    linear in the number of tokens.

    Source: Detox-Chain (arXiv 2308.08295), `mask_toxic_span.py` of the released code, which
    replaces strings instead.

    Args:
        ids: `[T]` integers, tokens of all texts, one text after the other.
        offsets: `[R + 1]` integers: text r has the ids from `offsets[r]` to `offsets[r + 1]`.
        labels: `[S]` integers or bool, 1 for each toxic segment and 0 for each other one, in the
            order of `list_segments`.
        mask_id: the mask; where it stands in a text already, it is one, too.
        size: n, tokens of a segment, at most 16.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        MemoryError: the memory is refused.
        TypeError: ids, offsets or labels that are no integers.
        ValueError: a size outside its range, offsets that do not ascend from 0 to T, or labels that
            are not one for each segment, 0 or 1.

    Example:
        >>> masked = mask_segments([5, 6, 7, 8, 9], [0, 5], [0, 1, 1, 0], 3)
        >>> masked.ids.tolist(), masked.offsets.tolist()
        ([5, 3, 9], [0, 3])
    """
    import numpy as np

    number = _check_size(size)
    mask = check_int("mask_id", mask_id, -1 << 63, 1 << 63)
    texts = _as_texts(ids, offsets)
    if isinstance(labels, np.ndarray) and labels.dtype == bool:
        labels = labels.view(np.uint8)
    toxic = as_integers("labels", labels, "[S]")
    return MaskedTexts(*_core.mask_segments(*texts, toxic, mask, number, limit_threads(threads)))


def _as_texts(ids: ArrayLike, offsets: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    return as_integers("ids", ids, "[T]"), as_integers("offsets", offsets, "[R + 1]")


def _check_size(size: int) -> int:
    return check_int("size", size, 1, most=MOST_SIZE)
