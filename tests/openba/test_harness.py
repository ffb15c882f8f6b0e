"""OpenBA in lm-evaluation-harness: a local task, held against lmcore's own scorer."""

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from lmcore._extras import MissingExtra
from lmcore.openba import EvaluationConfig, evaluate, harness, read_questions
from lmcore.openba.answers import AnswerScorer
from lmcore.openba.harness import OpenBALM
from tiny_generation import make_pair, save_pair
from tiny_questions import make_pairs, write_json, write_lines

LONG = {"max_seq_length": 1024, "decoder_max_seq_length": 1024}
needs_harness = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"
)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "HF_EVALUATE_OFFLINE"):
        monkeypatch.setenv(name, "1")


@pytest.fixture
def pairs(tmp_path: Path) -> list[dict[str, Any]]:
    """Questions whose options have different numbers of tokens."""
    rows = make_pairs(24)
    for number, row in enumerate(rows):
        row["data"]["question"] += " Ada met Otto." * (number % 3)
        row["data"][f"res{number % 4 + 1}"] += " Kelp" * (number % 2)
    write_json(tmp_path / "anatomy.json", rows)
    return rows


def run_task(lm: Any, tmp_path: Path, rows: list[dict[str, Any]], **changes: Any) -> Any:
    """Results and samples of a task that is made here."""
    import lm_eval

    file = write_lines(tmp_path / "task.jsonl", rows)
    task = {
        "task": "local", "dataset_path": "json", "test_split": "test",
        "dataset_kwargs": {"data_files": {"test": str(file)}, "cache_dir": str(tmp_path / "c")},
        "output_type": "multiple_choice", "doc_to_text": "{{text}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "{{answer}}",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        **changes,
    }  # fmt: skip
    found = lm_eval.simple_evaluate(model=lm, tasks=[task], log_samples=True, bootstrap_iters=0)
    return found["results"]["local"], found["samples"]["local"]


