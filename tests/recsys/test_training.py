"""Training: the paper's steps, resuming, several processes, and that it learns."""

import itertools
import json
import os
import socket
import sys
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

import warm
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.fingerprint import find_fingerprint
from lmcore.recsys.ids import IdMap
from lmcore.recsys.loading import load_model
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.models import make_model
from lmcore.recsys.recipes import (
    RECIPES,
    TrainConfig,
    consistency,
    plain,
    representation,
    reversal,
)
from lmcore.recsys.run import SequenceRun
from lmcore.recsys.training import train
from lmcore.training.checkpoint import load
from lmcore.training.config import change, config_from_dict, config_to_dict
from lmcore.training.folder import RunFolder
from lmcore.training.seeding import seed_torch

SMALL: dict[str, Any] = {
    "max_length": 6,
    "hidden_size": 8,
    "batch_size": 8,
    "negatives": 7,
    "device.threads": 1,
    "device.device": "cpu",
    "eval_every": 1,
    "loop.save_every_seconds": 0.0,
}


def small(config: TrainConfig, **changes: Any) -> TrainConfig:
    """A configuration of a moment's run."""
    return change(config, {**SMALL, **changes})


def epoch_steps(run: SequenceRun, epoch: int) -> range:
    """Numbers of an epoch's steps."""
    return range((epoch - 1) * run.steps_per_epoch + 1, epoch * run.steps_per_epoch + 1)


def make_data(users: int = 40, items: int = 30, seed: int = 0) -> Split:
    generator = np.random.default_rng(seed)
    lengths = generator.integers(1, 12, users)
    rows = [generator.choice(items, length, replace=False) + 1 for length in lengths]
    return leave_one_out(
        make_interactions(np.concatenate([[0], lengths.cumsum()]), np.concatenate(rows), items)
    )


@pytest.fixture(scope="module")
def data() -> Split:
    return make_data()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# Recipes.


def test_each_recipe_is_one_change_of_the_one_before() -> None:
    chains = [
        ["plain", "representation", "reversal", "consistency"],
        ["plain", "gbce", "sampled_softmax", "cross_entropy"],
        ["patient", "gbce_mined", "sampled_softmax_mined"],
    ]
    assert set(itertools.chain(*chains)) == set(RECIPES)
    changes = [
        {
            name
            for name, value in config_to_dict(RECIPES[later]()).items()
            if value != config_to_dict(RECIPES[earlier]())[name]
        }
        for chain in chains
        for earlier, later in itertools.pairwise(chain)
    ]
    assert changes == [
        {"mining", "threshold", "ema_decay"}, {"threshold"}, {"alpha"},
        {"loss", "negatives"}, {"loss"}, {"loss"},
        {"loss", "negatives"}, {"loss"},
    ]  # fmt: skip


