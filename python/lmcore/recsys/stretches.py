"""Stretches of arrays: rows of many lengths, one after the other, and what is taken of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def count_repeated(users: NDArray[np.int64], items: NDArray[np.int64]) -> int:
    """Interactions less distinct ones; both ids are contiguous, so that the keys fit."""
    if not len(items):
        return 0
    keys = np.sort(users * (int(items.max()) + 1) + items)
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def to_offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """`[n + 1]` offsets of n rows of these lengths."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def take_windows(
    items: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
) -> NDArray[np.int64]:
    """The last `max_length` items of each stretch, right aligned."""
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
    """The stretches `values[start:end]` one after the other: `[n + 1]` offsets, and the values."""
    offsets = to_offsets(ends - starts)
    indices = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
    return offsets, values[indices]
