"""What a reader must not take in silence: times, digits, separators, counts, keys."""

import json
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmcore._json import parse_json, read_json
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import make_interactions
from lmcore.recsys.ids import IdMap
from lmcore.recsys.loading import load_model
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.reading import read_interactions


def write_times(path: Path, times: list[str]) -> Path:
    """One user with an item for each time, from 1 in the order of the file."""
    head = "user_id:token\titem_id:token\ttimestamp:float\n"
    rows = "".join(f"u\t{item}\t{time}\n" for item, time in enumerate(times, 1))
    path.write_text(head + rows, encoding="utf-8")
    return path


def read_order(path: Path) -> list[int]:
    data = read_interactions(path)
    ids: Any = data.item_ids
    return [int(ids[item - 1]) for item in data.items]


# Times.

NEAR = 2**53
CLOSE: dict[str, list[str]] = {
    "integers": [str(NEAR + n) for n in (2, 1, 3, 0)],
    "integers above 64 bits": [str(2**80 + n) for n in (2, 1, 3, 0)],
    "nanoseconds": [f"1700000000.12345678{n}" for n in (3, 2, 4, 1)],
    "one that is no integer": [str(NEAR + 1), str(NEAR), "0.5", str(NEAR + 2)],
    "one above 64 bits": [str(NEAR + 1), str(NEAR), str(2**70), "-1"],
    "exponents": ["9007199254740993e0", "9007199254740992e0", "9007199254740994e0", "1"],
    "small": ["3e-320", "2e-320", "1e-322", "0"],
    "nearly zero": ["1e-999999", "0", "2e-999999", "-1e-999999"],
    "negative": [f"-{NEAR + n}" for n in (2, 3, 0, 1)],
    "equal": ["1.0", "1", "1.00", "0.5"],
    "short": ["2.5", "1.5", "3", "-1"],
}


@pytest.mark.parametrize("name", CLOSE)
@pytest.mark.parametrize("careful", [False, True])
def test_times_keep_their_order(tmp_path: Path, name: str, careful: bool) -> None:
    """Also where float64 has one number for two of them."""
    times = CLOSE[name]
    path = write_times(tmp_path / "a.inter", times)
    if careful:  # an empty line takes the way row by row
        path.write_text(path.read_text() + "\n")
    order = sorted(range(4), key=lambda i: Decimal(times[i]))
    assert read_order(path) == [i + 1 for i in order]