def test_defaults_of_the_paper() -> None:
    config = consistency()
    assert (config.batch_size, config.optimizer.lr, config.max_length, config.hidden_size) == (
        128, 1e-3, 50, 50,
    )  # fmt: skip
    assert (config.num_hidden_layers, config.num_attention_heads, config.dropout) == (2, 1, 0.5)
    assert (config.negatives, config.threshold, config.alpha, config.ema_decay) == (
        100, 5, 0.3, 0.999,
    )  # fmt: skip
    assert (config.epochs, config.optimizer.betas, config.l2_emb) == (201, (0.9, 0.98), 0.0)
    assert (config.start, config.teacher_mode, config.eval_every) == ("epoch_loss", "train", 4)
    assert config_from_dict(TrainConfig, json.loads(json.dumps(config_to_dict(config)))) == config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1 and at most 2147483647: got 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1: got 1.0"),
        ({"optimizer.lr": 0.0}, r"optimizer.lr must be above 0 and at most 1e\+30: got 0.0"),
        ({"threshold": -1}, "threshold must be at least 0 and at most 2147483647: got -1"),
        ({"start": -1}, "start must be at least 0 and at most 9007199254740992: got -1"),
        (
            {"max_reversed_share": 1.5},
            "max_reversed_share must be at least 0 and at most 1: got 1.5",
        ),
        ({"ema_decay": 2.0}, "ema_decay must be at least 0 and at most 1: got 2.0"),
        ({"optimizer.betas": (0.9, 1.0)}, "optimizer.betas must be at least 0 and below 1"),
        ({"alpha": 0.3}, "alpha needs a teacher"),
        ({"backbone": "bert"}, "backbone must be sasrec or gru4rec or fmlp or ligr: got 'bert'"),
        (
            {"device.precision": "int8"},
            "device.precision must be float32 or bfloat16 or float16: got",
        ),
        ({"device.sharding": "full"}, "device.sharding must be none: backbones are not built for"),
        ({"device.compile": True}, "device.compile must be false"),
        ({"loop.metric_mode": "min"}, "loop.metric_mode must be max"),
        ({"teacher_mode": "on"}, "teacher_mode must be train or eval: got 'on'"),
        ({"loop.metric": "AUC"}, "loop.metric must be a metric: there is no metric .AUC."),
        ({"alpha": 0.3, "ema_decay": 0.9}, "alpha needs mining"),
        ({"max_length": 257, "mining": True}, "max_length must be at most 256 where mining is"),
        ({"loss": "hinge"}, "loss must be bce or gbce or sampled_softmax or cross_entropy: got"),
        ({"gbce_t": 1.5}, "gbce_t must be at least 0 and at most 1: got 1.5"),
        ({"temperature": 0.0}, "temperature must be above 0 and at most 1e\\+30: got 0.0"),
        ({"gbce_t": 0.5}, "gbce_t has no meaning where loss is bce"),
        ({"log_q": "none", "loss": "gbce"}, "log_q has no meaning where loss is gbce"),
        ({"temperature": 0.5}, "temperature has no meaning where loss is bce"),
        (
            {"normalization": "balanced", "loss": "cross_entropy"},
            "normalization has no meaning where loss is cross_entropy",
        ),
        ({"exponent": 0.5}, "exponent has no meaning where distribution is uniform"),
        (
            {"distribution": "popularity", "loss": "cross_entropy"},
            "distribution has no meaning where loss is cross_entropy",
        ),
        ({"mining": True, "loss": "cross_entropy"}, "mining must be false where loss is cross_en"),
        (
            {"mining": True, "loss": "sampled_softmax", "alpha": 0.3, "ema_decay": 0.9},
            "alpha must be 0 where loss is sampled_softmax",
        ),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        change(plain(), changes)


# The steps.


