"""Classifier guidance: no guidance is none, gradients, rows for themselves, and what it raises."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lmcore.diffusion import (
    ClassifierGuide,
    Draft,
    GuidanceConfig,
    LatentClassifier,
    Process,
    Sampler,
    Step,
    sample_tokens,
    train_classifier,
)
from lmcore.diffusion.classifier import UNLABELLED
from tiny_diffusion import draw, make_config, make_model, respace, sqrt_betas

STEPS = 40
BETAS = sqrt_betas(STEPS)
KEPT = [0, 3, 11, 20, 38, 39]
PROCESSES = {
    "adaptive": Process(respace(BETAS, KEPT), KEPT, total_steps=STEPS),
    "uniform": Process(respace(BETAS, [0, 13, 26, 39]), [0, 13, 26, 39], total_steps=STEPS),
    "all": Process(sqrt_betas(8)),
}
SAMPLERS = [Sampler(), Sampler(solver="ddim"), Sampler(solver="dpm_solver", clamp=False)]
TEXT = torch.arange(24).view(2, 12) % 30
MASK = torch.arange(12) >= torch.tensor([[5], [2]])
LABELS = 4


def name(value: Any) -> Any:
    return value.solver if isinstance(value, Sampler) else None


def make_classifier(seed: int = 0, *, per_position: bool = False) -> LatentClassifier:
    torch.manual_seed(seed)
    return LatentClassifier(make_config(), LABELS, per_position=per_position).eval()


def make_targets(*, per_position: bool, rows: int = 2) -> Tensor:
    if not per_position:
        return torch.arange(rows)[:, None] == torch.arange(LABELS)
    targets = torch.ones(rows, 12, LABELS, dtype=torch.bool)
    for row in range(rows):
        targets[row, 6 + row : 9, row + 1 :] = False
    return targets


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


def sample(
    model: Any, guide: Any, *, process: Process = PROCESSES["adaptive"], rows: Any = (4, 9),
    sampler: Sampler = SAMPLERS[0], texts: Any = (0, 1),
) -> tuple[Tensor, list[Step]]:  # fmt: skip
    seen: list[Step] = []
    tokens = sample_tokens(
        model, process, TEXT[list(texts)], MASK[list(texts)], seed=3, rows=rows, sampler=sampler,
        guide=guide, callback=seen.append,
    )  # fmt: skip
    return tokens, seen


# The classifier.


def test_log_probabilities_are_those_of_their_labels() -> None:
    latents, times = draw(2, 12, 6), torch.tensor([3.0, 900.0])
    classifier, targets = make_classifier(), make_targets(per_position=False)
    logits = classifier(latents, times)
    found = classifier.find_log_probabilities(latents, times, targets)
    torch.testing.assert_close(found, logits[[0, 1], [0, 1]].sigmoid().log())
    both = classifier.find_log_probabilities(latents, times, torch.ones_like(targets))
    torch.testing.assert_close(both, logits.sigmoid().log().sum(1))

    classifier, targets = make_classifier(per_position=True), make_targets(per_position=True)
    shares = classifier(latents, times).softmax(-1)
    found = classifier.find_log_probabilities(latents, times, targets)
    expected = [shares[0, 6:9, :1].sum(-1).log().sum(), shares[1, 7:9, :2].sum(-1).log().sum()]
    torch.testing.assert_close(found, torch.stack(expected))
    free = classifier.find_log_probabilities(latents, times, torch.ones_like(targets))
    assert free.tolist() == [0.0, 0.0]


def test_losses_are_cross_entropies_of_what_is_labelled() -> None:
    latents, times = draw(2, 12, 6), torch.tensor([3.0, 900.0])
    classifier, has = make_classifier(), torch.tensor([[True, False, False, True], [False] * 4])
    shares = classifier(latents, times).sigmoid()
    expected = -torch.where(has, shares, 1 - shares).log().mean(1)
    torch.testing.assert_close(classifier.compute_losses(latents, times, has), expected)

    classifier, labels = make_classifier(per_position=True), torch.full((2, 12), UNLABELLED)
    labels[0, 3], labels[0, 5] = 2, 1
    shares = classifier(latents, times).softmax(-1).log()
    expected = torch.stack([-(shares[0, 3, 2] + shares[0, 5, 1]) / 2, torch.tensor(0.0)])
    torch.testing.assert_close(classifier.compute_losses(latents, times, labels), expected)


@pytest.mark.parametrize("per_position", [False, True])
def test_a_classifier_learns_what_words_say(model: Any, per_position: bool) -> None:
    """Which of two words fills the second half; the model itself is left as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ids, mask = torch.full((16, 12), 3), torch.ones(16, 12, dtype=torch.bool)
    ids[::2, 6:] = 7
    has = (torch.arange(16) % 2 == 0)[:, None].expand(-1, LABELS)
    labels = (ids == 7).long() if per_position else has
    classifier, again = (make_classifier(per_position=per_position) for _ in range(2))
    settings: Any = {"steps": 60, "batch_size": 8, "lr": 1e-2, "seed": 5}
    losses = train_classifier(classifier, model, Process(BETAS), ids, mask, labels, **settings)
    assert losses[-10:].mean() < 0.8 * losses[:10].mean()
    assert not classifier.training
    clean = model.embed(ids).detach()
    logits = classifier(clean, torch.zeros(16))
    seen = logits[:, 10, 1] > logits[:, 10, 0] if per_position else logits[:, 0] > 0
    assert torch.equal(seen, has[:, 0])
    assert torch.equal(
        losses, train_classifier(again, model, Process(BETAS), ids, mask, labels, **settings)
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


# Guidance.


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("options", [{"steps": 0}, {"step_size": 0.0}], ids=str)
def test_no_guidance_is_none_to_the_last_bit(model: Any, sampler: Sampler, options: Any) -> None:
    guide = ClassifierGuide(
        make_classifier(), make_targets(per_position=False), GuidanceConfig(**options)
    )
    plain, own = sample(model, None, sampler=sampler)
    tokens, steps = sample(model, guide, sampler=sampler)
    assert torch.equal(tokens, plain)
    for step, same in zip(steps, own, strict=True):
        assert torch.equal(step.latents, same.latents)


@pytest.mark.parametrize("per_position", [False, True])
def test_the_gradient_is_that_of_finite_differences(per_position: bool) -> None:
    classifier = make_classifier(per_position=per_position).double()
    targets = make_targets(per_position=per_position)
    guide = ClassifierGuide(classifier, targets, GuidanceConfig(fluency=0.3))
    latents, means = draw(2, 12, 6).double(), draw(2, 12, 6, seed=1).double()
    draft = Draft(step=3, time=275.0, latents=latents, means=means, variance=0.4)
    gradient = guide.find_gradient(draft, latents)

    def value(at: Tensor) -> Tensor:
        times = torch.full((2,), 275.0).double()
        fluent = -((at - means) ** 2).sum((1, 2)) / (2 * 0.4)
        return classifier.find_log_probabilities(at, times, targets).double() + 0.3 * fluent

    for seed in range(4):
        way = draw(2, 12, 6, seed=10 + seed).double()
        ahead, behind = (value(latents + sign * 1e-2 * way) for sign in (1, -1))
        torch.testing.assert_close(
            (gradient * way).sum((1, 2)), (ahead - behind) / 2e-2, rtol=5e-3, atol=1e-4
        )


def test_adagrad_is_torch_s() -> None:
    guide = ClassifierGuide(
        make_classifier(), make_targets(per_position=False), GuidanceConfig(steps=4, fluency=0.2)
    )
    latents = draw(2, 12, 6)
    draft = Draft(3, 275.0, latents, draw(2, 12, 6, seed=1), 0.4)
    moved = latents.clone().requires_grad_()
    optimizer = torch.optim.Adagrad([moved], lr=0.1)
    for _ in range(4):
        moved.grad = -guide.find_gradient(draft, moved.detach())
        optimizer.step()
    torch.testing.assert_close(guide(draft), moved.detach())


def test_drafts_are_the_chain_s(model: Any) -> None:
    """Each is one step before the taken one, is told that timestep, and step 0 has none."""
    process = PROCESSES["adaptive"]
    drafts: list[Draft] = []

    def look(draft: Draft) -> Tensor:
        drafts.append(draft)
        return draft.latents + 1

    _, plain = sample(model, None)
    _, steps = sample(model, look)
    assert [(draft.step, draft.time) for draft in drafts] == [
        (step, KEPT[step - 1] * 1000 / STEPS) for step in (5, 4, 3, 2, 1)
    ]
    assert [draft.variance for draft in drafts] == process.variances[:0:-1].tolist()
    assert torch.equal(drafts[0].latents, plain[0].latents)
    noise = (drafts[0].latents - drafts[0].means)[MASK] / math.sqrt(drafts[0].variance)
    assert abs(float(noise.std()) - 1) < 0.2
    sources = model.embed(TEXT).detach()
    for draft, step in zip(drafts, steps, strict=False):
        assert torch.equal(step.latents[MASK], draft.latents[MASK] + 1)
        for latents in (draft.latents, draft.means, step.latents):
            assert torch.equal(latents[~MASK], sources[~MASK])
    assert not torch.equal(steps[1].latents, plain[1].latents)


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("spacing", PROCESSES)
@pytest.mark.parametrize("per_position", [False, True])
def test_guidance_raises_the_probability_of_its_target(
    model: Any, sampler: Sampler, spacing: str, per_position: bool
) -> None:
    """Of every row, at the end of every step but the last; of other targets it need not."""
    classifier = make_classifier(per_position=per_position)
    targets, process = make_targets(per_position=per_position), PROCESSES[spacing]
    rises = []

    def look(draft: Draft) -> Tensor:
        guided = ClassifierGuide(classifier, targets, GuidanceConfig(step_size=0.02, fluency=0.0))(
            draft
        )
        times = torch.full((2,), draft.time)
        before, after = (
            classifier.find_log_probabilities(latents, times, targets).detach()
            for latents in (draft.latents, guided)
        )
        rises.append(after - before)
        return guided

    sample(model, look, process=process, sampler=sampler)
    assert len(rises) == process.steps - 1
    assert bool((torch.stack(rises) > 0).all())


@pytest.mark.parametrize("per_position", [False, True])
def test_fluency_holds_latents_to_their_mean(per_position: bool) -> None:
    classifier = make_classifier(per_position=per_position)
    targets = make_targets(per_position=per_position)
    draft = Draft(3, 275.0, draw(2, 12, 6), torch.zeros(2, 12, 6), 0.4)
    lengths = [
        float(ClassifierGuide(classifier, targets, GuidanceConfig(fluency=fluency))(draft).norm())
        for fluency in (0.0, 0.01, 1.0)
    ]
    assert lengths[0] > lengths[1] > lengths[2]


@pytest.mark.parametrize("per_position", [False, True])
def test_a_guided_row_is_the_same_in_any_company(model: Any, per_position: bool) -> None:
    classifier = make_classifier(per_position=per_position)
    targets = make_targets(per_position=per_position, rows=3)
    # Where a gradient is nearly 0 Adagrad only sees its sign: fluency decides there.
    config = GuidanceConfig(fluency=0.1)
    texts, rows = [0, 1, 1], [4, 9, 5]
    _, steps = sample(model, ClassifierGuide(classifier, targets, config), texts=texts, rows=rows)
    for place in range(3):
        alone = ClassifierGuide(classifier, targets[place : place + 1], config)
        _, own = sample(model, alone, texts=[texts[place]], rows=[rows[place]])
        for step, same in zip(steps, own, strict=True):
            torch.testing.assert_close(step.latents[place], same.latents[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("per_position", [False, True])
def test_no_guided_step_waits_for_a_device(per_position: bool) -> None:
    """A meta tensor has no values: reading one is an error, and waiting is reading one."""
    with torch.device("meta"):
        model, classifier = make_model(), make_classifier(per_position=per_position)
        targets = make_targets(per_position=per_position).to("meta")
    ids, mask = TEXT.to("meta"), MASK.to("meta")
    guide = ClassifierGuide(classifier, targets)
    found = sample_tokens(model, PROCESSES["adaptive"], ids, mask, seed=1, rows=[0, 1], guide=guide)
    assert found.shape == (2, 12)


# What does not fit.


@pytest.mark.parametrize(
    ("options", "kind", "text"),
    [
        ({"steps": -1}, ValueError, "steps must be from 0 to 1000: got -1"),
        ({"steps": 2**40}, ValueError, f"steps must be from 0 to 1000: got {2**40}"),
        ({"steps": 1.5}, TypeError, "steps must be an int: got float"),
        ({"step_size": -0.1}, ValueError, "step_size must be at least 0 and finite: got -0.1"),
        ({"step_size": math.nan}, ValueError, "step_size must be at least 0 and finite: got nan"),
        ({"epsilon": 0.0}, ValueError, "epsilon must be above 0 and finite: got 0.0"),
        ({"fluency": math.inf}, ValueError, "fluency must be at least 0 and finite: got inf"),
    ],
)
def test_guidance_that_there_is_not(options: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind) as error:
        GuidanceConfig(**options)
    assert str(error.value) == text


def test_guides_that_do_not_fit(model: Any) -> None:
    classifier, targets = make_classifier(), make_targets(per_position=False)
    with pytest.raises(ValueError, match="classifier must be in evaluation"):
        ClassifierGuide(make_classifier().train(), targets)
    with pytest.raises(TypeError, match=r"targets must be of bool: got torch.float32"):
        ClassifierGuide(classifier, targets.float())
    with pytest.raises(ValueError, match=r"have the shape \[batch, 4\]: got \[2, 3\]"):
        ClassifierGuide(classifier, targets[:, :3])
    with pytest.raises(ValueError, match=r"have the shape \[batch, length, 4\]: got \[2, 4\]"):
        ClassifierGuide(make_classifier(per_position=True), targets)
    allowed = make_targets(per_position=True)
    allowed[1, 4] = False
    with pytest.raises(ValueError, match="each position a label: row 1 leaves position 4 none"):
        ClassifierGuide(make_classifier(per_position=True), allowed)
    guide = ClassifierGuide(classifier, targets[:1])
    with pytest.raises(ValueError, match=r"targets must have the shape \[2, 4\]: got \[1, 4\]"):
        sample(model, guide)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"steps": 0}, ValueError, "steps must be at least 1: got 0"),
        (
            {"ids": TEXT[:0]}, ValueError,
            "ids must have the shape [at least 1, length]: got [0, 12]",
        ),
        ({"ids": TEXT + 7}, IndexError, "ids must be below the vocabulary 30: got 30 at [1, 11]"),
        ({"mask": MASK[:1]}, ValueError, "mask must have 2 rows: got 1"),
        ({"mask": MASK.long()}, TypeError, "mask must be of bool: got torch.int64"),
        ({"labels": torch.ones(2, 4)}, TypeError, "labels must be of bool: got torch.float32"),
        (
            {"labels": torch.ones(2, 3) > 0}, ValueError,
            "labels must have the shape [2, 4]: got [2, 3]",
        ),
        ({"lr": 1e30}, FloatingPointError, "the loss of step 3 is not finite"),
    ],
)  # fmt: skip
def test_texts_that_no_classifier_learns(model: Any, change: Any, kind: Any, text: str) -> None:
    given: Any = {
        "ids": TEXT, "mask": MASK, "labels": torch.ones(2, 4) > 0, "steps": 3, **change,
    }  # fmt: skip
    with pytest.raises(kind) as error:
        train_classifier(make_classifier(), model, Process(BETAS), **given)
    assert str(error.value) == text


