"""UFNRec inside RecTools' own training."""

from typing import Any

import numpy as np
import pytest
import torch

from adapter_files import load

ADAPTER = load("rectools", "ufn_in_rectools")

import pandas as pd  # noqa: E402
import pytorch_lightning  # noqa: E402
from rectools import Columns  # noqa: E402
from rectools.dataset import Dataset  # noqa: E402
from rectools.models import SASRecModel  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

USERS, ITEMS, LENGTH, NEGATIVES = 40, 50, 8, 10


@pytest.fixture(scope="module")
def data() -> Dataset:
    source = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        # Some have one item, and are not trained on; some more than a window holds.
        for step, item in enumerate(source.permutation(ITEMS)[: source.integers(1, 16)]):
            rows.append((f"u{user}", f"i{item}", 1, pd.Timestamp(2024, 1, 1 + step)))
    columns = [Columns.User, Columns.Item, Columns.Weight, Columns.Datetime]
    frame = pd.DataFrame(rows, columns=columns).sample(frac=1, random_state=1)
    return Dataset.construct(frame.reset_index(drop=True))


def hide_last(interactions: pd.DataFrame) -> Any:
    """RecTools' way to keep the last item of each user for validation."""
    ranks = interactions.groupby(Columns.User)[Columns.Datetime].rank(ascending=False)
    return (ranks <= 1).to_numpy()


def make_model(**settings: Any) -> SASRecModel:
    pytorch_lightning.seed_everything(0, verbose=False)
    shape = {"n_blocks": 1, "n_heads": 1, "n_factors": 16, "session_max_len": LENGTH}
    loop = {"batch_size": 8, "epochs": 4, "deterministic": True}
    own = {"loss": "BCE", "n_negatives": NEGATIVES, "data_preparator_type": ADAPTER.UFNBatches}
    return SASRecModel(**(shape | loop | own | settings))


def weights(model: SASRecModel) -> list[torch.Tensor]:
    return list(model.lightning_model.torch_model.state_dict().values())


def batches_of(model: SASRecModel) -> list[dict[str, torch.Tensor]]:
    return list(model.data_preparator.get_dataloader_train())


def histories_of(model: SASRecModel, data: Dataset, *, hidden: bool) -> dict[int, set[int]]:
    """Items of each user in the ids of the model's batches, also those before the window."""
    frame = data.get_raw_interactions()
    if hidden:
        frame = frame[~hide_last(frame)]
    prepared = model.data_preparator.train_dataset
    users, items = prepared.user_id_map.to_internal, prepared.item_id_map.to_internal
    known = frame[frame[Columns.User].isin(users.index) & frame[Columns.Item].isin(items.index)]
    found: dict[int, set[int]] = {}
    for user, item in zip(known[Columns.User], known[Columns.Item], strict=True):
        found.setdefault(int(users[user]) + 1, set()).add(int(items[item]))
    return found


@pytest.mark.parametrize("hidden", [False, True])
def test_negatives_are_outside_of_whole_histories(data: Dataset, hidden: bool) -> None:
    model = make_model(get_val_mask_func=hide_last if hidden else None)
    model._build_model_from_dataset(data)
    histories = histories_of(model, data, hidden=hidden)
    assert max(map(len, histories.values())) > LENGTH + 1
    items = model.data_preparator.item_id_map.size
    seen: list[int] = []
    validated = set()
    for batch in batches_of(model):
        users, y, negatives = (batch[name].numpy() for name in ("users", "y", "negatives"))
        assert negatives.shape == (*y.shape, NEGATIVES)
        seen += users.tolist()
        for user, positives, drawn in zip(users, y, negatives, strict=True):
            assert set(positives[positives != 0]) <= histories[user]
            found = drawn[positives != 0]
            assert found.min() >= 1
            assert found.max() < items
            assert not histories[user] & set(found.ravel().tolist())
            validated |= {(user, item) for item in found.ravel().tolist()}
    assert sorted(seen) == list(range(1, len(seen) + 1))
    if hidden:  # what is kept for validation may be drawn: the model does not come to know it
        prepared = model.data_preparator
        targets = prepared.val_interactions[prepared.val_interactions[Columns.Weight] > 0]
        pairs = set(zip(targets[Columns.User] + 1, targets[Columns.Item], strict=True))
        assert pairs & validated


def test_own_sampler_draws_false_negatives_by_construction(data: Dataset) -> None:
    """The opposite of the test above: what the adapter is for."""
    from rectools.models.nn.transformers.sasrec import SASRecDataPreparator

    model = make_model(data_preparator_type=SASRecDataPreparator)
    model._build_model_from_dataset(data)
    drawn = wrong = 0
    for batch in batches_of(model):
        x, y, negatives = (batch[name].numpy() for name in ("x", "y", "negatives"))
        for row in range(len(x)):
            own = np.union1d(x[row], y[row])
            found = negatives[row][y[row] != 0]
            drawn += found.size
            wrong += np.isin(found, own).sum()
    assert wrong / drawn > 0.05


def test_draws_are_new_in_each_epoch_and_repeatable(data: Dataset) -> None:
    model = make_model()
    model._build_model_from_dataset(data)

    def draw(seed: int) -> list[Any]:
        pytorch_lightning.seed_everything(seed, verbose=False)
        return [{k: v.tolist() for k, v in batch.items()} for batch in batches_of(model)]

    assert draw(1) == draw(1)
    first, second = batches_of(model), batches_of(model)
    order = [torch.cat([b["users"] for b in epoch]).argsort() for epoch in (first, second)]
    both = [
        torch.cat([b["negatives"] for b in epoch])[rows]
        for epoch, rows in zip((first, second), order, strict=True)
    ]
    assert not torch.equal(*both)


def test_training_is_that_of_rectools_until_mining_starts(data: Dataset) -> None:
    theirs = make_model().fit(data)
    ours = make_model(
        lightning_module_type=ADAPTER.UFNModule, lightning_module_kwargs={"start": 10**6}
    ).fit(data)
    assert all(map(torch.equal, weights(theirs), weights(ours)))
    assert ours.lightning_model.miner.stats().key_count == 0
    name = ours.train_loss_name
    losses = [model.fit_trainer.callback_metrics[name].item() for model in (theirs, ours)]
    assert losses[0] == losses[1] > 0


def test_miner_turns_labels_and_training_uses_them(data: Dataset) -> None:
    settings = {"lightning_module_type": ADAPTER.UFNModule}
    kept, turned = (
        make_model(**settings, lightning_module_kwargs={"threshold": threshold}).fit(data)
        for threshold in (10**6, 0)
    )
    assert kept.lightning_model.miner.stats().reversed_count == 0
    stats = turned.lightning_model.miner.stats()
    assert stats.reversed_count > 50
    assert not torch.equal(weights(kept)[0], weights(turned)[0])
    histories = histories_of(turned, data, hidden=False)
    for user, item in turned.lightning_model.miner.mined_pairs().tolist():
        assert item not in histories[user]
    users = data.user_id_map.external_ids[:5]
    assert len(turned.recommend(users, data, k=3, filter_viewed=True)) > 3
