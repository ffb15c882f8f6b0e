"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import sentence_pairs, spread_layers, vocabulary_size

CLAIMS = (*spread_layers.CLAIMS, *vocabulary_size.CLAIMS, *sentence_pairs.CLAIMS)
