"""`ops.schedule`, its draws: neighbours, shifted and uniform timesteps, and those by losses."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.schedule import (
    LossAwareSampler,
    NoiseNeighbours,
    draw_neighbours,
    draw_timesteps,
    find_neighbours,
    make_betas,
    shift_timesteps,
)
from lmcore.reference import schedule as reference
from parity import agree

SEEDS = st.sampled_from([0, 1, 2**32, 2**64 - 1])
FIRST = st.sampled_from([0, 1, 17, 2**32 - 40, 2**32 - 1])
NEAR = find_neighbours(make_betas("sqrt", 2000))
ROWS = 20_000


# Neighbours.


@given(st.lists(st.integers(-1, 8), max_size=40), st.data(), st.booleans(), SEEDS, SEEDS, FIRST)
def test_neighbours_agree(
    timesteps: list[int], data: st.DataObject, far: bool, seed: int, step: int, first_row: int
) -> None:
    """Maps of any content, most of which could be some."""
    total = data.draw(st.integers(0, 8))
    wild = data.draw(st.booleans())
    up = [data.draw(st.sampled_from([-1, t, total - 1] + [-2, 0, total] * wild))
          for t in range(total)]  # fmt: skip
    down = [data.draw(st.sampled_from([-1, t, 0] + [-2, total, total - 1] * wild))
            for t in range(total)]  # fmt: skip
    down = down[: data.draw(st.sampled_from([total, total, total, total - 1]))]
    batch = {"seed": seed, "step": step, "far": far, "first_row": first_row}
    agree(
        lambda ts: reference.draw_neighbours(ts, up, down, **batch),
        lambda ts: draw_neighbours(ts, NoiseNeighbours(np.array(up), np.array(down)), **batch),
        timesteps if total else [],
    )


def test_neighbours_lie_in_their_windows_and_go_both_ways() -> None:
    timesteps = np.random.default_rng(0).integers(0, 2000, ROWS)
    drawn = draw_neighbours(timesteps, NEAR, seed=3, step=5)
    far = draw_neighbours(timesteps, NEAR, seed=3, step=5, far=True)
    later, earlier = drawn > timesteps, drawn < timesteps
    up, down = NEAR.up[timesteps], NEAR.down[timesteps]
    assert (drawn[later] <= up[later]).all()
    assert (drawn[earlier] >= down[earlier]).all()
    # Only what has no window in its direction stays, and its far end is the same direction's.
    stays = drawn == timesteps
    assert ((up == -1) | (down == -1) | (up == timesteps))[stays].all()
    assert (far[later] == up[later]).all()
    assert (far[earlier] == down[earlier]).all()
    assert (far[stays] == timesteps[stays]).all()
    both = (up > timesteps) & (down != -1)
    assert both.sum() > 10_000
    assert abs(later[both].mean() - 0.5) < 4 * 0.5 / math.sqrt(both.sum())


@pytest.mark.parametrize("timestep", [100, 400])
def test_neighbours_are_uniform_in_their_window(timestep: int) -> None:
    drawn = draw_neighbours(np.full(ROWS, timestep), NEAR, seed=0, step=0)
    for first, last in (
        (timestep + 1, int(NEAR.up[timestep])),
        (int(NEAR.down[timestep]), timestep - 1),
    ):
        inside = drawn[(drawn >= first) & (drawn <= last)]
        counts = np.bincount(inside - first, minlength=last - first + 1)
        expected = len(inside) / len(counts)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert statistic < len(counts) + 5 * math.sqrt(2 * len(counts))
        assert counts[0] > 0
        assert counts[-1] > 0


def test_a_draw_depends_on_seed_step_and_row_alone() -> None:
    timesteps = np.arange(2000)
    whole = draw_neighbours(timesteps, NEAR, seed=1, step=2)
    shifted = shift_timesteps(timesteps, 2000, seed=1, step=2)
    drawn = draw_timesteps(2000, 2000, seed=1, step=2)
    for start, end in ((0, 3), (3, 1100), (1100, 2000)):
        part = timesteps[start:end]
        share: dict[str, int] = {"seed": 1, "step": 2, "first_row": start}
        assert (draw_neighbours(part, NEAR, **share) == whole[start:end]).all()
        assert (shift_timesteps(part, 2000, **share) == shifted[start:end]).all()
        assert (draw_timesteps(2000, len(part), **share) == drawn[start:end]).all()
    for other in ({"seed": 2, "step": 2}, {"seed": 1, "step": 3}):
        assert (draw_neighbours(timesteps, NEAR, **other) != whole).mean() > 0.8
        assert (draw_timesteps(2000, 2000, **other) != drawn).mean() > 0.9


@given(
    st.lists(st.integers(-1, 9), max_size=40), st.integers(1, 9),
    st.sampled_from([0, 1, 3, 2**24]), SEEDS, SEEDS, FIRST,
)  # fmt: skip
def test_shifted_timesteps_agree(
    timesteps: list[int], total: int, distance: int, seed: int, step: int, first_row: int
) -> None:
    batch = {"seed": seed, "step": step, "first_row": first_row}
    args = timesteps, total, distance
    agree(
        lambda *args: reference.shift_timesteps(*args, **batch),
        lambda *args: shift_timesteps(*args, **batch),
        *args,
    )


def test_shifted_timesteps_go_both_ways() -> None:
    timesteps = np.random.default_rng(0).integers(0, 2000, ROWS)
    change = shift_timesteps(timesteps, 2000, 10, seed=0, step=0) - timesteps
    inner = (timesteps >= 10) & (timesteps < 1990)
    assert set(change[inner].tolist()) == {-10, 10}
    assert abs((change[inner] > 0).mean() - 0.5) < 4 * 0.5 / math.sqrt(ROWS)
    assert np.abs(change).max() == 10


# Uniform timesteps.


@given(st.integers(1, 2**24), st.integers(0, 40), SEEDS, SEEDS, FIRST)
def test_timesteps_agree(total: int, rows: int, seed: int, step: int, first_row: int) -> None:
    batch = {"seed": seed, "step": step, "first_row": first_row}
    agree(reference.draw_timesteps, draw_timesteps, total, rows, **batch)


def test_timesteps_are_uniform() -> None:
    counts = np.bincount(draw_timesteps(50, ROWS, seed=0, step=0), minlength=50)
    expected = ROWS / 50
    assert ((counts - expected) ** 2 / expected).sum() < 50 + 5 * math.sqrt(100)


# Timesteps by losses.

LOSSES = st.floats(-3, 3) | st.sampled_from([0.0, 1e150, -1e150, 1e-200, 1.1e150, math.nan])


@given(
    st.integers(1, 4), st.integers(1, 3), st.sampled_from([0.0, 0.001, 0.5, 1.0]),
    st.lists(st.lists(st.tuples(st.integers(0, 4), LOSSES), max_size=9), max_size=5), SEEDS,
)  # fmt: skip
def test_samplers_agree(
    total: int, history: int, share: float, batches: list[list[tuple[int, float]]], seed: int
) -> None:
    settings: dict[str, Any] = {"history": history, "uniform_share": share}
    mine = LossAwareSampler(total, **settings)
    theirs = reference.LossAwareSampler(total, **settings)
    # Histories that are full in most cases.
    batches = [[(t, 1.0 + t) for t in range(total)] * history, *batches]

    def draw(sampler: Any) -> tuple[list[int], list[float]]:
        timesteps, weights = sampler.draw(9, seed=seed, step=4, first_row=3)
        return np.asarray(timesteps).tolist(), np.asarray(weights).tolist()

    def weigh(sampler: Any) -> list[float] | None:
        weights = sampler.weigh()
        return None if weights is None else np.asarray(weights).tolist()

    for batch in batches:
        agree(theirs.update, mine.update, [t for t, _ in batch], [loss for _, loss in batch])
        agree(lambda: weigh(theirs), lambda: weigh(mine))
        agree(lambda: draw(theirs), lambda: draw(mine))
        state = mine.state_dict()
        kept = [
            row[:count] for row, count in zip(*map(np.ndarray.tolist, state.values()), strict=True)
        ]
        assert kept == theirs.losses


def full_sampler(total: int = 5) -> LossAwareSampler:
    sampler = LossAwareSampler(total)
    for _ in range(10):
        sampler.update(np.arange(total), 0.5 + np.arange(total))
    return sampler


def test_timesteps_are_drawn_alike_until_all_histories_are_full() -> None:
    sampler = LossAwareSampler(3, history=2)
    sampler.update([0, 0, 1, 1, 2], [9.0, 9.0, 1.0, 1.0, 1.0])
    assert sampler.weigh() is None
    drawn = sampler.draw(50, seed=1, step=1)
    assert drawn.weights.tolist() == [1.0] * 50
    assert drawn.timesteps.tolist() == draw_timesteps(3, 50, seed=1, step=1).tolist()
    sampler.update([2], [1.0])
    assert sampler.weigh() == pytest.approx(
        [0.999 * 9 / 11 + 0.001 / 3, *2 * [0.999 / 11 + 0.001 / 3]]
    )


def test_histories_keep_the_last_losses_in_order() -> None:
    sampler = LossAwareSampler(2, history=3)
    sampler.update([0, 1, 0, 0, 0], [1.0, 7.0, 2.0, 3.0, 4.0])
    state = sampler.state_dict()
    assert state["history"].tolist() == [[2, 3, 4], [7, 0, 0]]
    assert state["counts"].tolist() == [3, 1]


def test_weighted_losses_have_the_mean_of_uniform_draws() -> None:
    sampler = full_sampler()
    p = sampler.weigh()
    assert p is not None
    assert p.sum() == pytest.approx(1)
    timesteps, weights = sampler.draw(ROWS, seed=0, step=0)
    counts = np.bincount(timesteps, minlength=5)
    assert np.abs(counts / ROWS - p).max() < 4 * 0.5 / math.sqrt(ROWS)
    assert weights == pytest.approx(1 / (5 * p[timesteps]))
    assert (weights * (0.5 + timesteps)).mean() == pytest.approx(2.5, rel=0.02)


def test_a_loss_of_zero_everywhere_draws_alike() -> None:
    sampler = LossAwareSampler(4, history=1)
    sampler.update(range(4), [0.0] * 4)
    assert np.asarray(sampler.weigh()).tolist() == [0.25] * 4


def test_processes_that_gather_hold_the_state_of_one() -> None:
    one, shares = full_sampler(), [full_sampler() for _ in range(3)]
    for step in range(20):
        whole = one.draw(7, seed=9, step=step)
        parts = [
            sampler.draw(end - start, seed=9, step=step, first_row=start)
            for sampler, start, end in zip(shares, (0, 2, 4), (2, 4, 7), strict=True)
        ]
        timesteps = np.concatenate([part.timesteps for part in parts])
        assert (timesteps == whole.timesteps).all()
        losses = np.sin(timesteps + step)
        for sampler in (one, *shares):
            sampler.update(timesteps, losses)
    for sampler in shares:
        for name, array in one.state_dict().items():
            assert (sampler.state_dict()[name] == array).all()


def test_a_state_goes_on_where_it_was() -> None:
    one, other = full_sampler(), LossAwareSampler(5)
    state = one.state_dict()
    other.load_state_dict(state)
    state["history"][:] = 0  # a copy
    for sampler in (one, other):
        sampler.update([1, 1, 4], [3.0, 2.0, 9.0])
    assert (
        one.draw(50, seed=0, step=1).timesteps == other.draw(50, seed=0, step=1).timesteps
    ).all()
    for name, array in one.state_dict().items():
        assert (other.state_dict()[name] == array).all()


# Bad input.


def test_an_empty_batch_is_fine() -> None:
    assert draw_neighbours([], NEAR, seed=0, step=0).shape == (0,)
    assert draw_timesteps(9, 0, seed=0, step=0).shape == (0,)
    assert shift_timesteps([], 9, seed=0, step=0).shape == (0,)
    sampler = full_sampler()
    sampler.update([], [])
    assert [len(part) for part in sampler.draw(0, seed=0, step=0)] == [0, 0]


def test_an_error_leaves_the_histories_as_they_were() -> None:
    sampler = full_sampler()
    before = sampler.state_dict()
    for timesteps, losses, error in (
        ([0, 5], [1.0, 1.0], IndexError),
        ([0, -1], [1.0, 1.0], IndexError),
        ([0, 1], [1.0, math.nan], ValueError),
        ([0, 1], [1.0, math.inf], ValueError),
        ([0, 1], [1.0], ValueError),
        ([0.0, 1.0], [1.0, 1.0], TypeError),
        ([0, 1], ["a", "b"], TypeError),
        ([True], [1.0], TypeError),
    ):
        with pytest.raises(error):
            sampler.update(timesteps, losses)
        for name, array in before.items():
            assert (sampler.state_dict()[name] == array).all()


BATCH: dict[str, int] = {"seed": 0, "step": 0}
PROBLEMS: list[tuple[Any, type[Exception], str]] = [
    (lambda: draw_neighbours([2000], NEAR, **BATCH), IndexError, r"timesteps\[0\] must be at leas"),
    (lambda: draw_neighbours([-1], NEAR, **BATCH), IndexError, r"timesteps\[0\] must be at least "),
    (lambda: draw_neighbours([1.0], NEAR, **BATCH), TypeError, "timesteps must be integers: got f"),
    (lambda: draw_neighbours([[1]], NEAR, **BATCH), ValueError, r"timesteps must have the shape "),
    (lambda: draw_neighbours([1], NEAR, seed=-1, step=0), ValueError, "seed must be at least 0 an"),
    (lambda: draw_neighbours([1], NEAR, seed=2**64, step=0), ValueError, "seed must be at least 0"),
    (lambda: draw_neighbours([1], NEAR, seed=0, step=2**64), ValueError, "step must be at least 0"),
    (lambda: draw_timesteps(0, 1, **BATCH), ValueError, "total must be at least 1 and at most 167"),
    (lambda: draw_timesteps(9, -1, **BATCH), ValueError, "rows must be at least 0 and at most 429"),
    (lambda: draw_timesteps(9, 2**63, **BATCH), ValueError, "rows must be at least 0 and at most "),
    (lambda: draw_timesteps(9, 1.0, **BATCH), TypeError, "rows must be an int: got float"),
    (lambda: shift_timesteps([9], 9, **BATCH), IndexError, r"timesteps\[0\] must be at least 0 an"),
    (lambda: LossAwareSampler(0), ValueError, "total must be at least 1 and at most 16777216: got"),
    (lambda: LossAwareSampler(9, history=0), ValueError, "history must be at least 1 and at most "),
    (lambda: LossAwareSampler(9, uniform_share=math.nan), ValueError, "uniform_share must be at l"),
    (lambda: LossAwareSampler(9, uniform_share=1.5), ValueError, "uniform_share must be at least "),
    (lambda: LossAwareSampler(9).load_state_dict([]), TypeError, "state must be a mapping: got li"),
    (lambda: LossAwareSampler(9).load_state_dict({}), ValueError, "state must hold history, count"),
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(PROBLEMS)))
def test_bad_arguments(number: int) -> None:
    call, error, text = PROBLEMS[number]
    with pytest.raises(error, match=text):
        call()


def test_a_row_beyond_all_rows_is_refused() -> None:
    for first_row, rows in ((2**32, 1), (2**32 - 1, 2), (2**32 - 9, 10)):
        text = rf"^first_row must be at least 0 and at most {2**32 - rows}: got {first_row}$"
        with pytest.raises(ValueError, match=text):
            draw_neighbours([1] * rows, NEAR, **BATCH, first_row=first_row)
        with pytest.raises(ValueError, match=text):
            full_sampler().draw(rows, **BATCH, first_row=first_row)
    text = r"^first_row must be at least 0 and at most 4294967296: got -1$"
    with pytest.raises(ValueError, match=text):
        draw_neighbours([1], NEAR, **BATCH, first_row=-1)


def test_states_that_are_none_are_refused() -> None:
    good = full_sampler(2).state_dict()
    sampler = LossAwareSampler(2)
    for name, value, text in (
        ("counts", [11, 10], "counts must be at least 0 and at most 10"),
        ("counts", [-1, 10], "counts must be at least 0 and at most 10"),
        ("counts", [9, 10], "history must be 0 where it holds no loss"),
        (
            "history",
            np.full((2, 10), math.nan),
            "history must be at least -1e150 and at most 1e150",
        ),
    ):
        with pytest.raises(ValueError, match=text):
            sampler.load_state_dict({**good, name: value})
    with pytest.raises(TypeError, match=r"^state\['counts'\] must be integers: got float64$"):
        sampler.load_state_dict({**good, "counts": [1.0, 2.0]})
    text = r"^state\['history'\] must have the shape \[2, 10\]: got \[5, 10\]$"
    with pytest.raises(ValueError, match=text):
        sampler.load_state_dict(full_sampler().state_dict())
    assert sampler.state_dict()["counts"].tolist() == [0, 0]
