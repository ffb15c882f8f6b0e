"""Batches of samples with little padding, as functions of (seed, step)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from lmcore.openba.samples import PAIRS, Samples, TextSamples
from lmcore.ops.denoising import DenoisedBatch, Denoiser, Plan, SpecialIds


class Draws(Protocol):
    """Says which source each sample of a run is of, and its number there."""

    def draw(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sources and numbers of the samples with these indices."""


class Group(NamedTuple):
    """Samples whose loss is told apart from others'."""

    source: int
    """Which of the sources."""
    kind: str
    """The name of a denoiser, or `pairs`."""


class SampleBatches:
    """Batches of a step, in micro-batches that hold samples of like lengths.

    A step has the samples (step - 1) * B to step * B - 1: what they are, and so its mixture and
    its gradient, does not depend on how they are put together. Where they are grouped, they are
    sorted by the length of their decoder rows before they are cut into micro-batches. The spans
    of a denoiser always have one number and one sum, so that most micro-batches hold one denoiser
    and no padding; suffixes and pairs are with others of their lengths. Each micro-batch is as wide
    as its longest row, unless widths are given. The more micro-batches a step has, the less
    padding is left.

    A micro-batch alone has another mixture than the step: its loss is to be weighted by its
    labels, and it is the step's gradient that an optimizer may use.

    Source: OpenBA pads all rows to 570 and 381; OpenBA-V2 (arXiv 2405.05957) names the waste.

    Args:
        sources: of the samples.
        batch_size: samples of a step, B; of all processes together.
        micro_batch_size: samples of a micro-batch; the last one of a step may have fewer.
        draws: which source a sample is of, where there are several.
        grouped: whether samples of like lengths are put together; else they stay in order.
        widths: of all encoder and all decoder rows; None: those of each micro-batch's longest.

    Attributes:
        groups: what a place in `tasks` of a micro-batch means.

    Raises:
        ValueError: there is no source, or several without draws, or a size is below 1.

    Example:
        >>> from lmcore.openba.pairs import Pairs
        >>> from lmcore.openba.samples import PairSamples
        >>> pairs = PairSamples(Pairs([[5], [6]], [[7, 1], [8, 1]]), seed=1, widths=(8, 8))
        >>> [len(batch.tasks) for batch in SampleBatches([pairs], 3, 2)(step=1)]
        [2, 1]
    """

    def __init__(
        self,
        sources: Sequence[Samples],
        batch_size: int,
        micro_batch_size: int,
        *,
        draws: Draws | None = None,
        grouped: bool = True,
        widths: tuple[int, int] | None = None,
    ) -> None:
        if not sources or (draws is None and len(sources) > 1):
            raise ValueError(f"one source, or draws of several, must be given: got {len(sources)}")
        for name, size in (("batch_size", batch_size), ("micro_batch_size", micro_batch_size)):
            if size < 1:
                raise ValueError(f"{name} must be at least 1: got {size}")
        self.sources, self.draws = tuple(sources), draws
        self.batch_size, self.micro_batch_size = batch_size, micro_batch_size
        self.grouped, self.widths = grouped, widths
        self.groups = [
            Group(place, kind) for place, source in enumerate(sources) for kind in source.kinds
        ]
        kinds = [len(source.kinds) for source in sources]
        self._first = np.cumsum([0, *kinds[:-1]])

    def __call__(self, step: int, rows: slice = slice(None)) -> list[DenoisedBatch]:
        """The micro-batches of a step, or of a process's part of it; `tasks` are `groups`.

        Args:
            step: from 1.
            rows: of the batch, within 0 to B: those that this process computes.

        Raises:
            ValueError: `step` is below 1, or a text is too short, or a row wider than `widths`.
            IndexError: a token outside of the vocabulary.
        """
        sources, numbers = self.draw(step, rows)
        plan = self._plan(sources, numbers)
        order = self._group(plan) if self.grouped else np.arange(len(numbers))
        size = self.micro_batch_size
        return [
            self._make(sources[part], numbers[part], Plan(*(each[part] for each in plan)))
            for part in (order[first : first + size] for first in range(0, len(order), size))
        ]

    def draw(
        self, step: int, rows: slice = slice(None)
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Which source each sample of a step is of, and its number there.

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
        return (np.zeros_like(indices), indices) if self.draws is None else self.draws.draw(indices)

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

    def _group(self, plan: Plan) -> NDArray[np.int64]:
        """The order of samples in which those of like lengths stand together.

        Of a text both rows follow from its denoiser, and sorting by one sorts by the other. Source
        and target of a pair tell nothing of each other: of pairs sorted by one, strips are sorted
        by the other, as many as leave the fewest positions.
        """
        # Of one length the order is that of the samples: nothing depends on the sort.
        order = np.lexsort((plan.encoder_lengths, plan.decoder_lengths))
        if not any(group.kind == PAIRS for group in self.groups):
            return order
        size = self.micro_batch_size
        count = -(-len(order) // size)
        found = [order]
        for strips in sorted({1, *(round(count**power) for power in (0.25, 0.5, 0.75))}):
            # Whole micro-batches: the rows of none come from two strips.
            place = np.arange(len(order)) // (size * -(-count // strips))
            inner = plan.encoder_lengths[order]
            found.append(order[np.lexsort((plan.decoder_lengths[order], inner, place))])
        return min(found, key=lambda each: _count_positions(plan, each, size))

    def _plan(self, sources: NDArray[np.int64], numbers: NDArray[np.int64]) -> Plan:
        """What is known of samples, with places in the kinds of their own source."""
        if len(self.sources) == 1:
            return self.sources[0].plan(numbers)
        plan = Plan(*(np.zeros(len(numbers), np.int64) for _ in range(3)))
        for place, own in self._split(sources):
            for whole, part in zip(plan, self.sources[place].plan(numbers[own]), strict=True):
                whole[own] = part
        return plan

    def _make(
        self, sources: NDArray[np.int64], numbers: NDArray[np.int64], plan: Plan
    ) -> DenoisedBatch:
        if len(self.sources) == 1:
            return self.sources[0].make(numbers, plan, self.widths or (None, None))
        widths = self.widths or (int(plan.encoder_lengths.max()), int(plan.decoder_lengths.max()))
        shapes = [(len(numbers), widths[name != "encoder"]) for name in _ROWS]
        made = [np.empty(shape, np.int64) for shape in shapes]
        for place, own in self._split(sources):
            part = Plan(*(each[own] for each in plan))
            batch = self.sources[place].make(numbers[own], part, widths)
            for whole, name in zip(made, _ROWS, strict=True):
                whole[own] = getattr(batch, name)
        tasks = plan.tasks + self._first[sources]
        return DenoisedBatch(
            made[0], made[1], made[2], plan.encoder_lengths, plan.decoder_lengths, tasks
        )

    def _split(self, sources: NDArray[np.int64]) -> list[tuple[int, NDArray[np.int64]]]:
        """Where the samples of each source stand."""
        return [(place, np.flatnonzero(sources == place)) for place in np.unique(sources).tolist()]


_ROWS = ("encoder", "decoder", "labels")


def _count_positions(plan: Plan, order: NDArray[np.int64], size: int) -> int:
    """Positions of encoder and decoder in micro-batches of samples in an order."""
    starts = np.arange(0, len(order), size)
    rows = np.diff(np.append(starts, len(order)))
    widths = (np.maximum.reduceat(lengths[order], starts) for lengths in plan[1:])
    return sum(int((rows * width).sum()) for width in widths)


class DenoisedBatches(SampleBatches):
    """Batches of denoised texts, each of which comes once in a pass over them.

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
        self.texts = TextSamples(
            tokens, seed=seed, denoisers=denoisers, ids=ids, dtype=dtype, threads=threads
        )
        super().__init__([self.texts], batch_size, micro_batch_size, grouped=grouped, widths=widths)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every text has come at least once."""
        return -(-len(self.texts) // self.batch_size)

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
        _, indices = self.draw(step, rows)
        return indices, self.texts.find(indices)
