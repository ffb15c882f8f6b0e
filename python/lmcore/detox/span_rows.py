"""Rows of labelled texts, of files of three kinds; see `lmcore.detox.span_labels`."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from lmcore._json import parse_json
from lmcore._rows import RowReader, parse_row
from lmcore._streams import open_input

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
        is_csv = os.fspath(path).lower().removesuffix(".gz").endswith(".csv")
        form = "texts" if scored else "semeval" if is_csv else "pairs"
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


def _parse_record(line: int, row: dict[str, str], columns: int, values: list[str]) -> LabelledRow:
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
    return LabelledRow(line, text, spans=spans)


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


_READERS: dict[str, Callable[[RowReader], Iterator[LabelledRow]]] = {
    "pairs": _parse_pairs,
    "semeval": _parse_semeval,
    "texts": _parse_texts,
}
