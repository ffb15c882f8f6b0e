"""Confidence: the probabilities of label tokens, by hand and by transformers' own scores."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LogitsProcessorList

from lmcore.ner.confidence import measure_calibration, rate_entities, rate_labels
from lmcore.ner.generation import Annotator, Generation, Question, TokenRecorder
from lmcore.ner.instructions import write_instruction
from lmcore.ops.matching import parse_generation
from tiny_generators import (
    SENTENCES,
    TYPES,
    make_inputs,
    make_llama,
    make_t5,
    make_tokenizer,
)


def rate(pieces: list[str], probabilities: list[float]) -> list[float]:
    starts = [0, *np.cumsum([len(piece) for piece in pieces]).tolist()]
    return rate_labels("".join(pieces), starts, [math.log(p) for p in probabilities])


def test_a_label_is_its_tokens_and_the_bracket_behind() -> None:
    pieces = ["Ada", "(", "B", "-", "per", "son", ")", " ran", "(", "O", ")"]
    probabilities = [0.1, 0.1, 0.9, 1.0, 0.8, 0.7, 0.6, 0.1, 0.1, 0.5, 0.9]
    expected = [0.9 * 0.8 * 0.7 * 0.6, 0.5 * 0.9]
    assert rate(pieces, probabilities) == pytest.approx(expected)


def test_tokens_that_touch_a_label_count() -> None:
    assert rate(["Ada(", "B-x", ") ran", "(O)"], [0.1, 0.5, 0.5, 0.25]) == pytest.approx(
        [0.25, 0.25]
    )
    assert rate(["Ada(B-x) ran(O)"], [0.5]) == pytest.approx([0.5, 0.5])


@given(st.lists(st.sampled_from(["a", "(", ")", "(O)", "B-", "I-x", "O", " ", "\n", "é"])))
def test_words_are_those_that_are_parsed(pieces: list[str]) -> None:
    rated = rate(pieces, [0.5] * len(pieces))
    assert len(rated) == len(parse_generation("".join(pieces)).words)
    assert all(0 < p <= 0.5 for p in rated)


def test_entities_are_products_of_their_words() -> None:
    labels = ["O", "B-x", "I-x", "I-x", "B-x", "O"]
    assert rate_entities(labels, [0.1, 0.9, 0.8, 0.7, 0.6, 0.1]) == pytest.approx(
        [0.9 * 0.8 * 0.7, 0.6]
    )
    assert rate_entities([], []) == []
    with pytest.raises(ValueError, match="must have the same length: got 1 and 0"):
        rate_entities(["O"], [])
    with pytest.raises(ValueError, match="one more than log_probabilities: got 1 and 1"):
        rate_labels("", [0], [0.0])


def test_calibration_by_hand() -> None:
    confidences = [0.05, 0.15, 0.12, 0.95, 1.0, 0.0]
    right = [False, True, False, True, True, False]
    found = measure_calibration(confidences, right)
    # Bins: (0.05, 0), (0.15, 0.12), (0.95, 1.0).
    errors = [abs(0.05 / 2 - 0), abs(0.27 / 2 - 0.5), abs(1.95 / 2 - 1)]
    assert found.error == pytest.approx(sum(2 * error for error in errors) / 6)
    assert [part.count for part in found.bins] == [2, 2, 2]
    assert [part.accuracy for part in found.bins] == [0.0, 0.5, 1.0]


def test_a_calibrated_model_has_a_small_error() -> None:
    generator = np.random.default_rng(0)
    confidences = generator.random(20_000)
    right = generator.random(20_000) < confidences
    assert measure_calibration(confidences.tolist(), right.tolist()).error < 0.02
    sure = measure_calibration(np.sqrt(confidences).tolist(), right.tolist())
    assert sure.error == pytest.approx(2 / 3 - 1 / 2, abs=0.02)


def test_calibration_refuses() -> None:
    assert measure_calibration([], []).error == 0
    with pytest.raises(ValueError, match="got 1 and 0"):
        measure_calibration([0.5], [])
    for wrong in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"confidences\[1\] must be in \[0, 1\]"):
            measure_calibration([0.5, wrong], [True, True])
    with pytest.raises(ValueError, match="bins must be at least 1: got 0"):
        measure_calibration([0.5], [True], bins=0)


@pytest.mark.parametrize("num_beams", [1, 3])
def test_recorded_probabilities_are_those_of_generate(num_beams: int) -> None:
    tokenizer = make_tokenizer()
    model = make_t5(tokenizer, seed=2)
    inputs = make_inputs(tokenizer, SENTENCES)
    recorder = TokenRecorder(1, num_beams)
    found = model.generate(
        **inputs, max_new_tokens=12, do_sample=False, num_beams=num_beams,
        logits_processor=LogitsProcessorList([recorder]), output_scores=True,
        return_dict_in_generate=True,
    )  # fmt: skip
    beams = {} if num_beams == 1 else {"beam_indices": found.beam_indices}
    expected = model.compute_transition_scores(
        found.sequences, found.scores, normalize_logits=True, **beams
    )
    for row, tokens in enumerate(found.sequences[:, 1:].tolist()):
        tokens = tokens[: tokens.index(1) if 1 in tokens else None]
        own = recorder.read(row, tokens)
        assert own == pytest.approx(expected[row, : len(tokens)].tolist(), abs=1e-5)
        assert any(own)


def copying(tokenizer: Any, model: Any, text: str) -> Any:
    """The model, made to write a text whatever it is asked, with other tokens close behind."""
    tokens = [*tokenizer(text, add_special_tokens=False)["input_ids"], 1]
    forward = model.forward

    def write(**given: Any) -> Any:
        found = forward(**given)
        cache = found.get("cache", found.get("past_key_values"))
        done = cache.get_seq_length() - 1
        scores = torch.linspace(0, 1, found.logits.shape[-1], dtype=found.logits.dtype)
        scores = scores.repeat(len(found.logits), 1)
        scores[:, tokens[min(done, len(tokens) - 1)]] = 6.0
        found.logits = scores[:, None]
        return found

    model.forward = write
    return model


def test_free_confidence_by_hand() -> None:
    tokenizer = make_tokenizer()
    words = ["Ada", "met", "Charles", "Babbage"]
    text = "Ada(B-person) met(O) Charles(B-person) Babbage(I-person)"
    model = copying(tokenizer, make_t5(tokenizer), text)
    question = Question(
        words=words, types=["person"], instruction=write_instruction(words, ["person"])
    )
    [answer] = Annotator(model, tokenizer, Generation()).answer([question])
    assert answer.text == text
    assert answer.labels == ["B-person", "O", "B-person", "I-person"]
    assert not answer.is_output_cut

    tokens = tokenizer(text, add_special_tokens=False)["input_ids"]
    spans = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    logs = []
    for token in tokens:
        scores = torch.linspace(0, 1, len(tokenizer), dtype=torch.float64)
        scores[token] = 6.0
        logs.append(float(scores.log_softmax(0)[token]))
    expected, place = [], 0
    for word, label in zip(words, answer.labels, strict=True):
        start = text.index(word, place) + len(word) + 1
        stop = place = start + len(label) + 1
        own = [
            log
            for log, (a, b) in zip(logs, spans["offset_mapping"], strict=True)
            if a < stop and b > start
        ]
        expected.append(math.exp(sum(own)))
    assert answer.probabilities == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("num_beams", [1, 3])
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_constrained_confidence_is_in_its_range(kind: str, num_beams: int) -> None:
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    model = (make_t5 if kind == "t5" else make_llama)(tokenizer)
    questions = [
        Question(words=words, types=TYPES, instruction=write_instruction(words, TYPES))
        for words in SENTENCES
    ]
    generation = Generation(constrained=True, num_beams=num_beams)
    for question, answer in zip(
        questions, Annotator(model, tokenizer, generation).answer(questions), strict=True
    ):
        assert len(answer.probabilities) == len(answer.labels) == len(question.words)
        assert all(0 < p <= 1 for p in answer.probabilities)
        assert any(p < 1 for p in answer.probabilities)


def test_forced_and_one_by_one_agree_on_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = make_tokenizer()
    questions = [
        Question(words=words, types=TYPES, instruction=write_instruction(words, TYPES))
        for words in SENTENCES
    ]
    fast = Annotator(make_t5(tokenizer), tokenizer, Generation(constrained=True))
    monkeypatch.setattr("lmcore.ner.generation.can_force", lambda model: False)
    slow = Annotator(make_t5(tokenizer), tokenizer, Generation(constrained=True))
    for one, other in zip(fast.answer(questions), slow.answer(questions), strict=True):
        assert one.labels == other.labels
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
