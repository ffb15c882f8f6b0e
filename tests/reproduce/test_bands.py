"""Bands of items and users against the slow definition, and what of mined pairs is held out."""

import numpy as np
import pytest

from lmcore.ops.ranking import ranking_metrics
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.reproduce.recsys.bands import (
    band_items,
    band_users,
    check_held_out,
    find_ranks,
    make_bands,
    score_bands,
)

ITEMS = 30


@pytest.fixture
def data() -> Split:
    """Histories of 1 to 14 items, in which items come again; no two users are alike."""
    rng = np.random.default_rng(7)
    lengths = rng.integers(1, 15, 40)
    items = 1 + (rng.random(lengths.sum()) ** 2 * ITEMS).astype(int)
    return leave_one_out(make_interactions(np.r_[0, np.cumsum(lengths)], items, ITEMS))


@pytest.mark.parametrize("most", [1, 2, 5, 100])
@pytest.mark.parametrize("seed", range(5))
def test_bands_go_up_and_tear_no_count_apart(seed: int, most: int) -> None:
    counts = np.random.default_rng(seed).geometric(0.3, 50) - 1
    bands = make_bands(counts, most)
    number = len(bands.low)
    assert number <= most
    assert set(bands.of) == set(range(number))
    for band in range(number):
        assert bands.low[band] == counts[bands.of == band].min()
        assert bands.high[band] == counts[bands.of == band].max()
    assert all(high < low for high, low in zip(bands.high, bands.low[1:], strict=False))


def test_different_counts_make_equal_bands() -> None:
    counts = np.random.default_rng(0).permutation(50)
    assert np.bincount(make_bands(counts).of).tolist() == [10] * 5


def test_what_cannot_be_banded_raises() -> None:
    with pytest.raises(ValueError, match=r"^counts must not be empty"):
        make_bands(np.zeros(0, np.int64))
    with pytest.raises(ValueError, match=r"^most must be at least 1: got 0"):
        make_bands(np.ones(3, np.int64), 0)


def test_bands_count_the_training_part_alone(data: Split) -> None:
    items, users = band_items(data), band_users(data)
    for item in range(1, ITEMS + 1):
        band = items.of[item - 1]
        assert items.low[band] <= np.count_nonzero(data.train_items == item) <= items.high[band]
    for user in range(data.user_count):
        length = data.train_offsets[user + 1] - data.train_offsets[user]
        assert users.low[users.of[user]] <= length <= users.high[users.of[user]]


@pytest.mark.parametrize("split", ["valid", "test"])
def test_ranks_are_those_of_the_evaluation(data: Split, split: str) -> None:
    model = SASRecModel(SASRecConfig(item_count=ITEMS, max_length=6, hidden_size=8))
    users, targets, ranks = find_ranks(model, data, split)
    found = evaluate(model, data, split=split)
    assert len(users) == found.users
    held_out = data.valid if split == "valid" else data.test
    assert np.array_equal(held_out[users - 1], targets)
    metrics = ranking_metrics(ranks)
    assert {name: metrics[name] for name in found.metrics} == pytest.approx(found.metrics)


def test_bands_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(3)
    bands = make_bands(rng.permutation(20), 4)
    of = bands.of[rng.integers(0, 15, 200)]
    ranks = rng.integers(0, 30, 200).astype(np.float64)
    found = score_bands(ranks, of, bands)
    assert sum(found["targets"]) == 200
    parts = zip(found["targets"], found["NDCG@10"], strict=True)
    whole = sum(number * (value or 0) for number, value in parts) / 200
    assert whole == pytest.approx(ranking_metrics(ranks)["NDCG@10"])
    for band in range(4):
        hits = [rank < 10 for rank, at in zip(ranks, of, strict=True) if at == band]
        assert found["HR@10"][band] == pytest.approx(np.mean(hits))


@pytest.mark.parametrize("seed", range(3))
def test_shares_are_those_of_the_definition(data: Split, seed: int) -> None:
    """For each pair: is it held out, and how many of what could stand in its place are."""
    rng = np.random.default_rng(seed)
    bands = band_items(data, 3)
    train = [
        set(data.train_items[data.train_offsets[u] : data.train_offsets[u + 1]].tolist())
        for u in range(data.user_count)
    ]
    hidden = [
        {int(data.valid[u]), int(data.test[u])} - {0} - train[u] for u in range(data.user_count)
    ]
    free = [
        (u + 1, item)
        for u in range(data.user_count)
        for item in range(1, ITEMS + 1)
        if item not in train[u]
    ]
    held = [pair for pair in free if pair[1] in hidden[pair[0] - 1]]
    chosen = {*rng.choice(len(free), 60, replace=False)}
    pairs = sorted({*(free[at] for at in chosen), *held[::3]})
    expected: list[list[tuple[bool, float, float]]] = [[], [], []]
    for user, item in pairs:
        own = [i for i in range(1, ITEMS + 1) if i not in train[user - 1]]
        like = [i for i in own if bands.of[i - 1] == bands.of[item - 1]]
        is_hidden = hidden[user - 1]
        expected[bands.of[item - 1]].append(
            (
                item in is_hidden,
                sum(i in is_hidden for i in own) / len(own),
                sum(i in is_hidden for i in like) / len(like),
            )
        )
    found = check_held_out(np.array(pairs), data, bands)
    every = [entry for part in expected for entry in part]
    assert found["pairs"] == len(pairs)
    assert found["held_out"] == pytest.approx(np.mean([entry[0] for entry in every]))
    assert found["by_chance"] == pytest.approx(np.mean([entry[1] for entry in every]))
    for band, part in enumerate(expected):
        assert found["bands"][band] == {
            "low": bands.low[band],
            "high": bands.high[band],
            "pairs": len(part),
            "held_out": pytest.approx(np.mean([entry[0] for entry in part])),
            "by_chance": pytest.approx(np.mean([entry[2] for entry in part])),
        }


def test_chance_counts_what_can_be_drawn() -> None:
    """An item that a user has twice takes one place of the catalogue, not two."""
    # Of 10 items the first user trains on 2, and her test item is one of them; the second trains
    # on 3, and his held-out items are the same one.
    data = leave_one_out(make_interactions([0, 6, 11], [1, 2, 1, 1, 5, 2, 3, 4, 6, 7, 7], 10))
    found = check_held_out(np.array([[1, 5], [1, 8], [2, 7]]), data, band_items(data))
    assert found["pairs"] == 3
    assert found["held_out"] == pytest.approx(2 / 3)
    assert found["by_chance"] == pytest.approx((1 / 8 + 1 / 8 + 1 / 7) / 3)


def test_nothing_mined_has_no_share(data: Split) -> None:
    found = check_held_out(np.zeros((0, 2), np.int64), data, band_items(data))
    assert (found["pairs"], found["held_out"], found["by_chance"]) == (0, None, None)
    assert {part["pairs"] for part in found["bands"]} == {0}
