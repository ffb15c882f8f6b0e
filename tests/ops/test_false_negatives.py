"""`ops.false_negatives` against the authors' traces, the laws, and its definition."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops.false_negatives import LARGEST_COUNT, FalseNegativeMemory, Reversed
from lmcore.reference import false_negatives as reference
from parity import agree

Memory = FalseNegativeMemory | reference.FalseNegativeMemory
both_memories = pytest.mark.parametrize(
    "memory_class", [FalseNegativeMemory, reference.FalseNegativeMemory]
)
ArrayOrBool = NDArray[np.bool_] | bool
TRACES = ["unique_users", "repeated_users"]


def pack(positives: NDArray[Any], array: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """Places of the valid positions, and what the array holds there."""
    flat_indices = np.flatnonzero(positives)
    return flat_indices, array.reshape(-1, array.shape[-1])[flat_indices]


def same_state(one: Memory, other: Memory) -> bool:
    first, second = one.state_dict(), other.state_dict()
    assert first.keys() == second.keys()
    return all(
        first[name].dtype == second[name].dtype and np.array_equal(first[name], second[name])
        for name in first
    )


# Golden: the authors' code.


@both_memories
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("kind", [np.int64, np.int32])
@pytest.mark.parametrize("scores", ["float32", "float64", "bool"])
def test_traces_of_the_authors(
    golden_dir: Path,
    memory_class: Callable[..., Memory],
    trace: str,
    layout: str,
    kind: Any,
    scores: str,
) -> None:
    with np.load(golden_dir / f"ufnrec/trace_{trace}.npz") as file:
        arrays = dict(file)
    *_, length, _, threshold, steps = arrays["meta"].tolist()
    memory = memory_class(threshold=threshold)
    reversals = 0
    for step in range(steps):
        users, positives, given_negatives, expected, coordinates, logits = (
            arrays[f"s{step}_{name}"]
            for name in ("users", "pos", "neg_in", "neg_out", "reversed", "logits")
        )
        negatives, z = given_negatives.astype(kind), logits.astype("float64")
        if scores == "float32":
            z = logits
        elif scores == "bool":
            z = logits[..., 1:] > logits[..., :1]
        if layout == "padded":
            reversed_ = memory.inject(users, positives, negatives)
            assert np.array_equal(negatives, expected)
            memory.observe(users, positives, negatives, z, reversed_)
        else:
            flat_indices, packed = pack(positives, negatives)
            reversed_ = memory.inject_packed(users, flat_indices, length, packed)
            assert np.array_equal(packed, pack(positives, expected)[1])
            flat = reversed_.coordinates[:, 0] * length + reversed_.coordinates[:, 1]
            assert np.array_equal(flat_indices[reversed_.blocks], flat)
            memory.observe_packed(
                users, flat_indices, length, packed, pack(positives, z)[1], reversed_
            )
        assert np.array_equal(reversed_.coordinates, coordinates)
        assert reversed_.coordinates.dtype == np.int64
        assert reversed_.counts.dtype == np.uint32
        assert (reversed_.counts > threshold).all()
        reversals += len(reversed_)
    assert reversals > 20


@both_memories
def test_trace_by_hand(memory_class: Callable[..., Memory]) -> None:
    """N = 2, m = 1, one user, one position: the item 7 through five visits."""
    memory = memory_class(threshold=1)

    def visit(drawn: list[int], above: list[int]) -> tuple[list[int], list[int]]:
        negatives = np.array([[drawn]])
        reversed_ = memory.inject([1], [[5]], negatives)
        logits = [0.0, *(float(item in above) for item in negatives.ravel().tolist())]
        memory.observe([1], [[5]], negatives, np.array([[logits]]), reversed_)
        return negatives.ravel().tolist(), reversed_.coordinates[:, 2].tolist()

    assert visit([7, 9], above=[7]) == ([7, 9], [])
    assert visit([3, 4], above=[7]) == ([7, 4], [])
    assert visit([3, 4], above=[7]) == ([7, 4], [0])
    assert memory.hard_count == 0  # what was reversed is not stored
    assert visit([3, 7], above=[7]) == ([3, 7], [])  # drawn by chance: its label stays 0
    assert visit([3, 4], above=[]) == ([7, 4], [0])  # and it turns at once
    assert memory.state_dict()["counts"].tolist() == [3]
    assert (memory.key_count, memory.reversed_key_count) == (1, 1)


@both_memories
def test_scores_that_are_equal_are_not_above(memory_class: Callable[..., Memory]) -> None:
    memory, negatives = memory_class(), np.array([[[1, 2, 3, 4]]])
    nothing = memory.inject([1], [[5]], negatives)
    above = np.nextafter(np.float32(1), np.float32(2))
    logits = np.array([[[1, 1, above, np.inf, -np.inf]]], dtype=np.float32)
    assert memory.observe([1], [[5]], negatives, logits, nothing) == 2
    assert memory.state_dict()["hard_items"].tolist() == [2, 3]


# Laws and decisions.


def visit(
    memory: Memory, users: list[int], negatives: NDArray[Any], hard: ArrayOrBool
) -> tuple[NDArray[Any], Reversed]:
    """One position for each user; the mask says what is hard."""
    given_negatives = negatives.copy()[:, None]
    positives = np.ones((len(users), 1), dtype=np.int64)
    reversed_ = memory.inject(users, positives, given_negatives)
    mask = np.broadcast_to(hard, given_negatives.shape)
    memory.observe(users, positives, given_negatives, mask, reversed_)
    return given_negatives[:, 0], reversed_


@both_memories
def test_copies_in_a_list_are_counted_each(memory_class: Callable[..., Memory]) -> None:
    memory = memory_class(threshold=1)
    visit(memory, [1], np.array([[7, 7, 7]]), True)
    written, reversed_ = visit(memory, [1], np.array([[1, 2, 3]]), False)
    assert written.tolist() == [[7, 7, 7]]
    assert reversed_.coordinates.tolist() == [[0, 0, 1], [0, 0, 2]]
    assert reversed_.counts.tolist() == [2, 3]
    assert reversed_.flat_indices(3).tolist() == [1, 2]


@both_memories
def test_of_rows_of_one_user_the_last_is_stored(memory_class: Callable[..., Memory]) -> None:
    memory = memory_class(threshold=1)
    visit(memory, [1], np.array([[7, 8]]), True)
    written, reversed_ = visit(
        memory,
        [1, 2, 1],
        np.array([[1, 2], [3, 4], [5, 6]]),
        np.array([1, 1, 0], bool)[:, None, None],
    )
    assert written.tolist() == [[7, 8], [3, 4], [7, 8]]
    assert reversed_.coordinates.tolist() == [[2, 0, 0], [2, 0, 1]]
    assert memory.state_dict()["hard_keys"].tolist() == [2 << 8]


@both_memories
def test_fewer_slots_show_fewer_items(memory_class: Callable[..., Memory]) -> None:
    """Items without a slot are neither shown nor counted; the next observation replaces them."""
    memory = memory_class(threshold=0)
    visit(memory, [1], np.array([[7, 8, 9]]), True)
    negatives = np.array([[[3]]])
    reversed_ = memory.inject([1], [[5]], negatives)
    assert (negatives.tolist(), reversed_.counts.tolist()) == ([[[7]]], [1])
    assert (memory.hard_count, memory.key_count) == (3, 1)
    negatives = np.zeros((1, 1, 0), dtype=np.int64)
    reversed_ = memory.inject([1], [[5]], negatives)
    assert (len(reversed_), memory.hard_count) == (0, 3)
    memory.observe([1], [[5]], negatives, np.zeros((1, 1, 1)), reversed_)
    assert (memory.hard_count, memory.key_count) == (0, 1)


@both_memories
def test_positions_that_are_not_visited_keep_their_lists(
    memory_class: Callable[..., Memory],
) -> None:
    memory = memory_class()

    def observe(positives: list[int], first: int) -> None:
        negatives = np.arange(first, first + 4)[None, :, None]
        reversed_ = memory.inject([1], [positives], np.ones_like(negatives))
        memory.observe([1], [positives], negatives, np.ones((1, 4, 1), bool), reversed_)

    observe([1, 1, 1, 1], 10)
    observe([0, 0, 1, 1], 20)
    assert memory.state_dict()["hard_items"].tolist() == [10, 11, 22, 23]
    negatives = np.array([[30], [31]])
    nothing = memory.inject_packed([1], [0, 2], 4, np.ones_like(negatives))
    memory.observe_packed([1], [0, 2], 4, negatives, np.array([[True], [False]]), nothing)
    assert memory.state_dict()["hard_items"].tolist() == [30, 11, 23]


@both_memories
def test_without_threshold_nothing_is_reversed(memory_class: Callable[..., Memory]) -> None:
    memory = memory_class(threshold=None)
    for _ in range(9):
        _, reversed_ = visit(memory, [1], np.array([[7]]), True)
        assert len(reversed_) == 0
    assert (memory.state_dict()["counts"].tolist(), memory.reversed_key_count) == ([8], 0)


@both_memories
def test_counts_end_at_the_largest(memory_class: Callable[..., Memory]) -> None:
    memory = memory_class(threshold=LARGEST_COUNT - 2)
    visit(memory, [1], np.array([[7]]), True)
    visit(memory, [1], np.array([[7]]), True)
    state = memory.state_dict()
    memory.load_state_dict(state | {"counts": np.array([LARGEST_COUNT - 2], dtype=np.uint32)})
    assert memory.reversed_key_count == 0
    for count in (LARGEST_COUNT - 1, LARGEST_COUNT, LARGEST_COUNT):
        negatives = np.array([[[7]]])
        reversed_ = memory.inject([1], [[5]], negatives)
        assert reversed_.counts.tolist() == [count]
        assert memory.reversed_key_count == 1


@both_memories
def test_largest_ids(memory_class: Callable[..., Memory]) -> None:
    memory = memory_class(threshold=0)
    user, item, length = 2**24 - 1, 2**32 - 1, 256
    flat_indices = [0, 255, 256, 511]
    negatives = np.full((4, 1), item)
    nothing = memory.inject_packed([user, 1], flat_indices, length, negatives)
    memory.observe_packed(
        [user, 1], flat_indices, length, negatives, np.ones((4, 1), bool), nothing
    )
    assert memory.state_dict()["hard_keys"].tolist() == [256, 511, user << 8, user << 8 | 255]
    reversed_ = memory.inject_packed(
        [user, 1], flat_indices, length, np.ones((4, 1), dtype=np.int64)
    )
    assert reversed_.coordinates.tolist() == [[0, 255, 0], [0, 0, 0], [1, 255, 0], [1, 0, 0]]
    assert reversed_.blocks.tolist() == [1, 0, 3, 2]
    assert int(memory.state_dict()["count_keys"][-1]) == 2**64 - 1
    with pytest.raises(TypeError, match="negatives must be int64: item 4294967295 is stored"):
        memory.inject_packed([2], [0], length, np.ones((1, 1), dtype=np.int32))


def test_a_call_that_raises_changes_nothing() -> None:
    memory = FalseNegativeMemory(threshold=0)
    visit(memory, [1, 2], np.array([[7, 8], [9, 10]]), True)
    before = memory.state_dict()
    negatives = np.array([[[1, 2]], [[3, 0]]])
    for error, users, scores in (
        (IndexError, [1, 2**24], np.ones((2, 1, 2), bool)),
        (IndexError, [1, 2], np.ones((2, 1, 2), bool)),
        (ValueError, [1, 2], np.array([[[0.0, 1, 1]], [[0, 1, np.nan]]])),
    ):
        with pytest.raises(error):
            memory.observe(users, [[1], [1]], negatives, scores, _empty())
        assert all(np.array_equal(before[k], v) for k, v in memory.state_dict().items())
    with pytest.raises(IndexError):
        memory.inject([1, 0], [[1], [1]], negatives)
    assert negatives.tolist() == [[[1, 2]], [[3, 0]]]
    assert all(np.array_equal(before[k], v) for k, v in memory.state_dict().items())


def _empty() -> Reversed:
    return FalseNegativeMemory().inject([], np.zeros((0, 1)), np.zeros((0, 1, 1), dtype=np.int64))


# Laws: random traces.


def make_batch(
    source: np.random.Generator, users: int, items: int, length: int, slots: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """A batch with repeated users, whose window lengths vary, and coarse logits with ties."""
    rows = int(source.integers(0, 6))
    drawn = source.integers(1, users + 1, rows)
    starts = source.integers(0, length + 1, rows)
    positives = np.where(np.arange(length) >= starts[:, None], 1 + drawn[:, None], 0)
    negatives = source.integers(1, items + 1, (rows, length, slots))
    negatives[positives == 0] = 0
    logits = source.integers(0, 4, (rows, length, 1 + slots)).astype(np.float32)
    return drawn, positives, negatives, logits


@given(
    st.integers(0, 2**32),
    st.integers(0, 3) | st.none(),
    st.integers(1, 40) | st.none(),
    st.integers(1, 5),
    st.integers(1, 12),
)
def test_random_traces_agree(
    seed: int, threshold: int | None, max_keys: int | None, length: int, slots: int
) -> None:
    """Reference, padded and packed memories go the same way, with and without eviction."""
    source = np.random.default_rng(seed)
    settings = {"threshold": threshold, "max_keys": max_keys}
    define, padded, packed = (
        reference.FalseNegativeMemory(**settings),
        FalseNegativeMemory(**settings),
        FalseNegativeMemory(**settings),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FalseNegativeMemory evicted")
        for _ in range(12):
            size = int(source.integers(1, slots + 1))  # N may change between calls
            users, positives, negatives, z = make_batch(source, 4, 20, length, size)
            mine, theirs = negatives.copy(), negatives.copy()
            flat_indices, packed_negatives = pack(positives, negatives)
            reversed_ = padded.inject(users, positives, mine)
            expected = define.inject(users, positives, theirs)
            flat = packed.inject_packed(users, flat_indices, length, packed_negatives)
            assert np.array_equal(mine, theirs)
            assert np.array_equal(packed_negatives, pack(positives, mine)[1])
            for got in (reversed_, flat):
                assert np.array_equal(got.coordinates, expected.coordinates)
                assert np.array_equal(got.counts, expected.counts)
            assert np.array_equal(reversed_.blocks, expected.blocks)
            assert np.array_equal(
                mine.ravel()[reversed_.flat_indices(size)],
                packed_negatives.ravel()[flat.flat_indices(size)],
            )
            kept = source.random(len(reversed_)) < 0.7
            stored = padded.observe(users, positives, mine, z, reversed_.select(kept))
            assert stored == define.observe(users, positives, theirs, z, expected.select(kept))
            hard = pack(positives, z[..., 1:] > z[..., :1])[1]
            assert stored == packed.observe_packed(
                users, flat_indices, length, packed_negatives, hard, flat.select(kept)
            )
            for memory in (padded, packed):
                assert same_state(memory, define)
                for name in ("hard_count", "key_count", "reversed_key_count", "evicted_count"):
                    assert getattr(memory, name) == getattr(define, name)
            if max_keys is not None:
                assert padded.key_count <= max_keys


@given(st.integers(0, 2**32), st.integers(1, 30) | st.none())
def test_a_restored_memory_goes_the_same_way(seed: int, max_keys: int | None) -> None:
    source = np.random.default_rng(seed)
    memory = FalseNegativeMemory(threshold=1, max_keys=max_keys)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FalseNegativeMemory evicted")
        for _ in range(10):
            restored = FalseNegativeMemory(threshold=1, max_keys=max_keys)
            restored.load_state_dict(memory.state_dict())
            assert same_state(memory, restored)
            assert memory.reversed_key_count == restored.reversed_key_count
            assert memory.key_count == restored.key_count
            assert memory.hard_count == restored.hard_count
            users, positives, negatives, z = make_batch(source, 5, 15, 3, 6)
            both = []
            for one in (memory, restored):
                shown = negatives.copy()
                reversed_ = one.inject(users, positives, shown)
                one.observe(users, positives, shown, z, reversed_)
                both.append(
                    (shown.tolist(), reversed_.coordinates.tolist(), reversed_.counts.tolist())
                )
            assert both[0] == both[1]
            assert same_state(memory, restored)


def test_a_hundred_thousand_visits() -> None:
    """The check that the paper's notes ask for: many visits, one definition."""
    source = np.random.default_rng(3)
    define, memory = reference.FalseNegativeMemory(threshold=3), FalseNegativeMemory(threshold=3)
    visits = 0
    while visits < 100_000:
        users = source.integers(1, 400, 256)
        positives = np.where(np.arange(20) >= users[:, None] % 20, 1, 0)
        negatives = source.integers(1, 300, (256, 20, 6))
        hard = source.random((256, 20, 6)) < 0.3
        shown = negatives.copy()
        expected, reversed_ = (
            define.inject(users, positives, shown),
            memory.inject(users, positives, negatives),
        )
        assert np.array_equal(shown, negatives)
        assert np.array_equal(reversed_.coordinates, expected.coordinates)
        assert np.array_equal(reversed_.counts, expected.counts)
        define.observe(users, positives, shown, hard, expected)
        memory.observe(users, positives, negatives, hard, reversed_)
        visits += np.count_nonzero(positives)
    assert same_state(memory, define)
    assert memory.reversed_key_count > 1_000


