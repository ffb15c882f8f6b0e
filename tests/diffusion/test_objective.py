"""The loss of text diffusion: its formulas written out, its gradients, its views, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from lmcore.diffusion import (
    Losses,
    Penalty,
    Process,
    TextDiffusionModel,
    View,
    compute_losses,
)
from lmcore.diffusion.objective import find_penalized
from tiny_diffusion import draw, make_model

STEPS = 40
# Of whose clean latents a third is left at the last step, so that its term matters.
PROCESS = Process(np.linspace(0.01, 0.05, STEPS))
IDS = torch.arange(36).view(3, 12) % 30
MASK = (torch.arange(12) >= torch.tensor([[5], [2], [11]])).contiguous()
START = draw(3, 12, 6, seed=1)
VIEWS = [
    View(torch.tensor(steps), draw(3, 12, 6, seed=2 + place))
    for place, steps in enumerate([[0, 7, 39], [1, 7, 30], [10, 39, 5]])
]


@pytest.fixture(scope="module")
def model() -> TextDiffusionModel:
    return make_model()


def run(model: Any, penalty: Penalty, **more: Any) -> Losses:
    return compute_losses(model, PROCESS, IDS, MASK, START, VIEWS[: penalty.views], penalty, **more)


def predict(model: TextDiffusionModel, view: View, row: int) -> Tensor:
    """The prediction of one view of one row, alone."""
    left = torch.tensor(PROCESS.alphas_cumprod).float()
    step = int(view.timesteps[row])
    clean = model.embed(IDS[row]) + (1 - left[0]).sqrt() * START[row]
    noisy = left[step].sqrt() * clean + (1 - left[step]).sqrt() * view.noise[row]
    noisy = torch.where(MASK[row, :, None], noisy, clean)
    found: Tensor = model(noisy[None], torch.tensor([step * 1000 / STEPS]))[0]
    return found


PENALTIES = [
    Penalty(kind="none"), Penalty(kind="l2", weight=-0.5), Penalty(kind="l2_noise"), Penalty(),
    Penalty(kind="cosine", weight=-1.5), Penalty(kind="cosine", weight=0.5),
    Penalty(kind="near_far", near_weight=-2.0, far_weight=-0.25),
]  # fmt: skip


@pytest.mark.parametrize("penalty", PENALTIES, ids=lambda p: f"{p.kind}{p.weight}")
def test_the_loss_of_a_row_is_its_formula(model: TextDiffusionModel, penalty: Penalty) -> None:
    found = run(model, penalty, with_nll=True)
    left = torch.tensor(PROCESS.alphas_cumprod).float()
    for row in range(3):
        emb = model.embed(IDS[row])
        clean = emb + (1 - left[0]).sqrt() * START[row]
        own, *others = (predict(model, view, row) for view in VIEWS[: penalty.views])
        errors = [(emb - f).square().mean() for f in (own, *others)]
        count = len(errors)
        total = torch.stack(errors).sum()
        total = total + count * functional.cross_entropy(model.get_logits(clean), IDS[row])
        total = total + count * (left[-1].sqrt() * clean).square().mean()
        apart = torch.zeros(())
        cosines = [functional.cosine_similarity(own, other, dim=-1) for other in others]
        if penalty.kind.startswith("l2"):
            apart = -penalty.weight * (own - others[0]).square().mean()
        elif penalty.kind == "cosine" and penalty.weight < 0:
            apart = -penalty.weight * (1 - cosines[0]).mean()
        elif penalty.kind == "cosine":
            apart = penalty.weight * (1 + cosines[0]).mean()
        elif penalty.kind == "near_far":
            apart = -2 * (1 + cosines[0]).mean() - 0.25 * (1 - cosines[1]).mean()
        expected = (total + apart * bool(found.penalized[row])) / max(count, 2)
        torch.testing.assert_close(found.loss[row], expected)
        torch.testing.assert_close(found.penalty[row], apart)
        nll = functional.cross_entropy(model.get_logits(own[MASK[row]]), IDS[row, MASK[row]])
        torch.testing.assert_close(found.nll[row], nll)  # type: ignore[index]


def test_rows_that_count() -> None:
    counted = {
        "none": [False, False, False],
        "l2": [True, True, True],
        "l2_noise": [True, False, True],
        "l2_noise_random": [True, False, True],
        "cosine": [True, True, True],
        "near_far": [True, False, True],
    }
    for kind, expected in counted.items():
        penalty = Penalty(kind=kind)  # type: ignore[arg-type]
        assert find_penalized(penalty, VIEWS[: penalty.views], STEPS).tolist() == expected
    ends = [VIEWS[0], View(torch.tensor([0, 39, 20]), START)]
    assert find_penalized(Penalty(kind="l2"), ends, STEPS).tolist() == [False, False, True]


def test_the_loss_is_half_of_its_sum_where_views_are_the_same(model: TextDiffusionModel) -> None:
    views = [VIEWS[0], VIEWS[0]]
    twice = compute_losses(model, PROCESS, IDS, MASK, START, views, Penalty())
    once = run(model, Penalty(kind="none"))
    torch.testing.assert_close(twice.loss, 2 * once.loss)
    assert twice.penalty.abs().max() < 1e-10
    assert not twice.penalized.any()


def test_gradients_pass_through_all_predictions_and_the_target() -> None:
    """Nothing is held fixed: a difference quotient along a direction says so."""
    model = make_model().double()
    penalty = Penalty(weight=-3.0)
    views = [View(view.timesteps, view.noise.double()) for view in VIEWS[:2]]

    def total() -> Tensor:
        # In float32, as losses are: so the step is large.
        return compute_losses(model, PROCESS, IDS, MASK, START.double(), views, penalty).loss.sum()

    total().backward()
    for name in ("word_embedding.weight", "output_down_proj.2.weight", "lm_head.bias"):
        parameter = model.get_parameter(name)
        direction = draw(*parameter.shape, seed=4).double()
        assert parameter.grad is not None
        expected = float((parameter.grad * direction).sum())
        with torch.no_grad():
            parameter += 1e-2 * direction
            above = float(total())
            parameter -= 2e-2 * direction
            below = float(total())
            parameter += 1e-2 * direction
        assert (above - below) / 2e-2 == pytest.approx(expected, rel=2e-3)


def test_a_model_in_bfloat16_has_losses_in_float32() -> None:
    exact = run(make_model(), Penalty(), with_nll=True)
    rough = run(make_model().bfloat16(), Penalty(), with_nll=True)
    assert rough.loss.dtype == torch.float32
    torch.testing.assert_close(rough.loss, exact.loss, rtol=0.05, atol=0.05)


def test_nll_is_computed_where_it_is_asked_for(model: TextDiffusionModel) -> None:
    assert run(model, Penalty()).nll is None
    found = run(model, Penalty(), with_nll=True).nll
    assert found is not None
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"kind": "l1"}, "kind must be one of none, l2, l2_noise, l2_noise_random, cosine, "
         "near_far: got 'l1'"),
        ({"weight": 2.0}, "weight must not be above 0 with l2_noise_random: got 2.0"),
        ({"weight": float("nan")}, "weight must be finite: got nan"),
        ({"kind": "near_far", "far_weight": float("inf")}, "far_weight must be finite: got inf"),
    ],
)  # fmt: skip
def test_penalties_that_there_are_not(options: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Penalty(**options)
    assert str(error.value) == text


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"views": VIEWS}, ValueError, "views must be 2 with l2_noise_random: got 3"),
        ({"ids": IDS[0]}, ValueError, "ids must have the shape [batch, length]: got [12]"),
        ({"ids": IDS - 1}, IndexError, "ids must be below the vocabulary 30: got -1 at [0, 0]"),
        ({"mask": MASK.int()}, TypeError, "mask must be of bool: got torch.int32"),
        ({"mask": MASK[:2]}, ValueError, "mask must have the shape [3, 12]: got [2, 12]"),
        ({"start_noise": START[:, :3]}, ValueError,
         "start_noise must have the shape [3, 12, 6]: got [3, 3, 6]"),
        ({"views": [VIEWS[0], View(VIEWS[1].timesteps + 30, START)]}, IndexError,
         "timesteps must be below the 40 steps: got 60 in row 2"),
        ({"views": [VIEWS[0], View(VIEWS[1].timesteps.float(), START)]}, TypeError,
         "timesteps must be int64 or int32: got torch.float32"),
        ({"views": [VIEWS[0], View(VIEWS[1].timesteps, START[0])]}, ValueError,
         "noise must have the shape [3, 12, 6]: got [12, 6]"),
    ],
)  # fmt: skip
def test_batches_that_do_not_fit(
    model: TextDiffusionModel, change: Any, kind: Any, text: str
) -> None:
    given = {"ids": IDS, "mask": MASK, "start_noise": START, "views": VIEWS[:2], **change}
    with pytest.raises(kind) as error:
        compute_losses(model, PROCESS, **given)
    assert str(error.value) == text
