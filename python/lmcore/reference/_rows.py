"""What a usable row of predictions is, as a line of a file and as a dict of a list."""

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

_JSON_TYPES = {
    type(None): "null",
    bool: "a boolean",
    int: "a number",
    float: "a number",
    str: "a string",
    list: "a list",
    dict: "an object",
}


_KEYS = {"dataset", "text", "prediction", "types", "label_list", "words", "labels", "instance"}
_TYPES_KEYS = ("types", "label_list")
_INSTANCE_KEYS = {"words", "labels"}
_TWICE = "this key stands twice in its object"
_BOTH = "label_list stands in this row, too"


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
    types: list[str]
    prediction: str


def read_row(line: bytes) -> Row:
    """Returns the row that a line of a predictions file holds.

    Args:
        line: UTF-8 JSON.

    Raises:
        ValueError: not UTF-8, not JSON, a missing key, words and labels of different length,
            a gold label outside the types, a lone surrogate, a key that is read and
            stands in its object twice, or one that stands at the top and in `instance`.
        TypeError: not an object, or a value of the wrong type.

    Example:
        >>> row = b'{"types": ["x"], "words": ["a"], "labels": ["O"], "prediction": ""}'
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
        key, problem = doubled
        raise ValueError(f"{key}: {problem}")
    return _usable(row, _text, _list, "an object", _JSON_TYPES.__getitem__)


def read_example(row: object) -> Row:
    """Returns the row that a dict holds, whose lists may be any sequences of str.

    Args:
        row: what `score_examples` takes.

    Raises:
        ValueError, TypeError: as `read_row`.

    Example:
        >>> read_example({"types": [], "words": ("a",), "labels": ["O"], "prediction": ""})
        Row(dataset=None, words=['a'], labels=['O'], types=[], prediction='')
    """
    if not isinstance(row, dict):
        raise TypeError(f"expected a dict, got {type(row).__name__}")
    return _usable(row, _text_of_example, _list_of_example, "a dict", lambda kind: kind.__name__)


def select_keys(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what of a row is read when it is aligned.

    Args:
        row: any keys with any values.

    Example:
        >>> select_keys({"text": "a", "id": 3, "instance": {"words": ["a"], "id": 3}})
        {'text': 'a', 'instance': {'words': ['a']}}
    """
    keys = ("text", "words", *_TYPES_KEYS, "prediction")
    read = {key: row[key] for key in keys if key in row}
    instance = row.get("instance", {})
    if not isinstance(instance, Mapping):
        read["instance"] = instance
    elif "words" in instance:
        read["instance"] = {"words": instance["words"]}
    return read


def read_row_to_align(row: object) -> tuple[list[str] | None, str | None, list[str], str]:
    """Returns words, text, types and generated text of a row that is aligned.

    Args:
        row: words or a text or both; what JSON makes of it is read.

    Returns:
        None for words that have to be cut from the text, or for a text that is not given.

    Raises:
        ValueError, TypeError: as `read_row`.

    Example:
        >>> read_row_to_align({"text": "a b", "types": [], "prediction": ""})
        (None, 'a b', [], '')
    """
    read = json.loads(json.dumps(select_keys(row) if isinstance(row, Mapping) else row))
    if not isinstance(read, dict):
        raise TypeError(f"expected a JSON object, got {_JSON_TYPES[type(read)]}")
    types = _types(read, _list)
    instance = _instance(read, "an object", _JSON_TYPES.__getitem__)
    text = _text(read, "text") if "text" in read else None
    words = None
    if "words" in read or "words" in instance:
        words, _ = _list_of_sentence(read, instance, "words", _list)
    elif text is None:
        raise ValueError("words: this key is missing, and so is text")
    return words, text, types, _text(read, "prediction")


def _find_doubled(row: _Object) -> tuple[str, str] | None:
    """Returns the first key that is read and stood in its object before, and what is wrong."""
    seen: set[str] = set()
    for key, value in row.entries:
        first_types = next((name for name in seen if name in _TYPES_KEYS), key)
        if key in _TYPES_KEYS and first_types != key:
            return "types", _BOTH
        if key in seen & _KEYS:
            return key, _TWICE
        seen.add(key)
        if key == "instance" and isinstance(value, _Object):
            inner: set[str] = set()
            for name, _ in value.entries:
                if name in inner & _INSTANCE_KEYS:
                    return f"instance.{name}", _TWICE
                inner.add(name)
    return None


