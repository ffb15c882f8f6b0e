"""The part of a step between a loss and new weights, as every system has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmcore._extras import optional_imports
from lmcore.training.config import DeviceConfig, OptimizerConfig, ScheduleConfig
from lmcore.training.processes import Processes

with optional_imports():
    from transformers import get_scheduler

_MOMENTS = ("exp_avg", "exp_avg_sq")


class Optimizer:
    """Adam with schedule, clipping, a scaled loss in float16, and gradients of all processes.

    A step is `with autocast()` around the forward pass, `backward(loss)` once for each
    micro-batch, and `update(step)`.

    Args:
        model: whose parameters are trained; already sharded, if it is.
        config: of Adam.
        schedule: of its step size; constant if None.
        device: its precision counts; float32 if None.
        processes: those that share each batch; this one alone if None.
        steps: length of the run, for schedules that depend on it.

    Raises:
        ValueError: the schedule needs `steps`, or its warm-up takes all of them.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.ones_(layer.weight)
        >>> optimizer = Optimizer(layer, OptimizerConfig(lr=0.5))
        >>> optimizer.backward(layer(torch.ones(1)).sum())
        >>> optimizer.update(step=1)
        >>> round(layer.weight.item(), 4)
        0.5
    """

    def __init__(
        self,
        model: nn.Module,
        config: OptimizerConfig,
        schedule: ScheduleConfig | None = None,
        device: DeviceConfig | None = None,
        processes: Processes | None = None,
        *,
        steps: int | None = None,
    ) -> None:
        self.config = config
        self.processes = processes or Processes()
        self._names = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.adam = _make_adam(list(self._names.values()), config)
        """What holds the moments."""
        self._shares = _make_schedule(schedule or ScheduleConfig(), steps)
        self._kind = self.processes.device.type
        precision = "float32" if device is None else device.precision
        self._dtype = None if precision == "float32" else getattr(torch, precision)
        self._scaler = torch.amp.GradScaler(self._kind, enabled=precision == "float16")

    def autocast(self) -> AbstractContextManager[Any]:
        """A context in which forward passes have the configured precision."""
        if self._dtype is None:
            return nullcontext()
        return torch.autocast(self._kind, self._dtype)

    def backward(self, loss: Tensor) -> None:
        """Adds the gradients of a loss to those that are there.

        Args:
            loss: a scalar, divided by the counts of the whole batch.
        """
        scaled = self._scaler.scale(loss) if self._scaler.is_enabled() else loss
        scaled.backward()

    def update(self, step: int) -> None:
        """Moves the weights, and forgets the gradients.

        In float16 a step whose gradients are not finite is left out, and the scale goes down.

        Args:
            step: of the run, from 1; the step size is a function of it.
        """
        self.processes.sum_gradients(self._names.values())
        share = self.get_lr_share(step)
        for group in self.adam.param_groups:
            group["lr"] = self.config.lr * share
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.adam)
        if self.config.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._names.values(), self.config.clip_norm)
        if self._scaler.is_enabled():
            self._scaler.step(self.adam)
            self._scaler.update()
        else:
            self.adam.step()
        self.adam.zero_grad(set_to_none=True)

    def get_lr_share(self, step: int) -> float:
        """Which part of `config.lr` the step size of a step is.

        Args:
            step: of the run, from 1.
        """
        # transformers' schedules count the steps that are done.
        return float(self._shares(step - 1))

    def state_dict(self) -> dict[str, Any]:
        """Returns the moments by the names of the parameters, and the scale of the loss."""
        moments: dict[str, Any] = {}
        for name, parameter in self._names.items():
            state = self.adam.state.get(parameter)
            # Moments of a parameter that never had a gradient are those that Adam would start with.
            moments[name] = dict(state) if state else _make_moments(parameter)
        return {"moments": moments, "scaler": self._scaler.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave; the options stay those of the configuration.

        Each moment is looked at: torch would find one of another shape in the next step, or, in a
        fused kernel, not at all.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: it is none, or one of other parameters.
        """
        moments = state["moments"]
        if not isinstance(moments, Mapping) or set(moments) != set(self._names):
            raise ValueError(f"moments must be those of {len(self._names)} parameters")
        for name, parameter in self._names.items():
            _check_moments(name, parameter, moments[name])
        scaler = state["scaler"]
        if not isinstance(scaler, Mapping) or set(scaler) != set(self._scaler.state_dict()):
            raise ValueError("scaler must be the state of the same precision")
        for name, parameter in self._names.items():
            found = moments[name]
            device = parameter.device
            own = {n: found[n].to(device) for n in _MOMENTS}
            # A fused step counts on the device.
            fused = self.adam.param_groups[0].get("fused")
            own["step"] = found["step"].to(device) if fused else found["step"].cpu()
            self.adam.state[parameter] = {n: own[n] for n in ("step", *_MOMENTS)}
        if scaler:
            self._scaler.load_state_dict(dict(scaler))


