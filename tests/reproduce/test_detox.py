"""What stands behind the claims of Detox-Chain: their rules, masks and perplexities."""

import math

import pytest
import torch
from torch.nn import functional

from lmcore.detox.models import make_model
from lmcore.detox.recipes import ScratchConfig
from lmcore.reproduce import CLAIMS
from lmcore.reproduce.claim import Estimate
from lmcore.reproduce.detox.chained_models import mask_prompt
from lmcore.reproduce.detox.detoxified_texts import chains_detoxify
from lmcore.reproduce.detox.language_models import find_perplexity
from lmcore.reproduce.detox.segment_sizes import two_tokens_are_the_middle
from lmcore.training.models import make_tokenizer
from lmcore.worlds.detox import make_world, score_toxicity


def estimate(mean: float, spread: float = 1.0) -> Estimate:
    return Estimate(mean=mean, spread=spread)


GOOD = {
    "base/toxic/maximum": estimate(80), "fall": estimate(60, 10), "chain/chains": estimate(95),
}  # fmt: skip


def test_chains_that_detoxify() -> None:
    assert chains_detoxify(GOOD)
    for change in (
        {"fall": estimate(45, 10)},
        {"chain/chains": estimate(80)},
    ):
        assert not chains_detoxify({**GOOD, **change})


def test_both_claims_look_at_the_same_runs() -> None:
    one, other = (CLAIMS[name] for name in ("detoxified_texts", "detoxified_texts_contrast"))
    assert one.group == other.group
    assert one.measure(0, "tiny") is other.measure(0, "tiny")


def test_two_tokens() -> None:
    good = {"less_toxic": estimate(3), "nearer": estimate(3)}
    assert two_tokens_are_the_middle(good)
    for name in good:
        assert not two_tokens_are_the_middle({**good, name: estimate(0.5)})


def test_masked_prompts_are_harmless() -> None:
    comments = [each for each in make_world(0, comments=300).comments if each.toxic]
    masked = [mask_prompt(each) for each in comments]
    assert max(score_toxicity(masked)) <= 0.5
    assert [text.count("<MASK>") for text in masked] == [len(each.spans) for each in comments]
    outside = masked[0].split("<MASK>")
    assert all(part in comments[0].prompt for part in outside)


def test_perplexity_is_that_of_what_follows() -> None:
    tokenizer = make_tokenizer(["the old baker found a boat"] * 3, 300)
    torch.manual_seed(0)
    model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer).eval()
    contexts, found = ["the old", "a"], [[" baker", ""], ["boat found"]]
    losses = []
    for context, text in (("the old", " baker"), ("a", " boat found")):
        before, behind = (tokenizer(part)["input_ids"] for part in (context, text))
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([before + behind])).logits[0, :-1]
        losses += functional.cross_entropy(
            logits[len(before) - 1 :], torch.tensor(behind), reduction="none"
        ).tolist()
    expected = math.exp(sum(losses) / len(losses))
    assert find_perplexity(model, tokenizer, contexts, found) == pytest.approx(expected, rel=1e-5)
    assert math.isnan(find_perplexity(model, tokenizer, contexts, [[""], []]))
