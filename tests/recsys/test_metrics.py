"""Metrics by name, against ranx and RecTools, and their laws."""

from typing import Any, NamedTuple

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops.ranking import TIES, ranking_metrics
from lmcore.recsys.data import leave_one_out, make_interactions
from lmcore.recsys.lists import ListMeter
from lmcore.recsys.metrics import (
    DEFAULT_METRICS,
    METRIC_KINDS,
    RANK_KINDS,
    Metric,
    choose_metrics,
    find_validated,
    measure_ranks,
    parse_metric,
    spread_ties,
)

USERS, ITEMS = 40, 60
CUTOFFS = (1, 3, 5, 10, 20)

# RecTools 0.19.0 on `make_case()`, with `NDCG(divide_by_achievable=True)` and
# `CatalogCoverage(normalize=True)`; all else as it is by default.
RECTOOLS = {
    "HR@3": 0.125, "Recall@3": 0.041249999999999995, "Precision@3": 0.041666666666666664,
    "NDCG@3": 0.05432992037642229, "MAP@3": 0.03166666666666666, "MRR@3": 0.09583333333333333,
    "Coverage@3": 0.9166666666666666, "Popularity@3": 2.85, "Novelty@3": 4.0403746975951575,
    "HR@10": 0.425, "Recall@10": 0.16666666666666666, "Precision@10": 0.057499999999999996,
    "NDCG@10": 0.11383434839599564, "MAP@10": 0.05974404761904761, "MRR@10": 0.1512797619047619,
    "Coverage@10": 1.0, "Popularity@10": 2.8875, "Novelty@10": 3.988063450477356,
}  # fmt: skip


class Case(NamedTuple):
    """Lists of all items, and users with 1 to 5 targets."""

    lists: NDArray[np.int64]
    offsets: NDArray[np.int64]
    targets: NDArray[np.int64]
    ranks: NDArray[np.float64]
    history: list[NDArray[np.int64]]


def make_case() -> Case:
    source = np.random.default_rng(7)
    counts = source.integers(1, 6, USERS)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    lists = np.stack([source.permutation(ITEMS) for _ in range(USERS)])
    targets = np.concatenate([source.choice(ITEMS, n, replace=False) for n in counts])
    owners = np.repeat(np.arange(USERS), counts)
    ranks = lists.argsort(1)[owners, targets].astype(np.float64)
    lengths = source.integers(1, 9, USERS)
    history = [np.sort(source.choice(ITEMS, n, replace=False)) for n in lengths]
    return Case(lists, offsets, targets, ranks, history)


def parse(names: Any) -> list[Metric]:
    return [parse_metric(name) for name in names]


# Others' numbers.


def test_metrics_are_those_of_rectools() -> None:
    case = make_case()
    metrics = parse(RECTOOLS)
    found = measure_ranks([m for m in metrics if not m.is_of_lists], case.ranks, case.offsets)
    rows = [[*(items + 1).tolist(), 1, 1] for items in case.history]
    # What follows the history is for validation and test: two more items of each user.
    offsets = np.cumsum([0, *map(len, rows)])
    meter = ListMeter(metrics, leave_one_out(make_interactions(offsets, np.hstack(rows), ITEMS)))
    for start in range(0, USERS, 7):
        meter.add(case.lists[start : start + 7, : meter.count])
    found |= meter.result()
    assert set(found) == set(RECTOOLS)
    for name, value in RECTOOLS.items():
        assert found[name] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("several", [True, False])
