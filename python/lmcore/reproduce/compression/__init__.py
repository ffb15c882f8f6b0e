"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import (
    abilities,
    denoiser_weights,
    importance,
    importance_recovered,
    mixed_denoising,
    recovered_models,
    sentence_pairs,
    spread_layers,
    staged_layers,
    vocabulary_size,
)

CLAIMS = (
    *spread_layers.CLAIMS,
    *staged_layers.CLAIMS,
    *importance.CLAIMS,
    *importance_recovered.CLAIMS,
    *denoiser_weights.CLAIMS,
    *mixed_denoising.CLAIMS,
    *recovered_models.CLAIMS,
    *vocabulary_size.CLAIMS,
    *sentence_pairs.CLAIMS,
    *abilities.CLAIMS,
)
