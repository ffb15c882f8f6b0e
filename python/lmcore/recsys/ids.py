"""Original ids of users and items, and the contiguous ones that models take."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.ops.interactions import Column

__all__ = ["IdMap", "Ids"]

Ids: TypeAlias = NDArray[np.int64] | tuple[str, ...]
"""Original ids: ascending integers, or strings in the order of their first appearance."""

ID_END = 1 << 63
# Of an id map that is a number alone: a few bytes of a file ask for as much memory as it says.
_COUNT_END = 1 << 31
_REPLACED_AT_ONCE = 1 << 14


@dataclass(slots=True, frozen=True, eq=False)
class IdMap:
    """Original ids of users 1..U and of items 1..I."""

    users: Ids
    """U ids: `users[u - 1]` is user u."""
    items: Ids
    """I ids: `items[i - 1]` is item i."""

    @staticmethod
    def identity(user_count: int, item_count: int) -> IdMap:
        """Returns the map of ids that are 1..U and 1..I already.

        Args:
            user_count: U.
            item_count: I.

        Raises:
            TypeError: a count is no integer.
            ValueError: a count is below 0.

        Example:
            >>> IdMap.identity(2, 3).items.tolist()
            [1, 2, 3]
        """
        counts = (to_count("user_count", user_count), to_count("item_count", item_count))
        return IdMap(*(np.arange(1, count + 1, dtype=np.int64) for count in counts))

    def find_users(self, ids: Iterable[int | str]) -> NDArray[np.int64]:
        """Returns the users that have these original ids, `[n]` int64.

        Args:
            ids: n original ids; an integer may be given as text.

        Raises:
            ValueError: an id is not in the map.

        Example:
            >>> IdMap(("ann", "bob"), ("x",)).find_users(["bob"]).tolist()
            [2]
        """
        return _find(self.users, ids, "user")

    def find_items(self, ids: Iterable[int | str]) -> NDArray[np.int64]:
        """Returns the items that have these original ids, `[n]` int64.

        Args:
            ids: n original ids; an integer may be given as text.

        Raises:
            ValueError: an id is not in the map.

        Example:
            >>> IdMap(("ann",), np.array([3, 7])).find_items([7, "3"]).tolist()
            [2, 1]
        """
        return _find(self.items, ids, "item")

    def save(self, path: str | os.PathLike[str]) -> None:
        r"""Writes the map as JSON; ids that are 1..n are written as the number n.

        Args:
            path: the file, `id_map.json` by custom.

        Raises:
            OSError: the file cannot be written.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     IdMap(("ann", "bob"), np.array([1, 2, 3])).save(Path(folder, "id_map.json"))
            ...     Path(folder, "id_map.json").read_text()
            '{"users": ["ann", "bob"], "items": 3}\n'
        """
        content = {"users": _to_json(self.users), "items": _to_json(self.items)}
        write_text(path, json.dumps(content, ensure_ascii=False) + "\n")

    @staticmethod
    def load(path: str | os.PathLike[str]) -> IdMap:
        """Returns the map that `save` wrote.

        Args:
            path: the file.

        Raises:
            OSError: the file cannot be read.
            ValueError: it does not hold an id map.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     IdMap.identity(2, 3).save(Path(folder, "id_map.json"))
            ...     IdMap.load(Path(folder, "id_map.json")).users.tolist()
            [1, 2]
        """
        name = os.fspath(path)
        content = read_json(path, "an id map")
        if not isinstance(content, dict):
            raise ValueError(f"{name}: an id map is an object: got {type(content).__name__}")
        return IdMap(*(_from_json(content.get(key), key, name) for key in ("users", "items")))


class KnownIds:
    """Original ids of items that a row may hold."""

    def __init__(self, ids: Ids) -> None:
        self.ids: Collection[str] | NDArray[np.int64] = (
            frozenset(ids) if isinstance(ids, tuple) else ids
        )

    def holds_all(self, items: Sequence[str] | NDArray[np.int64] | Column) -> bool:
        """Whether all items are known; False also where ids of two kinds meet."""
        if isinstance(items, np.ndarray):
            return isinstance(self.ids, np.ndarray) and bool(np.isin(items, self.ids).all())
        names = items.names if isinstance(items, Column) else set(items)
        return all(item in self for item in names)

    def holds(self, items: NDArray[np.int64] | Column) -> NDArray[np.bool_]:
        """Which items are known, row by row; integers also by their texts."""
        if isinstance(items, Column):
            known = np.array([name in self for name in items.names], dtype=bool)
            return known[items.codes]
        ids, codes = np.unique(items, return_inverse=True)
        return np.array([str(item) in self for item in ids.tolist()], dtype=bool)[codes]

    def __contains__(self, item: str) -> bool:
        if not isinstance(self.ids, np.ndarray):
            return item in self.ids
        if not is_integer(item):
            return False
        index = int(np.searchsorted(self.ids, int(item)))
        return index < len(self.ids) and int(self.ids[index]) == int(item)


def is_integer(value: str) -> bool:
    """Whether an id is an integer as it would be printed, from 0 and below 2**63."""
    plain = value.isascii() and value.isdigit() and (value == "0" or value[0] != "0")
    return plain and len(value) <= 19 and int(value) < ID_END


def to_column(values: Sequence[str] | NDArray[np.int64] | Column) -> NDArray[np.int64] | Column:
    """Ids as numbers of their distinct values, where they are texts."""
    if isinstance(values, np.ndarray | Column):
        return values
    numbers: dict[str, int] = {}
    codes = [numbers.setdefault(value, len(numbers)) for value in values]
    return Column(np.array(codes, dtype=np.int32), list(numbers))


def number_ids(
    values: Sequence[str] | NDArray[np.int64] | Column,
) -> tuple[NDArray[Any], Ids]:
    """Numbers from 1 for ids, and the ids by number; they take the place of a column's codes."""
    values = to_column(values)
    if isinstance(values, Column):
        codes, names = values
        if not all(map(is_integer, names)):
            return _replace(codes, np.arange(1, len(names) + 1)), tuple(names)
        numbers = np.array([int(name) for name in names], dtype=np.int64)
        table = np.empty(len(names), dtype=np.int32)
        order = np.argsort(numbers)
        table[order] = np.arange(1, len(names) + 1, dtype=np.int32)
        return _replace(codes, table), numbers[order]
    largest = int(values.max())
    if largest > 8 * len(values):
        ids, indices = np.unique(values, return_inverse=True)
        return indices.astype(np.int64) + 1, ids
    # A table over the ids is quicker than sorting them.
    present = np.zeros(largest + 1, dtype=bool)
    present[values] = True
    return np.cumsum(present)[values], np.flatnonzero(present).astype(np.int64, copy=False)


