"""Recipes: functions that return the complete settings of a training run of text diffusion.

The paper's six tasks with their lengths, a seventh of ours, and a small model that two cores train
in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    change,
    check_fields,
)

Penalty = Literal["none", "l2", "l2_noise", "l2_noise_random", "cosine", "near_far"]
METRICS = ("loss", "error")
"""What validation gives: the loss as it is trained, without the penalty, and the part of it that
the network's estimates have, mean((emb - f)^2)."""


@dataclass(kw_only=True, slots=True, frozen=True)
class ShapeConfig:
    """The model that is made where none is named; the defaults are the paper's.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), the released settings: BERT-base's shape.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> ShapeConfig(hidden_size=64, heads=4).latent_size
        128
    """

    latent_size: Annotated[int, Between(1, 65_536)] = 128
    """Of word embeddings, in which the diffusion takes place."""
    hidden_size: Annotated[int, Between(1, 65_536)] = 768
    """Of the transformer, a multiple of the heads."""
    layers: Annotated[int, Between(1, 1000)] = 12
    """Of the transformer."""
    heads: Annotated[int, Between(1, 65_536)] = 12
    """Of each layer."""
    ffn_size: Annotated[int, Between(1, 2**20)] = 3072
    """Of the inner layer of the feed-forward."""
    positions: Annotated[int, Between(8, 2**20)] = 512
    """That have an embedding; a row may have fewer."""
    time_size: Annotated[int, Between(2, 65_536)] = 128
    """Of the sinusoids of a timestep, even."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.1
    """Probability in [0, 1), of what each sublayer adds and of attention weights."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size must be a multiple of heads: got {self.hidden_size} and {self.heads}"
            )
        if self.time_size % 2:
            raise ValueError(f"time_size must be even: got {self.time_size}")


@dataclass(kw_only=True, slots=True, frozen=True)
class PenaltyConfig:
    """Distance Penalty: estimates of one text at two like timesteps shall be alike.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), section 5 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> PenaltyConfig().kind
        'l2_noise_random'
    """

    kind: Penalty = "l2_noise_random"
    """How the second timestep is found and what is compared; `none` is DiffuSeq."""
    weight: Annotated[float, Between(-1e6, 1e6)] = -2.0
    """The authors' `simi_lambda`: below 0 estimates are drawn together."""
    tolerance: Annotated[float, Between(0, 1, open_low=True)] = 0.05
    """How far apart the noise of both timesteps may be, for the kinds of `noise`."""
    distance: Annotated[int, Between(1, 2**24)] = 10
    """Timesteps between both, for the other kinds."""
    far_distance: Annotated[int, Between(1, 2**24)] = 200
    """Timesteps to the far one of `near_far`."""
    near_weight: Annotated[float, Between(-1e6, 1e6)] = -1.0
    """Of the near one of `near_far`; below 0 estimates are drawn together."""
    far_weight: Annotated[float, Between(-1e6, 1e6)] = -1.0
    """Of the far one of `near_far`; below 0 estimates are pushed apart."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind.startswith("l2") and self.weight > 0:
            raise ValueError(f"weight must not be above 0 with {self.kind}: got {self.weight}")


@dataclass(kw_only=True, slots=True, frozen=True)
class DistillConfig:
    """Progressive distillation: a student learns to do two steps of its teacher in one.

    After each halving the student becomes the teacher of the next. The steps of the run are shared
    among the halvings alike, and the schedule of the step size begins anew with each.

    Source: Salimans and Ho (arXiv 2202.00512), algorithm 2, for estimates of clean latents.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or the first number of steps cannot be halved so
            often.

    Example:
        >>> config = DistillConfig(first_steps=32, halvings=2)
        >>> config.first_steps >> config.halvings
        8
    """

    teacher: str | None = None
    """A folder of text diffusion, the first teacher, whose weights the student starts from; None:
    training is no distillation."""
    first_steps: Annotated[int, Between(2, 2**20)] = 64
    """Of the first teacher's sampling, by DDIM; the first student takes half as many."""
    halvings: Annotated[int, Between(1, 20)] = 4
    """How often the number of steps is halved."""
    spacing: Literal["adaptive", "uniform"] = "adaptive"
    """Which timesteps the first teacher samples with, Adaptive Decay Sampling's or equally far
    apart ones; each student keeps every other one, the last with them."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.first_steps % 2**self.halvings:
            raise ValueError(
                f"first_steps must be a multiple of {2**self.halvings} to be halved "
                f"{self.halvings} times: got {self.first_steps}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainConfig:
    """All that a training run depends on, next to its pairs, tokenizer and first weights.

    The defaults are the paper's, as far as they do not depend on the machine. A variant is
    `dataclasses.replace(config, ...)`, or `lmcore.training.config.change` where a part of a part
    changes.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), section 5.4 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or two settings
            do not go together.

    Example:
        >>> TrainConfig(batch_size=64).length
        128
    """

    model: str | None = None
    """A folder of text diffusion to go on from; None: one of `shape`."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The model that is made where none is named."""
    noise_schedule: str = "sqrt"
    """Of the process, one of `lmcore.ops.schedule.SCHEDULES`; a model that is named has its own."""
    diffusion_steps: Annotated[int, Between(1, 2**20)] = 2000
    """T, of the process; a model that is named has its own."""
    length: Annotated[int, Between(8, 2**20)] = 128
    """Positions of a row: source, target and padding."""
    penalty: PenaltyConfig = field(default_factory=PenaltyConfig)
    """Distance Penalty."""
    distill: DistillConfig = field(default_factory=DistillConfig)
    """Progressive distillation, where it names a teacher."""
    timesteps: Literal["loss_aware", "uniform"] = "loss_aware"
    """How the timesteps of a batch are drawn."""
    average: Annotated[float, Between(0, 1, open_high=True)] = 0.9999
    """Decay of the moving average of weights, which is what is validated and saved; 0: none."""
    batch_size: Annotated[int, Between(1, 2**20)] = 400
    """Rows of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 100
    """Rows that a device computes at once; processes share the micro-batches of a step."""
    validation_pairs: Annotated[int, Between(1, 2**20)] = 512
    """Of the validation pairs the first so many are taken."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=1e-4))
    """AdamW."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Of its step size."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=320_000,
            validate_every_steps=2000,
            log_every_steps=100,
            metric="loss",
            metric_mode="min",
            seed=109,
        )
    )
    """Steps, states and seed."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.model is None and self.length > self.shape.positions:
            raise ValueError(
                f"length must be at most the {self.shape.positions} positions of shape: got "
                f"{self.length}"
            )
        if self.loop.metric not in METRICS:
            raise ValueError(
                f"loop.metric must be {' or '.join(METRICS)}: got {self.loop.metric!r:.60}"
            )
        if self.loop.metric_mode != "min":
            raise ValueError("loop.metric_mode must be min: low losses are good ones")
        if self.distill.teacher is not None:
            self._check_distillation()

    @property
    def first_model(self) -> str | None:
        """The folder whose weights training starts from; None: random ones."""
        return self.distill.teacher or self.model

    def _check_distillation(self) -> None:
        if self.model is not None:
            raise ValueError("model has no meaning with distill.teacher: a student starts as that")
        for name, value, only in (
            ("penalty.kind", self.penalty.kind, "none"),
            ("timesteps", self.timesteps, "uniform"),
        ):
            if value != only:
                raise ValueError(f"{name} must be {only} with distill.teacher: got {value}")


