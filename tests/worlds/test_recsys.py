"""`worlds.recsys`: what is planted is there, and an order that popularity does not tell."""

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.recsys.data import leave_one_out, make_interactions
from lmcore.recsys.reading import read_interactions
from lmcore.worlds.recsys import World, make_world

worlds = st.builds(
    make_world,
    seed=st.integers(0, 2**64 - 1),
    users=st.integers(1, 30),
    items=st.integers(20, 200),
    mean_length=st.floats(5, 20),
    liked_share=st.floats(0.25, 0.9),
    genres=st.integers(2, 20),
    order=st.floats(0, 20),
)


def rows(world: World) -> list[list[int]]:
    return [part.tolist() for part in np.split(world.items, world.offsets[1:-1])]


@given(world=worlds)
@settings(max_examples=60)
def test_users_consume_what_they_like_once(world: World) -> None:
    assert world.offsets[0] == 0
    assert world.offsets[-1] == len(world.items)
    assert not world.liked[:, 0].any()
    counts = world.liked.sum(axis=1)
    assert (counts == counts[0]).all()
    for user, items in enumerate(rows(world), 1):
        assert 5 <= len(items) <= counts[0]
        assert len(set(items)) == len(items)
        assert world.likes(user, items).all()
    unseen = np.ones_like(world.liked)
    unseen[:, 0] = False
    unseen[np.repeat(np.arange(world.user_count), np.diff(world.offsets)), world.items] = False
    assert world.base_rate == pytest.approx(world.liked[unseen].sum() / max(unseen.sum(), 1))


@given(seed=st.integers(0, 2**64 - 1), users=st.integers(1, 20), more=st.integers(0, 20))
@settings(max_examples=30)
def test_a_user_depends_on_its_number_alone(seed: int, users: int, more: int) -> None:
    few, many = (make_world(seed, users=count, items=150) for count in (users, users + more))
    assert rows(many)[:users] == rows(few)
    np.testing.assert_array_equal(many.liked[:users], few.liked)


# The first 32 digits of SHA-256: of the file of pairs, and of what is liked.
WORLDS = {
    0: ("8ceef33f879b755c866c58a0b71d3825", "72c94356d5b1ab1056a0246bfd6bf704"),
    5: ("40bf3de38129d66703b4d42de3f8c305", "2ebae445ffd2ba752e0e7c5362124e5d"),
}


@pytest.mark.parametrize("seed", WORLDS)
def test_worlds_stay_the_same(seed: int) -> None:
    world = make_world(seed, users=60, items=120, liked_share=0.1)
    contents = world.to_text().encode(), np.packbits(world.liked).tobytes()
    found = tuple(hashlib.sha256(content).hexdigest()[:32] for content in contents)
    assert found == WORLDS[seed]


def test_seeds_differ() -> None:
    assert rows(make_world(0, users=5)) == rows(make_world(0, users=5))
    assert rows(make_world(0, users=5)) != rows(make_world(1, users=5))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_default_world_is_sparse(seed: int) -> None:
    world = make_world(seed)
    assert (world.user_count, world.item_count) == (1500, 800)
    lengths = np.diff(world.offsets)
    assert lengths.mean() == pytest.approx(9.0, abs=0.5)
    assert 0.02 < world.base_rate < 0.04
    counts = np.bincount(world.items, minlength=801)[1:]
    # Some items are far more popular than others, and none is everyone's.
    assert np.sort(counts)[-80:].sum() > 0.25 * len(world.items)
    assert counts.max() < 0.25 * world.user_count
    assert world.liked[:, 1:].any(axis=0).mean() > 0.8


def test_draws_at_random_have_the_base_rate() -> None:
    world = make_world(0)
    generator = np.random.default_rng(0)
    users = generator.integers(1, world.user_count + 1, 200_000)
    items = generator.integers(1, world.item_count + 1, 200_000)
    consumed = np.zeros_like(world.liked)
    owners = np.repeat(np.arange(world.user_count), np.diff(world.offsets))
    consumed[owners, world.items] = True
    drawn = ~consumed[users - 1, items]
    liked = world.likes(users[drawn], items[drawn])
    assert liked.mean() == pytest.approx(world.base_rate, abs=0.0015)


