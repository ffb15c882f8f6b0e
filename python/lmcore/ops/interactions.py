"""Interactions: the columns of a text as numbers of their distinct values, and rows by user.

What a reader of files needs where nothing is unusual. The definition is
`lmcore.reference.interactions`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers, check_int, no_such_id

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Column", "Columns", "GroupedItems", "group_by_user", "read_columns"]


class Column(NamedTuple):
    """A column of labels."""

    codes: NDArray[np.int32]
    """`[R]` int32: of each row the number of its value, from 0."""
    names: list[str]
    """The distinct values in the order of first appearance."""


class Columns(NamedTuple):
    """The columns of a text."""

    labels: list[Column]
    """Those of labels, as they were asked for."""
    numbers: NDArray[np.int64]
    """`[R]` int64: whole numbers; empty where no column of them was asked for."""


class GroupedItems(NamedTuple):
    """The items of each user in the order of time."""

    offsets: NDArray[np.int64]
    """`[U + 1]` int64: user u of 1..U has `items[offsets[u - 1]:offsets[u]]`."""
    items: NDArray[np.int64]
    """`[R]` int64."""
    times: NDArray[np.int64] | None
    """`[R]` int64, ascending for each user; None where there are none."""
    unsorted: int
    """Rows with an earlier time than the user's row before."""
    repeated: int
    """Rows with an item that the user has in another row before."""


def read_columns(
    text: bytes,
    separator: str,
    width: int,
    labels: Sequence[int],
    number: int | None = None,
    *,
    quoted: bool = False,
    start: int = 0,
    threads: int | None = None,
) -> Columns | None:
    r"""Returns the columns of a text, or None where a line of it is unusual.

    It is for the many lines of a file in which nothing is wrong; who gets None reads the file in
    a way that can say what is.

    Args:
        text: lines of fields, UTF-8; the last line may end without a line feed.
        separator: between two fields.
        width: fields of each line.
        labels: columns that are read as labels: their distinct values are numbered from 0.
        number: the column that is read as whole numbers, if any.
        quoted: whether a field may stand in `"`.
        start: the byte that the lines start at.
        threads: number of threads; all cores if None. The result does not depend on it.

    Returns:
        The columns. None where a line has another number of fields, a label is empty, a whole
        number is none or has more than 18 digits, there is a carriage return, a `"` that is not
        around a field where fields may be quoted, or the text is not UTF-8.

    Raises:
        MemoryError: the memory is refused.
        TypeError: an argument of another type.
        ValueError: no separator, or a number outside its range.

    Example:
        >>> found = read_columns(b"ann,lamp,3\nbob,lamp,5\n", ",", 3, [0, 1], 2)
        >>> [(column.codes.tolist(), column.names) for column in found.labels]
        [([0, 1], ['ann', 'bob']), ([0, 0], ['lamp'])]
        >>> found.numbers.tolist()
        [3, 5]
    """
    columns = [check_int("labels", column, 0) for column in labels]
    place = None if number is None else check_int("number", number, 0)
    cut = (check_int("start", start, 0), separator, quoted, check_int("width", width, 1))
    found = _core.read_columns(text, *cut, columns, place, limit_threads(threads))
    if found is None:
        return None
    return Columns([Column(*column) for column in found[0]], found[1])


def group_by_user(
    users: ArrayLike,
    items: ArrayLike,
    times: ArrayLike | None,
    user_count: int,
    item_count: int,
) -> GroupedItems:
    """Returns the items of each user in the order of time.

    Args:
        users: `[R]` integers: of each row the user, from 1 to U.
        items: `[R]` integers: of each row the item, from 1 to I.
        times: `[R]` integers; equal ones, or None, keep the order of the rows.
        user_count: U, below 2**31.
        item_count: I, below 2**31.

    Raises:
        IndexError: a user or an item is out of its range.
        MemoryError: the memory is refused.
        TypeError: an array that is not of integers, or a count that is none.
        ValueError: arrays of different lengths, or a count outside its range.

    Example:
        >>> found = group_by_user([2, 1, 2], [5, 4, 6], [30, 10, 20], 2, 6)
        >>> found.offsets.tolist(), found.items.tolist(), found.unsorted
        ([0, 1, 3], [4, 6, 5], 1)
    """
    counts = (
        check_int("user_count", user_count, 0, 1 << 31),
        check_int("item_count", item_count, 0, 1 << 31),
    )
    rows = (_as_ids("users", users, counts[0]), _as_ids("items", items, counts[1]))
    ordered = None if times is None else as_integers("times", times, "[R]")
    return GroupedItems(*_core.group_by_user(*rows, ordered, *counts))


def _as_ids(name: str, values: ArrayLike, count: int) -> NDArray[np.int32]:
    """Ids in 32 bits, as `read_columns` gives them; others are copied."""
    import numpy as np

    if isinstance(values, np.ndarray) and values.dtype == np.int32 and values.ndim == 1:
        return np.require(values, requirements=["C", "A"])
    wide = as_integers(name, values, "[R]")
    outside = (wide < 1) | (wide > count)
    if outside.any():
        index = int(outside.argmax())
        raise no_such_id(name, index, int(wide[index]), 1, most=count)
    return wide.astype(np.int32)
