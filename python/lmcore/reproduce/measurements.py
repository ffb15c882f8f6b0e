"""Measurements that are kept, so that a report which was stopped goes on where it was.

One file for each claim, size and seed says under which conditions its numbers were measured. What
was measured under others is measured again, and so is what is not whole: a file is believed only
as far as its digest reaches.
"""

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore._files import FolderLock, write_text
from lmcore._json import parse_json
from lmcore.reproduce.claim import Measurement, Size

FOLDER = "measurements"
"""Of a report's folder; removed, everything is measured again."""

_LARGEST = 16 << 20  # bytes; what is larger is not ours


@dataclass(kw_only=True, slots=True, frozen=True)
class Kept:
    """A measurement, and how long it took."""

    measurement: Measurement
    seconds: float


def find_measurement(
    folder: Path, claim: str, size: Size, seed: int, conditions: Mapping[str, str]
) -> Kept | None:
    """Returns what was measured under the same conditions; None if that is not known for sure.

    Args:
        folder: of the report.
        claim: its name.
        size: of the experiment.
        seed: of the experiment.
        conditions: all else that the numbers depend on.
    """
    try:
        content = _read(_find_path(folder, claim, size, seed))
    except (OSError, ValueError):
        return None
    if not isinstance(content, dict):
        return None
    digest = content.pop("sha256", None)
    of = {"claim": claim, "size": size, "seed": seed, "conditions": dict(conditions)}
    if digest != _digest(content) or {name: content.get(name) for name in of} != of:
        return None
    # Whole and ours: nothing in it can be of another form.
    values = {name: float(value) for name, value in content["values"].items()}
    measurement = Measurement(values=values, texts=content.get("texts", {}))
    return Kept(measurement=measurement, seconds=content["seconds"])


def keep_measurement(
    folder: Path, claim: str, size: Size, seed: int, conditions: Mapping[str, str], kept: Kept
) -> None:
    """Writes a measurement in place of what is known of the claim, size and seed.

    Args:
        folder: of the report.
        claim: its name.
        size: of the experiment.
        seed: of the experiment.
        conditions: all else that the numbers depend on.
        kept: what was measured.

    Raises:
        OSError: the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> kept = Kept(measurement=Measurement(values={"f1": 0.1}), seconds=2.0)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     keep_measurement(Path(folder), "a", "tiny", 0, {"device": "b"}, kept)
        ...     (found, other) = (
        ...         find_measurement(Path(folder), "a", "tiny", 0, {"device": device})
        ...         for device in "bc"
        ...     )
        >>> found == kept, other
        (True, None)
    """
    content: dict[str, Any] = {
        "claim": claim,
        "size": size,
        "seed": seed,
        "conditions": dict(conditions),
        # JSON has no number that is not finite.
        "values": {
            name: float(value) if math.isfinite(value) else str(float(value))
            for name, value in kept.measurement.values.items()
        },
        "seconds": float(kept.seconds),
    }
    if kept.measurement.texts:
        content["texts"] = {name: dict(texts) for name, texts in kept.measurement.texts.items()}
    content["sha256"] = _digest(content)
    path = _find_path(folder, claim, size, seed)
    path.parent.mkdir(exist_ok=True)
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


@contextmanager
def only_here(folder: Path) -> Iterator[None]:
    """Keeps other processes from measuring into a folder; the system lets go when this one dies.

    Args:
        folder: of the report; it exists.

    Raises:
        FileExistsError: another process measures into it.
        OSError: the folder cannot be written to.
    """
    (folder / FOLDER).mkdir(exist_ok=True)
    with FolderLock(folder, doing="measuring", file=f"{FOLDER}/.lock").hold():
        for left in (*folder.glob(".lmcore-*"), *(folder / FOLDER).glob(".lmcore-*")):
            with suppress(OSError):  # what killed runs left under a temporary name
                left.unlink()
        yield


def _find_path(folder: Path, claim: str, size: Size, seed: int) -> Path:
    return folder / FOLDER / f"{claim}-{size}-{seed}.json"


def _read(path: Path) -> Any:
    # A pipe would be waited for.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise ValueError(f"{path}: not a measurement")
        return parse_json(file.read().decode())


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
