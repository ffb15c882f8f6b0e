"""Generated users with planted tastes, so that a random negative is known to be liked or not.

Items lie on a sphere in groups (genres), and a user's taste is a mixture of a few genres. She
likes the items nearest to her taste, a few percent of the catalogue, and consumes only some of
them: most of what she likes is never seen, as in real data. What she takes next depends on
what she took last: each item points to a place on the sphere where the next one tends to lie.
So the order of a sequence tells more than the popularity of items does.

Everything random is a draw of (seed, stream, item, position): an item's place depends on
(seed, item) alone, and a user on (seed, user) and the items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.ops.philox import Stream, random_uniform

_DIMENSIONS = 8
_GENRES_PER_USER = 2


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class World:
    """Interactions in compressed rows, and what each user likes."""

    offsets: NDArray[np.int64]
    """`[U + 1]`: user u of 1..U has `items[offsets[u - 1]:offsets[u]]`, in time order."""
    items: NDArray[np.int64]
    """`[interactions]` in 1..I; no user has an item twice."""
    liked: NDArray[np.bool_] = field(repr=False)
    """`[U, I + 1]`: whether user u likes item i, at `[u - 1, i]`; never item 0."""

    @property
    def user_count(self) -> int:
        """U."""
        return len(self.liked)

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return int(self.liked.shape[1]) - 1

    @property
    def base_rate(self) -> float:
        """The share of liked items among those that a user has not consumed.

        It is the precision of negatives drawn at random, taken for false ones; 0 where
        everything was consumed.
        """
        seen = len(self.items)
        unseen = self.user_count * self.item_count - seen
        return (int(self.liked.sum()) - seen) / max(unseen, 1)

    def likes(self, users: ArrayLike, items: ArrayLike) -> NDArray[np.bool_]:
        """Returns whether each user likes the item beside her, of the arguments' common shape.

        Args:
            users: integers in 1..U.
            items: integers in 1..I; item 0, the padding, is liked by nobody.

        Raises:
            IndexError: a user or an item out of range.

        Example:
            >>> world = make_world(seed=0, users=3)
            >>> bool(world.likes(2, world.items[world.offsets[1]:world.offsets[2]]).all())
            True
        """
        rows, columns = np.broadcast_arrays(np.asarray(users) - 1, np.asarray(items))
        for name, values, least, most in (
            ("users", rows + 1, 1, self.user_count),
            ("items", columns, 0, self.item_count),
        ):
            bad = values[(values < least) | (values > most)]
            if bad.size:
                raise IndexError(f"{name} must be in {least}..{most}: got {bad[0]}")
        return np.asarray(self.liked[rows, columns])

    def to_text(self) -> str:
        """Returns the interactions as a file of pairs, one `user item` per line.

        Example:
            >>> world = make_world(seed=0, users=3)
            >>> len(world.to_text().splitlines()) == len(world.items)
            True
        """
        users = np.repeat(np.arange(1, self.user_count + 1), np.diff(self.offsets))
        pairs = zip(users.tolist(), self.items.tolist(), strict=True)
        return "".join(f"{user} {item}\n" for user, item in pairs)


def make_world(
    seed: int,
    *,
    users: int = 1500,
    items: int = 800,
    mean_length: float = 9.0,
    liked_share: float = 0.04,
    genres: int = 16,
    order: float = 6.0,
) -> World:
    """Returns generated users, their interactions and everything they like.

    Args:
        seed: below 2**64.
        users: U; user u depends on (seed, u) and the items alone.
        items: I, at least 20.
        mean_length: mean number of interactions of a user, at least 5; each has 5 and a number
            from a rounded exponential distribution, but no more than she likes.
        liked_share: share of the catalogue that a user likes; at least 5 items.
        genres: number of groups of items, at least 2.
        order: how much the last item decides on the next one; 0 for not at all.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> world = make_world(seed=0, users=200)
        >>> world.user_count, world.item_count
        (200, 800)
        >>> 0.02 < world.base_rate < 0.05
        True
    """
    if users < 1:
        raise ValueError(f"users must be at least 1: got {users}")
    if items < 20:
        raise ValueError(f"items must be at least 20: got {items}")
    if not mean_length >= 5:
        raise ValueError(f"mean_length must be at least 5: got {mean_length}")
    if genres < 2:
        raise ValueError(f"genres must be at least 2: got {genres}")
    if not (order >= 0 and math.isfinite(order)):
        raise ValueError(f"order must be at least 0: got {order}")
    if not 5 <= liked_share * items <= items:
        raise ValueError(
            f"liked_share must give from 5 to {items} items: got {liked_share} of {items}"
        )
    centres = _to_sphere(_normal(seed, Stream.GENRES, genres, _DIMENSIONS))
    # Where items point to: an orthogonal map of their places.
    turn, _ = np.linalg.qr(_normal(seed, Stream.TURNS, _DIMENSIONS, _DIMENSIONS))

    draws = _normal(seed, Stream.ITEMS, items, _DIMENSIONS + 1)
    genre = random_uniform(seed, Stream.ITEMS, range(items), 1, position=64)[:, 0] * genres
    places = _to_sphere(centres[genre.astype(np.int64)] + 0.25 * draws[:, :_DIMENSIONS])
    appeal = 0.6 * draws[:, _DIMENSIONS]

    draws = random_uniform(seed, Stream.TASTES, range(users), 2 * _GENRES_PER_USER + 1)
    favourites = (draws[:, :_GENRES_PER_USER] * genres).astype(np.int64)
    weights = 0.5 + draws[:, _GENRES_PER_USER : 2 * _GENRES_PER_USER]
    tastes = np.einsum("ug,ugd->ud", weights, centres[favourites])
    tastes = _to_sphere(tastes + 0.1 * _normal(seed, Stream.TASTES, users, _DIMENSIONS, 64))
    affinity = tastes @ places.T + 0.1 * appeal

    liked_count = round(liked_share * items)
    nearest = np.argpartition(-affinity, liked_count - 1, axis=1)[:, :liked_count]
    nearest.sort(axis=1)
    liked = np.zeros((users, items + 1), dtype=bool)
    np.put_along_axis(liked, nearest + 1, True, axis=1)

    more = np.rint(-np.log1p(-draws[:, -1]) * (mean_length - 5)).astype(np.int64)
    lengths = np.minimum(5 + more, liked_count)
    chosen = _choose(seed, nearest, int(lengths.max()), appeal, places, places @ turn, order)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    kept = np.arange(chosen.shape[1]) < lengths[:, None]
    return World(offsets=offsets, items=chosen[kept] + 1, liked=liked)


def _choose(
    seed: int,
    nearest: NDArray[np.int64],
    steps: int,
    appeal: NDArray[np.float64],
    places: NDArray[np.float64],
    next_places: NDArray[np.float64],
    order: float,
) -> NDArray[np.int64]:
    """`[users, steps]` distinct columns of each row of `nearest`, one after the other.

    An item is taken with a probability proportional to exp(appeal + order * closeness), its
    closeness being that to the place where the last item points to.
    """
    rows = np.arange(len(nearest))
    draws = random_uniform(seed, Stream.CHOICES, rows, steps)
    base = appeal[nearest]
    chosen = np.zeros((len(nearest), steps), dtype=np.int64)
    for step in range(steps):
        scores = base
        if step:
            target = next_places[chosen[:, step - 1]]
            scores = base + order * np.einsum("ukd,ud->uk", places[nearest], target)
        sums = np.cumsum(np.exp(scores - scores.max(axis=1, keepdims=True)), axis=1)
        picked = (sums <= draws[:, step, None] * sums[:, -1:]).sum(axis=1)
        chosen[:, step] = nearest[rows, picked]
        base[rows, picked] = -np.inf
    return chosen


def _normal(
    seed: int, stream: int, rows: int, columns: int, position: int = 0
) -> NDArray[np.float64]:
    """`[rows, columns]` normal draws, by the method of Box and Muller."""
    draws = random_uniform(seed, stream, range(rows), 2 * columns, position=position)
    radius = np.sqrt(-2 * np.log1p(-draws[:, :columns]))
    return np.asarray(radius * np.cos(2 * math.pi * draws[:, columns:]))


def _to_sphere(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))
