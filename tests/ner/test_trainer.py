"""The collator in transformers' own trainers: our loop is a choice, not a condition."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    Seq2SeqTrainer,
    Seq2SeqTrainingArguments,
    Trainer,
    TrainingArguments,
)

import tiny_models
from lmcore.ner import score
from lmcore.ner.collator import GNERCollator
from lmcore.ner.models import load_model, load_tokenizer
from lmcore.ner.validation import generate_texts

ROWS = tiny_models.make_rows(12)
COMMON: dict[str, Any] = {
    "per_device_train_batch_size": 6, "max_steps": 120, "learning_rate": 0.02,
    "remove_unused_columns": False, "use_cpu": True, "report_to": [], "save_strategy": "no",
    "disable_tqdm": True, "logging_strategy": "no",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def score_texts(texts: list[str]) -> float:
    pairs = zip(ROWS, texts, strict=True)
    return score([{**row, "prediction": text} for row, text in pairs]).mean.f1


@pytest.mark.filterwarnings("ignore")
def test_a_seq2seq_trainer_learns_and_generates(tmp_path: Path) -> None:
    folder = tiny_models.save("t5", tmp_path / "model")
    model, tokenizer = load_model(folder), load_tokenizer(folder)

    def compute_metrics(found: Any) -> dict[str, float]:
        ids = found.predictions.copy()
        ids[ids < 0] = tokenizer.pad_token_id
        return {"f1": score_texts(tokenizer.batch_decode(ids, skip_special_tokens=True))}

    trainer = Seq2SeqTrainer(
        model=model,
        args=Seq2SeqTrainingArguments(
            str(tmp_path), predict_with_generate=True, generation_max_length=8, **COMMON
        ),
        data_collator=GNERCollator(tokenizer, model=model),
        train_dataset=ROWS,
        eval_dataset=ROWS,
        compute_metrics=compute_metrics,
    )
    before = trainer.evaluate()
    trainer.train()
    after = trainer.evaluate()
    assert after["eval_f1"] > 0.9 > before["eval_f1"]
    assert after["eval_loss"] < before["eval_loss"] / 4


@pytest.mark.filterwarnings("ignore")
def test_a_trainer_learns_with_a_causal_model(tmp_path: Path) -> None:
    folder = tiny_models.save("llama", tmp_path / "model")
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    collator = GNERCollator(tokenizer, model=model, max_source_tokens=16, max_target_tokens=8)
    arguments = TrainingArguments(str(tmp_path), **COMMON)
    Trainer(model=model, args=arguments, data_collator=collator, train_dataset=ROWS).train()
    model.eval()
    texts = generate_texts(model, collator, collator.encode_prompts(ROWS), batch_size=12)
    assert score_texts(texts) > 0.9
