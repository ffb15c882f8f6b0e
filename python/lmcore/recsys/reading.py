"""Files of interactions: three formats, each read at once where nothing is unusual."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.data import InteractionReport, Interactions
from lmcore.recsys.ids import (
    ID_END,
    IdMap,
    KnownIds,
    count_remapped,
    number_as,
    number_ids,
)
from lmcore.recsys.stretches import count_repeated, to_offsets

FORMATS = ("auto", "pairs", "sequences", "inter")

_LISTED_ROWS = 1000
# What a file of integers consists of when nothing is wrong with it.
_PLAIN_BYTES = np.zeros(256, dtype=bool)
_PLAIN_BYTES[list(b"0123456789 \t\n")] = True
_BLANKS = re.compile("[ \t]+")
# Python's `int` and `float` also read `1_0`, digits of other scripts, `nan` and `infinity`.
_TIME = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_NOT_FINITE = ("nan", "inf", "infinity")
_TIME_CHARACTERS = frozenset("0123456789+-.eE")


def read_interactions(
    path: str | os.PathLike[str],
    *,
    format: str = "auto",  # noqa: A002 - the word that callers expect
    skip_bad_rows: bool = False,
    id_map: IdMap | None = None,
) -> Interactions:
    r"""Returns the interactions of a file, with users 1..U and items 1..I without gaps.

    Formats, all UTF-8, lines without any field passed over:

    - `pairs`: `user item`, integers from 1, separated by spaces or tabs; a user's lines stand
      in time order and need not be neighbours.
    - `sequences`: `user item item ...`, one line per user, in time order.
    - `inter`: RecBole's atomic file: fields separated by tabs under a header of `name:type`.
      It needs `user_id:token` and `item_id:token` in any place, ids being any text. Rows of a
      user are sorted by `timestamp:float`; equal times, and files without that column, keep
      the order of the file. Other columns are ignored.
    - `auto`: `inter` by the ending of the name or by a first line of `name:type` fields, else
      `pairs` if the first line has up to two fields, else `sequences`. A file of sequences
      whose first user has one item only needs `format="sequences"`.

    New ids ascend with the original ones where all of these are integers, so that ids without
    gaps stay as they are; other ids are numbered in the order of the file. Repeated
    interactions are kept. `report` counts all of it.

    Args:
        path: the file.
        format: one of `FORMATS`.
        skip_bad_rows: count and list rows that cannot be used instead of raising.
        id_map: takes the items' ids from this map, that of a trained model for example; an
            item outside it makes a bad row. Its users are not used.

    Raises:
        OSError: the file cannot be read.
        ValueError: unknown format, a header or a row that cannot be used, or no interactions;
            the text names file, line and field.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        ...     _ = file.write("7 20\n9 30\n7 30\n"), file.flush()
        ...     interactions = read_interactions(file.name)
        >>> interactions.offsets.tolist(), interactions.items.tolist()
        ([0, 2, 3], [1, 2, 2])
        >>> interactions.item_ids.tolist()
        [20, 30]
    """
    if format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}: got {format!r}")
    name = os.fspath(path)
    data = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    kind = _guess_format(name, data) if format == "auto" else format
    known = None if id_map is None else KnownIds(id_map.items)
    reader = _InterReader(name, data) if kind == "inter" else _IntegerReader(name, data, kind)
    rows = reader.read_fast(known)
    skipped: list[str] = []
    if rows is None:
        rows = reader.read_carefully(known, skipped if skip_bad_rows else None)
    if not len(rows.items):
        tail = f" ({len(skipped)} rows skipped, the first: {skipped[0]})" if skipped else ""
        raise ValueError(f"{name}: there are no interactions{tail}")
    return _arrange(rows, skipped, id_map)


class _Rows(NamedTuple):
    """Interactions in the order of the file."""

    users: Sequence[str] | NDArray[np.int64]
    items: Sequence[str] | NDArray[np.int64]
    times: NDArray[Any] | None


class _IntegerReader:
    """`pairs` and `sequences`."""

    def __init__(self, path: str, data: bytes, kind: str) -> None:
        self.path, self.data, self.is_pairs = path, data, kind == "pairs"

    def read_fast(self, known: KnownIds | None) -> _Rows | None:
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
        return _Rows(users, items, None)

    def read_carefully(self, known: KnownIds | None, skipped: list[str] | None) -> _Rows:
        """Row by row; a bad one is listed in `skipped` or raises where that is None."""
        users: list[int] = []
        items: list[int] = []
        lines: dict[int, int] = {}
        for line, text in _lines(self.path, self.data, skipped):
            # Not `split()`: to it, spaces of other scripts and control characters are separators.
            fields = [field for field in _BLANKS.split(text) if field]
            if not fields:
                continue
            problem = self._problem(text, fields, lines, known)
            if problem is not None:
                _reject(f"{self.path}:{line}: {problem}", skipped)
                continue
            user, *own = map(int, fields)
            if not self.is_pairs:
                lines[user] = line
            users.extend([user] * len(own))
            items.extend(own)
        return _Rows(np.array(users, dtype=np.int64), np.array(items, dtype=np.int64), None)

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
                return f"{name} is not in the id map: got {_shorten(value)}"
        user = int(fields[0])
        if user in lines:
            return f"user {user} has a line already, line {lines[user]}"
        return None


class _InterReader:
    """RecBole's atomic files."""

    def __init__(self, path: str, data: bytes) -> None:
        self.path = path
        head, _, self.body = data.partition(b"\n")
        if not data:
            raise ValueError(f"{path}: there are no interactions")
        try:
            columns = head.decode().split("\t")
        except UnicodeDecodeError:
            raise ValueError(f"{path}:1: not UTF-8") from None
        names = []
        for column in columns:
            name, colon, kind = column.rpartition(":")
            kinds = ("token", "token_seq", "float", "float_seq")
            if not colon or kind not in kinds or len(name.split()) != 1:
                raise ValueError(
                    f"{path}:1: a header is `name:type` fields separated by tabs, the type one of "
                    f"{', '.join(kinds)}: got {_shorten(column)!r}"
                )
            if name in names:
                raise ValueError(f"{path}:1: column {name} stands twice in the header")
            expected = {"user_id": "token", "item_id": "token", "timestamp": "float"}
            if kind != expected.get(name, kind):
                raise ValueError(f"{path}:1: {name} must be of type {expected[name]}: got {kind}")
            names.append(name)
        for name in ("user_id", "item_id"):
            if name not in names:
                raise ValueError(
                    f"{path}:1: there is no column {name}: the header has {', '.join(names)}"
                )
        self.width = len(names)
        self.user, self.item = names.index("user_id"), names.index("item_id")
        self.time = names.index("timestamp") if "timestamp" in names else None

    def read_fast(self, known: KnownIds | None) -> _Rows | None:
        """All rows at once; None if anything at all is unusual."""
        body = self.body.removesuffix(b"\n")
        text = np.frombuffer(body, dtype=np.uint8)
        if not len(text) or (text == ord("\r")).any():
            return None
        # Every line has `width` fields exactly if every `width`-th separator is a line break.
        separators = text[(text == ord("\t")) | (text == ord("\n"))]
        if (len(separators) + 1) % self.width:
            return None
        breaks = np.zeros(len(separators), dtype=bool)
        breaks[self.width - 1 :: self.width] = True
        if ((separators == ord("\n")) != breaks).any():
            return None
        try:
            fields = body.replace(b"\n", b"\t").decode().split("\t")
        except UnicodeDecodeError:
            return None
        users, items = fields[self.user :: self.width], fields[self.item :: self.width]
        if "" in users or "" in items or (known is not None and not known.holds_all(items)):
            return None
        if self.time is None:
            return _Rows(users, items, None)
        texts = fields[self.time :: self.width]
        if not _TIME_CHARACTERS.issuperset("".join(texts)):
            return None
        try:
            times = _to_times(texts)
        except (ArithmeticError, ValueError):
            return None
        return _Rows(users, items, times)

    def read_carefully(self, known: KnownIds | None, skipped: list[str] | None) -> _Rows:
        """Row by row; a bad one is listed in `skipped` or raises where that is None."""
        users, items, times = [], [], []
        for line, text in _lines(self.path, self.body, skipped, first=2):
            if not text:
                continue
            fields = text.split("\t")
            problem = self._problem(text, fields, known)
            if problem is not None:
                _reject(f"{self.path}:{line}: {problem}", skipped)
                continue
            users.append(fields[self.user])
            items.append(fields[self.item])
            if self.time is not None:
                times.append(fields[self.time])
        return _Rows(users, items, None if self.time is None else _to_times(times))

    def _problem(self, text: str, fields: list[str], known: KnownIds | None) -> str | None:
        if "\r" in text:
            return "a carriage return within the line"
        if len(fields) != self.width:
            return f"expected {self.width} fields, as in the header: got {len(fields)}"
        for name, column in (("user_id", self.user), ("item_id", self.item)):
            if not fields[column]:
                return f"{name} is empty"
        if known is not None and fields[self.item] not in known:
            return f"item_id is not in the id map: got {_shorten(fields[self.item])!r}"
        if self.time is not None:
            value = fields[self.time]
            if value.lower().lstrip("+-") not in _NOT_FINITE and not _TIME.fullmatch(value):
                return f"timestamp must be a number: got {_shorten(value)!r}"
            if not math.isfinite(float(value)):
                return f"timestamp must be finite: got {_shorten(value)}"
        return None


