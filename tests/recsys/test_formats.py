"""Files with columns: CSV, TSV, MovieLens', parquet; and what must not be taken in silence."""

import csv
import gzip
import io
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore._extras import MissingExtra
from lmcore.recsys.ids import IdMap
from lmcore.recsys.interactions import Interactions
from lmcore.recsys.reading import read_interactions
from lmcore.recsys.reports import ORDER_TRUSTED
from lmcore.recsys.table_files import TableReader

HEAD = "user_id,item_id,rating,timestamp\n"


def read(folder: Path, text: str | bytes, name: str = "data.csv", **options: Any) -> Interactions:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_interactions(path, **options)


def histories(interactions: Interactions) -> dict[Any, list[Any]]:
    users, items = list(interactions.user_ids), list(interactions.item_ids)
    bounds = interactions.offsets
    return {
        users[row]: [items[i - 1] for i in interactions.items[bounds[row] : bounds[row + 1]]]
        for row in range(interactions.user_count)
    }


def fault(folder: Path, text: str | bytes, name: str = "data.csv", **options: Any) -> str:
    with pytest.raises(ValueError, match="data") as caught:
        read(folder, text, name, **options)
    message = str(caught.value)
    assert message.startswith(str(folder / name))
    assert "\n" not in message
    return message.removeprefix(str(folder / name))


def both(call: Callable[[], Interactions]) -> Any:
    """What the fast and the careful way make of the same; they must agree."""

    def outcome() -> Any:
        try:
            found = call()
        except ValueError as error:
            return str(error)
        times = None if found.times is None else (str(found.times.dtype), found.times.tolist())
        return histories(found), list(found.user_ids), list(found.item_ids), times, found.report

    fast = outcome()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TableReader, "read_fast", lambda self, known: None)
        careful = outcome()
    assert fast == careful
    return fast


# The formats.


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ratings.csv", "userId,movieId,rating,timestamp\nu,a,4.0,30\nv,b,1,5\nu,b,2,10\n"),
        ("log.tsv", "time\titem\tuser\n30\ta\tu\n5\tb\tv\n10\tb\tu\n"),
        ("u.data", "u\ta\t4\t30\nv\tb\t1\t5\nu\tb\t2\t10\n"),
        ("ratings.dat", "u::a::4::30\nv::b::1::5\nu::b::2::10\n"),
        ("a.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ta\t30\nv\tb\t5\nu\tb\t10\n"),
        ("a.txt", "user,item,date\nu,a,2020-01-03\nv,b,2020-01-01\nu,b,2020-01-02\n"),
        ("b.txt", "user\titem\tts\nu\ta\t30\nv\tb\t5\nu\tb\t10\n"),
        ("quoted.csv", '"user","item","time"\r\n"u","a","30"\r\n"v","b","5"\r\n"u","b","10"\r\n'),
        ("semicolons.csv", 'user;"item";time\nu;"a";30\nv;b;5\nu;b;10'),
        ("mark.csv", "\ufeffuser,item,time\nu,a,30\nv,b,5\nu,b,10"),
    ],
)
def test_formats_are_found(tmp_path: Path, name: str, text: str) -> None:
    for found in (read(tmp_path, text, name), read(tmp_path, gzip.compress(text.encode()), name)):
        assert histories(found) == {"u": ["b", "a"], "v": ["b"]}
        assert found.report.unsorted == 1
        assert found.times is not None
        assert (np.diff(found.times[:2]) > 0).all()
        assert not found.report.is_order_trusted
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(text.encode()))
    assert histories(read_interactions(packed)) == {"u": ["b", "a"], "v": ["b"]}


def test_columns_are_chosen_by_name(tmp_path: Path) -> None:
    text = "who,when,what,user\nann,2,lamp,x\nann,1,cup,y\nbob,3,cup,z\n"
    found = read(tmp_path, text, user="who", item="what", time="when")
    assert histories(found) == {"ann": ["cup", "lamp"], "bob": ["cup"]}
    assert found.times is not None
    assert found.times.tolist() == [1, 2, 3]
    other = read(tmp_path, text, item="what", time="when")
    assert list(other.user_ids) == ["x", "y", "z"]
    inter = "user_id:token\tbook:token\tday:float\nann\tb1\t2\nann\tb2\t1\n"
    found = read(tmp_path, inter, "data.inter", item="book", time="day")
    assert histories(found) == {"ann": ["b2", "b1"]}
    rated = read(tmp_path, "u::a::4::1\nu::b::3::2\n", "data.dat", time="rating")
    assert histories(rated) == {"u": ["b", "a"]}


