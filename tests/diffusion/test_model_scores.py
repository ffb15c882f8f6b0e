"""Perplexity and BERTScore of tiny models, against plain loops."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cosine_similarity
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel

from commands import check_line, run_here
from lmcore._folder_models import load_folder
from lmcore.diffusion import compute_bert_scores, compute_perplexity
from lmcore.diffusion.model_scores import BertScores
from lmcore.ner.models import make_tokenizer
from lmcore.reproduce.compression.sentence_pairs import find_model

TEXTS = ["a b", "a", "c a b b a", "b c", "a c c"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both models side by side, and a tokenizer of letters."""
    place = tmp_path_factory.mktemp("models")
    tokenizer = make_tokenizer(["a b c"], 300)
    size = len(tokenizer)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    encoder = BertConfig(vocab_size=size, intermediate_size=16, max_position_embeddings=20, **sizes)
    decoder = GPT2Config(
        vocab_size=size, n_embd=16, n_layer=2, n_head=2, n_positions=20, bos_token_id=None,
        eos_token_id=None,
    )  # fmt: skip
    models = {"encoder": BertModel(encoder), "decoder": GPT2LMHeadModel(decoder)}
    for name, model in models.items():
        for weight in model.parameters():  # far from uniform, so that mistakes show
            torch.nn.init.normal_(weight, std=0.5)
        model.save_pretrained(place / name)
        tokenizer.save_pretrained(place / name)
    return place


@torch.inference_mode()
def test_perplexity_is_that_of_a_loop(folder: Path) -> None:
    tokenizer, model = load_folder(folder / "decoder", type_of("AutoModelForCausalLM"), "cpu")
    means = []
    for text in TEXTS:
        row = tokenizer(text)["input_ids"]
        logs = model(torch.tensor([row])).logits[0].log_softmax(-1)
        losses = [-logs[place, token].item() for place, token in enumerate(row[1:])]
        if losses:
            means.append(sum(losses) / len(losses))
    for batch_size in (1, 2, 16):
        got = compute_perplexity(TEXTS, folder / "decoder", batch_size=batch_size, device="cpu")
        assert got.value == pytest.approx(math.exp(sum(means) / len(means)), rel=1e-5)
        assert got.left_out == len(TEXTS) - len(means)


@torch.inference_mode()
@pytest.mark.parametrize("layer", [None, 0, 1])
def test_bert_scores_are_those_of_a_loop(folder: Path, layer: int | None) -> None:
    tokenizer, model = load_folder(folder / "encoder", type_of("AutoModel"), "cpu")
    special = set(tokenizer.all_special_ids) - {tokenizer.unk_token_id}

    def look(text: str) -> tuple[list[int], torch.Tensor]:
        row = tokenizer(text)["input_ids"]
        states = model(torch.tensor([row]), output_hidden_states=True).hidden_states
        return row, states[2 if layer is None else layer][0]

    def cover(one: str, other: str) -> float:
        (row, own), (_, others) = look(one), look(other)
        best = [
            max(cosine_similarity(state, place, dim=0).item() for place in others) for state in own
        ]
        kept = [value for token, value in zip(row, best, strict=True) if token not in special]
        return sum(kept) / len(kept)

    references = TEXTS[::-1]
    pairs = list(zip(TEXTS, references, strict=True))
    precisions = [cover(a, b) for a, b in pairs]
    recalls = [cover(b, a) for a, b in pairs]
    both = [2 * p * r / (p + r) for p, r in zip(precisions, recalls, strict=True)]
    for batch_size in (1, 3):
        got = compute_bert_scores(
            TEXTS, references, folder / "encoder", layer=layer, batch_size=batch_size, device="cpu"
        )
        means = [sum(values) / len(pairs) for values in (precisions, recalls, both)]
        assert list(got) == pytest.approx(means, rel=1e-5)


