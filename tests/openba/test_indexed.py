"""Token files: those of the authors are read and written byte by byte, broken ones are refused."""

import json
import pickle
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from commands import file_size_limited
from lmcore.openba import IndexedDataset, IndexedWriter, choose_dtype
from lmcore.openba.indexed import DTYPES, make_group_index

ids = st.lists(st.integers(0, 65_000), max_size=9)
items = st.lists(st.tuples(ids, ids, st.booleans()), max_size=12)


def read(data: IndexedDataset) -> list[dict[str, Any]]:
    """What a file holds, as the golden JSON tells it."""
    tasks = dict.fromkeys(data.span_corruption.tolist(), "span-corruption")
    tasks |= dict.fromkeys(data.multi_task.tolist(), "multi-task")
    return [
        {"task": tasks[number], "source": item.source.tolist(), "target": item.target.tolist()}
        for number, item in enumerate(data[index] for index in range(len(data)))
    ]


# The authors' files.


def test_the_authors_file_is_read_and_written(golden_dir: Path, tmp_path: Path) -> None:
    paths = sorted((golden_dir / "indexed").glob("*.json"))
    assert paths
    for path in paths:
        prefix = path.with_suffix("")
        content = json.loads(path.read_text())
        assert read(IndexedDataset(prefix)) == content
        with IndexedWriter(tmp_path / "copy", vocabulary_size=250_203) as writer:
            for item in content:
                writer.add(item["source"], item["target"], task=item["task"])
        for ending in ("bin", "idx"):
            own = (tmp_path / f"copy.{ending}").read_bytes()
            assert own == prefix.with_suffix(f".{ending}").read_bytes()


# Laws.


@given(content=items, size=st.sampled_from([65_499, 65_500, 2**31]))
@settings(max_examples=40)
def test_what_was_written_is_read(
    tmp_path_factory: pytest.TempPathFactory, content: list[Any], size: int
) -> None:
    prefix = tmp_path_factory.mktemp("laws") / "corpus"
    expected = []
    with IndexedWriter(prefix, vocabulary_size=size) as writer:
        for source, target, is_task in content:
            task = "multi-task" if is_task else "span-corruption"
            writer.add(source, target, task=task)
            expected.append({"task": task, "source": source, "target": target})
    data = IndexedDataset(prefix, vocabulary_size=size)
    assert read(data) == expected
    assert data.dtype == ("uint16" if size < 65_500 else "int32")
    assert read(pickle.loads(pickle.dumps(data))) == expected
    for index in range(len(data)):
        assert data[index - len(data)].source.tolist() == data[index].source.tolist()
        found = data.read_sources([index, index])
        assert found.tolist() == [data[index].source.tolist()] * 2


@pytest.mark.parametrize("groups", [0, 1, 2, 5])
@pytest.mark.parametrize("dtype", ["uint16", "int32"])
def test_an_index_of_groups_is_that_of_the_writer(tmp_path: Path, groups: int, dtype: str) -> None:
    size = 1000 if dtype == "uint16" else 100_000
    with IndexedWriter(tmp_path / "a", vocabulary_size=size) as writer:
        for group in range(groups):
            writer.add(np.arange(7) + group)
    content = b"".join(make_group_index(groups, 7, dtype))
    assert content == (tmp_path / "a.idx").read_bytes()
    data = IndexedDataset(tmp_path / "a")
    order = np.arange(groups)[::-1]
    assert data.read_sources(order).tolist() == (np.arange(7) + order[:, None]).tolist()


def test_items_are_views_that_cannot_be_written(tmp_path: Path) -> None:
    with IndexedWriter(tmp_path / "a", vocabulary_size=10) as writer:
        writer.add([1, 2, 3])
    source, target = IndexedDataset(tmp_path / "a")[0]
    assert target.size == 0
    with pytest.raises(ValueError, match="read-only"):
        source[0] = 5


def test_sources_of_one_length_are_a_table(tmp_path: Path) -> None:
    for name, items in (
        ("even", [([5, 6], ()), ([7, 8], ())]),
        ("uneven", [([5, 6], ()), ([7], ())]),
        ("targets", [([5, 6], [1]), ([7, 8], [1])]),
    ):
        with IndexedWriter(tmp_path / name, vocabulary_size=9) as writer:
            for source, target in items:
                writer.add(source, target)
    table = IndexedDataset(tmp_path / "even").table
    assert table is not None
    assert table.tolist() == [[5, 6], [7, 8]]
    assert not table.flags.writeable
    assert IndexedDataset(tmp_path / "uneven").table is None
    assert IndexedDataset(tmp_path / "targets").table is None


def test_types_change_where_megatron_changes_them() -> None:
    assert [choose_dtype(size).name for size in (1, 65_499, 65_500)] == ["uint16"] * 2 + ["int32"]
    for size in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match=r"^vocabulary_size must be from 1 to 2\*\*31: got"):
            choose_dtype(size)


# Bad input.


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    with IndexedWriter(tmp_path / "a", vocabulary_size=100) as writer:
        writer.add([5, 6, 7])
        writer.add([8, 9], [99])
    return tmp_path / "a"


def change(path: Path, place: int, content: bytes) -> None:
    data = bytearray(path.read_bytes())
    data[place : place + len(content)] = content
    path.write_bytes(data)