def _usable(
    row: dict[str, Any],
    read_text: Callable[[dict[str, Any], str], str],
    read_list: Callable[[dict[str, Any], str, str], list[str]],
    object_name: str,
    type_name: Callable[[type], str],
) -> Row:
    dataset = read_text(row, "dataset") if "dataset" in row else None
    types = _types(row, read_list)
    instance = _instance(row, object_name, type_name)
    if isinstance(instance, _Object) and any(map(_has_surrogate, instance)):
        raise ValueError("instance: holds a lone surrogate")
    words, _ = _list_of_sentence(row, instance, "words", read_list)
    labels, labels_key = _list_of_sentence(row, instance, "labels", read_list)
    if len(words) != len(labels):
        raise ValueError(
            f"{labels_key}: words and labels must have the same length: "
            f"got {len(words)} and {len(labels)}"
        )
    prediction = read_text(row, "prediction")
    valid = {"O", *(prefix + kind for kind in types for prefix in ("B-", "I-"))}
    for index, label in enumerate(labels):
        if label not in valid:
            raise ValueError(f"labels: [{index}] {label!r} is not in types")
    return Row(dataset, words, labels, types, prediction)


def _types(
    row: dict[str, Any], read_list: Callable[[dict[str, Any], str, str], list[str]]
) -> list[str]:
    """Returns the types, whose key has the authors' name or ours."""
    if all(key in row for key in _TYPES_KEYS):
        raise ValueError(f"types: {_BOTH}")
    key = "label_list" if "label_list" in row else "types"
    return read_list(row, key, key)


def _instance(
    row: dict[str, Any], object_name: str, type_name: Callable[[type], str]
) -> dict[str, Any]:
    instance: Any = row.get("instance", {})
    if not isinstance(instance, dict):
        raise TypeError(f"instance: expected {object_name}, got {type_name(type(instance))}")
    return instance


def _list_of_sentence(
    row: dict[str, Any],
    instance: dict[str, Any],
    key: str,
    read_list: Callable[[dict[str, Any], str, str], list[str]],
) -> tuple[list[str], str]:
    """Returns the list under a key of `instance` or the row, and the key's full name."""
    if key in instance and key in row:
        raise ValueError(f"{key}: this key stands at the top of the row and in its instance")
    holder, name = (instance, f"instance.{key}") if key in instance else (row, key)
    return read_list(holder, key, name), name


def _text(row: dict[str, Any], key: str) -> str:
    value = _value(row, key, key)
    if not isinstance(value, str):
        raise TypeError(f"{key}: expected a string, got {_JSON_TYPES[type(value)]}")
    _check_surrogates(value, f"{key}:")
    return value


def _list(row: dict[str, Any], key: str, name: str) -> list[str]:
    values = _value(row, key, name)
    if not isinstance(values, list):
        raise TypeError(f"{name}: expected a list of strings, got {_JSON_TYPES[type(values)]}")
    for index, value in enumerate(values):
        if not isinstance(value, str):
            got = f"{_JSON_TYPES[type(value)]} at [{index}]"
            raise TypeError(f"{name}: expected a list of strings, got {got}")
        _check_surrogates(value, f"{name}:")
    return values


def _text_of_example(row: dict[str, Any], key: str) -> str:
    value = _value(row, key, key)
    if not isinstance(value, str):
        raise TypeError(f"{key}: must be a str: got {type(value).__name__}")
    _check_surrogates(value, f"{key}:")
    return value


def _list_of_example(row: dict[str, Any], key: str, name: str) -> list[str]:
    values = _value(row, key, name)
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise TypeError(f"{name}: must be a sequence of str: got {type(values).__name__}")
    strings = list(values)
    for index, value in enumerate(strings):
        if not isinstance(value, str):
            raise TypeError(f"{name}: [{index}] must be a str: got {type(value).__name__}")
        _check_surrogates(value, f"{name}: [{index}]")
    return strings


def _value(row: dict[str, Any], key: str, name: str) -> Any:
    if key not in row:
        raise ValueError(f"{name}: this key is missing")
    return row[key]


def _has_surrogate(text: str) -> bool:
    return any("\ud800" <= character <= "\udfff" for character in text)


def _check_surrogates(text: str, name: str) -> None:
    if _has_surrogate(text):
        raise ValueError(f"{name} holds a lone surrogate")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
