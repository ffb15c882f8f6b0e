"""Tokens drawn as functions of (seed, row, position), whatever batch a row is in."""

from __future__ import annotations

from collections.abc import Sequence

from lmcore._extras import optional_imports
from lmcore.ops.philox import Stream, random_uniform

with optional_imports():
    import torch
    from torch import Tensor
    from transformers import LogitsProcessor


class RowSampling(LogitsProcessor):
    """Leaves the token that was drawn; `generate` then takes it as the most likely one.

    The draw is that of a uniform number, and the token the first in the order of ids whose
    cumulated probability is above it. `torch.multinomial` draws from one generator for all rows,
    so that a row depends on those beside and before it.

    Args:
        seed: of the draws.
        rows: number of each row of the batch.
        start: target tokens before the first that is drawn.

    Example:
        >>> sample = RowSampling(0, [7], 1)
        >>> scores = sample(torch.zeros(1, 1), torch.tensor([[0.0, 9.0, 1.0]]))
        >>> int(scores.isfinite().sum())
        1
    """

    def __init__(self, seed: int, rows: Sequence[int], start: int) -> None:
        self._seed, self._rows, self._start = seed, list(rows), start

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns scores of which one is finite in each row.

        Args:
            input_ids: `[B, T]` int64, the target so far.
            scores: `[B, V]`, of which the softmax is drawn from.
        """
        position = input_ids.shape[1] - self._start
        drawn = random_uniform(self._seed, Stream.NEXT_TOKENS, self._rows, 1, position=position)
        uniform = torch.as_tensor(drawn, device=scores.device, dtype=torch.float64)
        sums = scores.double().softmax(-1).cumsum(-1)
        # A sum of floats may end below 1, and what is above the last one is of the last.
        chosen = torch.searchsorted(sums, uniform * sums[:, -1:], right=True)
        last = (sums < sums[:, -1:]).sum(-1, keepdim=True)
        kept = torch.full_like(scores, -torch.inf)
        return kept.scatter(1, torch.minimum(chosen, last), 0.0)


class OwnTokens(LogitsProcessor):
    """Hides the ids that fill an embedding up and that no text has, and refuses a broken model.

    Args:
        count: of the tokenizer's tokens.

    Example:
        >>> OwnTokens(2)(torch.zeros(1, 1), torch.zeros(1, 3)).tolist()
        [[0.0, 0.0, -inf]]
    """

    def __init__(self, count: int) -> None:
        self._count = count

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns scores without the hidden ones.

        Args:
            input_ids: `[B, T]` int64.
            scores: `[B, V]`.

        Raises:
            ValueError: a score is NaN.
        """
        if bool(scores.isnan().any()):
            raise ValueError("the model is broken: it scores tokens with NaN")
        scores = scores.clone()
        scores[:, self._count :] = -torch.inf
        return scores
