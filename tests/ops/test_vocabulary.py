"""`ops.vocabulary`: laws of counts, ranks and new ids, and agreement with the definition."""

import gc
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from lmcore.ops.vocabulary import count_ids, rank_ids, remap_ids
from lmcore.reference import vocabulary as reference
from parity import agree

DTYPES = ["uint16", "uint32", "int32", "int64"]
NEW = ["uint16", "int32", "int64"]
SIZES = st.sampled_from([1, 2, 7, 8, 9, 250])


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], int, str]:
    """Ids of one type, mostly of a vocabulary, and its size."""
    dtype = draw(st.sampled_from(DTYPES))
    bounds = np.iinfo(dtype)
    size = draw(SIZES)
    wild = st.sampled_from([-1, -size, size, size + 1, bounds.min, bounds.max, 1 << 32, 1 << 31])
    known = st.one_of(st.integers(0, size - 1), st.integers(0, min(2, size - 1)))
    token = known if draw(st.booleans()) else st.one_of(known, known, wild)
    ids = draw(st.lists(token, max_size=40))
    return [k for k in ids if bounds.min <= k <= bounds.max], size, dtype


def counts_of(ids: Any, size: int, dtype: str = "int64", **options: Any) -> tuple[list[int], int]:
    counts, unknown = count_ids(np.array(ids, dtype=dtype), size, **options)
    assert counts.dtype == np.int64
    return counts.tolist(), unknown


def new_ids(
    ids: list[int], table: list[int], *, of: str = "int64", fill: int | None, dtype: str
) -> tuple[list[int], int, list[int], list[int]]:
    found = remap_ids(np.array(ids, of), table, fill=fill, dtype=dtype, report=True)
    assert found.ids.dtype == dtype
    assert (found.lost_ids.dtype, found.lost_counts.dtype) == (np.int64, np.int64)
    return found.ids.tolist(), found.lost, found.lost_ids.tolist(), found.lost_counts.tolist()


# Laws.


@given(cases(), st.integers(0, 40))
def test_counts_are_those_of_a_counter(case: tuple[list[int], int, str], cut: int) -> None:
    ids, size, dtype = case
    counts, unknown = counts_of(ids, size, dtype, unknown=True)
    expected = Counter(ids)
    assert counts == [expected[token] for token in range(size)]
    assert sum(counts) + unknown == len(ids)
    # Parts add up, whatever the shape.
    total = np.zeros(size, np.int64)
    for part in (ids[:cut], ids[cut:]):
        count_ids(np.array(part, dtype).reshape(-1, 1), size, unknown=True, out=total)
    assert total.tolist() == counts


@given(st.lists(st.integers(0, 3), max_size=60), st.randoms(use_true_random=False))
def test_ranks_fall_and_ties_go_by_id(counts: list[int], source: Any) -> None:
    ranked = rank_ids(counts).tolist()
    assert sorted(ranked) == list(range(len(counts)))
    keys = [(-counts[token], token) for token in ranked]
    assert keys == sorted(keys)


@given(cases(), st.sampled_from(NEW))
def test_a_table_and_back_is_the_same(case: tuple[list[int], int, str], dtype: str) -> None:
    ids, size, _ = case
    ids = [token % size for token in ids]
    order = np.random.default_rng(size).permutation(size)
    there = remap_ids(ids, order, dtype=dtype).ids
    assert remap_ids(there, np.argsort(order), dtype=dtype).ids.tolist() == ids
    assert there.tolist() == order[ids].tolist()


@given(cases(), st.data())
def test_what_is_lost_is_counted(case: tuple[list[int], int, str], data: st.DataObject) -> None:
    ids, size, dtype = case
    kept = data.draw(st.sets(st.integers(0, size - 1)))
    table = np.full(size, -1)
    table[sorted(kept)] = np.arange(len(kept))
    found = remap_ids(np.array(ids, dtype), table, fill=-100, report=True)
    lost = Counter(token for token in ids if token not in kept)
    assert found.lost == lost.total()
    assert dict(zip(found.lost_ids.tolist(), found.lost_counts.tolist(), strict=True)) == lost
    assert (found.ids == -100).sum() == found.lost


