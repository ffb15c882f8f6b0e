"""The loss of text diffusion, with the Distance Penalty between predictions of one text.

Shapes: B rows, L positions, E latent size, V vocabulary, T steps.

A view is a noisy version of the texts at one step each.  Without a penalty there is one; the
Distance Penalty takes a second one at a step nearby, and pulls both predictions together;
`near_far` takes a third one, far away, and pushes it off.

Source: Bridge-Gap Diffusion (arXiv 2305.04465) and its released `training_losses_seq2seq`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.diffusion.process import Process, check_mask

Kind: TypeAlias = Literal["none", "l2", "l2_noise", "l2_noise_random", "cosine", "near_far"]

_VIEWS = {"none": 1, "near_far": 3}
_BY_NOISE = ("l2_noise", "l2_noise_random")


@dataclass(kw_only=True, slots=True, frozen=True)
class Penalty:
    """How predictions of a text at several steps are held together; the default is the paper's.

    Signs are the released code's, which subtracts: `weight` of the paper's penalty is negative.

    Attributes:
        kind: `none`; `l2_noise_random` and `l2_noise`, the squared distance to the prediction at a
            step whose noise is near, at random within what is near or the furthest of it; `l2`,
            the same a fixed number of steps away; `cosine` at such a step; `near_far`, cosines to
            the predictions at a step that is near and at one that is far.
        weight: lambda. It must not be above 0 with the squared distances; with `cosine` a negative
            one pulls together and a positive one pushes apart. Not used by `near_far`.
        near_weight: of `near_far`: times 1 + the cosine, so a negative one pulls together.
        far_weight: of `near_far`: times 1 - the cosine, so a negative one pushes apart.

    Raises:
        ValueError: a value lies outside its range.

    Example:
        >>> Penalty().views
        2
    """

    kind: Kind = "l2_noise_random"
    weight: float = -2.0
    near_weight: float = -1.0
    far_weight: float = -1.0

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}: got {self.kind!r}")
        for name in ("weight", "near_weight", "far_weight"):
            if not abs(getattr(self, name)) < float("inf"):
                raise ValueError(f"{name} must be finite: got {getattr(self, name)}")
        if self.kind.startswith("l2") and self.weight > 0:
            raise ValueError(f"weight must not be above 0 with {self.kind}: got {self.weight}")

    @property
    def views(self) -> int:
        """How many noisy versions of a text it needs."""
        return _VIEWS.get(self.kind, 2)


class View(NamedTuple):
    """A noisy version of the texts."""

    timesteps: Tensor
    """`[B]` integers below T."""
    noise: Tensor
    """`[B, L, E]` from the standard normal distribution."""


class Losses(NamedTuple):
    """The loss of each row and its parts, each `[B]` float32."""

    loss: Tensor
    """What to differentiate, after the weights of the sampled timesteps: the sum of `mse`,
    `embedding`, `prior` and the penalty where it counts, over 2, or over 3 with `near_far`."""
    mse: Tensor
    """Mean squared error of the predictions against the word embeddings, summed over the views."""
    mse_views: tuple[Tensor, ...]
    """The same of each view."""
    embedding: Tensor
    """Cross-entropy of the tokens given the clean latents, times the views."""
    prior: Tensor
    """Mean square of what is left of the clean latents at the last step, times the views."""
    penalty: Tensor
    """The weighted penalty; 0 without one."""
    penalized: Tensor
    """`[B]` bool: where the penalty counts."""
    nll: Tensor | None
    """Cross-entropy of the target's tokens given the prediction, which nothing is trained with;
    None unless it was asked for."""


def find_penalized(penalty: Penalty, views: Sequence[View], steps: int) -> Tensor:
    """Returns for which rows a penalty counts: those that have a step nearby.

    Args:
        penalty: its kind decides.
        views: the text's own, and the others.
        steps: T.

    Returns:
        `[B]` bool: with steps by noise, where the two differ; with shifted steps, where no other
        one lies at an end.

    Example:
        >>> views = [View(torch.tensor([5, 9]), torch.ones(2)) for _ in range(2)]
        >>> find_penalized(Penalty(kind="l2"), views, 10).tolist()
        [True, False]
    """
    own, *others = (view.timesteps for view in views)
    counts = torch.full_like(own, penalty.kind != "none", dtype=torch.bool)
    for other in others:
        if penalty.kind in _BY_NOISE:
            counts = counts & (other != own)
        else:
            counts = counts & (other != 0) & (other != steps - 1)
    return counts


def compute_losses(
    model: Any,
    process: Process,
    ids: Tensor,
    mask: Tensor,
    start_noise: Tensor,
    views: Sequence[View],
    penalty: Penalty = Penalty(),
    *,
    with_nll: bool = False,
) -> Losses:
    """Returns the loss of each row, with gradients through all predictions.

    The network predicts the word embeddings; it sees the views of a row in one forward pass.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), the released `training_losses_seq2seq` and
    `training_losses_seq2seq_far_and_near`.

    Args:
        model: a `TextDiffusionModel`: called with `[B, L, E]` and `[B]`, with `embed` and
            `get_logits`.
        process: that of the training, T steps.
        ids: `[B, L]` int64 tokens.
        mask: `[B, L]` bool, the target's positions with all padding; only they become noisy.
        start_noise: `[B, L, E]` from the standard normal distribution, between embeddings and
            clean latents.
        views: one for no penalty, two, or three for `near_far`: the text's own, then the near one.
        penalty: which, and with which weights.
        with_nll: whether the cross-entropy of the predictions is computed, for a log.

    Raises:
        TypeError: ids or steps are not integers, or the mask is not of bool.
        IndexError: an id or a step lies outside its range.
        ValueError: shapes do not fit, or there are not as many views as the penalty needs.

    Example:
        >>> from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
        >>> model = TextDiffusionModel(TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... ))
        >>> ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]])
        >>> views = [View(torch.tensor([t]), torch.randn(1, 3, 4)) for t in (0, 1)]
        >>> noise = torch.randn(1, 3, 4)
        >>> compute_losses(model, Process([0.1, 0.2]), ids, mask, noise, views).loss.shape
        torch.Size([1])
    """
    if len(views) != penalty.views:
        raise ValueError(f"views must be {penalty.views} with {penalty.kind}: got {len(views)}")
    if ids.ndim != 2:
        raise ValueError(f"ids must have the shape [batch, length]: got {list(ids.shape)}")
    embeddings = model.embed(ids)
    kind, target = embeddings.dtype, embeddings.float()
    check_mask(mask, target)
    if start_noise.shape != target.shape:
        raise ValueError(
            f"start_noise must have the shape {list(target.shape)}: got {list(start_noise.shape)}"
        )
    clean = target + process.start_deviation * start_noise
    noisy = [process.add_noise(clean, view.timesteps, view.noise, mask) for view in views]
    times = torch.cat([process.scale_times(view.timesteps) for view in views])
    predictions = model(torch.cat(noisy).to(kind), times).float().chunk(len(views))
    errors = tuple(_mean((target - prediction).square()) for prediction in predictions)
    mse = torch.stack(errors).sum(0)
    embedding = len(views) * _cross_entropy(model, clean.to(kind), ids).mean(1)
    prior = len(views) * _mean((process.final_signal * clean).square())
    apart = _penalize(penalty, predictions)
    penalized = find_penalized(penalty, views, process.steps)
    total = mse + embedding + prior + torch.where(penalized, apart, 0.0)
    nll = None
    if with_nll:
        with torch.no_grad():
            entropies = _cross_entropy(model, predictions[0].to(kind), ids)
        nll = (entropies * mask).sum(1) / mask.sum(1)
    loss = total / max(len(views), 2)
    return Losses(loss, mse, errors, embedding, prior, apart, penalized, nll)


def _penalize(penalty: Penalty, predictions: Sequence[Tensor]) -> Tensor:
    """The weighted penalty of each row, `[B]`."""
    own, *others = predictions
    if penalty.kind == "none":
        return own.new_zeros(len(own))
    if penalty.kind == "near_far":
        near, far = (_cosine(other, own) for other in others)
        return penalty.near_weight * (1 + near).mean(1) + penalty.far_weight * (1 - far).mean(1)
    if penalty.kind == "cosine":
        cosine = _cosine(others[0], own)
        if penalty.weight > 0:
            return penalty.weight * (1 + cosine).mean(1)
        return -penalty.weight * (1 - cosine).mean(1)
    return -penalty.weight * _mean((others[0] - own).square())


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    cosine: Tensor = functional.cosine_similarity(a, b, dim=-1)
    return cosine


def _cross_entropy(model: Any, latents: Tensor, ids: Tensor) -> Tensor:
    """Of the token at each position, `[B, L]`."""
    logits = model.get_logits(latents).float()
    return functional.cross_entropy(logits.transpose(1, 2), ids.long(), reduction="none")


def _mean(x: Tensor) -> Tensor:
    """Over all but the rows."""
    return x.flatten(1).mean(1)
