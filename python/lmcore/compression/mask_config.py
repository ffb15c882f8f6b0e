"""Settings of a run that learns which parts of a model stay."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from lmcore.compression.targets import Target, parse_target
from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    check_fields,
)

DIMENSIONS = ("layers", "heads", "ffn", "hidden")
"""What can have gates."""
START = 2.5
"""The log alpha that gates begin with: without a draw they are wholly open."""
LEAST_SHARE = 0.1
"""Of a dimension that stays in any case."""


@dataclass(kw_only=True, slots=True, frozen=True)
class MaskConfig:
    """Which gates are learned, down to which size, and how.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or the target is
            not one of parameters.

    Example:
        >>> MaskConfig(target="params=50%").dimensions
        ('layers', 'heads', 'ffn', 'hidden')
    """

    model: Path | None = None
    """The folder of the model, or of a run."""
    target: str = "params=50%"
    """Parameters at most: `params=3.4e9`, or a share of what is there."""
    dimensions: tuple[str, ...] = DIMENSIONS
    """That have gates, some of `layers`, `heads`, `ffn` and `hidden`."""
    warmup_steps: Annotated[int, Between(0, 2**31 - 1)] = 640
    """In which the target goes from the whole model to what is asked for, in a line."""
    start: Annotated[float, Between(-10, 10)] = START
    """The log alpha of all gates at first."""
    heads_divisor: Annotated[int | None, Between(1, 2**20)] = None
    """Of what the kept heads are a multiple; as for `plan --target` if None, as are all three."""
    ffn_divisor: Annotated[int | None, Between(1, 2**20)] = None
    hidden_divisor: Annotated[int | None, Between(1, 2**20)] = None
    least_share: Annotated[float, Between(0, 1, open_low=True)] = LEAST_SHARE
    """Of every dimension that is kept at least."""
    trains_weights: bool = False
    """Whether the weights are trained with the gates, as by Sheared-LLaMA. Then the plan is for the
    model in `best`, which holds them; otherwise for the model that was there."""
    fused: Literal["auto", "on", "off"] = "auto"
    """Whether gated maps are computed by kernels: where there is a CUDA device, always, never."""
    tokens: Annotated[int, Between(1, 2**31 - 1)] = 4_194_304
    """Of the data that are read at most."""
    valid_tokens: Annotated[int, Between(1, 2**31 - 1)] = 131_072
    """Of the validation text that are read at most."""
    batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Rows of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 8
    """Rows that a device computes at once."""
    validation_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Rows that a device validates at once."""

    gate_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1))
    """Of the log alphas."""
    multiplier_optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=0.1))
    """Of the two multipliers of the Lagrangian, which rise."""
    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=1e-4, betas=(0.9, 0.95), clip_norm=1.0)
    )
    """Of the weights, where they are trained."""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(kind="cosine", warmup_steps=64, final_share=0.1)
    )
    """Of the weights' step size."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=3200,
            validate_every_steps=320,
            log_every_steps=10,
            metric="loss",
            metric_mode="min",
            seed=1234,
        )
    )
    """Steps, states and seed. The metric is the loss of the model that the plan leaves, right
    after the cut."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute."""

    def __post_init__(self) -> None:
        check_fields(self)
        check_dimensions(self.dimensions)
        if self.parameters.kind != "params":
            raise ValueError(
                f"target must be params=VALUE, which gates can be held to: got {self.target!r:.60}"
            )
        for name, usual in (("metric", "loss"), ("metric_mode", "min")):
            if getattr(self.loop, name) != usual:
                raise ValueError(
                    f"loop.{name} must be {usual}: got {getattr(self.loop, name)!r:.60}"
                )
        if self.device.precision == "float16":
            raise ValueError("device.precision must be float32 or bfloat16: got float16")
        if self.device.sharding != "none":
            raise ValueError("device.sharding must be none: gates are not divided")

    @property
    def parameters(self) -> Target:
        """What to come down to."""
        return parse_target(self.target)

    @property
    def divisors(self) -> dict[str, int]:
        """Of sizes, those that are given."""
        given = {"heads": self.heads_divisor, "ffn": self.ffn_divisor,
                 "hidden": self.hidden_divisor}  # fmt: skip
        return {name: value for name, value in given.items() if value is not None}


def check_dimensions(dimensions: tuple[str, ...]) -> None:
    """Checks that dimensions can have gates.

    Args:
        dimensions: some of `DIMENSIONS`, each once.

    Raises:
        ValueError: one cannot, or there is none.

    Example:
        >>> check_dimensions(("layers",))
    """
    unknown = [name for name in dimensions if name not in DIMENSIONS]
    if unknown or not dimensions or len({*dimensions}) < len(dimensions):
        raise ValueError(
            f"dimensions must be some of {', '.join(DIMENSIONS)}, each once: got "
            f"{[*dimensions]!r:.100}"
        )
