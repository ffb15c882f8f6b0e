"""Batches as functions of (seed, step): no loader has a state that a resumed run could miss."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.training.processes import Processes
from lmcore.training.seeding import permute


class Batches(Protocol):
    """Gives any part of any batch."""

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        """The rows of the batch of a step, from 1; a function of its arguments."""


class ExampleBatches:
    """Batches of examples in an order that is drawn anew for each pass over them.

    Every example comes once in a pass. A batch may begin in one pass and end in the next.

    Args:
        examples: anything that is indexed from 0.
        batch_size: rows of a step, B; of all processes together.
        seed: of the order.
        collate: makes a batch of a list of examples, such as a collator of transformers.

    Raises:
        ValueError: there is no example, or `batch_size` is below 1.

    Example:
        >>> import torch
        >>> batches = ExampleBatches(range(3), 2, 1, lambda rows: {"x": torch.tensor(rows)})
        >>> two = [*batches(1, slice(0, 2))["x"], *batches(2, slice(0, 1))["x"]]
        >>> sorted(int(x) for x in two)
        [0, 1, 2]
    """

    def __init__(
        self,
        examples: Sequence[Any],
        batch_size: int,
        seed: int,
        collate: Callable[[list[Any]], Mapping[str, Tensor]],
    ) -> None:
        if not len(examples):
            raise ValueError("examples must not be empty")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1: got {batch_size}")
        self.examples, self.batch_size, self.seed = examples, batch_size, seed
        self.collate = collate
        # The order of the last pass; a thread that finds another one makes its own.
        self._order: tuple[int, Any] = (-1, None)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every example has come at least once."""
        return -(-len(self.examples) // self.batch_size)

    def __call__(self, step: int, rows: slice) -> Mapping[str, Tensor]:
        """The rows of a batch.

        Args:
            step: from 1.
            rows: of the batch, within 0 to B.

        Raises:
            ValueError: `step` is below 1.
        """
        return self.collate([self.examples[index] for index in self.find(step, rows)])

    def find(self, step: int, rows: slice) -> list[int]:
        """Which examples the rows of a batch are.

        Args:
            step: from 1.
            rows: of the batch, within 0 to B.

        Raises:
            ValueError: `step` is below 1.
        """
        if step < 1:
            raise ValueError(f"step must be at least 1: got {step}")
        first = (step - 1) * self.batch_size
        found = []
        for row in range(*rows.indices(self.batch_size)):
            epoch, index = divmod(first + row, len(self.examples))
            found.append(int(self._find_order(epoch)[index]))
        return found

    def _find_order(self, epoch: int) -> Any:
        known, order = self._order
        if known != epoch:
            order = permute(self.seed, epoch, len(self.examples))
            self._order = epoch, order
        return order


def share_rows(batch_size: int, processes: Processes) -> slice:
    """Returns which rows of a batch this process computes: parts that differ by one row at most.

    Args:
        batch_size: rows of the whole batch.
        processes: of the run.

    Example:
        >>> share_rows(5, Processes())
        slice(0, 5, None)
    """
    rank, count = processes.data_rank, processes.data_count
    return slice(batch_size * rank // count, batch_size * (rank + 1) // count)


def divide_rows(
    items: Sequence[Any], size: int, processes: Processes | None = None
) -> list[Sequence[Any]]:
    """Returns micro-batches of some items, as many in each process that must go on together.

    Args:
        items: of this process.
        size: of a micro-batch at most.
        processes: those whose passes wait for each other, such as with sharded weights, all of
            which call this; they get empty micro-batches where others have more. None: this one
            is on its own.

    Raises:
        ValueError: `size` is below 1.

    Example:
        >>> divide_rows([1, 2, 3], 2)
        [[1, 2], [3]]
    """
    if size < 1:
        raise ValueError(f"size must be at least 1: got {size}")
    parts = [items[first : first + size] for first in range(0, len(items), size)]
    if processes is not None:
        most = processes.largest(torch.tensor(len(parts), device=processes.device))
        parts += [items[:0]] * (int(most) - len(parts))
    return parts


def stack_rows(rows: Sequence[NDArray[Any]], padding: int, side: str = "right") -> Tensor:
    """Returns rows of different lengths as one tensor, `[rows, longest]` int64.

    Args:
        rows: of integers.
        padding: what fills shorter ones up.
        side: where, `left` or `right`.

    Example:
        >>> import numpy as np
        >>> stack_rows([np.array([1]), np.array([2, 3])], 0, "left").tolist()
        [[0, 1], [2, 3]]
    """
    longest = max(map(len, rows), default=0)
    stacked = np.full((len(rows), longest), padding, np.int64)
    for index, row in enumerate(rows):
        span = slice(longest - len(row), None) if side == "left" else slice(len(row))
        stacked[index, span] = row
    return torch.from_numpy(stacked)


def prefetch(
    batches: Batches, rows: slice, steps: Iterable[int], workers: int
) -> Iterator[Mapping[str, Tensor]]:
    """Yields the batches of steps in order, made ahead by threads.

    What they are does not depend on the number of threads. An error is raised where its batch
    would have come.

    Args:
        batches: gives a batch; called from several threads.
        rows: of each batch.
        steps: in the order in which they are wanted.
        workers: threads, and batches that are made ahead; 0: none.

    Raises:
        ValueError: `workers` is below 0.

    Example:
        >>> import torch
        >>> make = lambda step, rows: {"x": torch.tensor(step)}
        >>> [int(batch["x"]) for batch in prefetch(make, slice(0, 1), range(1, 4), workers=2)]
        [1, 2, 3]
    """
    if workers < 0:
        raise ValueError(f"workers must be at least 0: got {workers}")
    if not workers:
        yield from (batches(step, rows) for step in steps)
        return
    waiting: deque[Future[Mapping[str, Tensor]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for step in steps:
                waiting.append(pool.submit(batches, step, rows))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