def number_as(values: Sequence[str] | NDArray[np.int64] | Column, ids: Ids) -> NDArray[Any]:
    """Numbers from 1 of values that are all among `ids`."""
    values = to_column(values)
    if isinstance(values, Column):
        codes, names = values
        if isinstance(ids, np.ndarray):
            places = np.searchsorted(ids, np.array([int(name) for name in names], dtype=np.int64))
        else:
            numbers = {name: number for number, name in enumerate(ids)}
            places = np.array([numbers[name] for name in names], dtype=np.int64)
        return _replace(codes, places + 1)
    if isinstance(ids, np.ndarray):
        return np.searchsorted(ids, values).astype(np.int64) + 1
    numbers = {name: number for number, name in enumerate(ids, 1)}
    return np.array([numbers[str(value)] for value in values], dtype=np.int64)


def _replace(codes: NDArray[np.int32], table: NDArray[Any]) -> NDArray[np.int32]:
    """Numbers in place of codes, which as many rows need no second time in memory."""
    table = table.astype(np.int32)
    # numpy widens the indices, so that it is given few at a time.
    for start in range(0, len(codes), _REPLACED_AT_ONCE):
        part = codes[start : start + _REPLACED_AT_ONCE]
        np.take(table, part, out=part, mode="clip")
    return codes


def count_remapped(ids: Ids) -> int:
    """How many of n ids are not 1..n."""
    if not isinstance(ids, np.ndarray):
        return len(ids)
    return int(np.count_nonzero(ids != np.arange(1, len(ids) + 1)))


def to_count(name: str, value: Any) -> int:
    """A number of items or users; a fraction would be rounded by whoever counts."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer: got {value!r}")
    if not 0 <= value < ID_END:
        raise ValueError(f"{name} must be at least 0 and below 2**63: got {value}")
    return int(value)


def _find(ids: Ids, values: Iterable[int | str], kind: str) -> NDArray[np.int64]:
    names = [str(value) for value in values]
    known = KnownIds(ids)
    for name in names:
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not in the id map")
    return number_as(names, ids)


def _to_json(ids: Ids) -> int | list[Any]:
    if isinstance(ids, np.ndarray):
        return ids.tolist() if count_remapped(ids) else len(ids)
    return list(ids)


def _from_json(value: Any, key: str, path: str) -> Ids:
    if type(value) is int and 0 <= value < _COUNT_END:
        return np.arange(1, value + 1, dtype=np.int64)
    if isinstance(value, list):
        if all(type(entry) is int and 0 <= entry < ID_END for entry in value):
            ids = np.array(value, dtype=np.int64)
            if (np.diff(ids) > 0).all():
                return ids
        elif all(isinstance(entry, str) for entry in value) and len(set(value)) == len(value):
            return tuple(value)
    raise ValueError(
        f"{path}: {key} must be a number below 2**31, ascending integers, or strings that are "
        "all different"
    )
