"""What differs between a table of claims and an earlier one."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from lmcore._json import read_json
from lmcore._text import escape
from lmcore.reproduce.claim import ResultRow

_COMPARED = ("verdict", "measured", "speed")


def read_results(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Returns what a report's `results.json` holds.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it holds something else.
    """
    content = read_json(path, "results of claims")
    rows = content.get("rows") if isinstance(content, dict) else None
    run = content.get("run") if isinstance(content, dict) else None
    if (
        not isinstance(run, dict)
        or not isinstance(rows, list)
        or not all(_is_row(row) for row in rows)
        or not all(isinstance(run.get(name), str) for name in ("started", "device", "command"))
    ):
        raise ValueError(f"{os.fspath(path)}: not results of claims")
    return dict(content)


def format_difference(earlier: Mapping[str, Any], rows: Sequence[ResultRow]) -> str:
    """Returns which verdicts and numbers of claims differ, line by line.

    Numbers of trained claims and times vary with the machine: a difference is to be looked at, no
    error.

    Args:
        earlier: as `read_results` returns it.
        rows: of this run.

    Example:
        >>> format_difference({"run": {"started": "", "device": "", "command": ""}, "rows": []}, [])
        'no claim differs'
    """
    before = {row["id"]: row for row in earlier["rows"]}
    now = {row.id: {name: getattr(row, name) for name in _COMPARED} for row in rows}
    lines: list[str] = []
    same = 0
    for name, row in now.items():
        if name not in before:
            lines += [f"{name}: new, {row['verdict']}"]
            continue
        changed = _list_changes(before[name], row)
        if changed:
            lines += [name, *changed]
        else:
            same += 1
    gone = [name for name in before if name not in now]
    lines += [f"{escape(name)}: not among the claims of this run" for name in gone]
    if not lines:
        return "no claim differs"
    run = earlier["run"]
    head = f"what differs from {run['command']}, {run['started']}, {run['device']}"
    return "\n".join([escape(head), *lines, f"{same} of {len(now)} claims are the same"])


def _list_changes(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    lines = []
    for name in _COMPARED:
        old, new = before[name].splitlines(), now[name].splitlines()
        lines += [f"  - {escape(line)}" for line in old if line not in new]
        lines += [f"  + {line}" for line in new if line not in old]
    return lines


def _is_row(row: Any) -> bool:
    return isinstance(row, dict) and all(isinstance(row.get(n), str) for n in ("id", *_COMPARED))
