"""What was kept of a model, and why: `pruning.json` in its folder."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json

RECORD = "pruning.json"
_FORMAT, _VERSION = "lmcore-pruning", 1


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Record:
    """What was kept of a model."""

    vocabulary_ids: NDArray[np.int64] | None = None
    """`[rows]` the old id of each new one, -1 for rows that only fill the embedding up."""
    vocabulary: dict[str, Any] = field(default_factory=dict)
    """How the tokens were chosen, and what was proved of them."""


def write_record(folder: str | os.PathLike[str], record: Record) -> None:
    """Writes `pruning.json`.

    Args:
        folder: of the new model.
        record: what was kept.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(vocabulary_ids=np.array([0, 5, -1])))
        ...     read_record(folder).vocabulary_ids.tolist()
        [0, 5, -1]
    """
    content: dict[str, Any] = {"format": _FORMAT, "version": _VERSION}
    if record.vocabulary_ids is not None:
        old_ids = record.vocabulary_ids.tolist()
        content["vocabulary"] = {**record.vocabulary, "old_ids": old_ids}
    write_text(Path(folder, RECORD), json.dumps(content, ensure_ascii=False) + "\n")


def read_record(path: str | os.PathLike[str]) -> Record:
    """Returns what `pruning.json` says.

    Args:
        path: the file, or its folder.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no such file; the text names it.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record())
        ...     read_record(folder).vocabulary_ids is None
        True
    """
    file = Path(path, RECORD) if Path(path).is_dir() else Path(path)
    content = read_json(file, "a record of pruning")
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise ValueError(f"{file}: not a record of pruning: its format is not {_FORMAT}")
    if content.get("version") != _VERSION:
        raise ValueError(f"{file}: a record of version {content.get('version')!r:.60}, not 1")
    vocabulary = content.get("vocabulary")
    if vocabulary is None:
        return Record()
    ids = vocabulary.get("old_ids") if isinstance(vocabulary, dict) else None
    good = isinstance(ids, list) and all(type(i) is int and -1 <= i < 2**63 for i in ids)
    if not good:
        raise ValueError(f"{file}: not a record of pruning: its old_ids are no ids")
    rest = {name: value for name, value in vocabulary.items() if name != "old_ids"}
    return Record(vocabulary_ids=np.array(ids, np.int64), vocabulary=rest)
