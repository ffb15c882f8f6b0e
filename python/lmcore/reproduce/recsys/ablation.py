"""The training runs behind the claims on UFNRec: the arms of its ablation on a generated world.

Until mining starts, all arms are one and the same run of plain training: equal seeds give equal
batches and dropout. So it is trained once, and the arms go on from its state. The moving average
of plain training needs no run of its own either: it changes nothing in what it averages.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmcore.reproduce.arms import branch
from lmcore.reproduce.claim import Size
from lmcore.worlds.recsys import World, make_world

# These bring torch, which is imported when something is measured.
if TYPE_CHECKING:
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import Split
    from lmcore.recsys.mine import FalseNegativeMiner
    from lmcore.recsys.recipes import TrainConfig
    from lmcore.recsys.run import SequenceRun

THRESHOLDS = (0, 1, 2, 3, 5, 8)
"""Values of m at which mined pairs are looked at; 5 is the paper's."""
METRIC = "NDCG@10"


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
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
_QUICK = Scale(
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
_FULL = Scale(
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
# Enough for every arm to mine something, and no more.
_TINY = Scale(
    users=70,
    items=150,
    max_length=6,
    hidden_size=8,
    num_hidden_layers=1,
    lr=0.01,
    warm_epochs=3,
    arm_epochs=24,
    eval_every=8,
)
SCALES: dict[Size, Scale] = {"tiny": _TINY, "quick": _QUICK, "full": _FULL}
"""By the size of the claims."""


class StepRun:
    """A `SequenceRun` whose clock is the step, as `branch` wants it; states are those of epochs.

    It is all that this folder and the benches need to know of the loop of training: an epoch
    starts from its seed, and its last step says what there is to say of it.

    Args:
        config: the settings.
        data: the leave-one-out split.

    Attributes:
        run: the run.
        log: what it said at the end of its last epoch.
    """

    def __init__(self, config: TrainConfig, data: Split) -> None:
        from lmcore.recsys.run import SequenceRun

        self.run = SequenceRun(config, data)
        self.log: dict[str, Any] = {}

    def step(self, step: int) -> None:
        """Trains on the batch of a step, counted from 0 over all epochs.

        Args:
            step: which one; after another within an epoch only in order.
        """
        from lmcore.training.seeding import seed_torch

        epoch, place = divmod(step, self.run.steps_per_epoch)
        if not place:
            seed_torch(self.run.config.loop.seed, epoch + 1)
        values = self.run.step(step + 1)
        if place == self.run.steps_per_epoch - 1:
            self.log = {name: value.item() for name, value in values.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next epoch depends on."""
        return self.run.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state of plain training, with an empty memory of one's own.

        Args:
            state: as `state_dict` returns it.
        """
        miner = self.run.miner
        self.run.load_state_dict({**state, "miner": miner and miner.state_dict()})


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
def run_arms(seed: int, scale: Scale) -> ArmRuns:
    """Returns the arms' results; a function of the arguments, in one thread on the CPU.

    The result of equal arguments is kept, so that several claims can look at it.

    Args:
        seed: of the world and of training.
        scale: how large.

    Example:
        >>> sorted(run_arms(0, replace(SCALES["tiny"], warm_epochs=1, arm_epochs=8)).test)
        ['average', 'consistency', 'plain', 'representation', 'reversal']
    """
    from lmcore.recsys.data import leave_one_out, make_interactions
    from lmcore.recsys.recipes import consistency, plain, representation, reversal

    world = make_world(seed, users=scale.users, items=scale.items)
    data = leave_one_out(make_interactions(world.offsets, world.items, world.item_count))
    recipes = {
        None: plain(),
        "plain": replace(plain(), ema_decay=consistency().ema_decay),
        "representation": representation(),
        "reversal": reversal(),
        "consistency": consistency(),
    }
    mined: dict[str, tuple[Mined, ...]] = {}
    turned: dict[str, float] = {}

    def make_run(arm: str | None) -> StepRun:
        return StepRun(_configure(recipes[arm], seed, scale), data)

    with _one_thread():
        epoch = make_run(None).run.steps_per_epoch

        def score(arm: str, run: StepRun, step: int) -> dict[str, _Score]:
            """The arm's model; of plain training its moving average as well."""
            miner = run.run.miner
            if step == epoch * scale.arm_epochs and miner is not None:
                mined[arm] = tuple(check_pairs(world, data, miner, m) for m in THRESHOLDS)
                turned[arm] = _share_turned(run.run, scale)
            views = {arm: run.run.validated_model}
            if miner is None:
                views = {"plain": run.run.model, "average": run.run.validated_model}
            return {name: _evaluate(model, data) for name, model in views.items()}

        branches = branch(
            make_run,
            [arm for arm in recipes if arm],
            _find_start(scale),
            epoch * scale.arm_epochs,
            score,
            score_every=epoch * scale.eval_every,
        )
    curves: dict[str, dict[int, _Score]] = {}
    for scores in branches.scores.values():
        for step, views in scores.items():
            for name, found in views.items():
                curves.setdefault(name, {})[step // epoch] = found
    return ArmRuns(
        warm_epochs=branches.warm_steps // epoch,
        test={arm: _take_best(curve) for arm, curve in curves.items()},
        valid={arm: {at: s.valid for at, s in curve.items()} for arm, curve in curves.items()},
        mined=mined,
        turned=turned,
    )


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


def _configure(recipe: TrainConfig, seed: int, scale: Scale) -> TrainConfig:
    from lmcore.training.config import change

    changes = {
        "max_length": scale.max_length,
        "hidden_size": scale.hidden_size,
        "num_hidden_layers": scale.num_hidden_layers,
        "optimizer.lr": scale.lr,
        "start": "epoch_loss" if scale.warm_epochs is None else 0,
        "loop.seed": seed,
        "device.threads": 1,
        "device.device": "cpu",
    }
    return change(recipe, changes)


def _find_start(scale: Scale) -> Callable[[StepRun, int], bool]:
    """Whether mining starts with a step: the first of an epoch, after a number or by the rule."""

    def is_reached(run: StepRun, step: int) -> bool:
        from lmcore.recsys.start import EpochLossStart

        epoch, place = divmod(step, run.run.steps_per_epoch)
        if place:
            return False
        if scale.warm_epochs is not None:
            return epoch == scale.warm_epochs
        if epoch == run.run.config.epochs:
            return True
        return EpochLossStart().is_reached(epoch + 1, 0, run.run.loss_sums)

    return is_reached


@dataclass(slots=True, frozen=True)
class _Score:
    valid: float
    test: float


def _evaluate(model: SequenceModel, data: Split) -> _Score:
    from lmcore.recsys.evaluation import evaluate

    valid, test = (
        evaluate(model, data, split=split, threads=1).metrics[METRIC] for split in ("valid", "test")
    )
    return _Score(valid, test)


def _take_best(curve: Mapping[int, _Score]) -> float:
    """The test metric of the best epoch in validation; nobody's is what all arms share."""
    return max((curve[at] for at in sorted(curve) if at), key=lambda score: score.valid).test


def _share_turned(run: SequenceRun, scale: Scale) -> float:
    assert run.miner is not None
    eligible = np.diff(run.data.train_offsets)
    eligible = eligible[eligible > 1]
    positions = np.minimum(eligible - 1, run.config.max_length).mean()
    steps = scale.arm_epochs * run.steps_per_epoch
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
