"""Rows of generated texts: `recover`, `reference` and `source`, as the authors' sampler writes.

A source that has several references has them all under `references`; `reference` is one of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from lmcore._rows import RowReader

KEYS = ("recover", "reference", "source")
SEVERAL = "references"
# What DiffuSeq's tokenizer leaves in its texts.
_MARKS = ("[CLS]", "[SEP]")
_KINDS = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}


class Generation(NamedTuple):
    """A row, without marks of the tokenizer."""

    line: int
    """Where it stands in its file, from 1."""
    value: dict[str, Any]
    """Its object: `recover`, `reference`, `source` and, where they stand there, `references`
    without marks, other keys as they are."""

    @property
    def references(self) -> list[str]:
        """All references; `reference` alone where there are no `references`."""
        return list(self.value.get(SEVERAL, [self.value["reference"]]))


def remove_marks(text: str) -> str:
    """Returns a text without the strings "[CLS]" and "[SEP]"; spaces around them stay.

    Args:
        text: as it was decoded.

    Example:
        >>> remove_marks("[CLS] how are you? [SEP]")
        ' how are you? '
    """
    for mark in _MARKS:
        text = text.replace(mark, "")
    return text


def read_generations(path: str | os.PathLike[str]) -> Iterator[Generation]:
    """Yields the rows of a file.

    Args:
        path: as for `lmcore._rows.RowReader`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows, or one that cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     row = '{"recover": "[CLS] a [SEP]", "reference": "b", "source": "c"}'
        ...     _ = file.write(row), file.flush()
        ...     [row.value["recover"] for row in read_generations(file.name)]
        [' a ']
    """
    reader = RowReader(path)
    for line, value in reader:
        for key in KEYS:
            if key not in value:
                reader.refuse(line, f"{key}: missing")
            value[key] = _clean(reader, line, key, value[key])
        if SEVERAL in value:
            texts = value[SEVERAL]
            if not isinstance(texts, list):
                reader.refuse(line, f"{SEVERAL}: expected a list, got {_name_kind(texts)}")
            value[SEVERAL] = [
                _clean(reader, line, f"{SEVERAL}[{k}]", text) for k, text in enumerate(texts)
            ]
        yield Generation(line, value)


def _clean(reader: RowReader, line: int, name: str, text: Any) -> str:
    if not isinstance(text, str):
        reader.refuse(line, f"{name}: expected a string, got {_name_kind(text)}")
    return remove_marks(text)


def _name_kind(value: Any) -> str:
    if isinstance(value, str):
        return "a string"
    return _KINDS.get(type(value), "a number")
