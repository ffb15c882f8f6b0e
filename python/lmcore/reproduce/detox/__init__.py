"""Claims of Detox-Chain."""

from lmcore.reproduce.detox import (
    detoxified_texts,
    local_scorer,
    relearned_toxicity,
    segment_sizes,
    toxic_spans,
)

CLAIMS = (
    *detoxified_texts.CLAIMS,
    *relearned_toxicity.CLAIMS,
    *toxic_spans.CLAIMS,
    *segment_sizes.CLAIMS,
    *local_scorer.CLAIMS,
)
