"""Claims of OpenBA."""

from lmcore.reproduce.openba import (
    downstream_formats,
    harness,
    instructions,
    length_adaptation,
    prefix_tokens,
    shallow_encoder,
    ul2,
)

CLAIMS = (
    *ul2.CLAIMS,
    *length_adaptation.CLAIMS,
    *prefix_tokens.CLAIMS,
    *instructions.CLAIMS,
    *downstream_formats.CLAIMS,
    *harness.CLAIMS,
    *shallow_encoder.CLAIMS,
)
