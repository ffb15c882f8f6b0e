"""`recsys.frames`: columns of pandas, of what is like polars, and arrays by name."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.recsys.frames import interactions_from_frame
from lmcore.recsys.interactions import Interactions

NAMES = {"user": "u", "item": "i", "time": "t"}


class Series:
    """What a column of polars offers of what is used: no `dtype.tz`, nulls by `is_null`."""

    def __init__(self, values: list[Any]) -> None:
        self.values = values

    def is_null(self) -> "Series":
        return Series([value is None for value in self.values])

    def to_numpy(self) -> Any:
        is_text = any(isinstance(value, str) for value in self.values)
        return np.array(self.values, dtype=object if is_text else None)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        return np.asarray(self.to_numpy(), dtype)


class Frame:
    """What a frame of polars offers of what is used."""

    def __init__(self, columns: dict[str, list[Any]]) -> None:
        self._columns = columns

    @property
    def columns(self) -> list[str]:
        return list(self._columns)

    def __getitem__(self, name: str) -> Series:
        return Series(self._columns[name])


MAKERS = [dict, pd.DataFrame, Frame, pa.table]


def rows_of(found: Interactions) -> list[tuple[Any, Any]]:
    users = np.repeat(np.arange(found.user_count), np.diff(found.offsets)).tolist()
    return [
        (found.user_ids[user], found.item_ids[item - 1])
        for user, item in zip(users, found.items, strict=True)
    ]


@pytest.mark.parametrize("make", MAKERS)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from(["b", "a", "é"]), st.integers(0, 2**40), st.integers(-5, 5)),
        min_size=1,
    )
)
def test_rows_are_sorted_by_user_and_time(make: Any, rows: list[tuple[str, int, int]]) -> None:
    columns = dict(zip("uit", map(list, zip(*rows, strict=True)), strict=True))
    found = interactions_from_frame(make(columns), **NAMES)
    users = list(dict.fromkeys(user for user, _, _ in rows))
    expected = sorted(rows, key=lambda row: (users.index(row[0]), row[2]))
    assert rows_of(found) == [(user, item) for user, item, _ in expected]
    assert found.times is not None
    assert found.times.tolist() == [time for _, _, time in expected]
    # Without times the order of the frame is trusted.
    plain = interactions_from_frame(make(columns), user="u", item="i")
    assert rows_of(plain) == [
        (user, item) for user, item, _ in sorted(rows, key=lambda row: users.index(row[0]))
    ]
    assert plain.times is None
    assert (plain.report.unsorted, plain.report.interactions) == (0, len(rows))
    assert list(columns["u"]) == [user for user, _, _ in rows]


DATES = ["2020-03-01", "2020-01-01", "2020-02-01"]
USERS: dict[str, Any] = {
    "integers": [7, 7, 3],
    "small integers": np.array([7, 7, 3], dtype=np.uint8),
    "nullable integers": pd.array([7, 7, 3], dtype="Int64"),
    "integers of arrow": pd.array([7, 7, 3], dtype="int64[pyarrow]"),
    "categories of integers": pd.Categorical([7, 7, 3], categories=[9, 7, 3]),
    "objects": np.array([7, 7, 3], dtype=object),
    "texts of integers": ["7", "7", "3"],
    "categories of texts": pd.Categorical(["7", "7", "3"], categories=["x", "7", "3"]),
    "strings": pd.array(["7", "7", "3"], dtype="string"),
    "strings of arrow": pd.array(["7", "7", "3"], dtype="string[pyarrow]"),
}
TIMES: dict[str, Any] = {
    "integers": [3, 1, 2],
    "floats": [0.3, 0.1, 0.2],
    "nullable integers": pd.array([3, 1, 2], dtype="Int64"),
    "nullable floats": pd.array([0.3, 0.1, 0.2], dtype="Float64"),
    "dates": pd.to_datetime(DATES),
    "dates in seconds": pd.to_datetime(DATES).astype("datetime64[s]"),
    "dates in a zone": pd.to_datetime(DATES).tz_localize("Asia/Tokyo"),
    "dates of arrow": pd.array(pd.to_datetime(DATES), dtype="timestamp[us][pyarrow]"),
}


@pytest.mark.parametrize("users", USERS)
@pytest.mark.parametrize("times", TIMES)
def test_columns_of_pandas(users: str, times: str) -> None:
    frame = pd.DataFrame({"u": USERS[users], "i": ["x", "y", "x"], "t": TIMES[times]})
    frame.index = pd.Index([5, 5, 1])  # no position, and not unique
    before = frame.copy(deep=True)
    found = interactions_from_frame(frame, **NAMES)
    assert rows_of(found) == [(3, "x"), (7, "y"), (7, "x")]
    assert found.report.unsorted == 1
    assert found.times is not None
    if "dates" in times:
        assert found.times.dtype == "datetime64[ns]"
        hours = 9 if "zone" in times else 0
        first = np.datetime64("2020-02-01") - np.timedelta64(hours, "h")
        assert found.times[0] == first
    else:
        assert found.times.dtype == (np.float64 if "floats" in times else np.int64)
    pd.testing.assert_frame_equal(frame, before)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"user": "who"}, "column 'who' is not there: the frame has u, i, t"),
        ({"u": ["a", None, "b"]}, "column 'u' has no value in row 1"),
        ({"u": ["a", "", "b"]}, "column 'u' has an empty id in row 1"),
        ({"u": [1, -2, 3]}, "column 'u' must hold ids from 0 and below 2**63: got -2 in row 1"),
        ({"u": [1.0, 2.0, 3.0]}, "column 'u' must hold integers or texts: got float64"),
        ({"u": [True, False, True]}, "column 'u' must hold integers or texts: got bool"),
        ({"t": [1.0, float("inf"), 2.0]}, "column 't': times must be finite and fit 64 bits: g"),
        ({"t": ["a", "b", "c"]}, "column 't': times must be numbers or dates: got "),
        ({"u": [], "i": [], "t": []}, "column 'u' "),
    ],
)
@pytest.mark.parametrize("make", [pd.DataFrame, Frame])
def test_bad_columns(make: Any, changes: dict[str, Any], problem: str) -> None:
    names = NAMES | {k: v for k, v in changes.items() if k in NAMES}
    columns = {"u": [1, 2, 3], "i": [1, 2, 3], "t": [1, 2, 3]}
    columns |= {k: v for k, v in changes.items() if k in columns}
    with pytest.raises((TypeError, ValueError)) as caught:
        interactions_from_frame(make(columns), **names)
    message = str(caught.value)
    assert message.startswith(problem) or (make is Frame and "got object" in message), message
    assert "\n" not in message


def test_ids_that_differ_by_white_space_and_orders_that_are_trusted() -> None:
    with pytest.raises(ValueError, match="the frame: items 'x' and 'x ' differ only by white spa"):
        interactions_from_frame({"u": [1, 1], "i": ["x", "x "]}, user="u", item="i")
    frame = {"u": [1, 1], "i": ["x", "y z"], "t": [1.5, -0.5]}
    assert interactions_from_frame(frame, user="u", item="i").report.is_order_trusted
    found = interactions_from_frame(frame, **NAMES)
    assert not found.report.is_order_trusted
    assert found.times is not None
    assert found.times.tolist() == [-0.5, 1.5]


@pytest.mark.parametrize("changes", [{"item": "u"}, {"time": "u"}])
def test_a_column_is_one_thing(changes: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="must be different columns: got 'u' twice"):
        interactions_from_frame({"u": [1], "i": [2], "t": [3]}, **NAMES | changes)


def test_other_bad_columns() -> None:
    frame = pd.DataFrame([[1, 1, 1], [2, 2, 2]], columns=["u", "i", "u"])
    with pytest.raises(ValueError, match=r"^column 'u' stands twice$"):
        interactions_from_frame(frame, user="u", item="i")
    with pytest.raises(ValueError, match=r"^column 'u' has no value in row 1$"):
        interactions_from_frame(
            pd.DataFrame({"u": pd.array([1, None], dtype="Int64"), "i": [1, 2]}), user="u", item="i"
        )
    with pytest.raises(ValueError, match="columns must have one length: 'u' has 2 rows and 'i' 1"):
        interactions_from_frame({"u": [1, 2], "i": [1]}, user="u", item="i")
    with pytest.raises(ValueError, match="column 't': times must be 2, one for each interaction"):
        interactions_from_frame({"u": [1, 2], "i": [1, 2], "t": [1]}, **NAMES)
    with pytest.raises(ValueError, match="a column must have one dimension: got 2"):
        interactions_from_frame({"u": [[1], [2]], "i": [1, 2]}, user="u", item="i")
    with pytest.raises(ValueError, match=r"below 2\*\*63: got 9223372036854775808 in row 0"):
        interactions_from_frame(
            {"u": np.array([2**63], dtype=np.uint64), "i": [1]}, user="u", item="i"
        )
    for value in (3.5, b"x", (1,), None, True):
        column = np.empty(2, dtype=object)
        column[:] = ["a", value]
        with pytest.raises(
            TypeError, match=r"column 'u' must hold integers or texts: got .* row 1"
        ):
            interactions_from_frame({"u": column, "i": [1, 2]}, user="u", item="i")
    late = np.array(["9999-01-01"], dtype="datetime64[D]")
    with pytest.raises(ValueError, match="column 't': times must be finite and fit 64 bits"):
        interactions_from_frame({"u": [1], "i": [1], "t": late}, **NAMES)
