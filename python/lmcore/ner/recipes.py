"""Recipes: functions that return the complete settings of a training run of GNER.

The paper's back-bones with the paper's values, and a small model that is trained from scratch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    change,
    check_fields,
)
from lmcore.training.lora import LoraConfig

__all__ = [
    "METRICS", "RECIPES", "LoraConfig", "ScratchConfig", "TrainConfig", "llama_7b", "t5_base",
    "t5_large", "t5_small", "t5_xl", "t5_xxl", "tiny",
]  # fmt: skip

#: What validation gives.
METRICS = ("f1", "precision", "recall")

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class ScratchConfig:
    """A T5-shaped model with random weights, and the tokenizer that is made for it.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> ScratchConfig(hidden_size=64).head_size
        32
    """

    vocabulary: Annotated[int, Between(300, 2**20)] = 2000
    """Tokens at most, of bytes that occur together in the training rows; 256 are single bytes."""
    hidden_size: Annotated[int, Between(1, 65_536)] = 128
    """Size of the embeddings and features, `d_model`."""
    inner_size: Annotated[int, Between(1, 2**20)] = 256
    """Size within the feed-forward layers, `d_ff`."""
    head_size: Annotated[int, Between(1, 65_536)] = 32
    """Size of keys and values, `d_kv`."""
    heads: Annotated[int, Between(1, 65_536)] = 4
    """Of each attention."""
    encoder_layers: Annotated[int, Between(1, 1000)] = 2
    """Blocks of the encoder."""
    decoder_layers: Annotated[int, Between(1, 1000)] = 2
    """Blocks of the decoder, at most as many."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    """Probability in [0, 1)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.decoder_layers > self.encoder_layers:
            # transformers makes the decoder's cache for as many blocks as the encoder has.
            raise ValueError(
                f"decoder_layers must be at most {self.encoder_layers}, the encoder's: "
                f"got {self.decoder_layers}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainConfig:
    """All that a training run depends on, next to its rows and the weights that it starts from.

    A variant is `dataclasses.replace(config, ...)`, or `lmcore.training.config.change` where a
    part of a part changes.

    Source: GNER (arXiv 2402.16602), section 5 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or two settings
            do not go together.

    Example:
        >>> TrainConfig(batch_size=64).max_source_tokens
        640
    """

    model: str | None = None
    """A folder or a name that transformers knows: an encoder-decoder or a causal language model;
    None: one of `scratch`."""
    scratch: ScratchConfig = field(default_factory=ScratchConfig)
    """The model that is made where none is named."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Whether all weights are trained, or small matrices beside them."""
    max_source_tokens: Annotated[int, Between(2, 2**20)] = 640
    """Of an instruction; what is longer is cut and counted."""
    max_target_tokens: Annotated[int, Between(2, 2**20)] = 640
    """Of a target, and of what validation generates. A decoder-only model has both together for
    prompt and target."""

    epochs: Annotated[int, Between(1, _MOST)] = 10
    """When to end, where `loop.steps` does not say."""
    batch_size: Annotated[int, Between(1, 2**20)] = 256
    """Rows of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Rows that a device computes at once: gradients of a larger share of the batch are
    accumulated."""
    validation_batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Rows for which a device generates at once."""
    warmup_share: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    """Share of the steps in which the step size rises, where `schedule.warmup_steps` is 0."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=5e-5, clip_norm=1.0)
    )
    """AdamW."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Of its step size."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(metric="f1", seed=1234))
    """Steps, states and seed. The metric is f1, precision or recall: the unweighted mean over the
    data sets of the validation rows. There is a validation after each epoch where
    `loop.validate_every_steps` does not say otherwise."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.loop.metric not in METRICS:
            raise ValueError(
                f"loop.metric must be {' or '.join(METRICS)}: got {self.loop.metric!r:.60}"
            )
        if self.loop.metric_mode != "max":
            raise ValueError("loop.metric_mode must be max: high metrics are good ones")
        if self.warmup_share and self.schedule.warmup_steps:
            raise ValueError("warmup_share and schedule.warmup_steps must not both be given")


def t5_small() -> TrainConfig:
    """Returns the paper's training of Flan-T5-small: 20 epochs at a constant step size.

    Example:
        >>> t5_small().epochs
        20
    """
    return _t5("small", epochs=20)


def t5_base() -> TrainConfig:
    """Returns the paper's training of Flan-T5-base: 20 epochs, 12 in the authors' script.

    Example:
        >>> t5_base().optimizer.lr
        5e-05
    """
    return _t5("base", epochs=20)


def t5_large() -> TrainConfig:
    """Returns the paper's training of Flan-T5-large, with 10 epochs.

    Example:
        >>> t5_large().epochs
        10
    """
    return _t5("large", epochs=10)


def t5_xl() -> TrainConfig:
    """Returns the paper's training of Flan-T5-xl, with 10 epochs.

    Example:
        >>> t5_xl().device.recompute
        True
    """
    return _as_large(_t5("xl", epochs=10))


def t5_xxl() -> TrainConfig:
    """Returns the paper's training of Flan-T5-xxl, with 6 epochs.

    Example:
        >>> t5_xxl().model
        'google/flan-t5-xxl'
    """
    return _as_large(_t5("xxl", epochs=6))


def llama_7b() -> TrainConfig:
    """Returns the paper's training of LLaMA-7B: 3 epochs along a cosine, validated often.

    Example:
        >>> llama_7b().warmup_share
        0.04
    """
    config = replace(
        TrainConfig(),
        model="huggyllama/llama-7b",
        epochs=3,
        warmup_share=0.04,
        schedule=ScheduleConfig(kind="cosine"),
    )
    changes = {"optimizer.lr": 2e-5, "loop.validate_every_steps": 100}
    return _as_large(change(config, {**changes, "device.precision": "bfloat16"}))


def tiny() -> TrainConfig:
    """Returns the training of a small T5-shaped model from random weights: ours, not the paper's.

    For experiments that take minutes on a CPU. Its tokenizer is made of the training rows.

    Example:
        >>> tiny().model is None
        True
    """
    config = TrainConfig(epochs=30, batch_size=32)
    return change(config, {"optimizer.lr": 2e-3, "schedule.kind": "cosine", "warmup_share": 0.05})


def _t5(size: str, *, epochs: int) -> TrainConfig:
    config = TrainConfig(model=f"google/flan-t5-{size}", epochs=epochs)
    return change(config, {"device.precision": "bfloat16"})


def _as_large(config: TrainConfig) -> TrainConfig:
    """For models that fill a GPU: what changes memory and time, and no result."""
    changes = {"device.recompute": True, "loop.save_every_seconds": 1800.0, "loop.keep_states": 1}
    return change(config, {**changes, "micro_batch_size": 1})


#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (tiny, t5_small, t5_base, t5_large, t5_xl, t5_xxl, llama_7b)
}
