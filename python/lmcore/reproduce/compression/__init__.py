"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import (
    importance,
    sentence_pairs,
    spread_layers,
    vocabulary_size,
)

CLAIMS = (
    *spread_layers.CLAIMS,
    *importance.CLAIMS,
    *vocabulary_size.CLAIMS,
    *sentence_pairs.CLAIMS,
)
