"""Claims of OpenBA."""

from lmcore.reproduce.openba import prefix_tokens, shallow_encoder, ul2

CLAIMS = (*ul2.CLAIMS, *prefix_tokens.CLAIMS, *shallow_encoder.CLAIMS)
