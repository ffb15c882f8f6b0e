"""Steps of the optimizer against torch's own, schedules against transformers', and float16."""

from typing import Any

import pytest
import torch
from torch import nn
from transformers import get_scheduler

from lmcore.training.config import DeviceConfig, OptimizerConfig, ScheduleConfig
from lmcore.training.optimizer import Optimizer


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2))


def walk(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        torch.manual_seed(step)
        with optimizer.autocast():
            loss = model(torch.randn(3, 4)).square().sum()
        optimizer.backward(loss)
        optimizer.update(step)


def test_without_decay_it_is_adam_bit_for_bit() -> None:
    one, two = make(), make()
    ours = Optimizer(one, OptimizerConfig(lr=0.01, betas=(0.9, 0.98)))
    adam = torch.optim.Adam(two.parameters(), lr=0.01, betas=(0.9, 0.98), fused=True)
    for step in range(1, 20):
        walk(one, ours, range(step, step + 1))
        torch.manual_seed(step)
        adam.zero_grad()
        two(torch.randn(3, 4)).square().sum().backward()
        adam.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_vectors_do_not_decay() -> None:
    model = make()
    optimizer = Optimizer(model, OptimizerConfig(lr=0.1, weight_decay=0.5))
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.update(1)
    for old, new in zip(before, model.parameters(), strict=True):
        expected = old * 0.95 if old.ndim == 2 else old
        torch.testing.assert_close(new.detach(), expected)


def test_gradients_are_clipped_together() -> None:
    """One step of Adam has the same size whatever the gradient is: the moments tell."""
    model = make()
    optimizer = Optimizer(model, OptimizerConfig(clip_norm=0.5))
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 3.0)
    optimizer.update(1)
    moments = optimizer.state_dict()["moments"].values()
    norm = sum(float((m["exp_avg"] / 0.1).square().sum()) for m in moments) ** 0.5
    assert norm == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize(
    ("config", "name", "options"),
    [
        (ScheduleConfig(), "constant", {}),
        (ScheduleConfig(warmup_steps=4), "constant_with_warmup", {}),
        (ScheduleConfig(kind="linear", warmup_steps=4), "linear", {}),
        (ScheduleConfig(kind="cosine", warmup_steps=4), "cosine", {}),
        (
            ScheduleConfig(kind="cosine", warmup_steps=4, final_share=0.1),
            "cosine_with_min_lr", {"min_lr_rate": 0.1},
        ),
        (ScheduleConfig(kind="inverse_sqrt", warmup_steps=4), "inverse_sqrt", {}),
        (
            ScheduleConfig(kind="stable", warmup_steps=4, decay_steps=6, final_share=0.2),
            "warmup_stable_decay", {"num_decay_steps": 6, "min_lr_ratio": 0.2},
        ),
    ],
)  # fmt: skip
def test_schedules_are_those_of_transformers(
    config: ScheduleConfig, name: str, options: dict[str, Any]
) -> None:
    optimizer = Optimizer(make(), OptimizerConfig(lr=0.5), config, steps=20)
    sgd = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    theirs = get_scheduler(
        name, sgd, num_warmup_steps=4, num_training_steps=20, scheduler_specific_kwargs=options
    )
    for step in range(1, 21):
        assert 0.5 * optimizer.get_lr_share(step) == pytest.approx(theirs.get_last_lr()[0])
        sgd.step()
        theirs.step()


def test_a_cosine_does_not_rise_again() -> None:
    config = ScheduleConfig(kind="cosine", warmup_steps=2, decay_steps=10, final_share=0.25)
    optimizer = Optimizer(make(), OptimizerConfig(), config)
    assert [optimizer.get_lr_share(step) for step in (3, 8)] == pytest.approx([1, 0.625])
    assert [optimizer.get_lr_share(step) for step in (13, 14, 23, 1000)] == [0.25] * 4


def test_a_linear_schedule_ends_at_its_share() -> None:
    config = ScheduleConfig(kind="linear", decay_steps=10, final_share=0.25)
    optimizer = Optimizer(make(), OptimizerConfig(), config)
    assert optimizer.get_lr_share(1) == 1
    assert optimizer.get_lr_share(6) == pytest.approx(0.625)
    assert optimizer.get_lr_share(100) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="the schedule 'cosine' needs the number of steps"):
        Optimizer(make(), OptimizerConfig(), ScheduleConfig(kind="cosine"))
    with pytest.raises(ValueError, match="warmup_steps must be below the 5 steps of the run"):
        Optimizer(make(), OptimizerConfig(), ScheduleConfig(kind="cosine", warmup_steps=5), steps=5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_state_goes_on(precision: Any) -> None:
    device = DeviceConfig(precision=precision)
    whole, first, second = make(), make(), make()
    config = OptimizerConfig(lr=0.01)
    walk(whole, Optimizer(whole, config, device=device), range(1, 9))
    half = Optimizer(first, config, device=device)
    walk(first, half, range(1, 5))
    second.load_state_dict(first.state_dict())
    rest = Optimizer(second, config, device=device)
    rest.load_state_dict(half.state_dict())
    walk(second, rest, range(5, 9))
    pairs = zip(whole.parameters(), second.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert all(p.dtype == torch.float32 for p in whole.parameters())


def test_a_step_that_overflows_in_float16_is_left_out() -> None:
    model = make()
    optimizer = Optimizer(model, OptimizerConfig(), device=DeviceConfig(precision="float16"))
    before = [p.detach().clone() for p in model.parameters()]
    scale = optimizer.state_dict()["scaler"]["scale"]
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, torch.inf)
    optimizer.backward(model(torch.ones(1, 4)).sum())
    optimizer.update(1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert optimizer.state_dict()["scaler"]["scale"] == scale / 2


def test_forward_passes_have_the_precision() -> None:
    for name in ("float32", "bfloat16", "float16"):
        model = make()
        config: Any = DeviceConfig(precision=name)  # type: ignore[arg-type]
        with Optimizer(model, OptimizerConfig(), device=config).autocast():
            assert model(torch.ones(1, 4)).dtype == getattr(torch, name)
