"""UFNRec inside RePlay's own training."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapter_files import load

ADAPTER = load("replay", "ufn_in_replay")

import lightning  # noqa: E402
import pandas as pd  # noqa: E402
from replay.data import FeatureHint, FeatureType  # noqa: E402
from replay.data.nn import ParquetModule, TensorFeatureInfo, TensorSchema  # noqa: E402
from replay.nn.lightning import LightningModule  # noqa: E402
from replay.nn.loss import BCESampled  # noqa: E402
from replay.nn.sequential import SasRec  # noqa: E402
from replay.nn.transform.template import make_default_sasrec_transforms  # noqa: E402

from lmcore.recsys import FalseNegativeMiner, SequenceSampler, StepStart  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

USERS, ITEMS, LENGTH, NEGATIVES = 40, 50, 8, 10
_SOURCE = np.random.default_rng(0)
ROWS = [_SOURCE.permutation(ITEMS)[: _SOURCE.integers(2, 16)] for _ in range(USERS)]
SAMPLER = SequenceSampler(
    np.concatenate([[0], np.cumsum([len(row) for row in ROWS])]), np.concatenate(ROWS) + 1, ITEMS
)


def make_schema() -> TensorSchema:
    kind = FeatureType.CATEGORICAL
    user = {"feature_hint": FeatureHint.QUERY_ID, "cardinality": USERS, "padding_value": USERS}
    item = {"feature_hint": FeatureHint.ITEM_ID, "cardinality": ITEMS, "padding_value": ITEMS}
    return TensorSchema(
        [
            TensorFeatureInfo("user_id", kind, is_seq=False, **user),
            TensorFeatureInfo("item_id", kind, is_seq=True, embedding_dim=16, **item),
        ]
    )


def make_data(folder: Path, schema: TensorSchema) -> ParquetModule:
    file = folder / "train.parquet"
    pd.DataFrame({"user_id": range(USERS), "item_id": ROWS}).to_parquet(file)
    own = ADAPTER.UFNNegatives(SAMPLER, count=NEGATIVES)
    return ParquetModule(
        batch_size=8,
        metadata={"train": {"user_id": {}, "item_id": {"shape": LENGTH + 1, "padding": ITEMS}}},
        transforms={"train": [*make_default_sasrec_transforms(schema)["train"], own]},
        train_path=str(file),
    )


class Watch(lightning.Callback):
    """Keeps the losses and the batches of a training."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.batches: list[dict[str, Any]] = []

    def on_train_batch_end(
        self, trainer: Any, module: Any, outputs: Any, batch: Any, *_: Any
    ) -> None:
        self.losses.append(outputs["loss"].item())
        self.batches.append(batch)


def fit(loss: torch.nn.Module, folder: Path, epochs: int = 4) -> tuple[SasRec, Watch]:
    lightning.seed_everything(0, verbose=False)
    schema = make_schema()
    shape = {"num_heads": 1, "num_blocks": 1, "max_sequence_length": LENGTH}
    made = SasRec.from_params(schema, embedding_dim=16, **shape)
    model, watch = SasRec(body=made.body, loss=loss), Watch()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = lightning.Trainer(
        max_epochs=epochs,
        limit_val_batches=0,
        accelerator="cpu",
        enable_model_summary=False,
        callbacks=[watch],
        **quiet,
    )
    trainer.fit(LightningModule(model), make_data(folder, schema))
    return model, watch


def test_negatives_are_outside_of_whole_histories(tmp_path: Path) -> None:
    _, watch = fit(BCESampled(), tmp_path, epochs=2)
    users = []
    for batch in watch.batches:
        negatives, valid = batch["negative_labels"], batch["target_padding_mask"][..., 0]
        assert negatives.shape == (*valid.shape, NEGATIVES)
        for row, user in enumerate(batch["feature_tensors"]["user_id"].tolist()):
            users.append(user)
            found = negatives[row][valid[row]]
            assert len(found) == min(LENGTH, len(ROWS[user]))
            assert 0 <= int(found.min()) <= int(found.max()) < ITEMS
            assert not set(ROWS[user].tolist()) & set(found.flatten().tolist())
    assert sorted(users) == sorted([*range(USERS)] * 2)


def test_training_is_that_of_replay_until_mining_starts(tmp_path: Path) -> None:
    theirs, watched = fit(BCESampled(log_epsilon=0.0), tmp_path)
    ours, watch = fit(ADAPTER.UFNLoss(start=10**6), tmp_path)
    assert watch.losses == pytest.approx(watched.losses, rel=2e-5)
    table = "body.embedder.feature_embedders.item_id.emb.weight"
    expected = theirs.state_dict()[table]
    torch.testing.assert_close(ours.state_dict()[table], expected, atol=1e-5, rtol=1e-4)
    assert ours.loss.miner.stats().key_count == 0


def test_miner_turns_labels_and_training_uses_them(tmp_path: Path) -> None:
    _, kept = fit(ADAPTER.UFNLoss(threshold=10**6), tmp_path)
    turned, watch = fit(ADAPTER.UFNLoss(threshold=0), tmp_path)
    miner: FalseNegativeMiner = turned.loss.miner
    assert miner.stats().reversed_count > 50
    assert watch.losses != pytest.approx(kept.losses, rel=1e-3)
    for user, item in miner.mined_pairs().tolist():
        assert item - 1 not in ROWS[user - 1]


def test_padding_may_stand_on_the_right(tmp_path: Path) -> None:
    """The same losses and labels for batches whose rows are turned to the left."""
    _, watch = fit(ADAPTER.UFNLoss(), tmp_path, epochs=2)
    table = torch.nn.Embedding(ITEMS + 1, 16)
    losses: dict[str, Any] = {}
    for side in ("left", "right"):
        loss = losses[side] = ADAPTER.UFNLoss(threshold=0)
        loss.logits_callback = lambda states, items: (states[:, None] * table(items)).sum(-1)
    source = torch.Generator().manual_seed(3)
    for batch in watch.batches * 2:
        valid = batch["target_padding_mask"][..., 0]
        hidden = torch.randn((*valid.shape, 16), generator=source)
        order = valid.int().argsort(dim=1, descending=True, stable=True)

        def turn(values: torch.Tensor, order: torch.Tensor = order) -> torch.Tensor:
            return values.gather(1, order[..., None].expand_as(values))

        arrays = {
            "model_embeddings": hidden,
            "positive_labels": batch["positive_labels"],
            "negative_labels": batch["negative_labels"],
            "target_padding_mask": batch["target_padding_mask"],
        }
        others = {"feature_tensors": batch["feature_tensors"], "padding_mask": None}
        left = losses["left"](**arrays, **others)
        right = losses["right"](**{k: turn(v) for k, v in arrays.items()}, **others)
        assert torch.equal(left, right)
    stats = [losses[side].miner.stats() for side in ("left", "right")]
    assert stats[0].reversed_count == stats[1].reversed_count > 50
    pairs = [losses[side].miner.mined_pairs() for side in ("left", "right")]
    assert np.array_equal(*pairs)


def test_mining_starts_with_a_step() -> None:
    loss = ADAPTER.UFNLoss(start=3)
    assert loss.miner.start.rule == StepStart(3)
    assert not loss.miner.active
