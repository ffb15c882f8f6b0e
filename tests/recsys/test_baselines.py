"""Popularity and item-kNN against plain definitions, and lists of best items."""

import tracemalloc
from itertools import pairwise
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.recsys import baselines
from lmcore.recsys.baselines import BASELINES, ItemKNN, Popularity, make_baseline
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import Split, leave_one_out, make_interactions, make_split
from lmcore.recsys.evaluation import evaluate, evaluate_baselines
from lmcore.recsys.lists import ListMeter, find_best
from lmcore.recsys.metrics import measure_ranks, parse_metric
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.recommendation import recommend
from lmcore.recsys.rules import SplitRule

ITEMS = 30


def make_data(seed: int = 0, users: int = 50, items: int = ITEMS) -> Split:
    """Users with 1 to 12 items, some of them had twice; items near each other go together."""
    source = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        steps = source.integers(0, 6, source.integers(1, 13)).cumsum() + source.integers(0, items)
        rows.append(steps % items + 1)
    return leave_one_out(make_interactions(np.cumsum([0, *map(len, rows)]), np.hstack(rows), items))


def take_training(data: Split) -> list[list[int]]:
    bounds = data.train_offsets
    return [
        (data.train_items[bounds[u] : bounds[u + 1]] - 1).tolist() for u in range(data.user_count)
    ]


def score_plainly(
    data: Split, histories: list[list[int]], neighbours: int, shrinkage: float
) -> NDArray[np.float64]:
    """The definition, on a whole matrix of similarities."""
    having = np.zeros((data.user_count, data.item_count))
    for user, row in enumerate(take_training(data)):
        having[user, row] = 1
    common, sizes = having.T @ having, having.sum(0)
    similarity = common / (np.sqrt(np.outer(sizes, sizes)) + shrinkage + (common == 0))
    np.fill_diagonal(similarity, 0)
    for item in range(data.item_count):
        order = np.argsort(-similarity[:, item], kind="stable")
        similarity[order[neighbours:], item] = 0
    return np.stack([similarity[sorted(set(row))].sum(0) for row in histories])


@pytest.mark.parametrize("neighbours", [1, 3, 100])
@pytest.mark.parametrize("shrinkage", [0.0, 10.0])
@pytest.mark.parametrize("pairs", [1, 50, 1 << 22])
@pytest.mark.parametrize("sparse", [0, 1 << 40])
def test_item_knn(
    neighbours: int, shrinkage: float, pairs: int, sparse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "_PAIRS", pairs)  # one item at a time, some, all
    monkeypatch.setattr(baselines, "_SPARSE", sparse)  # pairs sorted, or counted in cells
    data = make_data()
    offsets, columns = data.history("test")
    histories = [columns[a:b].tolist() for a, b in pairwise(offsets)]
    knn = ItemKNN(data, neighbours=neighbours, shrinkage=shrinkage)
    found = knn.score(offsets, columns)
    expected = score_plainly(data, histories, neighbours, shrinkage)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)
    assert (found > 0).any()
    assert knn.item_count == ITEMS


