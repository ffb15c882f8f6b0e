"""Ranks of held-out items, models from files, and recommendations."""

import tracemalloc
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lmcore.ops.negatives import SequenceSampler
from lmcore.recsys import recommendation, scoring
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import Interactions, Split, leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.ids import IdMap
from lmcore.recsys.loading import load_model
from lmcore.recsys.metrics import DEFAULT_METRICS as METRICS
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.models import make_model
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.recommendation import recommend
from lmcore.recsys.scoring import iterate_features

ITEMS = 25


@pytest.fixture(scope="module")
def data() -> Split:
    """Users with 1 to 12 items, some of them had twice."""
    generator = np.random.default_rng(1)
    lengths = generator.integers(1, 13, 30)
    rows = [generator.integers(1, ITEMS + 1, length) for length in lengths]
    offsets = np.concatenate([[0], lengths.cumsum()])
    return leave_one_out(make_interactions(offsets, np.concatenate(rows), ITEMS))


@pytest.fixture(scope="module", params=["sasrec", "gru4rec", "fmlp", "ligr"])
def model(request: pytest.FixtureRequest) -> SequenceModel:
    config = TrainConfig(backbone=request.param, max_length=5, hidden_size=8)
    made = make_model(config, ITEMS)
    with torch.no_grad():
        made.item_emb.weight[7:9] = 0  # a tie, whatever rounding does
    return made


def score_naively(model: SequenceModel, data: Split, split: str) -> Iterator[tuple[int, ...]]:
    """Of each user: how many other candidates score more than the target, and how many the same."""
    model.eval()
    train = data.train_offsets
    for user in range(data.user_count):
        if not data.test[user]:
            continue
        history = data.train_items[train[user] : train[user + 1]].tolist()
        target = int(data.valid[user])
        if split == "test":
            history, target = [*history, target], int(data.test[user])
        window = ([0] * 5 + history)[-5:]
        with torch.no_grad():
            scores = model.score_catalogue(model(torch.tensor([window]))[0, -1])
        others = [i for i in range(1, ITEMS + 1) if i not in history and i != target]
        own = scores[target - 1]
        # Nearer ones might change places in a batch of another size, whose sums are rounded
        # differently; with these weights there are none but exact ties.
        gaps = (scores - own).abs()
        assert not ((gaps > 0) & (gaps < 1e-5 * scores.abs().max())).any()
        yield (
            sum(int(scores[i - 1] > own) for i in others),
            sum(int(scores[i - 1] == own) for i in others),
        )


@pytest.mark.parametrize("split", ["valid", "test"])
@pytest.mark.parametrize("ties", ["average", "optimistic", "pessimistic"])
def test_full_ranking(model: SequenceModel, data: Split, split: str, ties: str) -> None:
    counts = list(score_naively(model, data, split))
    share = {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}[ties]
    ranks = np.array([greater + share * equal for greater, equal in counts])
    result = evaluate(model, data, split=split, ties=ties, block=4)
    assert (result.protocol, result.split, result.users) == ("full", split, len(counts))
    assert result.ties == sum(equal > 0 for _, equal in counts)
    assert tuple(result.metrics) == METRICS
    for k in (1, 5, 10):
        assert result.metrics[f"HR@{k}"] == pytest.approx((ranks < k).mean())
    for k in (5, 10):
        gains = np.where(ranks < k, 1 / np.log2(ranks + 2), 0)
        assert result.metrics[f"NDCG@{k}"] == pytest.approx(gains.mean())
    assert result.metrics["MRR"] == pytest.approx((1 / (ranks + 1)).mean())


