"""The loss of segments: toxic ones and others apart, so that the few count as much as the many.

Shapes: B rows, S segments of a row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lmcore._extras import optional_imports

if TYPE_CHECKING:
    from torch import Tensor

SPAN_LOSSES = ("authors", "corrected")
"""`authors` is what the released code computes, `corrected` what the paper says."""
IGNORED = -100
"""Label of a segment that is not judged."""

_TOXIC_WEIGHTS = {"authors": 8.0, "corrected": 2.0}
_SHARE = 0.5


def find_toxic_weight(kind: str, toxic_weight: float | None = None) -> float:
    """Returns the weight of toxic segments: that which is given, or the one of a kind of loss.

    Args:
        kind: one of `SPAN_LOSSES`.
        toxic_weight: if it is given.

    Raises:
        ValueError: there is no such kind.

    Example:
        >>> find_toxic_weight("authors"), find_toxic_weight("corrected")
        (8.0, 2.0)
    """
    if kind not in SPAN_LOSSES:
        raise ValueError(f"span_loss must be one of {', '.join(SPAN_LOSSES)}: got {kind!r:.60}")
    return _TOXIC_WEIGHTS[kind] if toxic_weight is None else float(toxic_weight)


def compute_span_loss(
    span_logits: Tensor,
    labels: Tensor,
    *,
    kind: str = "authors",
    toxic_weight: float | None = None,
    counts: tuple[int, int] | None = None,
) -> Tensor:
    """Returns the loss of segments: (weight x mean over toxic ones + mean over others) / 2.

    Of `authors` the cross entropy is that of a softmax of the probabilities, as the released code
    has it, which gives every segment between 0.3133 and 1.3133, and toxic segments weigh 8.
    `corrected` takes the logits, and the paper's weight of 2. A kind of segment that is missing
    counts as 0, also under the half.

    Source: Detox-Chain (arXiv 2308.08295), section 2.3 of the specification.

    Args:
        span_logits: `[B, S, 2]` float, for other and toxic.
        labels: `[B, S]` int64, 1 for toxic, 0 for other, -100 for none.
        kind: one of `SPAN_LOSSES`.
        toxic_weight: in place of 8 or 2.
        counts: toxic segments and others by which the sums are divided, where these are a part of
            a batch; those of `labels` by default.

    Returns:
        A scalar.

    Raises:
        ValueError: there is no such kind, or shapes do not fit.

    Example:
        >>> import torch
        >>> logits, labels = torch.zeros(1, 3, 2), torch.tensor([[1, 0, -100]])
        >>> round(compute_span_loss(logits, labels).item(), 4)  # (8 + 1) / 2 * log(2)
        3.1192
    """
    with optional_imports():
        import torch
        from torch.nn import functional

    weight = find_toxic_weight(kind, toxic_weight)
    if span_logits.shape != (*labels.shape, 2):
        raise ValueError(
            f"span_logits must have the shape {[*labels.shape, 2]}: got {list(span_logits.shape)}"
        )
    toxic, other = labels == 1, labels == 0
    # Of two classes the cross entropy is softplus of how far the other one is ahead, and the
    # difference of two probabilities is tanh of half the difference of their logits.
    ahead = span_logits[..., 1] - span_logits[..., 0]
    if kind == "authors":
        ahead = torch.tanh(ahead / 2)
    losses = functional.softplus(torch.where(toxic, -ahead, ahead))
    # No branch and no number leaves the device.
    toxic_count, other_count = (
        (toxic.sum().clamp(min=1), other.sum().clamp(min=1))
        if counts is None
        else (max(1, counts[0]), max(1, counts[1]))
    )
    toxic_loss = torch.where(toxic, losses, 0.0).sum() / toxic_count
    other_loss = torch.where(other, losses, 0.0).sum() / other_count
    loss: Tensor = (weight * toxic_loss + other_loss) * _SHARE
    return loss
