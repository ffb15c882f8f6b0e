"""Samples of one source, each a function of (seed, number): denoised texts, or pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lmcore.openba.pairs import PairData
from lmcore.ops.denoising import (
    DenoisedBatch,
    Denoiser,
    Plan,
    SpecialIds,
    denoise_batch,
    pair_batch,
    plan_batch,
    ul2,
)
from lmcore.training.seeding import permute

#: The kind of samples of a source and a target, beside the names of denoisers.
PAIRS = "pairs"


class Samples(Protocol):
    """Gives the samples of a source by their numbers, from 0 on and without end."""

    kinds: tuple[str, ...]
    """Of samples: the names of denoisers, or `pairs`."""

    def __len__(self) -> int:
        """Items of the source, each of which comes once in so many samples."""

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which items the samples are of."""

    def plan(self, numbers: NDArray[np.int64]) -> Plan:
        """Kinds of samples, as places in `kinds`, and how long their rows are."""

    def make(
        self, numbers: NDArray[np.int64], plan: Plan, widths: tuple[int | None, int | None]
    ) -> DenoisedBatch:
        """The samples, in rows of these widths, or as wide as the longest."""


def order_passes(count: int, seed: int) -> Callable[[NDArray[np.int64]], NDArray[np.int64]]:
    """Returns what finds the items of samples, whose order is drawn anew for each pass over them.

    Args:
        count: of items.
        seed: of the orders, below 2**64.

    Example:
        >>> sorted(order_passes(3, seed=1)(np.arange(3)).tolist())
        [0, 1, 2]
    """
    return _Passes(count, seed).find


