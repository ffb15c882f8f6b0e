"""The chain of Bridge-Gap Diffusion as its code computes it, written anew from its formulas.

Every step embeds the sources again, finds all distances to all words, takes the best by `topk`,
and looks its coefficients up in tables of the whole process, as `p_sample_loop` does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


def sample(
    denoise: Callable[[Tensor, Tensor], Tensor],
    table: Tensor,
    bias: Tensor,
    ids: Tensor,
    mask: Tensor,
    betas: NDArray[np.float64],
    timesteps: Sequence[int],
    start: Tensor,
    noise: Callable[[int], Tensor],
) -> Tensor:
    """Returns the tokens of a chain of kept timesteps, `[B, L]` int64.

    Args:
        denoise: the network.
        table: `[V, E]` word embeddings.
        bias: `[V]` of the output layer.
        ids: `[B, L]` int64.
        mask: `[B, L]` bool, the positions that are made.
        betas: `[T]` of the training.
        timesteps: kept ones, ascending.
        start: `[B, L, E]`.
        noise: what step k adds, `[B, L, E]`.
    """
    products = np.cumprod(1 - betas)[[*timesteps]]
    before = np.append(1.0, products[:-1])
    spaced = 1 - products / before
    posterior = spaced * (1 - before) / (1 - products)
    first = spaced * np.sqrt(before) / (1 - products)
    second = (1 - before) * np.sqrt(1 - spaced) / (1 - products)
    variance = np.append(posterior[1] if len(spaced) > 1 else spaced[0], spaced[1:])
    targets = mask[..., None].expand(start.shape)
    state = torch.where(targets, start, table[ids])
    for k in reversed(range(len(spaced))):
        index = torch.tensor([k] * len(ids))
        times = torch.tensor([*timesteps])[index].float() * (1000.0 / len(betas))
        estimate = _round(denoise(state, times), table)
        mean = _take(first, index, state) * estimate + _take(second, index, state) * state
        keep = (index != 0).float().view(-1, 1, 1)
        state = mean + keep * _take(variance, index, state).sqrt() * noise(k)
        state = torch.where(targets, state, table[ids])
    return (state @ table.T + bias).argmax(-1)


def _take(values: NDArray[np.float64], index: Tensor, like: Tensor) -> Tensor:
    return torch.from_numpy(values)[index].float().view(-1, 1, 1).expand(like.shape)


def _round(estimates: Tensor, table: Tensor) -> Tensor:
    flat = estimates.reshape(-1, table.shape[1])
    squares = (table**2).sum(-1).view(-1, 1)
    own = (flat**2).sum(-1).view(1, -1)
    distances = torch.clamp(squares + own - 2.0 * (table @ flat.T), 0.0, torch.inf)
    nearest = torch.topk(-distances, k=1, dim=0).indices[0]
    return table[nearest].view(estimates.shape)
