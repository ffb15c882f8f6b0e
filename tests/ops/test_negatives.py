"""`ops.negatives` against the laws of its draws and its definition."""

import pickle
from collections.abc import Callable
from dataclasses import fields
from itertools import chain, pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops.negatives import Batch, PackedBatch, SequenceSampler
from lmcore.reference import negatives as reference
from parity import agree

Histories = tuple[list[int], list[int], int]


def flatten(rows: list[list[int]]) -> tuple[list[int], list[int]]:
    return [0, *np.cumsum([len(row) for row in rows]).tolist()], list(chain(*rows))


@st.composite
def histories(draw: st.DrawFn) -> Histories:
    """Users of all lengths, over catalogues that are sparse or nearly used up."""
    item_count = draw(st.sampled_from([2, 3, 9, 64, 65, 1_000, 40_000, 2**31 - 1]))
    if draw(st.booleans()):
        item_count = min(item_count, 1_000)
    ids = st.one_of(st.integers(1, min(item_count, 12)), st.integers(1, item_count))
    rows = draw(st.lists(st.lists(ids, max_size=9), min_size=1, max_size=6))
    offsets, items = flatten(rows)
    return offsets, items, item_count


@st.composite
def settings(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "batch_size": draw(st.integers(1, 4)),
        "max_length": draw(st.integers(1, 8)),
        "negative_count": draw(st.sampled_from([1, 2, 7, 16, 33])),
        "seed": draw(st.integers(0, 2**64 - 1)),
        "order": draw(st.sampled_from(["replacement", "shuffle"])),
    }


