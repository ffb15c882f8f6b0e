"""`ops.interactions`: columns and rows by user, and agreement with the definition."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.ops.interactions import group_by_user, read_columns
from lmcore.reference import interactions as reference
from parity import agree


def columns(*args: Any, **kwargs: Any) -> Any:
    found = read_columns(*args, **kwargs)
    if found is None:
        return None
    return [(codes.tolist(), names) for codes, names in found.labels], found.numbers.tolist()


def grouped(*args: Any) -> Any:
    found = group_by_user(*args)
    times = None if found.times is None else found.times.tolist()
    return found.offsets.tolist(), found.items.tolist(), times, found.unsorted, found.repeated


def defined(users: Any, items: Any, *rest: Any) -> Any:
    return reference.group_by_user(list(users), list(items), *rest)


# By hand.


def test_columns_by_hand() -> None:
    text = b'x,ann,"red, blue",-5\ny,bob,lamp,17\n,ann,lamp,0'
    found = columns(text, ",", 4, [1, 2], 3, quoted=True)
    assert found == ([([0, 1, 0], ["ann", "bob"]), ([0, 1, 1], ["red, blue", "lamp"])], [-5, 17, 0])
    assert columns(b"head\n1::2::3\n", "::", 3, [2, 0], start=5) == (
        [([0], ["3"]), ([0], ["1"])],
        [],
    )
    assert columns(b"", ",", 2, [0, 1], 1) == ([([], []), ([], [])], [])
    assert columns(b"a,b", ",", 2, [0], start=99) == ([([], [])], [])


@pytest.mark.parametrize(
    "text",
    [
        b"a,1\n\n", b"a\n", b"a,1,2\n", b",1\n", b"a,\n", b"a,x\n", b"a,1.5\n", b"a, 1\n",
        b"a,1\r\n", b'a,"1\n', b'"a"b,1\n', b'a"b,1\n', b'"a""b",1\n', b'"a\nb",1\n', b"\xff,1\n",
        b"a,1234567890123456789\n", "a,١\n".encode(), b"a,1_0\n", b"a,+1\n", b'"",1\n',
    ],
)  # fmt: skip
def test_what_is_unusual_is_none(text: bytes) -> None:
    assert columns(text, ",", 2, [0], 1, quoted=True) is None
    assert columns(b"b,2\n" + text + b"c,3\n", ",", 2, [0], 1, quoted=True) is None


def test_equal_times_keep_the_order_of_the_rows() -> None:
    found = grouped([2, 1, 2, 2, 2], [5, 4, 6, 3, 5], [30, 10, 20, 30, 20], 3, 6)
    assert found == ([0, 1, 5, 5], [4, 6, 5, 5, 3], [10, 20, 20, 30, 30], 2, 1)
    assert grouped([2, 1, 2], [5, 4, 6], None, 2, 6) == ([0, 1, 3], [4, 5, 6], None, 0, 0)


def test_many_blocks_are_as_one() -> None:
    """Texts of many blocks, with values that stand in some of them only."""
    rows = [(f"user {k % 997}", f"a very long name of item {k % 1013}", k) for k in range(40_000)]
    text = "".join(f"{user}\t{item}\t{time}\n" for user, item, time in rows).encode()
    expected = reference.read_columns(text, "\t", 3, [0, 1], 2)
    for threads in (1, 2, 3, 8):
        assert columns(text, "\t", 3, [0, 1], 2, threads=threads) == expected


@pytest.mark.parametrize("kinds", [1, 2, 3])
def test_names_of_any_kind_come_in_the_order_of_their_first_rows(kinds: int) -> None:
    """Small numbers, short texts and long ones are looked up in three ways, some of them later."""
    draw = np.random.default_rng(kinds)
    forms = ["u{}", "{}", "a text of many bytes {}"][:kinds]
    rows = [(forms[draw.integers(kinds)].format(draw.integers(900)), k) for k in range(3_000)]
    text = "".join(f"{name},{k}\n" for name, k in rows).encode()
    found = columns(text, ",", 2, [0, 1])
    assert found == reference.read_columns(text, ",", 2, [0, 1])
    assert found[0][0][1] == list(dict.fromkeys(name for name, _ in rows))


@pytest.mark.parametrize("user_count", [255, 256, 257, 5000])
def test_rows_of_many_users_are_those_of_a_stable_sort(user_count: int) -> None:
    draw = np.random.default_rng(user_count)
    users = draw.integers(1, user_count + 1, 20_000)
    users[:3] = user_count  # the last one has rows, too
    items, times = draw.integers(1, 100, 20_000), draw.integers(-50, 50, 20_000)
    order = np.lexsort((times, users))
    pairs = np.unique(users * 100 + items)
    found = group_by_user(users, items, times, user_count, 99)
    np.testing.assert_array_equal(found.items, items[order])
    np.testing.assert_array_equal(found.times, times[order])
    np.testing.assert_array_equal(np.diff(found.offsets), np.bincount(users)[1:])
    assert found.repeated == len(users) - len(pairs)
    unsorted = [(np.diff(times[users == user]) < 0).sum() for user in range(1, user_count + 1)]
    assert found.unsorted == sum(unsorted)


# Agreement.

fields = st.sampled_from(
    ["a", "b", "é", "", '"', '"a"', '"a,b"', '"a""b"', '"a', "1", "-20", "1" * 18, "1" * 19, "1.5",
     "a" * 15, "a" * 16, "\r", "\0", " a", "::", ":", "北京"]
)  # fmt: skip
tables = st.lists(st.lists(fields, min_size=1, max_size=4), max_size=5)
usual = st.lists(
    st.tuples(st.sampled_from(["a", "b", '"c"', '"d,e"', "x" * 20]), st.integers(-99, 99)),
    max_size=30,
)


@given(
    table=tables,
    separator=st.sampled_from([",", "\t", "::", "é"]),
    width=st.integers(0, 4),
    quoted=st.booleans(),
    number=st.sampled_from([None, None, 0, 1, 5]),
    end=st.sampled_from(["", "\n", "\n\n"]),
    start=st.sampled_from([0, 0, 1, 99]),
)
def test_columns_agree(
    table: list[list[str]],
    separator: str,
    width: int,
    quoted: bool,
    number: int | None,
    end: str,
    start: int,
) -> None:
    text = ("\n".join(separator.join(row) for row in table) + end).encode()
    labels = [0, min(1, max(0, width - 1))]
    options = {"quoted": quoted, "start": start}
    agree(reference.read_columns, columns, text, separator, width, labels, number, **options)


@given(rows=usual, text=st.binary(max_size=12))
def test_usual_columns_agree(rows: list[tuple[str, int]], text: bytes) -> None:
    table = "".join(f"{name},{number}\n" for name, number in rows).encode()
    assert agree(reference.read_columns, columns, table, ",", 2, [0], 1, quoted=True) is not None
    agree(reference.read_columns, columns, table + text, ",", 2, [0], 1, quoted=True)


ids = st.lists(st.integers(0, 5), max_size=30)


@given(users=ids, items=ids, times=st.none() | st.lists(st.integers(-3, 3), max_size=30))
def test_rows_agree(users: list[int], items: list[int], times: list[int] | None) -> None:
    size = min(len(users), len(items))
    if times is not None:
        times = (times * 31)[:size] or [0] * size
    own, other = [1 + user % 4 for user in users[:size]], [1 + item % 5 for item in items[:size]]
    agree(defined, grouped, own, other, times, 4, 5)
    agree(defined, grouped, np.array(own, np.int32), np.array(other, np.int32), times, 4, 5)
    agree(defined, grouped, users, items, times, 4, 5)


@pytest.mark.parametrize("kind", [np.int32, np.int64])
def test_ids_outside_are_errors(kind: Any) -> None:
    for users, items in (([1, 0], [1, 1]), ([1, 3], [1, 1]), ([1, 2], [1, -1]), ([1], [1, 1])):
        agree(defined, grouped, np.array(users, kind), np.array(items, kind), None, 2, 2)
    with pytest.raises(
        IndexError, match=r"users\[0\] must be at least 1 and at most 2: got 1099511627776"
    ):
        group_by_user([2**40], [1], None, 2, 2)
    with pytest.raises(TypeError, match="times must be integers"):
        group_by_user([1], [1], [0.5], 1, 1)
    for counts in ((-1, 1), (1, 2**31)):
        with pytest.raises(ValueError, match="_count must be at least 0 and below"):
            group_by_user([1], [1], None, *counts)
