"""`compression.shard_writing`: the same bytes as the definition, whatever the sizes of blocks."""

import errno
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes
from numpy.typing import NDArray

from lmcore import _shards
from lmcore._shards import ShardFile
from lmcore._stored import StoredTensor
from lmcore.compression import shard_writing
from lmcore.compression.cuts import TensorCut, apply_cut
from lmcore.compression.shard_writing import Run, cut_blocks, write_cuts

TYPES = {1: "U8", 2: "BF16", 4: "F32", 8: "I64"}


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Sizes that tensors of a test cross."""
    with monkeypatch.context() as patch:
        patch.setattr(shard_writing, "_BLOCK_BYTES", 24)
        patch.setattr(shard_writing, "_RUN_BYTES", 16)
        patch.setattr(_shards, "_COPY_BYTES", 40)
        yield


def write(tensor: StoredTensor, cut: TensorCut, *, copies: bool = True) -> tuple[bytes, int]:
    """What is written, and how many bytes were told of."""
    told: list[int] = []
    with tempfile.TemporaryFile() as file:
        shard = ShardFile(file.fileno(), told.append)
        shard._can_copy &= copies
        write_cuts(shard, [(tensor, cut)])
        file.seek(0)
        return file.read(), sum(told)


def store(array: NDArray[Any], path: Path | None = None, before: int = 0) -> StoredTensor:
    """An array as a tensor; with a path, as one that lies in a file behind other bytes."""
    if path is not None:
        path.write_bytes(bytes(before) + array.tobytes())
    width = array.dtype.itemsize
    return StoredTensor(
        file=path or Path("none"), dtype=TYPES[width], shape=array.shape,
        elements=array.view(f"V{width}"), offset=None if path is None else before,
    )  # fmt: skip


@st.composite
def cut_arrays(draw: st.DrawFn) -> tuple[NDArray[Any], TensorCut]:
    shape = draw(array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=9))
    dtype = draw(st.sampled_from(["u1", "u2", "u4", "u8"]))
    size = int(np.prod(shape))
    array = np.random.default_rng(size).integers(0, 255, (size, np.dtype(dtype).itemsize), "u1")
    array = array.view(dtype).reshape(shape)
    if draw(st.booleans()):
        array = array.T  # whose rows lie apart
    return array, TensorCut(source="a", target="a", keep=draw(keeps(array.shape)))


@st.composite
def keeps(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[Any, ...]:
    if draw(st.booleans()) and draw(st.booleans()):
        return ()
    keep: list[Any] = []
    for size in shape:
        whole = st.none() | st.just(np.arange(size))
        some = st.lists(st.integers(0, max(0, size - 1)), max_size=12 if size else 0).map(np.array)
        run = st.tuples(st.integers(0, size), st.integers(0, size)).map(
            lambda ends: np.arange(min(ends), max(ends))
        )
        groups = st.permutations(range(size // 2)).map(
            lambda order: (np.array(order[: len(order) // 2 + 1])[:, None] * 2 + [0, 1]).ravel()
        )
        keep.append(draw(whole | some | run | (groups if size > 1 else run)))
    return tuple(keep)


@settings(max_examples=300, deadline=None)
@given(cut_arrays())
def test_bytes_are_those_of_the_definition(case: tuple[NDArray[Any], TensorCut]) -> None:
    array, cut = case
    expected = apply_cut(array, cut).tobytes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "_BLOCK_BYTES", 24)
        patch.setattr(shard_writing, "_RUN_BYTES", 16)
        assert write(store(array), cut) == (expected, len(expected))
    assert write(store(array), cut)[0] == expected


@settings(max_examples=50, deadline=None)
@given(cut_arrays(), st.integers(0, 9), st.booleans())
def test_bytes_are_copied_from_their_place_in_a_file(
    case: tuple[NDArray[Any], TensorCut], before: int, copies: bool
) -> None:
    """By the system, or by us where it cannot; at odd places, too."""
    array, cut = np.ascontiguousarray(case[0]), case[1]
    expected = apply_cut(array, cut).tobytes()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_writing, "_RUN_BYTES", 16)
        patch.setattr(_shards, "_COPY_BYTES", 40)
        tensor = store(array, Path(folder, "a"), before)
        assert write(tensor, cut, copies=copies) == (expected, len(expected))


def test_memory_of_blocks_is_bounded(small_blocks: None) -> None:
    """A block is never larger than its bound, except where one element is; runs are not read."""
    array = np.arange(4 * 5 * 64, dtype=np.uint16).reshape(4, 5, 64).view("V2")
    scattered = np.array([1, 0, 3, 6, 4])
    for keep in [(None, None, scattered), (scattered[:2], None, scattered), (None, scattered[:2])]:
        tensor = array if len(keep) == 3 else array[0].T  # strided
        blocks = list(cut_blocks(tensor, keep))
        assert max(block.nbytes for block in blocks if not isinstance(block, Run)) <= 24


def test_long_runs_of_rows_are_copied_and_others_gathered(small_blocks: None) -> None:
    array = np.arange(40, dtype=np.uint8).reshape(10, 4).view("V1")
    rows = np.array([0, 2, 4, 5, 6, 7, 9, 8, 1, 2, 3, 4, 5])
    found = list(cut_blocks(array, [rows, None]))
    assert [block for block in found if isinstance(block, Run)] == [Run(16, 32), Run(4, 24)]
    assert [len(block) for block in found if not isinstance(block, Run)] == [2, 2]
    assert list(cut_blocks(array, [None, np.arange(4)])) == [Run(0, 40)]


def test_heads_are_moved_as_groups() -> None:
    heads = (np.array([3, 0])[:, None] * 8 + np.arange(8)).ravel()
    axis = shard_writing._Axis.of(heads, 32)
    assert (axis.group, axis.groups.tolist()) == (8, [3, 0])
    assert shard_writing._Axis.of(np.arange(3, 9), 32).run == slice(3, 9)


@pytest.mark.parametrize("reason", ["EXDEV", "ENOSYS", "EINVAL", "zero"])
def test_file_systems_that_cannot_copy(
    reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def copy(*_: Any) -> int:
        calls.append(reason)
        if reason == "zero":
            return 0
        raise OSError(getattr(errno, reason), "cannot")

    monkeypatch.setattr(os, "copy_file_range", copy, raising=False)
    array = np.arange(64, dtype=np.uint16)
    tensor = store(array, tmp_path / "a", 8)
    with tempfile.TemporaryFile() as file:
        shard = ShardFile(file.fileno(), lambda done: None)
        cut = TensorCut(source="a", target="a")
        write_cuts(shard, [(tensor, cut), (tensor, cut)])
        file.seek(0)
        assert file.read() == array.tobytes() * 2
    assert calls == [reason]  # asked once


def test_an_error_of_copying_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(*_: Any) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "copy_file_range", copy, raising=False)
    tensor = store(np.arange(64, dtype=np.uint16), tmp_path / "a")
    with pytest.raises(OSError, match="full"):
        write(tensor, TensorCut(source="a", target="a"))
