"""The paper's preliminary study: a model's estimates for noised texts and in its own chains.

Shapes: B rows, L positions, E latent size, T timesteps of the training.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmcore.diffusion.data import EncodedPairs, encode_pairs
from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.models import (
    check_fit,
    find_row_length,
    load_model,
    load_tokenizer_of,
)
from lmcore.diffusion.noise import SamplingNoise
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.process import Process
from lmcore.diffusion.profile import Curve, Profile
from lmcore.diffusion.sampling import Sampler, Step, sample_latents
from lmcore.diffusion.spacing import make_process
from lmcore.ops.schedule import (
    adaptive_timesteps,
    find_neighbours,
    make_betas,
)
from lmcore.training.checkpoint import hash_weights
from lmcore.training.processes import find_device

POINTS = 50
"""Timesteps that are measured where no number is given."""
STEPS = 20
"""Of the short chain: the authors' number."""
TOLERANCE = 0.05
"""Of the noise of neighbours: the authors' number."""
# The noise of a chain has the numbers of its steps; that of noised texts, of neighbours, and
# between embeddings and clean latents come behind all that a process can have.
_FORWARD, _NEIGHBOUR, _CHAIN_NEIGHBOUR, _START = (k << 24 for k in (1, 2, 3, 4))


def make_profile(
    model: TextDiffusionModel,
    data: EncodedPairs,
    *,
    points: int | None = None,
    chains: Iterable[int] | None = None,
    seed: int = 0,
    batch_size: int = 64,
    tolerance: float = TOLERANCE,
    sampler: Sampler | None = None,
    progress: Callable[[int], object] | None = None,
) -> Profile:
    """Returns the errors and distances of a model's estimates, timestep by timestep.

    Errors are those of the estimates f before rounding, against the word embeddings. The neighbour
    of a timestep is the farthest one with less noise, within the tolerance; for the first ones,
    which have none, the farthest one with more. Its latents have noise of their own: noised texts
    again, or, in a chain, the estimate at the timestep, as the sampler rounds it, in place of the
    text. All is measured at target positions alone, padding included; a row's noise depends on
    the seed, its number and the timestep, not on the batch.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), the preliminary study.

    Args:
        model: in evaluation.
        data: the rows.
        points: timesteps, spread evenly from 0 to T - 1; 50 if None, or all where T is smaller.
        chains: how many steps each chain has, T for the full process; those of a shorter one are
            Adaptive Decay Sampling's. The full one and one of 20 if None; there may be none.
        seed: of the noise, below 2**64.
        batch_size: rows at once.
        tolerance: of the noise of neighbours, above 0.
        sampler: of the chains; the authors' if None.
        progress: called with the number of rows each time the network has seen them.

    Raises:
        FloatingPointError: an estimate is not finite.
        ValueError: a number is out of its range, there are no rows, or the model is in training.

    Example:
        >>> from lmcore.diffusion.data import encode_pairs
        >>> from lmcore.diffusion.models import make_model
        >>> from lmcore.diffusion.pairs import Pair
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> data = encode_pairs([Pair("a b", "b")], tokenizer, 10)
        >>> model = make_model(tiny(), tokenizer).eval()
        >>> profile = make_profile(model, data, points=3, chains=[2])
        >>> profile.forward.timesteps, profile.chains[0].timesteps
        ((0, 667, 999, 1999), (667, 1999))
    """
    if model.training:
        raise ValueError("model must be in evaluation: call model.eval()")
    if not len(data):
        raise ValueError("there are no rows to measure with")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: got {batch_size}")
    total = model.config.diffusion_steps
    plan = plan_profile(total, points=points, chains=chains)
    study = _Study(model, data, plan, seed, tolerance, sampler or Sampler(), progress)
    sums = np.zeros((1 + len(plan.chains), 3, total))
    for first in range(0, len(data), batch_size):
        sums += study.measure(first, min(first + batch_size, len(data)))
    sums /= len(data)
    forward, *others = (
        _make_curve(None if k == 0 else len(plan.chains[k - 1]), steps, sums[k])
        for k, steps in enumerate(plan.measured)
    )
    return Profile(
        total=total,
        noise_schedule=model.config.noise_schedule,
        model=hash_weights(model).hex(),
        data=data.find_fingerprint().hex(),
        rows=len(data),
        length=data.length,
        seed=seed,
        tolerance=tolerance,
        forward=forward,
        chains=tuple(others),
    )


