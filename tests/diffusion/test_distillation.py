"""Progressive distillation: its target, its halvings, going on after a kill, what is refused."""

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import workers
from commands import check_line, run_here
from lmcore.diffusion.distillation import DistillationRun, Halving, plan_halvings
from lmcore.diffusion.models import load_model, make_model, save_model
from lmcore.diffusion.recipes import DistillConfig, TrainConfig, distilled
from lmcore.diffusion.sampling import Sampler, ddim_step, sample_latents
from lmcore.diffusion.training import DiffusionRun, train
from lmcore.ops.schedule import adaptive_timesteps, make_betas
from lmcore.training.config import change
from lmcore.training.seeding import seed_torch
from tiny_diffusion import draw, make_pairs, make_tokenizer, small
from tiny_diffusion import make_model as make_network

PAIRS = make_pairs(20)
VALID = make_pairs(7, seed=1)
TOKENIZER = make_tokenizer()


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("teacher")
    torch.manual_seed(0)
    model = make_model(small(**{"shape.dropout": 0.0}), TOKENIZER)
    with torch.no_grad():  # or all its estimates are alike, and there is nothing to learn
        model.time_embed[2].weight *= 20
    save_model(model, TOKENIZER, folder)
    return folder


def settings(teacher: Path, **changes: Any) -> TrainConfig:
    """Two halvings of three steps each: from 8 of 60 timesteps to 4, and to 2."""
    sizes = {"distill.first_steps": 8, "distill.halvings": 2, "loop.steps": 6}
    return change(distilled(small(), str(teacher)), {**sizes, "average": 0.5, **changes})


def make_run(teacher: Path, **changes: Any) -> DistillationRun:
    return DistillationRun(settings(teacher, **changes), PAIRS, VALID)


# The target.


def define_target(
    betas: np.ndarray[Any, Any],
    times: tuple[int, int, int | None],
    z: Tensor,
    x: Callable[[Tensor, int], Tensor],
) -> tuple[Tensor, Tensor]:
    """Algorithm 2 for one latent: the target, and where the teacher's two steps lead.

    With alpha and sigma of each time, those of no time being 1 and 0: z has alpha x + sigma e.
    """
    left = np.cumprod(1 - betas)

    def weigh(time: int | None) -> tuple[float, float]:
        return (1.0, 0.0) if time is None else (left[time] ** 0.5, (1 - left[time]) ** 0.5)

    def go(z: Tensor, start: int, end: int | None) -> Tensor:
        (alpha, sigma), (alpha_end, sigma_end), text = weigh(start), weigh(end), x(z, start)
        return alpha_end * text + sigma_end / sigma * (z - alpha * text)

    t, t1, t2 = times
    z2 = go(go(z, t, t1), t1, t2)
    (alpha, sigma), (alpha2, sigma2) = weigh(t), weigh(t2)
    return (z2 - sigma2 / sigma * z) / (alpha2 - sigma2 / sigma * alpha), z2


@pytest.mark.parametrize("schedule", ["sqrt", "cosine", "linear"])
@pytest.mark.parametrize("kept", [[0, 39], [3, 20, 21, 39], adaptive_timesteps(40, 8)[::-1]])
def test_a_step_of_the_student_is_two_of_the_teacher(schedule: str, kept: list[int]) -> None:
    """For any network and any latents, at every step; and the target is that of the paper."""
    betas = make_betas(schedule, 40)
    halving, model = Halving(betas, kept), make_network(1).double().float()
    count = len(kept) // 2
    steps = torch.arange(count)
    states, sources = draw(count, 5, 6, seed=2), draw(count, 5, 6, seed=3)
    mask = torch.ones(count, 5, dtype=torch.bool)
    targets = halving.find_targets(model, states, steps, sources, mask)
    assert not targets.requires_grad

    def estimate(z: Tensor, time: int) -> Tensor:
        with torch.no_grad():
            return model(z, torch.full((len(z),), time * 1000 / 40))

    for k in range(count):
        own = slice(k, k + 1)
        times = (kept[2 * k + 1], kept[2 * k], kept[2 * k - 1] if k else None)
        expected, end = define_target(betas, times, states[own], estimate)
        assert torch.allclose(targets[own], expected, rtol=1e-3, atol=1e-4)
        reached = ddim_step(halving.student, k, states[own], targets[own], None)
        assert torch.allclose(reached, end, atol=1e-5)
        again = halving.step(targets[own], states[own], steps[own])
        assert torch.allclose(again, end, atol=1e-5)


