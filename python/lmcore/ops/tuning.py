"""Which configurations kernels run in on a GPU: listed, kept in a file, and pinned.

The first launch of a kernel for a class of shapes times its candidates (`kernels/tuning.py`).  That
costs a fraction of a second, and two runs, or two processes of one, may choose differently, and so
round differently.  A run with pins times nothing and computes the same bits each time:

    write_choices("choices.json")          # at the end of a run on this kind of GPU
    with pin(read_choices("choices.json")):
        ...                                # in every process of the next one
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from typing import Any

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.kernels.tuning import Choice, list_choices, pin

__all__ = ["Choice", "list_choices", "pin", "read_choices", "write_choices"]

_NAMES = [field.name for field in fields(Choice)]


def write_choices(path: str | os.PathLike[str]) -> None:
    """Writes what was chosen by timing in this process as JSON, for `read_choices`.

    Args:
        path: the file; its folder must exist.

    Raises:
        OSError: the file cannot be written.
        ValueError: the file has no name.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_choices(f"{folder}/choices.json")
        ...     read_choices(f"{folder}/choices.json") == list_choices()
        True
    """
    rows = [
        asdict(choice) | {"sizes": dict(choice.sizes), "configuration": dict(choice.configuration)}
        for choice in list_choices()
    ]
    write_text(path, json.dumps(rows, indent=2) + "\n")


def read_choices(path: str | os.PathLike[str]) -> list[Choice]:
    """Returns the choices of a file, for `pin`.

    Args:
        path: what `write_choices` wrote.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else; the text names the file.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        ...     _ = file.write("[]"), file.flush()
        ...     with pin(read_choices(file.name)):  # every kernel in its default
        ...         pass
    """
    rows = read_json(path, "choices of configurations")
    try:
        if not isinstance(rows, list):
            raise ValueError(f"expected a list: got {type(rows).__name__}")
        return [_parse(row, index) for index, row in enumerate(rows)]
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: not choices of configurations: {error}") from None


def _parse(row: Any, index: int) -> Choice:
    if not isinstance(row, dict) or sorted(row) != sorted(_NAMES):
        raise ValueError(f"row {index} must have {', '.join(_NAMES)}")
    for name in ("kernel", "dtype", "device"):
        if not isinstance(row[name], str):
            raise ValueError(f"{name} of row {index} must be a text: got {row[name]!r}")
    for name in ("sizes", "configuration"):
        values = row[name].values() if isinstance(row[name], dict) else [None]
        if not all(type(value) is int for value in values):
            raise ValueError(f"{name} of row {index} must be names with integers")
    return Choice(**row)
