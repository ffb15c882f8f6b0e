"""`pruning.json`: what was kept of a model, and why."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json

FILE = "pruning.json"
_FORMAT, _VERSION = "lmcore-pruning", 1


@dataclass(kw_only=True, slots=True, frozen=True)
class Record:
    """What was kept."""

    content: Mapping[str, Any] = field(default_factory=dict)
    """All of the file but its format and version."""

    @property
    def vocabulary_ids(self) -> NDArray[np.int64] | None:
        """`[new V]` int64, the old id of each new one, -1 where there is none; None: all are."""
        vocabulary = self.content.get("vocabulary")
        return None if vocabulary is None else np.asarray(vocabulary["old_ids"], np.int64)


def write_record(folder: str | os.PathLike[str], record: Record) -> None:
    """Writes the record of a folder.

    Args:
        folder: that of the pruned model.
        record: what was kept.

    Raises:
        OSError: it cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(content={"vocabulary": {"old_ids": [0, 5]}}))
        ...     read_record(folder).vocabulary_ids.tolist()
        [0, 5]
    """
    content = {"format": _FORMAT, "version": _VERSION, **record.content}
    write_text(Path(folder, FILE), json.dumps(content, ensure_ascii=False) + "\n")


def read_record(path: str | os.PathLike[str]) -> Record:
    """Returns the record of a folder, or of a file.

    Args:
        path: the folder, or the file itself.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no record; the text names it.

    Example:
        >>> read_record("nowhere")
        Traceback (most recent call last):
        FileNotFoundError: [Errno 2] No such file or directory: 'nowhere'
    """
    file = Path(path, FILE) if Path(path).is_dir() else Path(path)
    content = read_json(file, "a record of pruning")
    if not isinstance(content, dict) or content.pop("format", None) != _FORMAT:
        raise ValueError(f"{file}: not a record of pruning: it has another format")
    version = content.pop("version", None)
    if version != _VERSION:
        raise ValueError(f"{file}: expected version {_VERSION} of a record, got {version!r:.40}")
    vocabulary = content.get("vocabulary")
    if vocabulary is not None:
        ids = vocabulary.get("old_ids") if isinstance(vocabulary, dict) else None
        if not isinstance(ids, list) or not all(type(i) is int and -1 <= i < 2**31 for i in ids):
            raise ValueError(f"{file}: vocabulary must hold old_ids, whole numbers from -1")
    return Record(content=content)
