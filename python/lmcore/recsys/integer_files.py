"""Files of integers: `pairs`, and `sequences` of a line per user."""

from __future__ import annotations

import re

import numpy as np

from lmcore.recsys.ids import ID_END, KnownIds
from lmcore.recsys.rows import Rows, decoded_lines, reject
from lmcore.recsys.times import shorten

__all__: list[str] = []

# What a file of integers consists of when nothing is wrong with it.
_PLAIN_BYTES = np.zeros(256, dtype=bool)
_PLAIN_BYTES[list(b"0123456789 \t\n")] = True
_BLANKS = re.compile("[ \t]+")


class IntegerReader:
    """`pairs` and `sequences`."""

    def __init__(self, path: str, data: bytes, kind: str) -> None:
        self.path, self.data, self.is_pairs = path, data, kind == "pairs"

    def read_fast(self, known: KnownIds | None) -> Rows | None:
        """All rows at once; None if anything at all is unusual."""
        text = np.frombuffer(self.data, dtype=np.uint8)
        if not len(text) or not _PLAIN_BYTES[text].all():
            return None
        digit = text >= ord("0")
        # A field starts at a digit after something else, and ends likewise.
        edges = np.flatnonzero(np.diff(digit, prepend=False, append=False))
        starts, ends = edges[::2], edges[1::2]
        if not len(starts) or int((ends - starts).max()) > 18:
            return None
        values = np.fromstring(self.data, dtype=np.int64, sep=" ")
        if int(values.min()) < 1:
            return None
        breaks = np.flatnonzero(text == ord("\n"))
        counts = np.diff(np.searchsorted(starts, breaks), prepend=0, append=len(starts))
        counts = counts[counts > 0]
        firsts = np.cumsum(counts) - counts
        if self.is_pairs:
            if (counts != 2).any():
                return None
            users, items = values[0::2], values[1::2]
        else:
            own = values[firsts]
            if (counts < 2).any() or len(np.unique(own)) < len(own):
                return None
            users, items = np.repeat(own, counts - 1), np.delete(values, firsts)
        if known is not None and not known.holds_all(items):
            return None
        return Rows(users, items, None)

    def read_carefully(self, known: KnownIds | None, skipped: list[str] | None) -> Rows:
        """Row by row; a bad one is listed in `skipped` or raises where that is None."""
        users: list[int] = []
        items: list[int] = []
        lines: dict[int, int] = {}
        for line, text in decoded_lines(self.path, self.data, skipped):
            # Not `split()`: to it, spaces of other scripts and control characters are separators.
            fields = [field for field in _BLANKS.split(text) if field]
            if not fields:
                continue
            problem = self._problem(text, fields, lines, known)
            if problem is not None:
                reject(f"{self.path}:{line}: {problem}", skipped)
                continue
            user, *own = map(int, fields)
            if not self.is_pairs:
                lines[user] = line
            users.extend([user] * len(own))
            items.extend(own)
        return Rows(np.array(users, dtype=np.int64), np.array(items, dtype=np.int64), None)

    def _problem(
        self, text: str, fields: list[str], lines: dict[int, int], known: KnownIds | None
    ) -> str | None:
        if "\r" in text:
            return "a carriage return within the line"
        if self.is_pairs and len(fields) != 2:
            more = " (format sequences reads one user per line)" if len(fields) > 2 else ""
            return f"expected 2 fields, `user item`: got {len(fields)}{more}"
        if len(fields) < 2:
            return "expected `user item item ...`: got one field"
        for number, value in enumerate(fields):
            name = "user" if number == 0 else "item" if len(fields) == 2 else f"item {number}"
            problem = _id_problem(name, value)
            if problem is not None:
                return problem
            if number and known is not None and str(int(value)) not in known:
                return f"{name} is not in the id map: got {shorten(value)}"
        user = int(fields[0])
        if user in lines:
            return f"user {user} has a line already, line {lines[user]}"
        return None


def _id_problem(name: str, value: str) -> str | None:
    """What is wrong with an id from 1, if anything."""
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return f"{name} must be an integer: got {shorten(value)!r}"
    if len(digits.lstrip("0")) > 19 or int(value) >= ID_END:
        return f"{name} must be below 2**63: got {shorten(value)}"
    if int(value) < 1:
        return f"{name} must be at least 1: got {shorten(value)}"
    return None