def many_ids(dtype: str) -> NDArray[Any]:
    """More than a block, half of them the same id."""
    ids = np.random.default_rng(0).integers(0, 900, 2_500_003)
    ids[::2] = 5
    return ids.astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_arrays_are_those_of_numpy(dtype: str) -> None:
    ids = many_ids(dtype)
    table = np.random.default_rng(1).permutation(900)
    counts, expected = np.bincount(ids, minlength=900), table[ids]
    for threads in (1, 2, 3):
        assert (count_ids(ids, 900, threads=threads).counts == counts).all()
        for new in NEW:
            assert (remap_ids(ids, table, dtype=new, threads=threads).ids == expected).all()


def test_any_number_of_threads_gives_the_same_report() -> None:
    ids = many_ids("int32")
    ids[1_700_000:1_700_900] = np.arange(-500, 400) * 1_000_003
    table = np.where(np.arange(900) % 3 == 0, -1, np.arange(900))
    one, two, five = (
        remap_ids(ids, table, fill=7, report=True, threads=threads) for threads in (1, 2, 5)
    )
    for other in (two, five):
        for mine, theirs in zip(one, other, strict=True):
            assert np.array_equal(mine, theirs)
    assert one.lost == ((ids < 0) | (ids >= 900) | (ids % 3 == 0)).sum()
    assert len(one.lost_ids) > 1000


# Arrays.


def test_mapped_files_are_read_and_written_where_they_lie(tmp_path: Path) -> None:
    ids = many_ids("uint16")[:2_499_994].reshape(-1, 7)
    ids.tofile(tmp_path / "ids")
    mapped = np.memmap(tmp_path / "ids", np.uint16, "r").reshape(-1, 7)
    assert (count_ids(mapped, 900).counts == np.bincount(ids.ravel(), minlength=900)).all()
    out = np.memmap(tmp_path / "out", np.uint16, "w+", shape=mapped.shape)
    found = remap_ids(mapped, np.arange(900)[::-1], out=out)
    assert found.ids is out
    del found, out
    gc.collect()
    assert (np.fromfile(tmp_path / "out", np.uint16) == 899 - ids.ravel()).all()


def test_views_and_other_orders_of_bytes() -> None:
    ids = np.arange(24).reshape(4, 6) % 5
    expected = [5, 5, 5, 5, 4]
    odd = np.frombuffer(b"\0" + ids.tobytes(), np.int64, offset=1)
    for array in (ids.T, ids[::-1], ids.astype(">i4"), odd, ids.astype("u1"), ids.astype("u8")):
        assert count_ids(array, 5).counts.tolist() == expected
        moved = remap_ids(array, [1, 2, 3, 4, 0])
        assert moved.ids.tolist() == ((array.astype(np.int64) + 1) % 5).tolist()
    assert count_ids(np.zeros((3, 0), np.int32), 2).counts.tolist() == [0, 0]
    assert remap_ids(np.zeros((3, 0), np.int32), [0]).ids.shape == (3, 0)
    assert count_ids(np.int32(1), 2).counts.tolist() == [0, 1]


# Bad input.


@given(cases(), st.booleans())
def test_counts_agree(case: tuple[list[int], int, str], unknown: bool) -> None:
    ids, size, dtype = case

    def op(ids: list[int], size: int, unknown: bool) -> tuple[list[int], int]:
        return counts_of(ids, size, dtype, unknown=unknown)

    agree(
        lambda ids, size, unknown: reference.count_ids(ids, size, unknown=unknown),
        op, ids, size, unknown,
    )  # fmt: skip


@given(st.lists(st.integers(-2, 5), max_size=20))
def test_ranks_agree(counts: list[int]) -> None:
    agree(reference.rank_ids, lambda counts: rank_ids(counts).tolist(), counts)


