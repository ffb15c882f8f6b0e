"""Which parts are kept: by scores, by draws, by place."""

import math
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.compression.choosing import (
    Scores,
    Sizes,
    choose,
    choose_layers,
    choose_stage,
    draw_scores,
)
from lmcore.compression.composition import add_stage
from lmcore.compression.plan import (
    Plan,
    Stage,
    find_kept,
    prune_shape,
)
from lmcore.cost import Shape

SHAPE = Shape(
    encoder_layers=6, decoder_layers=9, hidden_size=24, heads=8, groups=4, head_size=3,
    inner_size=40, vocabulary_size=20,
)  # fmt: skip
PLAN = Plan(model_type="umt5", shape=SHAPE)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_the_highest_are_kept(scores: list[int], data: st.DataObject) -> None:
    keep = data.draw(st.integers(1, len(scores)))
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    assert choose(np.array(scores), keep).tolist() == sorted(order[:keep])


@pytest.mark.parametrize(
    ("scores", "keep", "message"),
    [
        ([1.0, math.nan], 1, "that of 1 is none"),
        ([1.0], 0, "expected to keep from 1 to 1: got 0"),
        ([1.0], 2, "expected to keep from 1 to 1: got 2"),
        ([[1.0]], 1, "scores must have one axis: got 2"),
    ],
)
def test_scores_that_are_refused(scores: Any, keep: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose(np.array(scores), keep)


@given(st.integers(2, 60), st.data())
@settings(deadline=None)
def test_layers_are_spread_out(count: int, data: st.DataObject) -> None:
    keep = data.draw(st.integers(2, count))
    kept = choose_layers(range(count), keep)
    assert len(kept) == keep
    assert (kept[0], kept[-1]) == (0, count - 1)
    cut = [layer for layer in range(count) if layer not in kept]
    gaps = [second - first for first, second in pairwise(cut)]
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
    if len(cut) <= (count - 2) // 2:  # none need be neighbours
        assert min(gaps, default=2) >= 2
    block = choose_layers(range(count), keep, "adjacent")
    gone = [layer for layer in range(count) if layer not in block]
    assert (block[0], block[-1], len(block)) == (0, count - 1, keep)
    assert not gone or gone == [*range(gone[0], gone[0] + len(gone))]


def test_layers_that_are_left_keep_their_numbers() -> None:
    assert choose_layers([0, 2, 3, 7, 9], 4) == (0, 2, 7, 9)
    scores = np.array([0, 0, 5, 1, 0, 0, 0, 7, 0, 0.0])
    assert choose_layers([0, 2, 3, 7, 9], 3, scores=scores) == (0, 7, 9)
    assert choose_layers([0, 2, 3, 7, 9], 2, scores=scores) == (0, 9)


@pytest.mark.parametrize(
    ("keep", "layout", "message"),
    [
        (1, "spread", "the first and the last layer stay: expected to keep at least 2, got 1"),
        (0, "spread", "expected to keep from 1 to 4 layers: got 0"),
        (5, "spread", "expected to keep from 1 to 4 layers: got 5"),
        (3, "other", "layers must be cut spread or adjacent: got 'other'"),
    ],
)
def test_layers_that_are_refused(keep: int, layout: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_layers(range(4), keep, layout)


def test_a_stack_that_is_not_there_has_no_layers_to_keep() -> None:
    with pytest.raises(ValueError, match="the model has none: expected to keep no number of them"):
        choose_layers([], 2)


# Draws.


def test_draws_depend_on_the_seed_and_the_layer_alone() -> None:
    first, again, other = (draw_scores(SHAPE, seed) for seed in (3, 3, 4))
    deeper = draw_scores(replace(SHAPE, encoder_layers=9), 3)
    assert first.encoder_ffn
    assert again.encoder_ffn
    assert other.encoder_ffn
    assert deeper.encoder_ffn
    assert first.decoder_ffn
    for layer in range(6):
        assert first.encoder_ffn[layer].tolist() == again.encoder_ffn[layer].tolist()
        assert first.encoder_ffn[layer].tolist() == deeper.encoder_ffn[layer].tolist()
        assert first.encoder_ffn[layer].tolist() != other.encoder_ffn[layer].tolist()
        assert first.encoder_ffn[layer].tolist() != first.decoder_ffn[layer].tolist()
    assert first.encoder_ffn[0].tolist() != first.encoder_ffn[1].tolist()


def test_every_choice_is_as_likely() -> None:
    counts = np.zeros(8)
    shape = replace(SHAPE, hidden_size=8)
    for seed in range(2000):
        found = draw_scores(shape, seed).hidden
        assert found is not None
        counts[choose(found, 3)] += 1
    # Each is kept 750 times of 2,000; 22 is a standard deviation.
    assert abs(counts - 750).max() < 5 * math.sqrt(2000 * 3 / 8 * 5 / 8)


def test_a_smaller_choice_is_a_part_of_a_larger_one() -> None:
    scores = draw_scores(SHAPE, 0)
    small, large = (
        choose_stage(PLAN, Sizes(hidden=size, ffn=size + 9), scores) for size in (6, 12)
    )
    assert {*(small.hidden or ())} < {*(large.hidden or ())}
    staged = add_stage(PLAN, large)
    assert choose_stage(staged, Sizes(hidden=6, ffn=15), scores) == small


def test_all_dimensions_at_once() -> None:
    plan = Plan(model_type="umt5", shape=SHAPE, stages=[Stage(decoder_layers=[0, 1, 2, 5, 8])])
    sizes = Sizes(encoder_layers=4, decoder_layers=3, hidden=10, heads=4, ffn=11, vocabulary=[1, 5])
    stage = choose_stage(plan, sizes, draw_scores(SHAPE, 1), name="x", seed=1)
    shape = prune_shape(add_stage(plan, stage))
    assert (shape.encoder_layers, shape.decoder_layers, shape.hidden_size) == (4, 3, 10)
    assert (shape.heads, shape.groups, shape.inner_size, shape.vocabulary_size) == (4, 2, 11, 2)
    assert stage.decoder_heads
    assert [*stage.decoder_heads] == [*(stage.decoder_layers or ())]
    assert len({*stage.decoder_heads.values()} | {*(stage.encoder_heads or {}).values()}) > 1
    assert (stage.name, stage.seed) == ("x", 1)


def test_families_with_shared_biases_choose_once_for_a_stack() -> None:
    plan = Plan(model_type="t5", shape=replace(SHAPE, groups=8))
    stage = choose_stage(plan, Sizes(heads=3), draw_scores(plan.shape, 1))
    assert stage.encoder_heads
    assert stage.decoder_heads
    assert len({*stage.encoder_heads.values()}) == len({*stage.decoder_heads.values()}) == 1
    table = {layer: np.eye(8)[layer] * (layer + 1) for layer in range(6)}
    scores = Scores(encoder_heads=table, decoder_heads=dict.fromkeys(range(9), np.arange(8.0)))
    stage = choose_stage(plan, Sizes(heads=3), scores)
    assert (stage.encoder_heads or {})[0] == (3, 4, 5)
    assert (stage.decoder_heads or {})[8] == (5, 6, 7)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        (
            Sizes(heads=3),
            "heads must be a multiple of 2, which share keys: got 3; the nearest is 4",
        ),
        (Sizes(heads=10), "heads: expected to keep from 1 to 4: got 5"),
        (Sizes(ffn=41), "ffn: expected to keep from 1 to 40: got 41"),
        (Sizes(hidden=25), "hidden: expected to keep from 1 to 24: got 25"),
        (Sizes(encoder_layers=7), "encoder_layers: expected to keep from 1 to 6 layers: got 7"),
    ],
)
def test_sizes_that_are_refused(sizes: Sizes, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        choose_stage(PLAN, sizes, draw_scores(SHAPE, 0))


def test_scores_that_are_missing() -> None:
    with pytest.raises(ValueError, match=r"^there are no scores for hidden$"):
        choose_stage(PLAN, Sizes(hidden=3), Scores())
    assert find_kept(PLAN).hidden == tuple(range(24))
