"""Texts with a label for each segment, from files of three kinds.

| form | a row | a segment is toxic |
| --- | --- | --- |
| `pairs` | `content` and `score` of an object, as the released data | whose score is high |
| `semeval` | `spans` and `text` of CSV, as SemEval-2021, task 5 | that has a toxic character |
| `texts` | `text`, `content` or `prompt` of an object | whose text a scorer gives a high score |

A row may say what its tokens are (`tokenize_content`); else they are the tokenizer's.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

import numpy as np

from lmcore._rows import RowReader
from lmcore.detox.scorers import Scorer, check_scores
from lmcore.detox.span_rows import LabelledRow, find_span_form, read_rows, split_rows
from lmcore.detox.tokenization import SegmentTokenizer
from lmcore.ops.segments import list_segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Texts that a scorer sees at once.
_BLOCK = 4096

Progress: TypeAlias = Callable[[int, int], object]
"""Called with the segments that are scored, and how many there are."""


class SpanExample(NamedTuple):
    """A text whose segments are labelled."""

    ids: NDArray[np.int32]
    """`[k]`: its tokens, without those before and behind it."""
    labels: NDArray[np.int8]
    """`[k - n + 1]`, none if k is below n: 1 for each toxic segment."""
    toxic: int
    """Whether the text is."""


@dataclass(kw_only=True, slots=True, frozen=True)
class LabelledTexts:
    """The usable rows of a file."""

    examples: list[SpanExample]
    segment_size: int
    """n, tokens of a segment."""
    bad_rows: int = 0
    listed_bad_rows: list[str] = field(default_factory=list)
    distinct: int | None = None
    """Segments that a scorer has seen; None where there was none."""


def read_labelled(
    path: str | os.PathLike[str],
    tokenizer: SegmentTokenizer,
    *,
    form: str = "auto",
    scorer: Scorer | None = None,
    threshold: float = 0.5,
    segment_size: int = 2,
    skip_bad_rows: bool = False,
    progress: Progress | None = None,
) -> LabelledTexts:
    r"""Returns the texts of a file with a label for each of their segments.

    Args:
        path: the file; `.gz` is decompressed, `-` is standard input.
        tokenizer: of the texts.
        form: one of `lmcore.detox.span_rows.SPAN_FORMS`.
        scorer: makes the labels of the form `texts`.
        threshold: a segment or a text is toxic whose score is above.
        segment_size: n, tokens of a segment.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        progress: called while segments are scored.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows; a row cannot be used, such as one with labels that are not one
            for each segment, where the text names file and line; or the scorer gives other than a
            number from 0 to 1 for each text.

    Example:
        >>> import tempfile
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"content": "a b a", "score": [0, 0.7]}\n'), file.flush()
        ...     found = read_labelled(file.name, make_tokenizer(["a", "b"]))
        >>> found.examples[0].labels.tolist(), found.examples[0].toxic
        ([0, 1], 1)
    """
    form = find_span_form(path, form, scored=scorer is not None)
    reader = RowReader(path, skip_bad_rows=skip_bad_rows)
    if scorer is not None:
        return _score_all(reader, tokenizer, scorer, threshold, segment_size, progress)
    examples = [
        example
        for part in split_rows(read_rows(reader, form), _BLOCK)
        for example in _label_all(part, reader, tokenizer, threshold, segment_size)
    ]
    if not examples and not reader.bad_rows:
        raise ValueError(f"{reader.name}: the file holds no rows")
    return LabelledTexts(
        examples=examples,
        segment_size=segment_size,
        bad_rows=reader.bad_rows,
        listed_bad_rows=reader.listed_bad_rows,
    )


def score_segments(
    rows: Sequence[Sequence[int]],
    tokenizer: SegmentTokenizer,
    scorer: Scorer,
    *,
    segment_size: int = 2,
    progress: Progress | None = None,
) -> list[NDArray[np.float64]]:
    """Returns the score of each segment of texts, of which the scorer sees each distinct one once.

    Args:
        rows: the ids of each text, `[k]`.
        tokenizer: that the ids are of; it writes segments as text.
        scorer: texts to numbers.
        segment_size: n, tokens of a segment.
        progress: called after each block of segments.

    Returns:
        Of each text `[k - n + 1]` float64, none if k is below n.

    Raises:
        ValueError: the scorer gives other than a number from 0 to 1 for each text.

    Example:
        >>> from lmcore.detox.tokenization import make_tokenizer
        >>> tokenizer = make_tokenizer(["a", "b"])
        >>> scores = score_segments([[5, 6, 5, 6]], tokenizer, lambda texts: [len(texts) / 4] * 2)
        >>> scores[0].tolist()
        [0.5, 0.5, 0.5]
    """
    flat = np.fromiter((token for row in rows for token in row), np.int64)
    offsets = np.cumsum([0, *map(len, rows)])
    found = list_segments(flat, offsets, segment_size)
    total = len(found.distinct)
    scores = np.empty(total)
    for first in range(0, total, _BLOCK):
        segments = found.distinct[first : first + _BLOCK]
        texts = tokenizer.decode_segments(segments, skip_special_tokens=True)
        # Of unknown tokens alone there is nothing to score.
        known = [place for place, text in enumerate(texts) if text]
        asked = [texts[place] for place in known]
        own = np.zeros(len(texts))
        own[known] = check_scores(scorer(asked), asked) if asked else 0
        scores[first : first + len(texts)] = own
        if progress is not None:
            progress(first + len(texts), total)
    every = scores[found.inverse]
    return [every[a:b] for a, b in pairwise(found.offsets.tolist())]


def label_offsets(
    spans: Sequence[int], offsets: Sequence[tuple[int, int]], segment_size: int = 2
) -> NDArray[np.int8]:
    """Returns the labels of segments of which some characters are toxic.

    A segment is toxic that has a toxic token, and a token that has a toxic character.

    Args:
        spans: places of toxic characters in the text.
        offsets: of each token where it stands, half-open.
        segment_size: n, tokens of a segment.

    Returns:
        `[k - n + 1]`, none if k is below n.

    Example:
        >>> label_offsets([3, 4], [(0, 2), (3, 5), (6, 7)]).tolist()
        [1, 1]
        >>> label_offsets([3, 4], [(0, 2), (3, 5), (6, 7)], 1).tolist()
        [0, 1, 0]
    """
    marked = set(spans)
    toxic = np.array([any(c in marked for c in range(a, b)) for a, b in offsets], np.int8)
    count = max(0, len(toxic) - segment_size + 1)
    labels = np.zeros(count, np.int8)
    for place in range(segment_size):
        labels |= toxic[place : place + count]
    return labels


def _label_all(
    rows: list[LabelledRow],
    reader: RowReader,
    tokenizer: SegmentTokenizer,
    threshold: float,
    size: int,
) -> Iterator[SpanExample]:
    """The examples of rows that have labels; rows that do not fit are refused."""
    encoded = tokenizer.encode([row.text for row in rows])
    for row, tokens in zip(rows, encoded, strict=True):
        ids = tokens.ids if row.tokens is None else tokenizer.find_ids(row.tokens)
        if not ids:
            reader.refuse(row.line, "the text has no tokens")
            continue
        if row.scores is None:
            labels = label_offsets(row.spans or (), tokens.offsets, size)
            toxic = bool(row.spans)
        else:
            labels = (np.array(row.scores, np.float64) > threshold).astype(np.int8)
            toxic = bool(labels.any()) if row.toxic is None else row.toxic > threshold
        count = max(0, len(ids) - size + 1)
        if len(labels) != count:
            reader.refuse(
                row.line,
                f"score must have a label for each of the {count} segments of {len(ids)} tokens: "
                f"got {len(labels)}",
            )
            continue
        yield SpanExample(np.array(ids, np.int32), labels, int(toxic))


def _score_all(
    reader: RowReader,
    tokenizer: SegmentTokenizer,
    scorer: Scorer,
    threshold: float,
    size: int,
    progress: Progress | None,
) -> LabelledTexts:
    """The examples of rows that a scorer labels."""
    texts, rows = [], []
    for part in split_rows(read_rows(reader, "texts"), _BLOCK):
        encoded = tokenizer.encode([row.text for row in part])
        for row, tokens in zip(part, encoded, strict=True):
            if not tokens.ids:
                reader.refuse(row.line, "the text has no tokens")
                continue
            texts.append(row.text)
            rows.append(tokens.ids)
    seen = 0

    def watch(done: int, total: int) -> None:
        nonlocal seen
        seen = total
        if progress is not None:
            progress(done, total)

    scores = score_segments(rows, tokenizer, scorer, segment_size=size, progress=watch)
    whole: list[float] = []
    for first in range(0, len(texts), _BLOCK):
        block = texts[first : first + _BLOCK]
        whole += check_scores(scorer(block), block).tolist()
    examples = [
        SpanExample(
            np.array(ids, np.int32), (own > threshold).astype(np.int8), int(score > threshold)
        )
        for ids, own, score in zip(rows, scores, whole, strict=True)
    ]
    return LabelledTexts(
        examples=examples,
        segment_size=size,
        bad_rows=reader.bad_rows,
        listed_bad_rows=reader.listed_bad_rows,
        distinct=seen,
    )