class _Passes:
    """Items in an order that is drawn anew for each pass over them.

    Args:
        count: of items.
        seed: of the orders.
    """

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        # The order of the last pass; a thread that finds another one makes its own.
        self._order: tuple[int, NDArray[np.int64] | None] = (-1, None)

    def find(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which items the samples are of."""
        items = np.zeros(len(numbers), np.int64)
        epochs, within = np.divmod(numbers, self.count)
        for epoch in np.unique(epochs).tolist():
            inside = epochs == epoch
            items[inside] = self._find_order(epoch)[within[inside]]
        return items

    def _find_order(self, epoch: int) -> NDArray[np.int64]:
        known, order = self._order
        if known != epoch or order is None:
            order = permute(self.seed, epoch, self.count)
            self._order = epoch, order
        return order


class TextSamples:
    """Texts that denoisers take tokens out of.

    Args:
        tokens: `[N, L]` integers, such as a memory map, or N texts of different lengths.
        seed: of all draws, below 2**64.
        denoisers: what is drawn from, by their weights; None for `ul2()`.
        ids: the special tokens; None for OpenBA's.
        dtype: of the ids, int64 or int32.
        threads: at most this many; None for the machine's.

    Raises:
        ValueError: there is no text.

    Example:
        >>> samples = TextSamples(np.arange(10, 58).reshape(3, 16), seed=1)
        >>> sorted(samples.find(np.arange(3)).tolist())
        [0, 1, 2]
    """

    def __init__(
        self,
        tokens: Any,
        *,
        seed: int,
        denoisers: Sequence[Denoiser] | None = None,
        ids: SpecialIds | None = None,
        dtype: DTypeLike = np.int64,
        threads: int | None = None,
    ) -> None:
        if not len(tokens):
            raise ValueError("tokens must not be empty")
        self.tokens, self.seed, self.dtype, self.threads = tokens, seed, dtype, threads
        self.denoisers = ul2() if denoisers is None else tuple(denoisers)
        self.ids = SpecialIds() if ids is None else ids
        self.kinds = tuple(one.name for one in self.denoisers)
        self.find = order_passes(len(tokens), seed)

    def __len__(self) -> int:
        return len(self.tokens)

    def plan(self, numbers: NDArray[np.int64]) -> Plan:
        """Returns which denoiser each sample gets, and how long its rows are.

        Args:
            numbers: `[B]`, of the samples.

        Raises:
            ValueError: a text is too short.
        """
        if isinstance(self.tokens, np.ndarray) and self.tokens.ndim == 2:
            lengths = np.full(len(numbers), self.tokens.shape[1], np.int64)
        else:
            rows = self.find(numbers).tolist()
            lengths = np.array([len(self.tokens[row]) for row in rows], np.int64)
        return plan_batch(lengths, numbers, seed=self.seed, denoisers=self.denoisers, ids=self.ids)

    def make(
        self, numbers: NDArray[np.int64], plan: Plan, widths: tuple[int | None, int | None]
    ) -> DenoisedBatch:
        """Returns the samples.

        Args:
            numbers: `[B]`, of the samples.
            plan: theirs.
            widths: of the rows of encoder and decoder; None: of the longest.

        Raises:
            IndexError: a token outside of the vocabulary.
            ValueError: a row is longer than the widths.
        """
        return denoise_batch(
            self.tokens,
            numbers,
            seed=self.seed,
            denoisers=self.denoisers,
            ids=self.ids,
            rows=self.find(numbers),
            tasks=plan.tasks,
            encoder_width=widths[0],
            decoder_width=widths[1],
            dtype=self.dtype,
            threads=self.threads,
        )


class PairSamples:
    """Sources and targets in the form of a suffix that was taken away, OpenBA's multi-task samples.

    The encoder gets the prefix, the source, the first sentinel and the end; the decoder learns to
    write the sentinel and the target. What is longer than the widths is cut behind.

    Source: OpenBA, `t5_dataset.py`, its multi-task samples.

    Args:
        pairs: of a token file, or `Pairs`.
        seed: of the order, below 2**64.
        widths: ids of encoder and decoder at most.
        ids: the special tokens; None for OpenBA's.
        prefix: the first id of the encoder; None for no such id.

    Raises:
        ValueError: there is no pair.

    Example:
        >>> from lmcore.openba.pairs import Pairs
        >>> samples = PairSamples(Pairs([[5, 6]], [[7, 1]]), seed=1, widths=(8, 8))
        >>> numbers = np.array([0])
        >>> batch = samples.make(numbers, samples.plan(numbers), (None, None))
        >>> batch.encoder.tolist(), batch.decoder.tolist(), batch.labels.tolist()
        ([[250201, 5, 6, 250199, 1]], [[0, 250199, 7]], [[250199, 7, 1]])
    """

    kinds: tuple[str, ...] = (PAIRS,)

    def __init__(
        self,
        pairs: PairData,
        *,
        seed: int,
        widths: tuple[int, int],
        ids: SpecialIds | None = None,
        prefix: int | None = 250_201,
    ) -> None:
        if not len(pairs):
            raise ValueError("pairs must not be empty")
        self.pairs, self.widths, self.prefix = pairs, widths, prefix
        self.ids = SpecialIds() if ids is None else ids
        self.find = order_passes(len(pairs), seed)

    def __len__(self) -> int:
        return len(self.pairs)

    def plan(self, numbers: NDArray[np.int64]) -> Plan:
        """Returns how long the rows of samples are.

        Args:
            numbers: `[B]`, of the samples.
        """
        return self.plan_rows(self.find(numbers))

    def plan_rows(self, rows: NDArray[np.int64]) -> Plan:
        """Returns how long the rows of pairs are.

        Args:
            rows: `[B]`, which pairs.
        """
        sizes = self.pairs.sizes[rows].astype(np.int64)
        # The decoder needs no place for the end of the target: no label follows it.
        frame = 2 + (self.prefix is not None)
        source = np.minimum(sizes[:, 0] + frame, self.widths[0])
        target = np.minimum(sizes[:, 1] + 1, self.widths[1])
        return Plan(np.zeros(len(rows), np.int64), source, target)

    def make(
        self, numbers: NDArray[np.int64], plan: Plan, widths: tuple[int | None, int | None]
    ) -> DenoisedBatch:
        """Returns the samples.

        Args:
            numbers: `[B]`, of the samples.
            plan: theirs.
            widths: of the rows of encoder and decoder, at least those of the plan; None: of the
                longest.

        Raises:
            IndexError: a token outside of the vocabulary.
        """
        return self.make_rows(self.find(numbers), plan, widths)

    def make_rows(
        self,
        rows: NDArray[np.int64],
        plan: Plan,
        widths: tuple[int | None, int | None] = (None, None),
    ) -> DenoisedBatch:
        """Returns the samples of pairs.

        Args:
            rows: `[B]`, which pairs.
            plan: theirs.
            widths: as for `make`.

        Raises:
            IndexError: a token outside of the vocabulary.
        """
        source, target = (
            int(lengths.max(initial=least)) if width is None else width
            for width, lengths, least in zip(widths, plan[1:], (3, 2), strict=True)
        )
        items = [self.pairs[row] for row in rows.tolist()]
        made = pair_batch(
            [item.source for item in items],
            [item.target for item in items],
            # As wide as its rows at least, a row has what it has at the full width.
            encoder_width=min(source, self.widths[0]),
            decoder_width=min(target, self.widths[1]),
            prefix=self.prefix,
            ids=self.ids,
        )
        padding = self.ids.label_padding
        decoder = np.where(made.labels == padding, self.ids.pad, made.decoder)
        return DenoisedBatch(
            _widen(made.encoder, source, self.ids.pad),
            _widen(decoder, target, self.ids.pad),
            _widen(made.labels, target, padding),
            plan.encoder_lengths,
            plan.decoder_lengths,
            plan.tasks,
        )

    def count_cut(self) -> tuple[int, int]:
        """Returns how many sources and how many targets are longer than there is room for."""
        rooms = (self.widths[0] - 2 - (self.prefix is not None), self.widths[1] - 1)
        found = (np.count_nonzero(self.pairs.sizes[:, part] > rooms[part]) for part in (0, 1))
        sources, targets = map(int, found)
        return sources, targets


def _widen(rows: NDArray[Any], width: int, padding: int) -> NDArray[Any]:
    more = width - rows.shape[1]
    return np.pad(rows, ((0, 0), (0, more)), constant_values=padding) if more else rows
