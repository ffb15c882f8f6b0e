"""Rows of predictions: what a usable row is, and the counts that rows add up to.

A row is a JSON object with `label_list`, `prediction`, and `words` and `labels` in its
`instance` or at its top; `dataset` names its data set. This is the form of the authors'
prediction files (GNER, arXiv 2402.16602).
"""

import json
from collections.abc import Iterable
from typing import Any, NamedTuple

from .entities import EntityCounts, ErrorKinds, classify_errors, count_entities
from .matching import match_labels

_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


_KEYS = {"dataset", "text", "prediction", "label_list", "words", "labels", "instance"}
_INSTANCE_KEYS = {"words", "labels"}


class _Object(dict[str, Any]):
    """A JSON object that knows all its entries: of equal keys, a dict keeps the last."""

    def __init__(self, entries: list[tuple[str, Any]]) -> None:
        super().__init__(entries)
        self.entries = entries


_JSON_TYPES[_Object] = "an object"


class Row(NamedTuple):
    """A usable row."""

    dataset: str | None
    words: list[str]
    labels: list[str]
    label_list: list[str]
    prediction: str


class RowCounts(NamedTuple):
    """What one row adds to its data set; all fields are sums once rows are added."""

    rows: int
    words: int
    conditions: tuple[int, int, int]
    """Rows matched exactly, as a subsequence, by LCS."""
    empty_predictions: int
    differences: tuple[int, int, int]
    """Omitted, added, substituted words."""
    invalid_labels: int
    entities: EntityCounts
    errors: ErrorKinds


def read_row(line: bytes) -> Row:
    """Returns the row that a line of a predictions file holds.

    Args:
        line: UTF-8 JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a missing key, words and labels of different length,
            a gold label outside the label list, a lone surrogate, a key that is read and
            stands in its object twice, or one that stands at the top and in `instance`.
        TypeError: not an object, or a value of the wrong type.

    Example:
        >>> row = b'{"label_list": ["x"], "words": ["a"], "labels": ["O"], "prediction": ""}'
        >>> read_row(row).words
        ['a']
    """
    try:
        text = line.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start + 1}") from None
    try:
        row = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_Object)
    except ValueError as error:
        raise ValueError(f"not valid JSON: {error}") from None
    if not isinstance(row, _Object):
        raise TypeError(f"expected a JSON object, got {_JSON_TYPES[type(row)]}")
    if any(map(_has_surrogate, row)):
        raise ValueError("holds a lone surrogate")
    if doubled := _find_doubled(row):
        raise ValueError(f"{doubled}: this key stands twice in its object")

    dataset = _text(row, "dataset") if "dataset" in row else None
    label_list = _list(row, "label_list", "label_list")
    instance = row.get("instance", {})
    if not isinstance(instance, dict):
        raise TypeError(f"instance: expected an object, got {_JSON_TYPES[type(instance)]}")
    if any(map(_has_surrogate, instance)):
        raise ValueError("instance: holds a lone surrogate")
    words, _ = _list_of_sentence(row, instance, "words")
    labels, labels_key = _list_of_sentence(row, instance, "labels")
    if len(words) != len(labels):
        raise ValueError(
            f"{labels_key}: words and labels must have the same length: "
            f"got {len(words)} and {len(labels)}"
        )
    prediction = _text(row, "prediction")
    valid = {"O", *(prefix + label for label in label_list for prefix in ("B-", "I-"))}
    for index, label in enumerate(labels):
        if label not in valid:
            raise ValueError(f"labels: [{index}] {label!r} is not in label_list")
    return Row(dataset, words, labels, label_list, prediction)


def score_row(row: Row, scheme: str = "gner") -> RowCounts:
    """Returns the counts of one row.

    Args:
        row: a usable row.
        scheme: one of `lmcore.reference.entities.SCHEMES`.

    Raises:
        ValueError: unknown scheme.

    Example:
        >>> score_row(Row(None, ["a"], ["B-x"], ["x"], "a(B-x)")).entities
        EntityCounts(gold=1, predicted=1, correct=1)
    """
    match = match_labels(row.words, row.prediction, row.label_list)
    return RowCounts(
        rows=1,
        words=len(row.words),
        conditions=(
            int(match.matching == "exact"),
            int(match.matching == "subsequence"),
            int(match.matching == "lcs"),
        ),
        empty_predictions=int(not match.parsed.words),
        differences=(len(match.omitted), len(match.added), len(match.substituted)),
        invalid_labels=len(match.invalid_labels),
        entities=count_entities(row.words, row.labels, match.labels, scheme),
        errors=classify_errors(row.labels, match.labels, scheme),
    )


def score_lines(
    lines: Iterable[bytes], default_dataset: str, scheme: str = "gner"
) -> dict[str, RowCounts]:
    """Returns the sums per data set, in the order of their first rows; blank lines are skipped.

    Args:
        lines: lines of a predictions file.
        default_dataset: the data set of rows that name none.
        scheme: one of `lmcore.reference.entities.SCHEMES`.

    Raises:
        ValueError, TypeError: as `read_row`.

    Example:
        >>> score_lines([b""], "empty")
        {}
    """
    sums: dict[str, RowCounts] = {}
    for line in lines:
        if not line.strip(b" \t\r\n"):
            continue
        row = read_row(line)
        counts = score_row(row, scheme)
        name = default_dataset if row.dataset is None else row.dataset
        sums[name] = _add(sums[name], counts) if name in sums else counts
    return sums


def _add(one: Any, two: Any) -> Any:
    """Adds numbers, and tuples of them field by field."""
    if isinstance(one, tuple):
        added = [_add(a, b) for a, b in zip(one, two, strict=True)]
        return type(one)(*added) if hasattr(one, "_fields") else tuple(added)
    return one + two


def _find_doubled(row: _Object) -> str | None:
    """Returns the first key that is read and stood in its object before."""
    seen: set[str] = set()
    for key, value in row.entries:
        if key in seen & _KEYS:
            return key
        seen.add(key)
        if key == "instance" and isinstance(value, _Object):
            inner: set[str] = set()
            for name, _ in value.entries:
                if name in inner & _INSTANCE_KEYS:
                    return f"instance.{name}"
                inner.add(name)
    return None


def _list_of_sentence(
    row: dict[str, Any], instance: dict[str, Any], key: str
) -> tuple[list[str], str]:
    """Returns the list under a key of `instance` or the row, and the key's full name."""
    if key in instance and key in row:
        raise ValueError(f"{key}: this key stands at the top of the row and in its instance")
    holder, name = (instance, f"instance.{key}") if key in instance else (row, key)
    return _list(holder, key, name), name


def _text(row: dict[str, Any], key: str) -> str:
    if key not in row:
        raise ValueError(f"{key}: this key is missing")
    value = row[key]
    if not isinstance(value, str):
        raise TypeError(f"{key}: expected a string, got {_JSON_TYPES[type(value)]}")
    _check_surrogates(value, key)
    return value


def _list(row: dict[str, Any], key: str, name: str) -> list[str]:
    if key not in row:
        raise ValueError(f"{name}: this key is missing")
    values = row[key]
    if not isinstance(values, list):
        raise TypeError(f"{name}: expected a list of strings, got {_JSON_TYPES[type(values)]}")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            got = f"{_JSON_TYPES[type(value)]} at [{index}]"
            raise TypeError(f"{name}: expected a list of strings, got {got}")
        _check_surrogates(value, name)
    return values


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_surrogates(text: str, name: str) -> None:
    if _has_surrogate(text):
        raise ValueError(f"{name}: holds a lone surrogate")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