def _guess_format(path: str, data: bytes) -> str:
    if path.endswith(".inter"):
        return "inter"
    first = next((line for line in data.split(b"\n", 64) if line.strip()), b"")
    if b"\n" in first:  # 64 empty lines, then the rest
        first = first.lstrip().partition(b"\n")[0]
    if all(b":" in column for column in first.split(b"\t")):
        return "inter"
    return "pairs" if len(first.split()) <= 2 else "sequences"


def _lines(
    path: str, data: bytes, skipped: list[str] | None, first: int = 1
) -> Iterator[tuple[int, str]]:
    for line, text in enumerate(data.split(b"\n"), first):
        try:
            yield line, text.decode()
        except UnicodeDecodeError:
            _reject(f"{path}:{line}: not UTF-8", skipped)


def _reject(problem: str, skipped: list[str] | None) -> None:
    if skipped is None:
        raise ValueError(problem)
    skipped.append(problem)


def _id_problem(name: str, value: str) -> str | None:
    """What is wrong with an id from 1, if anything."""
    digits = value.removeprefix("-")
    if not (digits.isascii() and digits.isdigit()):
        return f"{name} must be an integer: got {_shorten(value)!r}"
    if len(digits.lstrip("0")) > 19 or int(value) >= ID_END:
        return f"{name} must be below 2**63: got {_shorten(value)}"
    if int(value) < 1:
        return f"{name} must be at least 1: got {_shorten(value)}"
    return None


