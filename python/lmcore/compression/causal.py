"""Samples of plain language modelling: each token is told from those before it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lmcore.openba.samples import order_passes
from lmcore.ops.denoising import DenoisedBatch, Plan

CAUSAL = "causal"
"""The kind of these samples, and the name of their objective."""


class CausalSamples:
    """Texts whose tokens are told one by one from those before them: samples without an encoder.

    Args:
        tokens: `[N, L]` integers; L at least 2.
        seed: of the order, below 2**64.
        dtype: of the ids.

    Raises:
        ValueError: there is no text, or it is too short.

    Example:
        >>> samples = CausalSamples(np.arange(6).reshape(2, 3), seed=1)
        >>> numbers = np.array([0])
        >>> batch = samples.make(numbers, samples.plan(numbers), (None, None))
        >>> (batch.labels - batch.decoder).tolist()
        [[1, 1]]
    """

    kinds: tuple[str, ...] = (CAUSAL,)

    def __init__(
        self, tokens: NDArray[np.integer[Any]], *, seed: int, dtype: DTypeLike = np.int64
    ) -> None:
        if not len(tokens) or tokens.shape[1] < 2:
            raise ValueError(f"texts must have at least 2 tokens: got {list(tokens.shape)}")
        self.tokens, self.dtype = tokens, dtype
        self.find = order_passes(len(tokens), seed)

    def __len__(self) -> int:
        return len(self.tokens)

    def plan(self, numbers: NDArray[np.int64]) -> Plan:
        """Returns how long the rows of samples are.

        Args:
            numbers: `[B]`, of the samples.
        """
        none = np.zeros(len(numbers), np.int64)
        return Plan(none, none, np.full(len(numbers), self.tokens.shape[1] - 1, np.int64))

    def make(
        self, numbers: NDArray[np.int64], plan: Plan, widths: tuple[int | None, int | None]
    ) -> DenoisedBatch:
        """Returns the samples.

        Args:
            numbers: `[B]`, of the samples.
            plan: theirs.
            widths: those of the texts.
        """
        return make_causal(self.tokens[self.find(numbers)], self.dtype)


def make_causal(texts: NDArray[np.integer[Any]], dtype: DTypeLike = np.int64) -> DenoisedBatch:
    """Returns texts as a batch whose labels are the next tokens.

    Args:
        texts: `[B, L]` integers.
        dtype: of the ids.

    Example:
        >>> make_causal(np.array([[3, 4, 5]])).labels.tolist()
        [[4, 5]]
    """
    rows = np.asarray(texts).astype(dtype)
    count, length = rows.shape
    none = np.zeros(count, np.int64)
    lengths = np.full(count, length - 1, np.int64)
    encoder = np.zeros((count, 0), rows.dtype)
    return DenoisedBatch(
        encoder,
        np.ascontiguousarray(rows[:, :-1]),
        np.ascontiguousarray(rows[:, 1:]),
        none,
        lengths,
        none,
    )
