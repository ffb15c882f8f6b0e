"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import sentence_pairs, spread_layers

CLAIMS = (*spread_layers.CLAIMS, *sentence_pairs.CLAIMS)
