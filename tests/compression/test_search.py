"""Sizes under a target: laws of the search, and all combinations tried one by one."""

import math
import time
from dataclasses import replace
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.compression.choosing import Sizes
from lmcore.compression.families import FAMILIES, find_family
from lmcore.compression.grids import DIMENSIONS, find_divisors, make_grid, size_of
from lmcore.compression.plan import Plan, find_kept, prune_shape
from lmcore.compression.planning import add_chosen_stage
from lmcore.compression.recipes import OPENBA_V1, openba_v2
from lmcore.compression.search import Candidate, search
from lmcore.compression.searched_stages import add_candidate_stages, add_searched_stages
from lmcore.compression.targets import Conditions, Target, measure
from lmcore.cost import Shape, count_parameters

T5 = Shape(
    encoder_layers=4, decoder_layers=6, hidden_size=32, heads=6, groups=6, head_size=8,
    inner_size=64, vocabulary_size=50, tied=True, bias_buckets=8,
)  # fmt: skip
MISTRAL = Shape(
    encoder_layers=0, decoder_layers=6, hidden_size=48, heads=8, groups=4, head_size=6,
    inner_size=80, vocabulary_size=70,
)  # fmt: skip
GPT2 = Shape(
    encoder_layers=0, decoder_layers=5, hidden_size=48, heads=8, groups=8, head_size=6,
    inner_size=96, vocabulary_size=70, gated=False, qkv_bias=True, output_bias=True,
    inner_bias=True, norm_bias=True, tied=True, position_rows=32,
)  # fmt: skip
MODELS = {"t5": T5, "umt5": T5, "mistral": MISTRAL, "llama": MISTRAL, "gpt2": GPT2,
          "bert": replace(GPT2, encoder_layers=5, decoder_layers=0)}  # fmt: skip


def plan_of(name: str) -> Plan:
    return Plan(model_type=name, shape=MODELS[name])


def params(value: float) -> Target:
    return Target(kind="params", value=value)


def measure_all(name: str, kind: str, conditions: Conditions) -> list[Any]:
    """Cost, rank and sizes of every combination that half of each dimension allows."""
    start = MODELS[name]
    grid = make_grid(start, find_family(name))
    whole, most = measure(start, kind, conditions), count_parameters(start).distinct
    found = []
    for encoder, decoder, (hidden, heads), inner in product(
        grid.values["encoder_layers"], grid.values["decoder_layers"], grid.pairs, grid.values["ffn"]
    ):
        shape = replace(
            start, encoder_layers=encoder, decoder_layers=decoder, hidden_size=hidden, heads=heads,
            groups=heads // (start.heads // start.groups), inner_size=inner,
        )  # fmt: skip
        if count_parameters(shape).distinct < most * 0.5 * 0.95:
            continue
        cost = measure(shape, kind, conditions)
        logs = [math.log(size_of(shape, one) / size_of(start, one)) for one in grid.free]
        rank = float(np.std(logs)) - math.log(cost / whole)
        found.append((cost, (rank, (encoder, decoder), shape)))
    return found


