"""Interactions from columns in memory: frames of pandas or polars, or arrays by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.arranging import arrange
from lmcore.recsys.interactions import Interactions, as_times
from lmcore.recsys.rows import Rows
from lmcore.recsys.times import take_times

__all__ = ["interactions_from_frame"]


def interactions_from_frame(
    frame: Any, *, user: str, item: str, time: str | None = None
) -> Interactions:
    """Returns the interactions of a frame, with users 1..U and items 1..I without gaps.

    A frame is anything that gives its columns by name: a DataFrame of pandas or polars, which
    need not be installed, or a dict of arrays or lists. Ids are whole numbers from 0 or texts;
    a column of categories has the ids that occur in it. New ids ascend with the original ones
    where all of these are integers, and otherwise stand in the order of the frame. Rows of a
    user are sorted by time; equal times, and frames without times, keep the order of the frame.
    The frame stays as it is.

    Args:
        frame: one row for each interaction.
        user: name of the column of users.
        item: name of the column of items.
        time: name of the column of times, numbers or dates; dates become datetime64[ns], those
            of a time zone in UTC. None: the order is trusted, and the report says so.

    Raises:
        TypeError: ids are neither integers nor texts, or times neither numbers nor dates.
        ValueError: a column is absent, stands twice or is named for two things, a value is
            missing, below 0 or empty, a time is not finite, ids differ only by white space,
            columns have other lengths, or there are no rows.

    Example:
        >>> frame = {"who": ["ann", "bob", "ann"], "what": [7, 3, 3], "when": [2.5, 1, 0]}
        >>> found = interactions_from_frame(frame, user="who", item="what", time="when")
        >>> found.items.tolist(), found.times.tolist(), found.user_ids
        ([1, 2, 1], [0.0, 2.5, 1.0], ('ann', 'bob'))
    """
    named = [name for name in (user, item, time) if name is not None]
    twice = next((name for name in named if named.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"users, items and times must be different columns: got {twice!r} twice")
    users = _to_ids(_take_column(frame, user), user)
    items = _to_ids(_take_column(frame, item), item)
    if len(users) != len(items):
        raise ValueError(
            f"columns must have one length: {user!r} has {len(users)} rows and {item!r} "
            f"{len(items)}"
        )
    times = None
    if time is not None:
        times = take_times(_read_times(_take_column(frame, time), time, len(users)))
    rows = Rows(users, items, times)
    return arrange("the frame", rows, [], None, is_order_trusted=time is None)


def _take_column(frame: Any, name: str) -> Any:
    """A column by name, with no missing value."""
    # pyarrow's `columns` are no names.
    own: Any = getattr(frame, "column_names", None) or getattr(frame, "columns", ())
    names = list(frame if isinstance(frame, Mapping) else own)
    if names.count(name) != 1:
        found = ", ".join(map(str, names))
        problem = "stands twice" if name in names else f"is not there: the frame has {found:.200}"
        raise ValueError(f"column {name!r} {problem}")
    column = frame[name]
    missing = None
    if hasattr(column, "is_null"):  # polars
        missing = column.is_null()
    elif hasattr(column, "isna"):  # pandas
        missing = column.isna()
    if missing is not None and np.asarray(missing).any():
        row = int(np.argmax(np.asarray(missing)))
        raise ValueError(f"column {name!r} has no value in row {row}")
    return column


def _to_array(column: Any) -> NDArray[Any]:
    """A column as a numpy array; dates in a time zone as those of UTC."""
    if getattr(getattr(column, "dtype", None), "tz", None) is not None:  # pandas
        return np.asarray(column.to_numpy(dtype="datetime64[ns]"))
    array = np.asarray(column.to_numpy() if hasattr(column, "to_numpy") else column)
    if array.ndim != 1:
        raise ValueError(f"a column must have one dimension: got {array.ndim}")
    return array


def _to_ids(column: Any, name: str) -> list[str] | NDArray[np.int64]:
    """The ids of a column, as integers or texts."""
    array = _to_array(column)
    if not len(array):
        raise ValueError(f"column {name!r} has no rows: there are no interactions")
    if array.dtype.kind in "iu":
        numbers = array.astype(np.int64)
        wrong = np.flatnonzero(numbers < 0)
        if len(wrong):
            raise ValueError(
                f"column {name!r} must hold ids from 0 and below 2**63: got {array[wrong[0]]} in "
                f"row {wrong[0]}"
            )
        return numbers
    if array.dtype.kind not in "OUT":
        raise TypeError(f"column {name!r} must hold integers or texts: got {array.dtype}")
    values = array.tolist()
    kinds = set(map(type, values))
    if kinds != {str}:
        for row, value in enumerate(values):
            if not isinstance(value, str | int | np.integer) or isinstance(value, bool):
                raise TypeError(
                    f"column {name!r} must hold integers or texts: got {value!r:.60} in row {row}"
                )
            if not isinstance(value, str) and value < 0:
                raise ValueError(f"column {name!r} must hold ids from 0: got {value} in row {row}")
    texts = [value if type(value) is str else str(value) for value in values]
    if "" in texts:
        raise ValueError(f"column {name!r} has an empty id in row {texts.index('')}")
    return texts


def _read_times(column: Any, name: str, count: int) -> NDArray[Any]:
    """The times of a column; errors name it."""
    array = _to_array(column)
    try:
        return as_times(array, count)
    except (TypeError, ValueError) as error:
        raise type(error)(f"column {name!r}: {error}") from None
