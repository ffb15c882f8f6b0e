"""Segment-CNN: the authors' numbers, its definition, its folders, and its losses."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional
from transformers import AutoConfig, AutoModel, BertConfig, BertModel

from lmcore.detox import SegmentCNNConfig, SegmentCNNModel, compute_span_loss, load_segment_cnn
from lmcore.detox.modeling_segment_cnn import load_weights
from tiny_detox import make_model, make_words

NEAR: dict[str, Any] = {"atol": 1e-5, "rtol": 0.0}


# The authors'.


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> dict[str, Tensor]:
    arrays = np.load(golden_dir / "detox/segment_cnn/io.npz")
    return {name: torch.from_numpy(arrays[name]) for name in arrays}


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_released_checkpoint(golden_dir: Path, golden: dict[str, Tensor], attention: str) -> None:
    """It loads by its names, whose configuration says `bert`."""
    folder = golden_dir / "detox/segment_cnn"
    model = load_segment_cnn(folder, attn_implementation=attention).eval()
    assert model.config._attn_implementation == attention
    batch = {name: golden[name] for name in ("input_ids", "attention_mask")}
    found = model(**batch, labels=golden["labels"], span_labels=golden["span_labels"])
    assert torch.allclose(found.span_probabilities, golden["span_probabilities"], **NEAR)
    assert torch.allclose(found.logits, golden["sentence_logits"], **NEAR)
    assert torch.allclose(found.loss, golden["loss"], **NEAR)
    none = golden["span_labels"].clamp(max=0)
    found = model(**batch, labels=golden["labels"], span_labels=none)
    assert torch.allclose(found.loss, golden["loss_without_toxic_spans"], **NEAR)


# The model.


@pytest.mark.parametrize("size", [1, 2, 3])
def test_segments_are_what_the_convolution_gives(size: int) -> None:
    model = make_model(make_words(), segment_size=size)
    torch.nn.init.normal_(model.conv.weight)
    torch.nn.init.normal_(model.conv.bias)
    for length in (size, size + 1, 9):
        states = torch.randn(2, length, 8)
        expected = model.span_classifier(torch.tanh(model.conv(states[:, None]))[:, 0])
        assert torch.allclose(model.judge(states), expected, atol=1e-6)
    assert model.judge(torch.randn(2, size - 1, 8)).shape == (2, 0, 2)


def test_padding_changes_nothing() -> None:
    model = make_model(make_words())
    ids = torch.tensor([[2, 5, 6, 3]])
    alone = model(ids)
    padded = model(
        functional.pad(ids, (0, 3)), attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0, 0]])
    )
    assert torch.allclose(alone.span_logits, padded.span_logits[:, :3], atol=1e-6)
    assert torch.allclose(alone.logits, padded.logits, atol=1e-6)


def test_every_weight_is_trained() -> None:
    model = make_model(make_words(), hidden_dropout_prob=0.1)
    ids = torch.tensor([[2, 5, 6, 3]])
    labels, spans = torch.tensor([1]), torch.tensor([[0, 1, 0]])
    model.train()(ids, labels=labels, span_labels=spans).loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name


def test_folders(tmp_path: Path) -> None:
    model = make_model(make_words(), segment_size=3, span_loss="corrected", toxic_weight=3.0)
    model.save_pretrained(tmp_path)
    loaded = load_segment_cnn(tmp_path)
    config = loaded.config
    assert (config.segment_size, config.span_loss, config.toxic_weight) == (3, "corrected", 3.0)
    for (name, one), other in zip(model.named_parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other), name
    assert isinstance(AutoModel.from_pretrained(tmp_path), SegmentCNNModel)
    assert isinstance(AutoConfig.from_pretrained(tmp_path), SegmentCNNConfig)


def test_folders_that_hold_something_else(tmp_path: Path) -> None:
    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    bert = BertModel(BertConfig(vocab_size=9, intermediate_size=8, **sizes))
    bert.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r": its weights lack classifier\.bias$"):
        load_segment_cnn(tmp_path)
    model, missing = load_weights(tmp_path, segment_size=3)
    assert missing == [
        "classifier.bias", "classifier.weight", "conv.bias", "conv.weight", "span_classifier.bias",
        "span_classifier.weight",
    ]  # fmt: skip
    assert model.conv.weight.shape == (1, 1, 3, 1)
    assert torch.equal(model.bert.pooler.dense.weight, bert.pooler.dense.weight)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["embeddings.LayerNorm.bias"]
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r": its weights lack bert\.embeddings\.LayerNorm\.bias$"):
        load_weights(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "gpt2"}')
    with pytest.raises(
        ValueError, match="expected a model of segment_cnn or bert, got one of gpt2"
    ):
        load_segment_cnn(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"not a model: there is no config\.json in it$"):
        load_segment_cnn(tmp_path)
    with pytest.raises(FileNotFoundError):
        load_segment_cnn(tmp_path / "nowhere")


def test_segments_of_another_size_than_the_weights(golden_dir: Path, tmp_path: Path) -> None:
    source = golden_dir / "detox/segment_cnn"
    config = json.loads((source / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "segment_size": 3}))
    (tmp_path / "model.safetensors").symlink_to(source / "model.safetensors")
    with pytest.raises(ValueError, match="not a model: "):
        load_segment_cnn(tmp_path)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"segment_size": 0}, "segment_size must be at least 1 and at most 16: got 0"),
        ({"segment_size": 17}, "segment_size must be at least 1 and at most 16: got 17"),
        ({"span_loss": "x"}, "span_loss must be one of authors, corrected: got 'x'"),
        ({"toxic_weight": 0.0}, "toxic_weight must be above 0 and finite: got 0.0"),
        ({"toxic_weight": math.inf}, "toxic_weight must be above 0 and finite: got inf"),
        ({"max_length": 3}, "max_length must be at least 4 and at most 1048576: got 3"),
    ],
)
def test_sizes_that_cannot_be(change: dict[str, Any], text: str) -> None:
    with pytest.raises(Exception, match=text):
        SegmentCNNConfig(**change)


# The losses.


def loop_loss(logits: Tensor, labels: Tensor, kind: str, weight: float) -> float:
    """The definition, one segment at a time."""
    parts: dict[int, list[float]] = {0: [], 1: []}
    for row in range(labels.shape[0]):
        for place in range(labels.shape[1]):
            label = int(labels[row, place])
            if label == -100:
                continue
            scores = [float(x) for x in logits[row, place].double()]
            if kind == "authors":
                scores = [math.exp(x) for x in scores]
                scores = [x / sum(scores) for x in scores]
            parts[label].append(math.log(sum(map(math.exp, scores))) - scores[label])
    means = {k: sum(v) / len(v) if v else 0.0 for k, v in parts.items()}
    return (weight * means[1] + means[0]) / 2


@pytest.mark.parametrize(("kind", "weight"), [("authors", 8.0), ("corrected", 2.0)])
@pytest.mark.parametrize("known", [[0, 1, -100], [0, -100], [1, -100], [0], [1], [-100]])
def test_loss_is_that_of_a_loop(kind: str, weight: float, known: list[int]) -> None:
    source = np.random.default_rng(0)
    logits = torch.from_numpy(source.normal(size=(3, 7, 2)).astype(np.float32) * 4)
    labels = torch.from_numpy(source.choice(known, (3, 7)))
    expected = loop_loss(logits, labels, kind, weight)
    assert compute_span_loss(logits, labels, kind=kind).item() == pytest.approx(expected, abs=1e-6)
    other = loop_loss(logits, labels, kind, 5.0)
    got = compute_span_loss(logits, labels, kind=kind, toxic_weight=5.0)
    assert got.item() == pytest.approx(other, abs=1e-6)


def test_a_batch_in_parts_has_the_same_loss() -> None:
    logits, labels = torch.randn(4, 5, 2), torch.randint(0, 2, (4, 5))
    whole = compute_span_loss(logits, labels)
    counts = int((labels == 1).sum()), int((labels == 0).sum())
    parts = [
        compute_span_loss(logits[k : k + 1], labels[k : k + 1], counts=counts) for k in range(4)
    ]
    assert torch.allclose(sum(parts, torch.tensor(0.0)), whole, atol=1e-6)


def test_bounds_of_the_double_softmax() -> None:
    """However sure the model is, a segment costs between log(1 + 1 / e) and log(1 + e)."""
    sure = torch.tensor([[[99.0, -99.0]]])
    for label, expected in ((0, math.log1p(math.exp(-1)) / 2), (1, 4 * math.log1p(math.e))):
        got = compute_span_loss(sure, torch.tensor([[label]]))
        assert got.item() == pytest.approx(expected, abs=1e-6)
    assert compute_span_loss(sure, torch.tensor([[0]]), kind="corrected").item() == 0


def test_losses_that_cannot_be() -> None:
    logits = torch.zeros(1, 2, 2)
    with pytest.raises(ValueError, match=r"^span_loss must be one of authors, corrected: got 'x'$"):
        compute_span_loss(logits, torch.zeros(1, 2, dtype=torch.long), kind="x")
    with pytest.raises(ValueError, match=r"^span_logits must have the shape \[1, 3, 2\]: got "):
        compute_span_loss(logits, torch.zeros(1, 3, dtype=torch.long))
