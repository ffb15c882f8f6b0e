"""What was done to a pruned model, beside it: `pruning.json`.

A folder that says from what it was made, and what was kept of it, can be made again, and what
belongs to it can follow: corpora in the old ids get the new ones.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.compression.latency import LatencyReport, dump_report, load_report
from lmcore.compression.plan import Plan
from lmcore.compression.plan_files import dump_plan, load_plan

FILE = "pruning.json"
FORMAT, VERSION = "lmcore-pruning", 1
_MOST_BYTES = 1 << 28
_KEYS = (
    "format", "version", "source", "source_weights", "source_folder", "plan", "stage",
    "vocabulary", "about", "latency",
)  # fmt: skip
_MOST_ID = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Record:
    """What a pruned model was made from, and what was kept.

    Raises:
        TypeError: a field has another type.
        ValueError: a number is out of its range.

    Example:
        >>> Record(source="0" * 32, vocabulary_ids=[5, 7, -1]).vocabulary_ids.tolist()
        [5, 7, -1]
    """

    source: str
    """Digest of the model that was pruned: its settings, and names and shapes of its tensors."""
    plan: Plan | None = None
    """Of layers and widths, and of the vocabulary where it was a part of it."""
    stage: int | None = None
    """Which of the plan's stages was applied, from 1; all of them if None."""
    vocabulary_ids: NDArray[np.int64] | None = None
    """`[new vocabulary]`: the id that each id had before; -1 is a row that fills up."""
    about: dict[str, Any] = field(default_factory=dict)
    """What else tells how it was made, as JSON has it."""
    latency: LatencyReport | None = None
    """Its times beside those of the original, where they were measured."""
    source_folder: str | None = None
    """Where that model lay, as seen from the folder of the pruned one."""
    source_weights: str | None = None
    """Digest of that model with its weights, `digest_weights`; older records have none."""

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:
            raise TypeError(f"source must be a digest: got {self.source!r:.60}")
        if not (self.source_weights is None or isinstance(self.source_weights, str)):
            raise TypeError(f"source_weights must be a digest: got {self.source_weights!r:.60}")
        folder = self.source_folder
        if folder is not None and not (isinstance(folder, str) and folder and "\0" not in folder):
            raise TypeError(f"source_folder must be a path: got {folder!r:.60}")
        if self.plan is not None and not isinstance(self.plan, Plan):
            raise TypeError(f"plan must be a Plan: got {self.plan!r:.60}")
        if not isinstance(self.about, dict):
            raise TypeError(f"about must be an object: got {self.about!r:.60}")
        if self.latency is not None and not isinstance(self.latency, LatencyReport):
            raise TypeError(f"latency must be a LatencyReport: got {self.latency!r:.60}")
        if self.stage is not None:
            most = 0 if self.plan is None else len(self.plan.stages)
            if not isinstance(self.stage, int) or isinstance(self.stage, bool):
                raise TypeError(f"stage must be a whole number: got {self.stage!r:.60}")
            if not 1 <= self.stage <= most:
                raise ValueError(f"stage must be one of {most}: got {self.stage}")
        if self.vocabulary_ids is not None:
            ids = np.asarray(self.vocabulary_ids)
            if ids.ndim != 1 or ids.dtype.kind not in "iu":
                raise TypeError("vocabulary_ids must be whole numbers in a row")
            if len(ids) and not (ids.min() >= -1 and ids.max() <= _MOST_ID):
                raise ValueError(f"vocabulary_ids must be from -1 to {_MOST_ID}")
            object.__setattr__(self, "vocabulary_ids", ids.astype(np.int64))


def write_record(folder: str | os.PathLike[str], record: Record) -> None:
    """Writes `pruning.json` into a folder, whole or not at all.

    Args:
        folder: of the pruned model.
        record: what it was made from.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(source="0" * 32, vocabulary_ids=[5, 7]))
        ...     read_record(folder).vocabulary_ids.tolist()
        [5, 7]
    """
    write_text(Path(folder, FILE), format_record(record))


