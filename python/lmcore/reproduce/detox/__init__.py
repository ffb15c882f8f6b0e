"""Claims of Detox-Chain."""

from lmcore.reproduce.detox import local_scorer, segment_sizes, toxic_spans

CLAIMS = (
    *toxic_spans.CLAIMS,
    *segment_sizes.CLAIMS,
    *local_scorer.CLAIMS,
)
