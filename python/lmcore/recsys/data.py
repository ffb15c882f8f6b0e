"""Interactions of users with items: files, contiguous ids, and the leave-one-out split."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore._files import write_text
from lmcore._json import read_json

Ids: TypeAlias = NDArray[np.int64] | tuple[str, ...]
"""Original ids: ascending integers, or strings in the order of their first appearance."""

FORMATS = ("auto", "pairs", "sequences", "inter")
SPLITS = ("valid", "test")

_LISTED_ROWS = 1000
_ID_END = 1 << 63
# Of an id map that is a number alone: a few bytes of a file ask for as much memory as it says.
_COUNT_END = 1 << 31
# What a file of integers consists of when nothing is wrong with it.
_PLAIN_BYTES = np.zeros(256, dtype=bool)
_PLAIN_BYTES[list(b"0123456789 \t\n")] = True
_BLANKS = re.compile("[ \t]+")
# Python's `int` and `float` also read `1_0`, digits of other scripts, `nan` and `infinity`.
_TIME = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_NOT_FINITE = ("nan", "inf", "infinity")
_TIME_CHARACTERS = frozenset("0123456789+-.eE")


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
        counts = (_to_count("user_count", user_count), _to_count("item_count", item_count))
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


@dataclass(kw_only=True, slots=True, frozen=True)
class InteractionReport:
    """What was read, and what reading changed or left out."""

    users: int
    """U."""
    items: int
    """I."""
    interactions: int
    """Those kept."""
    repeated: int = 0
    """Interactions with an item that the user had before; they are kept."""
    remapped_users: int = 0
    """Users whose id is not their original one."""
    remapped_items: int = 0
    """Items whose id is not their original one."""
    unsorted: int = 0
    """Rows with an earlier timestamp than the user's row before; they were sorted."""
    skipped: int = 0
    """Rows left out because they could not be used."""
    listed_skipped: tuple[str, ...] = field(default=(), repr=False)
    """Place and problem of the first 1000 of them."""

    def describe(self) -> str:
        """Returns one line of text: the sizes, and whatever is not 0.

        Example:
            >>> InteractionReport(users=2, items=1200, interactions=9, repeated=1).describe()
            '2 users, 1,200 items, 9 interactions (1 repeated)'
        """
        sizes = [f"{getattr(self, name):,} {name}" for name in ("users", "items", "interactions")]
        notes = {
            "repeated": self.repeated,
            "users remapped": self.remapped_users,
            "items remapped": self.remapped_items,
            "out of time order": self.unsorted,
            "rows skipped": self.skipped,
        }
        changes = ", ".join(f"{count:,} {name}" for name, count in notes.items() if count)
        return ", ".join(sizes) + (f" ({changes})" if changes else "")

    def to_dict(self) -> dict[str, Any]:
        """Returns the numbers, and the list of skipped rows if there are any."""
        result = asdict(self)
        if not result["listed_skipped"]:
            del result["listed_skipped"]
        return result


class History(NamedTuple):
    """Sets of items in compressed rows."""

    offsets: NDArray[np.int64]
    """`[M + 1]`: row m holds `columns[offsets[m]:offsets[m + 1]]`."""
    columns: NDArray[np.int64]
    """Items minus 1: columns of `[M, I]` scores. An item had twice stands twice."""


class EvaluationRows(NamedTuple):
    """What a model is asked, and the answers."""

    users: NDArray[np.int64]
    """`[M]`: the users, ascending from 1."""
    sequences: NDArray[np.int64]
    """`[M, max_length]`: their items in time order, left padded with 0."""
    targets: NDArray[np.int64]
    """`[M]`: the items that came next."""


