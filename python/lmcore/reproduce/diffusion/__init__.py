"""Claims of Bridge-Gap Diffusion."""

from lmcore.reproduce.diffusion import few_steps

CLAIMS = (*few_steps.CLAIMS,)
