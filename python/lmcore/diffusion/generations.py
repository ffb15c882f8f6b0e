"""Rows of generated texts: `recover`, `reference` and `source`, as the authors' sampler writes."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from lmcore._rows import RowReader

KEYS = ("recover", "reference", "source")
# What DiffuSeq's tokenizer leaves in its texts.
_MARKS = ("[CLS]", "[SEP]")
_KINDS = {dict: "an object", list: "a list", bool: "a boolean", type(None): "null"}


class Generation(NamedTuple):
    """A row, without marks of the tokenizer."""

    line: int
    """Where it stands in its file, from 1."""
    value: dict[str, Any]
    """Its object: `recover`, `reference` and `source` without marks, other keys as they are."""


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
            if not isinstance(value[key], str):
                kind = _KINDS.get(type(value[key]), "a number")
                reader.refuse(line, f"{key}: expected a string, got {kind}")
            value[key] = remove_marks(value[key])
        yield Generation(line, value)
