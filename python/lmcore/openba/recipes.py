"""Recipes: functions that return the complete settings of a training run of OpenBA.

The pre-training of the paper with its values, and a small model that two cores train in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated

from lmcore.ops.denoising import ul2 as list_denoisers
from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    change,
    check_fields,
)

#: The seven denoisers of UL2.
DENOISERS = tuple(denoiser.name for denoiser in list_denoisers())
#: What validation gives: the mean over the denoisers, and the loss under each.
METRICS = ("loss", *(f"loss_{name}" for name in DENOISERS))

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class ShapeConfig:
    """The model that is made where none is named; the defaults are those of the released 15B.

    Weights start as in the authors' pre-training: normal with a deviation of 0.02, output
    projections with 0.02 over the root of twice their stack's depth.

    Source: OpenBA (arXiv 2309.10706), section 3.2.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> ShapeConfig(hidden_size=64).decoder_layers
        36
    """

    hidden_size: Annotated[int, Between(1, 65_536)] = 4096
    """Of embeddings and states."""
    heads: Annotated[int, Between(1, 65_536)] = 40
    """Of each attention."""
    kv_channels: Annotated[int, Between(2, 65_536)] = 128
    """Size of a head, even."""
    ffn_hidden_size: Annotated[int, Between(2, 2**20)] = 16_384
    """What the inner layer of the feed-forward follows from."""
    swiglu_rule: bool = True
    """Whether that layer has two thirds of it, rounded up to a multiple of 256, or all of it."""
    encoder_layers: Annotated[int, Between(1, 1000)] = 12
    """Blocks of the encoder."""
    decoder_layers: Annotated[int, Between(1, 1000)] = 36
    """Blocks of the decoder."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.1
    """Probability in [0, 1), of what each sublayer adds and of attention weights."""
    qkv_bias: bool = True
    """Whether the projections of attention have biases."""
    head_bias: bool = True
    """Whether the output layer has."""
    tensor_parallel: Annotated[int, Between(1, 1024)] = 4
    """The vocabulary is filled up to a multiple of 128 times this."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kv_channels % 2:
            raise ValueError(f"kv_channels must be even: got {self.kv_channels}")


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainConfig:
    """All that a training run depends on, next to its texts, tokenizer and first weights.

    The defaults are the first stage of the paper's training, as far as they do not depend on the
    machine. A variant is `dataclasses.replace(config, ...)`, or `lmcore.training.config.change`
    where a part of a part changes.

    Source: OpenBA (arXiv 2309.10706), sections 3.3 and 4.1; its released scripts.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or two settings
            do not go together.

    Example:
        >>> TrainConfig(batch_size=64).text_length
        568
    """

    model: str | None = None
    """A folder of OpenBA to go on from; None: one of `shape`."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The model that is made where none is named."""
    tied: bool = True
    """Whether embedding and output layer are one matrix while it trains, as the authors'. Files
    hold it twice, as theirs do; a model whose configuration ties them keeps to that."""

    denoisers: tuple[str, ...] = DENOISERS
    """Those that texts are trained under, all of one weight; validation takes all seven."""
    prefixes: bool = True
    """Whether the encoder is told the kind of its denoiser by `<R>`, `<S>` or `<X>`."""
    encoder_length: Annotated[int, Between(4, 2**20)] = 570
    """Ids of the encoder at most: a text has two fewer, and all texts have that length."""
    decoder_length: Annotated[int | None, Between(3, 2**20)] = 380
    """Ids of the decoder at most; None: as many as the denoisers make of such texts."""
    grouping: bool = True
    """Whether a step's samples of like lengths come together, so that little is padding. False:
    all are padded to `encoder_length` and `decoder_length` + 1, as by the authors' scripts."""
    batch_size: Annotated[int, Between(1, 2**20)] = 4096
    """Samples of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device computes at once; processes share the micro-batches of a step."""
    validation_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device validates at once."""
    validation_texts: Annotated[int, Between(1, 2**20)] = 256
    """Of the validation texts the first so many are taken, each under every denoiser."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(
            lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, clip_norm=1.0
        )
    )
    """AdamW."""
    schedule: ScheduleConfig = field(
        # The authors' 100,000 steps of decay count from the first one.
        default_factory=lambda: ScheduleConfig(
            kind="cosine", warmup_steps=2000, decay_steps=98_000, final_share=0.1
        )
    )
    """Of its step size."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(
            steps=100_000,
            validate_every_steps=1000,
            log_every_steps=10,
            metric="loss",
            metric_mode="min",
            seed=1234,
        )
    )
    """Steps, states and seed. The metric is `loss`, the mean over the seven denoisers, or that of
    one, such as `loss_S`."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        unknown = [name for name in self.denoisers if name not in DENOISERS]
        if unknown or not self.denoisers or len({*self.denoisers}) < len(self.denoisers):
            raise ValueError(
                f"denoisers must be some of {', '.join(DENOISERS)}, each once: "
                f"got {list(self.denoisers)!r:.100}"
            )
        if self.loop.metric not in METRICS:
            raise ValueError(
                f"loop.metric must be {' or '.join(METRICS)}: got {self.loop.metric!r:.60}"
            )
        if self.loop.metric_mode != "min":
            raise ValueError("loop.metric_mode must be min: low losses are good ones")

    @property
    def text_length(self) -> int:
        """Tokens of each text: the encoder adds a prefix and an end."""
        return self.encoder_length - 2


def ul2() -> TrainConfig:
    """Returns the first stage of the paper's training: the 15B from random weights, 100,000 steps.

    What changes memory and time alone is ours: bfloat16 in place of float16 with a scaled loss,
    and blocks that are computed again in the backward pass.

    Example:
        >>> ul2().optimizer.betas
        (0.9, 0.95)
    """
    changes = {
        "device.precision": "bfloat16",
        "device.recompute": True,
        "loop.save_every_seconds": 1800.0,
        "loop.keep_states": 1,
    }
    return change(TrainConfig(), changes)


def tiny() -> TrainConfig:
    """Returns the training of a small model from random weights: ours, not the paper's.

    For experiments that take minutes on two cores. Its texts have 126 tokens:
    `lmcore openba pack --length 126`.

    Example:
        >>> tiny().text_length
        126
    """
    shape = ShapeConfig(
        hidden_size=128,
        heads=4,
        kv_channels=32,
        ffn_hidden_size=352,
        swiglu_rule=False,
        encoder_layers=2,
        decoder_layers=4,
        dropout=0.0,
        tensor_parallel=1,
    )
    config = replace(
        TrainConfig(),
        shape=shape,
        encoder_length=128,
        decoder_length=None,
        batch_size=32,
        micro_batch_size=8,
        validation_batch_size=32,
        validation_texts=64,
        schedule=ScheduleConfig(kind="cosine", warmup_steps=50, final_share=0.1),
    )
    changes = {"optimizer.lr": 2e-3, "loop.steps": 500, "loop.validate_every_steps": 100}
    return change(config, changes)


#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {recipe.__name__: recipe for recipe in (tiny, ul2)}
