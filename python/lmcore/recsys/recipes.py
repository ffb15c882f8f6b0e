"""Recipes: functions that return the complete settings of a training run.

The four arms of the paper's ablation, each one change of the arm before it, and a variant; and
today's other losses, each one change of the one before, with mining and without.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from lmcore.recsys.metrics import RANK_KINDS, parse_metric
from lmcore.training.config import (
    Between,
    DeviceConfig,
    LoopConfig,
    OptimizerConfig,
    ScheduleConfig,
    check_fields,
)

# The settings of some losses alone.
_MEANINGS = {
    "normalization": ("bce", "gbce"),
    "gbce_t": ("gbce",),
    "log_q": ("sampled_softmax",),
    "temperature": ("sampled_softmax", "cross_entropy"),
    "distribution": ("bce", "gbce", "sampled_softmax"),
    "exponent": ("bce", "gbce", "sampled_softmax"),
}

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainConfig:
    """All that a training run depends on, next to its data.

    The defaults are those of the authors' code, and without mining plain training with many
    negatives. A variant is `dataclasses.replace(config, ...)`, or `lmcore.training.config.change`
    where a part of a part changes.

    Source: UFNRec (arXiv 2208.04116), `main.py`.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a text is none of the choices.

    Example:
        >>> TrainConfig(batch_size=64).negatives
        100
    """

    backbone: Literal["sasrec", "gru4rec", "fmlp", "ligr"] = "sasrec"
    """The sequence model."""
    max_length: Annotated[int, Between(1, 65_536)] = 50
    """Items of the window, L; with mining at most 256."""
    hidden_size: Annotated[int, Between(1, 65_536)] = 50
    """Size of the embeddings and features, H."""
    num_hidden_layers: Annotated[int, Between(1, 1000)] = 2
    """Blocks or recurrent layers."""
    num_attention_heads: Annotated[int, Between(1, 65_536)] = 1
    """Heads of the attention of SASRec and LiGR."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.5
    """Probability in [0, 1)."""

    epochs: Annotated[int, Between(1, _MOST)] = 201
    """When to end, where `loop.steps` does not say; an epoch draws about as many windows as there
    are users."""
    eval_every: Annotated[int, Between(1, _MOST)] = 4
    """Epochs between validations, where `loop.validate_every_steps` does not say."""
    batch_size: Annotated[int, Between(1, 2**20)] = 128
    """Windows of a step, B; of all processes together."""
    l2_emb: Annotated[float, Between(0, 1e30)] = 0.0
    """Weight of the norm of the item embeddings in the loss."""
    loss: Literal["bce", "gbce", "sampled_softmax", "cross_entropy"] = "bce"
    """Of the positive and its negatives: binary cross-entropy, the same with the positives' power
    of gSASRec, or the cross-entropy of the positive among its negatives or among all items."""
    normalization: Literal["mean", "balanced"] = "mean"
    """The losses `bce` and `gbce`: `mean` is twice the mean over all entries, as in the paper;
    `balanced` is the mean over the positives and reversed negatives plus the mean over the other
    negatives."""
    gbce_t: Annotated[float, Between(0, 1)] = 0.75
    """Calibration t of `gbce`; at 0 it is `bce`."""
    log_q: Literal["negatives", "all", "none"] = "negatives"
    """By what `sampled_softmax` corrects for how often items are drawn: each negative, so that
    the sum stands for all items; the positive as well; or nothing, as eSASRec."""
    temperature: Annotated[float, Between(0, 1e30, open_low=True)] = 1.0
    """Divides the logits in `sampled_softmax` and `cross_entropy`."""

    negatives: Annotated[int, Between(1, 2**20)] = 100
    """Negatives of each position, N; `cross_entropy` looks at none."""
    distribution: Literal["uniform", "popularity"] = "uniform"
    """How negatives are drawn."""
    exponent: Annotated[float, Between(0, 100)] = 0.75
    """Of the popularity: a negative's probability grows with count ** exponent."""
    order: Literal["replacement", "shuffle"] = "replacement"
    """How users are drawn: independently, as in the paper, or each once in an epoch."""

    mining: bool = False
    """Whether hard negatives are remembered and shown again."""
    threshold: Annotated[int | None, Between(0, _MOST)] = 5
    """m: a negative shown again more often than this is reversed; None: never."""
    start: Annotated[int | Literal["epoch_loss"], Between(0, 2**53)] = "epoch_loss"
    """When mining and the teacher start: the authors' rule on the losses of the epochs, or a step
    number. The rule counts epochs and fires too early where an epoch has few steps."""
    max_reversed_share: Annotated[float | None, Between(0, 1)] = None
    """At most this share of a batch's negatives is reversed; None: no limit, as in the paper."""
    max_keys: Annotated[int | None, Between(1, 2**40)] = None
    """Bound on the counts that the memory keeps; None: no bound."""
    alpha: Annotated[float, Between(0, 1e30)] = 0.0
    """Weight of the consistency term."""
    ema_decay: Annotated[float | None, Between(0, 1)] = None
    """d: the teacher's limit of decay; None: no teacher. It begins in the step after the start,
    with mining or without, and its weights are those that are validated and saved from then on."""
    teacher_mode: Literal["train", "eval"] = "train"
    """Whether the teacher's dropout is active, as in the paper, or not."""

    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(betas=(0.9, 0.98)))
    """Adam."""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """Of its step size."""
    loop: LoopConfig = field(default_factory=lambda: LoopConfig(metric="NDCG@10"))
    """Steps, states and seed. The metric is HR, Recall, Precision, NDCG, MAP or MRR at any K, such
    as NDCG@20, or MRR, over the full catalogue of validation. The log has a line for each epoch
    where `loop.log_every_steps` does not say otherwise."""
    device: DeviceConfig = field(default_factory=DeviceConfig)
    """Where to compute. Weights are whole in every process, and the backbones are too small to be
    compiled or recomputed."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.mining and self.max_length > 256:
            raise ValueError(
                f"max_length must be at most 256 where mining is true: got {self.max_length}"
            )
        if self.alpha > 0 and self.ema_decay is None:
            raise ValueError("alpha needs a teacher: set ema_decay, such as 0.999")
        if self.alpha > 0 and not self.mining:
            raise ValueError("alpha needs mining=true: it weighs a loss of reversed negatives")
        for name, losses in _MEANINGS.items():
            usual = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != usual and self.loss not in losses:
                raise ValueError(f"{name} has no meaning where loss is {self.loss}")
        if self.exponent != 0.75 and self.distribution == "uniform":
            raise ValueError("exponent has no meaning where distribution is uniform")
        if self.mining and self.loss == "cross_entropy":
            raise ValueError(
                "mining must be false where loss is cross_entropy: all items are negatives of "
                "each position there, and none is shown again"
            )
        if self.alpha > 0 and self.loss == "sampled_softmax":
            raise ValueError(
                "alpha must be 0 where loss is sampled_softmax: its logits are no probabilities "
                "of single items, so that a teacher has none to agree on"
            )
        _check_metric(self.loop.metric)
        if self.loop.metric_mode != "max":
            raise ValueError("loop.metric_mode must be max: high metrics are good ones")
        for name, usual in (("sharding", "none"), ("compile", False), ("recompute", False)):
            if getattr(self.device, name) != usual:
                raise ValueError(
                    f"device.{name} must be {str(usual).lower()}: backbones are not built for it"
                )


def _check_metric(name: str) -> None:
    """Refuses what says nothing about which step is best."""
    try:
        metric = parse_metric(name)
    except ValueError as error:
        raise ValueError(f"loop.metric must be a metric: {error}") from None
    if metric.is_of_lists:
        # A list of random items has the highest coverage and novelty and the lowest popularity.
        ranked = ", ".join(f"{kind}@K" for kind in RANK_KINDS)
        raise ValueError(f"loop.metric must be one of {ranked} and MRR: got {name!r:.60}")


def plain() -> TrainConfig:
    """Returns plain training with 100 negatives of each position.

    Example:
        >>> plain().mining
        False
    """
    return TrainConfig()


def representation() -> TrainConfig:
    """Returns plain training that shows hard negatives again, as negatives.

    The weights that are validated and saved are the moving average, as in the paper's other arms.

    Source: UFNRec with m = infinity and alpha = 0.

    Example:
        >>> representation().threshold is None
        True
    """
    return replace(plain(), mining=True, threshold=None, ema_decay=0.999)


def reversal() -> TrainConfig:
    """Returns training that reverses negatives which were shown again more than 5 times.

    Source: UFNRec with alpha = 0.

    Example:
        >>> reversal().threshold
        5
    """
    return replace(representation(), threshold=5)


def consistency() -> TrainConfig:
    """Returns the complete UFNRec: reversal, and agreement with a teacher on what is reversed.

    Source: UFNRec, all defaults of `main.py`; the start is the authors' rule.

    Example:
        >>> consistency().alpha
        0.3
    """
    return replace(reversal(), alpha=0.3)


def patient() -> TrainConfig:
    """Returns training that reverses late and seldom: our variant, not the paper's.

    It reverses what was shown again more than 15 times instead of 5, has no consistency term, and
    starts by a step number instead of the authors' rule. On a small dense set of real data it
    ranks better than the paper's setting, and as well as plain training or better; see the table
    in `docs/papers/ufnrec.md`. `start` is where plain training's validation has flattened there.

    Example:
        >>> patient().threshold, patient().start
        (15, 2321)
    """
    return replace(reversal(), threshold=15, start=2321)


def gbce() -> TrainConfig:
    """Returns training by gBCE with 256 negatives, whose logits are less overconfident.

    `plain` with `negatives=256` is the binary cross-entropy to compare it with.

    Source: gSASRec (arXiv 2308.07192), with its t = 0.75 and 256 negatives.

    Example:
        >>> gbce().gbce_t, gbce().negatives
        (0.75, 256)
    """
    return replace(plain(), loss="gbce", negatives=256)


def sampled_softmax() -> TrainConfig:
    """Returns training by the softmax over the positive and 256 negatives.

    Source: eSASRec (RecSys 2025), whose loss is that of `log_q="none"`.

    Example:
        >>> sampled_softmax().negatives
        256
    """
    return replace(gbce(), loss="sampled_softmax")


def cross_entropy() -> TrainConfig:
    """Returns training by the softmax over all items.

    Source: Klenitskiy and Vasilev (RecSys 2023), who train SASRec with it.

    Example:
        >>> cross_entropy().loss
        'cross_entropy'
    """
    return replace(sampled_softmax(), loss="cross_entropy")


def gbce_mined() -> TrainConfig:
    """Returns gBCE with mining as in `patient`; what is reversed has the power of positives too.

    Example:
        >>> gbce_mined().mining, gbce_mined().threshold
        (True, 15)
    """
    return replace(patient(), loss="gbce", negatives=256)


def sampled_softmax_mined() -> TrainConfig:
    """Returns the sampled softmax with mining as in `patient`.

    Example:
        >>> sampled_softmax_mined().loss
        'sampled_softmax'
    """
    return replace(gbce_mined(), loss="sampled_softmax")


#: The recipes by name.
RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        plain, representation, reversal, consistency, patient,
        gbce, sampled_softmax, cross_entropy, gbce_mined, sampled_softmax_mined,
    )
}  # fmt: skip
