"""OpenBA, a bilingual encoder-decoder with a shallow encoder (arXiv 2309.10706)."""

from lmcore.openba.batches import DenoisedBatches

__all__ = ["DenoisedBatches"]
