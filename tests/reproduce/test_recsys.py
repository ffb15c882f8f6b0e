"""The claims on UFNRec: the arms share what they should share, and verdicts can fail."""

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lmcore.recsys.data import leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.recipes import consistency
from lmcore.recsys.run import SequenceRun
from lmcore.recsys.start import EpochLossStart
from lmcore.reproduce import CLAIMS, reproduce
from lmcore.reproduce.claim import Estimate, decide_verdict, estimate
from lmcore.reproduce.recsys import ablation, four_arms
from lmcore.reproduce.recsys.ablation import METRIC, SCALES, THRESHOLDS, check_pairs, run_arms
from lmcore.training.seeding import seed_torch
from lmcore.worlds.recsys import World, make_world

TINY = SCALES["tiny"]


@pytest.fixture(autouse=True)
def _new_runs() -> Iterator[None]:
    yield
    run_arms.cache_clear()


def test_listing_the_claims_does_not_import_torch() -> None:
    code = "import sys, lmcore.reproduce.run; print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert run.stdout.strip() == "False"


# The runs.


def test_runs_are_a_function_of_the_seed() -> None:
    before = torch.get_num_threads(), torch.random.get_rng_state()
    first = run_arms(0, TINY)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.random.get_rng_state(), before[1])
    assert run_arms(0, TINY) is first
    run_arms.cache_clear()
    torch.manual_seed(77)
    assert repr(run_arms(0, TINY)) == repr(first)
    assert run_arms(1, TINY).test != first.test


def test_an_arm_is_what_it_would_be_from_scratch() -> None:
    """Its mining starts after the first step of the first epoch that is not plain training."""
    runs = run_arms(0, TINY)
    assert runs.warm_epochs == TINY.warm_epochs
    world = make_world(0, users=TINY.users, items=TINY.items)
    data = leave_one_out(make_interactions(world.offsets, world.items, world.item_count))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        config = ablation._configure(consistency(), 0, TINY)
        steps = SequenceRun(config, data).steps_per_epoch
        run = SequenceRun(replace(config, start=3 * steps + 1), data)
        curve = {}
        for epoch in range(1, 3 + TINY.arm_epochs + 1):
            seed_torch(0, epoch)
            for step in range(steps):
                run.step((epoch - 1) * steps + step + 1)
            model = run.validated_model
            curve[epoch - 3] = evaluate(model, data, split="valid", threads=1).metrics[METRIC]
    finally:
        torch.set_num_threads(threads)
    assert run.miner is not None
    assert runs.valid["consistency"] == {epoch: curve[epoch] for epoch in (0, 8, 16, 24)}
    found = tuple(check_pairs(world, data, run.miner, m) for m in THRESHOLDS)
    assert repr(runs.mined["consistency"]) == repr(found)


def test_arms_start_together_and_mine_apart() -> None:
    runs = run_arms(0, TINY)
    assert list(runs.test) == ["plain", "average", "representation", "reversal", "consistency"]
    assert len({curve[0] for curve in runs.valid.values()}) == 1
    assert all(list(curve) == [0, 8, 16, 24] for curve in runs.valid.values())
    assert len({tuple(curve.values()) for curve in runs.valid.values()}) == 5
    assert list(runs.mined) == ["representation", "reversal", "consistency"]
    for mined in runs.mined.values():
        pairs = [part.pairs for part in mined]
        assert pairs[0] > pairs[1] > 0
        assert pairs == sorted(pairs, reverse=True)
        assert all(0 <= part.liked <= 1 for part in mined if part.pairs)
    assert runs.turned["representation"] == 0
    assert 0 < runs.turned["reversal"] < 0.5