def rank_all(measured: list[Any], most: float) -> list[Any]:
    """Of each number of layers the best widths under a target, by the definition."""
    best: dict[Any, Any] = {}
    found = [one for cost, one in measured if cost <= most]
    for one in sorted(found, key=lambda one: one[0]):
        best.setdefault(one[1], one)
    return sorted(best.values(), key=lambda one: one[0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", ["params", "memory_mb"])
def test_all_combinations_one_by_one_give_the_same(name: str, kind: str) -> None:
    conditions = Conditions(dtype="float32", batch_size=4, source_tokens=9, target_tokens=9)
    whole = measure(MODELS[name], kind, conditions)
    measured = measure_all(name, kind, conditions)
    for share in (0.95, 0.71, 0.55):
        target = Target(kind=kind, value=share * whole)
        expected = rank_all(measured, target.value)
        assert expected
        # As many candidates as there are numbers of layers: of each the best widths.
        made = search(plan_of(name), target, candidates=len(expected), conditions=conditions)
        ranks = [
            one.spread - math.log(measure(one.shape, kind, conditions) / whole) for one in made
        ]
        assert np.allclose(ranks, [rank for rank, _, _ in expected], atol=1e-8)
        # Where no two rank alike, their sizes are the same, too.
        close = np.diff(np.array(ranks), prepend=-1, append=9) < 1e-7
        for place, (_, _, shape) in enumerate(expected):
            if not close[place] and not close[place + 1]:
                assert made[place].shape == shape
        assert made[0].shape == expected[0][2]
        # Where fewer are asked for, what cannot be among them is not looked at.
        for few in (1, 3):
            asked = search(plan_of(name), target, candidates=few, conditions=conditions)
            assert asked == made[:few]


@pytest.mark.parametrize("name", MODELS)
@given(share=st.floats(0.05, 0.999), seed=st.integers(0, 3))
@settings(max_examples=10, deadline=None)
def test_every_candidate_is_under_the_target_and_on_the_grid(
    name: str, share: float, seed: int
) -> None:
    divisors = [None, {"ffn": 12}, {"decoder_layers": 2, "encoder_layers": 2}, {"heads": 4}][seed]
    plan, start = plan_of(name), MODELS[name]
    target = Target(kind=["params", "memory_mb"][seed % 2], value=share, is_share=True)
    floor = count_parameters(start).distinct
    try:
        made = search(plan, target, divisors=divisors)
    except ValueError:  # what is out of reach has a test of its own
        assert share * floor < floor / 4
        return
    steps = find_divisors(start, divisors)
    assert 1 <= len(made) <= 10
    assert len({one.shape for one in made}) == len(made)
    for place, one in enumerate(made):
        assert measure(one.shape, target) <= share * measure(start, target)
        for dimension in DIMENSIONS:
            size, whole = size_of(one.shape, dimension), size_of(start, dimension)
            coupled = dimension == "hidden" and name in ("gpt2", "bert")
            assert size == whole or coupled or not size % steps[dimension]
            assert size >= whole * 0.5 ** len(one.rounds) or one.shape == start
            if dimension.endswith("_layers") and whole:
                assert size >= 2
        if place > 2:
            continue
        # The configuration of the family can say each round, and rounds go down.
        done = add_candidate_stages(plan, one)
        assert prune_shape(done) == one.shape
        counts = [
            count_parameters(prune_shape(done, n)).distinct for n in range(len(one.rounds) + 1)
        ]
        assert counts == sorted({*counts}, reverse=True)


@pytest.mark.parametrize("name", MODELS)
def test_a_larger_target_never_has_a_smaller_best(name: str) -> None:
    whole = count_parameters(MODELS[name]).distinct
    before = 0
    for share in np.linspace(0.2, 0.99, 40):
        try:
            best = search(plan_of(name), params(share * whole), candidates=1)[0]
        except ValueError:
            assert not before
            continue
        assert best.parameters >= before
        before = best.parameters
    assert before


def test_each_number_of_layers_comes_once_before_any_comes_twice() -> None:
    made = search(plan_of("mistral"), params(0.7 * count_parameters(MISTRAL).distinct))
    layers = [one.shape.decoder_layers for one in made]
    assert len(layers) == 10
    assert {*layers} == {3, 4, 5, 6}
    made = search(plan_of("t5"), params(0.7 * count_parameters(T5).distinct), candidates=5)
    assert len({(one.shape.encoder_layers, one.shape.decoder_layers) for one in made}) == 5


def test_a_model_with_a_cache_keeps_it() -> None:
    """transformers generates from a cache with a T5 whose decoder is no deeper than its encoder."""
    even = replace(T5, encoder_layers=6)
    for name, kept in (("t5", True), ("openba", False)):
        found = search(
            Plan(model_type=name, shape=even), Target(kind="params", value=0.7, is_share=True)
        )
        deeper = [one for one in found if one.shape.decoder_layers > one.shape.encoder_layers]
        assert (not deeper) == kept


def test_what_is_given_stays() -> None:
    whole = count_parameters(T5).distinct
    fixed = Sizes(decoder_layers=5, heads=5, vocabulary=range(0, 50, 2))
    for one in search(plan_of("t5"), params(0.6 * whole), fixed=fixed):
        assert (one.sizes.decoder_layers, one.sizes.heads) == (5, 5)
        assert one.shape.vocabulary_size == 25
        made = add_candidate_stages(plan_of("t5"), one)
        assert find_kept(made).vocabulary == tuple(range(0, 50, 2))
    # What is given need be no multiple, and what is not may go no lower than it shall.
    for one in search(
        plan_of("t5"), params(0.8 * whole), fixed=Sizes(ffn=61), least={"hidden": 28}
    ):
        assert one.shape.inner_size == 61
        assert one.shape.hidden_size >= 28


def test_the_15b_comes_near_to_the_papers_sizes() -> None:
    """8 and 24 layers, 2560 channels, 20 heads, 6912 units and 100,000 ids are the paper's 3.4B."""
    plan = Plan(model_type="openba", shape=OPENBA_V1)
    begin = time.perf_counter()
    made = search(plan, params(3.43e9), fixed=Sizes(vocabulary=range(100_000)))
    assert time.perf_counter() - begin < 30
    paper = prune_shape(openba_v2())
    assert count_parameters(paper).distinct <= 3.43e9
    best = made[0]
    assert 3.37e9 < best.parameters <= 3.43e9
    for name in DIMENSIONS:
        assert 0.8 <= size_of(best.shape, name) / size_of(paper, name) <= 1.3, name
    assert len(made) == 10
    # 23 % are three rounds, none of which cuts more than half.
    assert len(best.rounds) == 3
    done = add_candidate_stages(plan, best)
    counts = [count_parameters(prune_shape(done, n)).distinct for n in range(4)]
    assert all(after >= before / 2 for before, after in pairwise(counts))


@pytest.mark.parametrize("name", MODELS)
def test_half_is_one_round_with_a_choice_of_sizes(name: str) -> None:
    made = search(plan_of(name), Target(kind="params", value=0.5, is_share=True))
    assert len(made) > 1
    for one in made:
        assert len(one.rounds) == 1
        assert one.parameters >= 0.95 * 0.5 * count_parameters(MODELS[name]).distinct


def test_rounds_can_be_asked_for() -> None:
    whole = count_parameters(T5).distinct
    assert len(search(plan_of("t5"), params(0.4 * whole))[0].rounds) == 2
    assert len(search(plan_of("t5"), params(0.4 * whole), rounds=1)[0].rounds) == 1
    assert len(search(plan_of("t5"), params(0.7 * whole), rounds=2)[0].rounds) == 2
    for rounds in (0, 7, -1):
        with pytest.raises(ValueError, match="rounds must be from 1 to 6"):
            search(plan_of("t5"), params(0.7 * whole), rounds=rounds)


def test_a_search_goes_on_after_a_stage() -> None:
    first, _ = add_chosen_stage(plan_of("t5"), Sizes(decoder_layers=4, hidden=24))
    left = count_parameters(prune_shape(first)).distinct
    second = add_searched_stages(first, Target(kind="params", value=0.75, is_share=True), name="b")
    assert second.stages[0] == first.stages[0]
    assert [stage.name for stage in second.stages] == ["", "b"]
    assert 0.5 * left <= count_parameters(prune_shape(second)).distinct <= 0.75 * left
    assert prune_shape(second).decoder_layers <= 4


def test_stages_are_those_of_a_seed_and_a_method() -> None:
    target = Target(kind="params", value=0.6, is_share=True)
    one, two = (add_searched_stages(plan_of("t5"), target, seed=seed) for seed in (1, 2))
    assert one == add_searched_stages(plan_of("t5"), target, seed=1)
    assert one != two
    assert prune_shape(one) == prune_shape(two)
    assert one.stages[0].seed == 1


def test_a_target_that_nothing_reaches_names_the_nearest() -> None:
    nearest = replace(T5, encoder_layers=2, decoder_layers=3, hidden_size=16, heads=3, groups=3,
                      inner_size=32)  # fmt: skip
    count = count_parameters(nearest).distinct
    text = (
        f"no sizes come down to 1,000 parameters; the nearest has {count:,} parameters: encoder "
        "layers 2, decoder layers 3, hidden 16, heads 3, ffn 32, vocabulary 50"
    )
    with pytest.raises(ValueError, match=text):
        search(plan_of("t5"), params(1000), rounds=1)
    assert search(plan_of("t5"), params(count), rounds=1)[0].shape == nearest
    with pytest.raises(ValueError, match="no sizes come down to 10 parameters; the nearest has"):
        search(plan_of("t5"), params(10))


def test_a_model_that_is_under_the_target_already() -> None:
    whole = count_parameters(T5).distinct
    for value in (whole, whole + 1, 1e18):
        with pytest.raises(ValueError, match="the model is under the target already"):
            search(plan_of("t5"), params(value))
    assert search(plan_of("t5"), params(whole - 1))[0].parameters < whole


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"divisors": {"depth": 2}}, "a divisor must be of one of encoder_layers"),
        ({"divisors": {"ffn": 0}}, "the divisor of ffn must be from 1 to 64: got 0"),
        ({"divisors": {"ffn": 65}}, "the divisor of ffn must be from 1 to 64: got 65"),
        ({"least": {"heads": 7}}, "the least size of heads must be from 1 to 6: got 7"),
        ({"fixed": Sizes(hidden=33)}, "hidden must be from 1 to 32: got 33"),
        ({"fixed": Sizes(decoder_layers=1)}, "decoder_layers must be from 2 to 6: got 1"),
        ({"candidates": 0}, "candidates must be from 1 to 1000: got 0"),
        ({"candidates": 1001}, "candidates must be from 1 to 1000: got 1001"),
    ],
)
def test_what_cannot_be_searched(options: Any, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        search(plan_of("t5"), params(9000), **options)
    with pytest.raises(TypeError, match="the divisor of ffn must be a whole number"):
        search(plan_of("t5"), params(9000), divisors={"ffn": 1.5})  # type: ignore[dict-item]


def test_sizes_that_do_not_go_together() -> None:
    with pytest.raises(ValueError, match="no hidden size and number of heads go together"):
        search(plan_of("gpt2"), params(9000), fixed=Sizes(hidden=24, heads=5))
    with pytest.raises(ValueError, match="heads must be a multiple of 2"):
        search(plan_of("mistral"), params(9000), fixed=Sizes(heads=3))


@pytest.mark.parametrize("name", MODELS)
def test_hostile_sizes_take_neither_time_nor_memory(name: str) -> None:
    """A configuration of a million of everything has more combinations than are tried."""
    most = 2**31 - 1
    huge = Shape(
        encoder_layers=1000, decoder_layers=1000, hidden_size=most, heads=most, groups=most,
        head_size=most, inner_size=most, vocabulary_size=most,
    )  # fmt: skip
    begin = time.perf_counter()
    for least in (None, {"hidden": most - 9, "ffn": most - 9}):
        with pytest.raises(ValueError, match="combinations of sizes, more than 200,000,000"):
            make_grid(huge, find_family(name), divisors={"hidden": 1, "ffn": 1}, least=least)
    assert time.perf_counter() - begin < 5


def test_all_families_can_be_searched() -> None:
    assert {*MODELS} <= set(FAMILIES)
    for name in MODELS:
        found: list[Candidate] = search(
            plan_of(name), Target(kind="params", value=0.8, is_share=True), candidates=2
        )
        assert len(found) == 2
