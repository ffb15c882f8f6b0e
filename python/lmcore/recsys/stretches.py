"""Stretches of arrays: rows of many lengths, one after the other, and what is taken of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_repeated(users: NDArray[np.int64], items: NDArray[np.int64]) -> int:
    """Returns interactions less distinct ones.

    Args:
        users: `[n]`, contiguous ids, so that keys of both fit.
        items: `[n]`, contiguous ids from 0 or 1.

    Example:
        >>> count_repeated(np.array([1, 1, 2]), np.array([3, 3, 3]))
        1
    """
    if not len(items):
        return 0
    keys = np.sort(users * (int(items.max()) + 1) + items)
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def to_offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns `[n + 1]` offsets of n rows.

    Args:
        lengths: `[n]`, of the rows.

    Example:
        >>> to_offsets(np.array([2, 0, 3])).tolist()
        [0, 2, 2, 5]
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_windows(
    items: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
) -> NDArray[np.int64]:
    """Returns the last items of each stretch, `[n, max_length]`, left padded with 0.

    Args:
        items: where the stretches lie.
        starts: `[n]`, of the stretches.
        ends: `[n]`, of the stretches.
        max_length: at least 1.

    Raises:
        ValueError: `max_length` is below 1.

    Example:
        >>> take_windows(np.array([7, 8, 9]), np.array([0, 2]), np.array([2, 3]), 2).tolist()
        [[7, 8], [0, 9]]
    """
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1: got {max_length}")
    indices = ends[:, None] + np.arange(-max_length, 0)
    inside = indices >= starts[:, None]
    windows = np.zeros(indices.shape, dtype=np.int64)
    windows[inside] = items[indices[inside]]
    return windows


def take_stretches(
    values: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Returns `[n + 1]` offsets, and the values of all stretches one after the other.

    Args:
        values: where the stretches lie.
        starts: `[n]`, of the stretches.
        ends: `[n]`, of the stretches; none before its start.

    Example:
        >>> starts, ends = np.array([2, 0]), np.array([3, 2])
        >>> offsets, values = take_stretches(np.array([7, 8, 9]), starts, ends)
        >>> offsets.tolist(), values.tolist()
        ([0, 1, 3], [9, 7, 8])
    """
    offsets, places = find_places(starts, ends)
    return offsets, values[places]


def find_places(
    starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns `[n + 1]` offsets, and where the values of all stretches stand.

    Args:
        starts: `[n]`, of the stretches.
        ends: `[n]`, of the stretches; none before its start.

    Example:
        >>> offsets, places = find_places(np.array([2, 0]), np.array([3, 2]))
        >>> offsets.tolist(), places.tolist()
        ([0, 1, 3], [2, 0, 1])
    """
    offsets = to_offsets(ends - starts)
    return offsets, np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