@dataclass(slots=True, frozen=True, eq=False)
class Interactions:
    """Items of each user in time order, in compressed rows.

    User u of 1..U has `items[offsets[u - 1]:offsets[u]]`, ids in 1..I.
    """

    offsets: NDArray[np.int64]
    """`[U + 1]`."""
    items: NDArray[np.int64]
    """`[interactions]`."""
    id_map: IdMap
    """The original ids."""
    report: InteractionReport
    """What was read."""

    @property
    def user_count(self) -> int:
        """U."""
        return len(self.offsets) - 1

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return len(self.id_map.items)

    @property
    def user_ids(self) -> Ids:
        """Original ids of the users: `user_ids[u - 1]` is user u."""
        return self.id_map.users

    @property
    def item_ids(self) -> Ids:
        """Original ids of the items: `item_ids[i - 1]` is item i."""
        return self.id_map.items

    def sequences(
        self, max_length: int, users: NDArray[np.int64] | None = None
    ) -> NDArray[np.int64]:
        """Returns each user's last items, `[n, max_length]` int64, left padded with 0.

        Args:
            max_length: L, at least 1.
            users: `[n]` in 1..U; all users if None.

        Raises:
            IndexError: a user is out of range.
            ValueError: `max_length` below 1.

        Example:
            >>> make_interactions([0, 1, 4], [5, 1, 2, 3]).sequences(2).tolist()
            [[0, 5], [2, 3]]
        """
        rows = self._rows(users)
        return _windows(self.items, self.offsets[rows], self.offsets[rows + 1], max_length)

    def history(self, users: NDArray[np.int64] | None = None) -> History:
        """Returns every item of each user: what a recommendation excludes.

        Args:
            users: `[n]` in 1..U; all users if None.

        Raises:
            IndexError: a user is out of range.

        Example:
            >>> make_interactions([0, 1, 4], [5, 1, 2, 3]).history().columns.tolist()
            [4, 0, 1, 2]
        """
        rows = self._rows(users)
        return _compress(self.items, self.offsets[rows], self.offsets[rows + 1])

    def _rows(self, users: NDArray[np.int64] | None) -> NDArray[np.int64]:
        if users is None:
            return np.arange(self.user_count, dtype=np.int64)
        rows = np.asarray(users, dtype=np.int64) - 1
        bad = np.flatnonzero((rows < 0) | (rows >= self.user_count))
        if bad.size:
            raise IndexError(
                f"users must be in 1..{self.user_count}: got {rows[bad[0]] + 1} at {bad[0]}"
            )
        return rows