def ndcg(
    scores: NDArray[np.float64], history: NDArray[np.bool_], targets: NDArray[np.int64]
) -> float:
    """NDCG@10 of the full ranking, without what was consumed."""
    scores = np.where(history, -np.inf, scores)
    own = scores[np.arange(len(scores)), targets - 1]
    ranks = (scores > own[:, None]).sum(axis=1)
    return float(np.where(ranks < 10, 1 / np.log2(ranks + 2.0), 0.0).mean())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_tastes_and_order_tell_more_than_popularity(seed: int) -> None:
    world = make_world(seed)
    interactions = make_interactions(world.offsets, world.items, world.item_count)
    split = leave_one_out(interactions)
    users, sequences, targets, _ = split.sequences("test", 20)
    offsets, columns = split.history("test")
    history = np.zeros((len(users), world.item_count), dtype=bool)
    history[np.repeat(users - 1, np.diff(offsets)), columns] = True
    popularity = history.sum(axis=0).astype(float)[None].repeat(len(users), 0)
    together = history.T.astype(float) @ history
    neighbours = together / np.sqrt(1 + np.outer(together.diagonal(), together.diagonal()))
    followers = np.zeros((world.item_count, world.item_count))
    for items in sequences:
        known = items[items > 0] - 1
        np.add.at(followers, (known[:-1], known[1:]), 1)
    by_popularity = ndcg(popularity, history, targets)
    by_taste = ndcg(history @ neighbours, history, targets)
    by_order = ndcg(followers[sequences[:, -1] - 1] + 1e-6 * popularity, history, targets)
    by_truth = ndcg(world.liked[:, 1:] + 1e-6 * popularity, history, targets)
    assert by_popularity < 0.08
    assert by_taste > 2.5 * by_popularity
    assert by_order > 1.5 * by_popularity
    assert by_truth > by_taste


def test_order_decides_on_the_next_item() -> None:
    """With it, the same item is followed by fewer different ones."""

    def followers(order: float) -> float:
        world = make_world(0, order=order)
        last = np.ones(len(world.items), dtype=bool)
        last[world.offsets[1:] - 1] = False
        places = np.flatnonzero(last)
        pairs = np.stack([world.items[places], world.items[places + 1]])
        return len(np.unique(pairs, axis=1)[0]) / len(places)

    assert followers(20.0) < followers(6.0) < followers(0.0)


def test_the_text_is_a_file_of_pairs(tmp_path: Any) -> None:
    world = make_world(3, users=400, items=100, liked_share=0.2)
    path = tmp_path / "world.txt"
    path.write_text(world.to_text())
    found = read_interactions(path)
    names = np.asarray(found.item_ids)
    np.testing.assert_array_equal(names[found.items - 1], world.items)
    np.testing.assert_array_equal(found.offsets, world.offsets)


def test_arguments_out_of_range_raise() -> None:
    options: dict[str, tuple[list[float], str]] = {
        "users": ([0], "users must be at least 1: got 0"),
        "items": ([19], "items must be at least 20: got 19"),
        "mean_length": ([4.9, float("nan")], "mean_length must be at least 5: got"),
        "genres": ([1], "genres must be at least 2: got 1"),
        "order": ([-1.0, float("inf")], "order must be at least 0: got"),
        "liked_share": ([0.0, 1.1, float("nan")], "liked_share must give from 5 to 800 items"),
        "seed": ([-1], "seed must be at least 0"),
    }
    for name, (values, message) in options.items():
        for value in values:
            arguments: dict[str, Any] = {"seed": 0, name: value}
            with pytest.raises(ValueError, match=message):
                make_world(**arguments)
    assert make_world(0, users=2, items=20, mean_length=1e9, liked_share=1.0).base_rate == 0.0
    world = make_world(0, users=2)
    assert not world.likes([1, 2], 0).any()
    for users, items, message in (
        (0, 1, r"users must be in 1\.\.2: got 0"),
        ([1, 3], 1, r"users must be in 1\.\.2: got 3"),
        (1, [5, 801], r"items must be in 0\.\.800: got 801"),
        (1, -1, r"items must be in 0\.\.800: got -1"),
    ):
        with pytest.raises(IndexError, match=message):
            world.likes(users, items)
