"""Claims of OpenBA."""

from lmcore.reproduce.openba import depth, objectives, prefixes

CLAIMS = (*objectives.CLAIMS, *prefixes.CLAIMS, *depth.CLAIMS)