def test_a_perfect_student_samples_what_its_teacher_does() -> None:
    """Through the sampler that users have, sources anchored: half as many steps, the same end."""
    betas, kept = make_betas("sqrt", 40), adaptive_timesteps(40, 8)[::-1]
    halving, model = Halving(betas, kept), make_network(1)
    sources = draw(2, 5, 6, seed=3)
    mask = torch.tensor([[False, False, True, True, True], [False, True, True, True, True]])

    def imitate(latents: Tensor, times: Tensor) -> Tensor:
        told = halving.student.scale_times(torch.arange(halving.student.steps))
        steps = (told[None] == times[:, None]).long().argmax(1)
        return halving.find_targets(model, latents, steps, sources, mask)

    ends = [
        sample_latents(
            denoise, process, draw(9, 6), sources, mask, start=draw(2, 5, 6, seed=4),
            noise=lambda step: torch.zeros(()), sampler=Sampler(solver="ddim", clamp=False),
        )
        for denoise, process in ((model, halving.teacher), (imitate, halving.student))
    ]  # fmt: skip
    assert torch.allclose(*ends, atol=1e-5)
    assert torch.equal(ends[1][~mask], sources[~mask])


# Which steps are halved.


def test_halvings_keep_every_other_timestep() -> None:
    plan = plan_halvings(2000, DistillConfig())
    assert [len(kept) for kept in plan] == [64, 32, 16, 8, 4]
    assert plan[0] == adaptive_timesteps(2000, 64)[::-1]
    for before, after in pairwise(plan):
        assert after == before[1::2]
    assert {kept[-1] for kept in plan} == {1999}
    uniform = plan_halvings(100, DistillConfig(first_steps=2, halvings=1, spacing="uniform"))
    assert uniform == [[0, 99], [99]]
    known = [3, 5, 60, 99]
    assert plan_halvings(100, DistillConfig(first_steps=4, halvings=1), known)[1] == [5, 99]


def test_halvings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="first_steps must be a multiple of 8 to be halved 3"):
        DistillConfig(first_steps=12, halvings=3)
    with pytest.raises(ValueError, match="at most the 40 timesteps of the teacher: got 64"):
        plan_halvings(40, DistillConfig())
    with pytest.raises(ValueError, match="must be the 3 steps that the teacher was distilled for"):
        plan_halvings(40, DistillConfig(first_steps=4, halvings=1), [0, 3, 39])
    with pytest.raises(ValueError, match="kept must be an even number of timesteps: got 3"):
        Halving(make_betas("sqrt", 40), [0, 3, 39])


# The run.


def test_the_loss_is_that_of_the_target(teacher: Path) -> None:
    """Of rows at steps of the student, sources without noise, at target positions alone."""
    run = make_run(teacher, micro_batch_size=6)
    drawn = run.timesteps.draw(1, 6).views[0]
    rows = run.batches.find(1, slice(6))
    ids = torch.from_numpy(run.data.ids[rows]).long()
    mask = torch.from_numpy(run.data.target_mask[rows])
    seed_torch(run.config.loop.seed, 1, 0)
    start, noise = torch.randn(6, 32, 8), torch.randn(6, 32, 8)
    betas = make_betas("sqrt", 60)
    kept, left = run.plan[1], np.cumprod(1 - betas)
    assert run.plan[0] == adaptive_timesteps(60, 8)[::-1]
    losses = []
    with torch.no_grad():
        emb = run.model.word_embedding(ids)
        for k, row in zip(drawn, range(6), strict=True):
            a = float(left[kept[k]])
            clean = emb[row] + (1 - left[0]) ** 0.5 * start[row]
            x = torch.where(
                mask[row, :, None], a**0.5 * clean + (1 - a) ** 0.5 * noise[row], emb[row]
            )
            own = slice(row, row + 1)
            target = run.halvings[0].find_targets(
                run.teacher, x[None], torch.tensor([k]), emb[own], mask[own]
            )
            f = run.model(x[None], torch.tensor([kept[k] * 1000 / 60]))
            losses.append(float((f - target)[0, mask[row]].square().mean()))
    values = run.step(1)
    assert float(values["loss"]) == pytest.approx(np.mean(losses), rel=1e-5)
    assert int(values["student_steps"]) == 4


