"""A whole training step of UFNRec on a CPU, against the authors' step.

Two moments of a run: before mining starts, and with a memory that some epochs have filled. Both
sides then have the same weights, teacher and memory. `--memory` trains 40 epochs instead, and
says what the miner holds at the end.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from torch import Tensor

from authors_training import AuthorsStep, SASRec
from inputs import interactions
from lmcore.recsys import training
from lmcore.recsys.data import Split, leave_one_out, make_interactions, make_split
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.recipes import TrainConfig, consistency
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.run import SequenceRun
from lmcore.training.config import DeviceConfig
from timing import compare, print_conditions, save

# Beauty 5-core; the histories that are made have its mean length.
USERS, ITEMS, SHORTEST, MEAN = 22_363, 12_101, 3, 6.9
# Epochs that fill the memory, and those of them before mining starts.
FILLING, PLAIN = 20, 9
MEMORY_EPOCHS, MEMORY_LIMIT = 40, 10**9
PROFILED = 60
# An epoch after all that were trained.
FAR = 99

# What a part of the profile is made of.
BOOKKEEPING = ("sampler", "inject", "labels", "observe")
PARTS = (*BOOKKEEPING, "forward", "logits", "loss", "backward", "optimizer", "teacher")


def load() -> tuple[str, Split]:
    """Returns the name of the data and its split: Beauty where it can be had, else its like."""
    folder = os.environ.get("LMCORE_DATA")
    if folder:
        path = Path(folder, "recsys", "Beauty_5core_pairs.txt")
        return "Beauty 5-core", leave_one_out(read_interactions(path))
    offsets, items = interactions(USERS, ITEMS, SHORTEST, MEAN)
    rows = make_interactions(offsets, items, ITEMS)
    name = f"{USERS} users x {ITEMS} items"
    return name, make_split(rows, rows.offsets[1:], rows.offsets[1:], SplitRule())


class Pair:
    """Our step and theirs, at the same moment of the same run."""

    def __init__(self, config: TrainConfig, data: Split, state: dict[str, Any] | None) -> None:
        self.ours = SequenceRun(config, data)
        assert self.ours.miner is not None
        if state is not None:
            self.ours.load_state_dict(deepcopy(state))
        rows = np.split(data.train_items, data.train_offsets[1:-1])
        train = {user: row.tolist() for user, row in enumerate(rows, 1)}
        model = SASRec(data.item_count, dropout=config.dropout)
        model.load_state_dict(self.ours.model.state_dict())
        self.theirs = AuthorsStep(model, train, data.item_count)
        self._steps = count()
        if state is None:
            return
        self.theirs.mining = True
        self.copy_weights()
        self.theirs.optimizer.load_state_dict(deepcopy(order_state(self.ours, model)))
        hard, counts = read_memory(self.ours)
        self.theirs.memory.hard, self.theirs.memory.counts = hard, counts

    def copy_weights(self) -> None:
        """Gives our student's and teacher's weights to theirs."""
        model, teacher = self.theirs.model, self.ours.teacher
        model.load_state_dict(self.ours.model.state_dict())
        if teacher is not None:
            averages = dict(teacher.model.named_parameters())
            self.theirs.averages = [averages[name].clone() for name, _ in model.named_parameters()]
            self.theirs.updates = teacher.update_count

    def step(self) -> Tensor:
        """Our step on the next batch."""
        return self.ours.step(FAR * self.ours.steps_per_epoch + next(self._steps) + 1)["loss"]

    def authors_step(self) -> Tensor:
        """Their step on a batch of their own."""
        return self.theirs.draw_and_step()


def order_state(run: SequenceRun, model: SASRec) -> dict[str, Any]:
    """Returns the state of our optimizer for theirs, whose parameters have another order."""
    moments = run.optimizer.state_dict()["moments"]
    ordered = {row: moments[name] for row, (name, _) in enumerate(model.named_parameters())}
    groups = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98)).state_dict()
    return {"state": ordered, "param_groups": groups["param_groups"]}


def read_memory(run: SequenceRun) -> tuple[dict[Any, list[Any]], dict[Any, int]]:
    """Returns hard lists and counts of our memory as the authors keep them."""
    assert run.miner is not None
    state = run.miner.memory.state_dict()
    keys, bounds = state["hard_keys"].tolist(), state["hard_offsets"].tolist()
    items = state["hard_items"].astype(np.int32)
    hard = {
        (key >> 8, key & 255): list(items[start:end])
        for key, start, end in zip(keys, bounds, bounds[1:], strict=False)
    }
    wide = state["count_keys"].astype(np.int64)
    parts = (wide >> 40).tolist(), (wide >> 32 & 255).tolist(), (wide & 0xFFFFFFFF).tolist()
    flat_indices = zip(*parts, strict=True)
    return hard, dict(zip(flat_indices, state["counts"].tolist(), strict=True))


def train_epoch(run: SequenceRun, epoch: int) -> list[float]:
    """One epoch; returns the losses."""
    done = (epoch - 1) * run.steps_per_epoch
    return [float(run.step(done + index)["loss"]) for index in range(1, 1 + run.steps_per_epoch)]


def fill(config: TrainConfig, data: Split) -> dict[str, Any]:
    """Returns the state of a run after some epochs, the last of them with mining."""
    run = SequenceRun(config, data)
    for epoch in range(1, FILLING + 1):
        losses = train_epoch(run, epoch)
        assert run.miner is not None
        print(
            f"epoch {epoch}: loss {statistics.fmean(losses):.4f}, {run.miner.stats()}", flush=True
        )
    return run.state_dict()


def check(config: TrainConfig, data: Split, state: dict[str, Any] | None) -> None:
    """Asserts equal losses, reversals, hard lists and counts on equal batches; no dropout."""
    pair = Pair(replace(config, dropout=0.0), data, state)
    assert pair.ours.miner is not None
    for step in range(2):
        batch = pair.ours.sampler.sample(FAR + 1, step)
        arrays = (batch.users, batch.sequences, batch.positives, batch.negatives)
        reversed_before = pair.ours.miner.stats().reversed_count
        ours = pair.ours.step(FAR * pair.ours.steps_per_epoch + step + 1)["loss"]
        one, other = float(ours), float(pair.theirs.step(*arrays))
        assert abs(one - other) < 1e-5, (step, one, other)
        reversed_count = pair.ours.miner.stats().reversed_count - reversed_before
        assert reversed_count == len(pair.theirs.reversed)
        assert state is None or reversed_count > 0
        # Rounding moves the weights apart, so that both take each step from ours.
        pair.copy_weights()
    hard, counts = read_memory(pair.ours)
    assert counts == pair.theirs.memory.counts
    assert hard == {key: row for key, row in pair.theirs.memory.hard.items() if row}


@contextmanager
def timed(run: SequenceRun, times: dict[str, float]) -> Iterator[None]:
    """Adds up the seconds of the parts of a step, of which none holds another one's time."""
    inside: list[float] = []

    def watch(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **options: Any) -> Any:
            inside.append(0.0)
            start = time.perf_counter()
            try:
                return call(*arguments, **options)
            finally:
                took = time.perf_counter() - start
                times[name] += took - inside.pop()
                if inside:
                    inside[-1] += took

        return watched

    miner, teacher = run.miner, run.teacher
    assert miner is not None
    calls: list[tuple[object, str, str]] = [
        (run.sampler, "sample_packed", "sampler"),
        (miner.memory, "inject_packed", "inject"),
        (miner, "inject", "labels"),
        (run, "_find_reversed", "labels"),
        (miner, "observe", "observe"),
        (run.model, "forward_packed", "forward"),
        (training, "packed_logits", "logits"),
        (training, "ufn_loss", "loss"),
        (Tensor, "backward", "backward"),
        (run.optimizer, "update", "optimizer"),
        (run, "_teach", "teacher"),
        *([] if teacher is None else [(teacher, "update", "teacher")]),
    ]
    patches = [patch.object(o, n, watch(part, getattr(o, n))) for o, n, part in calls]
    for one in patches:
        one.start()
    try:
        yield
    finally:
        for one in patches:
            one.stop()


