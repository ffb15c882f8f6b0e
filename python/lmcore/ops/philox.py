"""Random numbers as a pure function of (seed, stream, item, position): Philox4x32-10."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmcore import _core
from lmcore.reference._arguments import as_integers, check_int
from lmcore.reference.philox import Stream, check_words

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Stream", "philox4x32", "random_below", "random_bits", "random_uniform"]


def philox4x32(
    counter: tuple[int, int, int, int], key: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Returns the four 32-bit words that Philox4x32-10 makes of a counter and a key.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).

    Args:
        counter: four words below 2**32.
        key: two words below 2**32.

    Raises:
        TypeError: a word is not an int.
        ValueError: a word is negative or too large, or there are more or fewer of them.

    Example:
        >>> [f"{word:08x}" for word in philox4x32((0, 0, 0, 0), (0, 0))]
        ['6627e8d5', 'e169c58d', 'bc57ac4c', '9b00dbd8']
    """
    check_words(counter, key)
    first, second, third, fourth = _core.philox4x32(counter, key)
    return first, second, third, fourth


def random_bits(
    seed: int, stream: int, items: ArrayLike, count: int, *, position: int = 0
) -> NDArray[np.uint64]:
    """Returns `count` draws of 64 random bits for each item.

    Draw p of an item depends on (seed, stream, item, position + p) alone: not on the other
    items, the order of calls or the number of threads.

    Args:
        seed: below 2**64.
        stream: which use of randomness this is, below 2**32.
        items: integers of any shape `[...]`, each below 2**64: samples, rows, users.
        count: draws per item.
        position: the first draw's position within the item; the last must be below 2**33.

    Returns:
        `[..., count]` uint64.

    Raises:
        TypeError: `items` are not integers.
        ValueError: an argument is out of its range.

    Example:
        >>> random_bits(seed=1, stream=0, items=[7, 8], count=3).shape
        (2, 3)
    """
    return _core.random_bits(*_arguments(seed, stream, items, position, count))


def random_uniform(
    seed: int, stream: int, items: ArrayLike, count: int, *, position: int = 0
) -> NDArray[np.float64]:
    """Returns `count` numbers in [0, 1) for each item, each with 53 random bits.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        items: integers of any shape `[...]`, each below 2**64.
        count: draws per item.
        position: the first draw's position within the item.

    Returns:
        `[..., count]` float64.

    Raises:
        TypeError: `items` are not integers.
        ValueError: an argument is out of its range.

    Example:
        >>> bool(0 <= random_uniform(seed=1, stream=0, items=7, count=1)[0] < 1)
        True
    """
    return _core.random_uniform(*_arguments(seed, stream, items, position, count))


def random_below(
    seed: int, stream: int, items: ArrayLike, count: int, bound: int, *, position: int = 0
) -> NDArray[np.uint64]:
    """Returns `count` integers in [0, bound) for each item.

    Their probabilities differ from 1 / bound by less than 2**-64.

    Args:
        seed: below 2**64.
        stream: below 2**32.
        items: integers of any shape `[...]`, each below 2**64.
        count: draws per item.
        bound: at least 1 and below 2**63.
        position: the first draw's position within the item.

    Returns:
        `[..., count]` uint64.

    Raises:
        TypeError: `items` are not integers.
        ValueError: an argument is out of its range.

    Example:
        >>> random_below(seed=1, stream=0, items=7, count=4, bound=1).tolist()
        [0, 0, 0, 0]
    """
    check_int("bound", bound, 1, 1 << 63)
    return _core.random_below(*_arguments(seed, stream, items, position, count), bound)


def _arguments(
    seed: int, stream: int, items: ArrayLike, position: int, count: int
) -> tuple[int, int, NDArray[np.uint64], int, int]:
    check_int("seed", seed, 0, 1 << 64)
    check_int("stream", stream, 0, 1 << 32)
    check_int("position", position, 0, 1 << 33)
    check_int("count", count, 0, (1 << 33) + 1)
    array = as_integers("items", items, None, _refuse_item, dtype="uint64")
    return seed, stream, array, position, count


def _refuse_item(_: tuple[int, ...], item: int) -> ValueError:
    return ValueError(f"items must be at least 0 and below 2**64: got {item}")
