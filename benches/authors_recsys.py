"""The samplers of UFNRec's authors and of RecBole, written for timing.

Same steps, same data structures and same cost as their code, in our words; the bench asserts
that what they draw obeys the same laws as what lmcore draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Sample = tuple[int, NDArray[Any], NDArray[Any], NDArray[Any]]


def draw_outside(first: int, end: int, seen: set[int]) -> int:
    """Returns one number in [first, end) that is not in `seen`, by trying."""
    drawn = np.random.randint(first, end)
    while drawn in seen:
        drawn = np.random.randint(first, end)
    return drawn


def draw_sample(
    train: dict[int, list[int]], user_count: int, item_count: int, length: int, negatives: int
) -> Sample:
    """Returns a user and her window, built from its right end, as UFNRec's sampler does."""
    user = np.random.randint(1, user_count + 1)
    while len(train[user]) <= 1:
        user = np.random.randint(1, user_count + 1)
    sequence = np.zeros([length], dtype=np.int32)
    positives = np.zeros([length], dtype=np.int32)
    drawn = np.zeros([length, negatives], dtype=np.int32)
    following = train[user][-1]
    position = length - 1
    seen = set(train[user])
    for item in reversed(train[user][:-1]):
        sequence[position] = item
        positives[position] = following
        if following != 0:
            for slot in range(negatives):
                drawn[position][slot] = draw_outside(1, item_count + 1, seen)
        following = item
        position -= 1
        if position == -1:
            break
    return user, sequence, positives, drawn


def draw_batch(
    train: dict[int, list[int]],
    user_count: int,
    item_count: int,
    batch_size: int,
    length: int,
    negatives: int,
) -> list[tuple[Any, ...]]:
    """Returns users, sequences, positives and negatives, each of all rows, as they queue them."""
    samples = [
        draw_sample(train, user_count, item_count, length, negatives) for _ in range(batch_size)
    ]
    return list(zip(*samples, strict=True))


def draw_by_users(
    used: NDArray[Any], users: NDArray[np.int64], item_count: int, count: int
) -> NDArray[np.int64]:
    """Returns `count` negatives per user as RecBole does: all at once, then the rejected again.

    Those of `users[0]` stand at 0, U, 2 U and so on.
    """
    drawn = np.zeros(len(users) * count, dtype=np.int64)
    left = np.arange(len(drawn))
    keys = np.tile(users, count)
    while len(left) > 0:
        drawn[left] = np.random.randint(1, item_count + 1, len(left))
        left = np.array(
            [
                index
                for index, seen, item in zip(left, used[keys[left]], drawn[left], strict=True)
                if item in seen
            ]
        )
    return drawn