# Bounded memory.


def test_eviction_keeps_what_is_stored_and_often_shown() -> None:
    memory = FalseNegativeMemory(threshold=None, max_keys=8)
    visit(memory, [1], np.array([[1, 2, 3, 4]]), True)
    visit(memory, [1], np.array([[0, 0, 0, 0]]), True)  # shown once, stored
    visit(memory, [2], np.array([[5, 6, 7, 8]]), True)
    visit(memory, [2], np.array([[0, 0, 0, 0]]), np.array([True, True, False, False]))
    visit(memory, [2], np.array([[1, 1, 1, 1]]), False)  # 5 and 6 twice, nothing stored
    assert (memory.key_count, memory.evicted_count) == (8, 0)
    visit(memory, [3], np.array([[9]]), True)
    with pytest.warns(UserWarning, match="FalseNegativeMemory evicted 3 counts: max_keys is 8"):
        visit(memory, [3], np.array([[1]]), True)
    assert (memory.key_count, memory.evicted_count) == (6, 3)
    keys = [(int(key) >> 40, int(key) & 0xFFFFFFFF) for key in memory.state_dict()["count_keys"]]
    # Two counts of 1 and then the lower key of the counts of 2 were stored nowhere.
    assert keys == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 6), (3, 9)]
    assert memory.memory_bytes > 0


