"""Training batches of a sequential recommender, with negatives outside of a user's history.

Source: the sampler of SASRec and UFNRec, whose draws are made here by Philox4x32-10, so that
a sample depends on (seed, epoch, position in the epoch) alone.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.reference._arguments import (
    Refuse,
    as_integers,
    check_int,
    id_in_range,
    no_such_id,
    one_of,
)
from lmcore.reference.philox import Stream, below, shuffle, words_by_block, words_by_group

DISTRIBUTIONS = ("uniform", "popularity")
ORDERS = ("replacement", "shuffle")
# A history with at least one part in this many of all items, or of all weights, is mapped around.
DENSE_SHARE = 64
DENSE_WEIGHT_SHARE = 2
_POSITION_BITS = 40


@dataclass(slots=True, frozen=True)
class Batch:
    """A batch with padding: B rows, L positions, N negatives; int64 or int32.

    Attributes:
        users: `[B]`, from 1.
        sequences: `[B, L]`: what came before each position, padded with 0 on the left.
        positives: `[B, L]`: the item that followed; 0 at padding.
        negatives: `[B, L, N]`: items outside of the user's history; 0 at padding.
    """

    users: NDArray[Any]
    sequences: NDArray[Any]
    positives: NDArray[Any]
    negatives: NDArray[Any]


@dataclass(slots=True, frozen=True)
class PackedBatch:
    """A batch whose P valid positions stand packed, by rows and from left to right.

    Attributes:
        users: `[B]`, from 1.
        sequences: `[B, L]`: what came before each position, padded with 0 on the left.
        positives: `[B, L]`: the item that followed; 0 at padding.
        flat_indices: `[P]` int64: row * L + position, where `positives` is not 0.
        negatives: `[P, N]`: items outside of the user's history.
    """

    users: NDArray[Any]
    sequences: NDArray[Any]
    positives: NDArray[Any]
    flat_indices: NDArray[np.int64]
    negatives: NDArray[Any]


class SequenceSampler:
    """The definition of `lmcore.ops.negatives.SequenceSampler`, with the same arguments.

    Example:
        >>> sampler = SequenceSampler([0, 3], [1, 2, 4], 5, batch_size=1, max_length=3,
        ...                           negative_count=2)
        >>> sampler.sample(0, 0).positives.tolist()
        [[0, 2, 4]]
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
        starts = as_integers("offsets", offsets, "[U + 1]").tolist()
        values = as_integers("items", items, "[interactions]", refuse_id("items", 1, item_count))
        _check_offsets(starts, len(values))
        _check_ids("items", values.tolist(), 1, item_count)
        self.batch_size, self.max_length, self.negative_count = (
            batch_size,
            max_length,
            negative_count,
        )
        self.item_count, self.seed, self.order = item_count, seed, order
        self.train = [values[a:b].tolist() for a, b in pairwise(starts)]
        self.history = [sorted(set(row)) for row in self.train]
        self.eligible = [u for u, row in enumerate(self.train, 1) if len(row) >= 2]
        self.weights, self.share = [1] * item_count, DENSE_SHARE
        if distribution == "popularity":
            self.share = DENSE_WEIGHT_SHARE
            self.weights = weigh_items(values, item_count, exponent).tolist()
        for user, (row, history) in enumerate(zip(self.train, self.history, strict=True), 1):
            left = sum(self.weights) - sum(self.weights[i - 1] for i in history)
            if len(history) == item_count or (len(row) >= 2 and left == 0):
                raise ValueError(no_item_left(user))

    @property
    def eligible_count(self) -> int:
        """Users with at least two train items."""
        return len(self.eligible)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches that the eligible users make, at least one; ValueError without users."""
        if not self.eligible:
            raise ValueError("no user has at least 2 items")
        return max(1, len(self.eligible) // self.batch_size)

    def sample(self, epoch: int, step: int) -> Batch:
        """Returns a batch with padding."""
        packed = self.sample_packed(epoch, step)
        size = self.batch_size * self.max_length
        negatives = np.zeros((size, self.negative_count), np.int64)
        negatives[packed.flat_indices] = packed.negatives
        shape = (self.batch_size, self.max_length, self.negative_count)
        return Batch(packed.users, packed.sequences, packed.positives, negatives.reshape(shape))

    def sample_packed(self, epoch: int, step: int) -> PackedBatch:
        """Returns a batch whose valid positions stand packed."""
        check_step(epoch, step, self.steps_per_epoch)
        users = [self._user(epoch, step * self.batch_size + b) for b in range(self.batch_size)]
        shape = (self.batch_size, self.max_length)
        sequences, positives = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        negatives: list[int] = []
        for b, user in enumerate(users):
            window = self.train[user - 1][-self.max_length - 1 :]
            sequences[b, self.max_length - len(window) + 1 :] = window[:-1]
            positives[b, self.max_length - len(window) + 1 :] = window[1:]
            item = epoch << _POSITION_BITS | step * self.batch_size + b
            words = words_by_group(self.seed, Stream.NEGATIVES, item)
            count = (len(window) - 1) * self.negative_count
            negatives += _draw(words, self.weights, self.history[user - 1], count, self.share)
        return PackedBatch(
            np.array(users, np.int64),
            sequences,
            positives,
            np.flatnonzero(positives),
            np.array(negatives, np.int64).reshape(-1, self.negative_count),
        )

    def candidates(
        self,
        users: ArrayLike,
        count: int,
        *,
        seed: int | None = None,
        exclude: ArrayLike | None = None,
    ) -> NDArray[np.int64]:
        """Returns `[users, count]` draws, uniform outside of histories and exclusions."""
        most = len(self.train), self.item_count
        rows, excluded = check_candidates(users, count, seed, exclude, *most)
        _check_ids("users", rows.tolist(), 1, len(self.train))
        _check_ids("exclude", excluded.ravel().tolist(), 0, self.item_count)
        seed = self.seed if seed is None else seed
        drawn = np.zeros((len(rows), count), np.int64)
        for row, user in enumerate(rows.tolist() if count else []):
            taken = sorted({*self.history[user - 1], *excluded[row].tolist()} - {0})
            if len(taken) == self.item_count:
                raise ValueError(no_item_left(user))
            words = words_by_group(seed, Stream.CANDIDATES, user)
            drawn[row] = _draw(words, [1] * self.item_count, taken, count, DENSE_SHARE)
        return drawn

    def draw(
        self,
        users: ArrayLike,
        positives: ArrayLike,
        *,
        count: int | None = None,
        seed: int | None = None,
    ) -> NDArray[np.int64]:
        """Returns `[B, L, N]` draws outside of histories for the positions that are not 0."""
        chosen, most = check_positions(users, positives, count)
        slots = self.negative_count if count is None else count
        drawn = self.candidates(users, most * slots, seed=seed).tolist()
        out = np.zeros((*chosen.shape, slots), np.int64)
        for row, places in enumerate(chosen):
            for k, place in enumerate(np.flatnonzero(places).tolist()):
                out[row, place] = drawn[row][k * slots : (k + 1) * slots]
        return out

    def _user(self, epoch: int, position: int) -> int:
        n = len(self.eligible)
        if self.order == "replacement":
            words = words_by_block(self.seed, Stream.USERS, epoch << _POSITION_BITS | position)
            return self.eligible[below(words, n)]
        order = list(self.eligible)
        shuffle(order, self.seed, Stream.SHUFFLE, epoch)
        return order[position % n]


def weigh_items(items: NDArray[np.int64], item_count: int, exponent: float) -> NDArray[np.uint32]:
    """Returns whole numbers in proportion to count ** exponent, 0 for items that do not occur.

    They add up to about 2**31; an item that occurs has a weight of at least 1.

    Args:
        items: `[interactions]` int64; ids outside of 1 to `item_count` are left out.
        item_count: the largest id.
        exponent: at least 0.

    Returns:
        `[item_count]` uint32, the weight of item i at i - 1.

    Example:
        >>> weights = weigh_items(np.array([1, 1, 1, 1, 3]), 3, 0.5)
        >>> (weights / weights.sum()).round(3).tolist()
        [0.667, 0.0, 0.333]
    """
    inside = items[(items >= 1) & (items <= item_count)]
    counts = np.bincount(inside, minlength=item_count + 1)[1:]
    distinct, indices, repeats = np.unique(counts, return_inverse=True, return_counts=True)
    # Relative to the largest count, no power overflows.
    powers = [(c / max(distinct[-1], 1)) ** exponent if c else 0.0 for c in distinct.tolist()]
    total = math.fsum(p * r for p, r in zip(powers, repeats.tolist(), strict=True))
    weights = [
        max(1, int(p / total * 2**31)) if c else 0 for p, c in zip(powers, distinct, strict=True)
    ]
    return np.array(weights, np.uint32)[indices]


def _draw(
    words: Iterator[int], weights: list[int], history: list[int], count: int, share: int
) -> list[int]:
    """Returns `count` items outside of an ascending history, in proportion to their weights."""
    total = sum(weights)
    taken = sum(weights[i - 1] for i in history)
    if taken * share >= total:
        others = sorted(set(range(1, len(weights) + 1)) - set(history))
        sums = list(accumulate(weights[i - 1] for i in others))
        numbers = [below(words, total - taken) for _ in range(count)]
        return [others[bisect_right(sums, number)] for number in numbers]
    drawn: list[int] = []
    sums, seen = list(accumulate(weights)), set(history)
    while len(drawn) < count:
        item = bisect_right(sums, below(words, total)) + 1
        if item not in seen:
            drawn.append(item)
    return drawn


# Checks that the op shares.


def check_settings(
    item_count: int,
    batch_size: int,
    max_length: int,
    negative_count: int,
    seed: int,
    threads: int | None,
) -> None:
    """Raises TypeError or ValueError unless all are ints in their ranges."""
    for name, value in (
        ("item_count", item_count),
        ("batch_size", batch_size),
        ("max_length", max_length),
        ("negative_count", negative_count),
    ):
        check_int(name, value, 1, 1 << 31)
    check_int("seed", seed, 0, 1 << 64)
    if threads is not None:
        check_int("threads", threads, 1, None)


def check_names(distribution: str, exponent: float, order: str) -> None:
    """Raises ValueError for a name that does not exist or an exponent below 0."""
    for name, value, known in (
        ("distribution", distribution, DISTRIBUTIONS),
        ("order", order, ORDERS),
    ):
        one_of(name, value, known)
    if not (math.isfinite(exponent) and exponent >= 0):
        raise ValueError(f"exponent must be finite and at least 0: got {exponent}")


def check_step(epoch: int, step: int, steps: int) -> None:
    """Raises TypeError or ValueError unless an epoch has that step."""
    check_int("epoch", epoch, 0, 1 << 24)
    check_int("step", step, 0, steps)


def check_candidates(
    users: ArrayLike,
    count: int,
    seed: int | None,
    exclude: ArrayLike | None,
    user_count: int,
    item_count: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns users `[U]` and exclusions `[U, K]`, or raises an error of a type or shape."""
    check_int("count", count, 0, 1 << 31)
    if seed is not None:
        check_int("seed", seed, 0, 1 << 64)
    rows = as_integers("users", users, "[U]", refuse_id("users", 1, user_count))
    if exclude is None:
        return rows, np.zeros((len(rows), 0), np.int64)
    excluded = np.asarray(exclude)
    if excluded.ndim not in (1, 2) or len(excluded) != len(rows):
        raise ValueError(
            f"exclude must have the shape [{len(rows)}] or [{len(rows)}, K]: "
            f"got {list(excluded.shape)}"
        )
    shape = (len(rows), excluded.shape[1] if excluded.ndim == 2 else 1)

    def refuse(index: tuple[int, ...], value: int) -> Exception:
        flat_index = int(np.ravel_multi_index((*index, 0)[:2], shape))
        return no_such_id("exclude", flat_index, value, 0, most=item_count)

    return rows, as_integers("exclude", exclude, None, refuse).reshape(shape)


