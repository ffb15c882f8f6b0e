"""Recipes: functions that return the complete settings of a training run of Segment-CNN."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
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

SPAN_METRICS = ("pair_f1", "pair_recall", "pair_precision", "accuracy")
"""What validation gives: of toxic segments, and the share of texts that are judged right."""

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class BertShape:
    """The model that is made where none is named; the defaults are BERT-base's.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> BertShape(hidden_size=64, heads=4).layers
        12
    """

    hidden_size: Annotated[int, Between(1, 65_536)] = 768
    """D, a multiple of the heads."""
    layers: Annotated[int, Between(1, 1000)] = 12
    """Of the transformer."""
    heads: Annotated[int, Between(1, 65_536)] = 12
    """Of each layer."""
    ffn_size: Annotated[int, Between(1, 2**20)] = 3072
    """Of the inner layer of the feed-forward."""
    positions: Annotated[int, Between(3, 2**20)] = 512
    """That have an embedding."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.1
    """Probability in [0, 1)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size must be a multiple of heads: got {self.hidden_size} and {self.heads}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class SpanTrainConfig:
    """All that a training run depends on, next to its texts, tokenizer and first weights.

    The defaults are the released ones. A variant is `dataclasses.replace(config, ...)`, or
    `lmcore.training.config.change` where a part of a part changes.

    Source: Detox-Chain (arXiv 2308.08295), section 2.3 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or two settings
            do not go together.

    Example:
        >>> SpanTrainConfig(batch_size=64).max_length
        128
    """

    model: str | None = None
    """A folder of a BERT or a Segment-CNN to go on from; None: one of `shape`."""
    shape: BertShape = field(default_factory=BertShape)
    """The model that is made where none is named."""
    segment_size: Annotated[int, Between(1, 16)] = 2
    """n, tokens of a segment."""
    span_loss: Literal["authors", "corrected"] = "authors"
    """`authors`: a softmax of probabilities, as released; `corrected`: the logits."""
    toxic_weight: Annotated[float | None, Between(0, 1e6, open_low=True)] = None
    """Of toxic segments; None: 8 for `authors`, and the paper's 2 for `corrected`."""
    max_length: Annotated[int, Between(3, 2**20)] = 128
    """L, positions of a row with `[CLS]` and `[SEP]`; longer texts are cut and counted."""

    epochs: Annotated[int, Between(1, _MOST)] = 10
    """When to end, where `loop.steps` does not say."""
    batch_size: Annotated[int, Between(1, 2**20)] = 256
    """Texts of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Texts that a device computes at once."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(lr=2e-5))
    """AdamW."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="linear"))
    """Of its step size."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(metric="pair_f1"))
    """Steps, states and seed. There is a validation after each epoch where
    `loop.validate_every_steps` does not say otherwise."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.max_length < self.segment_size + 2:
            raise ValueError(
                f"max_length must be at least {self.segment_size + 2}, for a segment of "
                f"{self.segment_size} tokens: got {self.max_length}"
            )
        if self.model is None and self.max_length > self.shape.positions:
            raise ValueError(
                f"max_length must be at most the {self.shape.positions} positions of shape: "
                f"got {self.max_length}"
            )
        if self.loop.metric not in SPAN_METRICS:
            raise ValueError(
                f"loop.metric must be {' or '.join(SPAN_METRICS)}: got {self.loop.metric!r:.60}"
            )
        if self.loop.metric_mode != "max":
            raise ValueError("loop.metric_mode must be max: high metrics are good ones")


def segment_cnn() -> SpanTrainConfig:
    """Returns the released settings: rows of 128, batches of 256, 10 epochs, 2e-5 in a line to 0.

    The paper goes on from BERT-base: name its folder as `model`.

    Example:
        >>> segment_cnn().optimizer.lr
        2e-05
    """
    return SpanTrainConfig()


def tiny() -> SpanTrainConfig:
    """Returns the training of a small BERT from random weights: ours, not the paper's.

    For experiments that take minutes on two cores, with the corrected loss.

    Example:
        >>> tiny().shape.layers
        2
    """
    shape = BertShape(hidden_size=128, layers=2, heads=4, ffn_size=256, positions=128, dropout=0.1)
    config = SpanTrainConfig(
        shape=shape, span_loss="corrected", max_length=64, batch_size=32, epochs=10
    )
    return change(config, {"optimizer.lr": 1e-3, "optimizer.clip_norm": 1.0})


#: The recipes by name.
SPAN_RECIPES: dict[str, Callable[[], SpanTrainConfig]] = {
    recipe.__name__: recipe for recipe in (tiny, segment_cnn)
}
