"""The loss of UFNRec on packed positions.

Shapes: B rows, L positions, P packed positions, N negatives, H hidden size, I items, R reversed
negatives.  Column 0 of the logits is the positive, column 1 + j is negative j.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from lmcore.ops.sampled_logits import sampled_logits

NORMALIZATIONS = ("mean", "balanced")


@dataclass(kw_only=True, slots=True, frozen=True)
class Loss:
    """The loss of a step and its parts; each is a scalar tensor."""

    total: Tensor
    """What to differentiate: `bce + alpha * consistency + l2_emb * norm`."""
    bce: Tensor
    """Binary cross-entropy of the labels, 2 x mean or balanced."""
    consistency: Tensor | None
    """Binary cross-entropy against the teacher, without its weight; None where it is absent."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Counts:
    """By what the sums of a loss are divided; those of all processes together, if several."""

    entries: int
    """All logits, P (1 + N)."""
    positives: int
    """Those with label 1: P positives and the reversed negatives."""
    reversed: int
    """Reversed negatives, R."""

    @property
    def positions(self) -> int:
        """P."""
        return self.positives - self.reversed


def count_labels(labels: Tensor) -> Counts:
    """Returns the counts that divide the loss of these labels.

    Several processes that share a batch add theirs up and hand the sums to `ufn_loss`.

    Args:
        labels: `[P, 1 + N]`, 1 for column 0 and for reversed negatives, else 0.

    Example:
        >>> count_labels(torch.tensor([[1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
        Counts(entries=6, positives=3, reversed=1)
    """
    positives = int(torch.count_nonzero(labels))  # a sum of halves is rounded
    return Counts(entries=labels.numel(), positives=positives, reversed=positives - labels.shape[0])


def packed_logits(
    features: Tensor,
    item_emb: Tensor,
    positives: Tensor,
    negatives: Tensor,
    flat_indices: Tensor | None = None,
) -> Tensor:
    """Returns the logits of the positive and the negatives of each packed position.

    Args:
        features: `[P, H]`, or `[B, L, H]` with `flat_indices`.
        item_emb: `[I + 1, H]`, the table of item embeddings.
        positives: `[P]` int64 item ids, or `[B, L]` with `flat_indices`.
        negatives: `[P, N]` int64 item ids.
        flat_indices: `[P]` int64, indices `row * L + p` of the packed positions.

    Returns:
        `[P, 1 + N]`.

    Raises:
        ValueError: the shapes do not fit each other.

    Example:
        >>> table = torch.tensor([[0.0], [1.0], [2.0]])
        >>> packed_logits(torch.ones(1, 1), table, torch.tensor([2]), torch.tensor([[1, 1]]))
        tensor([[2., 1., 1.]])
    """
    if flat_indices is not None:
        features = features.flatten(0, 1).index_select(0, flat_indices)
        positives = positives.flatten().index_select(0, flat_indices)
    if features.ndim != 2 or positives.ndim != 1 or negatives.ndim != 2:
        raise ValueError(
            f"features, positives and negatives must be [P, H], [P] and [P, N]: got "
            f"{list(features.shape)}, {list(positives.shape)} and {list(negatives.shape)}"
        )
    if not len(features) == len(positives) == len(negatives):
        raise ValueError(
            f"features, positives and negatives must have one row per position: got "
            f"{len(features)}, {len(positives)} and {len(negatives)}"
        )
    kind = torch.promote_types(positives.dtype, negatives.dtype)
    return sampled_logits(
        features, item_emb, positives.to(kind), negatives.to(kind), padding_index=0
    )