def _shorten(value: str) -> str:
    return value if len(value) <= 40 else value[:40] + "..."


def _to_times(values: list[str]) -> NDArray[Any]:
    """Numbers that stand in the order of the times: equal only where these are.

    Integers where all are and fit; else float64, which keeps fifteen digits apart; else the rank
    of the exact value. ValueError where a value is no finite number.
    """
    try:
        return np.array([int(value) for value in values], dtype=np.int64)
    except (ValueError, OverflowError):
        pass
    times = np.array([float(value) for value in values], dtype=np.float64)
    if not np.isfinite(times).all():
        raise ValueError("a time is not finite")
    sizes = np.abs(times[times != 0])
    vanished = any(_count_digits(values[index]) for index in np.flatnonzero(times == 0))
    digits = max(map(_count_digits, values))
    if digits <= 15 and sizes.min(initial=1.0) > 1e-300 and not vanished:
        return times
    if not all(map(_TIME.fullmatch, values)):
        raise ValueError("a time has another form")
    exact = {text: Decimal(text) for text in set(values)}
    ranks = {value: rank for rank, value in enumerate(sorted(set(exact.values())))}
    return np.array([ranks[exact[value]] for value in values], dtype=np.int64)


def _count_digits(number: str) -> int:
    """Digits of a number in ASCII, without leading zeros and the exponent."""
    digits = number.lower().partition("e")[0].replace(".", "")
    return len(digits.lstrip("+-0"))


def _arrange(rows: _Rows, skipped: list[str], id_map: IdMap | None) -> Interactions:
    """Contiguous ids, grouped by user, sorted by time."""
    users, user_ids = number_ids(rows.users)
    if id_map is None:
        items, item_ids = number_ids(rows.items)
    else:
        items, item_ids = number_as(rows.items, id_map.items), id_map.items
    unsorted, when = 0, rows.times
    if (np.diff(users) < 0).any() or rows.times is not None:
        order = np.argsort(users, kind="stable")
        if rows.times is not None:
            times = rows.times[order]
            same_user = np.diff(users[order]) == 0
            unsorted = int(np.count_nonzero(same_user & (times[1:] < times[:-1])))
            if unsorted:
                order = np.lexsort((rows.times, users))
        users, items = users[order], items[order]
        when = None if when is None else when[order]
    offsets = to_offsets(np.bincount(users, minlength=len(user_ids) + 1)[1:])
    report = InteractionReport(
        users=len(user_ids),
        items=len(item_ids),
        interactions=len(items),
        repeated=count_repeated(users, items),
        remapped_users=count_remapped(user_ids),
        remapped_items=count_remapped(item_ids),
        unsorted=unsorted,
        skipped=len(skipped),
        listed_skipped=tuple(skipped[:_LISTED_ROWS]),
    )
    return Interactions(offsets, items, IdMap(user_ids, item_ids), report, when)
