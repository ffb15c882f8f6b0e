"""Full-catalogue ranking against the authors' loop, and against sorting and counting.

The authors rank among 101 candidates, one user at a time; lmcore ranks the same users among all
12,101 items with the same weights.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import authors_ranking
from authors_ranking import Dataset
from authors_training import SASRec
from lmcore.ops.philox import random_below, random_uniform
from lmcore.ops.ranking import Ranks, rank_targets, ranking_metrics
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.scoring import iterate_features
from timing import compare, is_full, print_conditions, save

# Beauty 5-core.
USERS, ITEMS = 22_363, 12_101
LENGTH = 50


def make_dataset(users: int) -> Dataset:
    """Returns histories with the lengths of Beauty: 5 and more, 8.9 in the mean."""
    lengths = 5 + (-3.4 * np.log1p(-random_uniform(1, 0, range(users), 1)[:, 0])).astype(np.int64)
    train, valid, test = {}, {}, {}
    for user in range(1, users + 1):
        items = 1 + random_below(1, 1, user, int(lengths[user - 1]), ITEMS).astype(np.int64)
        *train[user], valid[user], test[user] = [[i] for i in items.tolist()]
        train[user] = [item for (item,) in train[user]]
    return train, valid, test, users, ITEMS


def split(dataset: Dataset) -> Split:
    """Returns the same histories in lmcore's form."""
    train, valid, test, users, items = dataset
    rows = [[*train[user], *valid[user], *test[user]] for user in range(1, users + 1)]
    offsets = np.cumsum([0, *map(len, rows)])
    return leave_one_out(make_interactions(offsets, np.concatenate(rows), items))


def check(ours: SASRecModel, theirs: SASRec, dataset: Dataset) -> None:
    """Asserts their ranks among their candidates, and the full ranks of a plain computation."""
    data = split(dataset)
    metrics, ranks, candidates = authors_ranking.evaluate(theirs, dataset, LENGTH)
    users, sequences, targets, _ = data.sequences("test", LENGTH)
    features = torch.cat([part for _, part in iterate_features(ours, sequences, 256)])
    scores = ours.score_items(features, torch.tensor(candidates))
    found = rank_targets(scores, np.zeros(len(users), np.int64))
    # A batch may round scores otherwise than a single row, and their sort orders ties by chance.
    assert np.mean(np.abs(found.ranks - ranks) < 1) > 0.99
    mine = ranking_metrics(found.ranks)
    assert all(abs(mine[name] - value) < 5e-3 for name, value in metrics.items())
    full = ours.score_catalogue(features).numpy()
    own = full[np.arange(len(users)), targets - 1]
    offsets, columns = data.history("test")
    rows = np.repeat(np.arange(len(users)), np.diff(offsets))
    kept = columns != targets[rows] - 1
    full[rows[kept], columns[kept]] = -np.inf
    expected = ranking_metrics((full > own[:, None]).sum(1).astype(np.float64))
    got = evaluate(ours, data, ties="optimistic").metrics
    assert all(abs(value - expected[name]) < 1e-3 for name, value in got.items())


def compare_evaluations(users: int, rounds: int) -> list[Any]:
    """Times the authors' loop against `lmcore.recsys.evaluate`, with the same weights."""
    torch.set_num_threads(1)
    torch.manual_seed(1)
    ours = SASRecModel(SASRecConfig(item_count=ITEMS, max_length=LENGTH)).eval()
    theirs = SASRec(ITEMS, LENGTH).eval()
    theirs.load_state_dict(ours.state_dict())
    check(ours, theirs, make_dataset(min(users, 1_000)))
    dataset = make_dataset(users)
    data = split(dataset)

    def authors() -> Any:
        torch.set_num_threads(1)
        return authors_ranking.evaluate(theirs, dataset, LENGTH)

    def rank(protocol: str, threads: int) -> Any:
        torch.set_num_threads(threads)
        return evaluate(ours, data, protocol=protocol, threads=threads)

    count = f"{users:,} users" if users <= 10_000 else "10,000 users, as theirs takes at most"
    return compare(
        "ranking",
        f"evaluation of {users:,} users x {ITEMS:,} items with SASRec",
        (f"authors' loop: {count}, 101 candidates", authors),
        ("all items, 1 thread", lambda: rank("full", 1), ""),
        ("all items, 2 threads", lambda: rank("full", 2), "10"),
        ("101 candidates, 1 thread", lambda: rank("sampled", 1), ""),
        rounds=rounds,
        repeats=1,
    )


def compare_counts(users: int = 1_000) -> list[Any]:
    """Times ranking alone, on scores that are there."""
    source = np.random.default_rng(1)
    scores = source.standard_normal((users, ITEMS), dtype=np.float32)
    data = split(make_dataset(users))
    targets = data.test - 1
    offsets, excluded = data.history("test")
    rows = np.repeat(np.arange(users), np.diff(offsets))
    kept = excluded != targets[rows]
    rows, columns = rows[kept], excluded[kept]
    each = np.arange(users)

    def masked() -> NDArray[np.float32]:
        copy = scores.copy()
        copy[rows, columns] = -np.inf
        return copy

    def by_torch() -> NDArray[np.int64]:
        tensor = torch.from_numpy(masked())
        order = tensor.argsort(dim=1, descending=True).argsort(dim=1)
        return order[torch.from_numpy(each), torch.from_numpy(targets)].numpy()

    def by_numpy() -> NDArray[np.float64]:
        own = scores[each, targets][:, None]
        copy = masked()
        return (copy > own).sum(1) + ((copy == own).sum(1) - 1) / 2

    def by_numba() -> NDArray[np.float64]:
        return count_by_numba(scores, targets, offsets, excluded)

    def ours(threads: int) -> Ranks:
        return rank_targets(scores, targets, offsets, excluded, threads=threads)

    count_by_numba = compile_count()
    expected, ties = ours(1)
    for ranks in (by_numpy(), by_numba(), ours(2).ranks):
        assert np.array_equal(ranks, expected)
    untied = ties == 0
    assert untied.mean() > 0.9
    assert np.array_equal(by_torch()[untied], expected[untied])

    result = []
    for name, opponent in (
        ("torch argsort of argsort", by_torch),
        ("numpy counts, masked copy", by_numpy),
        ("numba, two counts a row", by_numba),
    ):
        result += compare(
            "ranking",
            f"ranks of {users:,} rows of {ITEMS:,} scores",
            (name, opponent),
            ("1 thread", lambda: ours(1), ""),
            ("2 threads", lambda: ours(2), ""),
        )
    return result


def compile_count() -> Any:
    """Returns counting in a compiled loop, which expects columns that are excluded once."""
    import numba

    @numba.njit
    def count(scores: Any, targets: Any, offsets: Any, excluded: Any) -> Any:
        ranks = np.empty(len(scores))
        for user in range(len(scores)):
            row, target = scores[user], targets[user]
            own, greater, equal = row[target], 0, -1
            for column in range(len(row)):
                greater += row[column] > own
                equal += row[column] == own
            history = np.unique(excluded[offsets[user] : offsets[user + 1]])
            for column in history:
                if column != target:
                    greater -= row[column] > own
                    equal -= row[column] == own
            ranks[user] = greater + equal / 2
        return ranks

    return count


def main() -> None:
    """Runs all cases."""
    print_conditions()
    with torch.no_grad():
        rows = compare_counts()
        rows += compare_evaluations(1_000, rounds=5)
        if is_full():
            rows += compare_evaluations(USERS, rounds=3)
    save("ranking", rows)


if __name__ == "__main__":
    main()
