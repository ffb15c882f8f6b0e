"""Claims of OpenBA."""

from lmcore.reproduce.openba import (
    harness,
    length_adaptation,
    prefix_tokens,
    shallow_encoder,
    ul2,
)

CLAIMS = (
    *ul2.CLAIMS,
    *length_adaptation.CLAIMS,
    *prefix_tokens.CLAIMS,
    *harness.CLAIMS,
    *shallow_encoder.CLAIMS,
)
