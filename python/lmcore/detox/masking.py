"""Masks in place of toxic spans, for a filler to replace."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from lmcore.detox.tokenization import SegmentTokenizer
from lmcore.ops.segments import mask_segments

if TYPE_CHECKING:
    from lmcore.detox.spans import SpanFinder, TextSpans

MASK = "<MASK>"
"""What stands in a masked text."""
MASK_FORMS = ("pieces", "text")
"""`pieces`: the tokens as BERT writes them, in lower case, as the released code has them; `text`:
the text as it was given."""
_MASK_TOKEN = "[MASK]"


@dataclass(kw_only=True, slots=True, frozen=True)
class MaskedText:
    """A text with masks in place of its toxic spans."""

    text: str
    """As it was given."""
    masked: str
    """With `<MASK>`."""
    masks: int
    """How many there are."""
    toxicity: float | None
    """Probability that the text is toxic, by the model; None where it was not asked."""


def mask_tokens(
    rows: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    tokenizer: SegmentTokenizer,
    *,
    segment_size: int = 2,
) -> list[tuple[str, int]]:
    """Returns texts with one mask in place of each run of toxic segments, and how many masks.

    Equal to the released loop over strings, in time that is linear in the number of tokens.

    Source: Detox-Chain (arXiv 2308.08295), `mask_toxic_span.py` of the released code.

    Args:
        rows: the ids of each text, `[k]`.
        labels: of each text, `[k - n + 1]`, 1 for each toxic segment and 0 for each other one.
        tokenizer: of the ids.
        segment_size: n, tokens of a segment.

    Raises:
        ValueError: labels that are not one for each segment, 0 or 1.

    Example:
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> mask_tokens([[5, 5, 6, 6]], [[0, 1, 0]], make_tokenizer(["a", "b"]))
        [('a <MASK> b', 1)]
    """
    for row, (ids, own) in enumerate(zip(rows, labels, strict=True)):
        count = max(0, len(ids) - segment_size + 1)
        if len(own) != count:
            raise ValueError(f"labels[{row}] must be {count} values long: got {len(own)}")
    flat = np.fromiter((token for ids in rows for token in ids), np.int64)
    toxic = np.fromiter((label for own in labels for label in own), np.int64)
    masked = mask_segments(
        flat, np.cumsum([0, *map(len, rows)]), toxic, tokenizer.mask, size=segment_size
    )
    ids = masked.ids.tolist()
    found = [ids[start:end] for start, end in pairwise(masked.offsets.tolist())]
    texts = (text.replace(_MASK_TOKEN, MASK) for text in tokenizer.decode(found))
    return [(text, own.count(tokenizer.mask)) for text, own in zip(texts, found, strict=True)]


def mask_spans(found: TextSpans) -> tuple[str, int]:
    """Returns a text, as it was given, with a mask in place of each toxic span, and how many masks.

    Args:
        found: what a `SpanFinder` says of it.

    Example:
        >>> from lmcore.detox.spans import Span, TextSpans
        >>> from lmcore.detox.tokenization import Tokens
        >>> none = np.zeros(0)
        >>> mask_spans(TextSpans(
        ...     text="You Fool!", toxicity=1.0, tokens=Tokens([], []), scores=none, labels=none,
        ...     spans=(Span(start=4, end=8, text="Fool", score=0.9),), windows=1))
        ('You <MASK>!', 1)
    """
    parts, behind = [], 0
    for span in found.spans:
        parts += [found.text[behind : span.start], MASK]
        behind = span.end
    return "".join([*parts, found.text[behind:]]), len(found.spans)


def mask_texts(
    finder: SpanFinder, texts: Sequence[str], *, form: str = "pieces"
) -> list[MaskedText]:
    """Returns texts with masks in place of their toxic spans.

    Args:
        finder: finds the spans.
        texts: any number; one without tokens stays as it is.
        form: one of `MASK_FORMS`.

    Raises:
        ValueError: there is no such form.

    Example:
        >>> from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
        >>> from lmcore.detox.modeling_segment_cnn import SegmentCNNModel
        >>> from lmcore.detox.spans import SpanFinder
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> finder = SpanFinder(model, make_tokenizer(["a", "b"]), threshold=0.0)
        >>> [found.masked for found in mask_texts(finder, ["A b", "B"])]
        ['<MASK>', 'b']
    """
    if form not in MASK_FORMS:
        raise ValueError(f"form must be one of {', '.join(MASK_FORMS)}: got {form!r:.60}")
    found = finder.find(texts)
    if form == "text":
        masked = [mask_spans(one) for one in found]
    else:
        rows, labels = [one.tokens.ids for one in found], [one.labels.tolist() for one in found]
        masked = mask_tokens(rows, labels, finder.tokenizer, segment_size=finder.size)
    return [
        MaskedText(
            text=one.text,
            masked=text if one.tokens.ids else one.text,
            masks=count,
            toxicity=one.toxicity,
        )
        for one, (text, count) in zip(found, masked, strict=True)
    ]