def test_eviction_warns_once() -> None:
    memory = FalseNegativeMemory(max_keys=1)
    items = np.array([[1, 2, 3]])
    visit(memory, [1], items, True)
    with pytest.warns(UserWarning, match="evicted 3 counts"):
        visit(memory, [1], items, True)
    for _ in range(3):
        visit(memory, [1], items, True)
    assert memory.evicted_count == 12
    assert memory.key_count == 0


# Parity: what is refused.

GOOD: dict[str, Any] = {
    "users": [1, 2],
    "positives": [[0, 3], [3, 4]],
    "flat_indices": [1, 2, 3],
    "max_length": 2,
}
OTHERS: list[dict[str, Any]] = [
    {},
    {"users": [1, 0]},
    {"users": [1, 2**24]},
    {"users": [-1, 2]},
    {"users": [1.0, 2.0]},
    {"users": [[1, 2]]},
    {"users": [1]},
    {"users": [1, 2, 3]},
    {"users": np.array([1, 2], dtype=np.int32)},
    {"positives": [[1, 0], [1, 1]]},
    {"positives": [[0, 1], [1, 0]]},
    {"positives": [0, 1]},
    {"positives": [[0.5, 1], [1, 1]]},
    {"positives": np.zeros((2, 0), dtype=np.int64)},
    {"positives": np.ones((2, 257), dtype=np.int64)},
    {"positives": [[0, 0], [0, 0]]},
    {"flat_indices": [1, 1, 2]},
    {"flat_indices": [2, 1, 3]},
    {"flat_indices": [1, 2, 4]},
    {"flat_indices": [-1, 2, 3]},
    {"flat_indices": [0, 1]},
    {"flat_indices": ["a", "b", "c"]},
    {"max_length": 1},
    {"max_length": 0},
    {"max_length": 257},
    {"max_length": 2.0},
    {"max_length": True},
    {"negatives": np.ones((2, 2, 3), dtype=np.int16)},
    {"negatives": np.ones((2, 2, 3))},
    {"negatives": np.ones((2, 3), dtype=np.int64)},
    {"negatives": np.ones((3, 2), dtype=np.int32)},
    {"negatives": [[[1, 2]]]},
    {"negatives": np.ones((2, 2, 6), dtype=np.int64)[:, :, ::2]},
    {"negatives": np.zeros((2, 2, 3), dtype=np.int64)},
    {"negatives": np.full((2, 2, 3), 2**32)},
    {"negatives": np.full((3, 3), -1)},
    {"scores": np.zeros((2, 2, 3))},
    {"scores": np.zeros((2, 2, 4), dtype=np.int64)},
    {"scores": np.full((2, 2, 4), np.nan)},
    {"scores": np.array([[[np.nan] * 4, [0, 1, np.nan, 1]], [[0, 1, 1, 1]] * 2], np.float32)},
    {"scores": np.array([[0, 1, 1, 1], [np.inf, -np.inf, 1, np.nan], [0, 1, 1, 1]])},
    {"coordinates": [[0, 1, 0], [1, 1, 2], [1, 0, 1]]},
    {"coordinates": [[0, 0, 0]]},
    {"coordinates": [[0, 1, 3]]},
    {"coordinates": [[0, 1, -1]]},
    {"coordinates": [[1, 0, 0], [1, 1, 0]]},
    {"coordinates": [[1, 0, 0], [0, 1, 0]]},
]


