"""The training runs behind the claims on UFNRec: the arms of its ablation on a generated world.

Until mining starts, all arms are one and the same run of plain training: equal seeds give equal
batches and dropout. So it is trained once, and the arms go on from its state. The moving average
of plain training needs no run of its own either: it changes nothing in what it averages.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lmcore.worlds.recsys import World, make_world

# These bring torch, which is imported when something is measured.
if TYPE_CHECKING:
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import Split
    from lmcore.recsys.mine import FalseNegativeMiner
    from lmcore.recsys.recipes import TrainConfig
    from lmcore.recsys.training import SequenceRun

THRESHOLDS = (0, 1, 2, 3, 5, 8)
"""Values of m at which mined pairs are looked at; 5 is the paper's."""
METRIC = "NDCG@10"


@dataclass(kw_only=True, slots=True, frozen=True)
class Size:
    """How large an experiment is; other settings are the authors'."""

    users: int
    items: int
    max_length: int
    hidden_size: int
    num_hidden_layers: int
    lr: float
    warm_epochs: int | None
    """Epochs of plain training before mining starts; None: until the authors' rule says so."""
    arm_epochs: int
    """Epochs from then on."""
    eval_every: int


# Chosen by the learning curve of plain training with seed 10, before any arm was run.
QUICK = Size(
    users=1_500,
    items=800,
    max_length=12,
    hidden_size=32,
    num_hidden_layers=1,
    lr=5e-3,
    warm_epochs=45,
    arm_epochs=30,
    eval_every=5,
)
FULL = Size(
    users=20_000,
    items=2_000,
    max_length=20,
    hidden_size=50,
    num_hidden_layers=2,
    lr=1e-3,
    warm_epochs=None,
    arm_epochs=24,
    eval_every=4,
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Mined:
    """How many mined (user, item) pairs are what, and how many of the same users' random ones."""

    pairs: int
    """Distinct pairs."""
    liked: float
    """Share of the pairs whose user likes the item."""
    liked_at_random: float
    """The same share among all items that these users do not have in the training part."""
    held_out: float
    """Share of the pairs that are the user's validation or test item."""
    held_out_at_random: float
    """The same share among all items that these users do not have in the training part."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ArmRuns:
    """What the arms of one seed came to."""

    warm_epochs: int
    """Epochs before mining started."""
    test: Mapping[str, float]
    """NDCG@10 of each arm's best epoch in validation, on the test items."""
    valid: Mapping[str, Mapping[int, float]]
    """NDCG@10 of each arm on the validation items, by epochs since the start."""
    mined: Mapping[str, tuple[Mined, ...]]
    """What each arm with a miner mined, for each of `THRESHOLDS`."""
    turned: Mapping[str, float]
    """Share of all negatives trained on since the start whose label was reversed."""


@functools.cache
def run_arms(seed: int, size: Size) -> ArmRuns:
    """Returns the arms' results; a function of the arguments, in one thread on the CPU.

    The result of equal arguments is kept, so that several claims can look at it.

    Args:
        seed: of the world and of training.
        size: how large.

    Example:
        >>> small = replace(QUICK, users=60, items=130, warm_epochs=1, arm_epochs=1, eval_every=1)
        >>> sorted(run_arms(0, small).test)
        ['average', 'consistency', 'plain', 'representation', 'reversal']
    """
    from lmcore.recsys.data import leave_one_out, make_interactions
    from lmcore.recsys.recipes import consistency, plain, representation, reversal
    from lmcore.recsys.training import SequenceRun

    world = make_world(seed, size.users, size.items)
    data = leave_one_out(make_interactions(world.offsets, world.items, world.item_count))
    with _one_thread():
        warm = SequenceRun(_configure(plain(), seed, size), data)
        warm_epochs = _warm_up(warm, size)
        state = warm.state_dict()

        recipes = {
            "plain": replace(plain(), ema_decay=consistency().ema_decay),
            "representation": representation(),
            "reversal": reversal(),
            "consistency": consistency(),
        }
        test: dict[str, float] = {}
        valid: dict[str, dict[int, float]] = {}
        mined: dict[str, tuple[Mined, ...]] = {}
        turned: dict[str, float] = {}
        for name, recipe in recipes.items():
            run = SequenceRun(_configure(recipe, seed, size), data)
            start = copy.deepcopy(state)  # the optimizer goes on in these very tensors
            start["miner"] = None if run.miner is None else run.miner.state_dict()
            run.load_state_dict(start)
            if run.miner is None:
                curves = _follow(run, warm_epochs, size, ("plain", "average"))
            else:
                curves = _follow(run, warm_epochs, size, (name,))
                mined[name] = tuple(check_pairs(world, data, run.miner, m) for m in THRESHOLDS)
                turned[name] = _share_turned(run, size)
            for arm, (best, curve) in curves.items():
                test[arm], valid[arm] = best, curve
    return ArmRuns(warm_epochs=warm_epochs, test=test, valid=valid, mined=mined, turned=turned)


def check_pairs(world: World, data: Split, miner: FalseNegativeMiner, threshold: int) -> Mined:
    """Returns how many mined pairs are liked and held out, and how many random ones.

    Args:
        world: the planted truth.
        data: the leave-one-out split of its interactions.
        miner: of a run on the split.
        threshold: m; the pairs are those presented again more often.

    Returns:
        Shares of nothing, where nothing was mined, are nan.
    """
    users, items = miner.mined_pairs(threshold).T
    if not len(users):
        nan = float("nan")
        return Mined(pairs=0, liked=nan, liked_at_random=nan, held_out=nan, held_out_at_random=nan)
    held_out = np.stack([data.valid, data.test])[:, users - 1]
    known = np.diff(data.train_offsets)
    drawable = world.item_count - known
    # Users like all that they have, and have nothing twice.
    liked_at_random = (world.liked.sum(axis=1) - known) / drawable
    held_out_at_random = ((data.valid > 0).astype(int) + (data.test > 0)) / drawable
    return Mined(
        pairs=len(users),
        liked=_mean(world.likes(users, items)),
        liked_at_random=_mean(liked_at_random[users - 1]),
        held_out=_mean((held_out == items).any(axis=0)),
        held_out_at_random=_mean(held_out_at_random[users - 1]),
    )


def _configure(recipe: TrainConfig, seed: int, size: Size) -> TrainConfig:
    from lmcore.training.config import change

    changes = {
        "max_length": size.max_length,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.num_hidden_layers,
        "optimizer.lr": size.lr,
        "start": "epoch_loss" if size.warm_epochs is None else 0,
        "loop.seed": seed,
        "device.threads": 1,
        "device.device": "cpu",
    }
    return change(recipe, changes)


def _warm_up(run: SequenceRun, size: Size) -> int:
    """Trains until the epoch in whose first step mining starts; returns the number before it."""
    from lmcore.recsys.mine import EpochLossStart

    epochs = 0
    while epochs < run.config.epochs:
        if size.warm_epochs is None:
            if EpochLossStart().is_reached(epochs + 1, 0, run.loss_sums):
                break
        elif epochs == size.warm_epochs:
            break
        epochs += 1
        _train_epoch(run, epochs)
    return epochs


def _train_epoch(run: SequenceRun, epoch: int) -> None:
    from lmcore.training.seeding import seed_torch

    seed_torch(run.config.loop.seed, epoch)
    done = (epoch - 1) * run.steps_per_epoch
    for step in range(done + 1, done + 1 + run.steps_per_epoch):
        run.step(step)


def _follow(
    run: SequenceRun, first: int, size: Size, arms: tuple[str, ...]
) -> dict[str, tuple[float, dict[int, float]]]:
    """Returns the test metric of the best epoch, and the validation curve, of each arm of a run.

    With two arms, the first is the model that is trained and the second its moving average.
    """
    curves = {arm: {0: _score(run.model, run, "valid")} for arm in arms}
    # What the arms share at the start is nobody's best epoch.
    best = dict.fromkeys(arms, (-1.0, 0.0))
    for epoch in range(1, size.arm_epochs + 1):
        _train_epoch(run, first + epoch)
        if epoch % size.eval_every:
            continue
        for arm in arms:
            model = run.model if arm != arms[-1] else run.validated_model
            value = _score(model, run, "valid")
            curves[arm][epoch] = value
            if value > best[arm][0]:
                best[arm] = value, _score(model, run, "test")
    return {arm: (best[arm][1], curves[arm]) for arm in arms}


def _score(model: SequenceModel, run: SequenceRun, split: str) -> float:
    from lmcore.recsys.evaluate import evaluate

    return evaluate(model, run.data, split=split, threads=1).metrics[METRIC]


def _share_turned(run: SequenceRun, size: Size) -> float:
    assert run.miner is not None
    eligible = np.diff(run.data.train_offsets)
    eligible = eligible[eligible > 1]
    positions = np.minimum(eligible - 1, run.config.max_length).mean()
    steps = size.arm_epochs * run.steps_per_epoch
    drawn = steps * run.config.batch_size * positions * run.config.negatives
    return float(run.miner.stats().reversed_count / drawn)


def _mean(shares: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(shares))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Sums of several threads depend on their number; the generator's state is put back too."""
    import torch

    from lmcore.training.processes import use_threads

    with use_threads(1), torch.random.fork_rng(devices=[]):
        yield
