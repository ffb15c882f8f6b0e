"""Training batches with negatives against the samplers of the authors, RecBole and numba."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

import authors_recsys as authors
from inputs import interactions
from lmcore.ops.negatives import SequenceSampler
from timing import compare, print_conditions, save

BATCH, LENGTH, NEGATIVES = 128, 50, 100
SHAPES = {
    "sparse, 52000 users x 57000 items": (52_000, 57_000, 2, 5.6),
    "sparse, 22000 users x 12000 items": (22_000, 12_000, 3, 6.9),
    "dense, 6040 users x 3416 items": (6_040, 3_416, 18, 163.0),
}


def numba_sampler(
    offsets: NDArray[np.int64], items: NDArray[np.int64], item_count: int
) -> Callable[[int, NDArray[np.int64], NDArray[np.int64]], None]:
    """Returns the best that we found in numba: rejection by a bitset that a row sets and clears."""
    import numba

    @numba.njit(cache=False)
    def draw(
        state: int,
        users: NDArray[np.int64],
        out: NDArray[np.int64],
        offsets: NDArray[np.int64],
        items: NDArray[np.int64],
        item_count: int,
        bits: NDArray[np.uint64],
    ) -> None:
        x = np.uint64(state) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(1)
        for row in range(users.shape[0]):
            start, end = offsets[users[row] - 1], offsets[users[row]]
            valid = min(end - start - 1, out.shape[1])
            for k in range(start, end):
                bits[items[k] >> 6] |= np.uint64(1) << np.uint64(items[k] & 63)
            out[row, : out.shape[1] - valid] = 0
            for position in range(out.shape[1] - valid, out.shape[1]):
                for slot in range(out.shape[2]):
                    while True:
                        x ^= x << np.uint64(13)
                        x ^= x >> np.uint64(7)
                        x ^= x << np.uint64(17)
                        item = (((x >> np.uint64(32)) * np.uint64(item_count)) >> np.uint64(32)) + 1
                        item = np.int64(item)
                        if not (bits[item >> 6] >> np.uint64(item & 63)) & np.uint64(1):
                            break
                    out[row, position, slot] = item
            for k in range(start, end):
                bits[items[k] >> 6] = 0

    bits = np.zeros(item_count // 64 + 1, np.uint64)

    def call(state: int, users: NDArray[np.int64], out: NDArray[np.int64]) -> None:
        draw(state, users, out, offsets, items, item_count, bits)

    return call


def check(
    name: str, users: Any, positives: Any, negatives: Any, histories: list[set[int]], items: int
) -> None:
    """Asserts that negatives stand at valid positions, outside of histories, and are uniform."""
    positives, negatives = np.asarray(positives), np.asarray(negatives)
    assert ((negatives != 0).all(-1) == (positives != 0)).all(), name
    assert ((negatives != 0).any(-1) == (positives != 0)).all(), name
    assert negatives.max() <= items, name
    for user, row in zip(users, negatives, strict=True):
        assert histories[user].isdisjoint(row[row != 0].tolist()), name
    drawn = negatives[negatives != 0]
    cells = np.bincount((drawn - 1) * 100 // items, minlength=100)
    expected = np.zeros(100)
    for user, positions in zip(users, (positives != 0).sum(1), strict=True):
        others = np.setdiff1d(np.arange(1, items + 1), list(histories[user]))
        share = np.bincount((others - 1) * 100 // items, minlength=100) / len(others)
        expected += share * positions * NEGATIVES
    chi_squared = ((cells - expected) ** 2 / expected).sum()
    assert abs(chi_squared - 99) < 6 * np.sqrt(2 * 99), (name, chi_squared)


def run_shape(shape: str) -> list[Any]:
    """Times one shape."""
    user_count, item_count, shortest, mean = SHAPES[shape]
    offsets, items = interactions(user_count, item_count, shortest, mean)
    rows = np.split(items, offsets[1:-1])
    train = {user: row.tolist() for user, row in enumerate(rows, 1)}
    histories = [set(), *(set(row) for row in train.values())]
    used = np.array(histories, dtype=object)
    sampler = SequenceSampler(offsets, items, item_count, threads=1)
    steps = count()

    def step() -> int:
        return next(steps) % sampler.steps_per_epoch

    padded, packed = sampler.sample(0, 0), sampler.sample_packed(0, 0)
    same = padded.users.copy()
    opponent = numba_sampler(offsets, items, item_count)
    out = np.full((BATCH, LENGTH, NEGATIVES), -1)
    opponent(1, same, out)
    theirs = authors.draw_batch(train, user_count, item_count, BATCH, LENGTH, NEGATIVES)
    keys = same[packed.flat_indices // LENGTH]
    recbole = np.zeros_like(padded.negatives).reshape(-1, NEGATIVES)
    recbole[packed.flat_indices] = (
        authors.draw_by_users(used, keys, item_count, NEGATIVES).reshape(NEGATIVES, -1).T
    )
    recbole = recbole.reshape(padded.negatives.shape)
    assert np.array_equal(
        packed.negatives, padded.negatives.reshape(-1, NEGATIVES)[packed.flat_indices]
    )
    for name, users, positives, drawn in (
        ("lmcore", padded.users, padded.positives, padded.negatives),
        ("numba", padded.users, padded.positives, out),
        ("RecBole", padded.users, padded.positives, recbole),
        ("authors", theirs[0], theirs[2], theirs[3]),
    ):
        check(name, users, positives, drawn, histories, item_count)
    dense = shape.startswith("dense")
    case = f"128 x 50 x 100, {shape}"

    def sample() -> object:
        return sampler.sample(0, step(), out=padded)

    def sample_anew() -> object:
        return sampler.sample(0, step())

    def sample_packed() -> object:
        return sampler.sample_packed(0, step(), out=packed)

    result = compare(
        "negatives",
        case,
        (
            "authors",
            lambda: authors.draw_batch(train, user_count, item_count, BATCH, LENGTH, NEGATIVES),
        ),
        ("lmcore, padded, same arrays", sample, "900" if dense else "700"),
        ("lmcore, padded, new arrays", sample_anew, ""),
        ("lmcore, packed", sample_packed, ""),
        rounds=5 if dense else 9,
        repeats=15,
    )
    result += compare(
        "negatives",
        case,
        (
            "RecBole, negatives only",
            lambda: authors.draw_by_users(used, keys, item_count, NEGATIVES),
        ),
        ("lmcore, packed", sample_packed, "50"),
        rounds=9,
        repeats=15,
    )
    result += compare(
        "negatives",
        case,
        ("numba bitset, negatives only", lambda: opponent(step(), same, out)),
        ("lmcore, padded, same arrays", sample, ""),
        rounds=31,
        repeats=5,
    )
    result += compare(
        "negatives",
        case,
        ("lmcore, padded, new arrays", sample_anew),
        ("lmcore, padded, same arrays", sample, ""),
        ("lmcore, packed", sample_packed, "1.33"),
        rounds=31,
        repeats=5,
    )
    return result


def main() -> None:
    """Runs all cases."""
    print_conditions()
    np.random.seed(1)
    rows = [row for shape in SHAPES for row in run_shape(shape)]
    save("negatives", rows)


if __name__ == "__main__":
    main()
