"""What a model is trained on: an instruction and the text that it shall answer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lmcore._rows import RowReader

# Keys of a row's two texts, ours and the authors'.
_KEYS = (("instruction", "instruction_inputs"), ("target", "prompt_labels"))


class Pair(NamedTuple):
    """A row's two texts."""

    instruction: str
    """What the model reads."""
    target: str
    """What it shall write; empty where there is nothing to write but the end."""


@dataclass(kw_only=True, slots=True, frozen=True)
class PairRows:
    """Rows of a file whose texts can be trained on."""

    rows: list[dict[str, Any]]
    """As they stand there."""
    bad_rows: int
    """Rows that were skipped because they could not be used."""
    listed_bad_rows: list[str]
    """Place and problem of the first 1000 of them."""


def find_pair(row: Mapping[str, Any]) -> Pair:
    """Returns the instruction and the target of a row.

    Args:
        row: with `instruction` and `target`, or as the authors' code writes it, with
            `instruction_inputs` and `prompt_labels` in `instance`.

    Raises:
        TypeError: a text is none.
        ValueError: a text is missing, or an instruction is empty.

    Example:
        >>> find_pair({"instance": {"instruction_inputs": "Label.", "prompt_labels": "Ada(O)"}})
        Pair(instruction='Label.', target='Ada(O)')
    """
    found = []
    for keys in _KEYS:
        key, value = _find(row, *keys)
        if value is None:
            raise ValueError(f"{keys[0]} is missing (or {keys[1]} in instance)")
        if not isinstance(value, str):
            raise TypeError(f"{key} must be a text: got {type(value).__name__}")
        if not value.strip() and keys is not _KEYS[1]:  # a sentence may have nothing to say
            raise ValueError(f"{key} must not be empty")
        found.append(value)
    return Pair(*found)


def find_words(row: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what scoring needs of a row: words, labels, types, and the name of the data set.

    Args:
        row: as for `find_pair`; `types` may be called `label_list`.

    Raises:
        ValueError: words, labels or types are missing.

    Example:
        >>> find_words({"words": ["Ada"], "labels": ["O"], "types": ["city"]})
        {'words': ['Ada'], 'labels': ['O'], 'types': ['city']}
    """
    found = {}
    for keys in (("words",), ("labels",), ("types", "label_list")):
        _, value = _find(row, *keys)
        if value is None:
            raise ValueError(f"{keys[0]} is missing, which validation compares with")
        found[keys[0]] = value
    if row.get("dataset") is not None:
        found["dataset"] = row["dataset"]
    return found


def read_pairs(
    path: str | os.PathLike[str], *, skip_bad_rows: bool = False, scored: bool = False
) -> PairRows:
    """Returns the rows of a JSONL file, each with an instruction and a target.

    Args:
        path: a file as `lmcore ner data` writes it, or the authors'; `.gz` is decompressed, `-` is
            standard input.
        skip_bad_rows: count and list bad rows instead of raising.
        scored: whether rows need words, labels and types as well, for validation.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds no rows, or one that cannot be used; the text names file and line.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
        ...     _ = file.write('{"instruction": "Label.", "target": "Ada(O)"}'), file.flush()
        ...     read_pairs(file.name).rows
        [{'instruction': 'Label.', 'target': 'Ada(O)'}]
    """
    rows: list[dict[str, Any]] = []
    reader = RowReader(path, skip_bad_rows=skip_bad_rows)
    for row in reader:
        try:
            find_pair(row.value)
            if scored:
                find_words(row.value)
        except (TypeError, ValueError) as error:
            reader.refuse(row.line, str(error))
        else:
            rows.append(row.value)
    listed = reader.listed_bad_rows
    if not rows:
        raise ValueError(f"none of {reader.bad_rows} rows can be used; the first: {listed[0]}")
    return PairRows(rows=rows, bad_rows=reader.bad_rows, listed_bad_rows=listed)


def _find(row: Mapping[str, Any], *keys: str) -> tuple[str, Any]:
    """The first of these that a row has, at its top or in its instance; a value of None is none."""
    instance = row.get("instance")
    for part in (row, instance if isinstance(instance, Mapping) else {}):
        for key in keys:
            if part.get(key) is not None:
                return key, part[key]
    return keys[0], None
