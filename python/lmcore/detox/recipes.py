"""Recipes: functions that return the complete settings of a training run on chains.

The paper's models, two of its first version, and a small one that is trained from scratch.
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
from lmcore.training.lora import LoraConfig

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class ScratchConfig:
    """A GPT-2 with random weights, and the tokenizer that is made for it.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or the heads do not divide the hidden size.

    Example:
        >>> ScratchConfig(hidden_size=64, heads=2).layers
        2
    """

    vocabulary: Annotated[int, Between(300, 2**20)] = 1000
    """Tokens at most, of bytes that occur together in the training rows; 256 are single bytes."""
    hidden_size: Annotated[int, Between(1, 65_536)] = 128
    """Size of the embeddings and features."""
    layers: Annotated[int, Between(1, 1000)] = 2
    """Blocks."""
    heads: Annotated[int, Between(1, 65_536)] = 4
    """Of each attention."""
    positions: Annotated[int, Between(8, 2**20)] = 512
    """Tokens that it can read."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    """Probability in [0, 1)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.hidden_size % self.heads:
            raise ValueError(
                f"hidden_size must be a multiple of the {self.heads} heads: got {self.hidden_size}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class ContrastiveConfig:
    """The contrastive term beside the cross entropy.

    Source: section 4.2 of the specification. The paper's weight is 1 and the released code's 0.5;
    `released` gives the latter with its pooling and its fresh anchors in every step.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or anchors are
            longer than continuations may be.

    Example:
        >>> ContrastiveConfig(weight=0.5).pooling
        'corrected'
    """

    weight: Annotated[float, Between(0, 1e30)] = 1.0
    """By which the term is multiplied; 0: there is none."""
    temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """By which similarities are divided."""
    pooling: Literal["corrected", "released"] = "corrected"
    """Whether the mean of hidden states is over tokens, or over padding as well."""
    refresh_every_steps: Annotated[int, Between(1, _MOST)] = 4
    """For so many steps anchors are sampled at once, by the model as it is then."""
    anchor_tokens: Annotated[int, Between(1, 2**20)] = 20
    """That the model writes itself."""
    max_continuation_tokens: Annotated[int, Between(2, 2**20)] = 24
    """Of each text that is compared; longer ones are cut and counted."""
    top_p: Annotated[float, Between(0, 1, open_low=True)] = 0.9
    """Of the anchors: the least share of probability that is sampled from."""
    anchor_temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """Of their sampling."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.anchor_tokens > self.max_continuation_tokens:
            raise ValueError(
                f"anchor_tokens must be at most max_continuation_tokens, "
                f"{self.max_continuation_tokens}: got {self.anchor_tokens}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainConfig:
    """All that a training run depends on, next to its rows and the weights that it starts from.

    A variant is `dataclasses.replace(config, ...)`, or `lmcore.training.config.change` where a
    part of a part changes.

    Source: Detox-Chain (arXiv 2308.08295), section 4 of the specification.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or two settings
            do not go together.

    Example:
        >>> TrainConfig(batch_size=8).max_chain_tokens
        280
    """

    model: str | None = None
    """A folder or a name that transformers knows: a causal language model or an encoder-decoder;
    None: one of `scratch`."""
    scratch: ScratchConfig = field(default_factory=ScratchConfig)
    """The model that is made where none is named."""
    lora: LoraConfig = field(default_factory=LoraConfig)
    """Whether all weights are trained, or small matrices beside them."""
    contrastive: ContrastiveConfig = field(default_factory=ContrastiveConfig)
    """The term beside the cross entropy."""
    grammar: Literal["paper", "student"] = "paper"
    """Of the chains."""
    max_chain_tokens: Annotated[int, Between(2, 2**20)] = 280
    """Of input and chain together; of each, with an encoder-decoder."""
    max_template_tokens: Annotated[int, Between(2, 2**20)] = 250
    """Of what a continuation is sampled behind; longer ones have no contrastive term and are
    counted."""
    long_chains: Literal["leave_out", "refuse"] = "leave_out"
    """What becomes of longer chains: they are counted and left out, or end the run."""
    end_token: bool = True
    """Whether the token of the end is learnt behind a chain; the authors have none."""

    epochs: Annotated[int, Between(1, _MOST)] = 10
    """When to end, where `loop.steps` does not say."""
    batch_size: Annotated[int, Between(1, 2**20)] = 64
    """Rows of a step; of all processes together."""
    micro_batch_size: Annotated[int, Between(1, 2**20)] = 8
    """Rows that a device computes at once: gradients of a larger share of the batch are
    accumulated."""
    anchor_batch_size: Annotated[int, Between(1, 2**20)] = 32
    """Rows for which a device samples anchors at once."""
    warmup_share: Annotated[float, Between(0, 1, open_high=True)] = 0.03
    """Share of the steps in which the step size rises, where `schedule.warmup_steps` is 0."""

    optimizer: OptimizerConfig = field(
        default_factory=lambda: OptimizerConfig(lr=5e-4, clip_norm=1.0)
    )
    """AdamW; its limit on gradients is that of transformers' trainer, which the authors use."""
    schedule: ScheduleConfig = field(default_factory=lambda: ScheduleConfig(kind="cosine"))
    """Of its step size."""
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(metric="loss", metric_mode="min", seed=42)
    )
    """Steps, states and seed. The metric is the cross entropy of the validation rows."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. bfloat16 is taken where a GPU has it, and float32 elsewhere."""

    def __post_init__(self) -> None:
        check_fields(self)
        if (self.loop.metric, self.loop.metric_mode) != ("loss", "min"):
            raise ValueError("loop.metric must be loss, and loop.metric_mode min")
        if self.warmup_share and self.schedule.warmup_steps:
            raise ValueError("warmup_share and schedule.warmup_steps must not both be given")


