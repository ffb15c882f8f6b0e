"""Batches are functions of (seed, step), whoever asks for which part of them."""

import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmcore.training.batches import ExampleBatches, prefetch, share_rows
from lmcore.training.processes import Processes
from lmcore.training.seeding import permute


def collate(rows: list[int]) -> dict[str, Tensor]:
    return {"x": torch.tensor(rows, dtype=torch.int64)}


def test_permutations() -> None:
    for count in (0, 1, 2, 7, 1000):
        order = permute(3, 5, count)
        assert order.dtype == np.int64
        assert sorted(order.tolist()) == list(range(count))
    assert permute(3, 5, 50).tolist() == permute(3, 5, 50).tolist()
    assert len({tuple(permute(s, e, 50)) for s in (1, 2) for e in (0, 1)}) == 4


def test_each_order_is_as_likely_as_any_other() -> None:
    found = Counter(tuple(permute(1, epoch, 3).tolist()) for epoch in range(6000))
    assert len(found) == 6
    squares = sum((n - 1000) ** 2 / 1000 for n in found.values())
    assert squares < 20.5  # chi-square, 5 degrees of freedom, p = 0.001


@pytest.mark.parametrize("count", [1, 2, 5, 8, 13])
@pytest.mark.parametrize("batch_size", [1, 3, 4, 20])
def test_every_example_comes_once_in_a_pass(count: int, batch_size: int) -> None:
    batches = ExampleBatches(range(count), batch_size, 7, collate)
    passes = 6
    steps = -(-count * passes // batch_size)
    seen = [int(x) for step in range(1, steps + 1) for x in batches(step, slice(None))["x"]]
    for epoch in range(passes):
        assert sorted(seen[epoch * count : (epoch + 1) * count]) == list(range(count))
    # In any order, any part.
    for step in (steps, 1, steps):
        part = [int(x) for x in batches(step, slice(0, 2))["x"]]
        assert part == seen[(step - 1) * batch_size :][: min(2, batch_size)]


def test_parts_of_processes_are_the_whole() -> None:
    class Many(Processes):
        data_count = 3  # type: ignore[assignment]

    for size in (1, 2, 3, 7, 9):
        parts = [share_rows(size, Many(data_rank=rank, rank=rank)) for rank in range(3)]
        assert [row for part in parts for row in range(size)[part]] == list(range(size))
        lengths = [len(range(size)[part]) for part in parts]
        assert max(lengths) - min(lengths) <= 1


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_prefetched_batches_come_in_order(workers: int) -> None:
    generator = np.random.default_rng(0)
    pauses = generator.uniform(0, 0.003, 40)
    before, busy = threading.active_count(), 0

    def make(step: int, rows: slice) -> dict[str, Tensor]:
        nonlocal busy
        busy = max(busy, threading.active_count())
        time.sleep(pauses[step])
        return {"x": torch.tensor(step)}

    found = [int(b["x"]) for b in prefetch(make, slice(None), range(1, 40), workers)]
    assert found == list(range(1, 40))
    # Nothing runs beside the caller without workers, and nothing is left behind with them.
    assert threading.active_count() == before
    assert busy <= before + workers


def test_an_error_comes_where_its_batch_would_have_come() -> None:
    def make(step: int, rows: slice) -> dict[str, Tensor]:
        if step == 3:
            raise ValueError("step 3")
        return {"x": torch.tensor(step)}

    seen: list[Any] = []
    with pytest.raises(ValueError, match="step 3"):
        seen.extend(int(b["x"]) for b in prefetch(make, slice(None), range(1, 9), 4))
    stream = prefetch(make, slice(None), range(4, 1000), 2)
    assert int(next(stream)["x"]) == 4
    stream.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="workers must be at least 0: got -1"):
        next(prefetch(make, slice(None), [1], -1))


def test_wrong_arguments() -> None:
    with pytest.raises(ValueError, match="examples must not be empty"):
        ExampleBatches([], 1, 0, collate)
    with pytest.raises(ValueError, match="batch_size must be at least 1: got 0"):
        ExampleBatches([1], 0, 0, collate)
    with pytest.raises(ValueError, match="step must be at least 1: got 0"):
        ExampleBatches([1], 1, 0, collate)(0, slice(None))
