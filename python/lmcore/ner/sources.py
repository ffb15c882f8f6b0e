"""Files of predictions in any form become rows with generated text, which is what is scored.

| form | what a row is |
| --- | --- |
| `gner` | JSONL: `types`, `words`, `labels`, and `prediction`, a text `word(label) ...` |
| `json` | JSONL: the same, with entities as JSON in `prediction`, in `entities`, or in both |
| `conll` | lines of columns, the gold label the last but one, the predicted label the last |

A source gives its rows as lines of the form `gner`, under the numbers of the lines that they come
from. What needs no change is read by the core from the file itself.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, NamedTuple

from lmcore._pipes import feed
from lmcore._rows import parse_row
from lmcore._streams import Input, is_gzip, is_standard, name_input, open_input
from lmcore.ner.label_columns import convert_columns, group_lines
from lmcore.ner.mentions import (
    Mention,
    cut_sentence,
    label_words,
    read_answer,
    write_generation,
)
from lmcore.ops.matching import parse_generation

FORMS = ("auto", "gner", "json", "conll")

_BATCH_BYTES = 1 << 17
_LISTED_ROWS = 1000
_GOLD = ("entities", "spans", "ner")
_WORDS = ("words", "tokens", "tokenized_text")
_TEXTS = ("text", "sentence")
Lines = Iterator[tuple[int, bytes]]


class Source:
    """A file of predictions.

    Args:
        path: the file; `.gz` is decompressed, `-` is standard input.
        form: one of `FORMS`.

    Raises:
        ValueError: unknown form.
    """

    def __init__(self, path: str | os.PathLike[str], form: str = "auto") -> None:
        if form not in FORMS:
            raise ValueError(f"form must be one of {', '.join(FORMS)}: got {form!r}")
        self.path = path
        self.name = name_input(path)
        """How errors call it."""
        self.form = form
        """Once it is open, the one that was detected."""
        self.left_out: Counter[str] = Counter()
        """Predicted entities that BIO labels cannot hold, by data set; they count as wrong."""
        self._problems: dict[int, str] = {}
        self.unreadable = 0
        """Rows of JSON whose prediction is no such JSON; they count as empty."""
        self.last_left_out = 0
        """Those of the row that `open_lines` gave last."""
        self._input: Input | None = None

    @property
    def dataset(self) -> str:
        """The data set of rows that name none: the file's name without its ending."""
        if is_standard(self.path):
            return "standard input"
        name = os.fsdecode(self.path)
        return Path(name.removesuffix(".gz")).stem

    def count_bytes(self, done: int) -> int:
        """Returns the bytes of the file on the disk, for those that its reader has counted.

        Args:
            done: bytes that the reader of the name has done.
        """
        return done if self._input is None else self._input.read_bytes

    @contextmanager
    def open_lines(self) -> Iterator[Lines]:
        """Yields the rows as lines of JSON in the form `gner`, with their numbers.

        Raises:
            OSError: the file cannot be read.
            ValueError: it cannot be read in its form; the text names file and line.
        """
        with open_input(self.path) as source:
            self._input = source
            lines = source.lines()
            head = [*islice(((n, line) for n, line in lines if line), 1)]
            if self.form == "auto":
                self.form = detect_form(head[0][1]) if head else "gner"
            yield self._convert(chain(head, lines))

    @contextmanager
    def open_name(self) -> Iterator[str]:
        """Yields a name under which the core reads the rows.

        Raises:
            OSError: the file cannot be read.
            ValueError: it cannot be read in its form; the text names file and line.
        """
        if not (is_gzip(self.path) or is_standard(self.path)):
            if self.form == "auto" and not _is_regular(self.path):
                self.form = "gner"  # a look at a pipe would take what is looked at
            if self.form == "auto":
                with open_input(self.path) as source:
                    first = next((line for _, line in source.lines() if line), b"")
                self.form = detect_form(first) if first else "gner"
            if self.form == "gner":
                self._input = None
                yield os.fsdecode(self.path)
                return
        with self.open_lines() as lines, feed(_join(lines)) as name:
            yield name

    def explain(self, text: str) -> str:
        """Returns the problem of a row, as the converter found it if it did.

        Args:
            text: of an error, such as `a.jsonl:3: types: this key is missing`.
        """
        number = re.match(re.escape(self.name) + ":([0-9]+): ", text)
        problem = self._problems.get(int(number[1])) if number else None
        return text if number is None or problem is None else number[0] + problem

    def _convert(self, lines: Lines) -> Lines:
        if self.form == "gner":
            return lines
        if self.form == "conll":
            sentences = group_lines(lines)
            return ((n, self._convert_row(n, sentence)) for n, sentence in sentences)
        return ((n, self._convert_row(n, line)) for n, line in lines)

    def _convert_row(self, number: int, row: bytes | list[bytes]) -> bytes:
        """Returns a row in the form `gner`; one that the core refuses in place of a bad one."""
        self.last_left_out = 0
        if not row:
            return b""
        try:
            value = parse_row(row) if isinstance(row, bytes) else convert_columns(row)
            converted = convert_row(value)
        except (TypeError, ValueError) as error:
            if len(self._problems) < _LISTED_ROWS:
                self._problems[number] = str(error)
            return b"{}"
        self.unreadable += converted.unreadable
        self.last_left_out = converted.left_out
        if converted.left_out:
            self.left_out[converted.row.get("dataset", self.dataset)] += converted.left_out
        return json.dumps(converted.row, ensure_ascii=False).encode()


