"""Logits of one positive and N sampled items of each position, and their loss: what they mean.

z_pj = s_p w_{i_pj} + b_{i_pj}; i_p0 is the positive.  With log Q correction the loss takes
z_pj - log Q(i_pj), which makes a softmax over the sample an estimate of that over all items.

Sources: SASRec (arXiv 1808.09781), equation 7, and UFNRec (arXiv 2208.04116), section 3: binary
cross-entropy; sampling-bias correction (Yi et al., RecSys 2019), equations 3 to 5: softmax.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.reference._reductions import check_reduction, reduce

KINDS = ("bce", "softmax")


def sampled_logits(
    s: Tensor,
    w: Tensor,
    positives: Tensor,
    negatives: Tensor,
    b: Tensor | None = None,
    mask: Tensor | None = None,
    padding_index: int | None = None,
) -> Tensor:
    """Returns z_pj = s_p w_i + b_i of the positive (column 0) and the negatives.

    Sums are in float32 (in float64 for float64).  A position that `mask` leaves out has zeros, no
    gradient, and ids that nobody looks at.

    Args:
        s: `[P, H]` floating point.
        w: `[V, H]` of the same type.
        positives: `[P]` int32 or int64.
        negatives: `[P, N]` of the same type.
        b: `[V]` floating point, or None.
        mask: `[P]` bool, the positions that count; None: all.
        padding_index: the item that gets no gradient.

    Returns:
        `[P, 1 + N]` of the type of `s`.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit.
        IndexError: an id is none of an item.

    Example:
        >>> s, w = torch.ones(1, 1), torch.tensor([[0.0], [1.0], [2.0]])
        >>> sampled_logits(s, w, torch.tensor([2]), torch.tensor([[1, 1]]))
        tensor([[2., 1., 1.]])
    """
    check_arguments(s, w, positives, negatives, b, mask, padding_index)
    z = compute_logits(s, w, positives, negatives, b, mask, padding_index)
    return z.to(s.dtype)


def sampled_loss(
    s: Tensor,
    w: Tensor,
    positives: Tensor,
    negatives: Tensor,
    b: Tensor | None = None,
    log_q: Tensor | None = None,
    mask: Tensor | None = None,
    padding_index: int | None = None,
    kind: str = "bce",
    reduction: str = "mean",
) -> Tensor:
    """Returns the loss of the sampled logits, corrected by log Q.

    `bce` is (softplus(-z_p0) + sum_j softplus(z_pj)) / (1 + N), `softmax` -z_p0 + log sum exp z_p.

    Args:
        s: as there.
        w: as there.
        positives: as there.
        negatives: as there.
        b: as there.
        log_q: `[V]` floating point: the logarithm of how probable it is to sample an item.
        mask: as there.
        padding_index: as there.
        kind: one of `KINDS`.
        reduction: over the positions that count: `mean`, `sum` or `none`.

    Returns:
        float32, or float64 for float64: a scalar, or `[P]` for `none`.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or a name is unknown.
        IndexError: an id is none of an item.

    Example:
        >>> s, w = torch.zeros(1, 1), torch.ones(3, 1)
        >>> sampled_loss(s, w, torch.tensor([2]), torch.tensor([[1, 1]]), kind="softmax").exp()
        tensor(3.)
    """
    check_arguments(s, w, positives, negatives, b, mask, padding_index)
    check_loss(w, log_q, kind, reduction)
    z = compute_logits(s, w, positives, negatives, join_bias(b, log_q), mask, padding_index)
    losses = compute_losses(z, kind)
    if mask is not None:
        losses = torch.where(mask, losses, 0)
    return reduce(losses, mask, reduction)


def compute_logits(
    s: Tensor,
    w: Tensor,
    positives: Tensor,
    negatives: Tensor,
    b: Tensor | None,
    mask: Tensor | None,
    padding_index: int | None,
) -> Tensor:
    """Returns the logits in the type that they are computed in.

    Args:
        s: as there.
        w: as there.
        positives: as there.
        negatives: as there.
        b: as there.
        mask: as there.
        padding_index: as there.

    Raises:
        IndexError: an id is none of an item.

    Example:
        >>> ids = torch.tensor([1])
        >>> compute_logits(torch.ones(1, 2), torch.ones(3, 2), ids, ids[:, None], None, None, None)
        tensor([[2., 2.]])
    """
    kind = torch.promote_types(s.dtype, torch.float32)
    items = torch.cat([positives[:, None], negatives], 1)
    rows = None if mask is None else mask.nonzero()[:, 0]
    if rows is not None:
        s, items = s.index_select(0, rows), items.index_select(0, rows)
    check_range(items, len(w))
    candidates = w.to(kind)[items]
    biases = None if b is None else b.to(kind)[items]
    if padding_index is not None:
        shown = items != padding_index
        candidates = torch.where(shown[..., None], candidates, candidates.detach())
        biases = None if biases is None else torch.where(shown, biases, biases.detach())
    z = torch.einsum("ph,pch->pc", s.to(kind), candidates)
    z = z if biases is None else z + biases
    if rows is None:
        return z
    assert mask is not None
    return z.new_zeros(len(mask), z.shape[1]).index_copy(0, rows, z)


def compute_losses(z: Tensor, kind: str) -> Tensor:
    """Returns the loss of each row of logits, whose first one is the positive's.

    Args:
        z: `[P, 1 + N]`.
        kind: one of `KINDS`.

    Example:
        >>> compute_losses(torch.zeros(1, 4), "softmax").exp()
        tensor([4.])
    """
    if kind == "softmax":
        return -z.log_softmax(1)[:, 0]
    wrong = functional.softplus(z[:, 1:]).sum(1)
    return (functional.softplus(-z[:, 0]) + wrong) / z.shape[1]


def join_bias(b: Tensor | None, log_q: Tensor | None) -> Tensor | None:
    """Returns what is added to the logits of each item: `[V]`.

    Args:
        b: as there.
        log_q: as there.

    Example:
        >>> join_bias(torch.tensor([1.0]), torch.tensor([-3.0]))
        tensor([4.])
    """
    if log_q is None:
        return b
    return -log_q if b is None else b - log_q


def check_arguments(
    s: Tensor,
    w: Tensor,
    positives: Tensor,
    negatives: Tensor,
    b: Tensor | None,
    mask: Tensor | None,
    padding_index: int | None,
) -> None:
    """Checks types and shapes, not the ids.

    Args:
        s: as there.
        w: as there.
        positives: as there.
        negatives: as there.
        b: as there.
        mask: as there.
        padding_index: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or there is no such item as `padding_index`.

    Example:
        >>> ids = torch.tensor([1])
        >>> check_arguments(torch.ones(1, 2), torch.ones(3, 2), ids, ids[:, None], None, None, None)
    """
    if not s.is_floating_point():
        raise TypeError(f"states must be of floating point: got {s.dtype}")
    if w.dtype != s.dtype:
        raise TypeError(f"table must be of {s.dtype} as states are: got {w.dtype}")
    if positives.dtype not in (torch.int32, torch.int64):
        raise TypeError(f"positives must be of int32 or int64: got {positives.dtype}")
    if negatives.dtype != positives.dtype:
        raise TypeError(
            f"negatives must be of {positives.dtype} as positives are: got {negatives.dtype}"
        )
    if s.ndim != 2:
        raise ValueError(f"states must have the shape [positions, size]: got {list(s.shape)}")
    if w.ndim != 2 or w.shape[1] != s.shape[1]:
        raise ValueError(f"table must have the shape [items, {s.shape[1]}]: got {list(w.shape)}")
    if positives.ndim != 1 or len(positives) != len(s):
        raise ValueError(f"positives must have the shape [{len(s)}]: got {list(positives.shape)}")
    if negatives.ndim != 2 or len(negatives) != len(s):
        raise ValueError(
            f"negatives must have the shape [{len(s)}, samples]: got {list(negatives.shape)}"
        )
    check_vector(w, b, "bias")
    if padding_index is not None and not isinstance(padding_index, int):
        raise TypeError(f"padding_index must be an integer: got {padding_index!r}")
    if padding_index is not None and not 0 <= padding_index < len(w):
        raise ValueError(f"padding_index must be 0 to {len(w) - 1}: got {padding_index}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be of bool: got {mask.dtype}")
    if mask.shape != positives.shape:
        raise ValueError(f"mask must have the shape [{len(s)}]: got {list(mask.shape)}")


def check_loss(w: Tensor, log_q: Tensor | None, kind: str, reduction: str) -> None:
    """Checks what the loss has besides.

    Args:
        w: as there.
        log_q: as there.
        kind: as there.
        reduction: as there.

    Raises:
        TypeError: `log_q` has another type.
        ValueError: its shape does not fit, or a name is unknown.

    Example:
        >>> check_loss(torch.ones(3, 2), torch.zeros(3), "bce", "sum")
    """
    check_vector(w, log_q, "log_q")
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}: got {kind!r}")
    check_reduction(reduction)


def check_vector(w: Tensor, vector: Tensor | None, name: str) -> None:
    """Checks a number for each item.

    Args:
        w: as there.
        vector: `[V]`, or None.
        name: of the argument.

    Raises:
        TypeError: it is not of floating point.
        ValueError: its shape does not fit.

    Example:
        >>> check_vector(torch.ones(3, 2), torch.zeros(3), "bias")
    """
    if vector is None:
        return
    if not vector.is_floating_point():
        raise TypeError(f"{name} must be of floating point: got {vector.dtype}")
    if vector.shape != w.shape[:1]:
        raise ValueError(f"{name} must have the shape [{len(w)}]: got {list(vector.shape)}")


def check_range(items: Tensor, count: int) -> None:
    """Checks that ids are those of items; on a device that waits for it.

    Args:
        items: `[P, 1 + N]`.
        count: of items.

    Raises:
        IndexError: one is not.

    Example:
        >>> check_range(torch.tensor([[0, 2]]), 3)
    """
    if not items.numel():
        return
    least, most = (int(value) for value in items.aminmax())
    if least < 0 or most >= count:
        raise IndexError(f"items must be 0 to {count - 1}: got {least if least < 0 else most}")
