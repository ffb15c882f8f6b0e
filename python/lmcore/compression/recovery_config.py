"""Settings of the training that follows pruning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Literal

from lmcore.compression.distillation_config import DistillationConfig
from lmcore.compression.proportions import INITIAL, Rule, check_proportions
from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    check_fields,
)

Objective = Literal["auto", "ul2", "d_ul2", "o_ul2", "causal"]
Proportions = tuple[float, float, float, float, float, float, float]
"""Of the seven denoisers of UL2."""


@dataclass(kw_only=True, slots=True, frozen=True)
class RecoveryConfig:
    """All that recovery depends on, next to its texts and the pruned model.

    The defaults are those of the paper's D-UL2 script, as far as they do not depend on the
    machine. A variant is `dataclasses.replace(config, ...)`, or `lmcore.training.config.change`
    where a part of a part changes.

    Source: OpenBA-V2 (arXiv 2405.05957), section 3 and algorithm 1; `prune_model.sh` of its code.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, proportions are
            negative or do not sum to 1, or two settings do not go together.

    Example:
        >>> RecoveryConfig(batch_size=64).objective
        'auto'
    """

    model: str | None = None
    """Folder of the pruned model."""
    teacher: str | None = None
    """Folder of the model before pruning. None: the one that the `pruning.json` of the model
    names, where it is at hand and has not changed; `none`: no teacher."""
    objective: Objective = "auto"
    """`ul2`: seven denoisers of one weight; `d_ul2`: their weights follow validation; `o_ul2`:
    one half of each text as its end, and mixes; `causal`: each token from those before it, of a
    decoder. `auto`: `d_ul2` of an encoder-decoder, `causal` of a decoder."""
    as_shipped: bool = False
    """Of `o_ul2`: whether the mix is never drawn, as in the authors' code."""

    proportions_rule: Rule = "paper"
    """Of `d_ul2`: whether a loss below its target counts as one at it (`paper`), or counts, with
    smoothing (`shipped`)."""
    initial_proportions: Annotated[Proportions, Between(0, 1)] = INITIAL
    """Of `d_ul2`: of the seven denoisers, in the first steps."""
    targets: Annotated[Proportions | None, Between(0, 1e30)] = None
    """Of `d_ul2`: losses that the model shall come back to. None: those of the teacher, or of the
    model before pruning, on the same validation texts."""
    update_every_steps: Annotated[int, Between(1, 2**31 - 1)] = 1000
    """Of `d_ul2`: steps between measurements of the losses, after which the weights are others."""

    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    """How much is learned from the teacher, where there is one."""

    tied: bool | None = None
    """Of OpenBA: whether embedding and output layer are one matrix while it trains; None: if they
    are equal. Other models are as their configurations say."""
    prefixes: bool = True
    """Whether the encoder is told the kind of its denoiser by `<R>`, `<S>` or `<X>`, where the
    tokenizer has these."""
    text_tokens: Annotated[int, Between(2, 2**20)] = 568
    """Tokens of each text."""
    batch_size: Annotated[int, Between(1, 2**20)] = 1024
    """Samples of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device computes at once; processes share the micro-batches of a step."""
    validation_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device validates at once."""
    validation_texts: Annotated[int, Between(1, 2**20)] = 256
    """Of the validation texts the first so many are taken."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=2e-5, betas=(0.9, 0.95), weight_decay=0.1, clip_norm=1.0
        )
    )
    """AdamW."""
    schedule: ScheduleConfig = field(
        default_factory=lambda: ScheduleConfig(
            kind="cosine", warmup_steps=1000, decay_steps=21_500, final_share=0.5
        )
    )
    """Of its step size."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=22_500,
            validate_every_steps=1000,
            log_every_steps=10,
            metric="loss",
            metric_mode="min",
            seed=1234,
        )
    )
    """Steps, states and seed. The metric is `loss`, the mean over the denoisers, or the loss under
    one of them, such as `loss_S`."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        try:
            check_proportions(self.initial_proportions)
        except ValueError as error:
            raise ValueError(f"initial_{error}") from None
        if self.loop.metric_mode != "min":
            raise ValueError("loop.metric_mode must be min: low losses are good ones")

    @property
    def text_length(self) -> int:
        """Tokens of each text."""
        return self.text_tokens

    @property
    def pairs(self) -> bool:
        """Whether data are pairs, which they are not."""
        return False
