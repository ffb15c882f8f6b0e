"""Cross-entropy of a linear head, over all of a vocabulary or a kept part of it: what it means.

z_pv = s_p w_v + b_v, l_p = log sum_{v kept} e^{z_pv} - z_{p t_p}.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lmcore.reference._reductions import check_reduction, reduce


def cross_entropy(
    s: Tensor,
    w: Tensor,
    targets: Tensor,
    b: Tensor | None = None,
    kept: Tensor | None = None,
    ignore_index: int = -100,
    reduction: str = "mean",
) -> Tensor:
    """Returns l with all logits in memory, in float32 (in float64 for float64).

    Args:
        s: `[P, H]` floating point.
        w: `[V, H]` of the same type.
        targets: `[P]` int64, each one that is kept, or `ignore_index`.
        b: `[V]` floating point, or None.
        kept: `[K]` int64, ascending: the entries that take part; None: all.
        ignore_index: of positions that do not count.
        reduction: over the positions that count: `mean`, `sum` or `none`.

    Returns:
        float32 or float64: a scalar, or `[P]` for `none`, 0 where a position does not count.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or a name is unknown.
        IndexError: a target is no entry that is kept, or a kept one is none of the vocabulary.

    Example:
        >>> s, w = torch.zeros(1, 2), torch.ones(5, 2)
        >>> cross_entropy(s, w, torch.tensor([3])).exp()
        tensor(5.)
        >>> cross_entropy(s, w, torch.tensor([3]), kept=torch.tensor([0, 3])).exp()
        tensor(2.)
    """
    check_arguments(s, w, targets, b, kept, ignore_index, reduction)
    check_kept(kept, len(w))
    counted = targets != ignore_index
    places = find_places(targets, kept, len(w))
    check_places(places, counted, targets)
    kind = torch.promote_types(s.dtype, torch.float32)
    rows = w if kept is None else w[kept]
    z = s.to(kind) @ rows.to(kind).T
    if b is not None:
        z = z + (b if kept is None else b[kept]).to(kind)
    if not z.numel():
        return reduce(z.sum(1), counted, reduction)
    own = z.log_softmax(1).gather(1, torch.where(counted, places, 0)[:, None])[:, 0]
    losses = torch.where(counted, -own, 0)
    return reduce(losses, counted, reduction)


def find_places(targets: Tensor, kept: Tensor | None, entries: int) -> Tensor:
    """Returns where targets stand among what is kept; -1 where they do not: `[P]` int64.

    Args:
        targets: as there.
        kept: as there.
        entries: of the vocabulary.

    Example:
        >>> find_places(torch.tensor([5, 2, -100]), torch.tensor([2, 4, 5]), 9)
        tensor([ 2,  0, -1])
    """
    if kept is None:
        return torch.where((targets >= 0) & (targets < entries), targets, -1)
    if not len(kept):
        return torch.full_like(targets, -1)
    places = torch.searchsorted(kept.contiguous(), targets.contiguous()).clamp(max=len(kept) - 1)
    return torch.where(kept[places] == targets, places, -1)


def check_arguments(
    s: Tensor,
    w: Tensor,
    targets: Tensor,
    b: Tensor | None,
    kept: Tensor | None,
    ignore_index: int,
    reduction: str,
) -> None:
    """Checks types and shapes, not the ids.

    Args:
        s: as there.
        w: as there.
        targets: as there.
        b: as there.
        kept: as there.
        ignore_index: as there.
        reduction: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or a name is unknown.

    Example:
        >>> ids = torch.tensor([1, 1])
        >>> check_arguments(torch.ones(2, 3), torch.ones(5, 3), ids, None, None, -100, "mean")
    """
    if not isinstance(ignore_index, int):
        raise TypeError(f"ignore_index must be an integer: got {ignore_index!r}")
    if not s.is_floating_point():
        raise TypeError(f"states must be of floating point: got {s.dtype}")
    if w.dtype != s.dtype:
        raise TypeError(f"weight must be of {s.dtype} as states are: got {w.dtype}")
    for name, ids in (("targets", targets), ("kept", kept)):
        if ids is not None and ids.dtype != torch.int64:
            raise TypeError(f"{name} must be of int64: got {ids.dtype}")
    if b is not None and not b.is_floating_point():
        raise TypeError(f"bias must be of floating point: got {b.dtype}")
    if s.ndim != 2:
        raise ValueError(f"states must have the shape [positions, size]: got {list(s.shape)}")
    if w.ndim != 2 or w.shape[1] != s.shape[1]:
        raise ValueError(f"weight must have the shape [entries, {s.shape[1]}]: got {list(w.shape)}")
    if targets.shape != s.shape[:1]:
        raise ValueError(f"targets must have the shape [{len(s)}]: got {list(targets.shape)}")
    if b is not None and b.shape != w.shape[:1]:
        raise ValueError(f"bias must have the shape [{len(w)}]: got {list(b.shape)}")
    if kept is not None and kept.ndim != 1:
        raise ValueError(
            f"kept must have the shape [entries that are kept]: got {list(kept.shape)}"
        )
    check_reduction(reduction)


def check_kept(kept: Tensor | None, entries: int) -> None:
    """Checks that kept entries are of the vocabulary and ascend; on a device that waits for it.

    Args:
        kept: as there.
        entries: of the vocabulary.

    Raises:
        ValueError: they do not ascend.
        IndexError: one is no entry.

    Example:
        >>> check_kept(torch.tensor([0, 4]), 5)
    """
    if kept is None or not len(kept):
        return
    if not bool((kept[1:] > kept[:-1]).all()):
        raise ValueError("kept must ascend, each entry once")
    least, most = int(kept[0]), int(kept[-1])
    if least < 0 or most >= entries:
        raise IndexError(f"kept must be 0 to {entries - 1}: got {least if least < 0 else most}")


def check_places(places: Tensor, counted: Tensor, targets: Tensor) -> None:
    """Checks that targets that count are kept; on a device that waits for it.

    Args:
        places: of the targets, -1 where there is none.
        counted: which of them count.
        targets: as they were given.

    Raises:
        IndexError: one is not.

    Example:
        >>> check_places(torch.tensor([-1]), torch.tensor([False]), torch.tensor([-100]))
    """
    wrong = (counted & (places < 0)).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise IndexError(
            f"targets must be of the entries that take part: got {int(targets[row])} "
            f"at position {row}"
        )
