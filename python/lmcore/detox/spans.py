"""Toxic spans of texts: segments that a model judges, and the characters that they stand for.

Offsets are of characters in the text as it was given: neither lower-cased nor without accents.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from lmcore._manifest import find_model
from lmcore.detox.modeling_segment_cnn import SegmentCNNModel, load_segment_cnn
from lmcore.detox.span_training import check_fit
from lmcore.detox.tokenization import SegmentTokenizer, Tokens, load_tokenizer
from lmcore.training.processes import find_device

# Positions of a batch: more rows than this fill the cache, and fewer leave the arithmetic idle.
_BATCH_TOKENS = 2048
PRECISIONS = ("float32", "bfloat16")
_JOINERS = "\u200d\ufe0e\ufe0f"


@dataclass(kw_only=True, slots=True, frozen=True)
class Span:
    """A toxic part of a text."""

    start: int
    """Of its first character."""
    end: int
    """Behind its last character."""
    text: str
    """What stands there."""
    score: float
    """The largest probability of its segments."""


@dataclass(kw_only=True, slots=True, frozen=True)
class TextSpans:
    """What was found in a text."""

    text: str
    toxicity: float
    """Probability that the text is toxic; of windows the largest. 0 of a text without tokens."""
    spans: tuple[Span, ...]
    """In order; they do not overlap."""
    tokens: Tokens
    """Ids and offsets."""
    scores: NDArray[np.float32]
    """`[k - n + 1]`: of each segment the probability that it is toxic."""
    labels: NDArray[np.int64]
    """`[k - n + 1]`: 1 for each segment whose score is above the threshold."""
    windows: int
    """Into which the text was cut; 1 where it fits, 0 where it has no tokens."""


class SpanFinder:
    """Finds toxic spans with a Segment-CNN, for many texts at once.

    Texts of about one length stand in a batch, so that little is padded. A text that is longer than
    the window is cut into windows that overlap, and each segment is judged in the one in which it
    stands farther from the border.

    Source: Detox-Chain (arXiv 2308.08295), section 3.1 of the specification, which sends one text
    at a time through the model.

    Args:
        model: it is put into evaluation mode.
        tokenizer: of the model.
        threshold: a segment is toxic whose probability is above; 0.5 is the larger of two logits.
        window: positions of a window with `[CLS]` and `[SEP]`; those of training by default.
        overlap: tokens that two windows have in common; a quarter of a window by default.
        batch_tokens: positions of a batch, padding included; a single row may have more.

    Raises:
        ValueError: a number is out of its range, or the tokenizer does not fit the model.

    Example:
        >>> from lmcore.detox.configuration_segment_cnn import SegmentCNNConfig
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        >>> model = SegmentCNNModel(SegmentCNNConfig(vocab_size=9, intermediate_size=16, **sizes))
        >>> finder = SpanFinder(model, make_tokenizer(["a", "b"]), threshold=0.0)
        >>> finder.find(["B a!", ""])[0].spans[0].text
        'B a!'
    """

    def __init__(
        self,
        model: SegmentCNNModel,
        tokenizer: SegmentTokenizer,
        *,
        threshold: float = 0.5,
        window: int | None = None,
        overlap: int | None = None,
        batch_tokens: int = _BATCH_TOKENS,
    ) -> None:
        config = model.config
        self.size = config.segment_size
        if window is None:
            window = min(config.max_length, config.max_position_embeddings)
        check_fit(model, tokenizer, window)
        # A window has to get on by one token at least, and every segment stands in one.
        least = 2 * self.size + 1
        if window < least:
            raise ValueError(f"window must be at least {least}: got {window}")
        room = window - 2
        if overlap is None:
            overlap = max(self.size - 1, room // 4)
        if not self.size - 1 <= overlap < room:
            raise ValueError(
                f"overlap must be at least {self.size - 1} and below {room}: got {overlap}"
            )
        if not 0 <= threshold < 1:
            raise ValueError(f"threshold must be at least 0 and below 1: got {threshold}")
        if batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1: got {batch_tokens}")
        nn.Module.eval(model)  # transformers' own is untyped
        self.model, self.tokenizer, self.threshold = model, tokenizer, threshold
        self.window, self.overlap, self.batch_tokens = window, overlap, batch_tokens

    def find(self, texts: Sequence[str]) -> list[TextSpans]:
        """Returns what is toxic in texts.

        What is found in a text depends on the others by the rounding of numbers alone.

        Args:
            texts: any number, of any length.

        Raises:
            FloatingPointError: the model gives something that is no number.
        """
        tokens = self.tokenizer.encode(texts)
        windows = [
            (place, start, end)
            for place, (ids, _) in enumerate(tokens)
            for start, end in cut_windows(len(ids), self.window - 2, self.overlap)
        ]
        judged = self._judge([tokens[place].ids[a:b] for place, a, b in windows])
        found: list[list[tuple[int, int, NDArray[np.float32]]]] = [[] for _ in texts]
        toxicity = [0.0] * len(texts)
        for (place, start, end), (whole, scores) in zip(windows, judged, strict=True):
            found[place].append((start, end, scores))
            toxicity[place] = max(toxicity[place], whole)
        return [
            self._read(text, own, whole, parts)
            for text, own, whole, parts in zip(texts, tokens, toxicity, found, strict=True)
        ]

    def describe(self) -> dict[str, Any]:
        """Returns the settings on which the spans depend, for JSON."""
        return {
            "threshold": self.threshold, "window": self.window, "overlap": self.overlap,
            "batch_tokens": self.batch_tokens,
        }  # fmt: skip

    @torch.inference_mode()
    def _judge(self, rows: list[list[int]]) -> list[tuple[float, NDArray[np.float32]]]:
        """The probability of each row and of each of its segments to be toxic."""
        judged: list[Any] = [None] * len(rows)
        device = self.model.device
        for part in self._batch(rows):
            lengths = [len(rows[place]) + 2 for place in part]
            batch = np.full((len(part), max(lengths)), self.tokenizer.pad, np.int64)
            for row, place in enumerate(part):
                batch[row, : lengths[row]] = [
                    self.tokenizer.start, *rows[place], self.tokenizer.end
                ]  # fmt: skip
            mask = None
            if min(lengths) < batch.shape[1]:  # without a mask attention has less to do
                inside = np.arange(batch.shape[1]) < np.array(lengths)[:, None]
                mask = torch.from_numpy(inside.astype(np.int64)).to(device)
            output = self.model(torch.from_numpy(batch).to(device), attention_mask=mask)
            whole = output.logits.float().softmax(-1)[:, 1].cpu().numpy()
            scores = output.span_probabilities.float()[..., 1].cpu().numpy()
            if not (np.isfinite(whole).all() and np.isfinite(scores).all()):
                raise FloatingPointError("the model gives scores that are no numbers")
            for row, place in enumerate(part):
                end = max(1, lengths[row] - self.size)
                judged[place] = float(whole[row]), scores[row, 1:end]
        return judged

    def _batch(self, rows: list[list[int]]) -> Iterator[list[int]]:
        """Which rows stand together: of about one length, the longest first."""
        part: list[int] = []
        for place in sorted(range(len(rows)), key=lambda place: -len(rows[place])):
            longest = len(rows[part[0]]) + 2 if part else 0
            if part and (len(part) + 1) * longest > self.batch_tokens:
                yield part
                part = []
            part.append(place)
        if part:
            yield part

    def _read(
        self,
        text: str,
        tokens: Tokens,
        toxicity: float,
        windows: list[tuple[int, int, NDArray[np.float32]]],
    ) -> TextSpans:
        scores = _join_windows(windows, self.size)
        labels = (scores > self.threshold).astype(np.int64)
        return TextSpans(
            text=text,
            toxicity=toxicity,
            spans=tuple(_join_spans(text, tokens.offsets, scores, labels, self.size)),
            tokens=tokens,
            scores=scores,
            labels=labels,
            windows=len(windows),
        )


def load_span_finder(
    path: str | os.PathLike[str],
    *,
    device: str = "auto",
    precision: str = "float32",
    **settings: Any,
) -> SpanFinder:
    """Returns a finder with the model and the tokenizer of a folder.

    Args:
        path: as `train_spans` writes it, or of a released checkpoint with its `vocab.txt`.
        device: as for `lmcore.training.processes.find_device`.
        precision: of the model, one of `PRECISIONS`; bfloat16 moves a probability by some
            thousandths, and is faster where the processor has it.
        settings: of `SpanFinder`.

    Raises:
        OSError: a file cannot be read.
        ValueError: the folder holds no Segment-CNN with its tokenizer, a setting does not fit the
            model, or the device or the precision does not exist.

    Example:
        >>> load_span_finder("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] no such folder of a model: 'nowhere'
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}: got {precision!r:.60}")
    place = find_device(device)
    model = load_segment_cnn(path)
    finder = SpanFinder(model, load_tokenizer(find_model(path)), **settings)
    nn.Module.to(model, place, getattr(torch, precision))  # transformers' own `to` is untyped
    return finder


