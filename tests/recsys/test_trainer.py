"""The models in transformers' own Trainer: our loop is a choice, not a condition."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from lmcore.ops.negatives import SequenceSampler
from lmcore.recsys import packed_logits, ufn_loss
from lmcore.recsys.data import Split, leave_one_out, make_interactions
from lmcore.recsys.evaluation import evaluate
from lmcore.recsys.loading import load_model
from lmcore.recsys.models import make_model
from lmcore.recsys.recipes import plain
from lmcore.training.config import change


class Windows(Dataset[dict[str, Tensor]]):
    """Padded batches as a function of the index, each of one row."""

    def __init__(self, data: Split, length: int) -> None:
        self.sampler = SequenceSampler(
            data.train_offsets, data.train_items, data.item_count, batch_size=1,
            max_length=length, negative_count=20, seed=0,
        )  # fmt: skip

    def __len__(self) -> int:
        return 64 * 30

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        batch = self.sampler.sample(1 + index, 0)
        parts = {
            "sequences": batch.sequences,
            "labels": batch.positives,
            "negatives": batch.negatives,
        }
        return {name: torch.from_numpy(part[0].astype(np.int64)) for name, part in parts.items()}


class RankingTrainer(Trainer):
    """The Trainer with the loss of this package."""

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:  # type: ignore[override]
        positives, negatives = inputs["labels"], inputs["negatives"]
        held = positives.flatten().nonzero()[:, 0]
        logits = packed_logits(
            model(inputs["sequences"]), model.item_emb.weight, positives,  # type: ignore[arg-type, union-attr]
            negatives.flatten(0, 1)[held], held,
        )  # fmt: skip
        return ufn_loss(logits).total


@pytest.mark.parametrize("backbone", ["sasrec", "gru4rec"])
@pytest.mark.filterwarnings("ignore")
def test_the_trainer_learns_a_circle(tmp_path: Path, backbone: str) -> None:
    starts = np.random.default_rng(0).integers(0, 12, 80)
    items = (starts[:, None] + np.arange(8)) % 12 + 1
    data = leave_one_out(make_interactions(np.arange(0, 641, 8), items.ravel(), 12))
    config = change(
        plain(), {"max_length": 8, "hidden_size": 16, "dropout": 0.0, "backbone": backbone}
    )
    model = make_model(config, data.item_count)
    before = evaluate(model, data, split="valid").metrics["NDCG@10"]
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=64, num_train_epochs=4,
        learning_rate=0.02, remove_unused_columns=False, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    RankingTrainer(model=model, args=arguments, train_dataset=Windows(data, 8)).train()
    after = evaluate(model, data, split="valid").metrics["NDCG@10"]
    assert after > 0.9 > before
    model.save_pretrained(tmp_path / "model")
    loaded = load_model(tmp_path / "model", device="cpu")
    pairs = itertools.zip_longest(model.parameters(), loaded.parameters())
    assert all(torch.equal(a, b) for a, b in pairs)
