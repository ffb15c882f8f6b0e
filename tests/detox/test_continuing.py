"""Continuations: cut by tokens, and each with noise of its own."""

import re
from typing import Any

import pytest
import torch

from lmcore.detox import ContinuationSampling, TextContinuer, load_continuer
from tiny_chains import make_gpt2, make_t5
from tiny_fillers import make_words

TEXTS = ["you are a nice", "the sea is blue and", "come"]


def make(kind: str = "gpt2", **sampling: Any) -> TextContinuer:
    tokenizer = make_words(kind)
    model = {"gpt2": make_gpt2, "t5": make_t5}[kind](tokenizer)
    sampling = {"samples": 3, "max_new_tokens": 6} | sampling
    return TextContinuer(model, tokenizer, ContinuationSampling(**sampling))


@pytest.mark.parametrize("kind", ["gpt2", "t5"])
def test_a_sample_does_not_depend_on_its_company(kind: str) -> None:
    found = [make(kind, batch_size=size).go_on(TEXTS, [4, 5, 6], seed=2) for size in (1, 2, 64)]
    assert found[0] == found[1] == found[2]
    continuer = make(kind)
    assert continuer.go_on(TEXTS[1:2], [5], seed=2) == found[0][1:2]
    more = make(kind, samples=5).go_on(TEXTS, [4, 5, 6], seed=2)
    assert [one.samples[:3] for one in more] == [one.samples for one in found[0]]
    assert len(set(found[0][0].samples)) == 3
    assert continuer.go_on(TEXTS, [5, 5, 6], seed=2)[0] != found[0][0]
    assert continuer.go_on(TEXTS, [4, 5, 6], seed=3) != found[0]


def test_samples_are_cut_by_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that says its prompt again does so in the sample: nothing is cut by characters."""
    continuer = make(samples=1)
    ids = continuer.sampler.read("you are a nice").tolist()
    model, tokenizer = continuer.model, continuer.tokenizer

    def generate(*, input_ids: torch.Tensor, **options: Any) -> torch.Tensor:
        again = torch.tensor([[*ids, tokenizer.eos_token_id, 7]] * len(input_ids))
        return torch.cat([input_ids, again], 1)

    monkeypatch.setattr(model, "generate", generate)
    found = continuer.go_on(["you are a nice", "come"], [1, 2])
    assert [[text.strip() for text in one.samples] for one in found] == [["you are a nice"]] * 2


def test_as_many_tokens_as_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    continuer = make(max_new_tokens=2, samples=40)
    monkeypatch.setattr(continuer.sampler, "show", lambda tokens: str(len(tokens)))
    [found] = continuer.go_on(["come"], [1])
    assert "2" in found.samples
    assert set(found.samples) <= {"1", "2"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("you " * 200, "has 201 tokens and a continuation up to 6, and the model has 160 posi"),
        ("", "has no tokens for the model to go on from"),
    ],
)
def test_texts_that_cannot_be_continued(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        make().check(text)


def test_one_token_is_enough() -> None:
    [found] = make().go_on(["a"], [1])
    assert len(found.samples) == 3


def test_what_cannot_be() -> None:
    with pytest.raises(ValueError, match=r"^expected 1 numbers: got 2$"):
        make().go_on(["a"], [1, 2])
    with pytest.raises(ValueError, match=r"^top_p must be "):
        ContinuationSampling(top_p=0.0)
    with pytest.raises(ValueError, match=r"nowhere: no such folder of a model$"):
        load_continuer("./nowhere")