def load_rows(
    name: str | os.PathLike[str],
    pairs: Iterable[Pair],
    *,
    length: int | None = None,
    device: str = "auto",
) -> tuple[TextDiffusionModel, EncodedPairs]:
    """Returns a model, in evaluation, and pairs as rows for it.

    Args:
        name: folder of a model and its tokenizer, or of a training run.
        pairs: any number.
        length: positions of a row; as `find_row_length` has it if None.
        device: as for `lmcore.training.processes.find_device`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no such model, rows are longer than it has positions, a text
            has no tokens, or the device does not exist.

    Example:
        >>> load_rows("nowhere", [])
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] no such folder of a model: 'nowhere'
    """
    place = find_device(device)
    model, tokenizer = load_model(name), load_tokenizer_of(name)
    length = length or find_row_length(model.config)
    check_fit(model, tokenizer, length)
    nn.Module.to(nn.Module.eval(model), place)  # transformers' own are untyped
    return model, encode_pairs(pairs, tokenizer, length)


class Plan(NamedTuple):
    """Which timesteps a profile is of."""

    chains: tuple[tuple[int, ...], ...]
    """The timesteps of each chain in ascending order, the longest chain first."""
    measured: tuple[tuple[int, ...], ...]
    """Those of noised texts, and of each chain, that are measured, in ascending order."""

    @property
    def passes(self) -> int:
        """How often the network sees a row."""
        forward, *others = self.measured
        return 2 * len(forward) + sum(map(len, [*self.chains, *others]))


def plan_profile(
    total: int, *, points: int | None = None, chains: Iterable[int] | None = None
) -> Plan:
    """Returns which timesteps a profile is measured at.

    Args:
        total: T.
        points: as for `make_profile`.
        chains: as for `make_profile`.

    Raises:
        ValueError: there are more points or steps than T, or none.

    Example:
        >>> plan = plan_profile(100, points=2, chains=[2])
        >>> plan.chains, plan.measured
        (((34, 99),), ((0, 34, 99), (34, 99)))
    """
    if points is None:
        points = min(POINTS, total)
    if not 1 <= points <= total:
        raise ValueError(f"points must be from 1 to the {total} timesteps: got {points}")
    if chains is None:
        chains = {total, min(STEPS, total)}
    lengths = sorted(set(chains), reverse=True)
    for steps in lengths:
        if not 1 <= steps <= total:
            raise ValueError(f"steps must be from 1 to the {total} timesteps: got {steps}")
    kept = [
        tuple(range(total)) if steps == total else tuple(adaptive_timesteps(total, steps)[::-1])
        for steps in lengths
    ]
    # From the end down: a single point is the last timestep, where sampling starts.
    grid = {total - 1 - round(k * (total - 1) / max(points - 1, 1)) for k in range(points)}
    grid |= {step for steps in kept if len(steps) < total for step in steps}
    measured = [tuple(sorted(grid & set(steps))) for steps in [range(total), *kept]]
    return Plan(tuple(kept), tuple(measured))


