"""Claims of Bridge-Gap Diffusion."""

from lmcore.reproduce.diffusion import (
    controlled_texts,
    derived_steps,
    distilled_steps,
    few_steps,
    real_texts,
)

CLAIMS = (
    *few_steps.CLAIMS,
    *derived_steps.CLAIMS,
    *distilled_steps.CLAIMS,
    *controlled_texts.CLAIMS,
    *real_texts.CLAIMS,
)
