"""Interactions: the columns of a text as numbers of their distinct values, and rows by user."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

from lmcore.reference._arguments import id_in_range, in_range, same_length

_QUOTED = re.compile('"([^"\n]*)"')
_NUMBER = re.compile("-?[0-9]{1,18}")

Column = tuple[list[int], list[str]]


def read_columns(
    text: bytes,
    separator: str,
    width: int,
    labels: Sequence[int],
    number: int | None = None,
    *,
    quoted: bool = False,
    start: int = 0,
) -> tuple[list[Column], list[int]] | None:
    r"""Returns the columns of a text, or None where a line of it is unusual.

    Args:
        text: lines of fields, UTF-8; the last line may end without a line feed.
        separator: between two fields.
        width: fields of each line.
        labels: columns that are read as labels: their distinct values, in the order of first
            appearance, are numbered from 0.
        number: the column that is read as whole numbers, if any.
        quoted: whether a field may stand in `"`.
        start: the byte that the lines start at.

    Returns:
        For each column of labels the numbers of its rows and its distinct values, and the whole
        numbers. None where a line has another number of fields, a label is empty, a whole number
        is none or has more than 18 digits, there is a carriage return, a `"` that is not around
        a field where fields may be quoted, or the text is not UTF-8.

    Raises:
        ValueError: no separator, or a number outside its range.

    Example:
        >>> read_columns(b"ann,lamp,3\nbob,lamp,5\n", ",", 3, [0, 1], 2)
        ([([0, 1], ['ann', 'bob']), ([0, 0], ['lamp'])], [3, 5])
    """
    in_range("separator", len(separator.encode()), 1)
    in_range("width", width, 1)
    for index, column in enumerate(labels):
        in_range(f"labels[{index}]", column, 0, width)
    if number is not None:
        in_range("number", number, 0, width)
    in_range("start", start, 0)
    try:
        lines = text[start:].decode().split("\n")
    except UnicodeDecodeError:
        return None
    if lines[-1] == "":
        del lines[-1]
    names: list[dict[str, int]] = [{} for _ in labels]
    codes: list[list[int]] = [[] for _ in labels]
    numbers = []
    for line in lines:
        fields = _cut(line, separator, quoted)
        if "\r" in line or fields is None or len(fields) != width:
            return None
        for index, column in enumerate(labels):
            if not fields[column]:
                return None
            known = names[index]
            codes[index].append(known.setdefault(fields[column], len(known)))
        if number is not None:
            if not _NUMBER.fullmatch(fields[number]):
                return None
            numbers.append(int(fields[number]))
    return [(own, list(known)) for own, known in zip(codes, names, strict=True)], numbers


def group_by_user(
    users: Sequence[int],
    items: Sequence[int],
    times: Sequence[int] | None,
    user_count: int,
    item_count: int,
) -> tuple[list[int], list[int], list[int] | None, int, int]:
    """Returns the items of each user in the order of time.

    Args:
        users: of each row the user, from 1 to `user_count`.
        items: of each row the item, from 1 to `item_count`.
        times: of each row the time; equal ones, or none at all, keep the order of the rows.
        user_count: U.
        item_count: I.

    Returns:
        Offsets, items, times, unsorted, repeated: user u has `items[offsets[u - 1]:offsets[u]]` at
        these times; how many rows have an earlier time than the user's row before; and how many an
        item that the user has in another row.

    Raises:
        IndexError: a user or an item is out of its range.
        ValueError: the sequences are of different lengths, or a count is below 0.

    Example:
        >>> group_by_user([2, 1, 2], [5, 4, 6], [30, 10, 20], 2, 6)
        ([0, 1, 3], [4, 6, 5], [10, 20, 30], 1, 0)
    """
    in_range("user_count", user_count, 0)
    in_range("item_count", item_count, 0)
    for name, ids, count in (("users", users, user_count), ("items", items, item_count)):
        for index, value in enumerate(ids):
            id_in_range(name, index, value, 1, most=count)
    same_length(users=users, items=items)
    if times is not None:
        same_length(users=users, times=times)
    rows: list[list[tuple[int, int]]] = [[] for _ in range(user_count)]
    for index, (user, item) in enumerate(zip(users, items, strict=True)):
        rows[user - 1].append((0 if times is None else times[index], item))
    offsets, grouped, moments, unsorted, repeated = [0], [], [], 0, 0
    for own in rows:
        unsorted += sum(after[0] < before[0] for before, after in pairwise(own))
        own.sort(key=lambda row: row[0])
        grouped += [item for _, item in own]
        moments += [time for time, _ in own]
        repeated += len(own) - len({item for _, item in own})
        offsets.append(len(grouped))
    return offsets, grouped, None if times is None else moments, unsorted, repeated


def _cut(line: str, separator: str, quoted: bool) -> list[str] | None:
    """The fields of a line; None where a quote stands where none may."""
    if not quoted or '"' not in line:
        return line.split(separator)
    fields, at = [], 0
    while True:
        field = _QUOTED.match(line, at)
        if field:
            fields.append(field[1])
            at = field.end()
        else:
            end = line.find(separator, at)
            fields.append(line[at:] if end < 0 else line[at:end])
            at += len(fields[-1])
            if '"' in fields[-1]:
                return None
        if at == len(line):
            return fields
        if not line.startswith(separator, at):
            return None
        at += len(separator)
