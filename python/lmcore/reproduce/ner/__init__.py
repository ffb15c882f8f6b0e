"""Claims of GNER."""

from lmcore.reproduce.ner import matching_rescue, matching_speed

CLAIMS = (*matching_rescue.CLAIMS, *matching_speed.CLAIMS)
