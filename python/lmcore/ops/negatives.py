"""Training batches of a sequential recommender, with negatives outside of a user's history."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers
from lmcore.reference.negatives import (
    DISTRIBUTIONS,
    ORDERS,
    Batch,
    PackedBatch,
    check_candidates,
    check_names,
    check_settings,
    check_step,
    refuse_id,
    weigh_items,
)

__all__ = ["DISTRIBUTIONS", "ORDERS", "Batch", "DrawWeights", "PackedBatch", "SequenceSampler"]


_Returned: TypeAlias = dict[int, tuple[weakref.ref[NDArray[Any]], NDArray[np.int64]]]
_NO_USERS = np.zeros(0, np.int64)


@dataclass(slots=True, frozen=True)
class DrawWeights:
    """How probable the draws of a `SequenceSampler` are.

    A draw for user u is item i with the probability `exp(items[i - 1] - users[u - 1])`, if i is
    in none of her train items, and never otherwise. It is exact for both distributions and both
    ways of drawing.

    Example:
        >>> sampler = SequenceSampler([0, 3], [1, 2, 4], 5)
        >>> weights = sampler.draw_weights()
        >>> np.exp(weights.items[4] - weights.users[0]).round(3).item()
        0.5
    """

    items: NDArray[np.float64]
    """`[I]`: the logarithm of each item's weight; 0 for all where draws are uniform, and minus
    infinity for what is never drawn."""
    users: NDArray[np.float64]
    """`[U]`: the logarithm of the weight of all items outside of a user's history."""