class Converted(NamedTuple):
    """A row in the form `gner`."""

    row: dict[str, Any]
    left_out: int
    """Predicted entities that BIO labels cannot hold."""
    unreadable: int
    """1 if the prediction is no JSON of a known form, else 0."""


def detect_form(line: bytes) -> str:
    """Returns the form of a file whose first line is given.

    Args:
        line: the first that is not blank.

    Example:
        >>> detect_form(b'{"words": [], "labels": [], "prediction": "a(O)"}')
        'gner'
        >>> detect_form(b'{"words": [], "labels": [], "prediction": {"person": []}}')
        'json'
        >>> detect_form(b"EU B-ORG B-ORG")
        'conll'
    """
    if not line.lstrip().startswith((b"{", b"[")) and len(line.split()) >= 3:
        return "conll"
    try:
        row = parse_row(line)
    except ValueError:
        return "gner"  # where the problem is said
    prediction = row.get("prediction")
    instance = row.get("instance")
    has_labels = "labels" in (row if not isinstance(instance, dict) else {**row, **instance})
    if isinstance(prediction, dict | list):
        return "json"
    if isinstance(prediction, str) and not parse_generation(prediction).words and prediction:
        try:
            read_answer(prediction, [""])
        except ValueError:
            return "gner"
        return "json"
    return "gner" if has_labels or not any(key in row for key in _GOLD) else "json"