class _Study:
    """What is measured, for one batch after another."""

    def __init__(
        self,
        model: TextDiffusionModel,
        data: EncodedPairs,
        plan: Plan,
        seed: int,
        tolerance: float,
        sampler: Sampler,
        progress: Callable[[int], object] | None,
    ) -> None:
        config = model.config
        self.model, self.data, self.plan, self.seed = model, data, plan, seed
        self.sampler, self.progress = sampler, progress
        self.table = model.word_embedding.weight.detach()
        betas = make_betas(config.noise_schedule, config.diffusion_steps)
        self.process = Process(betas, device=self.table.device)
        self.neighbours = _choose_neighbours(betas, tolerance)
        self.processes = [
            self.process if len(kept) == len(betas) else make_process(config, kept)
            for kept in plan.chains
        ]

    @torch.no_grad()
    def measure(self, first: int, end: int) -> NDArray[np.float64]:
        """Sums over rows, `[1 + chains, 3, T]`: loss, distance and travel of what is measured."""
        device = self.table.device
        rows = slice(first, end)
        self.ids = torch.from_numpy(self.data.ids[rows]).long().to(device)
        self.mask = torch.from_numpy(self.data.target_mask[rows]).to(device)
        self.clean = self.model.embed(self.ids).float()
        length, size = self.clean.shape[1:]
        self.noise = SamplingNoise(self.seed, range(first, end), length, size, device)
        sums = torch.zeros(
            (1 + len(self.plan.chains), 3, self.process.steps), dtype=torch.float64, device=device
        )
        self._measure_forward(sums[0])
        for k, process in enumerate(self.processes, 1):
            self._measure_chain(process, set(self.plan.measured[k]), sums[k])
        found = sums.cpu().numpy()
        wrong = np.argwhere(~np.isfinite(found))
        if len(wrong):
            raise FloatingPointError(f"the estimates at timestep {wrong[0][2]} are not finite")
        return found

    def _measure_forward(self, sums: Tensor) -> None:
        start = self.clean + self.process.start_deviation * self.noise(_START)
        for step in self.plan.measured[0]:
            estimates = self._estimate(self._add_noise(start, step, _FORWARD), step)
            sums[0, step] = self._compare(estimates, self.clean)
            sums[1, step] = self._compare(estimates, self._look_beside(start, step, _NEIGHBOUR))

    def _measure_chain(self, process: Process, measured: set[int], sums: Tensor) -> None:
        last: Tensor | None = None
        estimates: Tensor | None = None

        def denoise(latents: Tensor, times: Tensor) -> Tensor:
            nonlocal last, estimates
            last, estimates = estimates, self._denoise(latents, times)
            return estimates

        def look(step: Step) -> None:
            if step.timestep not in measured:
                return
            assert estimates is not None
            sums[0, step.timestep] = self._compare(estimates, self.clean)
            text = torch.where(self.mask[..., None], step.estimates, self.clean)
            beside = self._look_beside(text, step.timestep, _CHAIN_NEIGHBOUR)
            sums[1, step.timestep] = self._compare(estimates, beside)
            if last is not None:
                sums[2, step.timestep] = self._compare(estimates, last)

        sample_latents(
            denoise, process, self.table, self.clean, self.mask, start=self.noise.start(),
            noise=self.noise, sampler=self.sampler, callback=look,
        )  # fmt: skip

    def _look_beside(self, text: Tensor, step: int, kind: int) -> Tensor:
        """Estimates at the neighbour by noise, with noise of its own."""
        beside = int(self.neighbours[step])
        return self._estimate(self._add_noise(text, beside, kind, step), beside)

    def _add_noise(self, text: Tensor, step: int, kind: int, number: int | None = None) -> Tensor:
        times = torch.full((len(text),), step, device=text.device)
        noise = self.noise(kind + (step if number is None else number))
        return self.process.add_noise(text, times, noise, self.mask)

    def _estimate(self, latents: Tensor, step: int) -> Tensor:
        times = torch.full((len(latents),), step, device=latents.device)
        return self._denoise(latents, self.process.scale_times(times))

    def _denoise(self, latents: Tensor, times: Tensor) -> Tensor:
        if self.progress is not None:
            self.progress(len(latents))
        estimates: Tensor = self.model(latents.to(self.table.dtype), times)
        return estimates.float()

    def _compare(self, one: Tensor, other: Tensor) -> Tensor:
        """The sum over rows of the mean squared distance at target positions."""
        squares = (one - other).square().mean(-1).double() * self.mask
        return (squares.sum(1) / self.mask.sum(1)).sum()


def _choose_neighbours(betas: NDArray[np.float64], tolerance: float) -> NDArray[np.int64]:
    """The neighbour of each timestep; the timestep itself where all others are as similar."""
    near = find_neighbours(betas, tolerance)
    beside = np.where(near.down >= 0, near.down, near.up)
    return np.where(beside >= 0, beside, np.arange(len(betas)))


def _make_curve(steps: int | None, timesteps: Sequence[int], sums: NDArray[np.float64]) -> Curve:
    loss, distance, travel = (tuple(row[list(timesteps)].tolist()) for row in sums)
    return Curve(
        steps=steps, timesteps=tuple(timesteps), loss=loss, distance=distance,
        travel=None if steps is None else travel,
    )  # fmt: skip