def format_record(record: Record) -> str:
    """Returns what `pruning.json` holds.

    Args:
        record: what a model was made from.

    Example:
        >>> json.loads(format_record(Record(source="ab")))["source"]
        'ab'
    """
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION, "source": record.source}
    if record.source_weights is not None:
        content["source_weights"] = record.source_weights
    if record.source_folder is not None:
        content["source_folder"] = record.source_folder
    if record.plan is not None:
        content["plan"] = dump_plan(record.plan)
    if record.stage is not None:
        content["stage"] = record.stage
    if record.about:
        content["about"] = record.about
    if record.latency is not None:
        content["latency"] = dump_report(record.latency)
    text = json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False)
    if record.vocabulary_ids is not None:  # in one line, not one for each id
        ids = json.dumps(record.vocabulary_ids.tolist())
        text = text.removesuffix("\n}") + f',\n "vocabulary": {{"old_ids": {ids}}}\n}}'
    return text + "\n"


def find_way(folder: str | os.PathLike[str], source_folder: str | os.PathLike[str]) -> str:
    """Returns where a model lies as seen from the folder of one that is pruned from it.

    Args:
        folder: of the pruned model, there or not yet.
        source_folder: of the other one.

    Example:
        >>> find_way("models/small", "models/large")
        '../large'
    """
    here, there = (os.path.realpath(path) for path in (folder, source_folder))
    return os.path.relpath(there, here)


def copy_record(folder: str | os.PathLike[str], target: str | os.PathLike[str]) -> None:
    """Writes a model's record beside one that was trained from it; does nothing if it has none.

    Args:
        folder: of the pruned model.
        target: of the trained one.

    Raises:
        OSError: a file cannot be read or written.
        ValueError: the record is damaged.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("pruned", "run", "run/best"):
        ...         Path(folder, name).mkdir()
        ...     record = Record(source="ab", source_folder="../large")
        ...     write_record(Path(folder, "pruned"), record)
        ...     copy_record(Path(folder, "pruned"), Path(folder, "run/best"))
        ...     read_record(Path(folder, "run/best")).source_folder
        '../../large'
    """
    if not Path(folder, FILE).is_file():
        return
    record = read_record(folder)
    if record.source_folder is not None:
        way = find_way(target, Path(folder, record.source_folder))
        record = replace(record, source_folder=way)
    write_record(target, record)


def read_record(path: str | os.PathLike[str]) -> Record:
    """Returns what a pruned model was made from.

    Args:
        path: the model's folder, or its `pruning.json`.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no such record; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_record(folder, Record(source="ab"))
        ...     read_record(Path(folder, "pruning.json")).source
        'ab'
    """
    file = Path(path)
    if file.is_dir():
        file = file / FILE
    what = "a record of pruning"
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: not {what}: expected a file")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file}: not {what}: it has more than {_MOST_BYTES} bytes")
    content = read_json(file, what)
    try:
        return _load(content)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not {what}: {error}") from None


def _load(content: Any) -> Record:
    if not isinstance(content, dict):
        raise TypeError(f"expected an object: got {content!r:.60}")
    for name, value in (("format", FORMAT), ("version", VERSION)):
        if content.get(name) != value or isinstance(content.get(name), bool):
            raise ValueError(f"{name} must be {value}: got {content.get(name)!r:.60}")
    unknown = [name for name in content if name not in _KEYS]
    if unknown:
        raise ValueError(f"expected {', '.join(_KEYS)}: got {unknown[0]!r:.60}, too")
    ids = None
    if "vocabulary" in content:
        ids = _load_ids(content["vocabulary"])
    plan = load_plan(content["plan"]) if "plan" in content else None
    names = ("stage", "about", "source_folder", "source_weights")
    more = {name: content[name] for name in names if name in content}
    if "latency" in content:
        more["latency"] = load_report(content["latency"])
    return Record(source=content.get("source", ""), plan=plan, vocabulary_ids=ids, **more)


def _load_ids(content: Any) -> NDArray[np.int64]:
    if not isinstance(content, dict) or [*content] != ["old_ids"]:
        raise TypeError(f"vocabulary must hold old_ids: got {content!r:.60}")
    ids = content["old_ids"]
    if not isinstance(ids, list) or any(type(value) is not int for value in ids):
        raise TypeError("old_ids must be whole numbers in a row")
    if any(not -1 <= value <= _MOST_ID for value in ids):
        raise ValueError(f"old_ids must be from -1 to {_MOST_ID}")
    return np.array(ids, np.int64)
