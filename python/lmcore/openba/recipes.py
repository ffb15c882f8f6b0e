"""Recipes: functions that return the complete settings of a training run of OpenBA.

The stages of the paper with its values, one after the other from the folder of the one before, and
three stages of a small model that two cores train in minutes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

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
#: Half of a text as its suffix: that of length adaptation.
HALF = "S_50"
#: All denoisers that a run may take.
ALL_DENOISERS = (*DENOISERS, HALF)
#: What validation gives: the mean over the denoisers, the loss under each, and that of pairs.
METRICS = ("loss", *(f"loss_{name}" for name in ALL_DENOISERS), "loss_pairs")

Stage = Literal[
    "ul2",
    "length_adaptation",
    "bilingual_flan",
    "chat",
    "code",
    "instruction_generation",
    "tool_retrieval",
]

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

    stage: Stage | None = "ul2"
    """What the model becomes, which is written beside it: another stage may ask for it. None: no
    stage of the paper, which asks for nothing and writes nothing."""
    model: str | None = None
    """A folder of OpenBA to go on from; None: one of `shape`."""
    shape: ShapeConfig = field(default_factory=ShapeConfig)
    """The model that is made where none is named."""
    tied: bool = True
    """Whether embedding and output layer are one matrix while it trains, as the authors'. Files
    hold it twice, as theirs do; a model whose configuration ties them keeps to that."""

    pairs: bool = False
    """Whether data are pairs of a source and a target, and not texts; a mixture may hold both."""
    denoisers: tuple[str, ...] = DENOISERS
    """Those that texts are trained under, all of one weight: the seven of UL2, or S_50, which
    takes the second half of each text."""
    validation_denoisers: tuple[str, ...] = DENOISERS
    """Those that validation texts come under, each text under each."""
    prefixes: bool = True
    """Whether the encoder is told the kind of its denoiser by `<R>`, `<S>` or `<X>`; pairs have
    `<S>`."""
    encoder_length: Annotated[int, Between(4, 2**20)] = 570
    """Ids of the encoder at most: sources of pairs are cut so."""
    decoder_length: Annotated[int | None, Between(3, 2**20)] = 380
    """Ids of the decoder at most: targets of pairs are cut so. None, without pairs: as many as
    the denoisers make of the texts."""
    text_tokens: Annotated[int | None, Between(2, 2**20)] = None
    """Tokens of each text, all of which have that length; None: two fewer than `encoder_length`,
    which every denoiser finds room for."""
    grouping: bool = True
    """Whether a step's samples of like lengths come together, so that little is padding. False:
    all are padded to `encoder_length` and `decoder_length`, with texts one more in the decoder,
    as by the authors' scripts."""
    batch_size: Annotated[int, Between(1, 2**20)] = 4096
    """Samples of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device computes at once; processes share the micro-batches of a step."""
    validation_batch_size: Annotated[int, Between(1, 2**20)] = 16
    """Samples that a device validates at once."""
    validation_texts: Annotated[int, Between(1, 2**20)] = 256
    """Of the validation texts or pairs the first so many are taken."""

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
    """Steps, states and seed. The metric is `loss`, the mean over the denoisers of validation or
    that of pairs, or the loss of one denoiser, such as `loss_S`."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        for field_name in ("denoisers", "validation_denoisers"):
            given = getattr(self, field_name)
            unknown = [name for name in given if name not in ALL_DENOISERS]
            if unknown or not given or len({*given}) < len(given):
                raise ValueError(
                    f"{field_name} must be some of {', '.join(ALL_DENOISERS)}, each once: "
                    f"got {list(given)!r:.100}"
                )
        if self.pairs and self.decoder_length is None:
            raise ValueError("decoder_length must be given where data are pairs: got none")
        if self.loop.metric not in METRICS:
            raise ValueError(
                f"loop.metric must be {' or '.join(METRICS)}: got {self.loop.metric!r:.60}"
            )
        if self.loop.metric_mode != "min":
            raise ValueError("loop.metric_mode must be min: low losses are good ones")

    @property
    def text_length(self) -> int:
        """Tokens of each text."""
        return self.encoder_length - 2 if self.text_tokens is None else self.text_tokens


def ul2() -> TrainConfig:
    """Returns the first stage of the paper's training: the 15B from random weights, 100,000 steps.

    What changes memory and time alone is ours, in all stages: bfloat16 in place of float16 with a
    scaled loss, and blocks that are computed again in the backward pass.

    Example:
        >>> ul2().optimizer.betas
        (0.9, 0.95)
    """
    return change(TrainConfig(), _LARGE)


def length_adaptation() -> TrainConfig:
    """Returns the second stage: texts of 2,048 tokens, of which the model writes the second half.

    It starts from a model of `ul2`. The paper has lengths of 1024 and 1024 and a corruption of one
    half, its scripts 1027 and 1025: three ids around 1024 tokens of the encoder, and the sentinel
    before 1024 labels. Ours is one longer, since our labels have an end. The schedule is that of
    the scripts, 25,000 steps from 4e-5 to 1e-5; the paper's 40 B tokens are the first 19,073.

    Source: OpenBA (arXiv 2309.10706), section 4.1, stage II; its released scripts.

    Example:
        >>> config = length_adaptation()
        >>> config.text_length, config.encoder_length, config.decoder_length
        (2048, 1027, 1026)
    """
    changes = {
        "stage": "length_adaptation",
        "denoisers": (HALF,),
        "validation_denoisers": (HALF,),
        "text_tokens": 2048,
        "encoder_length": 1027,
        "decoder_length": 1026,
        "batch_size": 1024,
        "micro_batch_size": 4,
        "validation_batch_size": 4,
        "optimizer.lr": 4e-5,
        "schedule.warmup_steps": 0,
        "schedule.decay_steps": 25_000,
        "schedule.final_share": 0.25,
        "loop.steps": 25_000,
    }
    return change(ul2(), changes)


def bilingual_flan() -> TrainConfig:
    """Returns the third stage: instructions and their answers, sources of 1024 and targets of 256.

    It starts from a model of `length_adaptation`. Steps are as many as make the paper's 40 B
    tokens at these lengths.

    Source: OpenBA (arXiv 2309.10706), section 4.1, stage III; its released scripts.

    Example:
        >>> bilingual_flan().optimizer.lr
        7e-06
    """
    changes = {
        "stage": "bilingual_flan",
        "pairs": True,
        "encoder_length": 1024,
        "decoder_length": 256,
        "batch_size": 1024,
        "optimizer.lr": 7e-6,
        "optimizer.betas": (0.9, 0.999),
        "optimizer.weight_decay": 0.01,
        "schedule": ScheduleConfig(kind="constant", warmup_steps=500),
        "loop.steps": 30_518,
    }
    return change(ul2(), changes)


def chat() -> TrainConfig:
    """Returns the training of OpenBA-Chat: one pair for each turn of a dialogue.

    It starts from a model of `bilingual_flan`. The paper gives its data alone: lengths, 128 pairs
    a step and 1,000 steps are ours, as is that the optimizer is that of `bilingual_flan`.

    Source: OpenBA (arXiv 2309.10706), OpenBA-Chat.

    Example:
        >>> chat().decoder_length
        1024
    """
    return change(_fine_tune(), {"stage": "chat", "decoder_length": 1024})


def code() -> TrainConfig:
    """Returns the training of OpenBA-Code, on 26,588 pairs of Evol-Instruct-Python.

    It starts from a model of `bilingual_flan`. Lengths are those of the released model; 128 pairs
    a step, three passes and the optimizer of `bilingual_flan` are ours.

    Source: OpenBA (arXiv 2309.10706), OpenBA-Code.

    Example:
        >>> code().loop.steps
        624
    """
    changes = {"stage": "code", "decoder_length": 1024, "loop.steps": 624}
    return change(_fine_tune(), changes)


def instruction_generation() -> TrainConfig:
    """Returns the training of OpenBA-InstructGen: the instruction that a text answers.

    It starts from a model of `bilingual_flan`. The decoder's length is that of the released model;
    128 pairs a step, 1,000 steps and the optimizer of `bilingual_flan` are ours.

    Source: OpenBA (arXiv 2309.10706), OpenBA-InstructGen.

    Example:
        >>> instruction_generation().decoder_length
        256
    """
    return change(_fine_tune(), {"stage": "instruction_generation"})


def tool_retrieval() -> TrainConfig:
    """Returns the training of OpenBA-Tool: the call of a tool, or what is made of its results.

    It starts from a model of `bilingual_flan`. The paper gives its form alone: lengths, 128 pairs
    a step, 1,000 steps and the optimizer of `bilingual_flan` are ours.

    Source: OpenBA (arXiv 2309.10706), OpenBA-Tool.

    Example:
        >>> tool_retrieval().encoder_length
        1024
    """
    return change(_fine_tune(), {"stage": "tool_retrieval"})


def _fine_tune() -> TrainConfig:
    """What all four fine-tunes have; ours, as far as it is not that of the third stage."""
    changes = {
        "batch_size": 128,
        "schedule.warmup_steps": 50,
        "loop.steps": 1000,
        "loop.validate_every_steps": 100,
    }
    return change(bilingual_flan(), changes)


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


def tiny_length_adaptation() -> TrainConfig:
    """Returns the second stage of the small model: ours, at twice the lengths of `tiny`.

    It starts from a model of `tiny`. Its texts have 512 tokens, of which the encoder reads and the
    decoder writes one half: `lmcore openba pack --length 512`.

    Example:
        >>> tiny_length_adaptation().encoder_length
        259
    """
    changes = {
        "stage": "length_adaptation",
        "denoisers": (HALF,),
        "validation_denoisers": (HALF,),
        "text_tokens": 512,
        "encoder_length": 259,
        "decoder_length": 258,
        "batch_size": 16,
        "micro_batch_size": 4,
        "validation_batch_size": 8,
        "optimizer.lr": 1e-3,
        "schedule": ScheduleConfig(kind="cosine", final_share=0.25),
        "loop.steps": 100,
        "loop.validate_every_steps": 25,
    }
    return change(tiny(), changes)


def tiny_flan() -> TrainConfig:
    """Returns the third stage of the small model: ours, pairs of 256 and 64 ids.

    It starts from a model of `tiny_length_adaptation`. A fine-tune of the small model is this with
    another stage: `--set stage=chat`.

    Example:
        >>> tiny_flan().pairs
        True
    """
    changes = {
        "stage": "bilingual_flan",
        "pairs": True,
        "encoder_length": 256,
        "decoder_length": 64,
        "optimizer.lr": 1e-3,
        "optimizer.betas": (0.9, 0.999),
        "optimizer.weight_decay": 0.01,
        "schedule": ScheduleConfig(kind="constant", warmup_steps=20),
        "loop.steps": 200,
        "loop.validate_every_steps": 50,
    }
    return change(tiny(), changes)


# Of what is as large as the paper's model.
_LARGE = {
    "device.precision": "bfloat16",
    "device.recompute": True,
    "loop.save_every_seconds": 1800.0,
    "loop.keep_states": 1,
}

#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        tiny,
        tiny_length_adaptation,
        tiny_flan,
        ul2,
        length_adaptation,
        bilingual_flan,
        chat,
        code,
        instruction_generation,
        tool_retrieval,
    )
}
