"""Hard negatives that are shown again, and turn positive when that recurs (UFNRec)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcore import _core
from lmcore.reference._arguments import as_integers, as_native, same_length
from lmcore.reference._false_negatives import (
    LARGEST_COUNT,
    STATE_DTYPES,
    check_flat_indices,
    check_max_length,
    check_negatives,
    check_positives,
    check_scores,
    check_settings,
    check_state,
    check_users,
)
from lmcore.reference.false_negatives import Reversed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import ArrayLike, NDArray

__all__ = ["LARGEST_COUNT", "FalseNegativeMemory", "Reversed"]


class FalseNegativeMemory:
    """Hard negatives per user and window position, and how often each was presented again.

    A step injects before the forward pass and observes after it. `inject` writes the negatives
    that scored above the positive at the last visit of a (user, position) over its first
    slots, and returns those that it wrote there more than `threshold` times by now: their label
    is 1 in this step. `observe` stores what scored above the positive and was not reversed, in
    place of what was stored. Counts are never reset. Rows are taken in order, also those of
    the same user.

    A list that is longer than N shows its first N items; the others stay, uncounted, until the
    position is observed again. Counts stay at `LARGEST_COUNT` = 2**24 - 1.

    A call either raises or does all of its work. A memory is for one thread at a time.

    Source: UFNRec (arXiv 2208.04116), the authors' `hard_neg_sample` and `update_hard_negs`.

    Args:
        threshold: m; an item presented again more than m times is reversed. None: never.
        max_keys: most counts to keep, about 13 bytes each; None: no bound. When an injection
            makes them more, three quarters stay. Counts of items in no hard list go first, then
            low counts, then low keys. `evicted_count` says how many went, and the first time
            warns.

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
        self._memory = _core.FalseNegativeMemory(self.threshold, self.max_keys)
        self._warned = False

    @property
    def hard_count(self) -> int:
        """Stored hard negatives."""
        return self._memory.hard_count

    @property
    def key_count(self) -> int:
        """Counts, one for each (user, position, item) that was presented again."""
        return self._memory.key_count

    @property
    def reversed_key_count(self) -> int:
        """Counts above the threshold."""
        return self._memory.reversed_key_count

    @property
    def evicted_count(self) -> int:
        """Counts that were given up because of `max_keys`."""
        return self._memory.evicted_count

    @property
    def memory_bytes(self) -> int:
        """Bytes that lists and counts take, reserved ones included."""
        return self._memory.memory_bytes

    def inject(self, users: ArrayLike, positives: ArrayLike, negatives: NDArray[Any]) -> Reversed:
        """Returns the false negatives, after writing stored items over the first slots.

        Args:
            users: `[B]` integers from 1, below 2**24.
            positives: `[B, L]` integers, 0 at padding, left padded; L at most 256.
            negatives: `[B, L, N]` int64 or int32, contiguous; written in place. Those at
                padding are neither read nor written.

        Returns:
            R of them, in the authors' order.

        Raises:
            IndexError: a user id is out of its range.
            TypeError: an argument has another type, or int32 cannot hold a stored item.
            ValueError: another shape, or positives that are not left padded.

        Example:
            >>> negatives = np.array([[[7, 9]]])
            >>> len(FalseNegativeMemory().inject([1], [[5]], negatives))
            0
        """
        u, pos = check_users(users), check_positives(positives)
        check_negatives(negatives, (len(u), *pos.shape[1:]), written=True)
        same_length(positives=pos, users=u)
        return self._reversed(*self._memory.inject(u, pos, negatives))

    def inject_packed(
        self, users: ArrayLike, flat_indices: ArrayLike, max_length: int, negatives: NDArray[Any]
    ) -> Reversed:
        """Returns the false negatives of packed positions, after writing stored items.

        Args:
            users: `[B]` integers from 1, below 2**24.
            flat_indices: `[P]` integers row * max_length + position, ascending: the positions to
                visit, all valid ones as a rule.
            max_length: L, at most 256.
            negatives: `[P, N]` int64 or int32, contiguous; written in place.

        Returns:
            R of them, in the authors' order: positions descend within a row.

        Raises:
            IndexError: a user id or a flat index is out of its range.
            TypeError: an argument has another type, or int32 cannot hold a stored item.
            ValueError: another shape, or flat_indices that do not ascend.

        Example:
            >>> negatives = np.array([[7, 9]])
            >>> len(FalseNegativeMemory().inject_packed([1], [0], 1, negatives))
            0
        """
        u, length = check_users(users), check_max_length(max_length)
        where = check_flat_indices(flat_indices, len(u) * length)
        check_negatives(negatives, (len(where),), written=True)
        return self._reversed(*self._memory.inject_packed(u, where, length, negatives))

    def observe(
        self,
        users: ArrayLike,
        positives: ArrayLike,
        negatives: NDArray[Any],
        scores: ArrayLike,
        reversed_: Reversed,
    ) -> int:
        """Returns how many hard negatives were stored at the visited positions.

        A negative is hard if it scored above the positive and was not reversed in this step.
        Where a user stands in several rows, the last one counts.

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
        given = _as_given(negatives, scores, reversed_)
        return self._memory.observe(u, pos, *given)

    def observe_packed(
        self,
        users: ArrayLike,
        flat_indices: ArrayLike,
        max_length: int,
        negatives: NDArray[Any],
        scores: ArrayLike,
        reversed_: Reversed,
    ) -> int:
        """Returns how many hard negatives were stored at the packed positions.

        Args:
            users: `[B]` integers, as given to `inject_packed`.
            flat_indices: `[P]` integers, as given to `inject_packed`.
            max_length: L, at most 256.
            negatives: `[P, N]` int64 or int32, as `inject_packed` left them.
            scores: `[P, 1 + N]` float32 or float64 logits, the positive's first; or `[P, N]`
                bool, whether each scored above the positive.
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
        given = _as_given(negatives, scores, reversed_)
        return self._memory.observe_packed(u, where, length, *given)

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Returns all that the memory holds; equal memories give equal arrays.

        `hard_keys` `[K]` uint32 = user * 2**8 + position, ascending; the list of key k is
        `hard_items[hard_offsets[k]:hard_offsets[k + 1]]` (uint32, int64 `[K + 1]`), in order.
        `count_keys` `[C]` uint64 = user * 2**40 + position * 2**32 + item, ascending, and
        `counts` `[C]` uint32. `evicted_count` int64, a scalar. Threshold and bound are
        settings, and not in it.

        Example:
            >>> sorted(FalseNegativeMemory().state_dict())[:2]
            ['count_keys', 'counts']
        """
        arrays = (np.asarray(part) for part in self._memory.state())
        return {
            name: array.astype(kind, copy=False)
            for (name, kind), array in zip(STATE_DTYPES.items(), arrays, strict=True)
        }

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
        self._memory.load(
            arrays["hard_keys"],
            arrays["hard_offsets"],
            arrays["hard_items"],
            arrays["count_keys"],
            arrays["counts"],
            int(arrays["evicted_count"]),
        )

    def _reversed(
        self,
        coordinates: NDArray[np.int64],
        counts: NDArray[np.uint32],
        blocks: NDArray[np.int64],
    ) -> Reversed:
        if self.max_keys is not None and not self._warned and self.evicted_count:
            self._warned = True
            warnings.warn(
                f"FalseNegativeMemory evicted {self.evicted_count} counts: max_keys is "
                f"{self.max_keys}, and items may be reversed later than without a bound",
                stacklevel=3,
            )
        return Reversed(coordinates, counts, blocks)


def _as_given(
    negatives: NDArray[Any], scores: ArrayLike, reversed_: Reversed
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.int64]]:
    z = check_scores(scores, negatives)
    mask = z.view(np.uint8) if z.dtype == np.bool_ else z
    coordinates = as_integers("reversed_", reversed_.coordinates, "[R, 3]")
    return as_native(negatives), mask, coordinates