class Authors:
    """Section 4 of the specification, word for word: padded, with dicts; dropout is 0."""

    def __init__(self, run: SequenceRun) -> None:
        config = self.config = run.config
        self.sampler, self.steps = run.sampler, run.steps_per_epoch
        self.model = make_model(config, run.data.item_count)
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.optimizer.lr, betas=config.optimizer.betas
        )
        self.hard: dict[tuple[int, int], list[int]] = {}
        self.cnt: dict[tuple[int, int, int], int] = {}
        self.flag, self.ema, self.updates = False, None, 0
        self.reversed = 0

    def step(self, epoch: int, step: int) -> float:
        config = self.config
        batch = self.sampler.sample(epoch, step)
        u, seq, pos, neg = batch.users, batch.sequences, batch.positives, batch.negatives
        turned = []
        for b in range(len(u)):
            for p in reversed(range(config.max_length)):
                if pos[b, p] == 0:
                    break
                for k, i in enumerate(self.hard.get((u[b], p), [])):
                    neg[b, p, k] = i
                    self.cnt[u[b], p, i] = self.cnt.get((u[b], p, i), 0) + 1
                    if config.threshold is not None and self.cnt[u[b], p, i] > config.threshold:
                        turned.append((b, p, k))
        self.reversed += len(turned)
        items = torch.from_numpy(np.concatenate([pos[..., None], neg], 2))

        def score(model: Any) -> Tensor:
            features = model(torch.from_numpy(seq))
            return (model.item_emb(items) * features[:, :, None]).sum(-1)

        self.model.train()
        z = score(self.model)
        y = None
        if self.flag:
            if self.ema is None:
                self.ema = [p.detach().clone() for p in self.model.parameters()]
            else:
                teacher = make_model(config, self.model.config.item_count).train()
                for parameter, value in zip(teacher.parameters(), self.ema, strict=True):
                    parameter.data.copy_(value)
                with torch.no_grad():
                    y = score(teacher)
        label = torch.zeros_like(z)
        label[..., 0] = 1
        index = tuple(torch.tensor(turned, dtype=torch.int64).reshape(-1, 3).T)
        chosen = (*index[:2], index[2] + 1)
        label[chosen] = 1
        held = torch.from_numpy(pos != 0)
        loss = 2 * functional.binary_cross_entropy_with_logits(z[held], label[held])
        loss = loss + config.l2_emb * self.model.item_emb.weight.norm()
        if y is not None and turned:
            soft = y[chosen].sigmoid()
            loss = loss + config.alpha * functional.binary_cross_entropy_with_logits(
                z[chosen], soft
            )
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if self.ema is not None and config.ema_decay is not None:
            self.updates += 1
            decay = min(config.ema_decay, (1 + self.updates) / (10 + self.updates))
            for average, parameter in zip(self.ema, self.model.parameters(), strict=True):
                average.mul_(decay).add_((1 - decay) * parameter.detach())
        assert isinstance(config.start, int)
        self.flag = self.flag or (epoch - 1) * self.steps + step + 1 >= config.start
        if self.flag:
            for b, p in np.argwhere(pos != 0):
                self.hard[u[b], p] = [
                    int(neg[b, p, j])
                    for j in range(config.negatives)
                    if z[b, p, 1 + j] > z[b, p, 0] and label[b, p, 1 + j] != 1
                ]
        return float(loss.detach())


