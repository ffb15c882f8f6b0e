"""Batches of denoised texts with little padding, as functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lmcore.ops.denoising import (
    DenoisedBatch,
    Denoiser,
    Plan,
    SpecialIds,
    denoise_batch,
    plan_batch,
    ul2,
)
from lmcore.training.seeding import permute


class DenoisedBatches:
    """Batches of a step, in micro-batches that hold samples of like lengths.

    A step has the samples (step - 1) * B to step * B - 1: their denoisers and texts, and so
    its mixture and its gradient, do not depend on how they are put together. Where they are
    grouped, they are sorted by the length of their decoder rows before they are cut into
    micro-batches. The spans of a denoiser always have one number and one sum, so that most
    micro-batches hold one denoiser and no padding; suffixes are with others of their length.
    Each micro-batch is as wide as its longest row, unless widths are given. The more
    micro-batches a step has, the less padding is left.

    A micro-batch alone has another mixture than the step: its loss is to be weighted by its
    labels, and it is the step's gradient that an optimizer may use.

    Source: OpenBA pads all rows to 570 and 381; OpenBA-V2 (arXiv 2405.05957) names the waste.

    Args:
        tokens: `[N, L]` integers, such as a memory map, or N texts of different lengths. Each
            comes once in a pass over them, in an order of the pass.
        batch_size: samples of a step, B; of all processes together.
        micro_batch_size: samples of a micro-batch; the last one of a step may have fewer.
        seed: of all draws, below 2**64.
        denoisers: what is drawn from, by their weights; None for `ul2()`.
        ids: the special tokens; None for OpenBA's.
        grouped: whether samples of like lengths are put together; else they stay in order.
        widths: of all encoder and all decoder rows; None: those of each micro-batch's longest.
        dtype: of the ids, int64 or int32.
        threads: at most this many; None for the machine's.

    Raises:
        ValueError: there is no text, or a size is below 1.

    Example:
        >>> tokens = np.arange(10, 58).reshape(3, 16)
        >>> batches = DenoisedBatches(tokens, 4, 2, seed=1)
        >>> [len(batch.tasks) for batch in batches(step=1)]
        [2, 2]
    """

    def __init__(
        self,
        tokens: Any,
        batch_size: int,
        micro_batch_size: int,
        *,
        seed: int,
        denoisers: Sequence[Denoiser] | None = None,
        ids: SpecialIds | None = None,
        grouped: bool = True,
        widths: tuple[int, int] | None = None,
        dtype: DTypeLike = np.int64,
        threads: int | None = None,
    ) -> None:
        if not len(tokens):
            raise ValueError("tokens must not be empty")
        for name, size in (("batch_size", batch_size), ("micro_batch_size", micro_batch_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1: got {size}")
        self.tokens, self.seed = tokens, seed
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.denoisers = ul2() if denoisers is None else tuple(denoisers)
        self.ids = SpecialIds() if ids is None else ids
        self.grouped, self.dtype, self.threads = grouped, dtype, threads
        self.widths = (None, None) if widths is None else widths
        # The order of the last pass; a thread that finds another one makes its own.
        self._order: tuple[int, NDArray[np.int64] | None] = (-1, None)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every text has come at least once."""
        return -(-len(self.tokens) // self.batch_size)

    def __call__(self, step: int, rows: slice = slice(None)) -> list[DenoisedBatch]:
        """The micro-batches of a step, or of a process's part of it.

        Args:
            step: from 1.
            rows: of the batch, within 0 to B: those that this process computes.

        Raises:
            ValueError: `step` is below 1, or a text is too short, or a row wider than `widths`.
            IndexError: a token outside of the vocabulary.
        """
        indices, texts = self.find(step, rows)
        plan = self._plan(indices, texts)
        order = np.arange(len(indices))
        if self.grouped:
            # Of one length the order is that of the samples: nothing depends on the sort.
            order = np.lexsort((plan.encoder_lengths, plan.decoder_lengths))
        size = self.micro_batch_size
        return [
            self._denoise(indices[part], texts[part], plan.tasks[part])
            for part in (order[first : first + size] for first in range(0, len(order), size))
        ]

    def find(
        self, step: int, rows: slice = slice(None)
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which samples a step has, and which texts they are of, in the order of the samples.

        Args:
            step: from 1.
            rows: of the batch, within 0 to B.

        Raises:
            ValueError: `step` is below 1.
        """
        if step < 1:
            raise ValueError(f"step must be at least 1: got {step}")
        places = np.arange(*rows.indices(self.batch_size), dtype=np.int64)
        indices = (step - 1) * self.batch_size + places
        texts = np.zeros(len(indices), np.int64)
        epochs, within = np.divmod(indices, len(self.tokens))
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            texts[inside] = self._find_order(epoch)[within[inside]]
        return indices, texts

    def measure_padding(self, steps: Sequence[int], rows: slice = slice(None)) -> float:
        """Returns which share of all positions of encoder and decoder is padding.

        Args:
            steps: whose micro-batches are looked at, each from 1.
            rows: of each batch, within 0 to B.

        Raises:
            ValueError: a step is below 1, or there is none.
        """
        used = total = 0
        for step in steps:
            for batch in self(step, rows):
                used += int(batch.encoder_lengths.sum() + batch.decoder_lengths.sum())
                total += batch.encoder.size + batch.decoder.size
        if not total:
            raise ValueError("steps must not be empty")
        return 1 - used / total

    def _plan(self, indices: NDArray[np.int64], texts: NDArray[np.int64]) -> Plan:
        if isinstance(self.tokens, np.ndarray) and self.tokens.ndim == 2:
            lengths = np.full(len(texts), self.tokens.shape[1], np.int64)
        else:
            lengths = np.array([len(self.tokens[text]) for text in texts.tolist()], np.int64)
        return plan_batch(lengths, indices, seed=self.seed, denoisers=self.denoisers, ids=self.ids)

    def _denoise(
        self, indices: NDArray[np.int64], texts: NDArray[np.int64], tasks: NDArray[np.int64]
    ) -> DenoisedBatch:
        return denoise_batch(
            self.tokens,
            indices,
            seed=self.seed,
            denoisers=self.denoisers,
            ids=self.ids,
            rows=texts,
            tasks=tasks,
            encoder_width=self.widths[0],
            decoder_width=self.widths[1],
            dtype=self.dtype,
            threads=self.threads,
        )

    def _find_order(self, epoch: int) -> NDArray[np.int64]:
        known, order = self._order
        if known != epoch or order is None:
            order = permute(self.seed, epoch, len(self.tokens))
            self._order = epoch, order
        return order
