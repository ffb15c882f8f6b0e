"""Files of rows with columns: `csv`, `tsv`, RecBole's `inter`, and MovieLens'."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lmcore.ops.interactions import read_columns
from lmcore.recsys.columns import Places, find_columns, find_repeated
from lmcore.recsys.ids import KnownIds
from lmcore.recsys.rows import Rows, decoded_lines, reject
from lmcore.recsys.times import Times, shorten, time_kind, time_problem, to_times

__all__: list[str] = []

_KINDS = ("token", "token_seq", "float", "float_seq")
_INTER_NAMES = {"user": "user_id", "item": "item_id", "time": "timestamp"}
_MOVIELENS = ("user", "item", "rating", "timestamp")
# Lines of one row; without an end, a quote that is not closed would take the file.
_MOST_LINES = 1000


@dataclass(kw_only=True, slots=True, frozen=True)
class Layout:
    """How a file is cut into rows and fields, and which of these are read."""

    separator: str
    names: tuple[str, ...]
    """Of all columns."""
    places: Places
    start: int = 0
    """Byte of the first row."""
    first_line: int = 1
    """Its line."""
    quoted: bool = False
    """Whether a field may stand in `"`, with line feeds and doubled `"` in it."""
    takes_dates: bool = True
    """Whether times may be dates."""


def inter_layout(path: str, data: bytes, **columns: str | None) -> Layout:
    """Returns the layout of RecBole's atomic files, by their header.

    Args:
        path: of the file, for errors.
        data: the file.
        columns: names of `user`, `item` and `time`; None: RecBole's.

    Raises:
        ValueError: the header is none, or as for `find_columns`; the text names the file.
    """
    head = _take_head(path, data)
    names: list[str] = []
    kinds: list[str] = []
    for column in head.split("\t"):
        name, colon, kind = column.rpartition(":")
        if not colon or kind not in _KINDS or len(name.split()) != 1:
            raise ValueError(
                f"{path}:1: a header is `name:type` fields separated by tabs, the type one of "
                f"{', '.join(_KINDS)}: got {shorten(column)!r}"
            )
        names.append(name)
        kinds.append(kind)
    twice = find_repeated(names)
    if twice is not None:
        raise ValueError(f"{path}:1: column {shorten(twice)} stands twice in the header")
    chosen = {role: columns.get(role) or usual for role, usual in _INTER_NAMES.items()}
    if columns.get("time") is None and chosen["time"] not in names:
        chosen["time"] = ""
    for name, kind in zip(names, kinds, strict=True):
        for role, expected in (("user", "token"), ("item", "token"), ("time", "float")):
            if name == chosen[role] and kind != expected:
                raise ValueError(
                    f"{path}:1: {shorten(name)} must be of type {expected}: got {kind}"
                )
    given = {role: name or None for role, name in chosen.items()}
    return Layout(
        separator="\t",
        names=tuple(names),
        places=find_columns(f"{path}:1", names, **given),
        start=_body_start(data),
        first_line=2,
        takes_dates=False,
    )


def header_layout(path: str, data: bytes, separator: str, **columns: str | None) -> Layout:
    """Returns the layout of a CSV or TSV file, by its header.

    Args:
        path: of the file, for errors.
        data: the file.
        separator: between two fields; `;` in place of a comma that the header has not.
        columns: names of `user`, `item` and `time`; None: usual ones.

    Raises:
        ValueError: the header ends within quotes, or as for `find_columns`.
    """
    head = _take_head(path, data)
    if separator == "," and separator not in head and ";" in head:
        separator = ";"  # what spreadsheets write where the comma is for decimals
    try:
        names = cut_quoted(head, separator)
    except ValueError as error:
        raise ValueError(f"{path}:1: {error}") from None
    if names is None:
        raise ValueError(f"{path}:1: the header ends within quotes")
    return Layout(
        separator=separator,
        names=tuple(names),
        places=find_columns(f"{path}:1", names, **columns),
        start=_body_start(data),
        first_line=2,
        quoted=True,
    )


def movielens_layout(path: str, data: bytes, **columns: str | None) -> Layout:
    """Returns the layout of MovieLens' `u.data` and of its files with `::`.

    Args:
        path: of the file, for errors.
        data: the file.
        columns: names of `user`, `item` and `time` among user, item, rating and timestamp.

    Raises:
        ValueError: as for `find_columns`.
    """
    head = _take_head(path, data)
    separator = "::" if "::" in head else "\t"
    return Layout(
        separator=separator,
        names=_MOVIELENS,
        places=find_columns(path, _MOVIELENS, **columns),
    )


class TableReader:
    """The rows of a file by its layout."""

    def __init__(self, path: str, data: bytes, layout: Layout) -> None:
        self.path, self.data, self.layout = path, data, layout

    def read_fast(self, known: KnownIds | None) -> Rows | None:
        """All rows at once; None if anything at all is unusual."""
        layout = self.layout
        user, item, time = layout.places
        width = len(layout.names)
        form: dict[str, Any] = {"quoted": layout.quoted, "start": layout.start}
        ids = [user, item]
        found = read_columns(self.data, layout.separator, width, ids, time, **form)
        times: Times | None = None
        if found is not None and time is not None:
            times = Times(found.numbers, None, "int64")
        elif time is not None:
            # No whole numbers: distinct times are fewer than rows, or else as many.
            found = read_columns(self.data, layout.separator, width, [*ids, time], **form)
            if found is None or not found.labels[2].names:
                return None
            try:
                texts = to_times(found.labels[2].names, takes_dates=layout.takes_dates)
            except (ArithmeticError, ValueError):
                return None
            times = texts.take(found.labels[2].codes)
        if found is None or (known is not None and not known.holds_all(found.labels[1])):
            return None
        return Rows(found.labels[0], found.labels[1], times)

    def read_carefully(self, known: KnownIds | None, skipped: list[str] | None) -> Rows:
        """Row by row; a bad one is listed in `skipped` or raises where that is None."""
        user, item, time = self.layout.places
        users, items, times = [], [], []
        kind: str | None = None
        for line, fields, fault in self._records(skipped):
            problem = fault or self._problem(fields, known, kind)
            if problem is not None:
                reject(f"{self.path}:{line}: {problem}", skipped)
                continue
            users.append(fields[user])
            items.append(fields[item])
            if time is not None:
                kind = kind or time_kind(fields[time])
                times.append(fields[time])
        if time is None or not times:
            return Rows(users, items, None)
        return Rows(users, items, to_times(times, takes_dates=self.layout.takes_dates))

    def _records(self, skipped: list[str] | None) -> Iterator[tuple[int, list[str], str | None]]:
        """Line, fields, and what is wrong with them before these are looked at."""
        layout = self.layout
        body = self.data[layout.start :]
        lines = decoded_lines(self.path, body, skipped, layout.first_line)
        for line, text in lines:
            if not text:
                continue
            if not (layout.quoted and '"' in text):
                fault = "a carriage return within the line" if "\r" in text else None
                yield line, text.split(layout.separator), fault
                continue
            try:
                fields, text = _take_record(text, layout.separator, lines)
            except ValueError as error:
                yield line, [], str(error)
                continue
            yield line, fields, "a carriage return within the line" if "\r" in text else None

    def _problem(self, fields: list[str], known: KnownIds | None, kind: str | None) -> str | None:
        layout = self.layout
        if len(fields) != len(layout.names):
            place = "as in the header" if layout.first_line > 1 else " ".join(layout.names)
            return f"expected {len(layout.names)} fields, {place}: got {len(fields)}"
        user, item, time = layout.places
        for column in (user, item):
            if not fields[column]:
                return f"{layout.names[column]} is empty"
        if known is not None and fields[item] not in known:
            name = layout.names[item]
            return f"{name} is not in the id map: got {shorten(fields[item])!r}"
        if time is None:
            return None
        problem = time_problem(fields[time], kind, takes_dates=layout.takes_dates)
        return None if problem is None else f"{layout.names[time]} {problem}"


def cut_quoted(text: str, separator: str) -> list[str] | None:
    """Returns the fields of a row of which some stand in `"`; None where a quote is not closed.

    Raises:
        ValueError: there is text behind a closing quote.

    Example:
        >>> cut_quoted('ann,"a ""red"" lamp, old",3', ",")
        ['ann', 'a "red" lamp, old', '3']
    """
    fields, at = [], 0
    while True:
        if text.startswith('"', at):
            end = text.find('"', at + 1)
            while end >= 0 and text.startswith('"', end + 1):
                end = text.find('"', end + 2)
            if end < 0:
                return None
            fields.append(text[at + 1 : end].replace('""', '"'))
            at = end + 1
        else:
            end = text.find(separator, at)
            end = len(text) if end < 0 else end
            fields.append(text[at:end])
            at = end
        if at == len(text):
            return fields
        if not text.startswith(separator, at):
            raise ValueError(f"text behind a closing quote: got {shorten(text[at:])!r}")
        at += len(separator)


def _take_record(
    text: str, separator: str, lines: Iterator[tuple[int, str]]
) -> tuple[list[str], str]:
    """The fields of a row that starts with this line and takes more where quotes are open."""
    for _ in range(_MOST_LINES):
        fields = cut_quoted(text, separator)
        if fields is not None:
            return fields, text
        more = next(lines, None)
        if more is None:
            raise ValueError("a quote is not closed")
        text = f"{text}\n{more[1]}"
    raise ValueError(f"a quote is not closed within {_MOST_LINES} lines")


def _take_head(path: str, data: bytes) -> str:
    """The first line."""
    if not data or data.isspace():
        raise ValueError(f"{path}: there are no interactions")
    try:
        return data[: _body_start(data)].removesuffix(b"\n").decode()
    except UnicodeDecodeError:
        raise ValueError(f"{path}:1: not UTF-8") from None


def _body_start(data: bytes) -> int:
    end = data.find(b"\n")
    return len(data) if end < 0 else end + 1