def _make_adam(parameters: list[nn.Parameter], config: OptimizerConfig) -> torch.optim.AdamW:
    sharded = any(isinstance(p, DTensor) for p in parameters)
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": config.weight_decay}]
    if config.weight_decay:
        groups = [
            {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
        ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=config.lr,
        betas=config.betas,
        eps=config.eps,
        fused=not sharded,
    )


def check_schedule(config: ScheduleConfig, steps: int | None) -> None:
    """Checks that a schedule fits into a run.

    Args:
        config: the schedule.
        steps: when the run ends; None if it has no end.

    Raises:
        ValueError: it needs the number of steps, or more of them.

    Example:
        >>> check_schedule(ScheduleConfig(kind="cosine", warmup_steps=50), 20)
        Traceback (most recent call last):
        ValueError: warmup_steps must be below the 20 steps of the run
    """
    if config.needs_steps and steps is None:
        raise ValueError(f"the schedule {config.kind!r} needs the number of steps of the run")
    if config.kind not in ("constant", "inverse_sqrt") and _count_falling(config, steps) < 1:
        raise ValueError(f"warmup_steps must be below the {steps} steps of the run")


def _count_falling(config: ScheduleConfig, steps: int | None) -> int:
    return config.decay_steps or (steps or 0) - config.warmup_steps


def _make_schedule(config: ScheduleConfig, steps: int | None) -> Callable[[int], float]:
    """The share of the step size after a number of steps, by transformers' schedules."""
    check_schedule(config, steps)
    falling = _count_falling(config, steps)
    end = (steps or 0) if config.kind == "stable" else config.warmup_steps + falling
    options: dict[str, Any] = {}
    name: str = config.kind
    if config.kind == "constant" or (config.kind == "linear" and config.final_share == 1):
        name = "constant_with_warmup"
    elif config.kind == "linear":
        name, options = "polynomial", {"lr_end": config.final_share, "power": 1.0}
    elif config.kind == "cosine":
        name, options = "cosine_with_min_lr", {"min_lr_rate": config.final_share}
    elif config.kind == "stable":
        name = "warmup_stable_decay"
        options = {"num_decay_steps": falling, "min_lr_ratio": config.final_share}
    made: Any = get_scheduler(
        name,
        torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0),
        num_warmup_steps=config.warmup_steps,
        num_training_steps=end,
        scheduler_specific_kwargs=options,
    )
    (share,) = made.lr_lambdas
    # Behind its end a cosine would rise again.
    return (lambda done: share(min(done, end))) if config.kind == "cosine" else share


def _make_moments(parameter: nn.Parameter) -> dict[str, Tensor]:
    value = parameter.detach()
    zeros = {name: torch.zeros_like(value) for name in _MOMENTS}
    return {"step": torch.zeros((), dtype=torch.float32), **zeros}


def _check_moments(name: str, parameter: nn.Parameter, found: Any) -> None:
    if not isinstance(found, Mapping) or set(found) != {"step", *_MOMENTS}:
        raise ValueError(f"{name} must have step, exp_avg and exp_avg_sq")
    for moment, value in found.items():
        shape, dtype = list(parameter.shape), parameter.dtype
        if moment == "step":
            shape, dtype = [], torch.float32
        is_tensor = isinstance(value, Tensor)
        if not is_tensor or (list(value.shape), value.dtype) != (shape, dtype):
            got = f"{list(value.shape)} {value.dtype}" if is_tensor else repr(value)
            raise ValueError(f"{moment} of {name} must be {shape} {dtype}: got {got[:100]}")
