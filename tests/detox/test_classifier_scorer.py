"""Scorers of transformers' folders, against plain loops; perplexity and embeddings of folders."""

import json
import math
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertConfig,
    BertForSequenceClassification,
    BertModel,
    GPT2Config,
    GPT2LMHeadModel,
    RobertaConfig,
    RobertaForSequenceClassification,
)

from commands import check_line, run_here
from lmcore.detox import load_detoxify, load_scorer, load_similarity
from lmcore.detox.classifier_scorer import ClassifierScorer
from lmcore.detox.model_scores import compute_perplexity
from tiny_scorers import make_letter_tokenizer, write_jsonl

TEXTS = ["a b", "", "c a b b a", "b c", "a c c"]
LONG = " ".join("abc"[number * number % 3] for number in range(50))
SIZES = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models of all kinds, and a tokenizer of letters."""
    place = tmp_path_factory.mktemp("models")
    tokenizer = make_letter_tokenizer()
    size = len(tokenizer)
    torch.manual_seed(0)
    labels = {"id2label": {0: "neutral", 1: "Toxic"}, "label2id": {"neutral": 0, "Toxic": 1}}
    bert = BertConfig(vocab_size=size, max_position_embeddings=20, **SIZES)
    multi = BertConfig(
        vocab_size=size, max_position_embeddings=20, problem_type="multi_label_classification",
        **labels, **SIZES,
    )  # fmt: skip
    models = {
        "softmax": BertForSequenceClassification(
            BertConfig(vocab_size=size, max_position_embeddings=20, **labels, **SIZES)
        ),
        "sigmoid": BertForSequenceClassification(multi),
        "roberta": RobertaForSequenceClassification(
            RobertaConfig(
                vocab_size=size, max_position_embeddings=21, pad_token_id=tokenizer.pad_token_id,
                **labels, **SIZES,
            )
        ),
        "encoder": BertModel(bert),
        "decoder": GPT2LMHeadModel(
            GPT2Config(vocab_size=size, n_embd=16, n_layer=1, n_head=2, n_positions=30)
        ),
    }  # fmt: skip
    for name, model in models.items():
        for weight in model.parameters():  # far from uniform, so that mistakes show
            torch.nn.init.normal_(weight, std=0.5)
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


def load(path: Path) -> tuple[Any, Any]:
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    return AutoTokenizer.from_pretrained(path), model


@torch.inference_mode()
@pytest.mark.parametrize("name", ["softmax", "sigmoid", "roberta"])
def test_scores_are_those_of_a_loop(folder: Path, name: str) -> None:
    tokenizer, model = load(folder / name)
    expected = []
    for text in TEXTS:
        logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0]
        shares = logits.sigmoid() if name == "sigmoid" else logits.softmax(-1)
        expected.append(shares[1].item())
    for batch_size in (1, 2, 16):
        scorer = ClassifierScorer.load(folder / name, device="cpu", batch_size=batch_size)
        assert scorer(TEXTS).tolist() == pytest.approx(expected, rel=1e-5)
        assert scorer.windowed_texts == 0
    other = ClassifierScorer.load(folder / name, device="cpu", label="neutral")
    assert other.key != scorer.key
    if name == "softmax":
        assert other(TEXTS).tolist() == pytest.approx([1 - score for score in expected], rel=1e-4)


@torch.inference_mode()
@pytest.mark.parametrize("name", ["softmax", "roberta"])
def test_long_texts_are_read_in_windows(folder: Path, name: str, tmp_path: Path) -> None:
    tokenizer, model = load(folder / name)
    scorer = ClassifierScorer.load(folder / name, device="cpu")
    # RoBERTa's 21 positions start behind that of the padding.
    first = 0 if name == "softmax" else tokenizer.pad_token_id + 1
    assert scorer.window_tokens == (20 if name == "softmax" else 21 - first)
    ids = tokenizer(LONG, add_special_tokens=False)["input_ids"]
    room = scorer.window_tokens - 2
    step = room - scorer.window_tokens // 8
    starts = [0]
    while starts[-1] + room < len(ids):
        starts.append(starts[-1] + step)
    expected = 0.0
    for start in starts:
        window = [tokenizer.cls_token_id, *ids[start : start + room], tokenizer.sep_token_id]
        expected = max(expected, model(torch.tensor([window])).logits[0].softmax(-1)[1].item())
    assert scorer([LONG, "a"])[0] == pytest.approx(expected, rel=1e-5)
    assert scorer.windowed_texts == 1
    texts = write_jsonl(tmp_path / "in.jsonl", [{"text": LONG}])
    _, output, errors = run_here("detox", "score", texts, "--scorer", folder / name)
    assert json.loads(output)["toxicity"] == pytest.approx(expected, rel=1e-5)
    assert "1 texts are longer than the model's window" in errors


def test_labels_and_folders_that_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    texts = write_jsonl(tmp_path / "in.jsonl", [{"text": "a"}])
    given = ["detox", "score", texts, "--scorer"]
    check_line(run_here(*given, folder / "softmax", "--label", "other"), "neutral, Toxic")
    # Its head would be random.
    check_line(run_here(*given, folder / "encoder"), "lacks ", "random")
    check_line(run_here(*given, folder / "softmax", "--device", "other"), "device")
    (tmp_path / "empty").mkdir()
    check_line(run_here(*given, tmp_path / "empty"), "no model that can be loaded")
    with pytest.raises(ValueError, match="lone surrogate"):
        ClassifierScorer.load(folder / "softmax", device="cpu")(["\ud800"])


# detoxify.


def test_detoxify_is_read_where_it_is_trusted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, model = load(folder / "sigmoid")
    asked: dict[str, Any] = {}

    def make(**options: Any) -> Any:
        asked.update(options)
        names = ["toxicity", "insult"]
        return types.SimpleNamespace(tokenizer=tokenizer, model=model, class_names=names)

    monkeypatch.setitem(sys.modules, "detoxify", types.SimpleNamespace(Detoxify=make))
    checkpoint = tmp_path / "toxic.ckpt"
    with pytest.raises(FileNotFoundError):
        load_detoxify(checkpoint, unpickle=True)
    checkpoint.write_bytes(b"not read")
    with pytest.raises(ValueError, match="can run code"):
        load_scorer("detoxify", checkpoint=checkpoint)
    assert asked == {}
    scorer = load_scorer("detoxify", checkpoint=checkpoint, unpickle=True, device="cpu")
    assert asked["checkpoint"] == str(checkpoint)
    assert asked["huggingface_config_path"] == str(tmp_path)  # so nothing is fetched
    with torch.inference_mode():
        logits = model(torch.tensor([tokenizer("a b")["input_ids"]])).logits[0]
    assert list(scorer(["a b"])) == pytest.approx([logits.sigmoid()[0].item()])
    other = load_scorer("detoxify", checkpoint=checkpoint, unpickle=True, label="insult")
    assert list(other(["a b"])) == pytest.approx([logits.sigmoid()[1].item()])
    monkeypatch.setitem(sys.modules, "detoxify", None)
    with pytest.raises(ImportError, match="detoxify"):
        load_scorer("detoxify", checkpoint=checkpoint, unpickle=True)


# Perplexity and similarity.


@torch.inference_mode()
def test_perplexity_is_that_of_a_loop(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "decoder")
    model = AutoModelForCausalLM.from_pretrained(folder / "decoder").eval()
    prompts, texts = ["a", "b c a", "c", "a"], [" b c", "a", " a b c a b", ""]
    means = []
    for prompt, text in zip(prompts, texts, strict=True):
        before = tokenizer(prompt)["input_ids"]
        row = before + tokenizer(text, add_special_tokens=False)["input_ids"]
        logs = model(torch.tensor([row])).logits[0].log_softmax(-1)
        losses = [-logs[p - 1, row[p]].item() for p in range(len(before), len(row))]
        if losses:
            means.append(sum(losses) / len(losses))
    for batch_size in (1, 3):
        found = compute_perplexity(
            prompts, texts, folder / "decoder", batch_size=batch_size, device="cpu"
        )
        assert found.value == pytest.approx(math.exp(sum(means) / 3), rel=1e-5)
        assert found.left_out == 1
    with pytest.raises(ValueError, match="takes at most 30"):
        compute_perplexity(["a"], [LONG], folder / "decoder", device="cpu")
    with pytest.raises(ValueError, match="no text has a token"):
        compute_perplexity(["a"], [""], folder / "decoder", device="cpu")


@torch.inference_mode()
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_similarity_is_that_of_a_loop(folder: Path, pooling: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder / "encoder")
    model = AutoModel.from_pretrained(folder / "encoder").eval()
    place = folder / "encoder" / "1_Pooling"
    place.mkdir(exist_ok=True)
    modes = {f"pooling_mode_{m}_tokens": m == pooling for m in ("mean", "max")}
    modes["pooling_mode_cls_token"] = pooling == "cls"
    (place / "config.json").write_text(json.dumps(modes))
    states = []
    for text in TEXTS:
        state = model(torch.tensor([tokenizer(text)["input_ids"]])).last_hidden_state[0]
        states.append(state[0] if pooling == "cls" else state.mean(0))
    others = [TEXTS[0], *TEXTS[:-1]]
    expected = [
        torch.cosine_similarity(states[one], states[other], dim=0).item()
        for one, other in enumerate([0, 0, 1, 2, 3])
    ]
    compare = load_similarity(folder / "encoder", device="cpu", batch_size=2)
    assert compare(TEXTS, others) == pytest.approx(expected, abs=1e-5)
    assert compare([], []) == []
    (place / "config.json").write_text('{"pooling_mode_max_tokens": true}')
    with pytest.raises(ValueError, match="pooling must be"):
        load_similarity(folder / "encoder", device="cpu")
    (place / "config.json").unlink()


def test_evaluation_with_all_models(folder: Path, tmp_path: Path) -> None:
    rows = [{"prompt": "a b", "generations": [" c a", " b b"]}] * 2
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    given = ["--scorer", folder / "softmax", "--perplexity", folder / "decoder"]
    given += ["--similarity", folder / "encoder", "--fluency", folder / "sigmoid"]
    given += ["--fluency-label", "neutral", "--cache", tmp_path / "cache", "--device", "cpu"]
    found = []
    for _ in range(2):
        code, output, errors = run_here("detox", "evaluate", source, *given, "--json")
        assert (code, errors) == (0, "")
        found.append(json.loads(output))
    assert found[0] == found[1]
    values = found[0]
    assert values["style_accuracy"] == pytest.approx(
        1 - sum(load_scorer(folder / "softmax")([" c a", " b b"])) / 2, rel=1e-5
    )
    assert 0 <= values["joint"] <= 1
    assert values["perplexity"] > 1