def test_without_times_the_order_is_trusted(tmp_path: Path) -> None:
    found = read(tmp_path, "user,item\n1,3\n2,3\n1,1\n")
    assert histories(found) == {1: [3, 1], 2: [3]}
    assert found.times is None
    assert found.report.is_order_trusted
    assert found.report.describe().endswith(f"; {ORDER_TRUSTED}")
    assert found.report.to_dict()["is_order_trusted"] is True
    # There the order of lines is that of time by definition.
    assert not read(tmp_path, "1 3\n", "data.txt").report.is_order_trusted


def test_quotes(tmp_path: Path) -> None:
    text = 'user,note,item\nann,"said ""no"",\nthen yes","red, old"\nbob,5" disk,"lamp"\n'
    found = read(tmp_path, text)
    assert histories(found) == {"ann": ["red, old"], "bob": ["lamp"]}
    broken = "user,item\n1,2\n" + '1,"3\n' + "1,4\n"
    assert fault(tmp_path, broken) == ":3: a quote is not closed"
    assert ":3: text behind a closing quote: got 'x'" in fault(tmp_path, 'user,item\n1,2\n1,"3"x\n')
    long = "user,item\n" + '1,"3\n' + "1,4\n" * 3000
    assert fault(tmp_path, long) == ":2: a quote is not closed within 1000 lines"
    assert len(read(tmp_path, long, skip_bad_rows=True).items) == 2000


def test_ids_keep_the_rule_of_numbers(tmp_path: Path) -> None:
    rows = "user,item,time\n10,0,1\n9,30,1\n10,4,2\n"
    found = read(tmp_path, rows)
    assert histories(found) == {9: [30], 10: [0, 4]}
    assert isinstance(found.item_ids, np.ndarray)
    mixed = read(tmp_path, rows + "010,4,3\n")
    assert list(histories(mixed).items()) == [("10", [0, 4]), ("9", [30]), ("010", [4])]
    assert list(read(tmp_path, "user,item\n1,-5\n1,7\n").item_ids) == ["-5", "7"]


def test_ids_of_a_model(tmp_path: Path) -> None:
    ids = IdMap(("ann",), ("lamp", "cup"))
    found = read(tmp_path, "user,item\nbob,cup\nbob,lamp\n", id_map=ids)
    assert found.items.tolist() == [2, 1]
    message = fault(tmp_path, "user,item\nbob,cup\nbob,book\n", id_map=ids)
    assert message == ":3: item is not in the id map: got 'book'"
    numbers = IdMap(np.array([1]), np.array([5, 9]))
    assert read(tmp_path, "user,item\n7,9\n7,5\n", id_map=numbers).items.tolist() == [2, 1]


# Times.


def test_dates(tmp_path: Path) -> None:
    rows = [
        ("a", "2020-01-02"), ("b", "2020-01-01 23:59"), ("c", "2020-01-01T12:00:00.000000001"),
        ("d", "2020-01-01 12:00:00"), ("e", "1969-12-31"),
    ]  # fmt: skip
    found = read(tmp_path, "user,item,date\n" + "".join(f"u,{i},{t}\n" for i, t in rows))
    assert histories(found) == {"u": ["e", "d", "c", "b", "a"]}
    assert found.times is not None
    assert found.times.dtype == "datetime64[ns]"
    assert str(found.times[2]) == "2020-01-01T12:00:00.000000001"
    zones = "user,item,date\nu,a,2020-01-01T00:30+02:00\nu,b,2020-01-01T00:00Z\n"
    zones += "u,c,2019-12-31T18:00-05:00\n"
    found = read(tmp_path, zones)
    assert histories(found) == {"u": ["a", "c", "b"]}


