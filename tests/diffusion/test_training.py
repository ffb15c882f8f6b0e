"""Training of text diffusion: its loss, its average, going on after a kill, and what is refused."""

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import warm
from lmcore.diffusion.models import load_model
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.recipes import distilled
from lmcore.diffusion.training import DiffusionRun, train
from lmcore.training.config import change
from lmcore.training.seeding import seed_torch
from tiny_diffusion import SMALL, make_pairs, make_tokenizer, small

PAIRS = make_pairs(20)
GIVEN: dict[str, Any] = {"tokenizer": make_tokenizer(), "valid": make_pairs(7, seed=1)}
PENALTIES = ("none", "l2", "l2_noise", "l2_noise_random", "cosine", "near_far")


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def best_weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "best" / "model.safetensors")


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in line.items() if "second" not in k} for line in lines]


def define_step(run: DiffusionRun, step: int) -> tuple[float, list[float]]:
    """The loss of a step and of its rows, pass by pass, by section 5.1 of the specification."""
    size, rows = run.config.micro_batch_size, run.config.batch_size
    drawn = run.timesteps.draw(step, rows)
    indices = run.batches.find(step, slice(rows))
    a = torch.from_numpy(run.process.alphas_cumprod)
    losses: list[float] = []
    for number, first in enumerate(range(0, rows, size)):
        part = indices[first : first + size]
        ids = torch.from_numpy(run.data.ids[part]).long()
        mask = torch.from_numpy(run.data.target_mask[part])
        seed_torch(run.config.loop.seed, step, number)
        shape = (*ids.shape, run.model.config.latent_size)
        start, *noises = (torch.randn(shape) for _ in range(1 + len(drawn.views)))
        emb = run.model.word_embedding(ids)
        x = emb + (1 - a[0]).sqrt().float() * start
        f, mse = [], torch.zeros(len(part))
        for view, noise in zip(drawn.views, noises, strict=True):
            t = torch.from_numpy(view[first : first + size])
            left = a[t].float()[:, None, None]
            noisy = torch.where(mask[..., None], left.sqrt() * x + (1 - left).sqrt() * noise, x)
            f.append(run.model(noisy, t * 1000 / run.process.steps))
            mse += (emb - f[-1]).square().mean((1, 2))
        count = len(drawn.views)
        logits = run.model.lm_head(x).log_softmax(-1)
        nll = -logits.gather(2, ids[..., None]).squeeze(2).mean(1)
        prior = (a[-1].sqrt().float() * x).square().mean((1, 2))
        total = mse + count * (nll + prior)
        if run.config.penalty.kind.startswith("l2"):
            t, u = (torch.from_numpy(view[first : first + size]) for view in drawn.views)
            counts = u != t if "noise" in run.config.penalty.kind else (u > 0) & (u < len(a) - 1)
            total = total + counts * 2.0 * (f[1] - f[0]).square().mean((1, 2))
        losses += (total / 2).tolist()
    weighted = np.array(losses) * drawn.weights
    return float(weighted.mean()), losses


# A step.


@pytest.mark.parametrize("kind", ["none", "l2", "l2_noise", "l2_noise_random"])
@pytest.mark.parametrize("timesteps", ["uniform", "loss_aware"])
def test_the_loss_is_the_specifications(kind: str, timesteps: str) -> None:
    changes = {"penalty.kind": kind, "timesteps": timesteps, "shape.dropout": 0.0}
    # Few enough steps that the histories of the loss-aware sampler fill.
    changes |= {"diffusion_steps": 2, "penalty.distance": 1, "penalty.tolerance": 0.9}
    run = DiffusionRun(small(**changes), PAIRS, **GIVEN)
    for step in range(1, 9):
        with torch.no_grad():
            expected, _ = define_step(run, step)
        assert float(run.step(step)["loss"]) == pytest.approx(expected, rel=1e-5)
    if timesteps == "loss_aware":
        assert run.timesteps.sampler is not None
        assert run.timesteps.sampler.weigh() is not None


def test_every_penalty_trains_another_model() -> None:
    ends = []
    for kind in PENALTIES:
        changes = {"penalty.kind": kind, "penalty.far_distance": 20, "shape.dropout": 0.0}
        run = DiffusionRun(small(**changes), PAIRS, **GIVEN)
        run.step(1)  # warm-up: of no size
        values = run.step(2)
        assert bool(torch.isfinite(values["loss"]))
        assert (float(values["penalty"]) == 0) == (kind == "none")
        ends.append(run.model.input_up_proj[0].weight.detach().flatten().tolist())
    assert len(set(map(tuple, ends))) == len(PENALTIES)