@pytest.fixture
def margins(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Of each step that mines: how near a negative's logit came to its positive's.

    Two ways of computing the same logits agree up to rounding, within 1e-5 in these tests. Which
    negatives are hard, and so the whole memory, is then the same if none comes nearer than that;
    the data of these tests are chosen so.
    """
    found: list[float] = []
    observe = FalseNegativeMiner.observe

    def measure(
        miner: FalseNegativeMiner, users: Any, positives: Any, injection: Any, z: Any
    ) -> None:
        found.append(float((z[:, 1:] - z[:, :1]).abs().min()))
        observe(miner, users, positives, injection, z)

    monkeypatch.setattr(FalseNegativeMiner, "observe", measure)
    return found


@pytest.mark.parametrize("recipe", [representation, reversal, consistency])
def test_steps_are_those_of_the_specification(recipe: Any, margins: list[float]) -> None:
    """One step more of drift moves the weights by about lr = 1e-3."""
    data = make_data(seed=6)
    config = small(recipe(), dropout=0.0, start=5, l2_emb=0.01)
    if config.threshold is not None:
        config = replace(config, threshold=1)
    run = SequenceRun(config, data)
    authors = Authors(run)
    turned = 0
    for epoch in range(1, 11):
        for index, step in enumerate(epoch_steps(run, epoch)):
            values = run.step(step)
            assert float(values["loss"]) == pytest.approx(authors.step(epoch, index), abs=1e-5)
        turned += int(values["reversed"])
    assert min(margins) > 5e-5
    assert turned == authors.reversed
    assert (turned > 0) == (config.threshold is not None)
    for own, other in zip(run.model.parameters(), authors.model.parameters(), strict=True):
        torch.testing.assert_close(own, other, atol=1e-5, rtol=0)
    assert authors.ema is not None
    for own, average in zip(run.validated_model.parameters(), authors.ema, strict=True):
        torch.testing.assert_close(own, average, atol=1e-5, rtol=0)


def test_the_authors_start_waits_for_the_ninth_epoch(data: Split) -> None:
    run = SequenceRun(small(reversal()), data)
    mining = []
    for epoch, loss in enumerate([9.0, 8, 7, 6, 5, 4, 4, 4, 4, 4], 1):
        for step in epoch_steps(run, epoch):
            log = run.step(step)
        run.loss_sums[-1] = loss
        assert run.miner is not None
        # What the log says is what the miner, its numbers and its state say.
        stats = run.miner.stats()
        assert log["mining"] == stats.active == run.miner.active == (stats.hard_count > 0)
        assert log["mining"] == run.state_dict()["started"]
        mining.append(bool(log["mining"]))
    assert mining == [False] * 8 + [True] * 2


def test_a_moving_average_without_mining_leaves_the_student_alone(
    tmp_path: Path, data: Split
) -> None:
    config = small(plain(), start=7, epochs=4)
    runs = [SequenceRun(replace(config, ema_decay=decay), data) for decay in (None, 0.9)]
    average: list[Tensor] | None = None
    updates = 0
    for epoch in range(1, config.epochs + 1):
        for step in epoch_steps(runs[0], epoch):
            before = [p.detach().clone() for p in runs[1].model.parameters()]
            for run in runs:
                seed_torch(0, step)
                values = run.step(step)
            if average is None and runs[1].teacher is not None:
                average = before
            if average is not None:
                updates += 1
                share = 1 - min(0.9, (1 + updates) / (10 + updates))
                average = [
                    torch.lerp(a, p.detach(), share)
                    for a, p in zip(average, runs[1].model.parameters(), strict=True)
                ]
        assert set(values) == {"loss", "positions", "epoch"}
    assert average is not None
    assert updates == config.epochs * runs[0].steps_per_epoch - 7
    assert runs[0].validated_model is runs[0].model
    assert_same(list(runs[0].model.parameters()), list(runs[1].model.parameters()))
    assert_same(average, [p.data for p in runs[1].validated_model.parameters()], tolerance=1e-6)

    config = replace(config, ema_decay=0.9, start="epoch_loss", epochs=10)
    train(config, data, tmp_path / "whole")
    # In some of these runs the teacher starts with the first step that follows.
    for epochs in (3, 8, 9):
        train(replace(config, epochs=epochs), data, tmp_path / str(epochs))
        train(config, data, tmp_path / str(epochs))
        assert_same(states(tmp_path / "whole"), states(tmp_path / str(epochs)))


@pytest.mark.parametrize("recipe", [reversal, lambda: replace(plain(), ema_decay=0.9)])
def test_what_has_started_goes_on_when_the_rule_no_longer_holds(recipe: Any, data: Split) -> None:
    config = small(recipe(), start=0)
    run = SequenceRun(config, data)
    run.step(1)
    assert run.teacher is None  # it is made in the step after
    other = SequenceRun(replace(config, start=10**9), data)
    other.load_state_dict(run.state_dict())
    other.step(2)
    assert other.teacher is not None
    if config.mining:
        assert other.state_dict()["started"]
        assert other.miner is not None
        assert run.miner is not None
        assert other.miner.stats().hard_count > run.miner.stats().hard_count > 0


# Files and resuming.


def states(folder: Path) -> dict[str, Any]:
    (*_, step) = RunFolder(folder).states
    return load(folder / "states" / f"step-{step}")["run"]  # type: ignore[no-any-return]


def assert_same(one: Any, other: Any, tolerance: float = 0.0) -> None:
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key], tolerance)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for a, b in zip(one, other, strict=True):
            assert_same(a, b, tolerance)
    elif isinstance(one, np.ndarray):
        assert np.array_equal(one, other)
    elif isinstance(one, Tensor):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=0)
    elif isinstance(one, float):
        assert one == pytest.approx(other, abs=tolerance)
    else:
        assert one == other


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "fmlp", "ligr"])
def test_resumed_weights_are_bit_equal(tmp_path: Path, data: Split, backbone: str) -> None:
    config = small(consistency(), backbone=backbone, start=3, threshold=0, epochs=5)
    whole = train(config, data, tmp_path / "whole")
    train(replace(config, epochs=3), data, tmp_path / "parts")
    parts = train(config, data, tmp_path / "parts")
    assert (whole.resumed_after, parts.resumed_after) == (0, 3 * whole.steps_per_epoch)
    assert_same(states(tmp_path / "whole"), states(tmp_path / "parts"))
    assert (whole.best_epoch, whole.best_value) == (parts.best_epoch, parts.best_value)
    weights = [
        (tmp_path / name / "best/model.safetensors").read_bytes() for name in ("whole", "parts")
    ]
    assert weights[0] == weights[1]


def test_killed_within_an_epoch(
    tmp_path: Path, data: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = small(consistency(), start=3, threshold=0, epochs=4)
    whole = train(config, data, tmp_path / "whole")
    steps, original = whole.steps, SequenceRun.step
    kept = ("epoch", "step", "loss", "mining", "reversed", "hard", "keys")
    expected = [[line[name] for name in kept] for line in whole.history]

    for killed in (2, steps // 2, steps - 1, steps):

        def step(run: SequenceRun, number: int) -> dict[str, Tensor]:
            if number == killed:  # noqa: B023
                raise RuntimeError("killed")
            return original(run, number)

        out = tmp_path / str(killed)
        with monkeypatch.context() as patched:
            patched.setattr(SequenceRun, "step", step)
            with pytest.raises(RuntimeError, match="killed"):
                train(config, data, out)
        resumed = train(config, data, out)
        assert resumed.resumed_after == killed - 1
        assert_same(states(tmp_path / "whole"), states(out))
        # What an epoch came to is that of all its steps, those before the kill too.
        assert [[line[name] for name in kept] for line in resumed.history] == expected


def test_files_of_a_run(tmp_path: Path, data: Split) -> None:
    config = small(consistency(), start=2, epochs=3)
    result = train(config, data, tmp_path / "out", data_path="data.txt")
    files = sorted(path.name for path in result.folder.iterdir())
    assert files == ["best", "log.jsonl", "models", "recipe.json", "states"]
    files = sorted(path.name for path in (result.folder / "best").iterdir())
    assert files == ["config.json", "id_map.json", "manifest.json", "model.safetensors"]
    log = [json.loads(line) for line in (result.folder / "log.jsonl").read_text().splitlines()]
    assert log == result.history
    assert [record["epoch"] for record in log] == [1, 2, 3]
    expected = {"epoch", "step", "loss", "metrics", "seconds", "mining", "reversed", "best_step"}
    assert expected <= set(log[-1])
    assert set(log[-1]["metrics"]) == {"HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR"}
    recipe = json.loads((result.folder / "recipe.json").read_text())
    assert config_from_dict(TrainConfig, recipe["config"]) == config
    assert Path(recipe["data"]["path"]).is_absolute()
    model = load_model(result.folder)
    assert model.config.item_count == data.item_count
    assert not model.training


def test_how_the_data_were_read_stands_in_the_recipe(tmp_path: Path, data: Split) -> None:
    config = small(plain(), epochs=1)
    options = {"format": "pairs", "skip_bad_rows": True}
    train(config, data, tmp_path, data_path="data.txt", data_options=options)
    found = json.loads((tmp_path / "recipe.json").read_text())["data"]
    assert list(found) == [
        "path", "format", "skip_bad_rows", "users", "items", "interactions", "fingerprint",
    ]  # fmt: skip
    assert (found["format"], found["skip_bad_rows"]) == ("pairs", True)
    # The same data, read in another way, are the same data.
    other = {"format": "auto", "skip_bad_rows": False}
    again = train(config, data, tmp_path, data_options=other)
    assert again.resumed_after == again.steps_per_epoch
    with pytest.raises(ValueError, match="options must not hold 'fingerprint'"):
        train(config, data, tmp_path, data_options={"fingerprint": "0"})


def test_fingerprints_do_not_collide() -> None:
    """Ids that differ only in where one ends, in which list it stands, or in its kind."""
    ids: list[tuple[Any, Any]] = [
        (("a", "bx"), ("c", "d")), (("a", "b"), ("xc", "d")), (("a", "b"), ("x", "cd")),
        (("a\0b", ""), ("x", "cd")), (("a", "b\0"), ("x", "cd")), (("a", "b\0x"), ("c", "d")),
        (("1", "2"), ("3", "4")), (np.array([1, 2]), ("3", "4")), (("1", "2"), np.array([3, 4])),
        (np.array([1, 2]), np.array([3, 4])), (("a", "\udc80"), ("x", "cd")),
    ]  # fmt: skip
    rows = make_interactions([0, 2, 3], [1, 2, 1], 2)
    others = make_interactions([0, 1, 3], [1, 2, 1], 2)
    splits = [leave_one_out(replace(rows, id_map=IdMap(*pair))) for pair in ids]
    splits += [leave_one_out(replace(others, id_map=IdMap(*ids[0])))]
    found = [find_fingerprint(split) for split in splits]
    assert len(set(found)) == len(splits)
    assert found == [find_fingerprint(split) for split in splits]


@pytest.mark.parametrize("fails", [False, True])
def test_the_number_of_threads_is_put_back(
    tmp_path: Path, data: Split, monkeypatch: pytest.MonkeyPatch, fails: bool
) -> None:
    torch.set_num_threads(3)
    config = small(plain(), epochs=1)
    seen = []

    def step(*_: Any) -> dict[str, Tensor]:
        seen.append(torch.get_num_threads())
        if fails:
            raise KeyboardInterrupt
        return {"loss": torch.zeros(())}

    monkeypatch.setattr(SequenceRun, "step", step)
    with pytest.raises(KeyboardInterrupt) if fails else nullcontext():
        train(config, data, tmp_path / "a")
    with pytest.raises(ValueError, match="device must be"):
        train(change(config, {"device.device": "fast"}), data, tmp_path / "b")
    assert set(seen) == {1}
    assert torch.get_num_threads() == 3


def test_another_run_or_other_data_are_refused(tmp_path: Path, data: Split) -> None:
    config = small(plain(), epochs=1)
    train(config, data, tmp_path)
    with pytest.raises(FileExistsError, match=r"config\.optimizer\.lr is 0.001 there and"):
        train(change(config, {"optimizer.lr": 0.01}), data, tmp_path)
    with pytest.raises(FileExistsError, match=r"data\.fingerprint is"):
        train(config, make_data(seed=1), tmp_path)
    train(change(config, {"optimizer.lr": 0.01}), data, tmp_path, resume=False)


def test_users_without_targets_train(tmp_path: Path) -> None:
    data = leave_one_out(make_interactions([0, 2, 4], [1, 2, 2, 3], 5))
    result = train(small(plain(), epochs=2), data, tmp_path)
    assert (result.best_epoch, result.best_value) == (2, None)
    assert result.epochs == 2


def test_errors(tmp_path: Path, data: Split) -> None:
    with pytest.raises(ValueError, match="hidden_size must be a multiple of num_attention_heads"):
        train(small(plain(), num_attention_heads=3), data, tmp_path)
    single = leave_one_out(make_interactions([0, 1], [1], 5))
    with pytest.raises(ValueError, match="at least 2 items"):
        train(small(plain()), single, tmp_path)
    rows = IdMap(("ann", "bob"), ("x", "y", "z"))
    everything = replace(make_interactions([0, 5, 7], [1, 2, 3, 1, 2, 1, 2], 3), id_map=rows)
    with pytest.raises(ValueError, match="user ann has all 3 items"):
        train(small(plain()), leave_one_out(everything), tmp_path)


def test_weights_that_are_not_finite(data: Split) -> None:
    run = SequenceRun(small(plain()), data)
    assert run.validate()
    with torch.no_grad():
        run.model.item_emb.weight[3, 2] = torch.inf
    message = r"item_emb\.weight is not finite; a smaller lr may help"
    with pytest.raises(FloatingPointError, match=message):
        run.validate()


def test_long_windows_go_without_mining() -> None:
    assert replace(plain(), max_length=257).max_length == 257
    assert replace(consistency(), max_length=256).max_length == 256


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization": "balanced"},
        {"distribution": "popularity"},
        {"order": "shuffle"},
        {"teacher_mode": "eval"},
        {"max_reversed_share": 0.01},
        {"max_keys": 50},
        {"device.precision": "bfloat16"},
        {"device.precision": "float16"},
        {"optimizer.weight_decay": 0.1},
        {"optimizer.clip_norm": 0.5},
        {"schedule.kind": "cosine", "schedule.warmup_steps": 3},
        {"loop.log_every_steps": 2, "loop.validate_every_steps": 5},
        {"l2_emb": 0.1},
        {"loss": "gbce", "normalization": "balanced"},
        {"loss": "sampled_softmax", "alpha": 0.0, "device.precision": "float16"},
        {"loss": "sampled_softmax", "alpha": 0.0, "distribution": "popularity", "log_q": "all"},
        {"loss": "cross_entropy", "alpha": 0.0, "mining": False, "device.precision": "bfloat16"},
    ],
    ids=str,
)
@pytest.mark.filterwarnings("ignore:FalseNegativeMemory evicted")
def test_every_option_trains(tmp_path: Path, data: Split, changes: dict[str, Any]) -> None:
    config = small(consistency(), start=2, threshold=0, epochs=3, **changes)
    assert np.isfinite(train(config, data, tmp_path).history[-1]["loss"])


# Several processes.


@pytest.mark.parametrize(
    "changes",
    [
        {"normalization": "mean"},
        {"normalization": "balanced"},
        {"loss": "gbce"},
        {"loss": "sampled_softmax", "alpha": 0.0, "distribution": "popularity"},
        {"loss": "cross_entropy", "alpha": 0.0, "mining": False},
    ],
    ids=str,
)
def test_two_processes_do_what_one_does(
    tmp_path: Path, margins: list[float], changes: dict[str, Any]
) -> None:
    """The memory is equal, and the weights are up to rounding: shares are smaller batches."""
    data = make_data(seed=2)
    changes = {"dropout": 0.0, "l2_emb": 0.01, **changes}
    config = small(consistency(), batch_size=9, start=3, threshold=0, epochs=4, **changes)
    train(config, data, tmp_path / "one")
    assert min(margins, default=1) > 1e-4
    (tmp_path / "config.json").write_text(json.dumps(config_to_dict(config)))
    worker = """
import json, sys
from pathlib import Path
from lmcore.recsys.data import leave_one_out, make_interactions
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.training import train
from lmcore.training.config import config_from_dict
folder = Path(sys.argv[1])
rows = json.loads((folder / "rows.json").read_text())
data = leave_one_out(make_interactions(*rows))
config = config_from_dict(TrainConfig, json.loads((folder / "config.json").read_text()))
train(config, data, folder / "two")
"""
    interactions = data.interactions
    rows = [interactions.offsets.tolist(), interactions.items.tolist(), data.item_count]
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {
        **os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }  # fmt: skip
    workers = [
        warm.start(worker, tmp_path, env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)})
        for rank in range(2)
    ]
    for process in workers:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    one, two = states(tmp_path / "one"), states(tmp_path / "two")
    assert_same(one["miner"], two["miner"])
    assert_same(one["model"], two["model"], 1e-5)
    assert_same(one["teacher"], two["teacher"], 1e-5)
    assert_same(one["loss_sums"], two["loss_sums"], 1e-4)


# That it learns.


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec", "fmlp", "ligr"])
def test_the_next_item_of_a_cycle_is_learnt(tmp_path: Path, backbone: str) -> None:
    """Users walk along cycles of 12 items; popularity tells nothing, order everything."""
    generator = np.random.default_rng(0)
    starts, cycles = generator.integers(0, 12, 200), generator.integers(0, 5, 200)
    steps = np.arange(8)
    items = (starts[:, None] + steps) % 12 + 12 * cycles[:, None] + 1
    data = leave_one_out(make_interactions(np.arange(0, 1601, 8), items.ravel(), 60))
    changes = {"batch_size": 32, "hidden_size": 16, "negatives": 20, "eval_every": 20}
    config = small(
        plain(),
        **changes,
        **{"optimizer.lr": 0.01},
        backbone=backbone,
        dropout=0.1,
        epochs=60,
    )
    result = train(config, data, tmp_path)
    assert result.best_value is not None
    assert result.best_value > 0.9