@given(
    cases(),
    st.lists(st.sampled_from([-2, -1, -1, 0, 3, 65_535, 65_536, 2**31 - 1, 2**31]), max_size=9),
    st.sampled_from(
        [None, None, 0, -1, -100, 65_535, 65_536, -(2**31), 2**31 - 1, 2**31, 2**63 - 1, -(2**63)]
    ),
    st.sampled_from(NEW),
)
def test_new_ids_agree(
    case: tuple[list[int], int, str], table: list[int], fill: int | None, dtype: str
) -> None:
    ids, _, of = case
    agree(
        lambda ids: reference.remap_ids(ids, table, fill=fill, dtype=dtype),
        lambda ids: new_ids(ids, table, of=of, fill=fill, dtype=dtype),
        ids,
    )


def test_places_of_several_axes_are_named() -> None:
    ids = np.array([[0, 1, 2], [3, 9, -4]])
    text = r"^ids\[1, 1\] must be at least 0 and below 9: got 9, the first of 2 outside$"
    with pytest.raises(IndexError, match=text):
        count_ids(ids, 9)
    text = r"^ids\[0, 2\] must have a new id in the table: got 2, the first of 4 without$"
    with pytest.raises(IndexError, match=text):
        remap_ids(ids, [5, 6])


def test_counts_stay_as_they_were_after_an_error() -> None:
    counts = np.array([4, 4])
    with pytest.raises(IndexError):
        count_ids([0, 1, 2], 2, out=counts)
    assert counts.tolist() == [4, 4]


def test_bad_arguments() -> None:
    for size in (0, -1, 2**31 + 1):
        with pytest.raises(ValueError, match=r"^vocabulary_size must be at least 1 and at most "):
            count_ids([0], size)
    with pytest.raises(TypeError, match=r"^ids must be integers: got float64$"):
        count_ids([0.5], 2)
    with pytest.raises(ValueError, match=r"^ids\[1\] must be at least -2\*\*63 and below 2\*\*63"):
        count_ids(np.array([0, 2**64 - 1], np.uint64), 2)
    with pytest.raises(ValueError, match=r"^out must have the shape \[2\]: got \[3\]$"):
        count_ids([0], 2, out=np.zeros(3, np.int64))
    with pytest.raises(TypeError, match=r"^counts must be an array of int64: got int32$"):
        count_ids([0], 2, out=np.zeros(2, np.int32))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^out must have the shape of ids, \[1\]: got \[2\]$"):
        remap_ids([0], [0], out=np.zeros(2, np.int32))
    with pytest.raises(TypeError, match=r"^out must be an array of int32, uint16 or int64: got "):
        remap_ids([0], [0], out=np.zeros(1, np.int8))
    with pytest.raises(ValueError, match=r"^dtype must be one of uint16, int32, int64: got "):
        remap_ids([0], [0], dtype="int8")
    with pytest.raises(TypeError, match=r"^fill must be an int or None: got float$"):
        remap_ids([0], [0], fill=0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^out must be contiguous, in C order$"):
        remap_ids([0, 0], [0], out=np.zeros(4, np.int32)[::2])
    with pytest.raises(ValueError, match=r"^out must be writeable$"):
        remap_ids([0], [0], out=np.frombuffer(b"1234", np.int32))


# Real counts.


def test_the_share_of_the_most_frequent_pieces(data_dir: Path) -> None:
    pairs = np.loadtxt(data_dir / "tok/openba_vocab_freq.txt", dtype=np.int64)
    counts = np.zeros(pairs[:, 0].max() + 1, np.int64)
    counts[pairs[:, 0]] = pairs[:, 1]
    ranked = counts[rank_ids(counts)]
    shares = [100 * ranked[:kept].sum() / ranked.sum() for kept in (25_000, 50_000, 120_000)]
    assert [round(share, 3) for share in shares] == [95.815, 98.803, 99.910]
