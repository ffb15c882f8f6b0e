"""The files of a report: every number as JSON, and a page to look at."""

import dataclasses
import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmcore._files import write_text
from lmcore.reproduce.claim import ResultRow
from lmcore.reproduce.conditions import RunInfo
from lmcore.reproduce.page import format_html


def format_json(rows: Sequence[ResultRow], info: RunInfo) -> str:
    """Returns the conditions of the run and every number of every row.

    Args:
        rows: one per claim.
        info: conditions of the run.

    Returns:
        An object with `run` and `rows`; a number that is not finite is null.
    """
    saved = [dataclasses.asdict(row) for row in rows]
    for row in saved:
        del row["plots"]  # drawn from the numbers
        del row["originals"]  # of which no copy may be made
        if not row["texts"]:
            del row["texts"]
    content = {"run": dataclasses.asdict(info), "rows": saved}
    return json.dumps(_finite(content), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(rows: Sequence[ResultRow], info: RunInfo, folder: str | os.PathLike[str]) -> None:
    """Writes `results.json` and `index.html` into an existing folder.

    Args:
        rows: one per claim.
        info: conditions of the run.
        folder: where; each file replaces its predecessor as a whole.

    Raises:
        ImportError: matplotlib, which draws the plots, is not installed.
        OSError: the folder cannot be written to.
    """
    files = {"results.json": format_json(rows, info), "index.html": format_html(rows, info)}
    for name, content in files.items():
        write_text(Path(folder) / name, content)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {name: _finite(value) for name, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
