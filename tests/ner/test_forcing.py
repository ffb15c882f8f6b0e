"""Forced tokens in one step: the same tokens as one by one."""

from typing import Any

import pytest
import torch
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    MistralConfig,
    MistralForCausalLM,
)

from lmcore.ner.decoding import Constraint, ConstraintMaker
from lmcore.ner.forcing import can_force, generate_forced
from lmcore.ner.instructions import write_instruction
from tiny_generators import (
    HOSTILE,
    SENTENCES,
    TYPES,
    generate,
    make_inputs,
    make_llama,
    make_prompts,
    make_t5,
    make_tokenizer,
)

ALL = [*SENTENCES, *HOSTILE]


def make_case(
    kind: str, sentences: list[list[str]], seed: int = 0
) -> tuple[Any, list[Constraint], dict[str, torch.Tensor]]:
    tokenizer = make_tokenizer(is_byte_level=kind == "llama")
    maker = ConstraintMaker(tokenizer)
    if kind == "t5":
        constraints = [maker(words, TYPES) for words in sentences]
        return make_t5(tokenizer, seed), constraints, make_inputs(tokenizer, sentences)
    constraints = [
        maker(words, TYPES, f"[INST] {write_instruction(words, TYPES)} [/INST] ")
        for words in sentences
    ]
    return make_llama(tokenizer, seed), constraints, make_prompts(constraints)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_tokens_are_those_of_one_by_one(kind: str, seed: int) -> None:
    model, constraints, inputs = make_case(kind, ALL, seed)
    forced = generate_forced(model, constraints, inputs)
    for text, tokens in zip(forced, generate(model, constraints, inputs), strict=True):
        assert text.tokens == tokens[: len(text.tokens)]
        assert set(tokens[len(text.tokens) :]) <= {0}
        assert len(text.log_probabilities) == len(text.tokens)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_a_batch_gives_what_its_sentences_give_alone(kind: str) -> None:
    model, constraints, inputs = make_case(kind, ALL)
    for row, text in enumerate(generate_forced(model, constraints, inputs)):
        mask = inputs["attention_mask"][row].bool()
        own = {key: value[row : row + 1, mask] for key, value in inputs.items()}
        [alone] = generate_forced(model, [constraints[row]], own)
        assert alone.tokens == text.tokens
        assert alone.log_probabilities == pytest.approx(text.log_probabilities, abs=1e-5)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_probabilities_are_those_of_a_whole_pass(kind: str) -> None:
    model, constraints, inputs = make_case(kind, SENTENCES)
    for row, text in enumerate(generate_forced(model, constraints, inputs)):
        mask = inputs["attention_mask"][row].bool()
        source = inputs["input_ids"][row : row + 1, mask]
        target = torch.tensor([text.tokens])
        with torch.no_grad():
            if kind == "t5":
                logits = model(input_ids=source, labels=target).logits[0]
            else:
                whole = torch.cat([source, target], dim=1)
                logits = model(input_ids=whole).logits[0, source.shape[1] - 1 : -1]
        constraint = constraints[row]
        state = constraint.begin
        for place, token in enumerate(text.tokens):
            allowed = list(constraint.allowed(state))
            expected = logits[place, allowed].float().log_softmax(0)[allowed.index(token)]
            assert text.log_probabilities[place] == pytest.approx(float(expected), abs=1e-5)
            after = constraint.advance(state, token)
            assert after is not None
            state = after


def test_fewer_steps_than_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    model, constraints, inputs = make_case("t5", SENTENCES)
    calls = []
    forward = model.decoder.forward
    monkeypatch.setattr(
        model.decoder, "forward", lambda *a, **k: calls.append(1) or forward(*a, **k)
    )
    texts = generate_forced(model, constraints, inputs)
    longest = max(len(text.tokens) for text in texts)
    choices = 0
    for constraint, text in zip(constraints, texts, strict=True):
        states = [constraint.follow(text.tokens[:k]) for k in range(len(text.tokens))]
        choices = max(choices, sum(len(constraint.allowed(state)) > 1 for state in states))
    assert len(calls) == choices < longest / 2


def test_models_that_cannot_be_forced() -> None:
    bart = BartForConditionalGeneration(BartConfig(
        vocab_size=9, d_model=8, encoder_layers=1, decoder_layers=1, encoder_attention_heads=1,
        decoder_attention_heads=1, encoder_ffn_dim=8, decoder_ffn_dim=8,
    ))  # fmt: skip
    sliding = MistralForCausalLM(MistralConfig(
        vocab_size=9, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
        num_attention_heads=1, num_key_value_heads=1, sliding_window=4,
    ))  # fmt: skip
    assert not can_force(bart)
    assert not can_force(sliding)
    tokenizer = make_tokenizer()
    assert can_force(make_t5(tokenizer))
    assert can_force(make_llama(tokenizer))
    with pytest.raises(ValueError, match="'bart' cannot be fed several tokens"):
        generate_forced(bart, [], {"input_ids": torch.zeros(0, 1, dtype=torch.long)})


def test_broken_models_are_named() -> None:
    model, constraints, inputs = make_case("t5", SENTENCES)
    small = make_t5(make_tokenizer())
    small.resize_token_embeddings(20)
    with pytest.raises(ValueError, match="the model has 20 tokens: got token"):
        generate_forced(
            small, constraints, {**inputs, "input_ids": inputs["input_ids"].clamp(max=19)}
        )
    with torch.no_grad():
        model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not numbers"):
        generate_forced(model, constraints, inputs)


@pytest.mark.parametrize("kind", ["t5", "llama"])
def test_nothing_to_choose(kind: str) -> None:
    model, constraints, inputs = make_case(kind, [["Ada"]])
    maker = ConstraintMaker(make_tokenizer(is_byte_level=kind == "llama"))
    empty = maker([], TYPES)
    [text] = generate_forced(model, [empty], inputs)
    assert text.tokens == [1]
    assert generate_forced(model, [], {key: value[:0] for key, value in inputs.items()}) == []
    assert len(generate_forced(model, constraints, inputs)) == 1
