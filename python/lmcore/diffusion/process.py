"""The diffusion process of a list of betas: noising, its posterior, and where its steps come from.

Shapes: B rows, L positions, E latent size, N steps of the process, T steps of the training.

Everything is computed in float64.  What rows with different steps need is kept in float32 on a
device; a sampler, whose rows share a step, takes numbers of the tables in float64.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lmcore.ops.schedule import make_coefficients

TIME_RANGE = 1000.0
"""What the timesteps of every process are scaled to: step t of T is `t * TIME_RANGE / T`."""


class Process:
    """What a list of betas says of noise, step by step.

    A shorter process, for sampling in few steps, has betas of its own, and says which steps of the
    training its steps are: the network is told those.

    Source: DDPM (arXiv 2006.11239), equations 4 to 7; Bridge-Gap Diffusion (arXiv 2305.04465) for
    the choice of steps.

    Args:
        betas: `[N]`, each above 0 and below 1, as for `lmcore.ops.schedule.make_coefficients`.
        timestep_map: `[N]` integers, the steps of the training in ascending order; None: the
            process is that of the training.
        total_steps: T; needed with `timestep_map`.
        device: of the float32 tables.

    Attributes:
        steps: N.
        total_steps: T.
        betas: `[N]` float64.
        timestep_map: `[N]` int64.
        alphas_cumprod: `[N]` float64, the share of the clean latents' variance that is left.
        alphas_cumprod_prev: `[N]` float64, the same one step before; the first is 1.
        estimate_weights: `[N]` float64, of the clean latents in the posterior mean.
        state_weights: `[N]` float64, of the noisy latents in the posterior mean.
        posterior_variances: `[N]` float64; the first is 0.
        variances: `[N]` float64, which ancestral sampling uses ("fixed large"): the betas, but for
            the first, which is the second posterior variance where there is one.

    Raises:
        TypeError: `betas` or `timestep_map` hold something else.
        ValueError: a beta or a step lies outside its range, or there are not as many.

    Example:
        >>> process = Process([0.1, 0.2, 0.5])
        >>> process.alphas_cumprod.round(3).tolist()
        [0.9, 0.72, 0.36]
        >>> process.scale_times(torch.tensor([0, 1])).tolist()
        [0.0, 333.3333435058594]
    """

    def __init__(
        self,
        betas: ArrayLike,
        timestep_map: ArrayLike | None = None,
        *,
        total_steps: int | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self.betas = _read_betas(betas)
        self.steps = len(self.betas)
        self.total_steps, self.timestep_map = _read_map(timestep_map, total_steps, self.steps)
        found = make_coefficients(self.betas)
        self.alphas_cumprod = found.alphas_cumprod
        self.alphas_cumprod_prev = found.alphas_cumprod_prev
        self.estimate_weights = found.posterior_mean_coef1
        self.state_weights = found.posterior_mean_coef2
        self.posterior_variances = found.posterior_variance
        self.variances = found.fixed_large_variance
        self._tables = {
            "signal": found.sqrt_alphas_cumprod,
            "noise": found.sqrt_one_minus_alphas_cumprod,
            "estimate": self.estimate_weights,
            "state": self.state_weights,
            "variance": self.variances,
            "time": self.timestep_map * (TIME_RANGE / self.total_steps),
        }
        self._on_device: dict[str, Tensor] = {}
        self.to(device)

    def to(self, device: torch.device | str) -> Process:
        """Moves the float32 tables, and returns the process.

        Args:
            device: to which.
        """
        for name, table in self._tables.items():
            self._on_device[name] = torch.tensor(table, dtype=torch.float32, device=device)
        return self

    @property
    def device(self) -> torch.device:
        """Where the float32 tables are."""
        return self._on_device["time"].device

    @property
    def start_deviation(self) -> float:
        """How far clean latents lie from the word embeddings: the noise of the first step."""
        return float(self._tables["noise"][0])

    @property
    def final_signal(self) -> float:
        """The weight that clean latents have at the last step."""
        return float(self._tables["signal"][-1])

    def scale_times(self, timesteps: Tensor) -> Tensor:
        """Returns what the network is told of steps.

        Args:
            timesteps: `[B]` integers below N.

        Returns:
            `[B]` float32 from 0 up to, and not with, 1000.

        Raises:
            TypeError: they are not integers.
            IndexError: a step is not below N; on a CPU, elsewhere the check would wait.
        """
        return self._take("time", timesteps)

    def add_noise(
        self, clean: Tensor, timesteps: Tensor, noise: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """Returns noisy latents: sqrt(abar) x + sqrt(1 - abar) noise where the mask is true.

        Args:
            clean: `[B, L, E]` float32.
            timesteps: `[B]` integers below N.
            noise: `[B, L, E]` from the standard normal distribution.
            mask: `[B, L]` bool, the target's positions; the others stay. None: all.

        Returns:
            `[B, L, E]`.

        Raises:
            TypeError: steps are not integers, or the mask is not of bool.
            IndexError: a step is not below N.
            ValueError: shapes do not fit.
        """
        _check_latents(clean, noise=noise)
        signal = self._take("signal", timesteps, clean)
        noisy = signal * clean + self._take("noise", timesteps, clean) * noise
        if mask is None:
            return noisy
        check_mask(mask, clean)
        return torch.where(mask[..., None], noisy, clean)

    def get_posterior_mean(self, estimates: Tensor, states: Tensor, timesteps: Tensor) -> Tensor:
        """Returns the mean of the latents one step before.

        Args:
            estimates: `[B, L, E]` of the clean latents.
            states: `[B, L, E]` noisy latents.
            timesteps: `[B]` integers below N, of `states`.

        Returns:
            `[B, L, E]`.

        Raises:
            TypeError: steps are not integers.
            IndexError: a step is not below N.
            ValueError: shapes do not fit.
        """
        _check_latents(estimates, states=states)
        weight = self._take("estimate", timesteps, estimates)
        return weight * estimates + self._take("state", timesteps, estimates) * states

    def get_variance(self, timesteps: Tensor) -> Tensor:
        """Returns the variance that ancestral sampling adds ("fixed large").

        Args:
            timesteps: `[B]` integers below N.

        Returns:
            `[B]` float32.

        Raises:
            TypeError: steps are not integers.
            IndexError: a step is not below N.
        """
        return self._take("variance", timesteps)

    def _take(self, name: str, timesteps: Tensor, latents: Tensor | None = None) -> Tensor:
        """Entries of a table, in a shape that multiplies latents."""
        if timesteps.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"timesteps must be int64 or int32: got {timesteps.dtype}")
        rows = "rows" if latents is None else str(len(latents))
        if timesteps.ndim != 1 or (latents is not None and len(timesteps) != len(latents)):
            raise ValueError(f"timesteps must have the shape [{rows}]: got {list(timesteps.shape)}")
        if timesteps.device.type == "cpu" and not torch.compiler.is_compiling():
            wrong = ((timesteps < 0) | (timesteps >= self.steps)).nonzero()
            if len(wrong):
                row = int(wrong[0, 0])
                raise IndexError(
                    f"timesteps must be below the {self.steps} steps: "
                    f"got {int(timesteps[row])} in row {row}"
                )
        entries = self._on_device[name].index_select(0, timesteps)
        return entries if latents is None else entries[:, None, None]


def check_mask(mask: Tensor, latents: Tensor) -> None:
    """Checks a mask of the target's positions.

    Args:
        mask: `[B, L]` bool.
        latents: `[B, L, E]`.

    Raises:
        TypeError: it is of another type.
        ValueError: it has another shape.

    Example:
        >>> check_mask(torch.tensor([[False, True]]), torch.ones(1, 2, 4))
    """
    if mask.dtype != torch.bool:
        raise TypeError(f"mask must be of bool: got {mask.dtype}")
    if mask.shape != latents.shape[:2]:
        raise ValueError(
            f"mask must have the shape {list(latents.shape[:2])}: got {list(mask.shape)}"
        )


def _check_latents(first: Tensor, **others: Tensor) -> None:
    if first.ndim != 3:
        raise ValueError(f"latents must have the shape [batch, length, size]: "
                         f"got {list(first.shape)}")  # fmt: skip
    for name, other in others.items():
        if other.shape != first.shape:
            raise ValueError(
                f"{name} must have the shape {list(first.shape)}: got {list(other.shape)}"
            )


def _read_betas(betas: ArrayLike) -> NDArray[np.float64]:
    array = np.asarray(betas)
    if array.dtype.kind != "f":
        raise TypeError(f"betas must be of floating point: got {array.dtype}")
    if array.ndim != 1 or not len(array):
        raise ValueError(f"betas must have the shape [at least 1]: got {list(array.shape)}")
    return array.astype(np.float64)


def _read_map(
    timestep_map: ArrayLike | None, total_steps: int | None, steps: int
) -> tuple[int, NDArray[np.int64]]:
    if timestep_map is None:
        if total_steps not in (None, steps):
            raise ValueError(f"total_steps must be the {steps} of betas: got {total_steps}")
        return steps, np.arange(steps)
    if total_steps is None:
        raise ValueError("total_steps must be given with timestep_map")
    array = np.asarray(timestep_map)
    if array.dtype.kind not in "iu":
        raise TypeError(f"timestep_map must hold integers: got {array.dtype}")
    if array.shape != (steps,):
        raise ValueError(f"timestep_map must have the shape [{steps}]: got {list(array.shape)}")
    array = array.astype(np.int64)
    if array[0] < 0 or array[-1] >= total_steps or (np.diff(array) <= 0).any():
        raise ValueError(
            f"timestep_map must ascend from at least 0 to below {total_steps}: "
            f"got {array.tolist()!s:.80}"
        )
    return total_steps, array