@pytest.mark.parametrize("other", OTHERS)
@pytest.mark.parametrize("packed", [False, True])
def test_refusals_agree(other: dict[str, Any], packed: bool) -> None:
    rows = [3] if packed else [2, 2]
    given_values = {
        **GOOD,
        "negatives": np.ones((*rows, 3), dtype=np.int64),
        "scores": np.broadcast_to([0.0, 1, 1, 0], (*rows, 4)),
        "coordinates": np.zeros((0, 3), dtype=np.int64),
        **other,
    }
    coordinates = np.array(given_values["coordinates"])
    count = len(coordinates)
    reversed_ = Reversed(coordinates, np.ones(count, np.uint32), np.zeros(count, np.int64))
    names = ("users", "flat_indices", "max_length") if packed else ("users", "positives")
    batch = [given_values[name] for name in names]
    suffix = "_packed" if packed else ""

    def inject(memory: Memory) -> Any:
        negatives = given_values["negatives"]
        if isinstance(negatives, np.ndarray) and negatives.flags.c_contiguous:
            negatives = negatives.copy()
        return getattr(memory, f"inject{suffix}")(*batch, negatives).coordinates

    def observe(memory: Memory) -> Any:
        last = given_values["negatives"], given_values["scores"], reversed_
        return getattr(memory, f"observe{suffix}")(*batch, *last)

    for call in (inject, observe):
        memories = reference.FalseNegativeMemory(), FalseNegativeMemory()
        agree(*(partial(call, memory) for memory in memories))
        assert same_state(*memories)