def cut_windows(count: int, room: int, overlap: int) -> list[tuple[int, int]]:
    """Returns the windows of a text: each token stands in one at least, in order.

    The last window ends with the text and is as long as the others.

    Args:
        count: k, tokens of the text.
        room: tokens of a window.
        overlap: tokens that two windows have in common, at least; below `room`.

    Returns:
        Half-open ranges of tokens; none of a text without tokens.

    Example:
        >>> cut_windows(9, 4, 1), cut_windows(3, 4, 1), cut_windows(0, 4, 1)
        ([(0, 4), (3, 7), (5, 9)], [(0, 3)], [])
    """
    if count <= room:
        return [(0, count)] if count else []
    starts = [*range(0, count - room, room - overlap), count - room]
    return [(start, start + room) for start in starts]


def _join_windows(
    windows: list[tuple[int, int, NDArray[np.float32]]], size: int
) -> NDArray[np.float32]:
    """The scores of all segments: of what two windows share, each takes the half on its side."""
    if not windows:
        return np.zeros(0, np.float32)
    borders = [0]
    for (_, end, _), (start, _, _) in pairwise(windows):
        borders.append((start + end - size + 2) // 2)
    borders.append(max(0, windows[-1][1] - size + 1))
    parts = [
        scores[first - start : last - start]
        for (start, _, scores), (first, last) in zip(windows, pairwise(borders), strict=True)
    ]
    return np.concatenate(parts)


def _join_spans(
    text: str,
    offsets: Sequence[tuple[int, int]],
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    size: int,
) -> Iterator[Span]:
    """One span for each run of tokens that are of toxic segments, as one mask stands for it."""
    runs: list[tuple[int, int, float]] = []
    for place in np.flatnonzero(labels).tolist():
        score = float(scores[place])
        if runs and place <= runs[-1][1]:
            first, _, most = runs[-1]
            runs[-1] = first, place + size, max(most, score)
        else:
            runs.append((place, place + size, score))
    behind = 0
    for first, last, score in runs:
        # Several tokens may be made of one character.
        start = max(behind, offsets[first][0])
        limit = offsets[last][0] if last < len(offsets) else len(text)
        end = _end_character(text, offsets[last - 1][1], limit)
        if start < end:
            yield Span(start=start, end=end, text=text[start:end], score=round(score, 6))
            behind = end


def _end_character(text: str, end: int, limit: int) -> int:
    """Behind the marks that belong to the last character: tokenizers leave them out."""
    while end < limit and (text[end] in _JOINERS or unicodedata.category(text[end])[0] == "M"):
        end += 1
    return end


def list_characters(spans: Iterable[Span]) -> list[int]:
    """Returns the places of all characters of spans, as SemEval-2021 has them.

    Args:
        spans: of a text.

    Example:
        >>> list_characters([Span(start=1, end=3, text="bc", score=0.9)])
        [1, 2]
    """
    return [place for span in spans for place in range(span.start, span.end)]
