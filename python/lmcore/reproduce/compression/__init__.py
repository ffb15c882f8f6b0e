"""Claims of OpenBA-V2."""

from lmcore.reproduce.compression import sentence_pairs

CLAIMS = (*sentence_pairs.CLAIMS,)
