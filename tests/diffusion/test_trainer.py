"""The model and its collator in the Trainer of transformers: our loop is a choice, no condition."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from lmcore.diffusion import Penalty, Process, View, compute_losses
from lmcore.diffusion.collator import PairCollator
from lmcore.diffusion.models import load_model, make_model, save_model
from lmcore.diffusion.timesteps import TimestepChoice
from lmcore.diffusion.training import DiffusionRun
from lmcore.ops.schedule import make_betas
from tiny_diffusion import make_pairs, make_tokenizer, small


class DiffusionTrainer(Trainer):
    """The Trainer with the loss of this package."""

    betas = make_betas("sqrt", 60)
    choice: TimestepChoice

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], **_: Any) -> Tensor:  # type: ignore[override]
        ids, mask = inputs["input_ids"], inputs["target_mask"]
        drawn = self.choice.draw(self.state.global_step, len(ids))
        shape = (*ids.shape, 8)
        views = [View(torch.from_numpy(view), torch.randn(shape)) for view in drawn.views]
        penalty = Penalty(kind=self.choice.penalty.kind)
        process = Process(self.betas)
        losses = compute_losses(model, process, ids, mask, torch.randn(shape), views, penalty)
        return losses.loss.mean()


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_learns(tmp_path: Path) -> None:
    config = small(**{"shape.dropout": 0.0, "penalty.kind": "l2_noise_random"})
    tokenizer, pairs = make_tokenizer(), make_pairs(200)
    torch.manual_seed(0)
    model = make_model(config, tokenizer)

    def measure(folder: Path) -> float:
        save_model(model, tokenizer, folder)
        changed = small(model=str(folder), average=0.0)
        return DiffusionRun(changed, pairs[:1], pairs[:50]).validate()["error"]

    before = measure(tmp_path / "before")
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=20, num_train_epochs=8,
        learning_rate=0.005, remove_unused_columns=False, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = DiffusionTrainer(
        model=model, args=arguments, train_dataset=pairs,
        data_collator=PairCollator(tokenizer, config.length),
    )  # fmt: skip
    trainer.choice = TimestepChoice(DiffusionTrainer.betas, config.penalty, seed=1)
    trainer.train()
    assert measure(tmp_path / "after") < 0.8 * before
    loaded = load_model(tmp_path / "after")
    for (name, one), two in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, two), name


def test_batches_are_those_of_a_run() -> None:
    tokenizer, pairs = make_tokenizer(), make_pairs(3)
    batch = PairCollator(tokenizer, 32)(pairs)
    run = DiffusionRun(small(), pairs, tokenizer=tokenizer)
    assert np.array_equal(batch["input_ids"].numpy(), run.data.ids)
    assert np.array_equal(batch["target_mask"].numpy(), run.data.target_mask)
    with pytest.raises(ValueError, match="length must be at least 8: got 7"):
        PairCollator(tokenizer, 7)