def test_metrics_are_those_of_ranx(several: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Compiling it would take longer than all other tests of this file.
    monkeypatch.setattr(numba.config, "DISABLE_JIT", True)
    from ranx import Qrels, Run, evaluate

    case = make_case()
    first = case.offsets[:-1]
    ranks, targets, offsets = case.ranks, case.targets, case.offsets
    if not several:
        ranks, targets, offsets = ranks[first], targets[first], np.arange(USERS + 1)
    run = {
        f"u{user}": {f"i{item}": float(ITEMS - place) for place, item in enumerate(row)}
        for user, row in enumerate(case.lists)
    }
    relevant = {
        f"u{user}": {f"i{item}": 1 for item in targets[offsets[user] : offsets[user + 1]]}
        for user in range(USERS)
    }
    called = ("hit_rate", "recall", "precision", "ndcg", "map", "mrr")
    theirs = dict(zip(RANK_KINDS, called, strict=True))
    names = {f"{ours}@{k}": f"{name}@{k}" for ours, name in theirs.items() for k in CUTOFFS}
    names["MRR"] = "mrr"
    expected = evaluate(Qrels(relevant), Run(run), list(names.values()))
    found = measure_ranks(parse(names), ranks, offsets)
    for ours, name in names.items():
        assert found[ours] == pytest.approx(expected[name], rel=1e-12), ours


# Laws.

ranks_of_users = st.lists(
    st.lists(st.integers(0, 30), min_size=1, max_size=6, unique=True), min_size=1, max_size=8
)


@given(ranks_of_users, st.integers(1, 40))
def test_metrics_of_several_targets(rows: list[list[int]], cutoff: int) -> None:
    """A worked definition, one user at a time."""
    offsets = np.cumsum([0, *map(len, rows)])
    flat = [float(rank) for row in rows for rank in row]
    names = [f"{kind}@{cutoff}" for kind in RANK_KINDS]
    found = measure_ranks(parse(names), flat, offsets)
    sums = dict.fromkeys(names, 0.0)
    for row in rows:
        hits = sorted(rank for rank in row if rank < cutoff)
        ideal = sum(1 / np.log2(place + 2) for place in range(min(len(row), cutoff)))
        values = [
            float(bool(hits)),
            len(hits) / len(row),
            len(hits) / cutoff,
            sum(1 / np.log2(rank + 2) for rank in hits) / ideal,
            sum((n + 1) / (rank + 1) for n, rank in enumerate(hits)) / len(row),
            1 / (hits[0] + 1) if hits else 0.0,
        ]
        for name, value in zip(names, values, strict=True):
            sums[name] += value / len(rows)
    assert found == pytest.approx(sums, rel=1e-9, abs=1e-12)
    assert all(0 <= value <= 1 + 1e-12 for value in found.values())


@given(st.lists(st.integers(0, 60).map(lambda n: n / 2), min_size=1, max_size=30))
def test_one_target_of_each_user(ranks: list[float]) -> None:
    """Recall is HR, MAP is MRR, and the usual metrics are the op's, to the bit."""
    names = [*DEFAULT_METRICS, "Recall@5", "Precision@5", "MAP@5", "MRR@5"]
    found = measure_ranks(parse(names), ranks)
    op = ranking_metrics(ranks, (1, 5, 10))
    assert {name: found[name] for name in DEFAULT_METRICS} == {n: op[n] for n in DEFAULT_METRICS}
    assert found["Recall@5"] == found["HR@5"]
    assert found["MAP@5"] == found["MRR@5"]
    assert found["Precision@5"] == pytest.approx(found["HR@5"] / 5)
    assert measure_ranks(parse(names), ranks, np.arange(len(ranks) + 1)) == found


@given(st.lists(st.integers(0, 3), min_size=1, max_size=9), st.data())
def test_ties_of_a_user_are_spread(scores: list[int], data: st.DataObject) -> None:
    """Every order of equal scores, and what the targets' places are in it."""
    count = data.draw(st.integers(1, len(scores)))
    values = np.array(scores)
    first = (values[None, :] > values[:, None]).sum(1)
    ties = (values[None, :] == values[:, None]).sum(1) - 1
    offsets, shares = np.array([0, count]), {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}
    for rule in TIES:
        ranks = (first + shares[rule] * ties)[:count]
        spread = spread_ties(ranks, ties[:count], offsets, rule=rule)
        assert len(set(spread.tolist())) == count
        for value in set(scores[:count]):
            group = values[:count] == value
            low, size = first[:count][group][0], ties[:count][group][0] + 1
            assert low <= spread[group].min()
            assert spread[group].max() <= low + size - 1
            if rule == "average":
                # The places of all targets have the mean of the places there are.
                assert spread[group].mean() == pytest.approx(low + (size - 1) / 2)
                if group.sum() == 1:
                    assert spread[group].tolist() == ranks[group].tolist()
            else:
                shift = 0 if rule == "optimistic" else size - group.sum()
                expected = [low + shift + n for n in range(group.sum())]
                assert sorted(spread[group].tolist()) == expected


def test_precision_stays_below_one_where_targets_tie() -> None:
    ranks, ties, offsets = np.array([0.5, 0.5]), np.array([1, 1]), np.array([0, 2])
    assert measure_ranks(parse(["Precision@1"]), ranks, offsets)["Precision@1"] == 2
    spread = spread_ties(ranks, ties, offsets)
    assert measure_ranks(parse(["Precision@1"]), spread, offsets)["Precision@1"] == 1


# Names.


@pytest.mark.parametrize("kind", METRIC_KINDS)
def test_names(kind: str) -> None:
    metric = parse_metric(f"{kind}@7")
    assert (metric.kind, metric.cutoff, metric.name) == (kind, 7, f"{kind}@7")
    assert parse_metric(metric.name) == metric
    for given_name in (kind.lower(), kind.upper(), f"{kind}x", f"{kind.lower()}_"):
        if given_name not in METRIC_KINDS:
            with pytest.raises(ValueError, match=rf"the nearest is {kind}@7$"):
                parse_metric(f"{given_name}@7")


@pytest.mark.parametrize(
    ("text", "nearest"),
    [
        ("hit_rate@5", "HR@5"), ("prec@3", "Precision@3"), ("recal@3", "Recall@3"),
        ("mrr", "MRR"), ("ndcg", "NDCG@10"), ("NDCG @10", "NDCG@10"), ("HR@05", "HR@5"),
        ("HR@5.0", "HR@10"), ("arp@9", "Popularity@9"), ("HR@1_0", "HR@10"), ("NDCG@", "NDCG@10"),
        ("cov@4", "Coverage@4"), ("HR@\u0665", "HR@10"),
    ],
)  # fmt: skip
def test_the_nearest_name(text: str, nearest: str) -> None:
    with pytest.raises(ValueError, match=rf"^there is no metric .*: the nearest is {nearest}$"):
        parse_metric(text)


def test_no_name_is_near() -> None:
    for text in ("AUC", "@", "@5", "", "x" * 10**6):
        with pytest.raises(ValueError, match=r"use HR@K, Recall@K, .* or MRR$") as caught:
            parse_metric(text)
        assert len(str(caught.value)) < 250
    with pytest.raises(TypeError, match="a metric must be a text: got 5"):
        parse_metric(5)  # type: ignore[arg-type]


def test_chosen_metrics() -> None:
    assert [m.name for m in choose_metrics(None, 3)] == list(DEFAULT_METRICS)
    with pytest.raises(ValueError, match="K of HR@10 must be at most the 3 items there are"):
        choose_metrics(["HR@10"], 3)
    with pytest.raises(TypeError, match=r"metrics must be a list of names: got 'MRR'"):
        choose_metrics("MRR", 3)
    assert find_validated("HR@10", 3) is None
    assert find_validated("MAP@3", 6) == ["HR@1", "HR@5", "NDCG@5", "MRR", "MAP@3"]


def test_ranks_that_cannot_be() -> None:
    hit = parse(["HR@1"])
    for ranks, offsets, text in (
        ([], [0], "length of ranks"),
        ([-1.0], None, "ranks"),
        ([np.nan], None, "ranks"),
        ([0.0, 1.0], [0, 2, 2], "each user must have a target: row 1 has none"),
        ([0.0, 1.0], [0, 1], "offsets must go from 0 to the 2 ranks"),
    ):
        with pytest.raises(ValueError, match=text):
            measure_ranks(hit, ranks, offsets)
    with pytest.raises(ValueError, match="Coverage@5 is not measured by ranks"):
        measure_ranks(parse(["Coverage@5"]), [0.0])