@torch.inference_mode()
def test_bert_scores_of_a_trained_model() -> None:
    """MiniLM, whose tokenizer's file cuts texts at 128 tokens: no token may be lost."""
    try:
        place = find_model()
    except ImportError as error:
        if os.environ.get("LMCORE_REQUIRE_DATA") == "1":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(str(error))
    tokenizer, model = load_folder(place, type_of("AutoModel"), "cpu")
    outputs = ["how can i learn to cook ?", "a cat sat . " * 40, "unaffable"]
    references = ["what is the best way to learn cooking ?", "the cat sat down . " * 50, "kind"]
    expected = []
    for pair in zip(outputs, references, strict=True):
        rows = [tokenizer(text, return_tensors="pt") for text in pair]
        own, gold = (
            torch.nn.functional.normalize(model(**row).last_hidden_state[0], dim=-1) for row in rows
        )
        cosines = own @ gold.T
        # [CLS] and [SEP] stand at the ends: they are looked at, and do not count.
        found = (cosines.max(1).values[1:-1].mean(), cosines.max(0).values[1:-1].mean())
        p, r = (value.item() for value in found)
        expected.append((p, r, 2 * p * r / (p + r)))
    assert tokenizer(outputs[1], return_tensors="pt")["input_ids"].shape[1] == 162
    got = compute_bert_scores(outputs, references, place, device="cpu")
    assert list(got) == pytest.approx([sum(v) / 3 for v in zip(*expected, strict=True)], rel=1e-5)
    assert got.f1 < 0.95


def type_of(name: str) -> Any:
    import transformers

    return getattr(transformers, name)


def test_equal_texts_match_wholly(folder: Path) -> None:
    got = compute_bert_scores(TEXTS, TEXTS, folder / "encoder", device="cpu")
    assert list(got) == pytest.approx([1, 1, 1], rel=1e-6)


def test_the_best_of_several_references_counts(folder: Path) -> None:
    gold = [["a b", "c c a"], ["b"], ["c", "b b", "c a b"], ["b c a"], ["b", "a c"]]

    def compute(outputs: list[str], references: list[Any]) -> BertScores:
        return compute_bert_scores(outputs, references, folder / "encoder", device="cpu")

    alone = [
        [compute([text], [one]) for one in several]
        for text, several in zip(TEXTS, gold, strict=True)
    ]
    best = [[max(values) for values in zip(*scores, strict=True)] for scores in alone]
    means = [sum(values) / len(TEXTS) for values in zip(*best, strict=True)]
    assert list(compute(TEXTS, gold)) == pytest.approx(means, rel=1e-5)
    assert compute(["a b"], [["c"]]) == compute(["a b"], ["c"])
    with pytest.raises(ValueError, match=r"^references\[1\] must hold at least one text$"):
        compute(["a", "b"], ["a", []])


def test_command(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    rows = [{"recover": f"[CLS] {text} [SEP]", "reference": "a b", "source": ""} for text in TEXTS]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    models = ["--perplexity", folder / "decoder", "--bertscore", folder / "encoder"]
    options = [*models, "--bertscore-layer", 1, "--device", "cpu", "--json"]
    code, output, errors = run_here("diffusion", "score", file, *options)
    assert (code, errors) == (0, "")
    found = json.loads(output)
    bert = compute_bert_scores(TEXTS, ["a b"] * 5, folder / "encoder", layer=1, device="cpu")
    names = {"perplexity": TEXTS, "perplexity_reference": ["a b"]}
    for name, texts in names.items():
        expected = compute_perplexity(texts, folder / "decoder", device="cpu").value
        assert found[name] == pytest.approx(expected)
    assert [found[f"bertscore_{name}"] for name in bert._fields] == list(bert)


def test_what_cannot_be_used(folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"recover": "a", "reference": "b", "source": "c"}\n')

    def check(option: str, place: Path, *texts: str, more: Any = ()) -> None:
        result = run_here("diffusion", "score", file, option, place, "--device", "cpu", *more)
        check_line(result, str(place), *texts)

    check("--perplexity", tmp_path / "none", "no such folder of a model")
    check("--perplexity", tmp_path, "no model that can be loaded")
    check("--perplexity", folder / "encoder", "lacks cls.")
    layers = run_here(
        "diffusion", "score", file, "--bertscore", folder / "encoder", "--bertscore-layer", 3
    )
    check_line(layers, "layer must be at least 0 and at most 2: got 3")
    long = " ".join(["a"] * 30)
    for compute in (
        lambda: compute_perplexity(["b", long], folder / "decoder", device="cpu"),
        lambda: compute_bert_scores(["b", long], ["b"] * 2, folder / "encoder", device="cpu"),
    ):
        with pytest.raises(ValueError, match=r"^texts\[\d\] has \d+ tokens: .* takes at most 20$"):
            compute()
    with pytest.raises(ValueError, match=r"^texts must hold one of two tokens at least$"):
        compute_perplexity([""], folder / "decoder", device="cpu")
    with pytest.raises(ValueError, match=r"^outputs and references must have the same length: got"):
        compute_bert_scores(["a"], [], folder / "encoder")
    for call in (lambda: compute_perplexity([], "x"), lambda: compute_bert_scores([], [], "x")):
        with pytest.raises(ValueError, match=r"must hold at least one text$"):
            call()
