"""Training of Segment-CNN: it learns, goes on to the same bits, and does not depend on parts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from lmcore.detox import (
    SegmentCNNModel,
    SpanCollator,
    SpanExample,
    load_segment_cnn,
    load_span_finder,
    train_spans,
)
from lmcore.detox.span_collator import cut_examples
from lmcore.detox.span_recipes import SPAN_RECIPES, SpanTrainConfig, segment_cnn, tiny
from lmcore.detox.span_training import SpanRun
from lmcore.training.config import change
from tiny_detox import TOXIC, WORDS, make_model, make_words

SMALL: dict[str, Any] = {
    "shape.hidden_size": 16, "shape.layers": 1, "shape.heads": 2, "shape.ffn_size": 16,
    "shape.positions": 32, "max_length": 16, "batch_size": 8, "micro_batch_size": 3,
    "optimizer.lr": 0.01, "loop.steps": 4, "loop.validate_every_steps": 2,
    "loop.log_every_steps": 1, "loop.save_every_seconds": 0.0, "device.device": "cpu",
    "device.threads": 1,
}  # fmt: skip


def small(**changes: Any) -> SpanTrainConfig:
    return change(tiny(), {**SMALL, **changes})


def make_examples(count: int, seed: int = 0) -> list[SpanExample]:
    """Words in any order; a pair is toxic that has a toxic word."""
    source, tokenizer = np.random.default_rng(seed), make_words()
    toxic = set(tokenizer.find_ids(TOXIC))
    examples = []
    for _ in range(count):
        length = int(source.integers(1, 12))
        ids = np.array(tokenizer.find_ids(source.choice(WORDS, length)), np.int32)
        marks = np.array([token in toxic for token in ids.tolist()], np.int8)
        examples.append(SpanExample(ids, marks[:-1] | marks[1:], int(marks.any())))
    return examples


# What is trained.


def test_recipes_are_the_papers() -> None:
    config = segment_cnn()
    assert (config.max_length, config.batch_size, config.epochs) == (128, 256, 10)
    assert (config.optimizer.lr, config.schedule.kind) == (2e-5, "linear")
    assert config.span_loss == "authors"
    assert set(SPAN_RECIPES) == {"segment_cnn", "tiny"}
    with pytest.raises(ValueError, match=r"^max_length must be at least 5, for a segment of 3 tok"):
        change(tiny(), {"max_length": 4, "segment_size": 3})
    with pytest.raises(ValueError, match=r"^max_length must be at most the 128 positions of shape"):
        change(tiny(), {"max_length": 129})
    with pytest.raises(ValueError, match=r"^loop\.metric must be pair_f1 or "):
        change(tiny(), {"loop.metric": "loss"})


@pytest.mark.parametrize("size", [1, 2, 3])
def test_batches_by_hand(size: int) -> None:
    tokenizer = make_words()
    ids = np.array([5, 6, 7, 8], np.int32)
    labels = np.array([1, 0, 1, 1][: 5 - size], np.int8)
    short = SpanExample(ids[: size - 1], labels[:0], 0)
    batch = SpanCollator(tokenizer, 128, size)([SpanExample(ids, labels, 1), short])
    assert batch["input_ids"][0].tolist() == [2, 5, 6, 7, 8, 3]
    assert batch["attention_mask"].sum(1).tolist() == [6, size + 1]
    first, second = batch["span_labels"].tolist()
    assert first == [0, *labels.tolist(), 0]
    # Without a segment of its own, a text has those with both ends.
    assert second == [0, 0, *[-100] * (5 - size)]
    assert batch["labels"].tolist() == [1, 0]


def test_long_texts_are_cut_and_counted() -> None:
    ids, labels = np.arange(5, 11, dtype=np.int32), np.array([0, 0, 1, 1, 1], np.int8)
    examples = [SpanExample(ids, labels, 1), SpanExample(ids[:3], labels[:2], 0)]
    kept, lost = cut_examples(examples, 6)
    assert [example.labels.tolist() for example in kept] == [[0, 0, 1], [0, 0]]
    assert (lost.texts, lost.tokens, lost.toxic_segments) == (1, 2, 2)
    assert str(lost).startswith("1 texts do not fit into a row, and lost 2 tokens and 2 toxic")
    assert cut_examples(examples, 8)[1].texts == 0


def test_it_learns(tmp_path: Path) -> None:
    config = small(**{"loop.steps": 60, "loop.validate_every_steps": 60, "micro_batch_size": 8})
    result = train_spans(
        config, make_examples(200), tmp_path / "run", valid=make_examples(50, 1),
        tokenizer=make_words(),
    )  # fmt: skip
    assert result.best_value is not None
    assert result.best_value > 0.9
    metrics = result.history[-1]["metrics"]
    assert set(metrics) == {"pair_f1", "pair_recall", "pair_precision", "accuracy"}
    finder = load_span_finder(tmp_path / "run", device="cpu")
    assert [span.text for span in finder.find(["you are so so bad"])[0].spans] == ["so bad"]
    assert finder.model.config.max_length == finder.window == 16
    assert finder.model.config.span_loss == "corrected"


def test_a_batch_does_not_depend_on_its_parts() -> None:
    """Micro-batches of any size have one gradient: the means are those of the batch."""
    found: list[dict[str, Tensor]] = []
    for size in (1, 3, 8):
        run = SpanRun(
            small(**{"micro_batch_size": size, "shape.dropout": 0.0}), make_examples(20),
            tokenizer=make_words(),
        )  # fmt: skip
        losses = run.step(1)
        found.append({**losses, **dict(run.model.named_parameters())})
    whole = run.collator([run.examples[k] for k in run.batches.find(1, slice(8))])
    torch.manual_seed(0)
    for one in found[:-1]:
        for name, value in one.items():
            # Adam's first step is the sign of a gradient, which small numbers do not keep.
            assert torch.allclose(value, found[-1][name], atol=1e-4), name
    fresh = SpanRun(
        small(**{"shape.dropout": 0.0}), make_examples(20), tokenizer=make_words()
    ).model.eval()
    assert torch.allclose(fresh(**whole).loss, found[0]["loss"], atol=1e-6)


def test_a_run_goes_on_to_the_same_bits(tmp_path: Path) -> None:
    examples, tokenizer = make_examples(20), make_words()
    given: dict[str, Any] = {"valid": examples[:5], "tokenizer": tokenizer}
    train_spans(small(**{"schedule.kind": "constant"}), examples, tmp_path / "whole", **given)
    for steps in (3, 4):
        config = small(**{"schedule.kind": "constant", "loop.steps": steps})
        result = train_spans(config, examples, tmp_path / "parts", **given)
    assert result.resumed_after == 3
    one, two = (load_segment_cnn(tmp_path / name) for name in ("whole", "parts"))
    for (name, value), other in zip(one.named_parameters(), two.parameters(), strict=True):
        assert torch.equal(value, other), name
    recipe = json.loads((tmp_path / "parts/recipe.json").read_text())
    assert (recipe["data"]["texts"], recipe["data"]["valid_texts"]) == (20, 5)
    with pytest.raises(FileExistsError):
        train_spans(small(batch_size=7), examples, tmp_path / "parts", **given)
    with pytest.raises(FileExistsError):
        train_spans(
            small(**{"schedule.kind": "constant"}), examples[1:], tmp_path / "parts", **given
        )


def test_a_model_goes_on(tmp_path: Path) -> None:
    tokenizer = make_words()
    model = make_model(tokenizer, segment_size=3)
    model.save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    config = small(model=str(tmp_path), segment_size=3, max_length=20)
    three = [SpanExample(e.ids, e.labels[1:], e.toxic) for e in make_examples(9) if len(e.ids) > 1]
    run = SpanRun(config, three)
    for (name, value), other in zip(model.named_parameters(), run.model.parameters(), strict=True):
        assert torch.equal(value, other), name
    assert run.model.config.max_length == 20
    with pytest.raises(ValueError, match=r"^segment_size must be 3, as that of the model: got 2$"):
        SpanRun(small(model=str(tmp_path)), make_examples(9))
    with pytest.raises(ValueError, match=r"^max_length must be at most the 64 positions of the mo"):
        SpanRun(change(config, {"max_length": 65}), three)


def test_a_model_is_not_overwritten(tmp_path: Path) -> None:
    examples = make_examples(9)
    train_spans(small(), examples, tmp_path, tokenizer=make_words())
    for model in (tmp_path, tmp_path / "best"):
        with pytest.raises(ValueError, match="the output is an input too"):
            train_spans(small(model=str(model)), examples, tmp_path, resume=False)
    assert (tmp_path / "best" / "config.json").is_file()


def test_what_cannot_be_trained() -> None:
    tokenizer = make_words()
    with pytest.raises(ValueError, match=r"^there are no texts to train on$"):
        SpanRun(small(), [], tokenizer=tokenizer)
    with pytest.raises(ValueError, match=r"^tokenizer must be given where no model is: got none$"):
        SpanRun(small(), make_examples(1))
    wrong = SpanExample(np.array([5, 6], np.int32), np.array([0, 1], np.int8), 0)
    with pytest.raises(ValueError, match=r"^examples\[0\] must have a label for each of its 1 seg"):
        SpanRun(small(), [wrong], tokenizer=tokenizer)


# Other loops.


@pytest.mark.filterwarnings("ignore")
def test_the_trainer_learns(tmp_path: Path) -> None:
    tokenizer, examples = make_words(), make_examples(200)
    model: SegmentCNNModel = make_model(tokenizer, hidden_size=16, span_loss="corrected")
    collate = SpanCollator(tokenizer, 16)
    batch = collate(examples)

    def measure() -> float:
        with torch.no_grad():
            return float(model.eval()(**batch).loss)

    before = measure()
    arguments = TrainingArguments(
        output_dir=str(tmp_path), per_device_train_batch_size=20, num_train_epochs=4,
        learning_rate=0.01, remove_unused_columns=False, use_cpu=True, report_to=[],
        save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    Trainer(model=model, args=arguments, train_dataset=examples, data_collator=collate).train()
    assert measure() < 0.5 * before
