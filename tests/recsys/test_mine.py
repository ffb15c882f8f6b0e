"""The miner in a loop: arrays and tensors, padded and packed, starts and limits."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lmcore.recsys.injection import Injection
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.start import EpochLossStart, StepStart
from lmcore.reference.false_negatives import FalseNegativeMemory as Definition

KINDS = ["numpy", "torch"]
LAYOUTS = ["padded", "packed"]


def as_kind(array: NDArray[Any], kind: str) -> Any:
    return array.copy() if kind == "numpy" else torch.from_numpy(array.copy())


def to_layout(array: NDArray[Any], positives: NDArray[Any], layout: str) -> NDArray[Any]:
    return array if layout == "padded" else array[positives != 0]


def make_batches(seed: int, count: int) -> list[tuple[NDArray[Any], ...]]:
    source = np.random.default_rng(seed)
    batches = []
    for _ in range(count):
        users = source.integers(1, 12, 8)
        positives = np.where(np.arange(5) >= users[:, None] % 5, 40 + users[:, None], 0)
        negatives = source.integers(1, 30, (8, 5, 4)) * (positives != 0)[..., None]
        logits = source.standard_normal((8, 5, 5)).astype(np.float32)
        batches.append((users, positives, negatives, logits))
    return batches


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_miner_follows_the_definition(kind: str, layout: str) -> None:
    miner, define = FalseNegativeMiner(threshold=1), Definition(threshold=1)
    total = 0
    for users, positives, negatives, logits in make_batches(1, 40):
        shown = negatives.copy()
        expected = define.inject(users, positives, shown)
        define.observe(users, positives, shown, logits, expected)
        given = as_kind(to_layout(negatives, positives, layout), kind)
        columns = as_kind(users, kind), as_kind(positives, kind)
        injection = miner.inject(*columns, given)
        assert injection.negatives is given
        assert np.array_equal(injection.negatives, to_layout(shown, positives, layout))
        assert type(injection.labels) is type(injection.reversed_indices) is type(given)
        labels = np.zeros(logits.shape, dtype=np.float32)
        labels[..., 0] = 1
        for row, position, slot in expected.coordinates.tolist():
            labels[row, position, 1 + slot] = 1
        assert np.array_equal(injection.labels, to_layout(labels, positives, layout))
        assert np.array_equal(injection.reversed.coordinates, expected.coordinates)
        flat = np.asarray(injection.negatives).ravel()[np.asarray(injection.reversed_indices)]
        assert flat.tolist() == [shown[tuple(place)] for place in expected.coordinates.tolist()]
        miner.observe(*columns, injection, as_kind(to_layout(logits, positives, layout), kind))
        total += injection.reversed_count
    state = miner.state_dict()
    assert all(np.array_equal(state[name], array) for name, array in define.state_dict().items())
    stats = miner.stats()
    assert (stats.reversed_count, stats.withheld_count) == (total, 0)
    assert (stats.hard_count, stats.key_count) == (define.hard_count, define.key_count)
    assert total > 50


def to_right(array: NDArray[Any], positives: NDArray[Any]) -> NDArray[Any]:
    """The same rows with their padding on the right."""
    moved = np.zeros_like(array)
    for row, valid in enumerate(positives != 0):
        moved[row, : valid.sum()] = array[row, valid]
    return moved


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("share", [None, 0.05])
def test_padding_on_the_right_changes_nothing(kind: str, layout: str, share: float | None) -> None:
    left = FalseNegativeMiner(threshold=1, max_reversed_share=share)
    right = FalseNegativeMiner(threshold=1, max_reversed_share=share)
    total = 0
    for users, positives, negatives, logits in make_batches(5, 40):
        places = to_right(positives, positives)
        expected = left.inject(users, positives, negatives)
        # What stands at padding is neither read nor written.
        given = to_right(negatives, positives)
        given[places == 0] = -7
        scores = to_right(logits, positives)
        scores[places == 0] = np.nan
        columns = as_kind(users, kind), as_kind(places, kind)
        shown = as_kind(to_layout(given, places, layout), kind)
        injection = right.inject(*columns, shown)
        assert injection.negatives is shown
        moved = to_right(expected.negatives, positives)
        moved[places == 0] = -7
        assert np.array_equal(shown, to_layout(moved, places, layout))
        labels = to_right(expected.labels, positives)
        labels[places == 0, 0] = 1
        assert np.array_equal(injection.labels, to_layout(labels, places, layout))
        assert np.array_equal(injection.reversed.counts, expected.reversed.counts)
        left.observe(users, positives, expected, logits)
        right.observe(*columns, injection, as_kind(to_layout(scores, places, layout), kind))
        total += injection.reversed_count
    assert total > 50
    ours, theirs = right.stats(), left.stats()
    assert (ours.reversed_count, ours.withheld_count) == (total, theirs.withheld_count)
    assert (ours.hard_count, ours.key_count) == (theirs.hard_count, theirs.key_count)
    assert np.array_equal(right.mined_pairs(), left.mined_pairs())


def test_batches_padded_on_the_right_are_checked() -> None:
    miner, positives = FalseNegativeMiner(), np.array([[5, 0]])
    with pytest.raises(ValueError, match=r"shape \[1, 2, N\]: got \[1, 3, 2\]"):
        miner.inject([1], positives, np.zeros((1, 3, 2), np.int64))
    with pytest.raises(ValueError, match="must be contiguous: they are written in place"):
        miner.inject([1], positives, np.zeros((1, 2, 4), np.int64)[..., ::2])
    injection = miner.inject([1], positives, np.array([[[7, 9], [0, 0]]]))
    with pytest.raises(ValueError, match=r"logits must have shape \[1, 2, 3\]: got \[1, 1, 3\]"):
        miner.observe([1], positives, injection, np.zeros((1, 1, 3)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_traces_of_the_authors(golden_dir: Path, layout: str) -> None:
    with np.load(golden_dir / "ufnrec/trace_repeated_users.npz") as file:
        arrays = dict(file)
    *_, threshold, steps = arrays["meta"].tolist()
    miner = FalseNegativeMiner(threshold=threshold)
    for step in range(steps):
        names = ("users", "pos", "neg_in", "neg_out", "reversed", "logits")
        users, pos, given, out, turned, logits = (arrays[f"s{step}_{name}"] for name in names)
        injection = miner.inject(users, pos, to_layout(given, pos, layout).copy())
        assert np.array_equal(injection.negatives, to_layout(out, pos, layout))
        assert np.array_equal(injection.reversed.coordinates, turned)
        miner.observe(users, pos, injection, to_layout(logits, pos, layout))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_hardness_of_any_float(dtype: torch.dtype) -> None:
    miner = FalseNegativeMiner()
    positives, negatives = torch.tensor([[0, 5]]), torch.tensor([[[0, 0, 0], [7, 8, 9]]])
    injection = miner.inject([1], positives, negatives)
    # What stands at padding does not matter, even NaN.
    logits = torch.tensor([[[torch.nan] * 4, [1.0, 2.0, 1.0, 1.5]]], dtype=dtype)
    miner.observe([1], positives, injection, logits.requires_grad_())
    assert miner.state_dict()["hard_items"].tolist() == [7, 9]
    with pytest.raises(ValueError, match="got NaN at row 0, position 1, column 2"):
        miner.observe(
            [1], positives, injection, logits.detach() * torch.tensor([1, 1, torch.nan, 1])
        )


def test_other_devices_take_masks() -> None:
    """A batch on a GPU goes the same way as one on the host."""
    if not torch.cuda.is_available():
        pytest.skip("no GPU")
    batches = make_batches(2, 20)
    here, there = FalseNegativeMiner(threshold=1), FalseNegativeMiner(threshold=1)
    for arrays in batches:
        users, positives, negatives, logits = (torch.from_numpy(array.copy()) for array in arrays)
        packed = negatives[positives != 0]
        columns = users.cuda(), positives.cuda()
        moved = there.inject(*columns, packed.cuda())
        injection = here.inject(users, positives, packed)
        assert moved.negatives.device.type == moved.labels.device.type == "cuda"
        assert torch.equal(moved.negatives.cpu(), injection.negatives)
        assert torch.equal(moved.labels.cpu(), injection.labels)
        assert torch.equal(moved.reversed_indices.cpu(), injection.reversed_indices)
        here.observe(users, positives, injection, logits[positives != 0])
        there.observe(*columns, moved, logits[positives != 0].cuda())
    first, second = here.state_dict(), there.state_dict()
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_mined_pairs_are_those_that_were_reversed() -> None:
    miner = FalseNegativeMiner(threshold=1)
    reversed_pairs, most = set(), dict[tuple[int, int], int]()
    for users, positives, negatives, logits in make_batches(3, 60):
        injection = miner.inject(users, positives, negatives)
        turned = injection.reversed
        for (row, position, slot), count in zip(turned.coordinates, turned.counts, strict=True):
            pair = (int(users[row]), int(injection.negatives[row, position, slot]))
            reversed_pairs.add(pair)
            most[pair] = max(most.get(pair, 0), int(count))
        miner.observe(users, positives, injection, logits)
    found = miner.mined_pairs()
    assert found.dtype == np.int64
    assert [tuple(pair) for pair in found.tolist()] == sorted(reversed_pairs)
    assert len(found) > 20
    higher = [pair for pair, count in most.items() if count > 3]
    assert [tuple(pair) for pair in miner.mined_pairs(3).tolist()] == sorted(higher)
    assert 0 < len(higher) < len(found) < len(miner.mined_pairs(0))
    assert miner.mined_pairs(1000).shape == (0, 2)
    assert FalseNegativeMiner(threshold=None).mined_pairs().shape == (0, 2)
    with pytest.raises(ValueError, match="threshold must be at least 0: got -1"):
        miner.mined_pairs(-1)


def test_mined_pairs_of_the_highest_ids() -> None:
    miner, user, item = FalseNegativeMiner(threshold=0), 2**24 - 1, 2**31 - 1
    for _ in range(2):
        injection = miner.inject([user], [[5]], np.array([[item]]))
        miner.observe([user], [[5]], injection, np.array([[0.0, 1.0]]))
    assert miner.mined_pairs().tolist() == [[user, item]]


# The share of reversed negatives.


def run_visit(miner: FalseNegativeMiner, drawn: list[int], hard: list[int]) -> Injection:
    injection = miner.inject([1], [[5]], np.array([drawn]))
    above = [float(item in hard) for item in injection.negatives[0].tolist()]
    miner.observe([1], [[5]], injection, np.array([[0.5, *above]]))
    return injection


def test_share_keeps_the_highest_counts() -> None:
    miner = FalseNegativeMiner(threshold=0, max_reversed_share=0.5)
    run_visit(miner, [1, 2, 3, 4], hard=[4])
    assert run_visit(miner, [5, 6, 7, 8], hard=[]).labels.tolist() == [[1, 1, 0, 0, 0]]
    run_visit(miner, [1, 2, 3, 4], hard=[1, 2, 3, 4])
    injection = run_visit(miner, [5, 6, 7, 8], hard=[1, 2, 3, 4])
    # 4 has the highest count, and 1 is the first of the others.
    assert injection.labels.tolist() == [[1, 1, 0, 0, 1]]
    assert injection.reversed_indices.tolist() == [0, 3]
    assert miner.state_dict()["hard_items"].tolist() == [2, 3]  # those left at 0 are stored again
    stats = miner.stats()
    assert (stats.reversed_count, stats.withheld_count) == (3, 2)


def test_no_share_reverses_nothing() -> None:
    miner = FalseNegativeMiner(threshold=0, max_reversed_share=0)
    for _ in range(4):
        assert run_visit(miner, [7, 8], hard=[7, 8]).reversed_count == 0
    assert miner.stats().withheld_count == 6
    assert miner.stats().hard_count == 2


# The start.


def test_rule_of_the_authors() -> None:
    rule = EpochLossStart()
    sums = [10.0, 8, 7, 6, 5.5, 5.0, 4.9, 4.875, 4.9, 2.0]
    reached = [epoch for epoch in range(1, 12) if rule.is_reached(epoch, 0, sums)]
    # The gain of epoch 8 is 0.025, exactly (10 - 5) / 200: not below. That of epoch 9 is
    # negative, that of epoch 10 large.
    assert reached == [10]
    sums[7] = 4.876
    assert rule.is_reached(9, 0, sums)
    assert not rule.is_reached(8, 0, [1.0] * 7)
    assert rule.is_reached(9, 0, [1.0, *[0.5] * 7])
    for epoch in (0, -1, 3):
        with pytest.raises(ValueError, match="epoch_loss_sums must hold"):
            rule.is_reached(epoch, 0, [1.0])


def test_nothing_is_remembered_before_the_start() -> None:
    miner = FalseNegativeMiner(threshold=0, start=StepStart(3))
    labels = []
    for step in range(1, 6):
        injection = miner.inject([1], [[5]], np.array([[7, 8]]))
        labels.append(injection.labels[0, 1:].sum())
        assert miner.update_start(1, step, []) == miner.active == (step >= 3)
        miner.observe([1], [[5]], injection, np.array([[0.0, 1.0, 1.0]]))
        assert miner.stats().hard_count == (2 if step in (3, 5) else 0)
    # Stored in step 3, reversed in step 4 and therefore not stored, stored again in step 5.
    assert labels == [0, 0, 0, 2, 0]
    miner.update_start(1, 0, [])
    assert miner.active


def test_a_restored_miner_goes_the_same_way() -> None:
    miner = FalseNegativeMiner(threshold=1, start=StepStart(5), max_reversed_share=0.1)
    for step, (users, positives, negatives, logits) in enumerate(make_batches(3, 30)):
        other = FalseNegativeMiner(threshold=1, start=StepStart(5), max_reversed_share=0.1)
        other.load_state_dict(miner.state_dict())
        for one in (miner, other):
            injection = one.inject(users, positives, negatives.copy())
            one.update_start(1, step, [])
            one.observe(users, positives, injection, logits)
        assert miner.stats().active == (step >= 5)
        first, second = miner.state_dict(), other.state_dict()
        assert first.keys() == second.keys()
        assert all(np.array_equal(first[name], second[name]) for name in first)
    assert miner.stats().withheld_count > 0


# What is refused.


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"max_reversed_share": 1.5}, ValueError),
        ({"max_reversed_share": -0.1}, ValueError),
        ({"max_reversed_share": float("nan")}, ValueError),
        ({"threshold": -1}, ValueError),
        ({"start": 5}, TypeError),
        ({"max_reversed_share": "a"}, TypeError),
    ],
)
def test_refused_settings(settings: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match="must"):
        FalseNegativeMiner(**settings)


def test_refused_batches() -> None:
    miner = FalseNegativeMiner()
    with pytest.raises(ValueError, match="a row for each of the 1 positives that are not 0: got 2"):
        miner.inject([1], [[0, 5]], np.array([[7], [8]]))
    with pytest.raises(TypeError, match="numpy array or a torch tensor: got list"):
        miner.inject([1], [[5]], [[7]])
    with pytest.raises(ValueError, match="contiguous"):
        miner.inject([1], [[5]], torch.ones((1, 4), dtype=torch.int64)[:, ::2])
    with pytest.raises(ValueError, match=r"positives must have shape \[B, L\]"):
        miner.inject([1], [5], np.array([[7]]))
    with pytest.raises(ValueError, match=r"positives must have the shape \[B, L\]"):
        miner.inject([1], 5, np.array([[[7]]]))
    for step in ("a", 1.5, None):
        with pytest.raises(TypeError, match=f"step must be an int: got {type(step).__name__}"):
            StepStart(step)  # type: ignore[arg-type]
    injection = miner.inject([1], [[5]], np.array([[7, 9]]))
    for dtype in (torch.float16, torch.float32):
        with pytest.raises(ValueError, match=r"logits must have shape \[1, 3\]: got \[1, 2\]"):
            miner.observe([1], [[5]], injection, torch.zeros((1, 2), dtype=dtype))
    with pytest.raises(ValueError, match="step must be at least 0"):
        StepStart(-1)
    with pytest.raises(ValueError, match="state must hold active"):
        miner.load_state_dict({})
    state: dict[str, Any] = dict(miner.state_dict())
    for wrong in (np.array([1, 1]), 1.5, float("nan"), "x", None):
        with pytest.raises(ValueError, match="reversed_count must be a whole number: got "):
            miner.load_state_dict(state | {"reversed_count": wrong})


@pytest.mark.parametrize("users", [[1], [1, 2, 3], 1, [[1, 2]]])
@pytest.mark.parametrize("layout", ["packed", "right"])
def test_a_user_for_each_row(users: Any, layout: str) -> None:
    """Rows of too many users were counted for others, and too few were an index out of range."""
    miner, positives = FalseNegativeMiner(), np.array([[5, 0], [6, 0]])
    negatives = np.array([[7], [8]] if layout == "packed" else [[[7], [0]], [[8], [0]]])
    injection = miner.inject([1, 2], positives, negatives)
    text = r"users must have shape \[2\], one for each row of positives: got \["
    with pytest.raises(ValueError, match=text):
        miner.inject(users, positives, negatives)
    with pytest.raises(ValueError, match=text):
        miner.observe(users, positives, injection, np.zeros((*negatives.shape[:-1], 2)))
