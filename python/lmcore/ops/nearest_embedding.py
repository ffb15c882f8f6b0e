"""The word embedding nearest to each position, without positions x vocabulary in memory."""

from __future__ import annotations

import torch
from torch import Tensor

from lmcore.ops._autocast import without_autocast
from lmcore.ops._dispatch import choose
from lmcore.reference import nearest_embedding as reference

__all__ = ["nearest_embedding"]

# Distances of so many positions and words at one time: 2 MB of float32, and most of the time is
# spent in the product.
_POSITIONS, _WORDS = 256, 2048


def nearest_embedding(latents: Tensor, table: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the index of the nearest word embedding of each position; -1 where there is none.

    Distances are |w|^2 + |x|^2 - 2 w x, at least 0, in float32 (in float64 for float64 inputs);
    of words at the same distance it is the lowest index.  There is none where `mask` is false, and
    where no distance is a finite number: a position with NaN or infinity has none, and a word with
    one is nearest to nothing.  Autocast changes none of it.  On a CUDA device it neither waits for
    the device nor needs memory beyond eight bytes a position and four a word, but for float64,
    which the definition computes.

    Source: Diffusion-LM (arXiv 2205.14217), section 4.2, the clamping trick.

    Args:
        latents: `[..., E]` floating point.
        table: `[V, E]` of the same type, V at least 1.
        mask: `[...]` bool, the positions that are looked at; None: all.

    Returns:
        `[...]` int64. It has no gradient.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, there is no word, or tensors are on several devices.

    Example:
        >>> table = torch.tensor([[0.0, 0.0], [1.0, 1.0], [1.0, 1.0]])
        >>> latents = torch.tensor([[0.9, 0.8], [-1.0, 0.0], [torch.nan, 0.0]])
        >>> nearest_embedding(latents, table)
        tensor([ 1,  0, -1])
        >>> nearest_embedding(latents, table, torch.tensor([True, False, True]))
        tensor([ 1, -1, -1])
    """
    way = choose(*(tensor for tensor in (latents, table, mask) if tensor is not None))
    if way == "reference" or (way == "kernel" and latents.dtype == torch.float64):
        with without_autocast(latents.device):
            return reference.nearest_embedding(latents, table, mask)
    reference.check_arguments(latents, table, mask)
    flat = latents.detach().reshape(latents.shape[:-1].numel(), table.shape[1])
    flat_mask = None if mask is None else mask.reshape(-1)
    ids: Tensor = _find_nearest(flat, table.detach(), flat_mask, way)
    return ids.view(latents.shape[:-1])


@torch.library.custom_op("lmcore::nearest_embedding", mutates_args=())
def _find_nearest(latents: Tensor, table: Tensor, mask: Tensor | None, way: str) -> Tensor:
    """For `[P, E]`, checked: a node of compiled graphs, which do not look inside."""
    if way == "kernel":
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels.nearest_embedding import find_nearest

        return find_nearest(latents, table, mask)
    with without_autocast(latents.device):
        if mask is None:
            return _find_by_blocks(latents, table)
        ids = torch.full(mask.shape, -1, dtype=torch.int64)
        ids[mask] = _find_by_blocks(latents[mask], table)
        return ids


@_find_nearest.register_fake
def _(latents: Tensor, table: Tensor, mask: Tensor | None, way: str) -> Tensor:
    return latents.new_empty(latents.shape[0], dtype=torch.int64)


def _find_by_blocks(flat: Tensor, table: Tensor) -> Tensor:
    """The definition for `[P, E]`, in blocks that stay in the cache."""
    kind = reference.widen(table.dtype)
    ids = torch.full((len(flat),), -1, dtype=torch.int64)
    for start in range(0, len(flat), _POSITIONS):
        part = flat[start : start + _POSITIONS].to(kind)
        own = torch.linalg.vecdot(part, part)[:, None]
        best = torch.full((len(part),), torch.inf, dtype=kind)
        found = ids[start : start + _POSITIONS]
        for first in range(0, len(table), _WORDS):
            words = table[first : first + _WORDS].to(kind)
            squares = torch.linalg.vecdot(words, words)
            distances = torch.addmm(squares, part, words.T, alpha=-2).add_(own).clamp_(min=0)
            # With a norm that is no finite number every distance is none either. The others are
            # finite or infinity, which `<` leaves out.
            if not squares.isfinite().all():
                distances.masked_fill_(~squares.isfinite(), torch.inf)
            least = distances.amin(1)
            # Finding where costs more than finding how near: few positions need it.
            nearer = (least < best).nonzero()[:, 0]
            if len(nearer):
                found[nearer] = first + distances[nearer].argmin(1)
                best[nearer] = least[nearer]
    return ids
