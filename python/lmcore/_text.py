r"""Text that comes from data, as a terminal may show it.

A name in a file may hold the sequence that clears a screen or sets its title, a line break that
looks like a message of ours, or a mark that turns the order of letters around. All that is printed
goes through `escape`, all JSON that is printed through `to_json`.
"""

import codecs
import json
import re
from functools import lru_cache
from typing import Any

# C0, DEL and C1; line and paragraph separators; marks that change the direction of writing; lone
# surrogates, which stand for bytes of a file's name that are not UTF-8.
_HIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)
_NAMES = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def escape(text: str) -> str:
    r"""Returns a text in one line, in which nothing acts on a terminal.

    Args:
        text: any text.

    Example:
        >>> print(escape("a\x1b[2J\n\u202eb"))
        a\x1b[2J\n\u202eb
    """
    return _HIDDEN.sub(_escaped, text)


def find_reason(error: BaseException, most: int = 200) -> str:
    r"""Returns in one line why a library has failed, without the advice that stands below.

    That is the first line of its text; one that ends with a colon only says where, and the next
    says why. A text that is too long ends with a word and dots.

    Args:
        error: what was raised, with any text or none.
        most: characters.

    Example:
        >>> find_reason(TypeError("of the field 'd_ff':\n  expected int, got str\nSee also"))
        "of the field 'd_ff': expected int, got str"
        >>> find_reason(ValueError("one two three"), most=10)
        'one two...'
    """
    lines = [" ".join(line.split()) for line in str(error).splitlines() if line.strip()]
    found = [line for at, line in enumerate(lines) if all(one.endswith(":") for one in lines[:at])]
    text = " ".join(found) or type(error).__name__
    if len(text) <= most:
        return text
    head = text[: most - 3]
    if text[most - 3] != " ":  # in the midst of a word
        head = head.rpartition(" ")[0] or head
    return head.rstrip(" ,;:") + "..."


def count_noun(count: int, noun: str) -> str:
    """Returns a number of things, such as `1 row` and `1,200 rows`.

    Args:
        count: how many.
        noun: one of them.

    Example:
        >>> count_noun(1200, "row"), count_noun(1, "row")
        ('1,200 rows', '1 row')
    """
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def to_json(value: Any, indent: int | None = None, encoding: str = "utf-8") -> str:
    r"""Returns JSON that reads as the value and in which nothing acts on a terminal.

    Args:
        value: what `json.dumps` takes.
        indent: as for `json.dumps`.
        encoding: of the output; what it cannot hold is escaped.

    Raises:
        ValueError: a number is not finite: JSON has none.

    Example:
        >>> print(to_json(["北", "\x9b1m"]))
        ["北", "\u009b1m"]
    """
    plain = encoding != "utf-8" and codecs.lookup(encoding).name != "utf-8"
    if type(value) is dict and indent is None and not plain:
        return _object_to_json(value)
    return _to_json(value, plain, indent)


def _to_json(value: Any, plain: bool = False, indent: int | None = None) -> str:
    text = json.dumps(value, ensure_ascii=plain, allow_nan=False, indent=indent)
    if text.isprintable():  # the rule, for all characters that the pattern names and more
        return text
    # Outside of strings, JSON's only control characters are the line breaks of an indent.
    return _HIDDEN.sub(lambda m: m[0] if m[0] == "\n" else f"\\u{ord(m[0]):04x}", text)


def _object_to_json(value: dict[str, Any]) -> str:
    """The same for a row: texts and lists of them, of which rows are full, in half the time."""
    parts = []
    for key, item in value.items():
        if type(key) is not str:
            return _to_json(value)
        if type(item) is str:
            text = _str_to_json(item)
        elif type(item) is list:
            text = _list_to_json(item)
        elif type(item) is int:
            text = str(item)
        else:
            text = _to_json(item)
        parts.append(_key_to_json(key) + text)
    return f"{{{', '.join(parts)}}}"


@lru_cache(maxsize=256)
def _key_to_json(key: str) -> str:
    """The names of a file's columns come again in each row."""
    return f"{_str_to_json(key)}: "


def _str_to_json(text: str) -> str:
    if '"' not in text and "\\" not in text:
        line = text.replace("\n", "\\n")
        if line.isprintable():
            return f'"{line}"'
    return _to_json(text)


def _list_to_json(items: list[Any]) -> str:
    if items and type(items[0]) is str:
        try:
            text = '", "'.join(items)
        except TypeError:
            return _to_json(items)
        # All quotes are those between items, and nothing is to be escaped.
        if text.isprintable() and text.count('"') == 2 * len(items) - 2 and "\\" not in text:
            return f'["{text}"]'
    return _to_json(items)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file's name
        code -= 0xDC00
    return _NAMES.get(character) or (f"\\x{code:02x}" if code <= 0xFF else f"\\u{code:04x}")
