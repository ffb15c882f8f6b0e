"""Outputs of a run of several that are whole already, so that a run that was killed passes over.

Beside such an output stands `.<digest of its name>.lmcore-done`, with the recipe that it was made
by and a digest of what it holds. Nothing is trusted: an output that has changed is made again, and
one of another recipe is refused. The files are removed when all outputs are whole.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmcore._files import write_text
from lmcore._json import read_json

_KEYS = {"recipe", "output", "result"}


class FinishedOutput:
    """Whether an output is whole, and what its making returned.

    Args:
        target: the output, a file.
        recipe: all that it depends on, as JSON.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.jsonl")
        ...     output = FinishedOutput(file, {"seed": 1})
        ...     written = file.write_text("{}")
        ...     output.save({"rows": 1})
        ...     FinishedOutput(file, {"seed": 1}).load()
        {'rows': 1}
    """

    def __init__(self, target: str | os.PathLike[str], recipe: Mapping[str, Any]) -> None:
        self._name = os.fspath(target)
        path = Path(os.path.realpath(self._name)) if Path(self._name).is_symlink() else Path(target)
        digest = hashlib.blake2b(os.fsencode(path.name), digest_size=8).hexdigest()
        self._target = path
        self._file = path.with_name(f".{digest}.lmcore-done")
        self._recipe = json.loads(json.dumps(recipe, allow_nan=False))

    def load(self) -> dict[str, Any] | None:
        """Returns what `save` was given, if the output is as it was then.

        Raises:
            FileExistsError: it was made by another recipe.
            OSError: a file cannot be read.
            ValueError: what stands beside the output is broken.
        """
        if not self._file.exists() or not self._target.is_file():
            return None
        content = read_json(self._file, "the record of an output")
        if (
            not isinstance(content, dict)
            or set(content) != _KEYS
            or not all(isinstance(content[key], dict) for key in ("recipe", "result"))
        ):
            raise ValueError(f"{self._file}: not the record of an output: remove it")
        if content["output"] != _hash_file(self._target):
            return None
        recipe: dict[str, Any] = content["recipe"]
        if recipe != self._recipe:
            keys = [*recipe, *self._recipe]
            key = next(k for k in keys if recipe.get(k) != self._recipe.get(k))
            raise FileExistsError(
                f"{self._name}: it is there, made with another {key}; start anew without resume"
            )
        result: dict[str, Any] = content["result"]
        return result

    def save(self, result: Mapping[str, Any]) -> None:
        """Says that the output is whole.

        Args:
            result: what `load` shall return, as JSON.

        Raises:
            OSError: a file cannot be read or written.
        """
        content = {
            "recipe": self._recipe, "output": _hash_file(self._target), "result": dict(result),
        }  # fmt: skip
        write_text(self._file, json.dumps(content, allow_nan=False) + "\n")

    def remove(self) -> None:
        """Removes the record, not the output."""
        self._file.unlink(missing_ok=True)


def _hash_file(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
