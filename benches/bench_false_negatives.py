"""The memory of false negatives against the authors' bookkeeping and a numba version.

A step writes stored negatives into the batch, makes the labels, and stores what scored above the
positive. Four of five stored negatives score above it again at the next visit, and three of a
hundred new ones, so that a position holds about a dozen and memories fill as in training; all
contenders start from the same filled memory.

"Next batch" is what training does: each step meets other users, whose memory is far from the
processor. "Same batch again" repeats one half of one step: all is near, and every stored negative
is reversed, which training never sees.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from authors_memory import AuthorsMemory
from lmcore.ops.false_negatives import FalseNegativeMemory
from timing import compare, print_conditions, save

BATCH, LENGTH, NEGATIVES, THRESHOLD = 128, 50, 100, 5
KEPT_SHARE = 0.8


@dataclass(slots=True, frozen=True)
class Step:
    """A batch as all contenders get it, padded and packed; logits fit the injected negatives."""

    users: NDArray[np.int64]
    positives: NDArray[np.int64]
    negatives: NDArray[np.int64]
    logits: NDArray[np.float32]
    flat_indices: NDArray[np.int64]
    packed: NDArray[np.int64]
    packed_logits: NDArray[np.float32]

    def fresh(self) -> Step:
        """Returns a copy whose negatives may be written."""
        made = copy.copy(self)
        object.__setattr__(made, "negatives", self.negatives.copy())
        object.__setattr__(made, "packed", self.packed.copy())
        return made


class World:
    """Users with windows of their own length, and logits without a model."""

    def __init__(self, users: int, items: int, mean_length: float, hard_share: float) -> None:
        self.source = np.random.default_rng(5)
        lengths = self.source.geometric(1 / mean_length, users + 1)
        self.lengths = np.minimum(lengths, LENGTH)
        self.user_count, self.item_count, self.hard_share = users, items, hard_share

    def draw(self) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Returns users, flat indices and packed negatives."""
        users = self.source.integers(1, self.user_count + 1, BATCH)
        starts = LENGTH - self.lengths[users]
        flat_indices = np.flatnonzero(np.arange(LENGTH) >= starts[:, None])
        negatives = self.source.integers(1, self.item_count + 1, (len(flat_indices), NEGATIVES))
        return users, flat_indices, negatives

    def score(self, shown: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Returns packed logits: a share of what is new is hard, and most of what was."""
        logits = np.zeros((len(shown), 1 + NEGATIVES), dtype=np.float32)
        share = np.where(shown, KEPT_SHARE, self.hard_share)
        logits[:, 1:] = share - self.source.random(shown.shape)
        return logits

    def run(self, memory: FalseNegativeMemory, steps: int, keep: bool) -> list[Step]:
        """Runs steps with a memory and returns what others need to follow."""
        kept = []
        for _ in range(steps):
            users, flat_indices, packed = self.draw()
            before = packed.copy()
            reversed_ = memory.inject_packed(users, flat_indices, LENGTH, packed)
            logits = self.score(packed != before)
            memory.observe_packed(users, flat_indices, LENGTH, packed, logits, reversed_)
            if keep:
                kept.append(self._step(users, flat_indices, before, logits))
        return kept

    def _step(
        self,
        users: NDArray[np.int64],
        flat_indices: NDArray[np.int64],
        packed: NDArray[np.int64],
        packed_logits: NDArray[np.float32],
    ) -> Step:
        positives = np.zeros((BATCH, LENGTH), dtype=np.int64)
        positives.ravel()[flat_indices] = 1
        negatives = np.zeros((BATCH * LENGTH, NEGATIVES), dtype=np.int64)
        negatives[flat_indices] = packed
        logits = np.zeros((BATCH * LENGTH, 1 + NEGATIVES), dtype=np.float32)
        logits[flat_indices] = packed_logits
        shape = BATCH, LENGTH, -1
        return Step(
            users,
            positives,
            negatives.reshape(shape),
            logits.reshape(shape),
            flat_indices,
            packed,
            packed_logits,
        )


class Ours:
    """lmcore, packed or padded."""

    def __init__(self, state: dict[str, NDArray[Any]], packed: bool) -> None:
        self.memory = FalseNegativeMemory(threshold=THRESHOLD)
        self.memory.load_state_dict(state)
        self.packed = packed

    def inject(self, step: Step) -> Any:
        """Writes into the negatives."""
        if self.packed:
            return self.memory.inject_packed(step.users, step.flat_indices, LENGTH, step.packed)
        return self.memory.inject(step.users, step.positives, step.negatives)

    def label(self, step: Step, reversed_: Any) -> NDArray[np.float32]:
        """Returns labels of all negatives."""
        blocks = len(step.packed) if self.packed else BATCH * LENGTH
        labels = np.zeros((blocks, NEGATIVES), dtype=np.float32)
        labels.ravel()[reversed_.flat_indices(NEGATIVES)] = 1
        return labels

    def observe(self, step: Step, reversed_: Any, labels: Any) -> None:
        """Stores hard negatives."""
        if self.packed:
            batch = step.users, step.flat_indices, LENGTH, step.packed, step.packed_logits
            self.memory.observe_packed(*batch, reversed_)
        else:
            batch = step.users, step.positives, step.negatives, step.logits
            self.memory.observe(*batch, reversed_)


class Authors:
    """The authors' algorithm, on padded arrays as they do."""

    def __init__(self, state: dict[str, NDArray[Any]]) -> None:
        self.memory = AuthorsMemory(THRESHOLD)
        offsets, items = state["hard_offsets"].tolist(), state["hard_items"].tolist()
        for k, key in enumerate(state["hard_keys"].tolist()):
            self.memory.hard[key >> 8, key & 255] = items[offsets[k] : offsets[k + 1]]
        for key, count in zip(state["count_keys"].tolist(), state["counts"].tolist(), strict=True):
            self.memory.counts[key >> 40, key >> 32 & 255, key & 0xFFFFFFFF] = count

    def inject(self, step: Step) -> Any:
        """Writes into the negatives."""
        return self.memory.inject(step.users, step.positives, step.negatives)

    def label(self, step: Step, reversed_: Any) -> Any:
        """Returns labels of all negatives."""
        return self.memory.label(step.negatives.shape, reversed_)

    def observe(self, step: Step, reversed_: Any, labels: Any) -> None:
        """Stores hard negatives."""
        self.memory.observe(step.users, step.positives, step.negatives, step.logits, labels)


class Numba:
    """Flat lists per (user, position) and one table of keys, compiled; packed.

    A slot of its own for every (user, position) and room for N items in each: quick, and more
    memory than a memory that grows. It has neither checks nor a bound.
    """

    def __init__(self, state: dict[str, NDArray[Any]], users: int) -> None:
        self.hard = np.zeros(((users + 1) * LENGTH, NEGATIVES), dtype=np.uint32)
        self.sizes = np.zeros((users + 1) * LENGTH, dtype=np.int64)
        capacity = 1 << (len(state["counts"]) * 4).bit_length()
        self.keys, self.values = np.zeros(capacity, np.uint64), np.zeros(capacity, np.uint32)
        self.code = numba_functions()
        offsets, items = state["hard_offsets"].tolist(), state["hard_items"]
        for k, key in enumerate(state["hard_keys"].tolist()):
            slot, size = (key >> 8) * LENGTH + (key & 255), offsets[k + 1] - offsets[k]
            self.hard[slot, :size] = items[offsets[k] : offsets[k + 1]]
            self.sizes[slot] = size
        self.code["fill"](self.keys, self.values, state["count_keys"], state["counts"])
        self.room = np.empty(BATCH * LENGTH * NEGATIVES, dtype=np.int64)

    def inject(self, step: Step) -> Any:
        """Writes into the negatives."""
        tables = self.hard, self.sizes, self.keys, self.values
        batch = step.users, step.flat_indices, step.packed, self.room
        return self.room[: self.code["inject"](*tables, *batch, THRESHOLD)]

    def label(self, step: Step, reversed_: Any) -> Any:
        """Returns labels of all negatives."""
        labels = np.zeros(step.packed.shape, dtype=np.float32)
        labels.ravel()[reversed_] = 1
        return labels

    def observe(self, step: Step, reversed_: Any, labels: Any) -> None:
        """Stores hard negatives."""
        batch = step.users, step.flat_indices, step.packed, step.packed_logits, labels
        self.code["observe"](self.hard, self.sizes, *batch)


def numba_functions() -> dict[str, Callable[..., Any]]:
    """Returns the compiled functions."""
    import numba

    @numba.njit
    def locate(keys: Any, key: Any) -> int:
        mask = np.uint64(len(keys) - 1)
        slot = (key * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(20) & mask
        while keys[slot] != 0 and keys[slot] != key:
            slot = (slot + np.uint64(1)) & mask
        return np.int64(slot)

    @numba.njit
    def fill(keys: Any, values: Any, given: Any, counts: Any) -> None:
        for k in range(len(given)):
            slot = locate(keys, given[k])
            keys[slot], values[slot] = given[k], counts[k]

    @numba.njit
    def inject(
        hard: Any,
        sizes: Any,
        keys: Any,
        values: Any,
        users: Any,
        flat_indices: Any,
        negatives: Any,
        out: Any,
        threshold: int,
    ) -> int:
        found, start = 0, 0
        while start < len(flat_indices):
            row = flat_indices[start] // LENGTH
            end = start
            while end < len(flat_indices) and flat_indices[end] // LENGTH == row:
                end += 1
            for block in range(end - 1, start - 1, -1):
                position = flat_indices[block] % LENGTH
                slot = users[row] * LENGTH + position
                high = np.uint64(users[row]) << np.uint64(40)
                high |= np.uint64(position) << np.uint64(32)
                for k in range(sizes[slot]):
                    item = hard[slot, k]
                    negatives[block, k] = item
                    key = high | np.uint64(item)
                    slot = locate(keys, key)
                    keys[slot] = key
                    values[slot] += np.uint32(1)
                    if values[slot] > threshold:
                        out[found] = block * NEGATIVES + k
                        found += 1
            start = end
        return found

    @numba.njit
    def observe(
        hard: Any,
        sizes: Any,
        users: Any,
        flat_indices: Any,
        negatives: Any,
        logits: Any,
        labels: Any,
    ) -> None:
        for k in range(len(flat_indices)):
            slot = users[flat_indices[k] // LENGTH] * LENGTH + flat_indices[k] % LENGTH
            size, limit = 0, logits[k, 0]
            for j in range(NEGATIVES):
                hard[slot, size] = np.uint32(negatives[k, j])
                size += (logits[k, j + 1] > limit) & (labels[k, j] != 1)
                size = min(size, NEGATIVES - 1) if j < NEGATIVES - 1 else size
            sizes[slot] = size

    return {"fill": fill, "inject": inject, "observe": observe}


def run_step(contender: Any, step: Step) -> Any:
    """Returns what was reversed, after all parts of a step."""
    reversed_ = contender.inject(step)
    labels = contender.label(step, reversed_)
    contender.observe(step, reversed_, labels)
    return reversed_


def bench(name: str, world: World, fill_steps: int, goal: str) -> list[Any]:
    """Times whole steps and their two halves from a filled memory."""
    memory = FalseNegativeMemory(threshold=THRESHOLD)
    world.run(memory, fill_steps, keep=False)
    state = memory.state_dict()
    steps = world.run(memory, 40, keep=True)
    mean = np.mean([len(step.packed) for step in steps])
    print(
        f"{name}: {mean:.0f} positions a batch, {memory.key_count} counts, "
        f"{memory.memory_bytes / max(memory.key_count, 1):.1f} bytes a count"
    )

    def contenders() -> dict[str, Any]:
        return {
            "authors": Authors(state),
            "numba": Numba(state, world.user_count),
            "lmcore, packed": Ours(state, packed=True),
            "lmcore, padded": Ours(state, packed=False),
        }

    # Every contender writes the same negatives and reverses the same ones.
    everyone = contenders()
    total = 0
    for step in steps[:3]:
        given = {who: step.fresh() for who in everyone}
        reversed_ = {who: run_step(one, given[who]) for who, one in everyone.items()}
        written = given["authors"].negatives
        coordinates = np.array(reversed_["authors"], dtype=np.int64).reshape(-1, 3)
        total += len(coordinates)
        assert np.array_equal(written, given["lmcore, padded"].negatives)
        for who in ("lmcore, packed", "numba"):
            assert np.array_equal(
                written.reshape(-1, NEGATIVES)[step.flat_indices], given[who].packed
            )
        for who in ("lmcore, packed", "lmcore, padded"):
            assert np.array_equal(reversed_[who].coordinates, coordinates)
        flat = reversed_["lmcore, packed"].flat_indices(NEGATIVES)
        assert np.array_equal(flat, reversed_["numba"])
    print(f"{name}: {total / 3:.0f} reversed a batch")

    rows = []
    for part, asked in (
        ("next batch: inject + labels + observe", goal),
        ("next batch: inject", ""),
        ("next batch: observe", ""),
        ("same batch again: inject", goal),
        ("same batch again: observe", goal),
    ):
        everyone = contenders()
        # As many copies as calls: nobody copies while the clock runs.
        calls = {who: prepare(one, steps, part) for who, one in everyone.items()}
        for opponent in ("authors", "numba"):
            rows += compare(
                "false_negatives",
                f"{name}: {part}",
                (opponent, calls[opponent]),
                ("lmcore, packed", calls["lmcore, packed"], asked if opponent == "authors" else ""),
                ("lmcore, padded", calls["lmcore, padded"], ""),
                rounds=5,
                repeats=3,
            )
    return rows


def prepare(contender: Any, steps: list[Step], part: str) -> Callable[[], object]:
    """Returns a call that does a part of the next step, or of the same step again.

    The next step finds inputs and memory far from the processor, where training leaves the
    memory alone; the same step finds both near.
    """
    if part.startswith("same batch"):
        given = steps[0].fresh()
        # So often that every stored negative is reversed, for all contenders.
        for _ in range(THRESHOLD + 1):
            reversed_ = contender.inject(given)
        if part.endswith("inject"):
            return lambda: contender.inject(given)
        labels = contender.label(given, reversed_)
        return lambda: contender.observe(given, reversed_, labels)
    fresh = iter([step.fresh() for step in steps])
    if part.endswith(": inject"):
        return lambda: contender.inject(next(fresh))
    if part.endswith(": observe"):
        made = []
        for step in steps:
            given = step.fresh()
            reversed_ = contender.inject(given)
            made.append((given, reversed_, contender.label(given, reversed_)))
        ready = iter(made)
        return lambda: contender.observe(*next(ready))
    return lambda: run_step(contender, next(fresh))


def main() -> None:
    """Runs all cases."""
    print_conditions()
    rows = bench("sparse, 586 positions", World(10_000, 57_000, 4.58, 0.03), 800, "700")
    rows += bench("dense, 5,500 positions", World(600, 3_400, 120.0, 0.03), 60, "")
    save("false_negatives", rows)


if __name__ == "__main__":
    main()
