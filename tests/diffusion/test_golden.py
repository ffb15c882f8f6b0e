"""What the authors' code computes with the same weights, noise and steps: `golden/diffuseq`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmcore.diffusion import (
    Penalty,
    Process,
    Sampler,
    Step,
    TextDiffusionModel,
    View,
    compute_losses,
    load_checkpoint,
    sample_latents,
)
from lmcore.diffusion.sampling import read_tokens
from tiny_diffusion import respace, sqrt_betas

STEPS = 200
PENALTIES = ["none", "l2", "l2_noise", "l2_noise_random"]
NEAR: dict[str, Any] = {"atol": 1e-4, "rtol": 0.0}


@pytest.fixture(scope="module")
def golden(golden_dir: Path) -> Callable[[str], Tensor]:
    arrays = np.load(golden_dir / "diffuseq/io.npz")
    return lambda name: torch.from_numpy(arrays[name])


@pytest.fixture(scope="module")
def model(golden_dir: Path) -> TextDiffusionModel:
    path = golden_dir / "diffuseq/model.safetensors"
    return load_checkpoint(path, num_attention_heads=4, diffusion_steps=STEPS)


@pytest.fixture(scope="module")
def process() -> Process:
    return Process(sqrt_betas(STEPS))


def test_sizes_are_those_of_the_file(model: TextDiffusionModel, golden: Any) -> None:
    vocabulary, latent, hidden, layers, _, steps, heads, inner, positions = golden("config")
    config = model.config
    assert (config.vocab_size, config.latent_size, config.hidden_size) == (
        vocabulary, latent, hidden
    )  # fmt: skip
    assert (config.num_hidden_layers, config.num_attention_heads) == (layers, heads)
    assert (config.intermediate_size, config.max_position_embeddings) == (inner, positions)
    assert config.diffusion_steps == steps


@pytest.mark.parametrize("attention", ["sdpa", "eager", "lmcore"])
def test_forward_and_logits(
    model: TextDiffusionModel, process: Process, golden: Any, attention: str
) -> None:
    model.set_attn_implementation(attention)
    with torch.no_grad():
        found = model(golden("x"), process.scale_times(golden("t")))
        torch.testing.assert_close(found, golden("forward"), **NEAR)
        torch.testing.assert_close(model.get_logits(golden("forward")), golden("logits"), **NEAR)


@pytest.mark.parametrize("kind", PENALTIES)
def test_every_term_of_the_loss(
    model: TextDiffusionModel, process: Process, golden: Any, kind: Any
) -> None:
    def at(name: str) -> Tensor:
        return golden(f"loss|{kind}|{name}")  # type: ignore[no-any-return]

    views = [View(at("t"), at("randn_like_1")), View(at("t_neighbour"), at("randn_like_3"))]
    penalty = Penalty(kind=kind)
    found = compute_losses(
        model, process, golden("input_ids"), golden("input_mask").bool(), at("randn_like_0"),
        views[: penalty.views], penalty, with_nll=True,
    )  # fmt: skip
    torch.testing.assert_close(found.mse, at("term|mse"), **NEAR)
    torch.testing.assert_close(found.nll, at("term|nll"), **NEAR)
    torch.testing.assert_close(found.loss, at("term|loss"), **NEAR)
    if kind == "none":
        assert not found.penalized.any()
        assert not found.penalty.any()
    else:
        torch.testing.assert_close(found.mse_views[1], at("term|mse_similar"), **NEAR)
        torch.testing.assert_close(found.penalty, at("term|l2"), **NEAR)
        assert found.penalized.tolist() == at("penalty_mask").tolist()
        assert 0 < found.penalized.sum() < len(found.penalized)


def test_the_whole_chain_of_sampling(model: TextDiffusionModel, golden: Any) -> None:
    kept = golden("sample|use_timesteps").tolist()
    process = Process(respace(sqrt_betas(STEPS), kept), kept, total_steps=STEPS)
    mask = golden("input_mask").bool()
    steps: list[Step] = []
    with torch.no_grad():
        sources = model.embed(golden("input_ids"))
    # Noises and states are in the order in which they were made: from the last step down.
    last = len(kept) - 1
    latents = sample_latents(
        model, process, model.word_embedding.weight, sources, mask,
        start=golden("sample|x_noised"),
        noise=lambda step: golden(f"sample|randn_like_{last - step}"),
        sampler=Sampler(), callback=steps.append,
    )  # fmt: skip
    assert [step.step for step in steps] == [5, 4, 3, 2, 1, 0]
    assert [step.timestep for step in steps] == kept[::-1]
    for place, step in enumerate(steps):
        torch.testing.assert_close(step.latents, golden(f"sample|state_{place}"), **NEAR)
    assert torch.equal(latents, steps[-1].latents)
    assert read_tokens(model, latents).tolist() == golden("sample|tokens").tolist()