def test_item_knn_of_a_large_catalogue(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks are as many as the pairs need, not I * I of them; a score looks at its entries alone.

    With a million items they were a quarter of a million blocks, each as long as the training part.
    """
    items = 20_000
    data = leave_one_out(make_interactions(np.arange(0, items + 1, 10), np.arange(items) + 1))
    sort = mock.Mock(wraps=np.lexsort)
    monkeypatch.setattr(np, "lexsort", sort)
    knn = ItemKNN(data)
    assert sort.call_count == 2  # a block, and the entries by their items
    offsets, columns = np.array([0, 3]), np.arange(3)
    tracemalloc.start()
    try:
        scores = knn.score(offsets, columns)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert np.count_nonzero(scores) == 8
    assert peak < 4 * scores.nbytes  # all entries' places would be seven times as much


def test_the_order_of_a_history_does_not_matter() -> None:
    """Sums of floats do depend on it: the same items must have the very same scores."""
    knn = ItemKNN(make_data(3), shrinkage=0)
    items = np.arange(12)
    expected = knn.score(np.array([0, 12]), items)
    for seed in range(5):
        shuffled = np.random.default_rng(seed).permutation(np.append(items, items[:4]))
        assert np.array_equal(knn.score(np.array([0, 16]), shuffled), expected)


def test_baselines_know_the_training_part_alone() -> None:
    first = make_interactions([0, 4, 8], [1, 2, 3, 4, 1, 2, 5, 6], 7)
    other = make_interactions([0, 4, 8], [1, 2, 6, 5, 1, 2, 4, 3], 7)
    for name in BASELINES:
        one, two = (make_baseline(name, leave_one_out(rows)) for rows in (first, other))
        history = np.array([0, 1]), np.array([0])
        assert np.array_equal(one.score(*history), two.score(*history))
    counts = Popularity(leave_one_out(first)).score(np.array([0, 0, 0]), np.zeros(0, np.int64))
    assert counts.tolist() == [[2.0, 2, 0, 0, 0, 0, 0]] * 2


def test_data_with_little_in_them() -> None:
    empty = leave_one_out(make_interactions([0], [], 0))
    assert ItemKNN(empty).score(np.array([0]), np.zeros(0, np.int64)).shape == (0, 0)
    alone = leave_one_out(make_interactions([0, 0, 1], [2], 3))
    knn = ItemKNN(alone)
    assert knn.score(np.array([0, 0, 1]), np.array([1])).tolist() == [[0.0] * 3] * 2


def test_refusals() -> None:
    data = make_data()
    with pytest.raises(ValueError, match="a baseline must be one of popularity, item-knn"):
        make_baseline("random", data)
    with pytest.raises(ValueError, match="neighbours must be from 1"):
        ItemKNN(data, neighbours=0)
    for wrong in (-1.0, np.nan, np.inf):
        with pytest.raises(ValueError, match="shrinkage must be at least 0"):
            ItemKNN(data, shrinkage=wrong)
    with pytest.raises(ValueError, match="the model has 30 items and the data 31"):
        evaluate(Popularity(data), make_data(items=31))


# Evaluation.


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("split", ["valid", "test"])
def test_evaluation_of_baselines(name: str, split: str) -> None:
    data = make_data()
    baseline = make_baseline(name, data)
    rows, (offsets, seen) = data.sequences(split, 3), data.history(split)
    ranks = []
    for user, target in enumerate(rows.targets - 1):
        known = seen[offsets[user] : offsets[user + 1]]
        [scores] = baseline.score(np.array([0, len(known)]), known)
        rivals = np.delete(scores, [*known, target])
        above, equal = (rivals > scores[target]).sum(), (rivals == scores[target]).sum()
        ranks.append(above + equal / 2)
    found = evaluate(baseline, data, split=split, block=7, metrics=["HR@5", "MRR", "Coverage@2"])
    assert found.metrics["HR@5"] == pytest.approx(np.mean(np.array(ranks) < 5))
    assert found.metrics["MRR"] == pytest.approx(np.mean(1 / (np.array(ranks) + 1)))
    whole = evaluate_baselines(data, split=split, metrics=["HR@5", "MRR", "Coverage@2"])
    assert whole[name] == found
    sampled = evaluate(baseline, data, split=split, protocol="sampled")
    assert sampled.users == found.users
    assert sampled == evaluate(baseline, data, split=split, protocol="sampled", block=3)


@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_baselines_score_few_users_of_a_large_catalogue_at_a_time(protocol: str) -> None:
    """They score all items for a few candidates too: 1,024 users of a million were 8 GB."""
    users, items = 200, 100_000
    data = leave_one_out(
        make_interactions(np.arange(users + 1) * 3, np.arange(users * 3) + 1, items)
    )
    model = Popularity(data)
    with mock.patch.object(model, "score", wraps=model.score) as score:
        assert evaluate(model, data, protocol=protocol, candidates=9).users == users
    assert max(len(call.args[0]) - 1 for call in score.call_args_list) == 64


def test_several_targets_of_a_user() -> None:
    """Each is a candidate for the others, also one that the user had before."""
    rows = make_interactions([0, 6, 11], [1, 2, 3, 2, 4, 5, 5, 4, 6, 1, 2], 9)
    ends = rows.offsets[1:]
    data = make_split(rows, ends - 3, ends - 3, SplitRule())
    model = Popularity(data)  # items 1 to 5 once, but for 2, 4 and 5
    scores = model.score(np.array([0, 0]), np.zeros(0, np.int64))[0]
    names = ["Recall@2", "Precision@2", "NDCG@2", "MAP@2", "MRR", "HR@1"]
    for block in (1, 2, None):
        found = evaluate(model, data, metrics=names, ties="optimistic", block=block)
        ranks, offsets = [], [0]
        for user, known in enumerate(([1, 2, 3], [5, 4])):
            bounds = data.test_targets.offsets[user : user + 2]
            targets = data.test_targets.items[bounds[0] : bounds[1]].tolist()
            kept = [i for i in range(1, 10) if i not in known or i in targets]
            # Before items of the same score, and targets among themselves in any order.
            order = sorted(kept, key=lambda i: (-scores[i - 1], i not in targets))
            ranks += [float(order.index(i)) for i in targets]
            offsets.append(len(ranks))
        expected = measure_ranks([parse_metric(n) for n in names], ranks, offsets)
        assert found.metrics == pytest.approx(expected)
        assert found.users == 2
    with pytest.raises(ValueError, match="protocol sampled ranks one target of each user"):
        evaluate(model, data, protocol="sampled")


class LowIdsFirst:
    """A baseline of one's own, whose scores differ but for the last two items."""

    item_count = 9

    def score(self, offsets: NDArray[np.int64], columns: NDArray[np.int64]) -> NDArray[np.float64]:
        scores = -np.arange(1.0, 10)
        scores[-1] = scores[-2]
        return np.tile(scores, (len(offsets) - 1, 1))


def test_a_target_that_was_had_before_stands_before_the_others() -> None:
    """Where all scores are equal, as in the test above, nobody sees whether it is a candidate."""
    rows = make_interactions([0, 6, 11], [1, 2, 3, 2, 4, 5, 1, 2, 8, 9, 3], 9)
    ends = rows.offsets[1:]
    data = make_split(rows, ends - 3, ends - 3, SplitRule())
    found = evaluate(LowIdsFirst(), data, metrics=["Recall@1", "Recall@2", "MRR"])
    # Ranks 0, 1 and 2 of 2, 4 and 5; 0 of 3, and the last two places of 8 and 9.
    assert found.metrics == pytest.approx({"Recall@1": 1 / 3, "Recall@2": 1 / 2, "MRR": 1})
    assert found.ties == 1  # a user, not each of her two targets


# Lists.


def find_plainly(row: list[float], out: list[int], count: int) -> list[int]:
    kept = [column for column in range(len(row)) if column not in out]
    return sorted(kept, key=lambda column: (-row[column], column))[:count]


@given(st.data())
def test_the_best_items(data: st.DataObject) -> None:
    width = data.draw(st.sampled_from([1, 2, 5, 33]))
    values = st.sampled_from([0.0, -0.0, 1.0, 2.5, -3.0, np.inf, -np.inf])
    row = st.lists(values, min_size=width, max_size=width)
    rows = data.draw(st.lists(row, min_size=1, max_size=4))
    columns = st.lists(st.integers(0, width - 1), max_size=width + 2)
    out = [data.draw(columns) for _ in rows]
    count = data.draw(st.integers(1, width + 2))
    scores = torch.tensor(rows, dtype=data.draw(st.sampled_from([torch.float32, torch.float64])))
    before = scores.clone()
    offsets = np.cumsum([0, *map(len, out)])
    excluded = np.array([column for known in out for column in known], dtype=np.int64)
    found = find_best(scores, offsets, excluded, count)
    assert torch.equal(scores, before)
    assert found.shape == (len(rows), min(count, width))
    for values_, known, best in zip(rows, out, found.tolist(), strict=True):
        expected = find_plainly(values_, known, count)
        assert best == expected + [-1] * (len(best) - len(expected))


def test_lists_are_those_of_recommend() -> None:
    """The same items, and so the same coverage and popularity, in blocks of any size."""
    data = make_data(2)
    torch.manual_seed(0)
    model = SASRecModel(SASRecConfig(item_count=ITEMS, max_length=5, hidden_size=8))
    users = data.sequences("test", 5).users
    offsets, columns = data.history("test")
    inputs = make_interactions(offsets, columns + 1, ITEMS)
    lists = [[int(item) for item, _ in one.items] for one in recommend(model, inputs, count=4)]
    assert len(lists) == len(users)
    counts = np.bincount(data.train_items, minlength=ITEMS + 1)
    having = [{item + 1 for item in row} for row in take_training(data)]
    novelty = [
        np.log2(len([h for h in having if h]) / max(1, sum(i in h for h in having)))
        for i in range(ITEMS + 1)
    ]
    expected = {
        "Coverage@4": len({item for row in lists for item in row}) / ITEMS,
        "Coverage@2": len({item for row in lists for item in row[:2]}) / ITEMS,
        "Popularity@4": np.mean([counts[row].mean() for row in lists]),
        "Novelty@2": np.mean([np.mean([novelty[item] for item in row[:2]]) for row in lists]),
    }
    for block in (1, 7, None):
        found = evaluate(model, data, metrics=list(expected), block=block)
        assert found.metrics == pytest.approx(expected)


def test_a_user_for_whom_nothing_is_left() -> None:
    data = leave_one_out(make_interactions([0, 2, 4], [1, 2, 1, 3], 4))
    meter = ListMeter([parse_metric("Popularity@2"), parse_metric("Coverage@2")], data)
    meter.add(np.array([[0, -1], [-1, -1]]))
    assert meter.result() == {"Popularity@2": 2.0, "Coverage@2": 0.25}
    meter.add(np.array([[1, 2]]))
    assert meter.result() == {"Popularity@2": 1.5, "Coverage@2": 0.75}


def test_scores_are_floats_where_no_item_has_a_neighbour() -> None:
    """Numpy counts without entries in whole numbers, which cannot be ranked."""
    data = leave_one_out(make_interactions([0, 3, 6], [1, 2, 3, 3, 2, 1]))
    scores = ItemKNN(data).score(np.array([0, 1]), np.array([0]))
    assert scores.dtype == np.float64
    assert scores.tolist() == [[0.0, 0.0, 0.0]]
