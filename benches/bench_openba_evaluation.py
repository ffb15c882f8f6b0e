"""Answers to questions with options, against the authors' scorer that asks one question at a time.

A model of random weights, hidden size 256, 4 encoder and 12 decoder blocks (a third, as in OpenBA),
OpenBA's vocabulary, on MMLU with five demonstrations and without and on C-Eval (`LMCORE_DATA`), on
one CPU thread, with `--full` on two as well. Both sides begin with texts and a loaded model. CPU
time counts, which others on the machine disturb less.

The opponent is the authors' algorithm, written again over the same model and tokenizer: of the
prompts with ever fewer demonstrations it tokenizes one after the other until one fits; by letter
it computes the logits of all tokens at all positions for one question; by loss its batch is the
options of one question, the release's default of four rows, and the encoder reads the question
once for each. All answers are asserted to be equal first, and scores within 1e-4.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from lmcore.openba import (
    EvaluationConfig,
    OpenBAConfig,
    OpenBAForConditionalGeneration,
    OpenBATokenizer,
    Question,
    QuestionSet,
    evaluate,
    read_questions,
)
from lmcore.openba.question_prompts import PROMPTS, find_prompt_name, make_source
from timing import Row, is_full, make_row, print_conditions, save

WINDOW = 1024
LETTERS = "ABCD"
# Questions of each suite, half as many with demonstrations; with --full all of them.
ASKED = 16
ROUNDS = 3


def make_pair(data: Path) -> tuple[OpenBAForConditionalGeneration, OpenBATokenizer]:
    """Returns a model whose answers depend on the question, and its tokenizer.

    Texts are cut by a file of 32,768 pieces; tokens that never come fill OpenBA's vocabulary.
    """
    pieces = data / "tok" / "mistral_v3_spm_32768.model"
    unused = [f"<unused {number}>" for number in range(250_100 - 32_768)]
    tokenizer = OpenBATokenizer(pieces, extra_tokens=unused)
    torch.manual_seed(0)
    config = OpenBAConfig(
        vocab_size=tokenizer.padded_size(), hidden_size=256, kv_channels=64, num_heads=5,
        ffn_hidden_size=1024, encoder_layers=4, decoder_layers=12, max_seq_length=WINDOW,
        decoder_max_seq_length=WINDOW, add_qkv_bias=True, add_lm_head_bias=True,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=tokenizer.pad_token_id, tie_word_embeddings=False,
        initializer_factor=3.0,
    )  # fmt: skip
    return OpenBAForConditionalGeneration(config).eval(), tokenizer


class OneAtATime:
    """The authors' scorer.

    Args:
        model: an OpenBA.
        tokenizer: of the model.
        suite: whose prompts ask.
        by: `letter` or `loss`.
    """

    def __init__(self, model: Any, tokenizer: Any, suite: str, by: str) -> None:
        self._model, self._tokenizer, self._suite = model, tokenizer, suite
        self._prompt = PROMPTS[find_prompt_name(suite)][by]
        self._score = self._score_letters if by == "letter" else self._score_options

    @torch.no_grad()
    def __call__(self, questions: Sequence[Question]) -> list[list[float]]:
        """Returns the scores of the options of each question."""
        return [self._score(question, self._choose(question)) for question in questions]

    def _choose(self, question: Question) -> str:
        texts = [
            make_source(question, self._prompt, question.demos[:shots], suite=self._suite)
            for shots in range(len(question.demos) + 1)
        ]
        for text in reversed(texts):
            if len(self._tokenizer(text, verbose=False)["input_ids"]) + 2 <= WINDOW:
                break
        return f"<S> {text} <extra_id_0>"

    def _score_letters(self, question: Question, text: str) -> list[float]:
        source = self._tokenizer(text, return_tensors="pt", max_length=WINDOW, truncation=True)
        # mT5's pieces have none for a space at the end, and these here have.
        start = f"<extra_id_0> {self._prompt.answer_start}".strip()
        target = self._tokenizer(start, return_tensors="pt")["input_ids"]
        shifted = self._model.prepare_decoder_input_ids_from_labels(target)
        output = self._model(input_ids=source["input_ids"], decoder_input_ids=shifted)
        logits = output.logits[:, -1, :].contiguous()[0]
        return [
            float(logits[self._tokenizer.convert_tokens_to_ids(letter)])
            for letter in LETTERS[: len(question.options)]
        ]

    def _score_options(self, question: Question, text: str) -> list[float]:
        count = len(question.options)
        self._tokenizer.padding_side = "left"
        options = {"return_tensors": "pt", "padding": "longest", "max_length": WINDOW}
        source = self._tokenizer([text] * count, truncation=True, **options)
        texts = [f"<extra_id_0> {option}" for option in question.options]
        target = self._tokenizer(texts, truncation=True, **options)
        shifted = self._model.prepare_decoder_input_ids_from_labels(target["input_ids"])
        logits = self._model(
            input_ids=source["input_ids"],
            attention_mask=source["attention_mask"],
            decoder_input_ids=shifted,
            decoder_attention_mask=target["attention_mask"],
        ).logits
        pad = self._tokenizer.pad_token_id
        sentinel = self._tokenizer.convert_tokens_to_ids("<extra_id_0>")
        losses = []
        for found, wanted in zip(logits, target["input_ids"], strict=True):
            labels = torch.where(wanted == sentinel, pad, wanted)
            losses.append(float(cross_entropy(found[:-1], labels[:-1], ignore_index=pad)))
        return losses


def choose(scores: Sequence[float], by: str) -> str:
    """Returns the letter that is chosen."""
    best = max(scores) if by == "letter" else min(scores)
    return LETTERS[scores.index(best)]


def compare_scorers(
    pair: tuple[Any, Any], suite: QuestionSet, by: str, threads: int, batch_size: int
) -> list[Row]:
    """Returns the row of both scorers, after it has asserted equal answers."""
    config = EvaluationConfig(by=by, batch_size=batch_size)
    theirs = OneAtATime(*pair, suite.task, by)

    def ours() -> object:
        return evaluate(*pair, suite, config=config)

    torch.set_num_threads(threads)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "rows.jsonl")
        evaluate(*pair, suite, config=config, out=file)
        rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    wanted = theirs(suite.questions)
    for row, scores in zip(rows, wanted, strict=True):
        assert row["prediction"] == choose(scores, by), (row, scores)
        assert max(abs(a - b) for a, b in zip(row["scores"], scores, strict=True)) < 1e-4
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(ROUNDS):
        times[0].append(measure(lambda: theirs(suite.questions)))
        times[1].append(measure(ours))
    case = (
        f"{len(rows)} questions of {suite.task}, {suite.shots} demonstrations, by {by}, "
        f"CPU time of {threads} thread{'s' * (threads > 1)}"
    )
    return [
        make_row(
            "openba_evaluation", case, ("the authors' algorithm", times[0]),
            (f"batches of {batch_size}", times[1]), "3x",
        )
    ]  # fmt: skip


def measure(call: Callable[[], object]) -> float:
    """Returns milliseconds of CPU time, over all threads."""
    start = time.process_time()
    call()
    return 1e3 * (time.process_time() - start)


def main() -> None:
    """Prints the comparisons."""
    print_conditions()
    data = Path(os.environ["LMCORE_DATA"])
    pair = make_pair(data)
    suites = [
        read_questions(data / "eval/mmlu_5shot", "mmlu"),
        read_questions(data / "eval/ceval", "ceval"),
        read_questions(data / "eval/mmlu_5shot", "mmlu", shots=5),
    ]
    rows: list[Row] = []
    for suite in suites:
        # From all over a suite, so that short and long ones are among them.
        asked = len(suite.questions) if is_full() else ASKED // (1 + (suite.shots > 0))
        step = len(suite.questions) // asked
        suite = replace(suite, questions=suite.questions[::step][:asked])
        for by in ("letter", "loss"):
            for threads in (1, 2) if is_full() else (1,):
                rows += compare_scorers(pair, suite, by, threads, 16)
    if "--save" in sys.argv[1:]:
        save("openba_evaluation", rows)


if __name__ == "__main__":
    main()