def convert_row(row: Mapping[str, Any]) -> Converted:
    """Returns a row whose gold or predicted entities are JSON in the form `gner`.

    Args:
        row: `words` or `text` or both, `labels` or `entities`, and `prediction`. Types that are
            not given are those of the row's entities.

    Raises:
        TypeError: a value has the wrong type.
        ValueError: a key is missing, or a gold entity cannot be written as labels of words.

    Example:
        >>> row = {"text": "Ada met Max", "entities": {"person": ["Ada"]}, "prediction": []}
        >>> convert_row(row).row["prediction"]
        'Ada(O) met(O) Max(O)'
    """
    instance = row.get("instance")
    found = {**row, **instance} if isinstance(instance, Mapping) else dict(row)
    types = _strings(found, ("types", "label_list"))
    words, text = _strings(found, _WORDS), _first(found, _TEXTS)
    if text is not None and not isinstance(text, str):
        raise TypeError(f"text: expected a string, got {type(text).__name__}")
    gold_key = next((key for key in _GOLD if key in found), None)
    labels = _strings(found, ("labels",))
    if labels is None and gold_key is None:
        raise ValueError("labels: this key is missing, and so is entities")
    if "prediction" not in found:
        raise ValueError("prediction: this key is missing")
    prediction, unreadable = _read_prediction(found["prediction"], types or ())
    gold = [] if gold_key is None or labels is not None else _read_gold(found, gold_key, words)
    offsets = [*gold, *(prediction if isinstance(prediction, list) else [])]
    sentence = cut_sentence(text, words, offsets)
    if labels is None:
        labelled = label_words(sentence, gold)
        if labelled.left_out:
            first = labelled.left_out[0]
            what = first.text or sentence.text[first.start : first.end]
            raise ValueError(
                f"{gold_key}: {what[:60]!r} ({first.type}) is not in the sentence between whole "
                "words, or overlaps another entity"
            )
        labels = labelled.labels
    if types is None:
        predicted_types = [m.type for m in prediction] if isinstance(prediction, list) else []
        types = sorted({m.type for m in gold} | {x[2:] for x in labels if x != "O"}
                       | set(predicted_types))  # fmt: skip
    left_out = 0
    if isinstance(prediction, list):
        answer = label_words(sentence, prediction)
        left_out = len(answer.left_out)
        prediction = write_generation(sentence.words, answer.labels)
    result = {"types": types, "words": sentence.words, "labels": labels, "prediction": prediction}
    if "dataset" in row:
        result["dataset"] = row["dataset"]
    return Converted(result, left_out, unreadable)


def _read_prediction(value: Any, types: Sequence[str]) -> tuple[str | list[Mention], int]:
    """The prediction as generated text or as entities, and whether it could not be read."""
    if not isinstance(value, str):
        try:
            return read_answer(value, types), 0
        except ValueError as error:
            raise ValueError(f"prediction: {error}") from None
    if parse_generation(value).words:
        return value, 0
    try:
        return read_answer(value, types), 0
    except ValueError:
        return "", 1


def _read_gold(row: Mapping[str, Any], key: str, words: Sequence[str] | None) -> list[Mention]:
    try:
        mentions = read_answer(row[key], _strings(row, ("types", "label_list")) or ())
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None
    if key != "ner" or words is None:
        return mentions
    # Here places count words, and the last word is part of the entity.
    sentence = cut_sentence(_first(row, _TEXTS), words, ())
    return [_find_offsets(mention, sentence.offsets) for mention in mentions]


def _find_offsets(mention: Mention, offsets: Sequence[tuple[int, int]]) -> Mention:
    if mention.start is None or mention.end is None:
        return mention
    if not 0 <= mention.start <= mention.end < len(offsets):
        raise ValueError(
            f"ner: expected words from 0 to {len(offsets) - 1}: "
            f"got {mention.start} to {mention.end}"
        )
    return mention._replace(start=offsets[mention.start][0], end=offsets[mention.end][1])


def _first(row: Mapping[str, Any], keys: Sequence[str]) -> Any:
    return next((row[key] for key in keys if key in row), None)


def _strings(row: Mapping[str, Any], keys: Sequence[str]) -> list[str] | None:
    key = next((key for key in keys if key in row), None)
    if key is None:
        return None
    value = row[key]
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise TypeError(f"{key}: expected a list of strings, got {str(value)[:40]}")
    return value


def _join(lines: Lines) -> Iterator[bytes]:
    """Yields the lines under their numbers, many at a time."""
    parts: list[bytes] = []
    size, last = 0, 0
    for number, line in lines:
        parts.append(b"\n" * (number - last - 1) + line + b"\n")
        size, last = size + len(line), number
        if size > _BATCH_BYTES:
            yield b"".join(parts)
            parts.clear()
            size = 0
    yield b"".join(parts)


def _is_regular(path: str | os.PathLike[str]) -> bool:
    try:
        return stat.S_ISREG(Path(path).stat().st_mode)
    except OSError:
        return False
