"""Segment-CNNs of a claim: trained from nothing for some hundred steps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmcore.detox.span_labels import SpanExample
    from lmcore.detox.spans import SpanFinder
    from lmcore.detox.tokenization import SegmentTokenizer


def train_finder(
    seed: int,
    examples: Sequence[SpanExample],
    tokenizer: SegmentTokenizer,
    *,
    steps: int,
    segment_size: int = 2,
    hidden_size: int = 128,
) -> SpanFinder:
    """Returns what finds toxic spans with a small Segment-CNN, trained on labelled texts.

    Args:
        seed: of its first weights, of the order of texts and of dropout.
        examples: texts with labels of segments.
        tokenizer: of the texts.
        steps: of training, 32 texts each.
        segment_size: n, tokens of a segment.
        hidden_size: of the model.
    """
    from lmcore.detox.span_recipes import tiny
    from lmcore.detox.span_training import SpanRun
    from lmcore.detox.spans import SpanFinder
    from lmcore.training.config import change
    from lmcore.training.seeding import seed_torch

    config = change(
        tiny(),
        {
            "shape.hidden_size": hidden_size, "segment_size": segment_size, "loop.seed": seed,
            "loop.steps": steps, "max_length": 64,
        },
    )  # fmt: skip
    run = SpanRun(config, examples, tokenizer=tokenizer)
    for step in range(1, steps + 1):
        seed_torch(seed, step)
        run.step(step)
    return SpanFinder(run.model, tokenizer)