def test_the_averaged_student_is_the_next_teacher(teacher: Path) -> None:
    run = make_run(teacher)
    first = {n: p.clone() for n, p in run.teacher.named_parameters()}
    for step in (1, 2, 3):
        run.step(step)
        assert all(torch.equal(p, first[n]) for n, p in run.teacher.named_parameters())
    assert run.optimizer.adam.param_groups[0]["lr"] > 0
    assert run.average is not None
    averages = [value.clone() for value in run.average.values]
    assert run.validate() == {}
    assert int(run.step(4)["student_steps"]) == 2
    # The warm-up begins anew, and with it a step size of 0.
    assert run.optimizer.adam.param_groups[0]["lr"] == 0
    changed = [not torch.equal(p, first[n]) for n, p in run.teacher.named_parameters()]
    assert any(changed)
    for value, p in zip(averages, run.teacher.parameters(), strict=True):
        assert torch.equal(value, p)
    assert run.average.update_count == 1
    assert set(run.validate()) == {"loss", "error"}
    words = dict(run.model.named_parameters())["word_embedding.weight"]
    assert torch.equal(words, first["word_embedding.weight"])
    assert not words.requires_grad


@pytest.mark.parametrize(
    "changes", [{"average": 0.0}, {"device.precision": "bfloat16"}, {"device.recompute": True}]
)
def test_other_ways_to_compute_halve_as_well(teacher: Path, changes: dict[str, Any]) -> None:
    plain, run = make_run(teacher, average=0.0), make_run(teacher, **changes)
    for step in range(1, 6):
        expected, values = plain.step(step), run.step(step)
        assert float(values["loss"]) == pytest.approx(float(expected["loss"]), rel=0.2)
    assert run.process.steps == 2
    assert np.isfinite(run.validate()["error"])


def test_distillation_learns(teacher: Path) -> None:
    changes = {"loop.steps": 80, "distill.halvings": 1, "distill.first_steps": 2}
    changes |= {"batch_size": 12, "micro_batch_size": 12, "optimizer.lr": 0.01}
    run = make_run(teacher, **changes)
    before = run.validate()["error"]
    for step in range(1, 81):
        run.step(step)
    assert run.validate()["error"] < 0.7 * before


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "best" / "model.safetensors")


