"""The claims on negative instances: what their models are asked, and that verdicts can fail."""

import math
import random
import re

import pytest
import torch

from lmcore.ner.instructions import write_target
from lmcore.ner.labels import write_labels
from lmcore.reproduce import CLAIMS
from lmcore.reproduce.claim import Estimate, Size, decide_verdict
from lmcore.reproduce.ner import labelling, negative_instances
from lmcore.reproduce.ner.labelling import (
    ARMS,
    SCALES,
    Labeller,
    ask,
    find_outcome,
    make_tokenizer,
    run_arms,
)
from lmcore.worlds.ner.domains import generate_domain_sentences, make_domains
from lmcore.worlds.ner.sentences import Sentence

GROUPS = ("labelling", "labelling_choices")
SENTENCES = generate_domain_sentences(make_domains(0), 40, 0)


def test_texts_are_pieces_and_back() -> None:
    tokenizer = make_tokenizer()
    run = Labeller(0, SCALES["tiny"], None, SENTENCES)
    for sentence in SENTENCES:
        for boundaries in ("bio", "bioes", "io"):
            labels = write_labels(sentence.labels, boundaries)
            for style in ARMS.values():
                text = write_target(sentence.words, labels, context=style.context)
                ids = tokenizer(text)["input_ids"]
                assert ids.count(tokenizer.pad_token_id) == 0
                assert tokenizer.decode(ids, skip_special_tokens=True) == text
        texts = [ask(sentence.words, sentence.label_list), text]
        found = tokenizer(texts, padding=True, return_tensors="pt")
        ids, mask = run._encode(texts)
        assert torch.equal(ids, found["input_ids"])
        assert torch.equal(mask, found["attention_mask"])
        question = tokenizer(ask(sentence.words, sentence.label_list))["input_ids"]
        assert question[-1] == tokenizer.eos_token_id
        assert len(question) == 2 + 2 * len(sentence.label_list) - 1 + len(sentence.words) + 1


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    run = Labeller(0, SCALES["tiny"], None, SENTENCES)
    one, two = (run.make_pair(random.Random("0 7"), 2) for _ in range(2))
    assert one == two
    assert one[1] == one[0].partition("sentence ")[2]
    # The longest of the copied rows grow over the steps.
    lengths = [
        max(len(run.make_pair(random.Random(f"{i}"), step)[1].split()) for i in range(200))
        for step in range(4)
    ]
    assert lengths == [2, 5, 8, 12]


def test_arms_start_from_the_same_weights() -> None:
    scale = SCALES["tiny"]
    trunk = Labeller(1, scale, None, SENTENCES)
    trunk.step(0)
    runs = [Labeller(1, scale, style, SENTENCES) for style in ARMS.values()]
    for run in runs:
        run.load_state_dict(trunk.state_dict())
    for name, value in trunk.model.state_dict().items():
        assert all(torch.equal(run.model.state_dict()[name], value) for run in runs)
    for run in runs:
        run.step(1)
    weights = [run.model.shared.weight for run in runs]
    assert not torch.equal(weights[0], weights[2])


def test_a_run_is_a_function_of_its_seed() -> None:
    scale = SCALES["tiny"]
    before = torch.random.get_rng_state()
    first = run_arms(0, scale)
    assert torch.equal(torch.random.get_rng_state(), before)
    run_arms.cache_clear()
    assert run_arms(0, scale) == first
    assert set(first) == set(ARMS)


def test_outcomes() -> None:
    right = [write_target(s.words, s.labels) for s in SENTENCES]
    assert find_outcome(SENTENCES, right).f1 == pytest.approx(1.0)
    nothing = find_outcome(SENTENCES, [""] * len(SENTENCES))
    assert (nothing.f1, nothing.unlabelled) == (0.0, 1.0)
    # Half of a name, and another type.
    boundary = [answer.replace("I-", "X-") for answer in right]
    assert find_outcome(SENTENCES, boundary).boundary > 0.5
    kinds = [answer.replace(f"-{s.label_list[0]})", f"-{s.label_list[1]})")
             for answer, s in zip(right, SENTENCES, strict=True)]  # fmt: skip
    assert find_outcome(SENTENCES, kinds).noisy > 0.1


def test_an_entity_that_is_repeated_is_missed_as_often() -> None:
    words = ("bela", "and", "bela", "and", "coros")
    labels = ("B-river", "O", "B-river", "O", "B-bank")
    sentence = Sentence("a", words, labels, ("river", "bank"))
    found = find_outcome([sentence], [write_target(words, ("O", "O", "O", "O", "B-bank"))])
    assert found.unlabelled == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("gain", "spread", "verdict"),
    [
        (10.0, 4.0, "reproduced"),
        (10.0, 11.0, "not reproduced"),
        (-1.0, 0.1, "not reproduced"),
        (math.nan, 0.1, "not reproduced"),
    ],
)
@pytest.mark.parametrize("name", ["negative_instances", "negative_instances_unseen"])
def test_the_claims_can_fail(name: str, gain: float, spread: float, verdict: str) -> None:
    estimates = {"gain": Estimate(mean=gain, spread=spread)}
    assert decide_verdict(CLAIMS[name], estimates, seed_count=3) == verdict


def test_both_claims_look_at_the_same_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = negative_instances.measure_seen(0, "tiny").values
    unseen = negative_instances.measure_unseen(0, "tiny").values
    assert seen.keys() == unseen.keys()
    assert run_arms.cache_info().hits >= 1


@pytest.mark.parametrize("size", ["quick", "full"])
def test_the_model_is_as_large_as_the_claims_say(size: Size) -> None:
    model = Labeller(0, SCALES[size], None, SENTENCES).model
    said = int(re.findall(r"some ([0-9,]+) weights", labelling.__doc__ or "")[0].replace(",", ""))
    assert sum(weight.numel() for weight in model.parameters()) == pytest.approx(said, rel=0.05)
    settings = [CLAIMS[name].setting for name in CLAIMS if CLAIMS[name].group in GROUPS]
    assert len(settings) == 8
    assert all(f"some {said:,} weights" in setting for setting in settings)
