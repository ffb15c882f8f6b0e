"""Item-kNN: the nearest neighbours of all items against a product of sparse matrices by scipy."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from inputs import interactions
from lmcore.recsys.baselines import ItemKNN
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate_baselines
from lmcore.recsys.reading import read_interactions
from timing import compare, print_conditions, save

# Beauty 5-core.
USERS, ITEMS, SHORTEST, MEAN = 22_363, 12_101, 5, 8.9
NEIGHBOURS, SHRINKAGE = 100, 30.0


def load() -> tuple[str, Split]:
    """Beauty 5-core where `LMCORE_DATA` names its folder, else generated histories like it."""
    folder = os.environ.get("LMCORE_DATA")
    if folder:
        path = Path(folder, "recsys", "Beauty_5core_pairs.txt")
        return "Beauty 5-core", leave_one_out(read_interactions(path))
    offsets, items = interactions(USERS, ITEMS, SHORTEST, MEAN)
    name = f"{USERS:,} users x {ITEMS:,} items"
    return name, leave_one_out(make_interactions(offsets, items, ITEMS))


def multiply(data: Split) -> sparse.csr_matrix:
    """Similarities by scipy, and then the nearest of each item, one after the other."""
    shape = data.user_count, data.item_count
    values = np.ones(len(data.train_items))
    having = sparse.csr_matrix((values, data.train_items - 1, data.train_offsets), shape)
    having.sum_duplicates()
    having.data[:] = 1
    sizes = np.asarray(having.sum(0)).ravel()
    common = (having.T @ having).tocsr()
    rows: list[Any] = []
    for item in range(data.item_count):
        part = slice(common.indptr[item], common.indptr[item + 1])
        columns, counts = common.indices[part], common.data[part]
        columns, counts = columns[columns != item], counts[columns != item]
        similarity = counts / (np.sqrt(sizes[columns] * sizes[item]) + SHRINKAGE)
        order = np.lexsort((columns, -similarity))[:NEIGHBOURS]
        rows.append((columns[order], similarity[order]))
    offsets = np.cumsum([0, *(len(columns) for columns, _ in rows)])
    columns, similarity = (np.concatenate(parts) for parts in zip(*rows, strict=True))
    # Row: an item; column: one of its neighbours.
    return sparse.csr_matrix((similarity, columns, offsets), (shape[1], shape[1]))


def check(data: Split) -> None:
    """Asserts that both score histories alike."""
    knn = ItemKNN(data, neighbours=NEIGHBOURS, shrinkage=SHRINKAGE)
    offsets, columns = data.history("test")
    offsets = offsets[:1001]
    columns = columns[: offsets[-1]]
    histories = sparse.csr_matrix(
        (np.ones(len(columns)), columns, offsets), (len(offsets) - 1, data.item_count)
    )
    histories.sum_duplicates()
    histories.data[:] = 1
    expected = (histories @ multiply(data).T.tocsr()).toarray()
    np.testing.assert_allclose(knn.score(offsets, columns), expected, rtol=1e-12, atol=1e-15)


def main() -> None:
    """Prints and saves the rows."""
    print_conditions()
    name, data = load()
    check(data)
    rows = compare(
        "baselines",
        f"the 100 nearest items of each: {name}",
        ("scipy's product and a sort of each row", lambda: multiply(data)),
        ("ItemKNN", lambda: ItemKNN(data, neighbours=NEIGHBOURS, shrinkage=SHRINKAGE), ""),
        rounds=5,
        repeats=1,
    )
    rows += compare(
        "baselines",
        f"both baselines, the usual metrics against metrics of lists too: {name}",
        (
            "with Coverage@10",
            lambda: evaluate_baselines(data, metrics=["NDCG@10", "Coverage@10"], threads=1),
        ),
        ("the usual six", lambda: evaluate_baselines(data, threads=1), ""),
        rounds=3,
        repeats=1,
    )
    save("baselines", rows)


if __name__ == "__main__":
    main()