def gpt2_xl() -> TrainConfig:
    """Returns the paper's training of GPT2-XL, of which 2,457,600 parameters are trained.

    Example:
        >>> gpt2_xl().lora.targets
        ('c_attn',)
    """
    return _paper("openai-community/gpt2-xl", "c_attn")


def flan_t5_xl() -> TrainConfig:
    """Returns the paper's training of Flan-T5-XL, of which 4,718,592 parameters are trained.

    Example:
        >>> flan_t5_xl().lora.rank
        8
    """
    return _paper("google/flan-t5-xl", "q", "v")


def mistral_7b() -> TrainConfig:
    """Returns the paper's training of Mistral-7B-Instruct: 3,407,872 parameters.

    The paper does not say which version it is.

    Example:
        >>> mistral_7b().model
        'mistralai/Mistral-7B-Instruct-v0.1'
    """
    return _paper("mistralai/Mistral-7B-Instruct-v0.1", "q_proj", "v_proj")


def llama2_7b() -> TrainConfig:
    """Returns the paper's training of LLaMA2-7B, of which 4,194,304 parameters are trained.

    Example:
        >>> llama2_7b().optimizer.lr
        0.0005
    """
    return _paper("meta-llama/Llama-2-7b-hf", "q_proj", "v_proj")


def llama2_13b() -> TrainConfig:
    """Returns the paper's training of LLaMA2-13B, of which 6,553,600 parameters are trained.

    Example:
        >>> llama2_13b().epochs
        10
    """
    return _paper("meta-llama/Llama-2-13b-hf", "q_proj", "v_proj")


def alpaca_7b() -> TrainConfig:
    """Returns the training of Alpaca-7B of the paper's first version: 4,194,304 parameters.

    Which copy of the weights it was is not said.

    Example:
        >>> alpaca_7b().lora.alpha
        16.0
    """
    return _paper("chavinlo/alpaca-native", "q_proj", "v_proj")


def llama_33b() -> TrainConfig:
    """Returns the training of LLaMA-33B of the paper's first version: 12,779,520 parameters.

    Example:
        >>> llama_33b().batch_size
        64
    """
    return _paper("huggyllama/llama-30b", "q_proj", "v_proj")


def tiny() -> TrainConfig:
    """Returns the training of a small GPT-2 from random weights: ours, not the paper's.

    For experiments that take minutes on two cores. Its tokenizer is made of the training rows.

    Example:
        >>> tiny().model is None
        True
    """
    return change(TrainConfig(), {"optimizer.lr": 2e-3, "batch_size": 16, "micro_batch_size": 16})


def released(config: TrainConfig) -> TrainConfig:
    """Returns settings with the contrastive term as the released code has it.

    Half of the paper's weight, padding in the mean, fresh anchors in each step, no token for the
    end.

    Args:
        config: the other settings.

    Example:
        >>> released(tiny()).contrastive.weight
        0.5
    """
    term = {"weight": 0.5, "pooling": "released", "refresh_every_steps": 1}
    changes = {f"contrastive.{name}": value for name, value in term.items()}
    return change(config, {**changes, "end_token": False})


def _paper(model: str, *targets: str) -> TrainConfig:
    lora = LoraConfig(rank=8, alpha=16.0, dropout=0.05, targets=targets, save="adapter")
    config = replace(TrainConfig(), model=model, lora=lora)
    changes = {"device.precision": "bfloat16", "loop.save_every_seconds": 1800.0}
    return change(config, {**changes, "loop.keep_states": 1})


#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        tiny, gpt2_xl, flan_t5_xl, mistral_7b, llama2_7b, llama2_13b, alpaca_7b, llama_33b,
    )
}  # fmt: skip