def make_world(
    users: int, item_count: int, least: int, most: int, seed: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(least, most + 1, users)
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rows = [generator.choice(item_count, size, replace=False) + 1 for size in lengths]
    return offsets, np.concatenate(rows), item_count


SPARSE = make_world(50, 5_000, 0, 30)
DENSE = make_world(40, 120, 0, 110)
WORLDS = {"sparse": SPARSE, "dense": DENSE}


def as_lists(batch: Batch | PackedBatch) -> dict[str, Any]:
    return {field.name: getattr(batch, field.name).tolist() for field in fields(batch)}


def is_close(observed: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Chi-square within five standard deviations, and nothing where nothing is expected."""
    expected = expected * observed.sum() / expected.sum()
    inside = expected > 0
    assert observed[~inside].sum() == 0
    assert expected[inside].min() > 5
    chi_squared = ((observed - expected)[inside] ** 2 / expected[inside]).sum()
    freedom = inside.sum() - 1
    return bool(abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom) + 5)


# Golden: what the authors' sampler says of users, windows and padding.


def test_windows_are_the_last_items() -> None:
    rows = [[5, 6, 7, 8, 9], [1], [3, 4], []]
    sampler = SequenceSampler(
        *flatten(rows), 9, batch_size=2, max_length=3, negative_count=4, order="shuffle"
    )
    assert (sampler.eligible_count, sampler.steps_per_epoch) == (2, 1)
    batch = sampler.sample(0, 0)
    order = np.argsort(batch.users)
    assert batch.users[order].tolist() == [1, 3]
    assert batch.sequences[order].tolist() == [[6, 7, 8], [0, 0, 3]]
    assert batch.positives[order].tolist() == [[7, 8, 9], [0, 0, 4]]
    assert batch.negatives.shape == (2, 3, 4)
    assert (batch.negatives[order[1], :2] == 0).all()
    assert set(batch.negatives[order[0]].ravel()) <= {1, 2, 3, 4}
    assert set(batch.negatives[order[1], 2]) <= {1, 2, 5, 6, 7, 8, 9}


# Laws.


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("order", ["replacement", "shuffle"])
@pytest.mark.parametrize("world", WORLDS)
def test_batches_hold_what_they_say(world: str, order: str, distribution: str) -> None:
    offsets, items, item_count = WORLDS[world]
    sampler = SequenceSampler(
        offsets,
        items,
        item_count,
        batch_size=16,
        max_length=20,
        negative_count=30,
        order=order,
        distribution=distribution,
    )
    for step in range(sampler.steps_per_epoch):
        batch = sampler.sample(3, step)
        packed = sampler.sample_packed(3, step)
        for row, user in enumerate(batch.users):
            train = items[offsets[user - 1] : offsets[user]]
            valid = min(len(train) - 1, 20)
            assert valid >= 1
            window = train[-valid - 1 :]
            assert batch.sequences[row].tolist() == [0] * (20 - valid) + window[:-1].tolist()
            assert batch.positives[row].tolist() == [0] * (20 - valid) + window[1:].tolist()
            assert not batch.negatives[row, : 20 - valid].any()
            drawn = batch.negatives[row, 20 - valid :]
            assert drawn.min() >= 1
            assert drawn.max() <= item_count
            assert not np.isin(drawn, train).any()
        assert np.array_equal(packed.users, batch.users)
        assert np.array_equal(packed.sequences, batch.sequences)
        assert np.array_equal(packed.positives, batch.positives)
        assert packed.flat_indices.tolist() == np.flatnonzero(batch.positives).tolist()
        flat = batch.negatives.reshape(-1, 30)
        assert np.array_equal(packed.negatives, flat[packed.flat_indices])


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("length", [10, 12, 13, 200, 700])
def test_negatives_follow_the_distribution(distribution: str, length: int) -> None:
    """Histories of 800 items on both sides of 1/64, and of half of the weight."""
    generator = np.random.default_rng(2)
    own = generator.permutation(800)[:length] + 1
    others = generator.integers(1, 801, 5_000) ** 2 // 801 + 1
    offsets, items = [0, length, length + 5_000], np.concatenate([own, others])
    sampler = SequenceSampler(
        offsets,
        items,
        800,
        batch_size=1,
        max_length=8,
        negative_count=50_000,
        distribution=distribution,
        exponent=0.5,
        order="shuffle",
        seed=4,
    )
    for epoch in range(9):
        batch = sampler.sample_packed(epoch, 0)
        if batch.users[0] == 1:
            break
    assert batch.users[0] == 1
    expected = np.ones(801)
    if distribution == "popularity":
        expected = np.bincount(items, minlength=801) ** 0.5
    expected[0] = 0
    expected[own] = 0
    assert is_close(np.bincount(batch.negatives.ravel(), minlength=801), expected)
    first, last = batch.negatives[0], batch.negatives[-1]
    assert is_close(np.bincount(first, minlength=801), expected)
    assert (first == last).mean() < 0.2


def test_users_are_uniform_with_replacement() -> None:
    offsets, items, item_count = make_world(20, 100, 1, 5)
    sampler = SequenceSampler(
        offsets, items, item_count, batch_size=64, max_length=1, negative_count=1
    )
    drawn = np.concatenate([sampler.sample(epoch, 0).users for epoch in range(200)])
    expected = np.concatenate([[0], np.diff(offsets) >= 2]).astype(float)
    assert sampler.eligible_count == expected.sum()
    assert is_close(np.bincount(drawn, minlength=21), expected)


def test_shuffled_epochs_are_permutations() -> None:
    offsets, items, item_count = make_world(33, 100, 1, 3)
    sampler = SequenceSampler(
        offsets, items, item_count, batch_size=4, max_length=1, negative_count=1, order="shuffle"
    )
    epochs = []
    for epoch in range(400):
        steps = [sampler.sample(epoch, step).users for step in range(sampler.steps_per_epoch)]
        users = np.concatenate(steps)
        assert len(np.unique(users)) == len(users) == sampler.eligible_count // 4 * 4
        epochs.append(users)
    expected = np.concatenate([[0], np.diff(offsets) >= 2]).astype(float)
    assert is_close(np.bincount([users[0] for users in epochs], minlength=34), expected)
    assert is_close(np.bincount([users[-1] for users in epochs], minlength=34), expected)


def test_a_batch_with_more_rows_than_users_starts_anew() -> None:
    sampler = SequenceSampler(
        [0, 2, 4, 6],
        [1, 2, 2, 3, 3, 1],
        9,
        batch_size=7,
        max_length=2,
        negative_count=2,
        order="shuffle",
    )
    assert sampler.steps_per_epoch == 1
    users = sampler.sample(0, 0).users.tolist()
    assert sorted(users[:3]) == [1, 2, 3]
    assert users == (users[:3] * 3)[:7]


@pytest.mark.parametrize("world", WORLDS)
def test_samples_depend_on_their_place_alone(world: str) -> None:
    def make(batch_size: int = 8, **changes: Any) -> SequenceSampler:
        return SequenceSampler(
            *WORLDS[world], batch_size=batch_size, max_length=9, negative_count=11, **changes
        )

    batches = [make().sample(2, step) for step in (0, 1)]
    wide = make(16).sample(2, 0)
    for name in ("users", "positives", "negatives"):
        together = np.concatenate([getattr(batch, name) for batch in batches])
        assert np.array_equal(together, getattr(wide, name))
    for other in (make(seed=1).sample(2, 0), make().sample(3, 0)):
        assert not np.array_equal(other.users, batches[0].users)
    again = make()
    again.sample(5, 1)
    assert as_lists(again.sample(2, 0)) == as_lists(batches[0])
    assert as_lists(pickle.loads(pickle.dumps(again)).sample(2, 0)) == as_lists(batches[0])


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_any_number_of_threads_draws_the_same(distribution: str) -> None:
    """Enough draws that several threads do start."""
    batches = [
        SequenceSampler(
            *DENSE, max_length=50, negative_count=400, threads=threads, distribution=distribution
        ).sample_packed(0, 0)
        for threads in (1, 2, 5, None)
    ]
    assert batches[0].negatives.size > 1_000_000
    for batch in batches[1:]:
        assert np.array_equal(batch.negatives, batches[0].negatives)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_buffers_are_used_again(dtype: type[np.signedinteger[Any]]) -> None:
    sampler = SequenceSampler(*SPARSE, batch_size=8, max_length=9, negative_count=11)
    batch = sampler.sample(1, 1)
    dirty = [np.full_like(getattr(batch, f.name), 77, dtype=dtype) for f in fields(batch)]
    out = Batch(*dirty)
    assert sampler.sample(1, 1, out=out) is out
    assert out.negatives.dtype == dtype
    assert as_lists(out) == as_lists(batch)
    packed = sampler.sample_packed(1, 2)
    flat_indices = np.full(8 * 9, 77)
    room = PackedBatch(*dirty[:3], flat_indices, np.full((8 * 9, 11), 77, dtype))
    first = sampler.sample_packed(1, 2, out=room)
    assert as_lists(first) == as_lists(packed)
    assert np.shares_memory(first.negatives, room.negatives)
    second = sampler.sample_packed(0, 1, out=first)
    assert np.shares_memory(second.negatives, room.negatives)
    assert as_lists(second) == as_lists(sampler.sample_packed(0, 1))


def test_padding_is_cleaned_in_any_order() -> None:
    """Batches of which each is the buffer of a later one, between others."""
    sampler = SequenceSampler(*SPARSE, batch_size=8, max_length=9, negative_count=3)
    steps, buffers = sampler.steps_per_epoch, [sampler.sample(0, 0), sampler.sample(0, 1)]
    buffers.append(Batch(*(np.ones_like(getattr(buffers[0], f.name)) for f in fields(Batch))))
    for turn in range(60):
        out = buffers[turn * turn % 7 % 3]
        index = turn // steps, turn % steps
        assert as_lists(sampler.sample(*index, out=out)) == as_lists(sampler.sample(*index))


def test_buffers_of_other_kinds_are_refused() -> None:
    sampler = SequenceSampler(*SPARSE, batch_size=8, max_length=9, negative_count=11)
    good = sampler.sample(0, 0)
    arrays = [getattr(good, field.name) for field in fields(good)]
    for index, name in enumerate(["users", "sequences", "positives", "negatives"]):
        kinds = arrays.copy()
        kinds[index] = kinds[index].astype(np.float32)
        with pytest.raises(TypeError, match=rf"out\.{name} must be .*int64.*: got float32"):
            sampler.sample(0, 0, out=Batch(*kinds))
        shapes = arrays.copy()
        shapes[index] = shapes[index][1:]
        with pytest.raises(ValueError, match=rf"out\.{name} must be a writeable array of shape"):
            sampler.sample(0, 0, out=Batch(*shapes))
    for fault in (np.asfortranarray(good.negatives), good.negatives.copy()):
        fault.flags.writeable = False
        with pytest.raises(ValueError, match="in C order"):
            sampler.sample(0, 0, out=Batch(*arrays[:3], fault))


@pytest.mark.parametrize("world", WORLDS)
def test_drawn_negatives_do_not_depend_on_the_side_of_padding(world: str) -> None:
    offsets, items, item_count = WORLDS[world]
    sampler = SequenceSampler(offsets, items, item_count, negative_count=3)
    users = np.flatnonzero(np.diff(offsets) >= 2)[:9] + 1
    left = np.zeros((len(users), 12), np.int64)
    for row, user in enumerate(users):
        window = items[offsets[user - 1] + 1 : offsets[user]][-12:]
        left[row, 12 - len(window) :] = window
    right = np.array([np.concatenate([row[row != 0], row[row == 0]]) for row in left])
    drawn = sampler.draw(users, left, seed=4)
    moved = sampler.draw(users, right, seed=4)
    assert drawn.shape == (len(users), 12, 3)
    assert np.array_equal(drawn[left != 0], moved[right != 0])
    assert not drawn[left == 0].any()
    assert not moved[right == 0].any()
    for row, user in enumerate(users):
        found = drawn[row][left[row] != 0]
        assert found.min() >= 1
        assert found.max() <= item_count
        assert not np.isin(found, items[offsets[user - 1] : offsets[user]]).any()
        one = sampler.draw([user], left[row : row + 1], seed=4)
        assert np.array_equal(one[0], drawn[row])
    assert not np.array_equal(sampler.draw(users, left, seed=5), drawn)
    define = reference.SequenceSampler(offsets, items, item_count, negative_count=3)
    assert np.array_equal(define.draw(users, left, seed=4), drawn)
    assert np.array_equal(define.draw(users, right, count=2), sampler.draw(users, right, count=2))
    with pytest.raises(ValueError, match="a row for each user"):
        sampler.draw(users, left[1:])
    assert sampler.draw([], np.zeros((0, 3), int)).shape == (0, 3, 3)


@pytest.mark.parametrize("world", WORLDS)
def test_candidates_are_outside_of_histories(world: str) -> None:
    offsets, items, item_count = WORLDS[world]
    sampler = SequenceSampler(offsets, items, item_count, seed=5)
    users = np.arange(1, len(offsets))
    targets = np.array(
        [next(i for i in range(1, item_count) if i not in items[a:b]) for a, b in pairwise(offsets)]
    )
    drawn = sampler.candidates(users, 200)
    without = sampler.candidates(users, 200, exclude=targets)
    for row, user in enumerate(users):
        train = items[offsets[user - 1] : offsets[user]]
        assert not np.isin(drawn[row], train).any()
        assert not np.isin(without[row], [*train, targets[row]]).any()
    assert np.array_equal(sampler.candidates(users[::-1], 200)[::-1], drawn)
    assert np.array_equal(sampler.candidates(users, 70), drawn[:, :70])
    assert np.array_equal(sampler.candidates(users, 200, seed=5), drawn)
    assert not np.array_equal(sampler.candidates(users, 200, seed=6), drawn)
    assert np.array_equal(sampler.candidates(users, 200, exclude=targets * 0), drawn)
    two = np.stack([targets, targets * 0], axis=1)
    assert np.array_equal(sampler.candidates(users, 200, exclude=two), without)


def test_candidates_are_uniform() -> None:
    sampler = SequenceSampler([0, 4], [3, 5, 7, 7], 40)
    drawn = sampler.candidates([1], 100_000, exclude=[[9, 9, 3]])
    expected = np.ones(41)
    expected[[0, 3, 5, 7, 9]] = 0
    assert is_close(np.bincount(drawn[0], minlength=41), expected)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
@pytest.mark.parametrize("items", [[], [2], [3, 1]])
def test_candidates_need_no_users_with_two_items(items: list[int], distribution: str) -> None:
    """Nothing can be sampled for training then, and the same error says so everywhere."""
    offsets = [0, *range(len(items) + 1)]  # the first user has nothing
    changes: dict[str, Any] = {"distribution": distribution, "batch_size": 2}
    expected = reference.SequenceSampler(offsets, items, 4, **changes)
    sampler = SequenceSampler(offsets, items, 4, **changes)
    assert sampler.eligible_count == expected.eligible_count == 0
    users = list(range(1, len(offsets)))
    drawn = sampler.candidates(users, 30)
    assert np.array_equal(drawn, expected.candidates(users, 30))
    for row, item in enumerate(items, 1):
        assert item not in drawn[row]
    calls: list[Callable[[Any], Any]] = [
        lambda s: s.steps_per_epoch,
        lambda s: s.sample(0, 0),
        lambda s: s.sample_packed(0, 0),
    ]
    for call in calls:
        for made in (sampler, expected, pickle.loads(pickle.dumps(sampler))):
            with pytest.raises(ValueError, match=r"^no user has at least 2 items$"):
                call(made)


# Parity.


def run(
    make: Callable[..., Any], histories: Histories, changes: dict[str, Any], epoch: int
) -> list[Any]:
    sampler = make(*histories, **changes)
    steps = sampler.steps_per_epoch
    return [
        sampler.eligible_count,
        steps,
        as_lists(sampler.sample(epoch, steps - 1)),
        as_lists(sampler.sample_packed(epoch, 0)),
    ]


def both(*args: Any) -> Any:
    return agree(
        lambda *a: run(reference.SequenceSampler, *a), lambda *a: run(SequenceSampler, *a), *args
    )


@given(histories(), settings(), st.integers(0, 2**24 - 1))
def test_uniform_batches_agree(histories: Histories, changes: dict[str, Any], epoch: int) -> None:
    offsets, items, item_count = histories
    both((offsets, items, min(item_count, 1_000_000)), changes, epoch)


@given(
    histories(),
    settings(),
    st.integers(0, 2**24 - 1),
    st.sampled_from([0, 0.5, 0.75, 1, 3.5, 2_000.0]),
)
def test_popular_batches_agree(
    histories: Histories, changes: dict[str, Any], epoch: int, exponent: float
) -> None:
    offsets, items, item_count = histories
    changes |= {"distribution": "popularity", "exponent": exponent}
    both((offsets, items, min(item_count, 1_000_000)), changes, epoch)


@given(
    histories(),
    st.lists(st.tuples(st.integers(0, 7), st.integers(-1, 12)), max_size=5),
    st.integers(0, 80),
    st.integers(0, 2**64 - 1),
)
def test_candidates_agree(
    histories: Histories, rows: list[tuple[int, int]], count: int, seed: int
) -> None:
    offsets, items, item_count = histories

    def draw(make: Callable[..., Any]) -> list[Any]:
        sampler = make(offsets, items, min(item_count, 100_000))
        users, exclude = [user for user, _ in rows], [item for _, item in rows]
        return [
            sampler.candidates(users, count, seed=seed).tolist(),
            sampler.candidates(users, count, seed=seed, exclude=exclude).tolist(),
        ]

    agree(lambda: draw(reference.SequenceSampler), lambda: draw(SequenceSampler))


@pytest.mark.parametrize("world", WORLDS)
@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_longer_batches_agree(world: str, distribution: str) -> None:
    """Rows over many groups of words."""
    changes = {"batch_size": 12, "max_length": 9, "negative_count": 25}
    both(WORLDS[world], changes | {"distribution": distribution}, 7)


BASE: dict[str, Any] = {"offsets": [0, 3, 5], "items": [1, 2, 4, 3, 1], "item_count": 5}


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"offsets": []}, ValueError, "offsets must be 0 at the start: got no offsets"),
        ({"offsets": [1, 5]}, ValueError, "offsets must be 0 at the start: got 1"),
        (
            {"offsets": [0, 3, 2, 5]},
            ValueError,
            "offsets must be ascending: got 2 after 3 for user 2",
        ),
        (
            {"offsets": [0, 3]},
            ValueError,
            "offsets must be 5 at the end, the number of items: got 3",
        ),
        ({"offsets": [[0, 5]]}, ValueError, "offsets must have the shape [U + 1]: got [1, 2]"),
        ({"items": [1, 2, 0, 3, 1]}, IndexError, None),
        (
            {"items": [1, 2, 4, 6, -1]},
            IndexError,
            "items[3] must be at least 1 and at most 5: got 6",
        ),
        ({"items": [1.0, 2, 4, 3, 1]}, TypeError, "items must be integers: got float64"),
        (
            {"items": [1, 2, 3, 2, 1], "item_count": 3},
            ValueError,
            "user 1: no item is left to draw, as all are in the history",
        ),
        (
            {"items": [1, 1, 1, 1, 2], "distribution": "popularity"},
            ValueError,
            "user 2: no item is left to draw, as all are in the history",
        ),
        ({"item_count": 0}, ValueError, "item_count must be at least 1 and below 2**31: got 0"),
        ({"batch_size": 0}, ValueError, "batch_size must be at least 1 and below 2**31: got 0"),
        ({"max_length": -1}, ValueError, "max_length must be at least 1 and below 2**31: got -1"),
        ({"negative_count": 2**31}, ValueError, None),
        ({"seed": -1}, ValueError, "seed must be at least 0 and below 2**64: got -1"),
        ({"seed": 1.0}, TypeError, "seed must be an int: got float"),
        ({"threads": 0}, ValueError, "threads must be at least 1: got 0"),
        (
            {"distribution": "zipf"},
            ValueError,
            "distribution must be one of uniform, popularity: got 'zipf'",
        ),
        ({"order": ""}, ValueError, "order must be one of replacement, shuffle: got ''"),
        ({"exponent": -1}, ValueError, "exponent must be finite and at least 0: got -1"),
        ({"exponent": float("nan")}, ValueError, None),
    ],
)
def test_wrong_arguments_are_named(
    change: dict[str, Any], kind: type[Exception], text: str | None
) -> None:
    changed = BASE | change
    error = agree(
        lambda **a: reference.SequenceSampler(**a).eligible_count,
        lambda **a: SequenceSampler(**a).eligible_count,
        **changed,
    )
    assert type(error) is kind
    assert text in (None, str(error))


@pytest.mark.parametrize(
    ("call", "kind", "text"),
    [
        (lambda s: s.sample(0, 1), ValueError, "step must be at least 0 and below 1: got 1"),
        (lambda s: s.sample(-1, 0), ValueError, "epoch must be at least 0 and below 2**24: got -1"),
        (lambda s: s.sample_packed(2**24, 0), ValueError, None),
        (lambda s: s.sample(0, "0"), TypeError, "step must be an int: got str"),
        (lambda s: s.candidates([0], 1), IndexError, None),
        (
            lambda s: s.candidates([1, 3], 1),
            IndexError,
            "users[1] must be at least 1 and at most 2: got 3",
        ),
        (
            lambda s: s.candidates([1, 2], 1, exclude=[5, 6]),
            IndexError,
            "exclude[1] must be at least 0 and at most 5: got 6",
        ),
        (
            lambda s: s.candidates([1], 1, exclude=[[3, 5]]),
            ValueError,
            "user 1: no item is left to draw, as all are in the history",
        ),
        (
            lambda s: s.candidates([1], 1, exclude=[3, 5]),
            ValueError,
            "exclude must have the shape [1] or [1, K]: got [2]",
        ),
        (lambda s: s.candidates([1], -1), ValueError, None),
        (lambda s: s.candidates([1], 1, seed=2**64), ValueError, None),
        (lambda s: s.candidates(["1"], 1), TypeError, None),
    ],
)
def test_wrong_calls_are_named(
    call: Callable[[Any], Any], kind: type[Exception], text: str | None
) -> None:
    error = agree(
        lambda: call(reference.SequenceSampler(**BASE)), lambda: call(SequenceSampler(**BASE))
    )
    assert type(error) is kind
    assert text in (None, str(error))
