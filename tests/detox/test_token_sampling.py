"""Tokens that are drawn: the nucleus, and noise that belongs to a row alone."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import tiny_chains
from lmcore.detox.token_sampling import NucleusChoice, draw_noise, sample_tokens
from lmcore.training.lora import LoraConfig
from lmcore.training.models import add_lora


def choose(scores: torch.Tensor, draws: list[float], **options: float) -> list[int]:
    found = NucleusChoice(torch.tensor(draws)[:, None], **options)(torch.zeros(1, 0), scores)
    assert (found.isfinite().sum(1) == 1).all()
    chosen: list[int] = found.argmax(1).tolist()
    return chosen


@given(
    st.lists(st.floats(-4, 4), min_size=1, max_size=9),
    st.floats(0, 1, exclude_max=True),
    st.floats(0.05, 1),
    st.floats(0.3, 3),
)
def test_the_definition(scores: list[float], draw: float, top_p: float, temperature: float) -> None:
    """By hand: the likeliest tokens until they come to top_p, and of these the one at the draw."""
    shares = torch.softmax(torch.tensor(scores) / temperature, 0)
    order = sorted(range(len(scores)), key=lambda token: -shares[token].item())
    kept: list[int] = []
    before = 0.0
    for token in order:
        if before >= top_p:
            break
        kept.append(token)
        before += shares[token].item()
    place, total = 0.0, sum(shares[token].item() for token in kept)
    margins = []
    expected = kept[-1]
    for token in kept:
        place += shares[token].item()
        margins.append(abs(place - draw * total))
        if place > draw * total:
            expected = token
            break
    (found,) = choose(torch.tensor([scores]), [draw], top_p=top_p, temperature=temperature)
    sums = torch.tensor([0.0, *(shares[token] for token in order)]).cumsum(0)
    close = min(margins) < 1e-5 or (sums - top_p).abs().min() < 1e-5
    assert found == expected or close or shares[found] == shares[expected]


def test_shares_of_many_draws() -> None:
    scores = torch.tensor([[3.0, 2.0, 1.0, -5.0]])
    draws = draw_noise(7, 228, range(20_000), 1)  # type: ignore[arg-type]
    found = NucleusChoice(draws, top_p=0.95)(torch.zeros(1, 0), scores.expand(20_000, 4))
    counts = torch.bincount(found.argmax(1), minlength=4) / 20_000
    expected = torch.softmax(scores[0, :3], 0)
    assert torch.allclose(counts[:3], expected, atol=0.015)
    assert counts[3] == 0


def test_a_wide_nucleus_is_found_beside_narrow_ones() -> None:
    """A row with more likely tokens than are looked at first gets all of its own, and no other."""
    flat, sharp = torch.zeros(1, 1000), torch.zeros(1, 1000)
    sharp[0, 700] = 30.0
    draws = [0.999, 0.5]
    both = choose(torch.cat([flat, sharp]), draws, top_p=0.9)
    assert both == [*choose(flat, draws[:1], top_p=0.9), 700]
    # 900 of 1000 equal tokens are the nucleus: the draw falls on the 900th in their order.
    seen = {choose(flat, [(n + 0.5) / 900], top_p=0.9)[0] for n in range(0, 900, 9)}
    assert len(seen) == 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_p": 0.0}, "top_p must be above 0 and at most 1: got 0.0"),
        ({"top_p": float("nan")}, "top_p must be above 0"),
        ({"temperature": 0.0}, "temperature must be above 0: got 0.0"),
    ],
)
def test_settings(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        NucleusChoice(torch.zeros(1, 1), **options)


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_row_is_the_same_in_any_batch(kind: str) -> None:
    tokenizer = tiny_chains.make_words()
    make: Any = {"gpt2": tiny_chains.make_gpt2, "t5": tiny_chains.make_t5}[kind]
    model = make(tokenizer).eval()
    rows = [[7, 8, 9], [12], [30, 31, 32, 33, 34]]
    options = {"pad": 0, "end": tokenizer.eos_token_id, "max_new_tokens": 8}

    def write(places: list[int]) -> list[list[int]]:
        longest = max(len(rows[p]) for p in places)
        ids = torch.tensor([[0] * (longest - len(rows[p])) + rows[p] for p in places])
        mask = torch.tensor([[0] * (longest - len(rows[p])) + [1] * len(rows[p]) for p in places])
        inputs = {"input_ids": ids, "attention_mask": mask}
        noise = draw_noise(3, 228, [p + 5 for p in places], 8)
        found = sample_tokens(model, inputs, NucleusChoice(noise), **options)
        return [_end(row, tokenizer.eos_token_id) for row in found.tolist()]

    together = write([0, 1, 2])
    assert [write([p])[0] for p in range(3)] == together
    assert write([2, 0]) == [together[2], together[0]]
    assert len({tuple(row) for row in together}) == 3


def _end(row: list[int], end: int) -> list[int]:
    return row[: row.index(end) + 1] if end in row else row


def test_a_row_ends_when_it_is_done() -> None:
    tokenizer = tiny_chains.make_words()
    model = tiny_chains.make_gpt2(tokenizer).eval()
    inputs = {"input_ids": torch.tensor([[7], [9]]), "attention_mask": torch.ones(2, 1)}
    noise = draw_noise(3, 228, [0, 1], 12)

    def is_done(row: int, tokens: list[int]) -> bool:
        return len(tokens) >= 2 + row

    found = sample_tokens(
        model, inputs, NucleusChoice(noise), pad=0, end=1, max_new_tokens=12, is_done=is_done
    )
    assert found.shape == (2, 3)
    assert found[0, 2] == 0


def test_settings_of_the_model_do_not_count() -> None:
    """Such as those of a summariser, which repeats no tokens and does not end early."""
    tokenizer = tiny_chains.make_words()
    model = tiny_chains.make_gpt2(tokenizer)
    inputs = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[1, 1]])}

    def sample() -> list[int]:
        choose = NucleusChoice(draw_noise(3, 228, [1], 12), temperature=0.1)
        found = sample_tokens(model, inputs, choose, pad=0, end=1, max_new_tokens=12)
        tokens: list[int] = found[0].tolist()
        return tokens

    expected = sample()
    own = model.generation_config
    own.no_repeat_ngram_size, own.suppress_tokens = 1, [*expected]
    assert sample() == expected
    assert model.generation_config is own


def test_a_model_in_a_wrapper_keeps_its_settings() -> None:
    pytest.importorskip("peft")
    tokenizer = tiny_chains.make_words()
    model = tiny_chains.make_gpt2(tokenizer)
    own = model.generation_config
    wrapped = add_lora(model, LoraConfig(rank=1, targets=("c_attn",)))
    inputs = {"input_ids": torch.tensor([[5, 6]]), "attention_mask": torch.tensor([[1, 1]])}
    choose = NucleusChoice(draw_noise(3, 228, [1], 2))
    sample_tokens(wrapped, inputs, choose, pad=0, end=1, max_new_tokens=2)
    assert model.generation_config is own
