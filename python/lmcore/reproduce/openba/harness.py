"""Claim: questions are answered alike by lmcore's scorer and by lm-evaluation-harness."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcore._extras import optional_imports
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Size
from lmcore.reproduce.openba.answers import learn_pairs
from lmcore.reproduce.openba.pretraining import Corpus
from lmcore.worlds.openba import LANGUAGES, make_world, write_piece_file
from lmcore.worlds.openba.tasks import read_facts

if TYPE_CHECKING:
    from lmcore.openba.questions import Question, QuestionSet

_OPTIONS = 4
# The authors' prompt of a question whose options do not stand in it.
_PROMPTS = "piqa"
_TASK = "roles"


@dataclass(kw_only=True, slots=True, frozen=True)
class _Sizes:
    """Of the experiment."""

    questions: int
    rows: int
    """Questions that are trained on."""
    steps: int
    hidden_size: int


_SIZES: dict[Size, _Sizes] = {
    "tiny": _Sizes(questions=12, rows=40, steps=2, hidden_size=16),
    "full": _Sizes(questions=300, rows=4000, steps=90, hidden_size=64),
}


def measure_harness(seed: int, size: Size) -> Measurement:
    """Returns the accuracy of a small model as two programs measure it.

    Args:
        seed: of the questions, of the weights and of training.
        size: of the model, and how many steps and questions.

    Returns:
        `ours` and `theirs`, answers that are right in per cent, and `differ`, how many questions
        are answered with another option; `apart`, the largest difference of two scores of an
        option, in nats.
    """
    sizes = _SIZES[size]
    with tempfile.TemporaryDirectory() as folder:
        made = list(_generate(seed, sizes.questions + sizes.rows))
        model, tokenizer = _train(Path(folder), seed, sizes, made[sizes.questions :])
        questions = _write(Path(folder), made[: sizes.questions])
        ours = _answer(Path(folder), model, tokenizer, questions)
        theirs = _answer_by_harness(model, tokenizer, questions)
    right = np.array([question.answer for question in questions.questions])
    chosen = [scores.argmax(axis=1) for scores in (ours, theirs)]
    return Measurement(
        values={
            "ours": 100 * float((chosen[0] == right).mean()),
            "theirs": 100 * float((chosen[1] == right).mean()),
            "differ": float((chosen[0] != chosen[1]).sum()),
            "apart": float(np.abs(ours - theirs).max()),
        }
    )


def _generate(seed: int, count: int) -> Iterator[dict[str, Any]]:
    """Questions after somebody's role, which her deeds tell, in the form of MMLU's files."""
    roles = LANGUAGES["en"].roles
    for number, document in enumerate(make_world(seed, documents=2 * count).documents[::2]):
        facts = read_facts(document)
        place, right = number % _OPTIONS, roles.index(facts.role)
        options = [roles[(right + step - place) % len(roles)] for step in range(_OPTIONS)]
        # The first sentence and the last one say it.
        middle = document.text.split(". ")[1:-1]
        yield {
            "question": f"{'. '.join(middle)}. What was {facts.name}?",
            **{f"res{1 + step}": option for step, option in enumerate(options)},
            "ans": "ABCD"[place],
        }  # fmt: skip


def _write(folder: Path, rows: Sequence[dict[str, Any]]) -> QuestionSet:
    from lmcore.openba.questions import read_questions

    file = folder / f"{_TASK}_test.json"
    content = [{"demo": [], "data": row} for row in rows]
    file.write_text(json.dumps(content), encoding="utf-8")
    return read_questions(file, "mmlu")


def _train(
    folder: Path, seed: int, sizes: _Sizes, rows: Sequence[dict[str, Any]]
) -> tuple[Any, Any]:
    """A model that knows some of the answers, and its tokenizer."""
    import torch

    from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration, OpenBATokenizer, Pairs
    from lmcore.openba.models import find_ids

    write_piece_file(folder / "spiece.model")
    tokenizer = OpenBATokenizer(folder / "spiece.model")
    torch.manual_seed(seed)
    size = sizes.hidden_size
    model: Any = OpenBAForConditionalGeneration(
        OpenBAConfig(
            vocab_size=tokenizer.padded_size(), hidden_size=size, num_heads=4,
            kv_channels=max(2, size // 4), ffn_hidden_size=2 * size, swiglu_rule=False,
            encoder_layers=1, decoder_layers=2, hidden_dropout=0.0, attention_dropout=0.0,
            add_qkv_bias=True, add_lm_head_bias=True, tie_word_embeddings=False,
        )
    )  # fmt: skip
    ids = find_ids(tokenizer)

    def encode(texts: Sequence[str]) -> list[list[int]]:
        found: list[list[int]] = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
        return found

    questions = _write(folder, rows).questions
    answers = [question.options[question.answer or 0] for question in questions]
    targets = [[*target, ids.eos] for target in encode(answers)]
    pairs = Pairs(encode([_ask(question) for question in questions]), targets)
    nothing = np.zeros((0, 2), np.int64)
    corpus = Corpus(
        train=nothing, test=nothing, vocabulary_size=len(tokenizer), ids=ids,
        prefixes={name: tokenizer.prefix_ids[f"<{name}>"] for name in "RSX"},
    )  # fmt: skip
    learn_pairs(model, pairs, corpus, seed=seed, steps=sizes.steps)
    return model.eval(), tokenizer


def _ask(question: Question) -> str:
    from lmcore.openba.question_prompts import PROMPTS, make_source

    return make_source(question, PROMPTS[_PROMPTS]["loss"]).rstrip()


def _answer(folder: Path, model: Any, tokenizer: Any, questions: QuestionSet) -> Any:
    """The negative mean loss of each option, by lmcore: `[N, 4]`."""
    from lmcore.openba import EvaluationConfig, evaluate

    out = folder / "rows.jsonl"
    evaluate(
        model, tokenizer, questions, config=EvaluationConfig(by="loss", prompts=_PROMPTS),
        out=out,
    )  # fmt: skip
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    return -np.array([row["scores"] for row in rows])


def _answer_by_harness(model: Any, tokenizer: Any, questions: QuestionSet) -> Any:
    """The log-likelihood of each option, by lm-evaluation-harness: `[N, 4]`."""
    with optional_imports():
        import datasets
        from lm_eval import simple_evaluate
        from lm_eval.api.task import ConfigurableTask

    from lmcore.openba.harness import OpenBALM

    rows = [
        {"text": _ask(question), "options": list(question.options), "answer": question.answer}
        for question in questions.questions
    ]
    task = ConfigurableTask(
        config={
            "task": _TASK,
            "custom_dataset": lambda **_: {"test": datasets.Dataset.from_list(rows)},
            "test_split": "test",
            "output_type": "multiple_choice",
            "doc_to_text": "{{text}}",
            "doc_to_choice": "options",
            "doc_to_target": "answer",
            "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        }
    )
    found = simple_evaluate(
        model=OpenBALM(model, tokenizer), tasks=[task], bootstrap_iters=0, log_samples=True
    )
    samples = sorted(found["samples"][_TASK], key=lambda sample: sample["doc_id"])
    scores = np.array([[score for score, _ in sample["filtered_resps"]] for sample in samples])
    # What is compared is what it counted itself.
    counted = float(np.mean([sample["acc"] for sample in samples]))
    assert counted == found["results"][_TASK]["acc,none"]
    return scores


def no_question_differs(estimates: Estimates) -> bool:
    """Returns whether both chose the same option of every question, with every seed.

    Args:
        estimates: the numbers of `measure_harness`.
    """
    return estimates["differ"].mean == 0 and estimates["ours"] == estimates["theirs"]


def _describe(estimates: Estimates) -> str:
    return (
        f"answers that are right, %: lmcore {estimates['ours'].format(2)}, lm-evaluation-harness "
        f"{estimates['theirs'].format(2)}\n"
        f"questions that are answered with another option: {estimates['differ'].format(1)}\n"
        f"largest difference of two scores of an option, nats: {estimates['apart'].mean:.1e}"
    )


CLAIMS = (
    Claim(
        id="harness",
        system="openba",
        statement="lm-evaluation-harness and lmcore's own scorer give the same numbers.",
        source="none; beyond the paper, whose code has a scorer of its own",
        paper="none",
        setting=(
            "A small OpenBA, trained for some steps to say what somebody is whose deeds it reads, "
            "is asked for the likeliest of four roles, which are a token each: by `lmcore openba "
            "evaluate`, and by lm-evaluation-harness through the adapter."
        ),
        measure=measure_harness,
        describe=_describe,
        rule="Both choose the same option of every question, with every seed.",
        expected="reproduced",
        needs=("package:lm-eval",),
        sizes=("tiny", "full"),
        holds=no_question_differs,
    ),
)