@pytest.mark.parametrize("label", [-1, LABELS, 2**40])
def test_labels_that_there_are_not(model: Any, label: int) -> None:
    labels = torch.full((2, 12), UNLABELLED)
    labels[1, 3] = label
    with pytest.raises(IndexError, match=rf"labels must be below 4: got {label} at \[1, 3\]"):
        train_classifier(
            make_classifier(per_position=True), model, Process(BETAS), TEXT, MASK, labels, steps=1
        )


def test_rare_labels_start_as_rare_as_they_are(model: Any) -> None:
    """What no text has is unlikely from the first step on."""
    labels = torch.zeros(2, LABELS, dtype=torch.bool)
    labels[0, 0] = labels[:, 1] = True
    classifier = make_classifier()
    settings: Any = {"steps": 1, "lr": 1e-12}
    train_classifier(classifier, model, Process(BETAS), TEXT, MASK, labels, **settings)
    assert classifier.head.bias.sigmoid().tolist() == pytest.approx([0.5, 0.999, 0.001, 0.001])
    kept = classifier.head.bias.clone()
    train_classifier(
        classifier, model, Process(BETAS), TEXT, MASK, ~labels, start_at_shares=False, **settings
    )
    torch.testing.assert_close(classifier.head.bias, kept)


def test_classifiers_of_other_sizes(model: Any) -> None:
    with pytest.raises(ValueError, match="labels must be at least 1: got 0"):
        LatentClassifier(make_config(), 0)
    other = LatentClassifier(make_config(latent_size=8), LABELS)
    with pytest.raises(ValueError, match="classifier must read latents of 6 numbers: it reads 8"):
        train_classifier(other, model, Process(BETAS), TEXT, MASK, torch.ones(2, 4) > 0, steps=1)
    with pytest.raises(ValueError, match=r"latents must have the shape \[batch, at most 12, 6\]"):
        make_classifier()(draw(2, 13, 6), torch.zeros(2))
    with pytest.raises(ValueError, match=r"timesteps must have the shape \[2\]: got \[1\]"):
        make_classifier()(draw(2, 12, 6), torch.zeros(1))