def make_docs(rows: list[dict[str, Any]], *, letters: bool) -> list[dict[str, Any]]:
    """The same prompts as lmcore's, written out."""
    docs = []
    for row in rows:
        data = row["data"]
        options = [data[f"res{n}"] for n in range(1, 5)]
        shown = [f"{letter}. {text}" for letter, text in zip("ABCD", options, strict=True)]
        text = f"Question: {data['question']} Options: {' '.join(shown)} Answer:"
        if not letters:
            text = (
                f"Question: {data['question']} OPTIONS: {' '.join(f'- {o}' for o in options)} "
                "Choose one of the options as an answer to the question."
            )
        choices = list("ABCD") if letters else options
        docs.append({"text": text, "choices": choices, "answer": "ABCD".index(data["ans"])})
    return docs


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@needs_harness
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_letters_are_those_of_our_scorer(
    pairs: list[dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    """With bare letters: the same choices, and the same accuracy."""
    model, tokenizer = make_pair(seed, **LONG)
    suite = read_questions(tmp_path / "anatomy.json", "mmlu")
    found = evaluate(model, tokenizer, suite, out=tmp_path / "rows.jsonl")
    lm = OpenBALM(model, tokenizer, bare_letters=True)
    results, samples = run_task(lm, tmp_path, make_docs(pairs, letters=True))
    assert results["acc,none"] == pytest.approx(found.total.accuracy)
    for row, sample in zip(read_rows(tmp_path / "rows.jsonl"), samples, strict=True):
        values = [value for value, _ in sample["filtered_resps"]]
        assert "ABCD"[values.index(max(values))] == row["prediction"]
        # Log-probabilities are logits less a number that all letters share.
        differences = [a - b for a, b in zip(values, row["scores"], strict=True)]
        assert differences == pytest.approx([differences[0]] * 4, abs=1e-4)


@needs_harness
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_losses_are_those_of_our_scorer(
    pairs: list[dict[str, Any]], tmp_path: Path, seed: int
) -> None:
    """The harness adds up what our scorer takes the mean of."""
    model, tokenizer = make_pair(seed, **LONG)
    suite = read_questions(tmp_path / "anatomy.json", "mmlu")
    config = EvaluationConfig(by="loss")
    found = evaluate(model, tokenizer, suite, config=config, out=tmp_path / "rows.jsonl")
    scorer = AnswerScorer(model, tokenizer)
    docs = make_docs(pairs, letters=False)
    results, samples = run_task(OpenBALM(model, tokenizer), tmp_path, docs)
    chosen, sums = [], []
    for row, sample in zip(read_rows(tmp_path / "rows.jsonl"), samples, strict=True):
        values = [value for value, _ in sample["filtered_resps"]]
        counts = [len(scorer.encode_continuation(text)) for text in sample["doc"]["choices"]]
        means = [-value / count for value, count in zip(values, counts, strict=True)]
        assert means == pytest.approx(row["scores"], abs=1e-4)
        chosen.append("ABCD"[means.index(min(means))] == row["answer"])
        sums.append(values.index(max(values)) == sample["doc"]["answer"])
    assert found.total.accuracy == pytest.approx(sum(chosen) / 24)
    assert results["acc,none"] == pytest.approx(sum(sums) / 24)


@needs_harness
def test_other_kinds_of_tasks(tmp_path: Path) -> None:
    """A task that generates and one of perplexity, with the model named as a user names it."""
    from lm_eval.api.registry import get_model, model_registry

    folder = save_pair(tmp_path / "model", **LONG)
    assert get_model("openba") is OpenBALM
    assert "hf" in model_registry
    lm = get_model("openba").create_from_arg_string(
        f"pretrained={folder},batch_size=4,max_gen_toks=5", {"device": "cpu"}
    )
    docs = [{"text": "Ada met", "answer": "Otto"}, {"text": "Otto lived in", "answer": "Kelp"}]
    _, samples = run_task(
        lm, tmp_path, docs, output_type="generate_until", doc_to_choice=None,
        generation_kwargs={"until": ["z"]},
        metric_list=[{"metric": "bleu", "aggregation": "bleu", "higher_is_better": True}],
    )  # fmt: skip
    assert all(isinstance(sample["filtered_resps"][0], str) for sample in samples)
    results, _ = run_task(
        lm, tmp_path, docs, output_type="loglikelihood_rolling", doc_to_choice=None, doc_to_text="",
        doc_to_target="{{text}}",
        metric_list=[{
            "metric": "word_perplexity", "aggregation": "weighted_perplexity",
            "higher_is_better": False,
        }],
    )  # fmt: skip
    losses = lm.loglikelihood_rolling([SimpleNamespace(args=(doc["text"],)) for doc in docs])
    words = sum(len(doc["text"].split()) for doc in docs)
    assert results["word_perplexity,none"] == pytest.approx(math.exp(-sum(losses) / words))
    with pytest.raises(ValueError, match="nowhere: no such folder of a model"):
        OpenBALM.create_from_arg_string("pretrained=nowhere")


@needs_harness
def test_long_texts(tmp_path: Path) -> None:
    """Of a context the end is read; of a text each token is scored once, behind those before."""
    model, tokenizer = make_pair(max_seq_length=12, decoder_max_seq_length=8)
    lm = OpenBALM(model, tokenizer, batch_size="auto")
    words = ["Ada", "met", "Otto", "lived", "in", "Kelp"]
    text = " ".join(words[n % 6] for n in range(20))
    [(value, _)] = lm.loglikelihood([SimpleNamespace(args=(text, " Ada"))])
    source = lm.scorer.encode(text)
    kept = [source[0], *source[-11:]]
    [[wanted]] = lm.scorer.score_continuations([kept], [[lm.scorer.encode_continuation("Ada")]])
    assert value == pytest.approx(-wanted.loss, abs=1e-4)
    ids = lm.scorer.encode_continuation(text)
    [total] = lm.loglikelihood_rolling([SimpleNamespace(args=(text,))])
    expected, start, sentinel = 0.0, source[:1], source[-2:]
    for first in range(0, len(ids), 6):
        before = ids[max(0, first - 6) : first]
        part = ids[first : first + 6]
        with torch.no_grad():
            logits = model(
                torch.tensor([[*start, *before, *sentinel]]),
                decoder_input_ids=torch.tensor([[*lm.scorer.start, *part[:-1]]]),
            ).logits[0, 1:]
        scores = logits.log_softmax(-1)[range(len(part)), part]
        expected += float(scores.sum())
    assert total == pytest.approx(expected, abs=1e-3)
    assert lm.loglikelihood_rolling([SimpleNamespace(args=("",))]) == [0.0]
    [answer] = lm.generate_until([SimpleNamespace(args=(text, {"max_gen_toks": 3}))])
    assert isinstance(answer, str)


@needs_harness
def test_generated_texts_end_where_they_shall() -> None:
    lm = OpenBALM(*make_pair(**LONG), max_gen_toks=6)
    settings: dict[str, Any] = {"until": []}
    [whole] = lm.generate_until([SimpleNamespace(args=("Ada met", settings))])
    end = whole[len(whole) // 2]
    [cut] = lm.generate_until([SimpleNamespace(args=("Ada met", {"until": [end]}))])
    assert cut == whole.partition(end)[0]
    drawn = {"do_sample": True, "temperature": 1.5, "top_k": 5}
    requests = [SimpleNamespace(args=("Ada met", drawn)) for _ in range(4)]
    assert len(set(lm.generate_until(requests))) > 1


def test_without_the_harness(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy of the module, imported where there is no harness, makes no model."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "lm_eval"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    spec = importlib.util.spec_from_file_location("harness_alone", harness.__file__)
    assert spec is not None
    assert spec.loader is not None
    alone = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(alone)
    with pytest.raises(MissingExtra, match=r"lm_eval is not installed: pip install .*\[eval\]"):
        alone.OpenBALM("model")
    assert alone.NAME == "openba"
