"""The word embedding that lies nearest to each position: what rounding a latent means.

Distances are |w|^2 + |x|^2 - 2 w x, at least 0, in float32 whatever the type of the inputs (in
float64 for float64).  Words at the same distance: the lowest index.  A distance that is no finite
number counts as none at all.

Source: Diffusion-LM (arXiv 2205.14217), section 4.2, the clamping trick; DiffuSeq, `rounding.py`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Elements of the distances that exist at one time.
_BLOCK = 1 << 22


def nearest_embedding(x: Tensor, w: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns argmin_v max(|w_v|^2 + |x|^2 - 2 w_v x, 0) of each position; -1 where there is none.

    There is none where `mask` is false and where no distance is a finite number: a position with
    NaN, for one.  A word with NaN is nearest to nothing.

    Args:
        x: `[..., E]` floating point.
        w: `[V, E]` of the same type.
        mask: `[...]` bool, the positions that count; None: all.

    Returns:
        `[...]` int64.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or there is no word.

    Example:
        >>> w = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        >>> nearest_embedding(torch.tensor([[0.9, 0.8], [torch.nan, 0.0]]), w)
        tensor([ 1, -1])
    """
    check_arguments(x, w, mask)
    kind = widen(w.dtype)
    flat, table = x.detach().reshape(x.shape[:-1].numel(), w.shape[1]).to(kind), w.detach().to(kind)
    squares = table.square().sum(1)
    ids = torch.full((len(flat),), -1, dtype=torch.int64, device=x.device)
    for start in range(0, len(flat), step := max(_BLOCK // len(table), 1)):
        part = flat[start : start + step]
        d = squares + part.square().sum(1, keepdim=True) - 2 * (part @ table.T)
        d = torch.where(d.isfinite(), d.clamp(min=0), torch.inf)
        least, nearest = d.amin(1), d.argmin(1)
        ids[start : start + step] = torch.where(least < torch.inf, nearest, -1)
    ids = ids.view(x.shape[:-1])
    return ids if mask is None else torch.where(mask, ids, -1)


def widen(dtype: torch.dtype) -> torch.dtype:
    """Returns the type that distances are computed in.

    Args:
        dtype: of the inputs.

    Example:
        >>> widen(torch.bfloat16)
        torch.float32
    """
    return torch.promote_types(dtype, torch.float32)


def check_arguments(x: Tensor, w: Tensor, mask: Tensor | None) -> None:
    """Checks the arguments of `nearest_embedding`.

    Args:
        x: as there.
        w: as there.
        mask: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or there is no word.

    Example:
        >>> check_arguments(torch.ones(3, 2), torch.ones(5, 2), None)
    """
    if not x.is_floating_point():
        raise TypeError(f"latents must be of floating point: got {x.dtype}")
    if w.dtype != x.dtype:
        raise TypeError(f"table must be of {x.dtype} as latents are: got {w.dtype}")
    if w.ndim != 2 or not len(w):
        raise ValueError(f"table must have the shape [at least 1, size]: got {list(w.shape)}")
    if x.ndim == 0 or x.shape[-1] != w.shape[1]:
        raise ValueError(f"latents must have the size {w.shape[1]}: got the shape {list(x.shape)}")
    if mask is None:
        return
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be of bool: got {mask.dtype}")
    if mask.shape != x.shape[:-1]:
        raise ValueError(
            f"mask must have the shape {list(x.shape[:-1])} of the positions: "
            f"got {list(mask.shape)}"
        )