class SequenceSampler:
    """Batches of users, windows of their items, and negatives that they have not seen.

    A sample depends on (seed, epoch, step * batch_size + row) alone: not on earlier calls, the
    number of threads, or whether the batch is padded or packed.

    A row is a user with at least two train items. Her window is made of her last L + 1 train
    items: all but the last are the sequence, all but the first the positives, right-aligned.
    Each position gets N independent draws from the items that are nowhere in her train items.

    Two ways of drawing give the same distribution, and a rule says which one a row takes: where
    a history holds less than 1/64 of all items, draws that fall into it are rejected; else the
    items outside of it are numbered, and none is rejected. With `popularity`, the border is
    half of the weight of all items.

    Source: the sampler of SASRec and UFNRec; `distribution="popularity"` as in word2vec.

    Args:
        offsets: `[U + 1]` integers: the items of user u, from 1, are
            `items[offsets[u - 1]:offsets[u]]`.
        items: `[interactions]` integers: train items in time order, ids 1 to `item_count`.
        item_count: I, the largest item id, below 2**31.
        batch_size: B, rows of a batch.
        max_length: L, positions of a window.
        negative_count: N, negatives of a position.
        seed: below 2**64.
        distribution: `uniform` over the items outside of a history, or `popularity`: in
            proportion to count ** exponent, where count is how often an item occurs in `items`.
            An item that does not occur is then never drawn.
        exponent: of `popularity`; at least 0.
        order: `replacement` draws each row's user anew, as the authors do. `shuffle` takes each
            user at most once an epoch, in an order that depends on seed and epoch; it starts
            anew where a batch has more rows than there are users.
        threads: at most this many; None for the machine's. Small batches take one.

    Raises:
        TypeError: ids that are not integers, or a setting of a wrong type.
        ValueError: offsets that do not ascend from 0 to the number of items, a user for whom no
            item is left to draw, or a setting out of its range. Without a user with two items,
            `candidates` can be drawn, and `sample` raises.
        IndexError: an item that does not exist.

    Example:
        >>> sampler = SequenceSampler([0, 3, 5], [1, 2, 4, 3, 1], 5, batch_size=2, max_length=3,
        ...                           negative_count=2, order="shuffle")
        >>> batch = sampler.sample(epoch=0, step=0)
        >>> sorted(batch.users.tolist()), batch.negatives.shape
        ([1, 2], (2, 3, 2))
    """

    def __init__(
        self,
        offsets: ArrayLike,
        items: ArrayLike,
        item_count: int,
        *,
        batch_size: int = 128,
        max_length: int = 50,
        negative_count: int = 100,
        seed: int = 0,
        distribution: str = "uniform",
        exponent: float = 0.75,
        order: str = "replacement",
        threads: int | None = None,
    ) -> None:
        check_settings(item_count, batch_size, max_length, negative_count, seed, threads)
        check_names(distribution, exponent, order)
        starts = as_integers("offsets", offsets, "[U + 1]")
        values = as_integers("items", items, "[interactions]", refuse_id("items", 1, item_count))
        weights = None
        if distribution == "popularity" and len(values):
            weights = weigh_items(values, item_count, exponent)
        shape = (batch_size, max_length, negative_count)
        threads = limit_threads(threads)
        self._arguments = (starts, values, weights, item_count, *shape, seed, order, threads)
        self._core = _core.SequenceSampler(*self._arguments)
        self._shape = shape
        self._seed = seed
        self._returned: _Returned = {}

    def __reduce__(self) -> tuple[Callable[..., SequenceSampler], tuple[Any, ...]]:
        return _restore, self._arguments

    @property
    def eligible_count(self) -> int:
        """Users with at least two train items: those that are drawn."""
        return self._core.eligible_count

    @property
    def steps_per_epoch(self) -> int:
        """Full batches that the eligible users make, at least one; ValueError without users."""
        return self._core.steps_per_epoch

    def sample(self, epoch: int, step: int, out: Batch | None = None) -> Batch:
        """Returns a batch with padding, int64 or what the arrays of `out` hold.

        Args:
            epoch: from 0, below 2**24.
            step: from 0, below `steps_per_epoch`.
            out: a batch of the same shapes, all int64 or all int32, whose arrays are
                overwritten and returned. In a batch that this sampler returned before, the
                padding is taken to be 0 still: zeros are written only where negatives stood.

        Raises:
            TypeError: an argument of a wrong type, or `out` holds other integers.
            ValueError: no user with two items, an argument out of its range, or `out` has other
                shapes.

        Example:
            >>> sampler = SequenceSampler([0, 3], [1, 2, 4], 5, batch_size=1, max_length=3,
            ...                           negative_count=2)
            >>> sampler.sample(0, 0).sequences.tolist()
            [[0, 1, 2]]
        """
        check_step(epoch, step, self.steps_per_epoch)
        rows, length, _ = self._shape
        if out is None:
            windows = (_allocate(np.empty, rows), *_empty_pair(rows, length))
            out = Batch(*windows, _allocate(np.zeros, *self._shape))
            previous = np.zeros(rows, np.int64)
        else:
            self._check_windows(out)
            _check_array("negatives", out.negatives, self._shape, out.users.dtype)
            _, previous = self._returned.pop(id(out.negatives), (None, _NO_USERS))
        arrays = (out.users, out.sequences, out.positives, out.negatives)
        self._core.sample(epoch, step, *arrays, previous)
        self._remember(out)
        return out

    def sample_packed(self, epoch: int, step: int, out: PackedBatch | None = None) -> PackedBatch:
        """Returns the batch of `sample` with its valid positions packed.

        Args:
            epoch: from 0, below 2**24.
            step: from 0, below `steps_per_epoch`.
            out: a batch that this function returned before, or one whose `flat_indices` `[B * L]`
                and `negatives` `[B * L, N]` have room for all positions. Its arrays are
                overwritten; the result holds views of their first P rows.

        Raises:
            TypeError: an argument of a wrong type, or `out` holds other integers.
            ValueError: no user with two items, an argument out of its range, or `out` has other
                shapes.

        Example:
            >>> sampler = SequenceSampler([0, 3], [1, 2, 4], 5, batch_size=1, max_length=3,
            ...                           negative_count=2)
            >>> batch = sampler.sample_packed(0, 0)
            >>> batch.flat_indices.tolist(), batch.negatives.shape
            ([1, 2], (2, 2))
        """
        check_step(epoch, step, self.steps_per_epoch)
        rows, length, count = self._shape
        if out is None:
            users, pair = _allocate(np.empty, rows), _empty_pair(rows, length)
            flat_indices = _allocate(np.empty, rows * length)
            negatives = _allocate(np.empty, rows * length, count)
            windows = (users, *pair)
        else:
            self._check_windows(out)
            windows = (out.users, out.sequences, out.positives)
            flat_indices = _whole(out.flat_indices, (rows * length,))
            negatives = _whole(out.negatives, (rows * length, count))
            _check_array("flat_indices", flat_indices, (rows * length,), np.dtype(np.int64))
            _check_array("negatives", negatives, (rows * length, count), out.users.dtype)
        valid = self._core.sample_packed(epoch, step, *windows, flat_indices, negatives)
        return PackedBatch(*windows, flat_indices[:valid], negatives[:valid])

    def candidates(
        self,
        users: ArrayLike,
        count: int,
        *,
        seed: int | None = None,
        exclude: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Returns negatives for an evaluation, uniform over the items outside of a history.

        They are drawn with replacement. The draws of a user depend on (seed, user, her
        exclusions) alone, and fewer of them are the first of more. As in the paper, they may
        hold the item to be predicted; `exclude` it where they must not.

        Source: UFNRec, its evaluation with 100 negatives.

        Args:
            users: `[U]` integers, from 1; users with few items as well.
            count: draws per user.
            seed: below 2**64; None for the sampler's.
            exclude: `[U]` or `[U, K]` integers: further items that are not drawn; 0 for none.

        Returns:
            `[U, count]` int64.

        Raises:
            TypeError: ids that are not integers.
            ValueError: a user for whom no item is left, or a wrong shape.
            IndexError: a user or item that does not exist.

        Example:
            >>> sampler = SequenceSampler([0, 3], [1, 2, 4], 5)
            >>> sampler.candidates([1], 3, exclude=[3]).tolist()
            [[5, 5, 5]]
        """
        most = len(self._arguments[0]) - 1, self._arguments[3]
        rows, excluded = check_candidates(users, count, seed, exclude, *most)
        out = _allocate(np.zeros, len(rows), count)
        seed = self._seed if seed is None else seed
        self._core.candidates(rows, excluded.ravel(), seed, out)
        return out

    def draw_weights(self) -> DrawWeights:
        """Returns the probabilities of draws, of which no table for each user has to be made.

        Example:
            >>> sampler = SequenceSampler([0, 3, 4], [1, 1, 2, 3], 4, distribution="popularity",
            ...                           exponent=1)
            >>> weights = sampler.draw_weights()
            >>> np.exp(weights.items[[0, 1]] - weights.users[1]).round(3).tolist()
            [0.667, 0.333]
        """
        offsets, items, given, item_count = self._arguments[:4]
        weights = np.ones(item_count) if given is None else given.astype(np.float64)
        user_count = len(offsets) - 1
        owners = np.repeat(np.arange(user_count), np.diff(offsets))
        # Each item of a history once.
        pairs = np.unique(owners * item_count + items - 1)
        taken = np.bincount(pairs // item_count, weights[pairs % item_count], user_count)
        with np.errstate(divide="ignore"):
            return DrawWeights(np.log(weights), np.log(weights.sum() - taken))

    def _remember(self, batch: Batch) -> None:
        """Keeps the users of a batch as long as its negatives live: they say what is padding."""
        returned, key = self._returned, id(batch.negatives)
        alive = weakref.ref(batch.negatives, lambda _: returned.pop(key, None))
        returned[key] = alive, batch.users.astype(np.int64)

    def _check_windows(self, out: Batch | PackedBatch) -> None:
        rows, length, _ = self._shape
        if out.users.dtype not in (np.int32, np.int64):
            raise TypeError(f"out.users must be int64 or int32: got {out.users.dtype}")
        _check_array("users", out.users, (rows,), out.users.dtype)
        _check_array("sequences", out.sequences, (rows, length), out.users.dtype)
        _check_array("positives", out.positives, (rows, length), out.users.dtype)


def _restore(*arguments: Any) -> SequenceSampler:
    """Returns a sampler with the arguments of the compiled one."""
    sampler = SequenceSampler.__new__(SequenceSampler)
    sampler._arguments = arguments
    sampler._core = _core.SequenceSampler(*arguments)
    sampler._shape = arguments[4:7]
    sampler._seed = arguments[7]
    sampler._returned = {}
    return sampler


def _empty_pair(rows: int, length: int) -> tuple[NDArray[Any], NDArray[Any]]:
    return _allocate(np.empty, rows, length), _allocate(np.empty, rows, length)


def _allocate(make: Callable[..., NDArray[np.int64]], *shape: int) -> NDArray[np.int64]:
    """Returns an int64 array; numpy itself refuses what no address reaches as a wrong value."""
    size = math.prod(shape)
    if size >= 1 << 60:
        raise MemoryError(f"not enough memory for {size} values")
    return make(shape, np.int64)


def _whole(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Returns the buffer of that shape of which `array` is a view, or `array` itself."""
    base = array.base
    return base if isinstance(base, np.ndarray) and base.shape == shape else array


def _check_array(
    name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if array.dtype != dtype:
        raise TypeError(f"out.{name} must be {dtype}: got {array.dtype}")
    flags = array.flags
    if array.shape != shape or not (flags.c_contiguous and flags.writeable and flags.aligned):
        raise ValueError(
            f"out.{name} must be a writeable array of shape {list(shape)} in C order and aligned: "
            f"got {list(array.shape)}"
        )