@pytest.mark.parametrize(
    "settings",
    [
        {"threshold": -1},
        {"threshold": LARGEST_COUNT - 1},
        {"threshold": 1.5},
        {"threshold": True},
        {"threshold": "5"},
        {"max_keys": 0},
        {"max_keys": 2**63},
        {"max_keys": 1e6},
    ],
)
def test_refused_settings_agree(settings: dict[str, Any]) -> None:
    error = agree(reference.FalseNegativeMemory, FalseNegativeMemory, **settings)
    assert isinstance(error, (TypeError, ValueError))


@pytest.mark.parametrize(
    "change",
    [
        {"counts": None},
        {"more": np.zeros(1)},
        {"counts": np.array([1, 2], dtype=np.int64)},
        {"counts": np.array([1], dtype=np.uint32)},
        {"counts": np.array([0, 2], dtype=np.uint32)},
        {"counts": np.array([1, 2**24], dtype=np.uint32)},
        {"count_keys": np.array([2**40 + 9, 2**40 + 8], dtype=np.uint64)},
        {"count_keys": np.array([2**40 + 8, 2**40 + 8], dtype=np.uint64)},
        {"count_keys": np.array([2**40 - 1, 2**40 + 8], dtype=np.uint64)},
        {"count_keys": np.array([2**40, 2**40 + 8], dtype=np.uint64)},
        {"hard_keys": np.array([255], dtype=np.uint32)},
        {"hard_keys": np.array([256, 257], dtype=np.uint32)},
        {"hard_offsets": np.array([0, 1], dtype=np.int64)},
        {"hard_offsets": np.array([1, 2], dtype=np.int64)},
        {"hard_offsets": np.array([], dtype=np.int64)},
        {"hard_items": np.array([0, 8], dtype=np.uint32)},
        {"evicted_count": np.array(-1)},
        {"evicted_count": np.array([1])},
    ],
)
def test_refused_states_agree(change: dict[str, Any]) -> None:
    memory = FalseNegativeMemory()
    visit(memory, [1], np.array([[7, 8]]), True)
    visit(memory, [1], np.array([[7, 8]]), True)
    state = memory.state_dict() | change
    state = {name: array for name, array in state.items() if array is not None}
    for one in (memory, reference.FalseNegativeMemory()):
        with pytest.raises(ValueError, match="state"):
            one.load_state_dict(state)
    assert memory.key_count == 2


@pytest.mark.parametrize(
    "state", [None, ["hard_keys"], np.lib.stride_tricks.as_strided(np.zeros(1), (2**45,), (0,))],
    ids=["nothing", "a list", "a view"],
)  # fmt: skip
def test_states_are_mappings(state: Any) -> None:
    """Else a view of 2^45 elements would be walked through in search of its keys."""
    for one in (FalseNegativeMemory(), reference.FalseNegativeMemory()):
        with pytest.raises(TypeError, match=f"state must be a mapping: got {type(state).__name__}"):
            one.load_state_dict(state)


def test_a_view_of_objects_is_refused_by_its_shape() -> None:
    """Looking at each of 2^40 items first would take longer than anybody waits."""
    view = np.broadcast_to(np.array([1], dtype=object), (2**40,))
    for one in (FalseNegativeMemory(), reference.FalseNegativeMemory()):
        with pytest.raises(ValueError, match=r"positives must have the shape \[B, L\]: got \["):
            one.inject([1], view, np.zeros((1, 1, 1), dtype=np.int64))
        with pytest.raises(TypeError, match="positives must be integers: got object"):
            one.inject([1], np.array([1.5], dtype=object), np.zeros((1, 1, 1), dtype=np.int64))