def ufn_loss(
    logits: Tensor,
    labels: Tensor | None = None,
    *,
    reversed_indices: Tensor | None = None,
    teacher_logits: Tensor | None = None,
    alpha: float = 0.0,
    beta: float = 1.0,
    normalization: str = "mean",
    item_emb: Tensor | None = None,
    l2_emb: float = 0.0,
    counts: Counts | None = None,
) -> Loss:
    """Returns the loss of UFNRec for the packed positions of a batch.

    `mean` is the paper's: twice the mean binary cross-entropy of all entries, so that a positive
    weighs as much as a negative.  `balanced` is the mean over the entries with label 1 plus the
    mean over those with label 0.  The consistency term is the mean over the reversed negatives of
    the binary cross-entropy against `sigmoid(teacher_logits)`, times `alpha`.  It is absent
    without a teacher and where nothing is reversed.

    With a `beta` of `find_gbce_beta` it is gBCE: `-ln sigmoid(z) ** beta` for each entry with
    label 1, reversed negatives too. Nothing is raised to a power: the logarithm is multiplied, so
    that large logits stay finite.

    Source: UFNRec (arXiv 2208.04116), `main.py`; alpha in the paper. gSASRec (arXiv 2308.07192):
    its mean over the entries of a position is half of `mean`.

    Args:
        logits: `[P, 1 + N]` of any floating type; the loss of halves is computed in float32.
        labels: `[P, 1 + N]`, 1 for column 0 and for reversed negatives, else 0. None: what
            `reversed_indices` says, without making such an array where the loss can do without.
        reversed_indices: `[R]` int64, `position * N + slot` of the reversed negatives, each once.
        teacher_logits: `[R]`, what the teacher gives for them; no gradient flows into it.
        alpha: weight of the consistency term.
        beta: weight of the entries with label 1.
        normalization: one of `NORMALIZATIONS`.
        item_emb: `[I + 1, H]`, for `l2_emb`.
        l2_emb: weight of the norm (not squared) of the whole table.
        counts: what divides the sums; by default what `count_labels` gives for these labels.

    Raises:
        ValueError: shapes do not fit, an option is unknown, or `l2_emb` lacks `item_emb`.

    Example:
        >>> labels = torch.tensor([[1.0, 0.0]])
        >>> round(ufn_loss(torch.zeros(1, 2), labels).total.item(), 4)
        1.3863
    """
    if normalization not in NORMALIZATIONS:
        expected = ", ".join(NORMALIZATIONS)
        raise ValueError(f"normalization must be one of {expected}: got {normalization!r}")
    if logits.ndim != 2 or (labels is not None and logits.shape != labels.shape):
        other = "none" if labels is None else list(labels.shape)
        raise ValueError(
            f"logits and labels must both be [P, 1 + N]: got {list(logits.shape)} and {other}"
        )
    logits = widen(logits)
    if labels is not None:
        labels = labels.to(logits.dtype)
    elif normalization != "mean":
        labels = _make_labels(logits, reversed_indices)
    if normalization == "mean":
        entries = logits.numel() if counts is None else counts.entries
        bce: Tensor
        if labels is None:
            bce = _SummedBCE.apply(logits, reversed_indices, beta)
        elif beta == 1:
            bce = functional.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
        else:
            bce = beta * _sum_ones(logits, labels) + _sum_zeros(logits, labels)
        bce = bce * (2 / max(entries, 1))
    else:
        assert labels is not None
        counts = counts or count_labels(labels)
        ones = _sum_ones(logits, labels)
        bce = (ones if beta == 1 else beta * ones) / max(counts.positives, 1)
        bce = bce + _sum_zeros(logits, labels) / max(counts.entries - counts.positives, 1)
    total = bce
    consistency = None
    if teacher_logits is not None:
        consistency = _compute_consistency(logits, reversed_indices, teacher_logits, counts)
    if consistency is not None:
        total = total + alpha * consistency
    if l2_emb:
        if item_emb is None:
            raise ValueError("l2_emb needs item_emb: got None")
        total = add_norm(total, item_emb, l2_emb)
    return Loss(total=total, bce=bce, consistency=consistency)