@pytest.mark.parametrize(
    ("first", "second", "text"),
    [
        ("5", "2020-01-01", "must be a number as in the rows before: got '2020-01-01', a date"),
        ("2020-01-01", "5", "must be a date as in the rows before: got '5', a number"),
        (
            "2020-01-01",
            "2020-01-01T00:00Z",
            "must be a date without a zone as in the rows before: got '2020-01-01T00:00Z', "
            "a date with a zone",
        ),
        ("5", "nan", "must be finite: got nan"),
        ("5", "1e999", "must be finite: got 1e999"),
        ("5", "", "must be a number or a date like 2026-01-31 12:00:00: got ''"),
        ("5", "soon", "must be a number or a date like 2026-01-31 12:00:00: got 'soon'"),
        ("5", "01/02/2020", "must be a number or a date like 2026-01-31 12:00:00"),
        ("2020-01-01", "2020-02-30", "must be a date that exists, from 1678 to 2261"),
        ("2020-01-01", "9999-01-01", "must be a date that exists, from 1678 to 2261"),
    ],
)
def test_times_are_of_one_kind(tmp_path: Path, first: str, second: str, text: str) -> None:
    rows = f"user,item,time\n1,1,{first}\n1,2,{second}\n1,3,{first}\n"
    assert f":3: time {text}" in fault(tmp_path, rows)
    found = read(tmp_path, rows, skip_bad_rows=True)
    assert (found.report.skipped, found.items.tolist()) == (1, [1, 2])
    both(lambda: read(tmp_path, rows))


def test_times_keep_their_order_and_values(tmp_path: Path) -> None:
    rows = ["1700000000.123456782", "1700000000.123456781", "-0.5", "0", "-0"]
    text = "user,item,time\n" + "".join(f"1,{n},{time}\n" for n, time in enumerate(rows, 1))
    found = read(tmp_path, text)
    assert found.items.tolist() == [3, 4, 5, 2, 1]
    assert found.times is not None
    assert found.times.dtype == np.float64
    assert (np.diff(found.times) >= 0).all()
    assert found.times[0] == -0.5
    plain = read(tmp_path, "user,item,time\n1,1,2.5\n1,2,-1.5\n1,3,1\n")
    assert plain.times is not None
    assert plain.times.tolist() == [-1.5, 1.0, 2.5]


# Hostile files.


@pytest.mark.parametrize("name", ["data.csv", "data.inter"])
def test_a_header_of_many_columns(tmp_path: Path, name: str) -> None:
    """The time grows with their number, not with its square, and errors stay short."""
    kinds = (":token", ":float", "\t") if name == "data.inter" else ("", "", ",")
    ids = [f"{role}_id{kinds[0]}" for role in ("user", "item")]
    columns = kinds[2].join([*ids, *(f"c{number}{kinds[1]}" for number in range(100_000))])
    began = time.process_time()
    assert fault(tmp_path, columns + "\n", name) == ": there are no interactions"
    text = fault(tmp_path, columns + "\n", name, user="absent")
    assert time.process_time() - began < 20  # a square would be minutes
    assert text.startswith(":1: there is no column 'absent': the header has 'user_id', 'item_id'")
    assert len(text) < 500
    twice = fault(tmp_path, f"{columns}{kinds[2]}c7{kinds[1]}\n", name)
    assert twice == ":1: column c7 stands twice in the header"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("", {}, ": there are no interactions"),
        (HEAD, {}, ": there are no interactions"),
        (HEAD + "\n\n", {}, ": there are no interactions"),
        ("\n \n\r\n", {}, ": there are no interactions"),
        (HEAD + "1,2,3,4\n1,2\n", {}, ":3: expected 4 fields, as in the header: got 2"),
        (HEAD + "1,2,3,4\n1,2,3,4,5\n", {}, ":3: expected 4 fields, as in the header: got 5"),
        (HEAD + "1,2,3,4\n,2,3,4\n", {}, ":3: user_id is empty"),
        (HEAD + '1,2,3,4\n1,"",3,4\n', {}, ":3: item_id is empty"),
        (HEAD + "1,2,3,4\n1,2\r3,3,4\n", {}, ":3: a carriage return within the line"),
        (HEAD.encode() + b"1,2,3,4\n1,\xff,3,4\n", {}, ":3: not UTF-8"),
        (b"user,item\xff\n1,2\n", {}, ":1: not UTF-8"),
        ('user,"item\n1,2\n', {}, ":1: the header ends within quotes"),
        ("user,item,item\n1,2,3\n", {}, ":1: column item stands twice in the header"),
        (
            HEAD + "1,2,3,4\n",
            {"time": "when"},
            ":1: there is no column 'when': the header has 'user_id', 'item_id', 'rating', "
            "'timestamp'",
        ),
        (
            "a,b\n1,2\n",
            {},
            ":1: no column has a usual name of users: say by user (--user) which of 'a', 'b' it is",
        ),
        (
            "user,user_id,item\n1,2,3\n",
            {},
            ":1: 'user' and 'user_id' may both hold the users: say which does by user (--user)",
        ),
        ("user,item\n1,2\n", {"item": "user"}, ":1: users and items cannot be one column, user"),
        ("user,item\nu,a b\nu,a  b\n", {}, ": items 'a b' and 'a  b' differ only by white space"),
        ("user,item\nu,a\n u,b\n", {}, ": users 'u' and ' u' differ only by white space"),
        ("user,item\nu,a\n \t,b\n", {}, ": users: an id of white space alone: got ' \\t'"),
        ("1::2::3\n", {"format": "movielens"}, ":1: expected 4 fields, user item rating"),
        (gzip.compress(b"user,item\n1,2\n", mtime=0)[:-9], {}, ": not a whole gzip file"),
        (b"\x1f\x8bno", {}, ": not a whole gzip file"),
    ],
)
def test_refused(tmp_path: Path, text: str | bytes, options: Any, message: str) -> None:
    assert fault(tmp_path, text, **options).startswith(message)
    both(lambda: read(tmp_path, text, **options))