def paper() -> TrainConfig:
    """Returns the paper's settings: BERT-base's shape, 320,000 steps of 4 x 100 rows.

    The released models go on from one of DiffuSeq: name it as `model`.

    Example:
        >>> paper().penalty.weight
        -2.0
    """
    return TrainConfig()


def diffuseq() -> TrainConfig:
    """Returns the settings without Distance Penalty, which are those of DiffuSeq.

    Source: DiffuSeq (arXiv 2210.08933), the released settings.

    Example:
        >>> diffuseq().penalty.kind
        'none'
    """
    return change(TrainConfig(), {"penalty.kind": "none"})


def qqp() -> TrainConfig:
    """Returns the paper's settings for paraphrases, QQP: rows of 128.

    Example:
        >>> qqp().length
        128
    """
    return TrainConfig()


def wiki_auto() -> TrainConfig:
    """Returns the paper's settings for simpler sentences, Wiki-Auto: rows of 128.

    Example:
        >>> wiki_auto().length
        128
    """
    return TrainConfig()


def quasar_t() -> TrainConfig:
    """Returns the paper's settings for questions, Quasar-T: rows of 128.

    Example:
        >>> quasar_t().length
        128
    """
    return TrainConfig()


def roc() -> TrainConfig:
    """Returns the paper's settings for stories, ROC: rows of 128.

    Example:
        >>> roc().length
        128
    """
    return TrainConfig()


def e2e_semantic() -> TrainConfig:
    """Returns settings for descriptions with a given content, E2E: rows of 64.

    The paper takes the rest from Diffusion-LM (arXiv 2205.14217), whose texts have 64 tokens; its
    control by a classifier is in sampling, and does not change training.

    Example:
        >>> e2e_semantic().length
        64
    """
    return replace(TrainConfig(), length=64)


def e2e_syntax() -> TrainConfig:
    """Returns settings for descriptions with given syntax spans, E2E: as for `e2e_semantic`.

    Example:
        >>> e2e_syntax() == e2e_semantic()
        True
    """
    return e2e_semantic()


def iwslt14() -> TrainConfig:
    """Returns settings for translation, IWSLT14 from German: ours, with the paper's length.

    Example:
        >>> iwslt14().length
        128
    """
    return TrainConfig()


def tiny() -> TrainConfig:
    """Returns the training of a small model from random weights: ours, not the paper's.

    For experiments that take minutes on two cores, such as `lmcore.worlds.diffusion`.

    Example:
        >>> tiny().length
        32
    """
    shape = ShapeConfig(
        latent_size=32, hidden_size=128, layers=2, heads=4, ffn_size=512, positions=64,
        time_size=32, dropout=0.0,
    )  # fmt: skip
    config = replace(
        TrainConfig(),
        shape=shape,
        length=32,
        batch_size=32,
        micro_batch_size=32,
        validation_pairs=256,
        average=0.98,
        timesteps="uniform",
        penalty=PenaltyConfig(kind="none"),
        optimizer=OptimizerConfig(lr=3e-3, clip_norm=1.0),
        schedule=ScheduleConfig(kind="linear", warmup_steps=100, final_share=0.05),
    )
    changes = {"loop.steps": 1000, "loop.validate_every_steps": 250, "loop.log_every_steps": 50}
    return change(config, {**changes, "loop.seed": 0})


def distilled(config: TrainConfig, teacher: str) -> TrainConfig:
    """Returns settings with which a model is distilled instead of trained.

    Args:
        config: of a recipe.
        teacher: folder of the model.

    Example:
        >>> distilled(tiny(), "model").distill.first_steps
        64
    """
    changes = {"distill.teacher": teacher, "penalty.kind": "none", "timesteps": "uniform"}
    return change(config, changes)


#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        diffuseq, e2e_semantic, e2e_syntax, iwslt14, paper, qqp, quasar_t, roc, tiny, wiki_auto,
    )
}  # fmt: skip
