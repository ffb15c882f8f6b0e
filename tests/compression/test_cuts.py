"""`compression.cuts`: what a cut means."""

import re
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes

from lmcore.compression.cuts import TensorCut, apply_cut, find_shape

TORCH_TYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn,
    torch.float8_e5m2, torch.int64, torch.int8, torch.uint8, torch.uint16, torch.bool,
]  # fmt: skip


def make_cut(*keep: Any) -> TensorCut:
    return TensorCut(source="a", target="b", keep=keep)


@given(st.data())
def test_kept_elements_are_those_of_their_indices(data: st.DataObject) -> None:
    """By the definition of an index, element by element."""
    shape = data.draw(array_shapes(min_dims=0, max_dims=3, max_side=4, min_side=1))
    array = np.arange(int(np.prod(shape)), dtype=np.int16).reshape(shape)
    indices = [
        data.draw(st.none() | st.lists(st.integers(0, size - 1), max_size=5)) for size in shape
    ]
    cut = make_cut(*indices)
    found = apply_cut(array, cut)
    full = [
        range(size) if kept is None else kept for size, kept in zip(shape, indices, strict=True)
    ]
    assert found.shape == find_shape(cut, shape) == tuple(len(kept) for kept in full)
    assert found.dtype == array.dtype
    for place in np.ndindex(*found.shape):
        assert found[place] == array[tuple(full[i][j] for i, j in enumerate(place))]
    assert np.array_equal(apply_cut(torch.from_numpy(array.copy()), cut).numpy(), found)


@pytest.mark.parametrize("dtype", TORCH_TYPES, ids=str)
def test_bits_stay(dtype: torch.dtype) -> None:
    """Of every pattern of bits, also those of no number."""
    width = dtype.itemsize
    high = 2 if dtype == torch.bool else 256
    raw = torch.from_numpy(np.random.default_rng(0).integers(0, high, (6, 5 * width), np.uint8))
    found = apply_cut(raw.view(dtype), make_cut([5, 0, 0], [4, 1]))
    expected = raw.reshape(6, 5, width)[[5, 0, 0]][:, [4, 1]]
    assert found.dtype == dtype
    assert torch.equal(found.view(torch.uint8).reshape(3, 2, width), expected)


@pytest.mark.parametrize("cut", [make_cut(), make_cut(None, None), make_cut([0, 1], None)])
def test_what_is_kept_is_a_copy(cut: TensorCut) -> None:
    array, tensor = np.ones((2, 2)), torch.ones(2, 2)
    apply_cut(array, cut)[:] = 2
    apply_cut(tensor, cut)[:] = 2
    assert array.sum() == tensor.sum() == 4


def test_indices_are_the_cuts_own() -> None:
    indices = np.array([1, 0])
    cut = make_cut(indices)
    indices[0] = 9
    assert apply_cut(np.array([5, 6]), cut).tolist() == [6, 5]
    assert cut.keep[0] is not None
    with pytest.raises(ValueError, match="read-only"):
        cut.keep[0][0] = 9


@pytest.mark.parametrize(
    ("keep", "kind", "text"),
    [
        ([[0, -1]], IndexError, "a: indices of axis 0 must not be negative: got -1"),
        ([None, [0.0]], TypeError, "a: indices of axis 1 must be whole numbers: got float64"),
        ([[True]], TypeError, "a: indices of axis 0 must be whole numbers: got bool"),
        ([[[0]]], ValueError, "a: indices of axis 0 must have one axis: got 2"),
        ([0], ValueError, "a: indices of axis 0 must have one axis: got 0"),
        (
            [np.array([2**63], np.uint64)],
            IndexError,
            "a: indices of axis 0 must be below 2**63: got 9223372036854775808",
        ),
    ],
)
def test_indices_that_are_none(keep: Any, kind: Any, text: str) -> None:
    with pytest.raises(kind) as error:
        make_cut(*keep)
    assert str(error.value) == text


def test_tensors_that_a_cut_does_not_fit() -> None:
    array = np.zeros((2, 3))
    for tensor in (array, torch.from_numpy(array)):
        with pytest.raises(IndexError, match=r"^a: index 3 on axis 1, which has 3 of them$"):
            apply_cut(tensor, make_cut(None, [0, 3]))
        with pytest.raises(ValueError, match=r"^a: the cut has 1 axes, and the tensor \[2, 3\]$"):
            apply_cut(tensor, make_cut([0]))
    for name in ("", "\ud800"):
        text = f"^a tensor has a name, of UTF-8: got {re.escape(repr(name))}$"
        with pytest.raises(ValueError, match=text):
            TensorCut(source=name, target="b")
        with pytest.raises(ValueError, match=text):
            TensorCut(source="a", target=name)