def test_the_authors_rule_ends_the_warm_up(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def is_reached(_: EpochLossStart, epoch: int, step: int, sums: list[float]) -> bool:
        asked.append((epoch, step, len(sums)))
        return epoch == 4

    monkeypatch.setattr(EpochLossStart, "is_reached", is_reached)
    scale = replace(TINY, warm_epochs=None, arm_epochs=1, eval_every=1)
    assert run_arms(0, scale).warm_epochs == 3
    assert asked[:4] == [(1, 0, 0), (2, 0, 1), (3, 0, 2), (4, 0, 3)]


# The truth.


def test_pairs_are_held_against_items_of_the_same_users() -> None:
    liked = np.zeros((2, 11), dtype=bool)
    liked[0, 1:6] = True
    liked[1, [2, 4, 6, 8, 10]] = True
    world = World(offsets=np.array([0, 4, 7]), items=np.array([1, 2, 3, 4, 2, 4, 6]), liked=liked)
    data = leave_one_out(make_interactions(world.offsets, world.items, world.item_count))
    miner = FalseNegativeMiner(threshold=0)
    for user, shown in ((1, [5, 4, 9]), (2, [8, 1, 3])):
        for _ in range(2):  # the second time they are presented again
            injection = miner.inject([user], [[7]], np.array([shown]))
            miner.observe([user], [[7]], injection, np.array([[0.0, 1.0, 1.0, 1.0]]))
    mined = check_pairs(world, data, miner, 0)
    assert mined.pairs == 6
    assert mined.liked == pytest.approx(3 / 6)  # 5, 4 of the first user and 8 of the second
    # The first has 2 of 10 items in training and likes 3 of the others; the second 1 and 4.
    assert mined.liked_at_random == pytest.approx((3 / 8 + 4 / 9) / 2)
    assert mined.held_out == pytest.approx(1 / 6)  # item 4 of the first user
    assert mined.held_out_at_random == pytest.approx((2 / 8 + 2 / 9) / 2)
    nothing = check_pairs(world, data, miner, 100)
    assert nothing.pairs == 0
    assert math.isnan(nothing.liked)


# Verdicts and cells.


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [
        (0.5, 0.4, "reproduced"),
        (0.5, 0.6, "not reproduced"),
        (-0.5, 0.1, "not reproduced"),
        (math.nan, 0.1, "not reproduced"),
    ],
)
def test_four_arms_can_fail(mean: float, spread: float, verdict: str) -> None:
    estimates = {"gain/consistency": Estimate(mean=mean, spread=spread)}
    assert decide_verdict(CLAIMS["four_arms"], estimates, seed_count=3) == verdict


@pytest.mark.parametrize(
    ("mean", "spread", "verdict"),
    [
        (2.0, 0.4, "reproduced"),
        (2.0, 0.6, "not reproduced"),
        (0.9, 0.0, "not reproduced"),
        (math.nan, 0.1, "not reproduced"),
    ],
)
def test_mined_false_negatives_can_fail(mean: float, spread: float, verdict: str) -> None:
    estimates = {"lift/liked": Estimate(mean=mean, spread=spread)}
    assert decide_verdict(CLAIMS["mined_false_negatives"], estimates, seed_count=3) == verdict


def test_gains_are_differences_within_a_seed() -> None:
    runs = [four_arms.measure_arms(seed, size="tiny") for seed in (0, 1)]
    for run in runs:
        values = run.values
        gain = values["test/consistency"] - values["test/plain"]
        assert values["gain/consistency"] == pytest.approx(gain)
        rest = values["test/consistency"] - values["test/average"]
        assert values["gain_over_average/consistency"] == pytest.approx(rest)
    text = CLAIMS["four_arms"].describe(estimate(runs))
    for label in ("plain, moving average: ", "re-presentation: ", "+ reversal: ", "UFNRec minus"):
        assert label in text


def test_the_report_shows_both_claims_of_one_run(tmp_path: Path) -> None:
    rows = reproduce(["recsys"], seeds=2, size="tiny", out=tmp_path, progress=False, processes=1)
    assert [row.id for row in rows] == ["mined_false_negatives", "four_arms"]
    assert run_arms.cache_info().misses == 2
    page = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert page.count("<svg") == sum(len(row.plots) for row in rows) == 4
    assert "torch 2." in page
    (_, curves) = rows[1].plots
    assert curves.x == ("0", "8", "16", "24")
    assert math.isfinite(rows[0].estimates["lift/liked"].mean)
