"""The memory of UFNRec: hard negatives are shown again, and turn positive when that recurs.

Source: UFNRec (arXiv 2208.04116), the authors' `hard_neg_sample` and `update_hard_negs`.

`hard[u, p]` is the list of negatives that scored above the positive at the last visit of user
u and window position p; `cnt[u, p, i]` says how often item i was presented again there, and is
never reset. An item presented again more than m times is a false negative: its label is 1.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.reference._arguments import same_length
from lmcore.reference._false_negatives import (
    ITEM_BITS,
    LARGEST_COUNT,
    POSITION_BITS,
    STATE_DTYPES,
    check_flat_indices,
    check_ids,
    check_max_length,
    check_negatives,
    check_positives,
    check_scores,
    check_settings,
    check_state,
    check_users,
    flat_index_range,
)


@dataclass(slots=True, frozen=True)
class Reversed:
    """The negatives whose label turns to 1, in the authors' order.

    Rows ascend, within a row positions descend, within a position slots ascend.
    """

    coordinates: NDArray[np.int64]
    """`[R, 3]` row, position, slot."""
    counts: NDArray[np.uint32]
    """`[R]` how often the item was presented again so far, this time included."""
    blocks: NDArray[np.int64]
    """`[R]` which block of N negatives: row * L + position, or the index into packed ones."""

    def __len__(self) -> int:
        """Returns R."""
        return len(self.counts)

    def flat_indices(self, negative_count: int) -> NDArray[np.int64]:
        """Returns `[R]` indices of the flattened negatives: block * N + slot.

        Args:
            negative_count: N, negatives per position.

        Example:
            >>> memory = FalseNegativeMemory()
            >>> memory.inject([1], [[5]], np.array([[[7, 9]]])).flat_indices(2).tolist()
            []
        """
        return self.blocks * negative_count + self.coordinates[:, 2]

    def select(self, kept: NDArray[np.bool_] | NDArray[np.int64]) -> Reversed:
        """Returns some of them.

        Args:
            kept: `[R]` bool, or ascending indices.

        Example:
            >>> memory = FalseNegativeMemory(threshold=0)
            >>> negatives = np.array([[[7, 9]]])
            >>> nothing = memory.inject([1], [[5]], negatives)
            >>> memory.observe([1], [[5]], negatives, np.array([[[True, True]]]), nothing)
            2
            >>> reversed_ = memory.inject([1], [[5]], negatives)
            >>> reversed_.select(reversed_.coordinates[:, 2] == 1).coordinates.tolist()
            [[0, 0, 1]]
        """
        return Reversed(self.coordinates[kept], self.counts[kept], self.blocks[kept])


class FalseNegativeMemory:
    """Hard negatives per user and window position, and how often each was presented again.

    Args:
        threshold: m; an item presented again more than m times is reversed. None: never.
        max_keys: most counts to keep; None: no bound. When an injection makes them more,
            three quarters stay. Counts of items in no hard list go first, then low counts,
            then low keys.

    Raises:
        TypeError: an argument is not an int.
        ValueError: an argument is out of its range.

    Example:
        >>> memory = FalseNegativeMemory(threshold=0)
        >>> negatives = np.array([[[7, 9]]])
        >>> nothing = memory.inject([1], [[5]], negatives)
        >>> memory.observe([1], [[5]], negatives, np.array([[[0.0, 1.0, -1.0]]]), nothing)
        1
        >>> negatives = np.array([[[3, 9]]])
        >>> memory.inject([1], [[5]], negatives).coordinates.tolist(), negatives.tolist()
        ([[0, 0, 0]], [[[7, 9]]])
    """

    def __init__(self, *, threshold: int | None = 5, max_keys: int | None = None) -> None:
        self.threshold, self.max_keys = check_settings(threshold, max_keys)
        self.hard: dict[tuple[int, int], list[int]] = {}
        self.cnt: dict[tuple[int, int, int], int] = {}
        self.evicted_count = 0

    @property
    def hard_count(self) -> int:
        """Stored hard negatives."""
        return sum(map(len, self.hard.values()))

    @property
    def key_count(self) -> int:
        """Counts, one for each (user, position, item) that was presented again."""
        return len(self.cnt)

    @property
    def reversed_key_count(self) -> int:
        """Counts above the threshold."""
        return sum(self._exceeds(count) for count in self.cnt.values())

    def inject(self, users: ArrayLike, positives: ArrayLike, negatives: NDArray[Any]) -> Reversed:
        """Returns the false negatives, after writing stored items over the first slots.

        Args:
            users: `[B]` integers from 1, below 2**24.
            positives: `[B, L]` integers, 0 at padding, left padded; L at most 256.
            negatives: `[B, L, N]` int64 or int32; written in place.

        Raises:
            IndexError: an id is out of its range.
            TypeError: an argument has another type.
            ValueError: another shape, or positives that are not left padded.

        Example:
            >>> negatives = np.array([[[7, 9]]])
            >>> len(FalseNegativeMemory().inject([1], [[5]], negatives))
            0
        """
        u, pos = check_users(users), check_positives(positives)
        check_negatives(negatives, (len(u), *pos.shape[1:]), written=True)
        same_length(positives=pos, users=u)
        return self._inject(u, list(padded_positions(pos)), negatives)

    def inject_packed(
        self, users: ArrayLike, flat_indices: ArrayLike, max_length: int, negatives: NDArray[Any]
    ) -> Reversed:
        """Returns the false negatives of packed positions; see `inject`.

        Args:
            users: `[B]` integers from 1, below 2**24.
            flat_indices: `[P]` integers row * max_length + position, ascending.
            max_length: L, at most 256.
            negatives: `[P, N]` int64 or int32; written in place.

        Raises:
            IndexError: an id or a flat index is out of its range.
            TypeError: an argument has another type.
            ValueError: another shape, or flat_indices that do not ascend.

        Example:
            >>> negatives = np.array([[7, 9]])
            >>> len(FalseNegativeMemory().inject_packed([1], [0], 1, negatives))
            0
        """
        u, length = check_users(users), check_max_length(max_length)
        where = check_flat_indices(flat_indices, len(u) * length)
        check_negatives(negatives, (len(where),), written=True)
        return self._inject(u, list(packed_positions(where, len(u), max_length)), negatives)

    def observe(
        self,
        users: ArrayLike,
        positives: ArrayLike,
        negatives: NDArray[Any],
        scores: ArrayLike,
        reversed_: Reversed,
    ) -> int:
        """Returns how many hard negatives the visited positions now hold.

        A negative is hard if it scored above the positive and was not reversed in this step.

        Args:
            users: `[B]` integers, as given to `inject`.
            positives: `[B, L]` integers, as given to `inject`.
            negatives: `[B, L, N]` int64 or int32, as `inject` left them.
            scores: `[B, L, 1 + N]` float32 or float64 logits, the positive's first; or
                `[B, L, N]` bool, whether each scored above the positive.
            reversed_: what `inject` returned, or some of it in that order.

        Raises:
            IndexError: an id is out of its range, or `reversed_` is of another batch.
            TypeError: an argument has another type.
            ValueError: another shape, positives that are not left padded, or a NaN.

        Example:
            >>> memory, negatives = FalseNegativeMemory(), np.array([[[7, 9]]])
            >>> nothing = memory.inject([1], [[5]], negatives)
            >>> memory.observe([1], [[5]], negatives, np.array([[[0.0, 0.0, 1.0]]]), nothing)
            1
        """
        u, pos = check_users(users), check_positives(positives)
        check_negatives(negatives, (len(u), *pos.shape[1:]))
        same_length(positives=pos, users=u)
        z = check_scores(scores, negatives)
        return self._observe(u, list(padded_positions(pos)), negatives, z, reversed_)

    def observe_packed(
        self,
        users: ArrayLike,
        flat_indices: ArrayLike,
        max_length: int,
        negatives: NDArray[Any],
        scores: ArrayLike,
        reversed_: Reversed,
    ) -> int:
        """Returns how many hard negatives the packed positions now hold; see `observe`.

        Args:
            users: `[B]` integers.
            flat_indices: `[P]` integers, as given to `inject_packed`.
            max_length: L, at most 256.
            negatives: `[P, N]` int64 or int32, as `inject_packed` left them.
            scores: `[P, 1 + N]` float32 or float64 logits, or `[P, N]` bool.
            reversed_: what `inject_packed` returned, or some of it in that order.

        Raises:
            IndexError: an id or index is out of its range, or `reversed_` is of another batch.
            TypeError: an argument has another type.
            ValueError: another shape, flat_indices that do not ascend, or a NaN.

        Example:
            >>> memory, negatives = FalseNegativeMemory(), np.array([[7, 9]])
            >>> nothing = memory.inject_packed([1], [0], 1, negatives)
            >>> hard = np.array([[False, True]])
            >>> memory.observe_packed([1], [0], 1, negatives, hard, nothing)
            1
        """
        u, length = check_users(users), check_max_length(max_length)
        where = check_flat_indices(flat_indices, len(u) * length)
        check_negatives(negatives, (len(where),))
        z = check_scores(scores, negatives)
        ordered = list(packed_positions(where, len(u), max_length))
        return self._observe(u, ordered, negatives, z, reversed_)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Returns all that the memory holds; equal memories give equal arrays.

        `hard_keys` `[K]` uint32 = user * 2**8 + position, ascending; the list of key k is
        `hard_items[hard_offsets[k]:hard_offsets[k + 1]]` (uint32, int64 `[K + 1]`).
        `count_keys` `[C]` uint64 = user * 2**40 + position * 2**32 + item, ascending, and
        `counts` `[C]` uint32. `evicted_count` int64, a scalar.

        Example:
            >>> sorted(FalseNegativeMemory().state_dict())[:2]
            ['count_keys', 'counts']
        """
        keys = sorted(key for key, items in self.hard.items() if items)
        lists = [self.hard[key] for key in keys]
        counts = sorted((pack(u, p, i), count) for (u, p, i), count in self.cnt.items())
        values: dict[str, Any] = {
            "hard_keys": [u << POSITION_BITS | p for u, p in keys],
            "hard_offsets": np.cumsum([0, *map(len, lists)]),
            "hard_items": [item for items in lists for item in items],
            "count_keys": [key for key, _ in counts],
            "counts": [count for _, count in counts],
            "evicted_count": self.evicted_count,
        }
        return {name: np.array(values[name], dtype=kind) for name, kind in STATE_DTYPES.items()}

    def load_state_dict(self, state: Mapping[str, ArrayLike]) -> None:
        """Replaces all that the memory holds.

        Args:
            state: what `state_dict` returned.

        Raises:
            TypeError: `state` is no mapping.
            ValueError: arrays are missing, or are no state.

        Example:
            >>> memory = FalseNegativeMemory()
            >>> memory.load_state_dict(FalseNegativeMemory().state_dict())
        """
        arrays = check_state(state)
        hard_keys, offsets = arrays["hard_keys"].tolist(), arrays["hard_offsets"].tolist()
        items = arrays["hard_items"].tolist()
        self.hard = {
            (key >> POSITION_BITS, key & 0xFF): items[offsets[k] : offsets[k + 1]]
            for k, key in enumerate(hard_keys)
        }
        self.cnt = {
            (key >> 40, key >> 32 & 0xFF, key & 0xFFFFFFFF): count
            for key, count in zip(
                arrays["count_keys"].tolist(), arrays["counts"].tolist(), strict=True
            )
        }
        self.evicted_count = int(arrays["evicted_count"])

    def _exceeds(self, count: int) -> bool:
        return self.threshold is not None and count > self.threshold

    def _inject(
        self, u: NDArray[np.int64], positions: list[tuple[int, int, int]], neg: NDArray[Any]
    ) -> Reversed:
        check_ids(u)
        n = neg.shape[-1]
        blocks = neg.reshape(-1, n) if n else neg.reshape(len(positions), 0)
        if neg.dtype == np.int32:
            largest = max((max(items) for items in self.hard.values() if items), default=0)
            if largest > np.iinfo(np.int32).max:
                raise TypeError(f"negatives must be int64: item {largest} is stored")
        R, counts, where = [], [], []  # noqa: N806  the paper's letter
        for b, p, block in positions:
            key = int(u[b]), p
            # More items than slots: those that find none are neither shown nor counted.
            for k, i in enumerate(self.hard.get(key, [])[:n]):
                blocks[block, k] = i
                self.cnt[*key, i] = min(self.cnt.get((*key, i), 0) + 1, LARGEST_COUNT)
                if self._exceeds(self.cnt[*key, i]):
                    R.append((b, p, k))
                    counts.append(self.cnt[*key, i])
                    where.append(block)
        self._evict()
        return Reversed(
            np.array(R, dtype=np.int64).reshape(-1, 3),
            np.array(counts, dtype=np.uint32),
            np.array(where, dtype=np.int64),
        )

    def _evict(self) -> None:
        if self.max_keys is None or len(self.cnt) <= self.max_keys:
            return
        stored = {(*key, item) for key, items in self.hard.items() for item in items}
        order = sorted(self.cnt, key=lambda key: (key in stored, self.cnt[key], key))
        for key in order[: len(order) - self.max_keys * 3 // 4]:
            del self.cnt[key]
            self.evicted_count += 1

    def _observe(
        self,
        u: NDArray[np.int64],
        positions: list[tuple[int, int, int]],
        neg: NDArray[Any],
        z: NDArray[Any],
        reversed_: Reversed,
    ) -> int:
        check_ids(u)
        n = neg.shape[-1]
        left = list(map(tuple, reversed_.coordinates.tolist()))[::-1]
        found: list[tuple[int, int, list[int]]] = []
        for b, p, block in positions:
            row = neg.reshape(-1, n)[block] if n else neg[:0]
            if z.dtype == np.bool_:
                above = z.reshape(-1, n)[block] if n else z[:0]
            else:
                y = z.reshape(-1, 1 + n)[block]
                for column in np.flatnonzero(np.isnan(y)):
                    raise ValueError(
                        f"logits must not be NaN: got NaN at row {b}, position {p}, column {column}"
                    )
                above = y[1:] > y[0]
            known = set()  # slots that were reversed
            while left and left[-1][:2] == (b, p) and 0 <= left[-1][2] < n:
                known.add(left.pop()[2])
            items = [int(row[j]) for j in range(n) if above[j] and j not in known]
            for j in range(n):
                if above[j] and j not in known and not 1 <= row[j] < 1 << ITEM_BITS:
                    raise IndexError(
                        f"negatives must be at least 1 and below 2**{ITEM_BITS}: got {row[j]} "
                        f"at row {b}, position {p}, slot {j}"
                    )
            found.append((int(u[b]), p, items))
        if left:
            raise IndexError(
                "reversed_ must hold negatives of this batch in the order of inject: got "
                f"{list(left[-1])} at index {len(reversed_) - len(left)}"
            )
        for user, p, items in found:
            self.hard[user, p] = items
        return sum(len(items) for _, _, items in found)


def pack(u: int, p: int, i: int) -> int:
    """Returns the key of a count: user 24 bits, position 8, item 32."""
    return u << POSITION_BITS + ITEM_BITS | p << ITEM_BITS | i


def padded_positions(pos: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    """Yields row, position and block of each valid position, in the authors' order."""
    length = pos.shape[1]
    for b, row in enumerate(pos.tolist()):
        first = next((p for p in range(length) if row[p]), length)
        for p in range(first, length):
            if row[p] == 0:
                raise ValueError(
                    f"positives must be left padded: got 0 at row {b}, position {p}, right of "
                    "a target"
                )
        for p in range(length - 1, first - 1, -1):
            yield b, p, b * length + p


def packed_positions(
    flat_indices: NDArray[np.int64], rows: int, length: int
) -> Iterator[tuple[int, int, int]]:
    """Yields row, position and block of each packed position, in the authors' order."""
    before = -1
    for index, flat in enumerate(flat_indices.tolist()):
        if not 0 <= flat < rows * length:
            raise flat_index_range(rows * length, flat, index)
        if flat <= before:
            raise ValueError(
                f"flat_indices must ascend: got {flat} after {before} at index {index}"
            )
        before = flat
    found = [(flat // length, flat % length, k) for k, flat in enumerate(flat_indices.tolist())]
    yield from sorted(found, key=lambda position: (position[0], -position[1]))