@pytest.mark.parametrize("protocol", ["full", "sampled"])
def test_windows_that_are_no_whole_number_of_blocks(
    model: SequenceModel, data: Split, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Features are made for more users at a time than are scored: 7 and 3 of ten are right."""
    metrics = ["NDCG@10", *(["Popularity@3"] if protocol == "full" else [])]
    expected = evaluate(model, data, protocol=protocol, metrics=metrics)
    monkeypatch.setattr(scoring, "_WINDOWS", 10)
    found = evaluate(model, data, protocol=protocol, metrics=metrics, block=7)
    assert (found.users, found.ties) == (expected.users, expected.ties)
    assert found.metrics == pytest.approx(expected.metrics)


def test_block_size_changes_nothing(model: SequenceModel, data: Split) -> None:
    for protocol in ("full", "sampled"):
        results = [evaluate(model, data, protocol=protocol, block=n) for n in (1, 7, 100, None)]
        for result in results[1:]:
            assert result.ties == results[0].ties
            assert result.metrics == pytest.approx(results[0].metrics)


def test_sampled_protocol(model: SequenceModel, data: Split) -> None:
    users, sequences, targets, _ = data.sequences("test", 5)
    sampler = SequenceSampler(data.train_offsets, data.train_items, ITEMS)
    drawn = sampler.candidates(users, 9, seed=3)
    ranks, tied = [], 0
    for start, features in iterate_features(model, sequences, 1):
        with torch.no_grad():
            scores = model.score_catalogue(features)[0].numpy()
        own, others = scores[targets[start] - 1], scores[drawn[start] - 1]
        ranks.append((others > own).sum() + 0.5 * (others == own).sum())
        tied += int((others == own).any())
    result = evaluate(model, data, protocol="sampled", candidates=9, seed=3)
    assert result.ties == tied > 0  # some candidates are the target itself
    hits = (np.array(ranks) < 5).mean()
    assert result.metrics["HR@5"] == pytest.approx(hits)
    assert result == evaluate(model, data, protocol="sampled", candidates=9, seed=3)
    assert result != evaluate(model, data, protocol="sampled", candidates=9, seed=4)


def test_the_mode_is_restored(model: SequenceModel, data: Split) -> None:
    for training in (True, False):
        model.train(training)
        evaluate(model, data)
        assert model.training is training


def test_errors(model: SequenceModel, data: Split) -> None:
    with pytest.raises(ValueError, match="protocol must be one of full, sampled: got 'half'"):
        evaluate(model, data, protocol="half")
    with pytest.raises(ValueError, match="split must be one of valid, test: got 'train'"):
        evaluate(model, data, split="train")
    with pytest.raises(ValueError, match="ties must be one of"):
        evaluate(model, data, ties="none")
    for block in (0, -5):
        with pytest.raises(ValueError, match=f"block must be at least 1: got {block}"):
            evaluate(model, data, block=block)
    short = leave_one_out(make_interactions([0, 2], [1, 2], ITEMS))
    with pytest.raises(ValueError, match="no user has a test item"):
        evaluate(model, short)
    other = leave_one_out(make_interactions([0, 3], [1, 2, 3]))
    with pytest.raises(ValueError, match="the model has 25 items and the data 3"):
        evaluate(model, other)


def test_candidates_for_users_with_one_train_item(model: SequenceModel) -> None:
    data = leave_one_out(make_interactions([0, 3, 6], [1, 2, 3, 4, 5, 6], ITEMS))
    assert evaluate(model, data, protocol="sampled").users == 2


def test_a_user_with_all_items_has_her_own_id() -> None:
    model = make_model(TrainConfig(max_length=5, hidden_size=8), 3)
    rows = make_interactions([0, 3, 8], [1, 2, 3, 1, 2, 3, 1, 2], 3)
    data = leave_one_out(replace(rows, id_map=IdMap(("ann", "bob"), ("x", "y", "z"))))
    with pytest.raises(ValueError, match="user bob has all 3 items"):
        evaluate(model, data, protocol="sampled")
    assert evaluate(model, data).users == 2


def test_a_score_that_is_no_number(data: Split) -> None:
    model = make_model(TrainConfig(max_length=5, hidden_size=8), ITEMS)
    with torch.no_grad():
        model.item_emb.weight[3] = torch.nan
    with pytest.raises(ValueError, match="nan"):
        evaluate(model, data)


# Models from files.


def test_load_model(model: SequenceModel, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    loaded = load_model(tmp_path, device="cpu")
    assert type(loaded) is type(model)
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)


def test_load_weights_in_pmixers_names(tmp_path: Path, data: Split) -> None:
    model = make_model(TrainConfig(max_length=5, hidden_size=8, num_attention_heads=2), ITEMS)
    torch.save(model.state_dict(), tmp_path / "sasrec.pth")
    loaded = load_model(tmp_path / "sasrec.pth", num_attention_heads=2, device="cpu")
    assert evaluate(loaded, data) == evaluate(model, data)


def test_no_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a folder without config\.json"):
        load_model(tmp_path)
    for text in ('{"model_type": "bert"}', "{}"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(
            ValueError, match="model_type must be one of sasrec, gru4rec, fmlp, ligr"
        ):
            load_model(tmp_path)
    for text in ("[]", "{", "1"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ValueError, match="not the configuration of a model"):
            load_model(tmp_path)


# Recommendations.


def test_recommendations(model: SequenceModel, data: Split) -> None:
    interactions = data.interactions
    found = list(recommend(model, interactions, count=6))
    assert [r.user for r in found] == list(range(1, data.user_count + 1))
    for row, one in enumerate(found):
        items = [item for item, _ in one.items]
        history = interactions.items[interactions.offsets[row] : interactions.offsets[row + 1]]
        assert set(items).isdisjoint(history.tolist())
        assert len(items) == len(set(items)) == 6
        window = torch.from_numpy(interactions.sequences(5)[[row]])
        with torch.no_grad():
            scores = model.eval().score_catalogue(model(window)[0, -1])
        scores[torch.from_numpy(history - 1)] = -torch.inf
        expected = scores.sort(descending=True, stable=True).values[:6]
        torch.testing.assert_close(torch.tensor([s for _, s in one.items]), expected)


def test_the_first_recommendation_comes_before_the_last_window(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows of all users at once took 183 MB for 200,000 users."""
    users, length = 20_000, 200
    config = SASRecConfig(item_count=9, max_length=length, hidden_size=4, num_hidden_layers=1)
    offsets = np.arange(users + 1) * 2
    items = np.tile([1, 2, 3, 4], users // 2)
    interactions = make_interactions(offsets, items, 9)
    asked: list[int] = []
    whole = Interactions.sequences

    def sequences(self: Interactions, length: int, users: NDArray[np.int64]) -> NDArray[np.int64]:
        asked.extend(users.tolist())
        return whole(self, length, users)

    monkeypatch.setattr(Interactions, "sequences", sequences)
    tracemalloc.start()
    try:
        found = recommend(SASRecModel(config), interactions, count=1)
        assert next(found).user == 1
        assert len(asked) < 1_000
        assert next(found).user == 2
        rest = sum(1 for _ in found)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (rest, asked) == (users - 2, list(range(1, users + 1)))
    assert peak < 8_000_000  # the windows alone are 32 MB, and took 68 MB on the way


def test_blocks_of_recommendations_change_nothing(
    model: SequenceModel, data: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for the last digits: sums of another batch are taken in another order."""
    expected = list(recommend(model, data.interactions, count=ITEMS))
    for users, rows in ((1, 1), (7, 3), (100, 1)):
        monkeypatch.setattr(recommendation, "_USERS", users)
        monkeypatch.setattr(recommendation, "_SCORE_BYTES", rows * 16 * ITEMS)
        model.train()
        found = []
        for one in recommend(model, data.interactions, count=ITEMS):
            assert model.training
            found.append(one)
        assert [r.user for r in found] == [r.user for r in expected]
        for one, other in zip(found, expected, strict=True):
            scores = [dict(r.items) for r in (one, other)]
            assert scores[0] == pytest.approx(scores[1], abs=1e-5)
    model.eval()


def test_few_items_are_left(model: SequenceModel) -> None:
    interactions = make_interactions([0, 24], np.arange(1, 25), ITEMS)
    found = next(recommend(model, interactions, [1], count=5))
    assert [item for item, _ in found.items] == [25]


def test_scores_that_are_not_numbers() -> None:
    broken = SASRecModel(SASRecConfig(item_count=3, max_length=2, hidden_size=8))
    with torch.no_grad():
        broken.item_emb.weight[2] = torch.nan
    with pytest.raises(ValueError, match="user 2 has scores that are not numbers"):
        list(recommend(broken, make_interactions([0, 1, 2], [1, 1], 3), [2]))


def test_wrong_users(model: SequenceModel, data: Split) -> None:
    with pytest.raises(ValueError, match="count must be at least 1: got 0"):
        list(recommend(model, data.interactions, count=0))
    with pytest.raises(ValueError, match="user"):
        list(recommend(model, data.interactions, ["nobody"]))
    empty = make_interactions([0, 0, 1], [1], ITEMS)
    with pytest.raises(ValueError, match="user 1 has no interactions"):
        list(recommend(model, empty))
