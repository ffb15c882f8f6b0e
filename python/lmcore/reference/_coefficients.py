"""What a process of diffusion computes with, made once for its kept timesteps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Coefficients:
    """Coefficients of K kept timesteps of T, `[K]` float64 each, from little to much noise.

    b is beta, a the cumulative product of 1 - b, p that of the kept timestep before.

    Source: Ho et al., "Denoising diffusion probabilistic models" (2020), equations 4 and 7.

    Attributes:
        total: T; a network is told `timesteps * 1000 / total`.
        timesteps: `[K]` int64: which timesteps of the T they are.
        betas: b, of the kept timesteps.
        alphas_cumprod: a.
        alphas_cumprod_prev: p, of which the first is 1.
        sqrt_alphas_cumprod: sqrt(a), the share of x_0 in x_t.
        sqrt_one_minus_alphas_cumprod: sqrt(1 - a), the share of the noise in x_t.
        sqrt_recip_alphas_cumprod: sqrt(1 / a).
        sqrt_recipm1_alphas_cumprod: sqrt(1 / a - 1).
        posterior_mean_coef1: b sqrt(p) / (1 - a), the share of x_0 in the posterior's mean.
        posterior_mean_coef2: (1 - p) sqrt(1 - b) / (1 - a), the share of x_t in it.
        posterior_variance: b (1 - p) / (1 - a), of which the first is 0.
        posterior_log_variance_clipped: its logarithm, the first of them that of the second; where
            one timestep is kept, that of its b.
        fixed_large_variance: what sampling adds: b, but the first is the second posterior variance.
    """

    total: int
    timesteps: NDArray[np.int64]
    betas: NDArray[np.float64]
    alphas_cumprod: NDArray[np.float64]
    alphas_cumprod_prev: NDArray[np.float64]
    sqrt_alphas_cumprod: NDArray[np.float64]
    sqrt_one_minus_alphas_cumprod: NDArray[np.float64]
    sqrt_recip_alphas_cumprod: NDArray[np.float64]
    sqrt_recipm1_alphas_cumprod: NDArray[np.float64]
    posterior_mean_coef1: NDArray[np.float64]
    posterior_mean_coef2: NDArray[np.float64]
    posterior_variance: NDArray[np.float64]
    posterior_log_variance_clipped: NDArray[np.float64]
    fixed_large_variance: NDArray[np.float64]