def check_positions(
    users: ArrayLike, positives: ArrayLike, count: int | None
) -> tuple[NDArray[np.bool_], int]:
    """Returns which positions `[B, L]` get negatives, and how many a row has at most."""
    if count is not None:
        check_int("count", count, 0, 1 << 31)
    rows, chosen = len(np.asarray(users)), as_integers("positives", positives, "[B, L]") != 0
    if len(chosen) != rows:
        raise ValueError(
            f"positives must have shape [{rows}, L], a row for each user: got {list(chosen.shape)}"
        )
    return chosen, int(chosen.sum(1).max(initial=0))


def refuse_id(name: str, least: int, most: int) -> Refuse:
    """Returns what makes the error of an id that does not exist."""

    def refuse(index: tuple[int, ...], value: int) -> Exception:
        return no_such_id(name, index[0], value, least, most=most)

    return refuse


def no_item_left(user: int) -> str:
    """Returns the text of that error."""
    return f"user {user}: no item is left to draw, as all are in the history"


def _check_offsets(offsets: list[int], count: int) -> None:
    if not offsets or offsets[0] != 0:
        got = offsets[0] if offsets else "no offsets"
        raise ValueError(f"offsets must be 0 at the start: got {got}")
    for user, (start, end) in enumerate(pairwise(offsets), 1):
        if end < start:
            raise ValueError(f"offsets must be ascending: got {end} after {start} for user {user}")
    if offsets[-1] != count:
        raise ValueError(
            f"offsets must be {count} at the end, the number of items: got {offsets[-1]}"
        )


def _check_ids(name: str, ids: list[int], least: int, most: int) -> None:
    for index, value in enumerate(ids):
        id_in_range(name, index, value, least, most=most)