def test_files_without_names_of_columns(tmp_path: Path) -> None:
    message = fault(tmp_path, "1 2\n", "data.txt", user="who")
    assert message == ": user (--user) names a column, and files of pairs have no names"


def test_huge_numbers(tmp_path: Path) -> None:
    big = "9" * 5000
    assert "finite" in fault(tmp_path, f"user,item,time\n1,2,{big}\n")
    long = "9" * 300
    found = read(tmp_path, f"user,item,time\n{big},{big},{long}\n1,2,{long[:-1]}8\n")
    assert histories(found) == {big: [big], "1": ["2"]}
    both(lambda: read(tmp_path, f"user,item,time\n1,1,{long}\n1,2,3\n"))


def test_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError):
        read_interactions(tmp_path)
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=("user,item\n1,2\n1,3\n",))
    writer.start()
    found = read_interactions(pipe)
    writer.join()
    assert found.items.tolist() == [1, 2]
    # Nothing is opened a second time: that would wait for a writer.
    with pytest.raises(ValueError, match=r"pipe\.csv: a pipe, and parquet is read from its end"):
        read_interactions(pipe, format="parquet")
    writer = threading.Thread(target=pipe.write_bytes, args=(b"PAR1",))
    writer.start()
    with pytest.raises(ValueError, match=r"pipe\.csv: a pipe, and parquet is read from its end"):
        read_interactions(pipe)
    writer.join()


fields = st.sampled_from(
    ["u", "v", "w", "1", "2", "02", "-3", "", " ", "u ", '"u"', '"a,b"', '"a""b"', '"',
     "2.5", "nan",
     "1e3", "2020-01-01", "2020-01-01T10:00Z", "\r", "é", "9" * 25, "x" * 30]
)  # fmt: skip
rows = st.lists(st.lists(fields, min_size=2, max_size=4), max_size=6)
good = st.lists(
    st.tuples(
        st.sampled_from("uvw"), st.sampled_from(["a", "b", '"c,d"', "7"]), st.integers(-9, 9)
    ),
    min_size=1,
    max_size=12,
)


@given(good=good, rows=rows, skip=st.booleans(), place=st.integers(0, 12))
def test_fast_and_careful_agree(
    tmp_path_factory: pytest.TempPathFactory,
    good: list[tuple[str, str, int]],
    rows: list[list[str]],
    skip: bool,
    place: int,
) -> None:
    path = tmp_path_factory.mktemp("data") / "data.csv"
    lines = [f"{user},{item},{time}" for user, item, time in good]
    lines[place:place] = [",".join(row) for row in rows]
    path.write_bytes(("user,item,time\n" + "\n".join(lines) + "\n").encode())
    both(lambda: read_interactions(path, skip_bad_rows=skip))