HEADERS = [
    (0, b"TNTIDX\0\0\0", r"a\.idx: not an index of tokens: it begins with b'TNTIDX"),
    (9, struct.pack("<Q", 2), r"a\.idx: expected version 1, got 2"),
    (17, b"\x06", r"a\.idx: expected a type of whole numbers, got the code 6"),
    (17, b"\x09", r"a\.idx: expected a type of whole numbers, got the code 9"),
    (17, b"\x04", r"a\.idx: its parts do not lie one behind the other"),
    (18, struct.pack("<Q", 3), r"a\.idx: expected two parts an item, got 3 in all"),
    (18, struct.pack("<Q", 6), r"a\.idx: expected 130 bytes for 6 parts, got 106"),
    (18, struct.pack("<Q", 2**45), r"a\.idx: expected \d+ bytes for 35184372088832 parts, got 106"),
    (26, struct.pack("<Q", 2**64 - 1), r"a\.idx: expected \d+ bytes for 4 parts, got 106"),
    (42, struct.pack("<i", -3), r"a\.idx: a part of -3 tokens"),
    (42, struct.pack("<i", 4), r"a\.idx: its parts do not lie one behind the other"),
    (54, struct.pack("<i", 2), r"a\.bin: expected 14 bytes as .*a\.idx says, got 12"),
    (58, struct.pack("<q", -2), r"a\.idx: its parts do not lie one behind the other"),
    (66, struct.pack("<q", 2**62), r"a\.idx: its parts do not lie one behind the other"),
    (90, struct.pack("<q", 2), r"a\.idx: a span item that is none of its 2 items"),
    (98, struct.pack("<q", -1), r"a\.idx: a multi-task item that is none of its 2 items"),
]


@pytest.mark.parametrize(("place", "content", "reason"), HEADERS)
def test_wrong_indices_are_refused_by_name(
    prefix: Path, place: int, content: bytes, reason: str
) -> None:
    change(prefix.with_suffix(".idx"), place, content)
    with pytest.raises(ValueError, match=reason):
        IndexedDataset(prefix)


def test_every_beginning_is_refused_by_name(prefix: Path) -> None:
    for ending in ("idx", "bin"):
        path = prefix.with_suffix(f".{ending}")
        content = path.read_bytes()
        for end in range(len(content)):
            path.write_bytes(content[:end])
            with pytest.raises(ValueError, match=rf"a\.{ending}: (not an index|expected)"):
                IndexedDataset(prefix)
        path.write_bytes(content + b"\0\0")
        with pytest.raises(ValueError, match=rf"a\.{ending}: expected"):
            IndexedDataset(prefix)
        path.write_bytes(content)
    assert len(IndexedDataset(prefix)) == 2


@pytest.mark.parametrize("ending", ["idx", "bin"])
def test_missing_files(prefix: Path, ending: str) -> None:
    prefix.with_suffix(f".{ending}").unlink()
    with pytest.raises(FileNotFoundError, match=rf"a\.{ending}"):
        IndexedDataset(prefix)


def test_ids_outside_the_vocabulary(prefix: Path) -> None:
    data = IndexedDataset(prefix, vocabulary_size=99)
    assert data[0].source.tolist() == [5, 6, 7]
    with pytest.raises(
        IndexError, match=r"a\.bin: expected ids below 99, got 99 at position 0 of "
    ):
        data[1]
    few = IndexedDataset(prefix, vocabulary_size=7)
    with pytest.raises(IndexError, match=r"expected ids below 7, got 7 at position 2 of item 0$"):
        few.read_sources([0])
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        for bad in ([1, 100], [-1]):
            with pytest.raises(
                IndexError, match=rf"^source: expected ids below 100, got {bad[-1]}$"
            ):
                writer.add(bad)
        with pytest.raises(IndexError, match=r"^target: expected ids below 100, got 100$"):
            writer.add([1], [100])
        writer.add([3])
    assert [item["source"] for item in read(IndexedDataset(prefix))] == [[3]]


def test_bad_arguments(prefix: Path) -> None:
    data = IndexedDataset(prefix)
    for index in (2, -3):
        with pytest.raises(IndexError, match=rf"^item {index} of 2 of .*a$"):
            data[index]
    with pytest.raises(IndexError, match=r"^item -1 of 2 of"):
        data.read_sources([0, -1])
    with pytest.raises(ValueError, match=r"expected items of equal length, got 2 to 3$"):
        data.read_sources([0, 1])
    assert data.read_sources([]).shape == (0, 0)
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        with pytest.raises(ValueError, match=r"^source must have one axis: got 2$"):
            writer.add([[1]])
        with pytest.raises(TypeError, match=r"^source must be of whole numbers: got float64$"):
            writer.add([1.5])
        with pytest.raises(ValueError, match=r"^task must be one of .*: got 'other'$"):
            writer.add([1], task="other")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^groups and length must not be negative: got -1 and 2$"):
        next(make_group_index(-1, 2, "int32"))
    with pytest.raises(ValueError, match=r"^dtype must be one of the format's: got float32$"):
        next(make_group_index(1, 2, "float32"))
    assert all(kind.kind in "iu" for kind in DTYPES.values())


def write(prefix: Path, sources: Iterable[Any]) -> None:
    with IndexedWriter(prefix, vocabulary_size=100) as writer:
        for source in sources:
            writer.add(source)


def test_an_error_leaves_what_was_there(prefix: Path) -> None:
    before = [prefix.with_suffix(f".{ending}").read_bytes() for ending in ("bin", "idx")]
    with pytest.raises(IndexError):
        write(prefix, [[1], [2], [100]])
    with file_size_limited(1000), pytest.raises(OSError, match="File too large") as caught:
        write(prefix, [np.ones(1000, np.int64)] * 100)
    assert caught.value.filename == f"{prefix}.bin"
    assert [prefix.with_suffix(f".{e}").read_bytes() for e in ("bin", "idx")] == before
    assert sorted(path.name for path in prefix.parent.iterdir()) == ["a.bin", "a.idx"]