def test_a_penalty_draws_estimates_together() -> None:
    found = {}
    for weight in (0.0, -50.0):
        changes = {"penalty.kind": "l2_noise_random", "penalty.weight": weight, "batch_size": 24}
        changes |= {"micro_batch_size": 24, "shape.dropout": 0.0, "schedule.final_share": 1.0}
        run = DiffusionRun(small(**changes), PAIRS, **GIVEN)
        for step in range(1, 60):
            run.step(step)
        run.penalty = type(run.penalty)(kind="l2_noise_random", weight=-1.0)
        found[weight] = np.mean([float(run.step(step)["penalty"]) for step in range(60, 70)])
    assert found[-50.0] < 0.7 * found[0.0]


def test_training_learns() -> None:
    changes = {"batch_size": 12, "micro_batch_size": 12, "schedule.final_share": 1.0}
    run = DiffusionRun(small(**changes), PAIRS, **GIVEN)
    before = run.validate()
    for step in range(1, 80):
        run.step(step)
    after = run.validate()
    assert after["loss"] < 0.8 * before["loss"]
    assert after["error"] < 0.8 * before["error"]


def test_recomputed_layers_give_the_same_weights() -> None:
    ends = []
    for recompute in (False, True):
        run = DiffusionRun(small(**{"device.recompute": recompute}), PAIRS, **GIVEN)
        for step in (1, 2):
            run.step(step)
        ends.append([p.detach() for p in run.model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))


def test_half_precision() -> None:
    whole = DiffusionRun(small(), PAIRS, **GIVEN)
    half = DiffusionRun(small(**{"device.precision": "bfloat16"}), PAIRS, **GIVEN)
    for step in (1, 2, 3):
        expected, values = whole.step(step), half.step(step)
        assert float(values["loss"]) == pytest.approx(float(expected["loss"]), abs=0.02)
    assert {p.dtype for p in half.model.parameters()} == {torch.float32}


# Validation and what is saved.


def test_what_is_saved_is_the_average(tmp_path: Path) -> None:
    config = small(**{"loop.validate_every_steps": 5})
    train(config, PAIRS, tmp_path, **GIVEN)
    run = DiffusionRun(config, PAIRS, **GIVEN)
    expected = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    for step in range(1, 6):
        run.step(step)
        decay = min(0.9, (1 + step) / (10 + step))
        for name, p in run.model.named_parameters():
            expected[name] = decay * expected[name] + (1 - decay) * p.detach()
    found = best_weights(tmp_path)
    for name, value in expected.items():
        if name in found:
            assert torch.allclose(found[name], value, atol=1e-6), name
    own = dict(run.model.named_parameters())
    assert any(not torch.equal(found[name], own[name]) for name in found if name in own)


