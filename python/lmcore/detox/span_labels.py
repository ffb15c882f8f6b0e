"""Texts with a label for each segment, from files of three kinds.

| form | a row | a segment is toxic |
| --- | --- | --- |
| `pairs` | `content` and `score` of an object, as the released data | whose score is high |
| `semeval` | `spans` and `text` of CSV, as SemEval-2021, task 5 | that has a toxic character |
| `texts` | `text`, `content` or `prompt` of an object | whose text a scorer gives a high score |

A row may say what its tokens are (`tokenize_content`); else they are the tokenizer's.
"""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np

from lmcore._json import parse_json
from lmcore._rows import RowReader, parse_row
from lmcore._streams import open_input
from lmcore.detox.tokenization import SegmentTokenizer
from lmcore.ops.segments import list_segments

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN_FORMS = ("auto", "pairs", "semeval", "texts")
_COLUMNS = ("spans", "text")
_TEXT_KEYS = ("text", "content", "prompt")
# Texts that a scorer sees at once.
_BLOCK = 4096

Scorer: TypeAlias = Callable[[Sequence[str]], "Sequence[float] | NDArray[Any]"]
"""Texts to numbers from 0 to 1, as many."""
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


def find_span_form(path: str | os.PathLike[str], form: str = "auto", *, scored: bool) -> str:
    """Returns the form of a file: that which was given, or what its name says.

    Args:
        path: the file.
        form: one of `SPAN_FORMS`.
        scored: whether a scorer makes the labels.

    Raises:
        ValueError: there is no such form, or a scorer and labels do not go together.

    Example:
        >>> find_span_form("a.csv", scored=False), find_span_form("a.jsonl", scored=True)
        ('semeval', 'texts')
    """
    if form not in SPAN_FORMS:
        raise ValueError(f"format must be one of {', '.join(SPAN_FORMS)}: got {form!r:.60}")
    if form == "auto":
        is_csv = os.fspath(path).lower().removesuffix(".gz").endswith(".csv")
        form = "texts" if scored else "semeval" if is_csv else "pairs"
    if (form == "texts") != scored:
        raise ValueError(
            "the format texts needs a scorer, which makes its labels"
            if form == "texts"
            else f"a scorer goes with the format texts: got {form}"
        )
    return form


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
        form: one of `SPAN_FORMS`.
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
        for part in _split(_PARSERS[form](reader))
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
        own[known] = _check_scores(scorer(asked), asked) if asked else 0
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


def find_text(row: Mapping[str, Any], keys: Sequence[str] = _TEXT_KEYS) -> str:
    """Returns the text of a row.

    Args:
        row: of a file.
        keys: the first of them that the row has; `prompt` may be an object with `text`, as in
            RealToxicityPrompts.

    Raises:
        ValueError: there is none, it is no text, or it is blank.

    Example:
        >>> find_text({"prompt": {"text": "So I", "toxicity": 0.1}})
        'So I'
    """
    key = next((key for key in keys if key in row), None)
    if key is None:
        raise ValueError(f"{keys[0]} is missing")
    value = row[key]
    if key == "prompt" and isinstance(value, Mapping):
        key, value = "prompt.text", value.get("text")
    if not isinstance(value, str):
        raise ValueError(f"{key} must be a text: got {type(value).__name__}")
    if not value.strip():
        raise ValueError(f"{key} must not be empty")
    return value


def find_number(row: Mapping[str, Any], key: str) -> float | None:
    """Returns a score of a row, or of its `prompt`; None where there is none.

    Args:
        row: of a file.
        key: such as `toxicity`.

    Raises:
        ValueError: it is no number from 0 to 1.

    Example:
        >>> find_number({"prompt": {"text": "So I", "toxicity": 0.1}}, "toxicity")
        0.1
    """
    prompt = row.get("prompt")
    value = row.get(key)
    if value is None and isinstance(prompt, Mapping):
        value = prompt.get(key)
    if value is None:
        return None
    if not _is_number(value) or not 0 <= value <= 1:
        raise ValueError(f"{key} must be a number from 0 to 1: got {value!r:.60}")
    return float(value)


class _Parsed(NamedTuple):
    """What a row holds."""

    line: int
    text: str
    tokens: list[str] | None = None
    scores: list[float] | None = None
    """Of each segment."""
    spans: list[int] | None = None
    """Toxic characters."""
    toxic: float | None = None