@given(
    st.lists(
        st.one_of(
            st.integers(-(10**22), 10**22).map(str),
            st.decimals(-(10**12), 10**12, places=9).map(lambda d: f"{d:f}"),
            st.floats(allow_nan=False, allow_infinity=False).map(repr),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_any_times_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory, times: list[str]
) -> None:
    path = write_times(tmp_path_factory.mktemp("times") / "a.inter", times)
    order = sorted(range(len(times)), key=lambda i: Decimal(times[i]))
    assert read_order(path) == [i + 1 for i in order]


@pytest.mark.parametrize(
    "time",
    [
        "1_0",
        "١٢",
        "１",
        "0x1",
        "1e",
        "e1",
        ".",
        "",
        "+",
        "1 2",
        "1,5",
        "--1",
        "1e1.5",
        "1e-9999999999",
    ],
)
def test_other_times_are_refused(tmp_path: Path, time: str) -> None:
    path = write_times(tmp_path / "a.inter", ["1", time, "2"])
    with pytest.raises(ValueError, match=r"a\.inter:3: timestamp must be a number: got "):
        read_interactions(path)
    data = read_interactions(path, skip_bad_rows=True)
    assert (data.report.skipped, len(data.items)) == (1, 2)


@pytest.mark.parametrize(
    "time", ["nan", "NaN", "inf", "-Infinity", "1e400", "-1e999999999", "1e999"]
)
def test_times_that_are_not_finite_are_refused(tmp_path: Path, time: str) -> None:
    path = write_times(tmp_path / "a.inter", ["1", time])
    with pytest.raises(ValueError, match=r"a\.inter:3: timestamp must be finite: got "):
        read_interactions(path)


def test_many_exact_times(tmp_path: Path) -> None:
    source = random.Random(0)
    times = [f"1700000000.{source.randrange(10**9):09d}" for _ in range(3000)]
    path = write_times(tmp_path / "a.inter", times)
    order = sorted(range(3000), key=lambda i: Decimal(times[i]))
    assert read_order(path) == [i + 1 for i in order]


# Ids and separators.


@pytest.mark.parametrize(
    "row",
    [
        "1 1_0",
        "1 ١٢",
        "1 １",
        "1\u30002",
        "1\xa02",
        "1\u20282 3",
        "1\x0b2",
        "1\x1c2",
        "1 +2",
        "1 2.0",
    ],
    ids=ascii,
)
@pytest.mark.parametrize("kind", ["pairs", "sequences"])
def test_other_digits_and_separators_are_refused(tmp_path: Path, row: str, kind: str) -> None:
    """Python's `split` and `int` take all of these."""
    path = tmp_path / "a.txt"
    path.write_text(f"7 8\n{row}\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.txt:2: "):
        read_interactions(path, format=kind)
    data = read_interactions(path, format=kind, skip_bad_rows=True)
    assert (data.report.skipped, data.user_ids.tolist()) == (1, [7])  # type: ignore[union-attr]


def test_ids_of_recbole_stay_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.inter"
    path.write_text("user_id:token\titem_id:token\n1_0\t١\n10\t1\n", encoding="utf-8")
    data = read_interactions(path)
    assert (data.user_ids, data.item_ids) == (("1_0", "10"), ("١", "1"))


@pytest.mark.parametrize("value", ["1_0", "١٠", " 10", "10.0", "1e1", "+10"])
def test_users_are_asked_for_as_they_are_written(value: str) -> None:
    ids = IdMap(np.array([10]), np.array([1]))
    assert ids.find_users(["10", 10]).tolist() == [1, 1]
    with pytest.raises(ValueError, match="is not in the id map"):
        ids.find_users([value])


# Counts.


@pytest.mark.parametrize("count", [3.5, 3.0, True, "3", np.float64(3), float("nan")], ids=repr)
def test_fractional_counts(count: Any) -> None:
    with pytest.raises(TypeError, match="item_count must be an integer: got "):
        make_interactions([0, 1], [1], count)
    with pytest.raises(TypeError, match="item_count must be an integer: got "):
        IdMap.identity(1, count)
    with pytest.raises(TypeError, match="user_count must be an integer: got "):
        IdMap.identity(count, 1)


def test_counts_out_of_range() -> None:
    for count in (-1, 2**63):
        with pytest.raises(ValueError, match="item_count must be at least 0 and below"):
            IdMap.identity(1, count)
    assert make_interactions([0, 1], [1], np.int64(3)).item_count == 3


# JSON.

BROKEN = {
    '{"users": 1, "items": 2, "users": 3}': "the key 'users' stands twice",
    '{"users": NaN, "items": 2}': "NaN is no number of JSON",
    '{"users": -Infinity, "items": 2}': "-Infinity is no number of JSON",
    '{"users": 1e400, "items": 2}': "1e400 is too large a number",
    "[" * 200_000: "nested too deeply",
    '{"a": ' * 200_000: "nested too deeply",
    '{"users": 1': "",
    "\xff": "",
    "": "",
}


@pytest.mark.parametrize("text", BROKEN, ids=lambda text: ascii(text)[:40])
def test_json_says_one_thing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("latin-1"))
    readers: list[Callable[[Path], Any]] = [IdMap.load, lambda path: read_json(path, "an id map")]
    for read in readers:
        with pytest.raises(ValueError, match=r"a\.json: not an id map: ") as caught:
            read(path)
        assert BROKEN[text] in str(caught.value)


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_other_json_is_read_as_ever(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False)) == value


@pytest.mark.parametrize("change", ['"item_count": 3, "item_count": 4', '"dropout": NaN', "[]"])
def test_configuration_says_one_thing(tmp_path: Path, change: str) -> None:
    SASRecModel(SASRecConfig(item_count=3, hidden_size=8)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    text = path.read_text()
    path.write_text(change if change == "[]" else text.replace("{", "{" + change + ",", 1))
    with pytest.raises(ValueError, match=r"config\.json: not the configuration of a model: "):
        load_model(tmp_path)