def profile(pair: Pair) -> dict[str, float]:
    """Returns the milliseconds of each part of our step, and of the whole."""
    times: dict[str, float] = defaultdict(float)
    with timed(pair.ours, times):
        start = time.perf_counter()
        for _ in range(PROFILED):
            pair.step()
        whole = time.perf_counter() - start
    shares = {part: times[part] for part in PARTS}
    shares["rest"] = whole - sum(shares.values())
    return {part: 1e3 * value / PROFILED for part, value in [*shares.items(), ("whole", whole)]}


def print_profiles(columns: dict[str, dict[str, float]]) -> None:
    """Prints a table of milliseconds and shares."""
    print(f"| part of a step | {' | '.join(columns)} |")
    print(f"| --- |{' --- |' * len(columns)}")
    for part in (*PARTS, "rest", "whole"):
        cells = (f"{c[part]:.2f} ms, {c[part] / c['whole']:.1%}" for c in columns.values())
        print(f"| {part} | {' | '.join(cells)} |")
    shares = [sum(c[part] for part in BOOKKEEPING) / c["whole"] for c in columns.values()]
    cells = (f"{share:.1%}" for share in shares)
    print(f"| {' + '.join(BOOKKEEPING)} | {' | '.join(cells)} |", flush=True)


def count_threads(threads: int) -> str:
    """Returns the number in words of the table."""
    return "1 thread" if threads == 1 else f"{threads} threads"