def _label_all(
    rows: list[_Parsed],
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
    for part in _split(_parse_texts(reader)):
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
        whole += _check_scores(scorer(block), block).tolist()
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


def _check_scores(scores: Any, texts: Sequence[str]) -> NDArray[np.float64]:
    try:
        found = np.asarray(scores, np.float64)
    except (TypeError, ValueError):
        raise ValueError("the scorer must give numbers: got something else") from None
    if found.shape != (len(texts),):
        raise ValueError(
            f"the scorer must give one number for each of {len(texts)} texts: "
            f"got the shape {list(found.shape)}"
        )
    wrong = ~((found >= 0) & (found <= 1))
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"the scorer must give numbers from 0 to 1: got {found[place]} for text {place}, "
            f"{texts[place]!r:.60}"
        )
    return found


def _split(rows: Iterator[_Parsed]) -> Iterator[list[_Parsed]]:
    """Rows in blocks, which are tokenised together."""
    block: list[_Parsed] = []
    for row in rows:
        block.append(row)
        if len(block) == _BLOCK:
            yield block
            block = []
    if block:
        yield block


def _parse_pairs(reader: RowReader) -> Iterator[_Parsed]:
    for line, content in reader.contents():
        try:
            row = parse_row(content)
            text = find_text(row, ("content", "text"))
            tokens = row.get("tokenize_content")
            if tokens is not None and not _is_list(tokens, str):
                raise ValueError("tokenize_content must be a list of texts")
            scores = row.get("score")
            if not _is_list(scores, (int, float)) or not all(0 <= s <= 1 for s in scores or ()):
                raise ValueError("score must be a list of numbers from 0 to 1")
            toxic = row.get("toxic")
            if toxic is not None and not (_is_number(toxic) and 0 <= toxic <= 1):
                raise ValueError(f"toxic must be a number from 0 to 1: got {toxic!r:.60}")
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield _Parsed(line, text, tokens=tokens, scores=scores, toxic=toxic)


def _parse_texts(reader: RowReader) -> Iterator[_Parsed]:
    for line, content in reader.contents():
        try:
            text = find_text(parse_row(content), _TEXT_KEYS)
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield _Parsed(line, text)


def _parse_semeval(reader: RowReader) -> Iterator[_Parsed]:
    names: list[str] | None = None
    for line, values in _read_records(reader):
        if names is None:
            names = values
            if not set(_COLUMNS) <= set(names):
                raise ValueError(
                    f"{reader.name}:{line}: expected columns spans and text: got {names!r:.80}"
                )
            continue
        try:
            yield _parse_record(line, dict(zip(names, values, strict=False)), len(names), values)
        except ValueError as error:
            reader.refuse(line, str(error))


def _parse_record(line: int, row: dict[str, str], columns: int, values: list[str]) -> _Parsed:
    if len(values) != columns:
        raise ValueError(f"expected {columns} columns: got {len(values)}")
    try:
        spans = parse_json(row["spans"])
    except ValueError:
        spans = None
    if not _is_list(spans, int):
        raise ValueError(f"spans must be a list of places of characters: got {row['spans']!r:.60}")
    text = row["text"]
    outside = next((place for place in spans if not 0 <= place < len(text)), None)
    if outside is not None:
        raise ValueError(
            f"spans must be from 0 to {len(text) - 1}, the last character: got {outside}"
        )
    return _Parsed(line, text, spans=spans)


def _read_records(reader: RowReader) -> Iterator[tuple[int, list[str]]]:
    """The records of a CSV file with the line that each begins in; fields may hold line breaks."""
    with open_input(reader.path) as source:
        text = io.TextIOWrapper(source.file, encoding="utf-8-sig", newline="")
        records = csv.reader(text, strict=True)
        line = 1
        while True:
            try:
                values = next(records, None)
            except csv.Error as error:
                reader.refuse(line, f"not a record of CSV: {error}")
                values = []
            except UnicodeDecodeError:
                raise ValueError(f"{reader.name}:{line}: not UTF-8") from None
            if values is None:
                return
            if values:
                yield line, values
            line = records.line_num + 1


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )


_PARSERS: dict[str, Callable[[RowReader], Iterator[_Parsed]]] = {
    "pairs": _parse_pairs,
    "semeval": _parse_semeval,
}
