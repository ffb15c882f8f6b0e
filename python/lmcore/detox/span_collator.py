"""Labelled texts as batches of tensors, for our loop and for transformers' `Trainer`.

Shapes: B rows, L positions, n tokens of a segment, S = L - n + 1 segments of a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lmcore.detox.objective import IGNORED
from lmcore.detox.span_labels import SpanExample
from lmcore.detox.tokenization import SegmentTokenizer


@dataclass(kw_only=True, slots=True, frozen=True)
class CutTexts:
    """What did not fit into rows."""

    texts: int
    """That were longer than a row."""
    tokens: int
    """That these have lost, at their end."""
    toxic_segments: int
    """Of the segments that went with them those that are toxic."""

    def __str__(self) -> str:
        return (
            f"{self.texts:,} texts do not fit into a row, and lost {self.tokens:,} tokens and "
            f"{self.toxic_segments:,} toxic segments at their end"
        )


def cut_examples(
    examples: Sequence[SpanExample], max_length: int, segment_size: int = 2
) -> tuple[list[SpanExample], CutTexts]:
    """Returns texts that fit into a row, and what they lost.

    Args:
        examples: of any length.
        max_length: L, positions of a row, two of them for `[CLS]` and `[SEP]`.
        segment_size: n, tokens of a segment.

    Raises:
        ValueError: a row has no room for a segment.

    Example:
        >>> ids, labels = np.array([5, 6, 7], np.int32), np.array([0, 1], np.int8)
        >>> kept, lost = cut_examples([SpanExample(ids, labels, 1)], 4)
        >>> kept[0].labels.tolist(), lost.toxic_segments
        ([0], 1)
    """
    room = max_length - 2
    if room < segment_size:
        raise ValueError(f"max_length must be at least {segment_size + 2}: got {max_length}")
    count = room - segment_size + 1
    kept, long = [], [example for example in examples if len(example.ids) > room]
    for ids, labels, toxic in examples:
        kept.append(SpanExample(ids[:room], labels[:count], toxic))
    lost = CutTexts(
        texts=len(long),
        tokens=sum(len(example.ids) - room for example in long),
        toxic_segments=sum(int(example.labels[count:].sum()) for example in long),
    )
    return kept, lost


class SpanCollator:
    """Makes batches of labelled texts, as long as the longest of them.

    The segments with `[CLS]` and with `[SEP]` are not toxic, those with padding have no label.

    Source: Detox-Chain (arXiv 2308.08295), section 2.1 of the specification.

    Args:
        tokenizer: of the texts.
        max_length: L, most positions of a row; what is longer is cut, see `cut_examples`.
        segment_size: n, tokens of a segment.

    Raises:
        ValueError: a row has no room for a segment.

    Example:
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> ids, labels = np.array([5, 6, 5], np.int32), np.array([0, 1], np.int8)
        >>> collate = SpanCollator(make_tokenizer(["a", "b"]))
        >>> batch = collate([SpanExample(ids, labels, 1), SpanExample(ids[:1], labels[:0], 0)])
        >>> batch["span_labels"].tolist()
        [[0, 0, 1, 0], [0, 0, -100, -100]]
    """

    def __init__(
        self, tokenizer: SegmentTokenizer, max_length: int = 128, segment_size: int = 2
    ) -> None:
        cut_examples([], max_length, segment_size)  # what is wrong with the length shows here
        self.tokenizer, self.max_length, self.size = tokenizer, max_length, segment_size

    def __call__(self, examples: Sequence[SpanExample]) -> dict[str, Tensor]:
        """Returns a batch.

        Args:
            examples: B of them, one at least.

        Returns:
            `input_ids` and `attention_mask`, `[B, L]` int64; `labels`, `[B]` int64, of the texts;
            and `span_labels`, `[B, S]` int64, -100 where there is none.
        """
        kept, _ = cut_examples(examples, self.max_length, self.size)
        tokenizer = self.tokenizer
        longest = max(len(example.ids) for example in kept) + 2
        ids = np.full((len(kept), longest), tokenizer.pad, np.int64)
        spans = np.full((len(kept), max(0, longest - self.size + 1)), IGNORED, np.int64)
        lengths = np.empty((len(kept), 1), np.int64)
        for row, (own, labels, _) in enumerate(kept):
            lengths[row] = len(own) + 2
            ids[row, 0] = tokenizer.start
            ids[row, 1 : len(own) + 1] = own
            ids[row, len(own) + 1] = tokenizer.end
            spans[row, : max(0, len(own) + 3 - self.size)] = 0
            spans[row, 1 : len(labels) + 1] = labels
        return {
            "input_ids": torch.from_numpy(ids),
            "attention_mask": torch.from_numpy((np.arange(longest) < lengths).astype(np.int64)),
            "labels": torch.tensor([example.toxic for example in kept]),
            "span_labels": torch.from_numpy(spans),
        }
