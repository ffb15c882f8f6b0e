"""Rows of labelled texts, of files of three kinds; see `lmcore.detox.span_labels`."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, NamedTuple

from lmcore._json import parse_json
from lmcore._rows import RowReader, is_csv, parse_row

SPAN_FORMS = ("auto", "pairs", "semeval", "texts")
_COLUMNS = ("spans", "text")
_TEXT_KEYS = ("text", "content", "prompt")


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
        form = "texts" if scored else "semeval" if is_csv(path) else "pairs"
    if (form == "texts") != scored:
        raise ValueError(
            "the format texts needs a scorer, which makes its labels"
            if form == "texts"
            else f"a scorer goes with the format texts: got {form}"
        )
    return form


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


class LabelledRow(NamedTuple):
    """What a row holds."""

    line: int
    text: str
    tokens: list[str] | None = None
    scores: list[float] | None = None
    """Of each segment."""
    spans: list[int] | None = None
    """Toxic characters."""
    toxic: float | None = None


def read_rows(reader: RowReader, form: str) -> Iterator[LabelledRow]:
    r"""Yields the rows of a file; those that cannot be used are refused.

    Args:
        reader: of the file.
        form: one of `SPAN_FORMS` but `auto`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows, or one that cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".csv") as file:
        ...     _ = file.write('spans,text\n"[0]",a b\n'), file.flush()
        ...     (row,) = read_rows(RowReader(file.name), "semeval")
        >>> row.line, row.text, row.spans
        (2, 'a b', [0])
    """
    return _READERS[form](reader)


def split_rows(rows: Iterator[LabelledRow], size: int) -> Iterator[list[LabelledRow]]:
    """Yields rows in blocks, which are tokenised together.

    Args:
        rows: any.
        size: of a block; the last one may be smaller.

    Example:
        >>> [len(block) for block in split_rows(iter([LabelledRow(1, "a")] * 3), 2)]
        [2, 1]
    """
    while block := list(islice(rows, size)):
        yield block


def read_spans(reader: RowReader) -> Iterator[LabelledRow]:
    r"""Yields texts with their toxic characters, which a file holds in one of two ways.

    A name that ends with `.csv` is SemEval-2021's form; else rows are those of
    `lmcore detox spans`, JSONL with a text and `spans`, half-open ranges of its characters, or
    places of characters.

    Args:
        reader: of the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows, or one that cannot be used.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"text": "a bad", "spans": [[2, 5]]}\n'), file.flush()
        ...     [row.spans for row in read_spans(RowReader(file.name))]
        [[2, 3, 4]]
    """
    return _parse_semeval(reader) if is_csv(reader.path) else _parse_spans(reader)


def _parse_spans(reader: RowReader) -> Iterator[LabelledRow]:
    for line, content in reader.contents():
        try:
            row = parse_row(content)
            text = find_text(row)
            places = _expand_spans(row.get("spans"), len(text))
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield LabelledRow(line, text, spans=places)


def _expand_spans(spans: Any, length: int) -> list[int]:
    if _is_list(spans, int):
        return _check_places(spans, length)
    if not isinstance(spans, list) or not all(_is_list(each, int) for each in spans):
        raise ValueError("spans must be a list of ranges, or of places, of characters")
    # Ranges may lie on each other, and a short line names very many of the same characters.
    toxic = bytearray(length)
    for each in spans:
        if len(each) != 2 or not 0 <= each[0] < each[1] <= length:
            raise ValueError(f"spans must be ranges from 0 to {length}: got {each!r:.60}")
        toxic[each[0] : each[1]] = b"\1" * (each[1] - each[0])
    return [place for place, is_toxic in enumerate(toxic) if is_toxic]


def _parse_pairs(reader: RowReader) -> Iterator[LabelledRow]:
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
        yield LabelledRow(line, text, tokens=tokens, scores=scores, toxic=toxic)


def _parse_texts(reader: RowReader) -> Iterator[LabelledRow]:
    for line, content in reader.contents():
        try:
            text = find_text(parse_row(content), _TEXT_KEYS)
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield LabelledRow(line, text)


def _parse_semeval(reader: RowReader) -> Iterator[LabelledRow]:
    for line, row in reader.records(_COLUMNS):
        try:
            spans = _parse_places(row["spans"], len(row["text"]))
        except ValueError as error:
            reader.refuse(line, str(error))
            continue
        yield LabelledRow(line, row["text"], spans=spans)


def _parse_places(content: str, length: int) -> list[int]:
    try:
        spans = parse_json(content)
    except ValueError:
        spans = None
    if not _is_list(spans, int):
        raise ValueError(f"spans must be a list of places of characters: got {content!r:.60}")
    return _check_places(spans, length)


def _check_places(spans: list[int], length: int) -> list[int]:
    outside = next((place for place in spans if not 0 <= place < length), None)
    if outside is not None:
        raise ValueError(f"spans must be from 0 to {length - 1}, the last character: got {outside}")
    return spans


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_list(value: Any, kind: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(item, kind) and not isinstance(item, bool) for item in value
    )


_READERS: dict[str, Callable[[RowReader], Iterator[LabelledRow]]] = {
    "pairs": _parse_pairs,
    "semeval": _parse_semeval,
    "texts": _parse_texts,
}
