"""Ids of a large vocabulary counted and remapped, against torch, numpy, pyarrow and the authors.

Ids are drawn as Zipf's law has them: the id of rank r in proportion to 1 / r. The authors' loop
runs on a part of them, and its time is scaled. `--small` takes a tenth of the ids.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import authors_vocabulary as authors
from lmcore.ops.philox import random_uniform
from lmcore.ops.vocabulary import count_ids, rank_ids, remap_ids
from timing import Row, compare, print_conditions, save, scale

SIZE = 250_000
COUNT = 10**7 if "--small" in sys.argv[1:] else 10**8
PART = 10**6
CASE = f"{COUNT} Zipf ids of {SIZE}, int32"


def make_ids(is_shuffled: bool = False) -> NDArray[np.int32]:
    """Returns `[COUNT]` ids, the frequent ones small or anywhere."""
    ids = np.empty(COUNT, np.int32)
    order = np.random.default_rng(0).permutation(SIZE).astype(np.int32)
    for start in range(0, COUNT, PART):
        # The logarithm of a Zipf id is uniform.
        (drawn,) = random_uniform(1, 1, [start // PART], PART)
        part = np.minimum(np.exp(drawn * np.log(SIZE + 1)).astype(np.int32), SIZE) - 1
        assert part.shape == (PART,)
        ids[start : start + PART] = order[part] if is_shuffled else part
    return ids


def check(ids: NDArray[np.int32], table: NDArray[np.int64]) -> None:
    """Asserts that all count and map alike."""
    expected = np.bincount(ids, minlength=SIZE)
    assert torch.equal(
        torch.bincount(torch.from_numpy(ids), minlength=SIZE), torch.tensor(expected)
    )
    part = ids[:PART]
    theirs = authors.count_ids([part])
    assert [theirs.get(token, 0) for token in range(SIZE)] == np.bincount(
        part, minlength=SIZE
    ).tolist()
    for threads in (1, 2):
        assert (count_ids(ids, SIZE, threads=threads).counts == expected).all()
        assert (remap_ids(ids, table, threads=threads).ids == table[ids]).all()
    order = np.lexsort((np.arange(SIZE), -expected))
    assert (rank_ids(expected) == order).all()


def count_rows(ids: NDArray[np.int32], case: str) -> list[Row]:
    """Times counting."""
    tensor = torch.from_numpy(ids)
    one: tuple[str, Callable[[], Any]] = ("1 thread", lambda: count_ids(ids, SIZE, threads=1))
    two: tuple[str, Callable[[], Any]] = ("2 threads", lambda: count_ids(ids, SIZE, threads=2))
    rows = []
    opponents: list[tuple[str, Callable[[], Any], str, str, int]] = [
        ("torch.bincount", lambda: torch.bincount(tensor, minlength=SIZE), "1.15", "2", 11),
        ("np.bincount", lambda: np.bincount(ids, minlength=SIZE), "15", "", 5),
    ]
    for name, call, goal, goal_of_two, rounds in opponents:
        rows += compare(
            "vocabulary", f"count {case}", (name, call), (*one, goal), (*two, goal_of_two),
            rounds=rounds, repeats=3,
        )  # fmt: skip
    if case == CASE:
        name = f"authors' loop, scaled from {PART} ids"
        part = compare(
            "vocabulary", f"count {case}", (name, lambda: authors.count_ids([ids[:PART]])),
            (*one, "300"), (*two, ""), rounds=5, repeats=3,
        )  # fmt: skip
        rows += [scale(row, COUNT // PART) for row in part]
    return rows


def remap_rows(ids: NDArray[np.int32], table: NDArray[np.int64], case: str) -> list[Row]:
    """Times remapping: bounds checked, and ids without a new one counted in the same pass."""
    out, narrow = np.empty(COUNT, np.int32), np.empty(COUNT, np.uint16)
    small = table % 65_536
    new = table.astype(np.int32)
    kept = np.empty(COUNT, np.int32)
    ours = [
        ("int32, 1 thread", lambda: remap_ids(ids, table, out=out, threads=1), "1.5"),
        ("int32, 2 threads", lambda: remap_ids(ids, table, out=out, threads=2), "2.7"),
        ("uint16, 1 thread", lambda: remap_ids(ids, small, out=narrow, threads=1), ""),
        ("uint16, 2 threads", lambda: remap_ids(ids, small, out=narrow, threads=2), ""),
    ]
    opponents: list[tuple[str, Callable[[], Any]]] = [
        ("np.take", lambda: np.take(new, ids, out=kept, mode="clip"))
    ]
    try:
        import pyarrow
    except ModuleNotFoundError:
        print("pyarrow is not installed: pip install pyarrow")
    else:
        values, places = pyarrow.array(new), pyarrow.array(ids)
        opponents.insert(0, ("pyarrow.take", lambda: values.take(places)))
    rows = []
    for name, call in opponents:
        goals = [goal if name == "pyarrow.take" else "" for *_, goal in ours]
        timed = [
            (own, call_own, goal) for (own, call_own, _), goal in zip(ours, goals, strict=True)
        ]
        rows += compare(
            "vocabulary", f"remap {case}", (name, call), *timed, rounds=7, repeats=3
        )  # fmt: skip
    return rows


def rank_rows(ids: NDArray[np.int32]) -> list[Row]:
    """Times ranking."""
    counts = count_ids(ids, SIZE).counts
    return compare(
        "vocabulary", f"rank {SIZE} counts",
        ("np.argsort, stable", lambda: np.argsort(-counts, kind="stable")),
        ("lmcore", lambda: rank_ids(counts), ""),
        rounds=15,
    )  # fmt: skip


def main() -> None:
    """Runs all cases."""
    print_conditions()
    torch.set_num_threads(1)
    table = np.random.default_rng(1).permutation(SIZE)
    rows: list[Row] = []
    for is_shuffled, case in ((False, CASE), (True, f"{CASE}, frequent ones anywhere")):
        ids = make_ids(is_shuffled)
        if not is_shuffled:
            check(ids, table)
            rows += rank_rows(ids)
        rows += [*count_rows(ids, case), *remap_rows(ids, table, case)]
    save("vocabulary", rows)


if __name__ == "__main__":
    main()
