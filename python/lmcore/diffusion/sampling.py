"""From noise to texts: solvers of the reverse process, and the loop that all of them share.

Shapes: B rows, L positions, E latent size, V vocabulary, N steps of the process.

A solver is a function over one step: it takes the noisy latents and the network's estimate of the
clean ones, and returns the latents one step before.  Steps go from N - 1 down to 0, and step 0
returns the estimate itself.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor

from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.noise import SamplingNoise
from lmcore.diffusion.process import TIME_RANGE, Process, check_mask
from lmcore.ops.nearest_embedding import nearest_embedding

Solver: TypeAlias = Literal["ancestral", "ddim", "dpm_solver"]

# Logits of so many positions at one time.
_POSITIONS = 2048


@dataclass(kw_only=True, slots=True, frozen=True)
class Sampler:
    """How the reverse process is solved; the defaults are the authors'.

    Rounding replaces the estimate of each target position by the word embedding that is nearest.

    Attributes:
        solver: `ancestral` (DDPM with the larger variance), `ddim`, or `dpm_solver`, which is
            DPM-Solver++ of the second order (2M) in the estimate of the clean latents.
        eta: of DDIM, at least 0: the share of the posterior's deviation that is added; 0 adds none.
        order: of DPM-Solver++, 1 or 2; the first is DDIM without noise.
        clamp: whether estimates are rounded.
        clamp_from: the first step, of those from N - 1 down, at which they are; None: the first.
        clamp_until: the last step at which they are.

    Raises:
        ValueError: a value lies outside its range.

    Example:
        >>> Sampler(solver="ddim", eta=0.5).clamp
        True
    """

    solver: Solver = "ancestral"
    eta: float = 0.0
    order: int = 2
    clamp: bool = True
    clamp_from: int | None = None
    clamp_until: int = 0

    def __post_init__(self) -> None:
        if self.solver not in get_args(Solver):
            known = ", ".join(get_args(Solver))
            raise ValueError(f"solver must be one of {known}: got {self.solver!r}")
        if not 0 <= self.eta < float("inf"):
            raise ValueError(f"eta must be at least 0 and finite: got {self.eta}")
        if self.order not in (1, 2):
            raise ValueError(f"order must be 1 or 2: got {self.order}")
        if self.clamp_until < 0 or (self.clamp_from or 0) < 0:
            raise ValueError(
                f"clamp_from and clamp_until must be at least 0: "
                f"got {self.clamp_from} and {self.clamp_until}"
            )

    def clamps(self, step: int) -> bool:
        """Returns whether the estimate of a step is rounded.

        Args:
            step: from N - 1 down to 0.
        """
        first = step if self.clamp_from is None else self.clamp_from
        return self.clamp and self.clamp_until <= step <= first


class Step(NamedTuple):
    """What a step has made, for those who want to see it."""

    step: int
    """Of the process, from N - 1 down to 0."""
    timestep: int
    """Of the training, which the network was told."""
    latents: Tensor
    """`[B, L, E]` float32, noisy but for the last step."""
    estimates: Tensor
    """`[B, L, E]` float32, of the clean latents; rounded where the sampler does."""


class Draft(NamedTuple):
    """What a chain would go on with, for what guides it."""

    step: int
    """Of the process, from N - 1 down to 1: the one that was taken."""
    time: float
    """What the network will be told of the latents: their timestep of the training, scaled."""
    latents: Tensor
    """`[B, L, E]` float32, one step before `step`."""
    means: Tensor
    """`[B, L, E]` float32, the same without the noise that the step added."""
    variance: float
    """That ancestral sampling adds at `step`, whichever solver took it."""


def ancestral_step(
    process: Process, step: int, states: Tensor, estimates: Tensor, noise: Tensor | None
) -> Tensor:
    """Returns latents one step before, drawn from the posterior with the larger variance.

    Source: DDPM (arXiv 2006.11239), algorithm 2.

    Args:
        process: N steps.
        step: of `states`, below N.
        states: `[B, L, E]` noisy latents.
        estimates: `[B, L, E]` of the clean ones.
        noise: `[B, L, E]` from the standard normal distribution; step 0 needs none.

    Example:
        >>> process = Process([0.1, 0.2])
        >>> ones = torch.ones(1, 1, 1)
        >>> ancestral_step(process, 0, ones, 3 * ones, None).tolist()
        [[[3.0]]]
    """
    mean = (
        float(process.estimate_weights[step]) * estimates
        + float(process.state_weights[step]) * states
    )
    if step == 0 or noise is None:
        return mean
    return mean + float(np.sqrt(process.variances[step])) * noise


def ddim_step(
    process: Process,
    step: int,
    states: Tensor,
    estimates: Tensor,
    noise: Tensor | None,
    eta: float = 0.0,
) -> Tensor:
    """Returns latents one step before, with as much new noise as `eta` says.

    With eta = 1 mean and variance are the posterior's.

    Source: DDIM (arXiv 2010.02502), equations 12 and 16.

    Args:
        process: N steps.
        step: of `states`, below N.
        states: `[B, L, E]` noisy latents.
        estimates: `[B, L, E]` of the clean ones.
        noise: `[B, L, E]` from the standard normal distribution; not needed at step 0 or for an
            eta of 0.
        eta: at least 0.

    Raises:
        ValueError: `eta` is so large that more noise would be added than there may be.

    Example:
        >>> ones = torch.ones(1, 1, 1)
        >>> ddim_step(Process([0.1, 0.2]), 0, ones, 3 * ones, None).tolist()
        [[[3.0]]]
    """
    left, before = float(process.alphas_cumprod[step]), float(process.alphas_cumprod_prev[step])
    variance: float = eta**2 * float(process.posterior_variances[step])
    if variance > 1 - before + 1e-12:
        raise ValueError(f"eta must leave step {step} no more noise than it may have: got {eta}")
    # The state is sqrt(left) x + sqrt(1 - left) e: what is kept of its noise e.
    kept = math.sqrt(max(1 - before - variance, 0.0) / (1 - left))
    latents = (math.sqrt(before) - kept * math.sqrt(left)) * estimates + kept * states
    if variance == 0 or noise is None:
        return latents
    return latents + math.sqrt(variance) * noise


def dpm_solver_step(
    process: Process, step: int, states: Tensor, estimates: Tensor, previous: Tensor | None
) -> Tensor:
    """Returns latents one step before, with the slope of the estimates where it is known.

    Source: DPM-Solver++ (arXiv 2211.01095), algorithm 2 (2M); step 0 is of the first order.

    Args:
        process: N steps.
        step: of `states`, below N.
        states: `[B, L, E]` noisy latents.
        estimates: `[B, L, E]` of the clean ones.
        previous: `[B, L, E]` estimates of step + 1; None: the step is of the first order.

    Example:
        >>> ones = torch.ones(1, 1, 1)
        >>> dpm_solver_step(Process([0.1, 0.2]), 0, ones, 3 * ones, None).tolist()
        [[[3.0]]]
    """
    if step == 0:
        return estimates
    if previous is not None:
        gap, last_gap = _log_ratio_gap(process, step), _log_ratio_gap(process, step + 1)
        slope = 0.5 * gap / last_gap
        estimates = (1 + slope) * estimates - slope * previous
    return ddim_step(process, step, states, estimates, None)


def _log_ratio_gap(process: Process, step: int) -> float:
    """By how much the logarithm of signal over noise grows in a step."""
    left, before = process.alphas_cumprod[step], process.alphas_cumprod_prev[step]
    return float(0.5 * (np.log(before / (1 - before)) - np.log(left / (1 - left))))


def sample_latents(
    denoise: Callable[[Tensor, Tensor], Tensor],
    process: Process,
    table: Tensor,
    sources: Tensor,
    mask: Tensor,
    *,
    start: Tensor,
    noise: Callable[[int], Tensor],
    sampler: Sampler = Sampler(),
    guide: Callable[[Draft], Tensor] | None = None,
    callback: Callable[[Step], object] | None = None,
) -> Tensor:
    """Returns the clean latents that a chain of all steps of a process ends with.

    Positions that are no targets hold the sources' embeddings at every step, and are not rounded.
    No step waits for the device.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), the released `p_sample_loop`.

    Args:
        denoise: the network: `[B, L, E]` float32 and `[B]` float32 scaled timesteps to `[B, L, E]`.
        process: N steps; usually fewer than the network was trained with.
        table: `[V, E]` word embeddings, to which estimates are rounded.
        sources: `[B, L, E]`, the embeddings of the texts; only those of source positions count.
        mask: `[B, L]` bool, the positions that are generated.
        start: `[B, L, E]` from the standard normal distribution.
        noise: returns the `[B, L, E]` that a step adds, from N - 1 down; steps that add none do
            not ask.
        sampler: the solver and when it rounds.
        guide: returns the `[B, L, E]` to go on with in place of what a step would; the last step,
            0, is not guided, as its result is the estimate itself.
        callback: called with what each step has made.

    Returns:
        `[B, L, E]` float32.

    Raises:
        TypeError: the mask is not of bool.
        ValueError: shapes do not fit.

    Example:
        >>> table = torch.tensor([[0.0], [1.0]])
        >>> text = torch.tensor([[[0.0], [1.0]]])
        >>> latents = sample_latents(
        ...     lambda latents, times: text, Process([0.1, 0.2]), table, text,
        ...     torch.tensor([[False, True]]), start=torch.zeros(1, 2, 1),
        ...     noise=lambda step: torch.zeros(1, 2, 1),
        ... )
        >>> latents.tolist()
        [[[0.0], [1.0]]]
    """
    if sources.ndim != 3 or start.shape != sources.shape:
        raise ValueError(
            f"sources and start must both have the shape [batch, length, size]: "
            f"got {list(sources.shape)} and {list(start.shape)}"
        )
    check_mask(mask, sources)
    table, sources, targets = table.float(), sources.float(), mask[..., None]
    latents = torch.where(targets, start.float(), sources)
    times = process.timestep_map * (TIME_RANGE / process.total_steps)
    previous: Tensor | None = None
    with torch.no_grad():
        for step in reversed(range(process.steps)):
            told = torch.full((len(latents),), float(times[step]), device=latents.device)
            estimates = denoise(latents, told).float()
            if sampler.clamps(step):
                estimates = round_latents(estimates, table, mask)
            states = latents
            latents = _solve(process, step, states, estimates, previous, noise, sampler)
            latents = torch.where(targets, latents, sources)
            if guide is not None and step:
                means = _solve(process, step, states, estimates, previous, _no_noise, sampler)
                means, variance = torch.where(targets, means, sources), process.variances[step]
                draft = Draft(step, float(times[step - 1]), latents, means, float(variance))
                latents = torch.where(targets, guide(draft), sources)
            previous = estimates
            if callback is not None:
                callback(Step(step, int(process.timestep_map[step]), latents, estimates))
    return latents


def _solve(
    process: Process,
    step: int,
    states: Tensor,
    estimates: Tensor,
    previous: Tensor | None,
    noise: Callable[[int], Tensor | None],
    sampler: Sampler,
) -> Tensor:
    if sampler.solver == "dpm_solver":
        known = previous if sampler.order == 2 else None
        return dpm_solver_step(process, step, states, estimates, known)
    if sampler.solver == "ddim":
        added = noise(step) if sampler.eta and step else None
        return ddim_step(process, step, states, estimates, added, sampler.eta)
    return ancestral_step(process, step, states, estimates, noise(step) if step else None)


def _no_noise(step: int) -> None:
    """What a step adds to its mean."""


def round_latents(latents: Tensor, table: Tensor, mask: Tensor) -> Tensor:
    """Returns latents with the nearest word embedding at each target position.

    A position that is near to no word, because it is no number, stays.

    Args:
        latents: `[B, L, E]`.
        table: `[V, E]` of the same type.
        mask: `[B, L]` bool.

    Example:
        >>> table, mask = torch.tensor([[0.0], [1.0]]), torch.tensor([[True, False]])
        >>> round_latents(torch.tensor([[[0.9], [0.9]]]), table, mask).tolist()
        [[[1.0], [0.8999999761581421]]]
    """
    ids = nearest_embedding(latents, table, mask)
    words = table.index_select(0, ids.clamp(min=0).flatten()).view(latents.shape)
    return torch.where((ids >= 0)[..., None], words, latents)


def read_tokens(model: TextDiffusionModel, latents: Tensor) -> Tensor:
    """Returns the word with the highest logit at each position.

    Args:
        model: whose output layer reads them.
        latents: `[B, L, E]`.

    Returns:
        `[B, L]` int64.

    Example:
        >>> from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
        >>> model = TextDiffusionModel(TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... ))
        >>> read_tokens(model, torch.zeros(1, 3, 4)).shape
        torch.Size([1, 3])
    """
    flat = latents.flatten(0, 1).to(model.lm_head.weight.dtype)
    with torch.no_grad():
        found = [model.get_logits(part).argmax(-1) for part in flat.split(_POSITIONS)]
    return torch.cat(found).view(latents.shape[:2])


def sample_tokens(
    model: TextDiffusionModel,
    process: Process,
    ids: Tensor,
    mask: Tensor,
    *,
    seed: int,
    rows: Sequence[int],
    sampler: Sampler = Sampler(),
    guide: Callable[[Draft], Tensor] | None = None,
    callback: Callable[[Step], object] | None = None,
) -> Tensor:
    """Returns the tokens that a model generates after sources.

    A row's noise depends on the seed and on its number alone, and not on the batch.

    Args:
        model: in evaluation.
        process: its steps, usually fewer than those of the training.
        ids: `[B, L]` int64; only those of source positions count.
        mask: `[B, L]` bool, the positions that are generated.
        seed: below 2**64.
        rows: `[B]` numbers of the rows, each below 2**31.
        sampler: the solver and when it rounds.
        guide: returns the `[B, L, E]` to go on with in place of what a step would; the last step,
            0, is not guided, as its result is the estimate itself.
        callback: called with what each step has made.

    Returns:
        `[B, L]` int64, all positions as the output layer reads them.

    Raises:
        TypeError: ids are not integers, or the mask is not of bool.
        IndexError: an id lies outside the vocabulary.
        ValueError: shapes do not fit, or the model is in training, where dropout would change
            what it estimates.

    Example:
        >>> from lmcore.diffusion import TextDiffusionConfig, TextDiffusionModel
        >>> model = TextDiffusionModel(TextDiffusionConfig(
        ...     vocab_size=9, latent_size=4, hidden_size=8, num_hidden_layers=1,
        ...     num_attention_heads=2, intermediate_size=16, time_size=4,
        ... )).eval()
        >>> ids, mask = torch.tensor([[1, 2, 3]]), torch.tensor([[False, True, True]])
        >>> sample_tokens(model, Process([0.1, 0.2]), ids, mask, seed=1, rows=[0]).shape
        torch.Size([1, 3])
    """
    if model.training:
        raise ValueError("model must be in evaluation: call model.eval()")
    if ids.ndim != 2 or len(rows) != len(ids):
        raise ValueError(
            f"ids must have the shape [{len(rows)} rows, length]: got {list(ids.shape)}"
        )
    # Words may be kept in a wider type than what reads the noise: see `narrow_denoiser`.
    kind = model.position_embeddings.weight.dtype

    def denoise(latents: Tensor, timesteps: Tensor) -> Tensor:
        result: Tensor = model(latents.to(kind), timesteps)
        return result

    with torch.no_grad():
        sources = model.embed(ids)
    length, size = sources.shape[1:]
    noise = SamplingNoise(seed, rows, length, size, device=ids.device)
    latents = sample_latents(
        denoise,
        process,
        model.word_embedding.weight,
        sources,
        mask,
        start=noise.start(),
        noise=noise,
        sampler=sampler,
        guide=guide,
        callback=callback,
    )
    return read_tokens(model, latents)
