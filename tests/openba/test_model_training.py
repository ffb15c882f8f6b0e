"""Training: recomputation, half precision, adapters, and transformers' own trainer."""

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments

from lmcore.openba import OpenBAForConditionalGeneration
from tiny_openba import make_batch, make_model


def gradients(model: OpenBAForConditionalGeneration, batch: dict[str, Any]) -> dict[str, Tensor]:
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("reentrant", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputation_changes_nothing(reentrant: bool, dropout: float) -> None:
    changes = {"hidden_dropout": dropout, "attention_dropout": dropout}
    model, batch = make_model(**changes).train(), make_batch()
    torch.manual_seed(3)
    wanted = gradients(model, batch)
    assert len(wanted) == len([*model.parameters()])
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    assert model.decoder.block[0].gradient_checkpointing
    runs: list[int] = []
    model.decoder.block[1].self_attn.register_forward_hook(lambda *_: runs.append(1))
    torch.manual_seed(3)
    got = gradients(model, batch)
    assert len(runs) == 2
    assert got.keys() == wanted.keys()
    assert all(torch.equal(got[name], wanted[name]) for name in wanted)


def test_dropout_is_for_training_alone() -> None:
    model, batch = make_model(hidden_dropout=0.5, attention_dropout=0.5), make_batch()
    plain = make_model()
    with torch.no_grad():
        assert torch.equal(model(**batch).logits, plain(**batch).logits)
        model.train()
        assert not torch.equal(model(**batch).logits, plain(**batch).logits)


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "lmcore"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_by_autocast(dtype: torch.dtype, implementation: str) -> None:
    model, batch = make_model(attn_implementation=implementation).train(), make_batch()
    wanted = model(**batch).loss.detach()
    with torch.autocast("cpu", dtype):
        output = model(**batch)
        with torch.no_grad():
            tokens = model.generate(batch["input_ids"], max_new_tokens=3, do_sample=False)
    assert output.logits.dtype == output.loss.dtype == torch.float32
    assert float((output.loss.detach() - wanted).abs()) < 0.1
    output.loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.dtype == torch.float32
        assert parameter.grad.isfinite().all()
    assert tokens.shape[0] == 3


def learn(model: Any, batch: dict[str, Any], steps: int = 30) -> tuple[float, float]:
    """The loss before and after."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], 1e-2)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


# peft asks transformers by names that end with its next version.
of_peft = pytest.mark.filterwarnings(
    "ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"
)


@of_peft
@pytest.mark.parametrize("targets", ["all-linear", ["qkv", "q", "kv"]])
def test_low_rank_adapters(tmp_path: Path, targets: Any) -> None:
    model, batch = make_model().train(), make_batch()
    base = {name: value.clone() for name, value in model.state_dict().items()}
    config = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", r=4, target_modules=targets)
    adapted = peft.get_peft_model(model, config)
    names = {name for name, p in adapted.named_parameters() if p.requires_grad}
    assert all("lora_" in name for name in names)
    # Each block of the decoder has qkv, q, kv; of the encoder qkv.
    assert len(names) == 2 * (3 * 7 + 2 * 4 if targets == "all-linear" else 3 * 3 + 2)
    before, after = learn(adapted, batch)
    assert after < 0.7 * before
    adapted.eval()
    logits = adapted(**batch).logits
    adapted.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(make_model(), tmp_path)
    assert torch.equal(again(**batch).logits, logits)
    merged = again.merge_and_unload()
    assert float((merged(**batch).logits - logits).detach().abs().max()) < 1e-4
    assert merged.state_dict().keys() == base.keys()
    assert torch.equal(merged.state_dict()["lm_head.weight"], base["lm_head.weight"])


@of_peft
def test_a_folder_of_adapters_is_loaded(tmp_path: Path) -> None:
    model, batch = make_model(), make_batch()
    model.save_pretrained(tmp_path / "base")
    base = OpenBAForConditionalGeneration.from_pretrained(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(target_modules=["qkv"]))
    learn(adapted, batch, 3)
    adapted.save_pretrained(tmp_path / "adapters")
    read = OpenBAForConditionalGeneration.from_pretrained(tmp_path / "adapters")
    adapted.eval()
    assert torch.equal(read(**batch).logits, adapted(**batch).logits)


class Rows(Dataset[dict[str, Tensor]]):
    """Rows of a batch, of which each is one text to learn."""

    def __init__(self) -> None:
        batch = make_batch(rows=8)
        self.rows = [{name: value[i] for name, value in batch.items()} for i in range(8)]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return self.rows[index]


def test_the_trainer_of_transformers(tmp_path: Path) -> None:
    model = make_model()
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(tmp_path / "run"), per_device_train_batch_size=4, max_steps=12,
        learning_rate=1e-2, lr_scheduler_type="constant", logging_steps=1, report_to=[],
        use_cpu=True, save_strategy="no", predict_with_generate=True, generation_max_length=6,
        gradient_accumulation_steps=2, activation_checkpointing=True, seed=0, disable_tqdm=True,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = Seq2SeqTrainer(model=model, args=arguments, train_dataset=Rows())
    trainer.train()
    losses = [row["loss"] for row in trainer.state.log_history if "loss" in row]
    assert len(losses) == 12
    assert losses[-1] < 0.7 * losses[0]
    # What the trainer divides by is the number of labels in both parts of a step.
    batch = make_batch(rows=8)
    with torch.no_grad():
        assert losses[0] == pytest.approx(float(make_model()(**batch).loss), rel=1e-3)
    predicted = trainer.predict(Rows())
    assert predicted.predictions.shape[0] == 8
    trainer.save_model(str(tmp_path / "model"))
    read = OpenBAForConditionalGeneration.from_pretrained(tmp_path / "model")
    assert torch.equal(read.lm_head.weight, model.lm_head.weight)