@dataclass(slots=True, frozen=True, eq=False)
class Split:
    """Leave-one-out: the last item of a user is for testing, the one before for validation.

    A user with fewer than 3 interactions has all of them in the training part and no target.
    """

    interactions: Interactions
    """All interactions."""
    train_offsets: NDArray[np.int64]
    """`[U + 1]`: user u trains on `train_items[train_offsets[u - 1]:train_offsets[u]]`."""
    train_items: NDArray[np.int64]
    """Training items in time order."""
    valid: NDArray[np.int64]
    """`[U]`: validation targets; 0 for a user without."""
    test: NDArray[np.int64]
    """`[U]`: test targets; 0 for a user without."""

    @property
    def user_count(self) -> int:
        """U."""
        return self.interactions.user_count

    @property
    def item_count(self) -> int:
        """I, the size of the catalogue."""
        return self.interactions.item_count

    @property
    def training_only_count(self) -> int:
        """Users with fewer than 3 interactions."""
        return int(np.count_nonzero(self.test == 0))

    def sequences(self, split: str, max_length: int) -> EvaluationRows:
        """Returns users, inputs and targets of an evaluation.

        The input holds the training items and, for `test`, ends with the validation item.

        Source: UFNRec's and SASRec's published evaluation.

        Args:
            split: `valid` or `test`.
            max_length: L, at least 1: the last L items are taken.

        Raises:
            ValueError: unknown split, or `max_length` below 1.

        Example:
            >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
            >>> users, sequences, targets = split.sequences("test", max_length=4)
            >>> users.tolist(), sequences.tolist(), targets.tolist()
            ([2], [[0, 3, 4, 5]], [6])
        """
        rows, starts, ends = self._inputs(split)
        sequences = _windows(self.interactions.items, starts, ends, max_length)
        return EvaluationRows(rows + 1, sequences, self.interactions.items[ends])

    def history(self, split: str) -> History:
        """Returns what full ranking excludes, row m for row m of `sequences(split)`.

        These are the training items and, for `test`, the validation item.

        Args:
            split: `valid` or `test`.

        Raises:
            ValueError: unknown split.

        Example:
            >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
            >>> split.history("valid").columns.tolist(), split.history("test").columns.tolist()
            ([2, 3], [2, 3, 4])
        """
        _, starts, ends = self._inputs(split)
        return _compress(self.interactions.items, starts, ends)

    def _inputs(self, split: str) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Rows with targets, and where their inputs start and end in `interactions.items`."""
        if split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}: got {split!r}")
        rows = np.flatnonzero(self.test).astype(np.int64, copy=False)
        offsets = self.interactions.offsets
        return rows, offsets[rows], offsets[rows + 1] - (1 if split == "test" else 2)


def leave_one_out(interactions: Interactions) -> Split:
    """Returns the split that keeps each user's last item for testing and the one before it.

    Source: UFNRec (arXiv 2208.04116), the authors' `data_partition`.

    Args:
        interactions: of users with any number of items; those with fewer than 3 are for
            training only and counted in `training_only_count`.

    Example:
        >>> split = leave_one_out(make_interactions([0, 2, 6], [1, 2, 3, 4, 5, 6]))
        >>> split.train_items.tolist(), split.valid.tolist(), split.test.tolist()
        ([1, 2, 3, 4], [0, 5], [0, 6])
        >>> split.training_only_count
        1
    """
    offsets, items = interactions.offsets, interactions.items
    lengths = np.diff(offsets)
    held = lengths >= 3
    ends = offsets[1:][held]
    valid, test = np.zeros((2, len(lengths)), dtype=np.int64)
    valid[held] = items[ends - 2]
    test[held] = items[ends - 1]
    train = np.ones(len(items), dtype=bool)
    train[ends - 2] = False
    train[ends - 1] = False
    train_offsets = _to_offsets(lengths - 2 * held)
    return Split(interactions, train_offsets, items[train], valid, test)


def make_interactions(
    offsets: ArrayLike, items: ArrayLike, item_count: int | None = None
) -> Interactions:
    """Returns interactions that are in memory already, with ids that stay as they are.

    Args:
        offsets: `[U + 1]` integers, from 0, ascending: user u has
            `items[offsets[u - 1]:offsets[u]]` in time order.
        items: `[interactions]` integers in 1..I.
        item_count: I; the largest item if None.

    Raises:
        IndexError: an item is not in 1..I.
        TypeError: an array is not of integers, or `item_count` is no integer.
        ValueError: an array is not one-dimensional, or the offsets do not fit the items.

    Example:
        >>> interactions = make_interactions([0, 2, 3], [4, 1, 4])
        >>> interactions.user_count, interactions.item_count
        (2, 4)
    """
    rows = _to_integers("offsets", offsets)
    values = _to_integers("items", items)
    if not len(rows) or rows[0] != 0 or rows[-1] != len(values):
        ends = f"{rows[0]} to {rows[-1]}" if len(rows) else "none"
        raise ValueError(f"offsets must go from 0 to the {len(values)} items: got {ends}")
    lengths = np.diff(rows)
    if len(lengths) and lengths.min() < 0:
        raise ValueError(f"offsets must ascend: they fall after row {lengths.argmin()}")
    largest = int(values.max(initial=0))
    count = largest if item_count is None else _to_count("item_count", item_count)
    if len(values) and (values.min() < 1 or largest > count):
        place = int(np.flatnonzero((values < 1) | (values > count))[0])
        raise IndexError(f"items must be in 1..{count}: got {values[place]} at {place}")
    users = np.repeat(np.arange(1, len(rows), dtype=np.int64), lengths)
    report = InteractionReport(
        users=len(lengths),
        items=count,
        interactions=len(values),
        repeated=_count_repeated(users, values),
    )
    return Interactions(rows, values, IdMap.identity(len(lengths), count), report)


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
    known = None if id_map is None else _Known(id_map.items)
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


class _Known:
    """Original ids of items that a row may hold."""

    def __init__(self, ids: Ids) -> None:
        self.ids: Collection[str] | NDArray[np.int64] = (
            frozenset(ids) if isinstance(ids, tuple) else ids
        )

    def holds_all(self, items: Sequence[str] | NDArray[np.int64]) -> bool:
        """Whether all items are known; False also where ids of two kinds meet."""
        if isinstance(items, np.ndarray):
            return isinstance(self.ids, np.ndarray) and bool(np.isin(items, self.ids).all())
        return all(item in self for item in set(items))

    def __contains__(self, item: str) -> bool:
        if not isinstance(self.ids, np.ndarray):
            return item in self.ids
        if not _is_integer(item):
            return False
        place = int(np.searchsorted(self.ids, int(item)))
        return place < len(self.ids) and int(self.ids[place]) == int(item)


class _IntegerReader:
    """`pairs` and `sequences`."""

    def __init__(self, path: str, data: bytes, kind: str) -> None:
        self.path, self.data, self.is_pairs = path, data, kind == "pairs"

    def read_fast(self, known: _Known | None) -> _Rows | None:
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

    def read_carefully(self, known: _Known | None, skipped: list[str] | None) -> _Rows:
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
        self, text: str, fields: list[str], lines: dict[int, int], known: _Known | None
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

    def read_fast(self, known: _Known | None) -> _Rows | None:
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

    def read_carefully(self, known: _Known | None, skipped: list[str] | None) -> _Rows:
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

    def _problem(self, text: str, fields: list[str], known: _Known | None) -> str | None:
        if "\r" in text:
            return "a carriage return within the line"
        if len(fields) != self.width:
            return f"expected {self.width} fields, as in the header: got {len(fields)}"
        for name, place in (("user_id", self.user), ("item_id", self.item)):
            if not fields[place]:
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
    if len(digits.lstrip("0")) > 19 or int(value) >= _ID_END:
        return f"{name} must be below 2**63: got {_shorten(value)}"
    if int(value) < 1:
        return f"{name} must be at least 1: got {_shorten(value)}"
    return None


def _shorten(value: str) -> str:
    return value if len(value) <= 40 else value[:40] + "..."


def _is_integer(value: str) -> bool:
    """Whether an id is an integer as it would be printed, from 0 and below 2**63."""
    plain = value.isascii() and value.isdigit() and (value == "0" or value[0] != "0")
    return plain and len(value) <= 19 and int(value) < _ID_END


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
    vanished = any(_count_digits(values[place]) for place in np.flatnonzero(times == 0))
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
    users, user_ids = _number(rows.users)
    if id_map is None:
        items, item_ids = _number(rows.items)
    else:
        items, item_ids = _number_as(rows.items, id_map.items), id_map.items
    unsorted = 0
    if (np.diff(users) < 0).any() or rows.times is not None:
        order = np.argsort(users, kind="stable")
        if rows.times is not None:
            times = rows.times[order]
            same_user = np.diff(users[order]) == 0
            unsorted = int(np.count_nonzero(same_user & (times[1:] < times[:-1])))
            if unsorted:
                order = np.lexsort((rows.times, users))
        users, items = users[order], items[order]
    offsets = _to_offsets(np.bincount(users, minlength=len(user_ids) + 1)[1:])
    report = InteractionReport(
        users=len(user_ids),
        items=len(item_ids),
        interactions=len(items),
        repeated=_count_repeated(users, items),
        remapped_users=_count_remapped(user_ids),
        remapped_items=_count_remapped(item_ids),
        unsorted=unsorted,
        skipped=len(skipped),
        listed_skipped=tuple(skipped[:_LISTED_ROWS]),
    )
    return Interactions(offsets, items, IdMap(user_ids, item_ids), report)


def _number(values: Sequence[str] | NDArray[np.int64]) -> tuple[NDArray[np.int64], Ids]:
    """Numbers from 1 for ids, and the ids by number."""
    if not isinstance(values, np.ndarray):
        names = list(dict.fromkeys(values))
        if not all(map(_is_integer, names)):
            numbers = {name: number for number, name in enumerate(names, 1)}
            return np.array([numbers[value] for value in values], dtype=np.int64), tuple(names)
        values = np.array([int(value) for value in values], dtype=np.int64)
    largest = int(values.max())
    if largest > 8 * len(values):
        ids, places = np.unique(values, return_inverse=True)
        return places.astype(np.int64) + 1, ids
    # A table over the ids is quicker than sorting them.
    present = np.zeros(largest + 1, dtype=bool)
    present[values] = True
    return np.cumsum(present)[values], np.flatnonzero(present).astype(np.int64, copy=False)


def _number_as(values: Sequence[str] | NDArray[np.int64], ids: Ids) -> NDArray[np.int64]:
    """Numbers from 1 of values that are all among `ids`."""
    if isinstance(ids, np.ndarray):
        if not isinstance(values, np.ndarray):
            values = np.array([int(value) for value in values], dtype=np.int64)
        return np.searchsorted(ids, values).astype(np.int64) + 1
    numbers = {name: number for number, name in enumerate(ids, 1)}
    return np.array([numbers[str(value)] for value in values], dtype=np.int64)


def _find(ids: Ids, values: Iterable[int | str], kind: str) -> NDArray[np.int64]:
    names = [str(value) for value in values]
    known = _Known(ids)
    for name in names:
        if name not in known:
            raise ValueError(f"{kind} {name!r} is not in the id map")
    return _number_as(names, ids)


def _to_json(ids: Ids) -> int | list[Any]:
    if isinstance(ids, np.ndarray):
        return ids.tolist() if _count_remapped(ids) else len(ids)
    return list(ids)


def _from_json(value: Any, key: str, path: str) -> Ids:
    if type(value) is int and 0 <= value < _COUNT_END:
        return np.arange(1, value + 1, dtype=np.int64)
    if isinstance(value, list):
        if all(type(entry) is int and 0 <= entry < _ID_END for entry in value):
            ids = np.array(value, dtype=np.int64)
            if (np.diff(ids) > 0).all():
                return ids
        elif all(isinstance(entry, str) for entry in value) and len(set(value)) == len(value):
            return tuple(value)
    raise ValueError(
        f"{path}: {key} must be a number below 2**31, ascending integers, or strings that are "
        "all different"
    )


def _count_remapped(ids: Ids) -> int:
    if not isinstance(ids, np.ndarray):
        return len(ids)
    return int(np.count_nonzero(ids != np.arange(1, len(ids) + 1)))


def _count_repeated(users: NDArray[np.int64], items: NDArray[np.int64]) -> int:
    """Interactions less distinct ones; both ids are contiguous, so that the keys fit."""
    if not len(items):
        return 0
    keys = np.sort(users * (int(items.max()) + 1) + items)
    return int(np.count_nonzero(keys[1:] == keys[:-1]))


def _to_offsets(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def _to_count(name: str, value: Any) -> int:
    """A number of items or users; a fraction would be rounded by whoever counts."""
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise TypeError(f"{name} must be an integer: got {value!r}")
    if not 0 <= value < _ID_END:
        raise ValueError(f"{name} must be at least 0 and below 2**63: got {value}")
    return int(value)


def _to_integers(name: str, values: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1:
        raise ValueError(f"{name} must have one dimension: got {array.ndim}")
    if array.size and array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be integers: got {array.dtype}")
    return array.astype(np.int64)


def _windows(
    items: NDArray[np.int64],
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    max_length: int,
) -> NDArray[np.int64]:
    """The last `max_length` items of each stretch, right aligned."""
    if max_length < 1:
        raise ValueError(f"max_length must be at least 1: got {max_length}")
    places = ends[:, None] + np.arange(-max_length, 0)
    inside = places >= starts[:, None]
    windows = np.zeros(places.shape, dtype=np.int64)
    windows[inside] = items[places[inside]]
    return windows


def _compress(
    items: NDArray[np.int64], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> History:
    """The stretches one after the other, as columns."""
    offsets = _to_offsets(ends - starts)
    places = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], np.diff(offsets))
    return History(offsets, items[places] - 1)
