"""The process: tables, noising of targets alone, the posterior, shorter processes, bad input."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmcore.diffusion import Process
from tiny_diffusion import draw, respace, sqrt_betas

STEPS = 40
BETAS = sqrt_betas(STEPS)


def rows(*steps: int) -> torch.Tensor:
    return torch.tensor(steps)


# Golden.


def test_numbers_of_the_paper_s_schedule() -> None:
    process = Process(sqrt_betas(2000))
    noise = np.sqrt(1 - process.alphas_cumprod)
    expected = [0.121001, 0.465957, 0.757175, 0.902724, 1.0]
    assert noise[[0, 100, 666, 1333, 1999]] == pytest.approx(expected, abs=1e-6)
    assert process.start_deviation == pytest.approx(0.121001, abs=1e-6)
    assert process.scale_times(rows(0, 1, 1999)).tolist() == [0.0, 0.5, 999.5]


@pytest.mark.parametrize("name", ["adp_4", "adp_20"])
def test_respaced_betas_of_the_specification(name: str) -> None:
    kept = {"adp_4": [0, 667, 1334, 1999], "adp_20": [
        0, 333, 667, 762, 857, 952, 1048, 1143, 1238, 1334, 1400, 1467, 1534, 1600, 1666, 1733,
        1800, 1866, 1932, 1999]}[name]  # fmt: skip
    process = Process(respace(sqrt_betas(2000), kept), kept, total_steps=2000)
    first = [0.014641, 0.567418, 0.566497, 0.999999] if name == "adp_4" else [0.014641, 0.393933]
    assert process.betas[: len(first)] == pytest.approx(first, abs=1e-6)
    assert process.variances[1:] == pytest.approx(process.betas[1:], abs=0)
    assert process.variances[0] == process.posterior_variances[1]
    assert process.scale_times(rows(1)).tolist() == [kept[1] / 2]


# Laws.


@settings(max_examples=30)
@given(st.lists(st.floats(1e-4, 0.999), min_size=1, max_size=8), st.integers(0, 7))
def test_the_posterior_is_that_of_two_normal_steps(betas: list[float], place: int) -> None:
    """By completing the square of x_t given x_(t-1) and x_(t-1) given x_0."""
    step = place % len(betas)
    process = Process(betas)
    beta, before = process.betas[step], process.alphas_cumprod_prev[step]
    if step == 0:
        assert process.estimate_weights[0] == pytest.approx(1)
        assert process.state_weights[0] == process.posterior_variances[0] == 0
        return
    precision = (1 - beta) / beta + 1 / (1 - before)
    assert process.posterior_variances[step] == pytest.approx(1 / precision)
    assert process.state_weights[step] == pytest.approx(np.sqrt(1 - beta) / beta / precision)
    expected = np.sqrt(before) / (1 - before) / precision
    assert process.estimate_weights[step] == pytest.approx(expected)


def test_all_steps_are_the_process_itself() -> None:
    kept = list(range(STEPS))
    base, spaced = Process(BETAS), Process(respace(BETAS, kept), kept, total_steps=STEPS)
    for name in ("betas", "estimate_weights", "state_weights", "variances", "timestep_map"):
        np.testing.assert_allclose(getattr(spaced, name), getattr(base, name), rtol=1e-9)
    assert spaced.total_steps == base.total_steps == STEPS


def test_only_targets_become_noisy() -> None:
    process = Process(BETAS)
    clean, noise = draw(3, 4, 5), draw(3, 4, 5, seed=1)
    mask = torch.tensor([[False, True, True, False]]).expand(3, 4)
    steps = rows(0, 7, STEPS - 1)
    found = process.add_noise(clean, steps, noise, mask)
    assert torch.equal(found[~mask], clean[~mask])
    left = torch.tensor(process.alphas_cumprod)[steps, None, None]
    expected = (left.sqrt() * clean + (1 - left).sqrt() * noise).float()
    torch.testing.assert_close(found[mask], expected[mask])
    torch.testing.assert_close(process.add_noise(clean, steps, noise), expected)


def test_posterior_of_rows_is_that_of_the_tables() -> None:
    process = Process(BETAS)
    estimates, states = draw(2, 3, 4), draw(2, 3, 4, seed=1)
    found = process.get_posterior_mean(estimates, states, rows(5, 0))
    first = process.estimate_weights[5] * estimates[0] + process.state_weights[5] * states[0]
    torch.testing.assert_close(found[0], first.float())
    torch.testing.assert_close(found[1], estimates[1])
    assert process.get_variance(rows(0, 5)).tolist() == pytest.approx(
        [process.posterior_variances[1], BETAS[5]]
    )


def test_one_step() -> None:
    process = Process([0.5])
    assert process.estimate_weights.tolist() == [1.0]
    assert process.variances.tolist() == [0.5]
    assert process.posterior_variances.tolist() == [0.0]
    assert process.to("cpu").device.type == "cpu"


# What does not fit.


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ({"betas": [1, 1]}, TypeError, "betas must be of floating point: got int64"),
        ({"betas": []}, ValueError, "betas must have the shape [at least 1]: got [0]"),
        ({"betas": [[0.5]]}, ValueError, "betas must have the shape [at least 1]: got [1, 1]"),
        ({"betas": [0.5, 0.0]}, ValueError, "betas[1] must be above 0 and below 1: got 0.0"),
        ({"betas": [0.5, 1.0]}, ValueError, "betas[1] must be above 0 and below 1: got 1.0"),
        ({"betas": [1.5]}, ValueError, "betas[0] must be above 0 and below 1: got 1.5"),
        ({"betas": [np.nan]}, ValueError, "betas[0] must be above 0 and below 1: got nan"),
        ({"betas": [0.999] * 200}, ValueError,
         "betas[102] must leave a product of 1 - beta that is at least 2**-1022 and below 1: got "
         "1.00000000000009e-309"),
        ({"total_steps": 3}, ValueError, "total_steps must be the 2 of betas: got 3"),
        ({"timestep_map": [0, 1]}, ValueError, "total_steps must be given with timestep_map"),
        ({"timestep_map": [0.0, 1.0], "total_steps": 9}, TypeError,
         "timestep_map must hold integers: got float64"),
        ({"timestep_map": [0], "total_steps": 9}, ValueError,
         "timestep_map must have the shape [2]: got [1]"),
        ({"timestep_map": [0, 9], "total_steps": 9}, ValueError,
         "timestep_map must ascend from at least 0 to below 9: got [0, 9]"),
        ({"timestep_map": [5, 5], "total_steps": 9}, ValueError,
         "timestep_map must ascend from at least 0 to below 9: got [5, 5]"),
        ({"timestep_map": [-1, 5], "total_steps": 9}, ValueError,
         "timestep_map must ascend from at least 0 to below 9: got [-1, 5]"),
    ],
)  # fmt: skip
def test_lists_that_make_no_process(arguments: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind) as error:
        Process(**{"betas": [0.5, 0.5], **arguments})
    assert str(error.value) == text


X, MASK = torch.ones(2, 3, 4), torch.ones(2, 3) > 0


@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((X, rows(0, 2), X), IndexError, "timesteps must be below the 2 steps: got 2 in row 1"),
        ((X, rows(-1, 0), X), IndexError, "timesteps must be below the 2 steps: got -1 in row 0"),
        ((X, rows(0, 1) / 2, X), TypeError,
         "timesteps must be int64 or int32: got torch.float32"),
        ((X, rows(0), X), ValueError, "timesteps must have the shape [2]: got [1]"),
        ((X[0], rows(0, 1), X), ValueError,
         "latents must have the shape [batch, length, size]: got [3, 4]"),
        ((X, rows(0, 1), X[:, :2]), ValueError,
         "noise must have the shape [2, 3, 4]: got [2, 2, 4]"),
        ((X, rows(0, 1), X, MASK.long()), TypeError, "mask must be of bool: got torch.int64"),
        ((X, rows(0, 1), X, MASK[:1]), ValueError, "mask must have the shape [2, 3]: got [1, 3]"),
    ],
)  # fmt: skip
def test_noise_that_does_not_fit(arguments: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind) as error:
        Process([0.5, 0.5]).add_noise(*arguments)
    assert str(error.value) == text


def test_steps_without_latents_that_do_not_fit() -> None:
    process = Process([0.5, 0.5])
    with pytest.raises(ValueError, match=r"timesteps must have the shape \[rows\]: got \[1, 2\]"):
        process.scale_times(torch.tensor([[0, 1]]))
    with pytest.raises(IndexError, match="below the 2 steps: got 2 in row 0"):
        process.get_variance(rows(2))
    with pytest.raises(ValueError, match="states must have the shape"):
        process.get_posterior_mean(X, X[:1], rows(0, 1))
