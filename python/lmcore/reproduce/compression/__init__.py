"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import spread_layers

CLAIMS = (*spread_layers.CLAIMS,)
