"""Claims of OpenBA."""

from lmcore.reproduce.openba import prefix_tokens, ul2

CLAIMS = (*ul2.CLAIMS, *prefix_tokens.CLAIMS)
