"""JSON files that are read as they are, or refused."""

import json
import os
from pathlib import Path
from typing import Any, NoReturn

_TOO_DEEP = "lists or objects are nested too deeply"


def read_json(path: str | os.PathLike[str], what: str) -> Any:
    """Returns what a JSON file holds.

    Python's reader takes the last of two equal keys, and NaN and Infinity, which JSON has not.
    Neither is what a file of ours holds, and a file that holds it says two things at once.

    Args:
        path: the file.
        what: what it should be, for the error: `an id map`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not JSON, or not UTF-8, or holds a key twice or a number that is not
            finite; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write('{"users": 2, "users": 3}'), file.flush()
        ...     try:
        ...         read_json(file.name, "an id map")
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(file.name))
        : not an id map: the key 'users' stands twice
    """
    data = Path(path).read_bytes()
    try:
        return parse_json(data.decode())
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: not {what}: {error}") from None


def parse_json(text: str) -> Any:
    """Returns what a JSON text holds; see `read_json`.

    Args:
        text: JSON.

    Raises:
        ValueError: it is not JSON, is nested too deeply, or holds a key twice or a number that is
            not finite.

    Example:
        >>> parse_json("[1, 2.5]")
        [1, 2.5]
    """
    try:
        if text.startswith("\ufeff"):
            return json.loads(text)  # which says so
        return _DECODER.decode(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None


def refuse_surrogates(value: Any, text: str | None = None) -> None:
    r"""Returns nothing if no text of a JSON value holds half of a character.

    Args:
        value: what the text holds.
        text: the JSON, in which an escape would make one; None if it is not at hand.

    Raises:
        ValueError: a text holds a lone surrogate, which is no UTF-8, or the value is nested too
            deeply to be written.

    Example:
        >>> refuse_surrogates("\ud83d\ude00", r'"\ud83d\ude00"')
        Traceback (most recent call last):
        ValueError: holds a lone surrogate
    """
    if text is not None and "\\ud" not in text and "\\uD" not in text:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate") from None
    except RecursionError:  # writing needs more of the stack than reading did
        raise ValueError(_TOO_DEEP) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        seen: set[str] = set()
        for name, _ in pairs:
            if name in seen:
                raise ValueError(f"the key {name!r} stands twice")
            seen.add(name)
    return content


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{text[:40]} is too large a number")
    return value


# `json.loads` makes a new one in each call, which takes a quarter of the time of a short row.
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
)
