"""Rising indices: what a plan is made of, and how they are written, `0-3,7`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Indices = tuple[int, ...]
Layered = dict[int, Indices]
"""Indices of each layer."""

_NUMBER = "(?:0|[1-9][0-9]{0,9})"
_PART = re.compile(f"{_NUMBER}(?:-{_NUMBER})?", re.ASCII)
_TEXT = re.compile(f"{_PART.pattern}(?:,{_PART.pattern})*", re.ASCII)


def format_indices(indices: Sequence[int]) -> str:
    """Returns rising indices as ranges.

    Args:
        indices: whole numbers.

    Example:
        >>> format_indices([0, 1, 2, 3, 7])
        '0-3,7'
    """
    parts: list[str] = []
    begin = last = None
    for index in [*indices, None]:
        if last is not None and index == last + 1:
            last = index
            continue
        if last is not None:
            parts.append(str(last) if begin == last else f"{begin}-{last}")
        begin = last = index
    return ",".join(parts)


def parse_indices(text: str, size: int) -> NDArray[np.int64]:
    """Returns the indices that ranges name.

    Args:
        text: such as `0-3,7`, rising.
        size: which all of them are below, so that no more than there are is ever made.

    Returns:
        `[indices]` int64.

    Raises:
        IndexError: an index is not below the size.
        ValueError: the text holds something else, or indices do not rise.

    Example:
        >>> parse_indices("0-3,7", 8).tolist()
        [0, 1, 2, 3, 7]
    """
    if not text:
        return np.zeros(0, np.int64)
    parts = text.split(",")
    if not _TEXT.fullmatch(text):
        wrong = next(part for part in parts if not _PART.fullmatch(part))
        raise ValueError(f"expected indices such as 0-3,7: got {wrong!r:.60}")
    ends = np.fromstring(text.replace("-", ","), np.int64, sep=",")
    is_range = np.array(["-" in part for part in parts])
    places = np.arange(len(parts)) + np.concatenate([[0], np.cumsum(is_range[:-1])])
    begins, lasts = ends[places], ends[places + is_range]
    falls = np.flatnonzero((lasts < begins) | (begins <= np.concatenate([[-1], lasts[:-1]])))
    if len(falls):
        raise ValueError(f"indices must rise: got {parts[falls[0]]} as part {falls[0] + 1}")
    if lasts[-1] >= size:
        raise IndexError(f"there is no {lasts[-1]}: the original has {size}, counted from 0")
    counts = lasts - begins + 1
    found: NDArray[np.int64] = np.repeat(begins - np.cumsum(counts) + counts, counts)
    return found + np.arange(len(found))


def take_indices(name: str, values: Any) -> Indices:
    """Returns indices as a tuple of whole numbers that rise.

    Args:
        name: what they are, for errors.
        values: `[indices]`, a sequence, a range or an array of integers.

    Raises:
        TypeError: they are no whole numbers.
        ValueError: they do not rise, or there are none and what they index is no stack of layers.

    Example:
        >>> take_indices("hidden", range(3))
        (0, 1, 2)
    """
    if isinstance(values, range):
        values = np.arange(values.start, values.stop, values.step)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name} must be whole numbers: got {values!r:.60}")
    if isinstance(values, np.ndarray):
        array = values
    else:
        kinds = {*map(type, values)}
        if not all(kind is int or issubclass(kind, np.integer) for kind in kinds):
            raise TypeError(f"{name} must be whole numbers: got {[*values]!r:.60}")
        try:
            array = np.array(values, np.int64)
        except OverflowError:
            raise ValueError(f"{name} must be below 2**63: got {[*values]!r:.60}") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers in a row: got {values!r:.60}")
    if not len(array) and not name.endswith("_layers"):
        raise ValueError(f"{name} must keep something")
    falls = np.flatnonzero(array[1:] <= array[:-1])
    if len(falls):
        first, second = array[falls[0]], array[falls[0] + 1]
        raise ValueError(f"{name} must rise: got {second} behind {first}")
    return tuple(array.tolist())


def check_range(where: str, indices: Sequence[int], size: int) -> None:
    """Checks that the original has such indices.

    Args:
        where: what they are, for errors.
        indices: whole numbers that rise.
        size: how many the original has.

    Raises:
        IndexError: it does not have one.
        ValueError: there are none, and the original has some.

    Example:
        >>> check_range("hidden", [3], 3)
        Traceback (most recent call last):
        IndexError: hidden has no 3: the original has 3, counted from 0
    """
    if not len(indices) and size:
        raise ValueError(f"{where} must keep something")
    if len(indices) and not (indices[0] >= 0 and indices[-1] < size):
        wrong = next(index for index in indices if not 0 <= index < size)
        raise IndexError(f"{where} has no {wrong}: the original has {size}, counted from 0")


def check_kept(where: str, indices: Indices, old: Indices, size: int) -> None:
    """Checks that nothing is kept that was cut before.

    Args:
        where: what they are, for errors.
        indices: kept now, all of which the original has.
        old: kept before, too.
        size: how many the original has.

    Raises:
        ValueError: an index was cut before.

    Example:
        >>> check_kept("hidden", (1, 2), (0, 1), 3)
        Traceback (most recent call last):
        ValueError: hidden keeps 2, which an earlier stage has cut
    """
    if len(old) == size:
        return
    is_kept = np.zeros(size, np.bool_)
    is_kept[np.array(old, np.int64)] = True
    found = np.array(indices, np.int64)
    gone = found[~is_kept[found]].tolist()
    if gone:
        raise ValueError(f"{where} keeps {name_some(gone)}, which an earlier stage has cut")


def find_places(kept: Indices, old: Indices) -> Indices:
    """Returns where indices stand among others.

    Args:
        kept: some of the others.
        old: rising.

    Example:
        >>> find_places((2, 9), (0, 2, 5, 9))
        (1, 3)
    """
    return tuple(np.searchsorted(np.array(old, np.int64), np.array(kept, np.int64)).tolist())


def name_some(indices: Sequence[int]) -> str:
    """Returns the first of some indices as a text, and how many more there are.

    Args:
        indices: whole numbers.

    Example:
        >>> name_some(range(9))
        '0, 1, 2, 3, 4 and 4 more'
    """
    shown = ", ".join(map(str, indices[:5]))
    return shown + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")
