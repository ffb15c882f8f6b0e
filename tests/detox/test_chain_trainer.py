"""Chains in transformers' own trainer, and the command that trains them with ours."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import Trainer, TrainingArguments

import tiny_chains
from commands import check_line, run_here
from lmcore.detox.chain_collator import ChainCollator
from lmcore.detox.chain_model import ContrastiveModel
from lmcore.detox.recipes import ContrastiveConfig
from prediction_rows import write_rows

ROWS = tiny_chains.make_rows(8)


@pytest.fixture(autouse=True)
def _one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_trainer_learns(kind: str, tmp_path: Path) -> None:
    words = tiny_chains.make_words()
    make: Any = {"gpt2": tiny_chains.make_gpt2, "t5": tiny_chains.make_t5}[kind]
    model = ContrastiveModel(make(words), words, ContrastiveConfig(anchor_tokens=4))
    notes: list[Any] = []
    model.register_forward_hook(lambda *call: notes.append(call[2]) if model.training else None)
    arguments = TrainingArguments(
        str(tmp_path), per_device_train_batch_size=4, max_steps=20, learning_rate=0.02,
        remove_unused_columns=False, use_cpu=True, report_to=[], save_strategy="no",
        disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    trainer = Trainer(
        model=model, args=arguments, data_collator=ChainCollator(words, model.model),
        train_dataset=ROWS, eval_dataset=ROWS,
    )  # fmt: skip
    before = trainer.evaluate()["eval_loss"]
    trainer.train()
    assert trainer.evaluate()["eval_loss"] < before / 1.5
    assert len(notes) == 20
    assert all(note["groups"] >= 3 for note in notes)
    # Of few words that are sampled: it comes and goes.
    terms = [float(note["contrastive"]) for note in notes]
    assert min(terms) < 0.8 * terms[0]


def test_anchors_are_kept_by_row() -> None:
    words = tiny_chains.make_words()
    config = ContrastiveConfig(anchor_tokens=4, refresh_every_steps=2)
    model = ContrastiveModel(tiny_chains.make_gpt2(words), words, config).train()
    collator = ChainCollator(words, model.model)
    batch = collator.pad(item for item in collator.encode(ROWS[:3]) if item)
    terms = [model(**batch)["contrastive"].item() for _ in range(5)]
    assert terms[0] == terms[1] != terms[2] == terms[3] != terms[4]
    # Cross entropy alone: without groups, in evaluation, and with weight 0.
    plain = {k: batch[k] for k in ("input_ids", "attention_mask", "labels")}
    assert "contrastive" not in model(**plain)
    assert model(**plain)["loss"].item() == pytest.approx(
        model.eval()(**batch)["loss"].item(), abs=1e-6
    )


def test_the_train_command(tmp_path: Path) -> None:
    data, out = write_rows(tmp_path / "rows.jsonl", ROWS), tmp_path / "run"
    sizes = ["hidden_size=16", "heads=2", "vocabulary=320"]
    options: list[Any] = [arg for size in sizes for arg in ("--set", f"scratch.{size}")]
    options += ["--epochs", 1, "--threads", 1, "--device", "cpu", "--set", "batch_size=4"]
    given = ["tiny", "--data", data, "--valid", data, "--out", out, *options, "--quiet"]
    code, output, errors = run_here("detox", "train", *given)
    assert (code, errors) == (
        0, "lmcore: of 8 rows: 1 chains have no toxic continuation to contrast with\n",
    )  # fmt: skip
    found = json.loads(output)
    assert (found["steps"], found["groups"]) == (2, 7)
    assert found["loss"] > 0
    assert run_here("detox", "train", *given)[1] == output
    check_line(run_here("detox", "train", *given, "--seed", 7), "holds another run")
    bare = write_rows(tmp_path / "bare.jsonl", [{"output": row["output"]} for row in ROWS])
    given[2] = given[4] = bare
    check_line(run_here("detox", "train", *given, "--no-resume"), "contrastive.weight is 0")