@pytest.mark.parametrize("last", [2, 3, 5])
def test_a_run_that_ends_early_goes_on_to_the_same_bits(
    teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    """Within a halving, at its end, and where its teacher is no file of the user's."""
    whole = train(settings(teacher), PAIRS, tmp_path / "whole", valid=VALID)
    step = DistillationRun.step

    def fail(run: DistillationRun, number: int) -> dict[str, Tensor]:
        if number > last:
            raise MemoryError
        return step(run, number)

    with monkeypatch.context() as patch:
        patch.setattr(DistillationRun, "step", fail)
        with pytest.raises(MemoryError):
            train(settings(teacher), PAIRS, tmp_path / "parts", valid=VALID)
    parts = train(settings(teacher), PAIRS, tmp_path / "parts", valid=VALID)
    assert parts.resumed_after == last
    assert parts.best_value == whole.best_value
    one, two = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_the_best_model_is_one_of_the_last_halving_and_says_its_steps(
    teacher: Path, tmp_path: Path
) -> None:
    result = train(settings(teacher), PAIRS, tmp_path / "run", valid=VALID)
    assert result.best_step > 3
    metrics = {line["step"]: line.get("metrics") for line in result.history}
    assert metrics[2] == {}
    assert metrics[6] is not None
    model = load_model(tmp_path / "run")
    kept = adaptive_timesteps(60, 8)[::-1][3::4]
    assert model.config.distilled_timesteps == kept
    # It is a teacher of its own steps, and of no others.
    again = settings(tmp_path / "run", **{"distill.first_steps": 2, "distill.halvings": 1})
    assert DistillationRun(again, PAIRS).plan == [kept, [59]]
    with pytest.raises(ValueError, match="must be the 2 steps that the teacher was distilled for"):
        make_run(tmp_path / "run")
    # What is trained after it is no longer that.
    plain = DiffusionRun(small(model=str(tmp_path / "run")), PAIRS)
    assert plain.model.config.distilled_timesteps is None


def test_another_teacher_is_another_run(teacher: Path, tmp_path: Path) -> None:
    changes = {"schedule.kind": "constant", "schedule.final_share": 0.0}
    train(settings(teacher, **changes), PAIRS, tmp_path / "run", valid=VALID)
    torch.manual_seed(1)
    save_model(make_model(small(), TOKENIZER), TOKENIZER, tmp_path / "other")
    with pytest.raises(FileExistsError, match="data"):
        train(settings(tmp_path / "other", **changes), PAIRS, tmp_path / "run", valid=VALID)
    longer = settings(teacher, **changes, **{"loop.steps": 8})
    with pytest.raises(FileExistsError, match=r"loop\.steps"):
        train(longer, PAIRS, tmp_path / "run", valid=VALID)


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"halving": 2}, "halving must be one of 2: got 2"),
        ({"halving": True}, "halving must be one of 2: got True"),
        ({"halving": 1}, "teacher must be there behind the first halving"),
        ({"halving": 1, "teacher": {}}, "teacher must hold the"),
    ],
)
def test_a_state_of_something_else(teacher: Path, state: dict[str, Any], problem: str) -> None:
    run = make_run(teacher)
    with pytest.raises(ValueError, match=problem):
        run.load_state_dict({**run.state_dict(), **state})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"penalty.kind": "l2"}, r"penalty\.kind must be none with distill\.teacher: got l2"),
        ({"timesteps": "loss_aware"}, "timesteps must be uniform with distill.teacher"),
        ({"model": "a"}, r"model has no meaning with distill\.teacher"),
        ({"loop.steps": 7}, "loop.steps must be a multiple of the 2 halvings"),
        ({"distill.first_steps": 64}, "at most the 60 timesteps of the teacher: got 64"),
    ],
)
def test_settings_that_do_not_go_together(
    teacher: Path, changes: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        make_run(teacher, **changes)


_SHARED = """
import sys
from lmcore.diffusion.recipes import distilled
from lmcore.diffusion.training import train
from lmcore.training.config import change
from tiny_diffusion import make_pairs, small
config = change(distilled(small(), sys.argv[1]), {
    "distill.first_steps": 8, "distill.halvings": 2, "loop.steps": 6, "average": 0.5,
    "device.sharding": "full", "batch_size": 4, "loop.keep_states": 9})
print(train(config, make_pairs(20), sys.argv[2], valid=make_pairs(7, seed=1)).best_value)
"""


def test_processes_share_a_student(teacher: Path, tmp_path: Path) -> None:
    """Two hold shards of the student and all of its teacher; then one goes on alone."""
    first, second = workers.run(_SHARED, 2, teacher, tmp_path / "run")
    assert first == second
    alone = settings(teacher, **{"batch_size": 4, "loop.keep_states": 9})
    one = train(alone, PAIRS, tmp_path / "alone", valid=VALID)
    assert one.best_value == pytest.approx(float(first), abs=1e-6)
    for state in (tmp_path / "run" / "states").iterdir():
        if state.name > "step-4":  # the second halving goes on from its first step
            shutil.rmtree(state)
    parts = train(alone, PAIRS, tmp_path / "run", valid=VALID)
    assert parts.resumed_after == 4
    assert parts.best_value == pytest.approx(float(first), abs=1e-6)


# The command.


def test_the_command(teacher: Path, tmp_path: Path) -> None:
    data = tmp_path / "train.jsonl"
    rows = [{"src": pair.source, "trg": pair.target} for pair in PAIRS]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    given = ["diffusion", "train", "tiny", "--data", data, "--distill", teacher]
    given += ["--steps", 2, "--set", "distill.first_steps=4", "--set", "distill.halvings=2"]
    given += ["--set", "batch_size=2", "--set", "micro_batch_size=2", "--device", "cpu", "--quiet"]
    given += ["--set", "schedule.warmup_steps=0", "--threads", 1, "--out", tmp_path / "run"]
    code, output, errors = run_here(*given)
    assert (code, errors) == (0, ""), errors
    assert json.loads(output)["steps"] == 2
    assert load_model(tmp_path / "run").config.distilled_timesteps == [59]
    wrong = [*given[:-1], tmp_path / "wrong", "--set", "penalty.kind=l2"]
    check_line(run_here(*wrong), "penalty.kind must be none with distill.teacher")