def compare_steps() -> list[Any]:
    """Times both moments with one thread and with two."""
    name, data = load()
    config = replace(consistency(), device=DeviceConfig(device="cpu"))
    steps = SequenceRun(config, data).steps_per_epoch
    config = replace(config, start=PLAIN * steps)
    state = fill(config, data)
    moments = {"before mining": None, "UFNRec": state}
    pairs = {}
    for moment, start in moments.items():
        if start is None:
            check(replace(config, start=10**9), data, start)
            pairs[moment] = Pair(replace(config, start=10**9), data, start)
        else:
            check(config, data, start)
            pairs[moment] = Pair(config, data, start)
    print("equal; timing", flush=True)
    rows, columns = [], {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for moment, pair in pairs.items():
            for _ in range(3):
                pair.step()
            rows += compare(
                "training_step",
                f"{moment}, {name}, 128 x 50 x 100, {count_threads(threads)}",
                ("authors", pair.authors_step),
                ("lmcore", pair.step, "6"),
                rounds=7,
                repeats=9,
            )
            columns[f"{moment}, {count_threads(threads)}"] = profile(pair)
    print_profiles(columns)
    return rows


def measure_memory() -> None:
    """Trains 40 epochs of the recipe, and asserts that the miner stays below a gigabyte."""
    name, data = load()
    run = SequenceRun(replace(consistency(), device=DeviceConfig(device="cpu")), data)
    assert run.miner is not None
    started, largest = time.perf_counter(), 0
    for epoch in range(1, MEMORY_EPOCHS + 1):
        train_epoch(run, epoch)
        largest = max(largest, run.miner.stats().memory_bytes)
    stats = run.miner.stats()
    print(
        f"{name}, {MEMORY_EPOCHS} epochs: {largest / 1e6:.0f} MB, {stats.hard_count:,} hard "
        f"negatives, {stats.key_count:,} counts, {stats.reversed_count:,} reversals, "
        f"{time.perf_counter() - started:.0f} s",
        flush=True,
    )
    assert largest < MEMORY_LIMIT


def main() -> None:
    """Runs all cases."""
    print_conditions()
    np.random.seed(1)
    torch.set_num_threads(1)
    if "--memory" in sys.argv[1:]:
        measure_memory()
        return
    save("training_step", compare_steps())


if __name__ == "__main__":
    main()