def widen(logits: Tensor) -> Tensor:
    """Returns logits of halves as float32, and others as they are.

    float16 ends at 65,504, which the sum over a batch soon passes, and bfloat16 has three digits.

    Args:
        logits: of any shape and floating type.

    Example:
        >>> widen(torch.zeros(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return logits.float() if logits.dtype.itemsize < 4 else logits


def add_norm(loss: Tensor, item_emb: Tensor, l2_emb: float) -> Tensor:
    """Returns a loss with the norm (not squared) of the table of items, times `l2_emb`.

    Args:
        loss: a scalar.
        item_emb: `[I + 1, H]`.
        l2_emb: its weight; with 0 the loss itself comes back.

    Example:
        >>> add_norm(torch.tensor(1.0), torch.tensor([[3.0], [4.0]]), 0.1)
        tensor(1.5000)
    """
    return loss + l2_emb * torch.linalg.vector_norm(item_emb) if l2_emb else loss


def find_gbce_beta(negatives: int, item_count: int, t: float) -> float:
    """Returns the power of gBCE, from `negatives / (I - 1)` at t = 1 to 1 at t = 0.

    It is 1 - t (1 - a) with the rate of sampling a = N / (I - 1). At t = 1 the probabilities are
    those that training with all items gives; at t = 0 the loss is binary cross-entropy. A rate
    above 1, of more negatives than items, counts as 1.

    Source: gSASRec (arXiv 2308.07192), where it is written a (t (1 - 1 / a) + 1 / a).

    Args:
        negatives: of each position, N.
        item_count: items of the catalogue, I.
        t: the calibration, from 0 to 1.

    Raises:
        ValueError: `t` is out of its range, or there are no negatives.

    Example:
        >>> find_gbce_beta(negatives=10, item_count=41, t=0.5)
        0.625
    """
    if negatives < 1:
        raise ValueError(f"negatives must be at least 1: got {negatives}")
    if not 0 <= t <= 1:
        raise ValueError(f"t must be from 0 to 1: got {t}")
    rate = min(1.0, negatives / max(item_count - 1, 1))
    return 1 - t * (1 - rate)


class _SummedBCE(torch.autograd.Function):
    """The sum of the binary cross-entropies of all logits, without an array of labels.

    It is the sum of softplus(z) over all logits less the sum of z over those with label 1; of
    those beta softplus(-z) = beta (softplus(z) - z) shall count, where beta is not 1.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, reversed_indices: Tensor | None, beta: float) -> Tensor:
        ctx.save_for_backward(logits, reversed_indices)
        ctx.beta = beta
        summed = functional.softplus(logits).sum()
        for ones in _list_ones(logits, reversed_indices):
            if beta == 1:
                summed = summed - ones.sum()
            else:
                summed = summed - beta * ones.sum() - (1 - beta) * functional.softplus(ones).sum()
        return summed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (logits, reversed_indices), beta = ctx.saved_tensors, ctx.beta
        slopes = logits.sigmoid()
        if beta == 1:
            slopes[:, 0] -= 1
        else:
            slopes[:, 0] = -beta * (-logits[:, 0]).sigmoid()
        if reversed_indices is not None:
            places = among_logits(logits, reversed_indices)
            if beta == 1:
                slopes.view(-1)[places] -= 1
            else:
                slopes.view(-1)[places] = -beta * (-logits.take(places)).sigmoid()
        return slopes.mul_(gradient), None, None


def _list_ones(logits: Tensor, reversed_indices: Tensor | None) -> list[Tensor]:
    """The logits with label 1: those of the positives, and of what is reversed."""
    ones = [logits[:, 0]]
    if reversed_indices is not None:
        ones.append(logits.take(among_logits(logits, reversed_indices)))
    return ones


def _sum_ones(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of softplus(-z) = -ln sigmoid(z) over the entries with label 1."""
    return (functional.softplus(-logits) * labels).sum()


def _sum_zeros(logits: Tensor, labels: Tensor) -> Tensor:
    """The sum of softplus(z) = -ln(1 - sigmoid(z)) over the entries with label 0."""
    return (functional.softplus(logits) * (1 - labels)).sum()


def _make_labels(logits: Tensor, reversed_indices: Tensor | None) -> Tensor:
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    if reversed_indices is not None:
        labels.view(-1).index_fill_(0, among_logits(logits, reversed_indices), 1)
    return labels


def among_logits(logits: Tensor, indices: Tensor) -> Tensor:
    """Returns where reversed negatives stand in the flattened logits, `[R]`.

    Args:
        logits: `[P, 1 + N]`.
        indices: `[R]` int64, `position * N + slot`.

    Example:
        >>> among_logits(torch.zeros(2, 3), torch.tensor([1, 2])).tolist()
        [2, 4]
    """
    return indices + indices // max(logits.shape[1] - 1, 1) + 1


def _compute_consistency(
    logits: Tensor, indices: Tensor | None, teacher_logits: Tensor, counts: Counts | None
) -> Tensor | None:
    if indices is None or indices.ndim != 1 or teacher_logits.shape != indices.shape:
        shape = None if indices is None else list(indices.shape)
        raise ValueError(
            f"teacher_logits and reversed_indices must both be [R]: "
            f"got {list(teacher_logits.shape)} and {shape}"
        )
    if not len(indices) and not (counts and counts.reversed):
        return None
    student = take_negatives(logits, indices)
    targets = teacher_logits.detach().to(logits.dtype).sigmoid()
    summed = functional.binary_cross_entropy_with_logits(student, targets, reduction="sum")
    return summed / (len(indices) if counts is None else counts.reversed)


def take_negatives(logits: Tensor, indices: Tensor) -> Tensor:
    """Returns the logits of chosen negatives, `[R]`.

    Args:
        logits: `[P, 1 + N]`.
        indices: `[R]` int64, `position * N + slot`.

    Example:
        >>> take_negatives(torch.tensor([[0, 1, 2], [3, 4, 5]]), torch.tensor([1, 2])).tolist()
        [2, 4]
    """
    return logits[:, 1:].flatten().index_select(0, indices)
