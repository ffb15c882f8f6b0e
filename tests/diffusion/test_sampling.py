"""Solvers and their loop: laws of each step, an oracle, rows for themselves, and no waiting."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmcore.diffusion import Process, Sampler, Step, sample_latents, sample_tokens
from lmcore.diffusion.sampling import (
    ancestral_step,
    ddim_step,
    dpm_solver_step,
    read_tokens,
    round_latents,
)
from tiny_diffusion import draw, make_model, respace, sqrt_betas

STEPS = 40
BETAS = sqrt_betas(STEPS)
KEPT = [0, 3, 11, 20, 38, 39]
SPACED = Process(respace(BETAS, KEPT), KEPT, total_steps=STEPS)
SAMPLERS = [
    Sampler(), Sampler(clamp=False), Sampler(solver="ddim"), Sampler(solver="ddim", eta=1.0),
    Sampler(solver="dpm_solver"), Sampler(solver="dpm_solver", order=1, clamp=False),
]  # fmt: skip


def name(sampler: Any) -> Any:
    return f"{sampler.solver}-{sampler.clamp}" if isinstance(sampler, Sampler) else None


# Laws of a step.


@pytest.mark.parametrize("step", range(len(KEPT)))
def test_ddim_with_an_eta_of_one_is_the_posterior(step: int) -> None:
    states, estimates, noise = draw(2, 3, 4), draw(2, 3, 4, seed=1), draw(2, 3, 4, seed=2)
    mean = ancestral_step(SPACED, step, states, estimates, None)
    found = ddim_step(SPACED, step, states, estimates, noise, eta=1.0)
    deviation = math.sqrt(SPACED.posterior_variances[step])
    torch.testing.assert_close(found, mean + deviation * noise, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        ancestral_step(SPACED, step, states, estimates, noise),
        mean + (math.sqrt(SPACED.variances[step]) * noise if step else 0),
    )


def signal_and_noise(step: int) -> tuple[float, float]:
    left = SPACED.alphas_cumprod[step]
    return math.sqrt(left), math.sqrt(1 - left)


@pytest.mark.parametrize("step", range(1, len(KEPT)))
def test_dpm_solver_is_its_formula(step: int) -> None:
    """As the paper writes it, with half the logarithm of the signal-to-noise ratio."""
    states, estimates, before = draw(2, 3, 4), draw(2, 3, 4, seed=1), draw(2, 3, 4, seed=2)
    (signal, noise), (next_signal, next_noise) = map(signal_and_noise, (step, step - 1))
    gap = math.log(next_signal / next_noise) - math.log(signal / noise)
    first = next_noise / noise * states - next_signal * math.expm1(-gap) * estimates
    found = dpm_solver_step(SPACED, step, states, estimates, None)
    torch.testing.assert_close(found, first)
    torch.testing.assert_close(found, ddim_step(SPACED, step, states, estimates, None))
    if step == len(KEPT) - 1:
        return
    last_signal, last_noise = signal_and_noise(step + 1)
    ratio = (math.log(signal / noise) - math.log(last_signal / last_noise)) / gap
    slope = (1 + 1 / (2 * ratio)) * estimates - 1 / (2 * ratio) * before
    second = next_noise / noise * states - next_signal * math.expm1(-gap) * slope
    torch.testing.assert_close(dpm_solver_step(SPACED, step, states, estimates, before), second)


def gaussian_error(steps: int, order: int) -> float:
    """Of the flow of normal latents of deviation 0.5, whose exact solution is known."""
    left = np.linspace(0.98, 0.1, steps)
    process = Process(1 - left / np.append(1.0, left[:-1]))

    def spread(share: float) -> float:
        return math.sqrt(0.25 * share + 1 - share)

    def denoise(latents: Tensor, told: Tensor) -> Tensor:
        share = process.alphas_cumprod[round(float(told[0]) * steps / 1000)]
        return latents * math.sqrt(share) * 0.25 / spread(share) ** 2

    seen: list[Step] = []
    start = torch.ones(1, 1, 1, dtype=torch.float64)
    sample_latents(
        denoise, process, torch.zeros(1, 1), start, torch.ones(1, 1) > 0, start=start,
        noise=lambda step: torch.zeros(1, 1, 1), callback=seen.append,
        sampler=Sampler(solver="dpm_solver", order=order, clamp=False),
    )  # fmt: skip
    return abs(float(seen[-2].latents) - spread(0.98) / spread(0.1))


def test_the_second_order_is_one() -> None:
    """With twice the steps the error is a quarter; of the first order it is half."""
    first = [gaussian_error(steps, 1) for steps in (40, 80)]
    second = [gaussian_error(steps, 2) for steps in (40, 80)]
    assert first[0] / first[1] == pytest.approx(2, rel=0.1)
    assert second[0] / second[1] > 3
    assert second[0] < first[0] / 5


# The loop.


def run(
    process: Process, denoise: Any, sampler: Sampler, *, table: Tensor, text: Tensor, mask: Tensor,
    seed: int = 0, callback: Any = None,
) -> Tensor:  # fmt: skip
    return sample_latents(
        denoise, process, table, table[text], mask, start=draw(*text.shape, table.shape[1]),
        noise=lambda step: draw(*text.shape, table.shape[1], seed=100 + step + seed),
        sampler=sampler, callback=callback,
    )  # fmt: skip


TABLE = draw(30, 6, seed=9)
TEXT = torch.arange(24).view(2, 12) % 30
MASK = torch.arange(12) >= torch.tensor([[5], [2]])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
@pytest.mark.parametrize("kept", [[0], [39], [0, 39], KEPT, list(range(STEPS))], ids=len)
def test_an_oracle_leads_to_its_text(sampler: Sampler, kept: list[int]) -> None:
    process = Process(respace(BETAS, kept), kept, total_steps=STEPS)
    found = run(process, lambda *_: TABLE[TEXT], sampler, table=TABLE, text=TEXT, mask=MASK)
    torch.testing.assert_close(found, TABLE[TEXT], atol=1e-5, rtol=0)
    assert torch.equal(found[~MASK], TABLE[TEXT][~MASK])


def linear(latents: Tensor, timesteps: Tensor) -> Tensor:
    """A network that mixes positions and knows its time."""
    mixed = latents + 0.5 * latents.roll(1, 1)
    return mixed * torch.cos(timesteps / 500)[:, None, None]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_all_steps_are_the_base(sampler: Sampler) -> None:
    kept = list(range(STEPS))
    spaced = Process(respace(BETAS, kept), kept, total_steps=STEPS)
    base = run(Process(BETAS), linear, sampler, table=TABLE, text=TEXT, mask=MASK)
    found = run(spaced, linear, sampler, table=TABLE, text=TEXT, mask=MASK)
    torch.testing.assert_close(found, base)
    assert not torch.equal(found[MASK], TABLE[TEXT][MASK])


def test_sources_hold_and_are_not_rounded() -> None:
    seen: list[Step] = []
    told = []

    def denoise(latents: Tensor, timesteps: Tensor) -> Tensor:
        assert torch.equal(latents[~MASK], TABLE[TEXT][~MASK])
        told.append(timesteps.tolist())
        return linear(latents, timesteps)

    run(SPACED, denoise, Sampler(), table=TABLE, text=TEXT, mask=MASK, callback=seen.append)
    assert told == [[kept * 1000 / STEPS] * 2 for kept in KEPT[::-1]]
    assert [(step.step, step.timestep) for step in seen] == [*enumerate(KEPT)][::-1]
    for step in seen:
        is_word = (step.estimates[:, :, None] == TABLE).all(-1).any(-1)
        assert torch.equal(is_word, MASK)


@pytest.mark.parametrize(
    ("options", "rounded"),
    [
        ({}, [5, 4, 3, 2, 1, 0]),
        ({"clamp": False}, []),
        ({"clamp_from": 3}, [3, 2, 1, 0]),
        ({"clamp_until": 4}, [5, 4]),
        ({"clamp_from": 4, "clamp_until": 2}, [4, 3, 2]),
        ({"clamp_from": 0, "clamp": False}, []),
    ],
)
def test_steps_that_round(options: Any, rounded: list[int]) -> None:
    seen: list[Step] = []
    sampler = Sampler(**options)
    run(SPACED, linear, sampler, table=TABLE, text=TEXT, mask=MASK, callback=seen.append)
    are_words = [
        step.step for step in seen
        if (step.estimates[MASK][:, None] == TABLE).all(-1).any(-1).all()
    ]  # fmt: skip
    assert are_words == rounded


def test_noise_is_asked_for_where_it_is_added() -> None:
    asked: list[int] = []

    def noise(step: int) -> Tensor:
        asked.append(step)
        return torch.zeros(2, 12, 6)

    for sampler, steps in (
        (Sampler(), [5, 4, 3, 2, 1]), (Sampler(solver="ddim", eta=0.5), [5, 4, 3, 2, 1]),
        (Sampler(solver="ddim"), []), (Sampler(solver="dpm_solver"), []),
    ):  # fmt: skip
        asked.clear()
        sample_latents(
            linear, SPACED, TABLE, TABLE[TEXT], MASK, start=draw(2, 12, 6), noise=noise,
            sampler=sampler,
        )  # fmt: skip
        assert asked == steps


def test_what_is_no_number_is_not_rounded() -> None:
    latents = torch.tensor([[[0.9], [torch.nan], [0.2]]])
    found = round_latents(latents, torch.tensor([[0.0], [1.0]]), torch.ones(1, 3) > 0)
    assert found.tolist()[0][0] == [1.0]
    assert found.isnan().tolist() == [[[False], [True], [False]]]


# Models.


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_a_row_is_the_same_in_any_company(model: Any, sampler: Sampler) -> None:
    """The same tokens, and the same latents at every step but for rounding."""

    def sample(texts: list[int], rows: list[int]) -> tuple[Tensor, list[Step]]:
        seen: list[Step] = []
        tokens = sample_tokens(
            model, SPACED, TEXT[texts], MASK[texts], seed=3, rows=rows, sampler=sampler,
            callback=seen.append,
        )  # fmt: skip
        return tokens, seen

    together, steps = sample([0, 1, 1, 0], [4, 9, 5, 9])
    for place, (text, row) in enumerate([(0, 4), (1, 9), (1, 5), (0, 9)]):
        alone, own = sample([text], [row])
        assert torch.equal(together[place], alone[0])
        for step, same in zip(steps, own, strict=True):
            torch.testing.assert_close(step.latents[place], same.latents[0])
    for first, second in ((0, 3), (1, 2)):  # one text under two numbers
        assert not torch.equal(steps[0].latents[first], steps[0].latents[second])


def test_tokens_are_read_in_blocks(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    latents = draw(3, 12, 6)
    expected = model.get_logits(latents).argmax(-1)
    monkeypatch.setattr("lmcore.diffusion.sampling._POSITIONS", 5)
    assert torch.equal(read_tokens(model, latents), expected)


def test_bfloat16_computes_the_chain_in_float32() -> None:
    model = make_model().bfloat16()
    seen: list[Step] = []
    sample_tokens(model, SPACED, TEXT, MASK, seed=1, rows=[0, 1], callback=seen.append)
    assert all(step.latents.dtype == step.estimates.dtype == torch.float32 for step in seen)
    is_word = (seen[-1].latents[MASK][:, None] == model.word_embedding.weight).all(-1).any(-1)
    assert is_word.all()


@pytest.mark.parametrize("sampler", SAMPLERS, ids=name)
def test_no_step_waits_for_a_device(sampler: Sampler) -> None:
    """A meta tensor has no values: reading one is an error, and waiting is reading one."""
    with torch.device("meta"):
        model = make_model()
    ids, mask = TEXT.to("meta"), MASK.to("meta")
    found = sample_tokens(model, SPACED, ids, mask, seed=1, rows=[0, 1], sampler=sampler)
    assert found.shape == (2, 12)
    with pytest.raises(RuntimeError, match="meta"):
        found.sum().item()


# What does not fit.


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"solver": "euler"}, "solver must be one of ancestral, ddim, dpm_solver: got 'euler'"),
        ({"eta": -0.5}, "eta must be at least 0 and finite: got -0.5"),
        ({"eta": math.nan}, "eta must be at least 0 and finite: got nan"),
        ({"order": 3}, "order must be 1 or 2: got 3"),
        ({"clamp_until": -1}, "clamp_from and clamp_until must be at least 0: got None and -1"),
        ({"clamp_from": -2}, "clamp_from and clamp_until must be at least 0: got -2 and 0"),
    ],
)
def test_samplers_that_there_are_not(options: Any, text: str) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Sampler(**options)
    assert str(error.value) == text


def test_more_noise_than_there_may_be() -> None:
    with pytest.raises(ValueError, match=r"eta must leave step 4 no more noise than it may"):
        ddim_step(SPACED, 4, TABLE, TABLE, TABLE, eta=9.0)


@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"mask": MASK.long()}, TypeError, "mask must be of bool: got torch.int64"),
        ({"mask": MASK[:, :3]}, ValueError, "mask must have the shape [2, 12]: got [2, 3]"),
        ({"rows": [0]}, ValueError, "ids must have the shape [1 rows, length]: got [2, 12]"),
        ({"ids": TEXT[0]}, ValueError, "ids must have the shape [2 rows, length]: got [12]"),
        ({"ids": TEXT + 7}, IndexError, "ids must be below the vocabulary 30: got 30 at [1, 11]"),
        ({"ids": TEXT.float()}, TypeError, "ids must be int64 or int32: got torch.float32"),
        ({"seed": -1}, ValueError, "seed must be at least 0 and below 2**64: got -1"),
    ],
)
def test_texts_that_do_not_fit(model: Any, change: Any, kind: Any, text: str) -> None:
    given = {"ids": TEXT, "mask": MASK, "seed": 0, "rows": [0, 1], **change}
    with pytest.raises(kind) as error:
        sample_tokens(model, SPACED, **given)
    assert str(error.value) == text


def test_a_model_in_training_and_a_start_that_does_not_fit() -> None:
    with pytest.raises(ValueError, match="model must be in evaluation"):
        sample_tokens(make_model().train(), SPACED, TEXT, MASK, seed=0, rows=[0, 1])
    with pytest.raises(ValueError, match="sources and start must both have the shape"):
        sample_latents(linear, SPACED, TABLE, TABLE[TEXT], MASK, start=draw(1, 12, 6), noise=draw)
