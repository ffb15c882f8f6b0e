"""Rows of a file of interactions, before they have numbers; and what its readers share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.interactions import Column
from lmcore.recsys.times import Times

__all__ = ["Rows"]


class Rows(NamedTuple):
    """Interactions in the order of the file or frame."""

    users: Sequence[str] | NDArray[np.int64] | Column
    items: Sequence[str] | NDArray[np.int64] | Column
    times: Times | None


def decoded_lines(
    path: str, data: bytes, skipped: list[str] | None, first: int = 1
) -> Iterator[tuple[int, str]]:
    """Yields lines with their numbers; one that is not UTF-8 is rejected."""
    for line, text in enumerate(data.split(b"\n"), first):
        try:
            yield line, text.decode()
        except UnicodeDecodeError:
            reject(f"{path}:{line}: not UTF-8", skipped)


def reject(problem: str, skipped: list[str] | None) -> None:
    """Raises the problem, or lists it where bad rows are skipped."""
    if skipped is None:
        raise ValueError(problem)
    skipped.append(problem)
