"""`recsys.data`, `ids` and `reading`: three formats, ids without gaps, the leave-one-out split."""

import json
import math
import pickle
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore.recsys import reading
from lmcore.recsys.data import Interactions, leave_one_out, make_interactions
from lmcore.recsys.ids import IdMap, Ids
from lmcore.recsys.reading import read_interactions

HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n"

Histories = list[tuple[Any, list[Any]]]


def read(folder: Path, text: str | bytes, name: str = "data.txt", **options: Any) -> Interactions:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_interactions(path, **options)


def histories(interactions: Interactions) -> Histories:
    """Original ids, user by user."""
    users, items = list(interactions.user_ids), list(interactions.item_ids)
    return [
        (
            users[row],
            [items[i - 1] for i in interactions.items[slice(*interactions.offsets[row : row + 2])]],
        )
        for row in range(interactions.user_count)
    ]


def fault(folder: Path, text: str | bytes, name: str = "data.txt", **options: Any) -> str:
    with pytest.raises(ValueError, match="data") as caught:
        read(folder, text, name, **options)
    message = str(caught.value)
    assert message.startswith(str(folder / name))
    assert "\n" not in message
    return message.removeprefix(str(folder / name))


def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes every file go through the careful way."""
    for reader in (reading.IntegerReader, reading.TableReader):
        monkeypatch.setattr(reader, "read_fast", lambda self, known: None)


# Real data.


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions"),
    [
        ("Beauty_5core_pairs.txt", 22_363, 12_101, 198_502),
        ("iclrec_Sports.txt", 35_598, 18_357, 296_337),
        ("seqdistill_Beauty.txt", 3_783, 2_658, 54_225),
    ],
)
def test_real_data(
    data_dir: Path,
    name: str,
    users: int,
    items: int,
    interactions: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = read_interactions(data_dir / "recsys" / name)
    report = found.report
    assert (report.users, report.items, report.interactions) == (users, items, interactions)
    assert (report.remapped_users, report.remapped_items, report.skipped) == (0, 0, 0)
    assert (found.user_count, found.item_count) == (users, items)
    split = leave_one_out(found)
    assert split.training_only_count == 0
    assert len(split.train_items) == interactions - 2 * users
    assert set(np.unique(found.items)) == set(range(1, items + 1))
    slow(monkeypatch)
    careful = read_interactions(data_dir / "recsys" / name)
    np.testing.assert_array_equal(careful.items, found.items)
    np.testing.assert_array_equal(careful.offsets, found.offsets)
    assert careful.report == report


# The formats.


def test_pairs_keep_the_order_of_the_file_for_each_user(tmp_path: Path) -> None:
    found = read(tmp_path, "2 5\n1 4\n2 1\n1 5\n\n2 2\n  3\t3  \r\n")
    assert histories(found) == [(1, [4, 5]), (2, [5, 1, 2]), (3, [3])]
    assert found.report.describe() == "3 users, 5 items, 6 interactions"


@pytest.mark.parametrize("text", ["4 7 9\n", "4 7 9", "\n\n4 7 9\n\n", "\ufeff4 7 9\n"])
def test_sequences(tmp_path: Path, text: str) -> None:
    found = read(tmp_path, text + "\n2 9\n")
    assert histories(found) == [(2, [9]), (4, [7, 9])]
    assert found.offsets.tolist() == [0, 1, 3]
    assert found.items.tolist() == [2, 1, 2]
    assert found.report.remapped_users == 2
    assert found.report.remapped_items == 2


def test_inter_is_sorted_by_user_and_time(tmp_path: Path) -> None:
    text = (
        HEADER + "2\t10\t1\t30\n1\t11\t1\t5\n2\t12\t1\t10\n2\t13\t1\t30\n1\t10\t1\t4.5\n"
        "2\t14\t1\t1e1\n"
    )
    found = read(tmp_path, text, "data.inter")
    assert histories(found) == [(1, [10, 11]), (2, [12, 14, 10, 13])]
    assert found.report.unsorted == 3


def test_inter_takes_columns_in_any_order(tmp_path: Path) -> None:
    text = "note:token_seq\ttimestamp:float\titem_id:token\tuser_id:token\n"
    text += "a b\t2\tlamp\tann\n\t1\tcup, blue\tann\nc\t3\tlamp\tBøb"
    found = read(tmp_path, text)  # recognised by its header
    assert histories(found) == [("ann", ["cup, blue", "lamp"]), ("Bøb", ["lamp"])]
    assert found.item_ids == ("lamp", "cup, blue")
    assert (found.report.remapped_users, found.report.remapped_items) == (2, 2)


def test_inter_without_times_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    found = read(tmp_path, "user_id:token\titem_id:token\n1\t3\n2\t3\n1\t1\n", "data.inter")
    assert histories(found) == [(1, [3, 1]), (2, [3])]


def test_times_in_nanoseconds_keep_their_order(tmp_path: Path) -> None:
    start = 1_700_000_000_000_000_000
    rows = "".join(f"1\t{i}\t1\t{start + 3 - i}\n" for i in (1, 2, 3))
    found = read(tmp_path, HEADER + rows, "data.inter")
    assert histories(found) == [(1, [3, 2, 1])]


def test_integer_tokens_are_numbered_in_their_order(tmp_path: Path) -> None:
    rows = "10\t0\t1\t1\n9\t30\t1\t1\n10\t4\t1\t2\n"
    found = read(tmp_path, HEADER + rows, "data.inter")
    assert histories(found) == [(9, [30]), (10, [0, 4])]
    mixed = read(tmp_path, HEADER + rows + "010\t4\t1\t3\n", "data.inter")
    assert histories(mixed) == [("10", [0, 4]), ("9", [30]), ("010", [4])]


def test_the_format_is_guessed_from_the_first_line(tmp_path: Path) -> None:
    assert histories(read(tmp_path, "1 2\n1 3\n")) == [(1, [2, 3])]
    assert histories(read(tmp_path, "1 2 4\n2 3\n")) == [(1, [2, 4]), (2, [3])]
    assert histories(read(tmp_path, "\n" * 100 + "1 2 4\n2 3\n")) == [(1, [2, 4]), (2, [3])]
    given_format = read(tmp_path, "1 2\n2 3 4\n", format="sequences")
    assert histories(given_format) == [(1, [2]), (2, [3, 4])]
    assert "line" not in fault(tmp_path, "x 1 2\n", "data.inter")
    with pytest.raises(ValueError, match="format must be one of auto, pairs, sequences, inter"):
        read(tmp_path, "1 2\n", format="json")


small = st.integers(1, 12)
pairs_of_ids = st.lists(st.tuples(small, small), min_size=1, max_size=40)


def by_user(pairs: list[tuple[int, int]]) -> Histories:
    return [(u, [i for user, i in pairs if user == u]) for u in sorted({u for u, _ in pairs})]


@given(pairs=pairs_of_ids, scale=st.sampled_from([1, 7, 10**6, 10**17]))
def test_formats_agree(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[int, int]], scale: int
) -> None:
    folder = tmp_path_factory.mktemp("data")
    pairs = [(user * scale, item * scale) for user, item in pairs]
    expected = by_user(pairs)
    texts = {
        "pairs": "".join(f"{user} {item}\n" for user, item in pairs),
        "sequences": "".join(f"{u} {' '.join(map(str, items))}\n" for u, items in expected),
        "inter": HEADER + "".join(f"{u}\t{i}\t1\t{n}\n" for n, (u, i) in enumerate(pairs)),
    }
    repeated = sum(count - 1 for count in Counter(pairs).values())
    for kind, text in texts.items():
        found = read(folder, text, format=kind)
        assert histories(found) == expected
        assert found.items.dtype == found.offsets.dtype == np.int64
        assert found.report.repeated == repeated
        assert found.report.unsorted == 0
        assert sorted(set(found.items.tolist())) == list(range(1, found.item_count + 1))
        assert (np.diff(found.item_ids) > 0).all()
        with pytest.MonkeyPatch.context() as patch:
            slow(patch)
            careful = read(folder, text, format=kind)
        assert histories(careful) == expected
        assert careful.report == found.report


@given(
    rows=st.lists(
        st.tuples(st.sampled_from("abc"), small, st.integers(0, 3) | st.floats(0, 3)), min_size=1
    )
)
def test_inter_is_sorted_stably(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, int, float]]
) -> None:
    folder = tmp_path_factory.mktemp("data")
    text = HEADER + "".join(f"{user}\tx{item}\t1\t{time!r}\n" for user, item, time in rows)
    found = read(folder, text, "data.inter")
    users = list(dict.fromkeys(user for user, _, _ in rows))
    expected: Histories = []
    unsorted = 0
    for user in users:
        own = [(time, f"x{item}") for name, item, time in rows if name == user]
        unsorted += sum(b < a for (a, _), (b, _) in pairwise(own))
        expected.append((user, [item for _, item in sorted(own, key=lambda row: row[0])]))
    assert histories(found) == expected
    assert found.report.unsorted == unsorted


@given(text=st.text(alphabet="0129 -x\t\n\r", max_size=30))
def test_the_quick_way_takes_nothing_that_the_careful_one_refuses(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    folder = tmp_path_factory.mktemp("data")

    def result(kind: str) -> object:
        try:
            found = read(folder, text, format=kind)
        except ValueError as error:
            return str(error)
        return histories(found), found.report

    for kind in ("pairs", "sequences", "auto"):
        with pytest.MonkeyPatch.context() as patch:
            slow(patch)
            careful = result(kind)
        assert result(kind) == careful


# Faults.


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("x 2", "user must be an integer: got 'x'"),
        ("2 1.5", "item must be an integer: got '1.5'"),
        ("2 ٣", "item must be an integer: got '٣'"),
        ("0 3", "user must be at least 1: got 0"),
        ("3 -4", "item must be at least 1: got -4"),
        (f"3 {2**63}", f"item must be below 2**63: got {2**63}"),
        ("3 " + "9" * 5000, "item must be below 2**63: got " + "9" * 40 + "..."),
        ("3", "expected 2 fields, `user item`: got 1"),
        ("3 4 5", "expected 2 fields, `user item`: got 3 (format sequences reads one user"),
        ("3 4\r5 6", "a carriage return within the line"),
        (b"3 \xff4", "not UTF-8"),
    ],
)
def test_one_bad_row_of_pairs(tmp_path: Path, row: str | bytes, problem: str) -> None:
    raw = row if isinstance(row, bytes) else row.encode()
    text = b"1 1\n\n1 2\n" + raw + b"\n2 2\n"
    assert fault(tmp_path, text).startswith(f":4: {problem}")
    found = read(tmp_path, text, skip_bad_rows=True)
    assert histories(found) == [(1, [1, 2]), (2, [2])]
    assert found.report.skipped == 1
    assert found.report.listed_skipped[0].startswith(f"{tmp_path / 'data.txt'}:4: {problem}")
    assert found.report.describe().endswith("(1 rows skipped)")
    assert found.report.to_dict()["listed_skipped"] == found.report.listed_skipped


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("7", "expected `user item item ...`: got one field"),
        ("7 1 2 no 4", "item 3 must be an integer: got 'no'"),
        ("7 1 0", "item 2 must be at least 1: got 0"),
        ("5 1 1", "user 5 has a line already, line 1"),
    ],
)
def test_one_bad_row_of_sequences(tmp_path: Path, row: str, problem: str) -> None:
    text = f"5 1 2 3\n{row}\n6 2\n"
    assert fault(tmp_path, text) == f":2: {problem}"
    found = read(tmp_path, text, skip_bad_rows=True)
    assert histories(found) == [(5, [1, 2, 3]), (6, [2])]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("\tx\t1\t1", "user_id is empty"),
        ("7\t\t1\t1", "item_id is empty"),
        ("7\tx\t1", "expected 4 fields, as in the header: got 3"),
        ("7\tx\t1\t1\t1", "expected 4 fields, as in the header: got 5"),
        ("7 x 1 1", "expected 4 fields, as in the header: got 1"),
        ("7\tx\t1\tnoon", "timestamp must be a number: got 'noon'"),
        ("7\tx\t1\t", "timestamp must be a number: got ''"),
        ("7\tx\t1\tnan", "timestamp must be finite: got nan"),
        ("7\tx\t1\t-inf", "timestamp must be finite: got -inf"),
        ("7\tx\r1\t1\t1", "a carriage return within the line"),
        (b"7\t\xe9\t1\t1", "not UTF-8"),
    ],
)
def test_one_bad_row_of_inter(tmp_path: Path, row: str | bytes, problem: str) -> None:
    raw = row if isinstance(row, bytes) else row.encode()
    text = HEADER.encode() + b"1\ta\t1\t1\n" + raw + b"\n1\tb\t1\t2\n"
    assert fault(tmp_path, text, "data.inter") == f":3: {problem}"
    found = read(tmp_path, text, "data.inter", skip_bad_rows=True)
    assert histories(found) == [(1, ["a", "b"])]
    assert found.report.skipped == 1


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("user_id\titem_id", "a header is `name:type` fields"),
        ("user_id:int\titem_id:token", "a header is `name:type` fields"),
        ("user_id:token item_id:token", "a header is `name:type` fields"),
        ("user_id:token\titem_id:token\titem_id:token", "column item_id stands twice"),
        ("user_id:token\trating:float", "there is no column 'item_id': the header has 'user_id', "),
        ("user_id:token\titem_id:float", "item_id must be of type token: got float"),
        ("user_id:token\titem_id:token\ttimestamp:token", "timestamp must be of type float"),
        (b"user_id:token\t\xffitem_id:token", "not UTF-8"),
        ("", "a header is `name:type` fields"),
    ],
)
@pytest.mark.parametrize("skip_bad_rows", [False, True])
def test_bad_headers(
    tmp_path: Path, header: str | bytes, problem: str, skip_bad_rows: bool
) -> None:
    raw = header if isinstance(header, bytes) else header.encode()
    message = fault(tmp_path, raw + b"\n1\t2\n", "data.inter", skip_bad_rows=skip_bad_rows)
    assert message.startswith(f":1: {problem}")


def test_files_without_interactions(tmp_path: Path) -> None:
    for name in ("data.txt", "data.inter"):
        assert fault(tmp_path, "", name) == ": there are no interactions"
    assert fault(tmp_path, HEADER, "data.inter") == ": there are no interactions"
    assert fault(tmp_path, "\n \n") == ": there are no interactions"
    message = fault(tmp_path, "a b\n0 1\n", skip_bad_rows=True)
    assert message.startswith(": there are no interactions (2 rows skipped, the first: ")
    with pytest.raises(FileNotFoundError):
        read_interactions(tmp_path / "none.txt")
    with pytest.raises(IsADirectoryError):
        read_interactions(tmp_path)
    assert fault(tmp_path, "1 2\n3 4\n".encode("utf-16")) == ":1: not UTF-8"


def test_at_most_a_thousand_bad_rows_are_listed(tmp_path: Path) -> None:
    found = read(tmp_path, "1 1\n" + "1 0\n" * 1500, skip_bad_rows=True)
    assert found.report.skipped == 1500
    assert len(found.report.listed_skipped) == 1000


# The id map.


@pytest.mark.parametrize("ids", [np.arange(1, 4), np.array([0, 2, 2**62]), ("a", "é", "10")])
def test_an_id_map_is_read_as_it_was_written(tmp_path: Path, ids: Ids) -> None:
    path = tmp_path / "id_map.json"
    IdMap(ids, IdMap.identity(0, 5).items).save(path)
    found = IdMap.load(path)
    assert list(found.users) == list(ids)
    assert type(found.users) is type(ids)
    assert json.loads(path.read_text())["items"] == 5
    assert found.find_users(list(ids)).tolist() == [1, 2, 3]
    assert found.find_users([str(value) for value in ids][::-1]).tolist() == [3, 2, 1]
    for missing in ("b", "7", "01", "", "-1", str(2**63)):
        with pytest.raises(ValueError, match=f"^user '{missing}' is not in the id map$"):
            found.find_users([missing])
    with pytest.raises(ValueError, match="item '6' is not in the id map"):
        found.find_items([5, 6])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        '{"users": 3}',
        '{"users": 3, "items": -1}',
        '{"users": true, "items": 1}',
        '{"users": [2, 1], "items": 1}',
        '{"users": ["a", "a"], "items": 1}',
        '{"users": ["a", 1], "items": 1}',
        '{"users": [1.5], "items": 1}',
    ],
)
def test_other_files_are_no_id_maps(tmp_path: Path, text: str) -> None:
    path = tmp_path / "id_map.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"id_map\.json: "):
        IdMap.load(path)
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="not an id map"):
        IdMap.load(path)


@pytest.mark.parametrize("fast", [True, False])
def test_a_given_map_decides_the_items(
    tmp_path: Path, fast: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not fast:
        slow(monkeypatch)
    trained = IdMap.identity(1, 9)
    found = read(tmp_path, "7 2\n7 9\n8 2\n", id_map=trained)
    assert found.items.tolist() == [2, 9, 2]
    assert found.item_count == 9
    assert found.user_ids.tolist() == [7, 8]  # type: ignore[union-attr]
    text = "7 2\n7 10\n"
    assert fault(tmp_path, text, id_map=trained) == ":2: item is not in the id map: got 10"
    assert histories(read(tmp_path, text, id_map=trained, skip_bad_rows=True)) == [(7, [2])]
    names = IdMap((), ("b", "2", "a"))
    found = read(tmp_path, HEADER + "x\ta\t1\t2\nx\tb\t1\t1\n", "data.inter", id_map=names)
    assert found.items.tolist() == [1, 3]
    message = fault(tmp_path, HEADER + "x\tc\t1\t2\n", "data.inter", id_map=names)
    assert message == ":2: item_id is not in the id map: got 'c'"
    assert read(tmp_path, "4 2\n", id_map=names).items.tolist() == [2]
    message = fault(tmp_path, HEADER + "x\ta\t1\t2\n", "data.inter", id_map=trained)
    assert message == ":2: item_id is not in the id map: got 'a'"


# The split.


rows_of_items = st.lists(st.lists(st.integers(1, 30), max_size=9), max_size=9)


def from_rows(rows: list[list[int]], item_count: int = 30) -> Interactions:
    offsets = np.cumsum([0, *map(len, rows)])
    return make_interactions(offsets, [item for row in rows for item in row], item_count)


@given(rows=rows_of_items, length=st.integers(1, 11))
def test_leave_one_out(rows: list[list[int]], length: int) -> None:
    interactions = from_rows(rows)
    split = leave_one_out(interactions)
    long = {u: row for u, row in enumerate(rows, 1) if len(row) >= 3}
    assert split.training_only_count == len(rows) - len(long)
    assert (split.user_count, split.item_count) == (len(rows), 30)
    assert [
        split.train_items[slice(*split.train_offsets[u : u + 2])].tolist() for u in range(len(rows))
    ] == [row[:-2] if u in long else row for u, row in enumerate(rows, 1)]
    assert split.test.tolist() == [long[u][-1] if u in long else 0 for u in range(1, len(rows) + 1)]
    for name, held in (("valid", 2), ("test", 1)):
        users, sequences, targets, target_offsets = split.sequences(name, length)
        assert target_offsets.tolist() == list(range(len(long) + 1))
        offsets, columns = split.history(name)
        assert users.tolist() == list(long)
        assert sequences.shape == (len(long), length)
        assert targets.tolist() == getattr(split, name)[users - 1].tolist()
        for m, row in enumerate(long.values()):
            seen = row[:-held]
            window = seen[-length:]
            assert sequences[m].tolist() == [0] * (length - len(window)) + window
            assert targets[m] == row[-held]
            assert (columns[offsets[m] : offsets[m + 1]] + 1).tolist() == seen
        for array in (users, sequences, targets, offsets, columns):
            assert array.dtype == np.int64


@given(rows=rows_of_items, length=st.integers(1, 11))
def test_whole_histories(rows: list[list[int]], length: int) -> None:
    interactions = from_rows(rows)
    sequences = interactions.sequences(length)
    assert [row[row > 0].tolist() for row in sequences] == [row[-length:] for row in rows]
    offsets, columns = interactions.history()
    assert (columns + 1).tolist() == interactions.items.tolist()
    np.testing.assert_array_equal(offsets, interactions.offsets)
    if rows:
        some = np.array([len(rows), 1, len(rows)])
        np.testing.assert_array_equal(interactions.sequences(length, some), sequences[some - 1])
        offsets, columns = interactions.history(some)
        assert (columns[: offsets[1]] + 1).tolist() == rows[-1]
        assert (columns[offsets[1] : offsets[2]] + 1).tolist() == rows[0]
    with pytest.raises(IndexError, match=rf"users must be in 1\.\.{len(rows)}: got 0 at 0"):
        interactions.sequences(length, np.array([0]))


def test_unknown_splits_and_lengths() -> None:
    split = leave_one_out(from_rows([[1, 2, 3]]))
    for call in (lambda: split.sequences("train", 3), lambda: split.history("train")):
        with pytest.raises(ValueError, match="split must be one of valid, test: got 'train'"):
            call()
    with pytest.raises(ValueError, match="max_length must be at least 1: got 0"):
        split.sequences("test", 0)


def test_interactions_in_memory() -> None:
    found = make_interactions(np.array([0, 2, 2], dtype=np.int32), np.array([3, 3], dtype=np.uint8))
    assert (found.user_count, found.item_count, found.report.repeated) == (2, 3, 1)
    assert make_interactions([0], []).report.interactions == 0
    copy = pickle.loads(pickle.dumps(found))
    assert copy.items.tolist() == [3, 3]
    with pytest.raises(IndexError, match=r"items must be in 1\.\.2: got 3 at 1"):
        make_interactions([0, 2], [1, 3], 2)
    with pytest.raises(IndexError, match=r"items must be in 1\.\.3: got 0 at 0"):
        make_interactions([0, 2], [0, 3])
    with pytest.raises(ValueError, match="offsets must ascend: they fall after row 1"):
        make_interactions([0, 2, 1, 2], [1, 3])
    for offsets in ([0, 1], [1, 2], []):
        with pytest.raises(ValueError, match="offsets must go from 0 to the 2 items: got "):
            make_interactions(offsets, [1, 3])
    with pytest.raises(TypeError, match="items must be integers: got float64"):
        make_interactions([0, 1], [math.nan])
    with pytest.raises(ValueError, match="items must have one dimension: got 2"):
        make_interactions([0, 1], [[1]])