def test_validation_is_the_same_each_time_and_leaves_the_weights(tmp_path: Path) -> None:
    run = DiffusionRun(small(), PAIRS, **GIVEN)
    run.step(1)
    before = [p.detach().clone() for p in run.model.parameters()]
    assert run.validate() == run.validate()
    assert all(torch.equal(a, b) for a, b in zip(before, run.model.parameters(), strict=True))
    with torch.no_grad():
        next(run.model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(FloatingPointError, match="is not finite; a smaller lr may help"):
        run.validate()


def test_the_best_model_is_what_validation_saw(tmp_path: Path) -> None:
    result = train(small(), PAIRS, tmp_path, **GIVEN)
    values = [line["metrics"]["loss"] for line in result.history if "metrics" in line]
    assert result.best_value == min(values)
    config = small(model=str(tmp_path), average=0.0)
    again = DiffusionRun(config, PAIRS, valid=GIVEN["valid"])
    assert again.validate()["loss"] == pytest.approx(result.best_value, abs=1e-6)
    assert load_model(tmp_path).config.diffusion_steps == 60


def test_going_on_from_a_model_takes_its_process(tmp_path: Path) -> None:
    """The settings of what is made anew do not count."""
    train(small(noise_schedule="linear"), PAIRS, tmp_path / "one", **GIVEN)
    config = small(model=str(tmp_path / "one"), diffusion_steps=7)
    run = DiffusionRun(config, PAIRS)
    assert run.process.steps == 60
    assert run.model.config.noise_schedule == "linear"


def test_a_model_is_not_overwritten(tmp_path: Path) -> None:
    train(small(), PAIRS, tmp_path, **GIVEN)
    for name in ("model", "distill.teacher"):
        for model in (tmp_path, tmp_path / "best"):
            config = small(model=str(model))
            if name != "model":
                config = distilled(small(), str(model))
            with pytest.raises(ValueError, match="the output is an input too"):
                train(config, PAIRS, tmp_path, resume=False)
    assert (tmp_path / "best" / "config.json").is_file()


# Going on.


@pytest.mark.parametrize("timesteps", ["uniform", "loss_aware"])
def test_a_run_goes_on_to_the_same_bits(tmp_path: Path, timesteps: str) -> None:
    changes = {"timesteps": timesteps, "penalty.kind": "l2_noise_random", "diffusion_steps": 2}
    changes |= {"penalty.tolerance": 0.9}
    config = small(**{**changes, "schedule.kind": "constant", "schedule.final_share": 0.0})
    whole = train(config, PAIRS, tmp_path / "whole", **GIVEN)
    first = change(config, {"loop.steps": 3})
    assert train(first, PAIRS, tmp_path / "parts", **GIVEN).steps == 3
    parts = train(config, PAIRS, tmp_path / "parts", **GIVEN)
    assert parts.resumed_after == 3
    assert without_times(parts.history)[-1] == without_times(whole.history)[-1]
    one, two = best_weights(tmp_path / "whole"), best_weights(tmp_path / "parts")
    assert all(torch.equal(one[name], two[name]) for name in one)


_KILLED = """
import sys
from tiny_diffusion import make_pairs, make_tokenizer, small
from lmcore.diffusion.training import train
train(small(**{"loop.steps": 60}), make_pairs(20), sys.argv[1],
      tokenizer=make_tokenizer(), valid=make_pairs(7, seed=1))
"""


@pytest.mark.alone
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    import time

    process = warm.start(_KILLED, tmp_path / "killed", stdout=None, stderr=None)
    states = tmp_path / "killed" / "states"
    while process.poll() is None and not [*states.glob("step-*")]:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    config = small(**{"loop.steps": 60})
    again = train(config, PAIRS, tmp_path / "killed", **GIVEN)
    assert again.resumed_after > 0
    whole = train(config, PAIRS, tmp_path / "whole", **GIVEN)
    assert again.best_value == whole.best_value
    one, two = best_weights(tmp_path / "whole"), best_weights(tmp_path / "killed")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_another_recipe_or_other_pairs_are_refused(tmp_path: Path) -> None:
    train(small(), PAIRS, tmp_path, **GIVEN)
    with pytest.raises(FileExistsError, match=r"penalty\.kind"):
        train(small(**{"penalty.kind": "l2"}), PAIRS, tmp_path, **GIVEN)
    with pytest.raises(FileExistsError, match="data"):
        train(small(), make_pairs(20, seed=5), tmp_path, **GIVEN)


def test_a_recipe_says_where_all_came_from(tmp_path: Path) -> None:
    train(small(), PAIRS, tmp_path / "run", **GIVEN, data_path="a.jsonl", valid_path="b.jsonl")
    recipe = json.loads((tmp_path / "run" / "recipe.json").read_text())
    assert recipe["data"]["path"].endswith("/a.jsonl")
    assert recipe["data"]["pairs"] == 20
    assert recipe["config"]["shape"]["latent_size"] == SMALL["shape.latent_size"]


# What is refused.


def test_no_pairs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there are no pairs to train on"):
        train(small(), [], tmp_path, **GIVEN)


def test_a_tokenizer_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tokenizer must be given where no model is"):
        train(small(), PAIRS, tmp_path)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    from lmcore.diffusion.tokenization import make_bert_tokenizer

    few = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
    train(small(), [Pair("a", "b")] * 3, tmp_path / "few", tokenizer=few)
    config = small(model=str(tmp_path / "few"))
    with pytest.raises(ValueError, match="the model knows those below 6"):
        DiffusionRun(config, PAIRS, tokenizer=make_tokenizer())
    with pytest.raises(ValueError, match="length must be at most the 64 positions of the model"):
        DiffusionRun(change(config, {"length": 65}), [Pair("a", "b")])


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"length": 65}, "length must be at most the 64 positions of shape: got 65"),
        ({"length": 7}, "length must be at least 8"),
        ({"shape.heads": 3}, "hidden_size must be a multiple of heads: got 16 and 3"),
        ({"shape.time_size": 3}, "time_size must be even: got 3"),
        ({"penalty.kind": "l2", "penalty.weight": 1.0}, "weight must not be above 0 with l2"),
        ({"penalty.kind": "l3"}, r"penalty\.kind must be"),
        ({"loop.metric": "bleu"}, r"loop\.metric must be loss or error: got 'bleu'"),
        ({"loop.metric_mode": "max"}, r"loop\.metric_mode must be min"),
        ({"average": 1.0}, "average must be at least 0 and below 1"),
        ({"penalty.tolerance": 0.0}, "tolerance must be above 0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_settings_outside_of_their_ranges(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        small(**changes)


@pytest.mark.parametrize("name", ["distance", "far_distance"])
def test_views_that_lie_farther_apart_than_there_are_steps_are_refused(name: str) -> None:
    changes = {"penalty.kind": "near_far", "penalty.far_distance": 9, f"penalty.{name}": 60}
    with pytest.raises(ValueError, match=f"penalty.{name} must be below the 60 steps: got 60"):
        DiffusionRun(small(**changes), PAIRS, **GIVEN)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        DiffusionRun(small(noise_schedule="quadratic"), PAIRS, **GIVEN)