@given(
    st.lists(
        st.tuples(*[st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1)] * 2),
        min_size=1,
        max_size=8,
    )
)
def test_what_csv_writes_is_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("data") / "data.csv"
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("user", "item"), *rows])
    path.write_text(text.getvalue(), encoding="utf-8", newline="")
    found = both(lambda: read_interactions(path))
    if not isinstance(found, str):  # ids of white space, or that differ by it
        expected: dict[Any, list[Any]] = {}
        for user, item in rows:
            expected.setdefault(user, []).append(item)
        as_text = {str(user): [str(item) for item in items] for user, items in found[0].items()}
        assert as_text == expected


# Parquet.


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")

    def write(name: str = "data.parquet", **columns: Any) -> Path:
        path = tmp_path / name
        pq.write_table(pa.table(columns), path)
        return path

    return write


def test_parquet(write: Callable[..., Path]) -> None:
    import pyarrow as pa

    users, items = ["u", "v", "u"], ["a", "b", "b"]
    for times in (
        [30, 5, 10],
        [3.5, 0.5, 1.0],
        ["30", "5", "10"],
        ["2020-01-03", "2020-01-01", "2020-01-02"],
        pa.array([30, 5, 10], pa.timestamp("ms")),
        pa.array([30, 5, 10], pa.timestamp("us", tz="Europe/Paris")),
        pa.array([30, 5, 10], pa.date32()),
    ):
        found = read_interactions(write(user_id=users, item_id=items, timestamp=times))
        assert histories(found) == {"u": ["b", "a"], "v": ["b"]}
        assert found.times is not None
    coded = pa.array(users).dictionary_encode()
    found = read_interactions(write("data.bin", who=coded, item=items), user="who")
    assert histories(found) == {"u": ["a", "b"], "v": ["b"]}
    assert found.report.is_order_trusted
    found = read_interactions(write(user=[7, 3, 7], item=[-1, 5, 5]))
    assert histories(found) == {3: ["5"], 7: ["-1", "5"]}


def test_parquet_rows_that_cannot_be_used(write: Callable[..., Path]) -> None:
    path = write(user=["u", None, "u", "v"], item=["a", "b", "", "b"], time=[1.0, 2, 3, 4])
    with pytest.raises(ValueError, match=r"data\.parquet: row 2: user is empty$"):
        read_interactions(path)
    found = read_interactions(path, skip_bad_rows=True)
    assert histories(found) == {"u": ["a"], "v": ["b"]}
    assert found.report.skipped == 2
    path = write(user=["u", "u"], item=["a", "b"], time=[1.0, float("nan")])
    with pytest.raises(ValueError, match=r"row 2: time must be finite: got 'nan'$"):
        read_interactions(path)
    path = write(user=["u", "u"], item=["a", "b"], time=["1", "2020-01-01"])
    with pytest.raises(ValueError, match=r"row 2: time must be a number as in the rows before"):
        read_interactions(path)
    path = write(user=["u", "u"], item=["a", "b"])
    ids = IdMap(("u",), ("b",))
    with pytest.raises(ValueError, match=r"row 1: item is not in the id map: got 'a'$"):
        read_interactions(path, id_map=ids)
    assert read_interactions(path, id_map=ids, skip_bad_rows=True).items.tolist() == [1]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"user": [1.5], "item": [1]}, "ids are integers or texts: column user is of double"),
        ({"user": [True], "item": [1]}, "ids are integers or texts: column user is of bool"),
        ({"user": [1], "item": [1], "time": [True]}, "times are numbers or dates: column time is"),
        ({"user": [1], "thing": [1]}, "no column has a usual name of items"),
        ({"user": [], "item": []}, "ids are integers or texts: column user is of null"),
    ],
)
def test_parquet_columns(write: Callable[..., Path], columns: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_interactions(write(**columns))


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    assert ": not a parquet file: " in fault(tmp_path, "user,item\n1,2\n", format="parquet")
    assert ": not a parquet file: " in fault(tmp_path, b"PAR1no", "data.parquet")
    with pytest.raises(FileNotFoundError):
        read_interactions(tmp_path / "absent.parquet")


def test_parquet_without_pyarrow(write: Callable[..., Path], monkeypatch: Any) -> None:
    path = write(user=[1], item=[1])
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtra, match=r'pyarrow is not installed: pip install ".*\[data\]"'):
        read_interactions(path)
