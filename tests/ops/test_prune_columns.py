"""`ops.pruning_mask.prune_columns`: every way against numpy, bit for bit, and its gradient."""

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmcore.ops._dispatch import use
from lmcore.ops.pruning_mask import prune_columns

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
WAYS = [
    "core",
    "reference",
    pytest.param(
        "kernel",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("triton") is None, reason="triton is not installed"
        ),
    ),
]
TYPES = [
    torch.float32, torch.bfloat16, torch.float16, torch.float64, torch.float8_e4m3fn, torch.bool,
    torch.uint8, torch.int64, torch.complex64, torch.complex128,
]  # fmt: skip


def run(way: Any, weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    device = GPU if way == "kernel" else torch.device("cpu")
    own = [None if t is None else t.to(device) for t in (weight, rows, columns)]
    with use(way):
        return prune_columns(*own).cpu()  # type: ignore[arg-type]


def bits(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    """Any bits, NaN of all kinds among them."""
    size = torch.empty((), dtype=dtype).element_size()
    generator = torch.Generator().manual_seed(seed)
    most = 2 if dtype == torch.bool else 256
    drawn = torch.randint(0, most, (*shape, size), generator=generator, dtype=torch.uint8)
    return drawn.view(dtype)[..., 0]


def as_bytes(tensor: Tensor) -> Any:
    return tensor.contiguous()[..., None].view(torch.uint8).numpy()


def indices(size: int) -> Any:
    """In any order, as often as they like; None where all are kept."""
    if not size:
        return st.sampled_from([None, []])
    return st.none() | st.lists(st.integers(0, size - 1), max_size=2 * size)


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=25)
@given(st.data(), st.sampled_from(TYPES), st.sampled_from([torch.int64, torch.int32]))
def test_it_keeps_rows_and_columns(
    way: Any, data: st.DataObject, dtype: torch.dtype, kind: torch.dtype
) -> None:
    shape = data.draw(st.tuples(st.sampled_from([0, 1, 5, 17]), st.sampled_from([0, 1, 5, 257])))
    weight = bits(*shape, seed=data.draw(st.integers(0, 9)), dtype=dtype)
    expected = as_bytes(weight)
    kept = [data.draw(indices(size)) for size in shape]
    for axis, own in enumerate(kept):
        if own is not None:
            expected = expected.take(np.array(own, np.int64), axis)
    layout = data.draw(st.sampled_from(["as it is", "turned", "every second"]))
    if layout == "turned":
        weight = weight.T.contiguous().T
    elif layout == "every second":
        weight = torch.stack([weight, weight], 2).flatten(1)[:, ::2]
    tensors = [None if own is None else torch.tensor(own, dtype=kind) for own in kept]
    found = run(way, weight, *tensors)
    assert found.dtype == dtype
    assert found.is_contiguous()
    assert np.array_equal(as_bytes(found), expected)


@pytest.mark.parametrize("way", WAYS)
def test_it_is_new_memory(way: Any) -> None:
    weight = torch.ones(2, 3)
    run(way, weight, None, None).zero_()
    assert weight.all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kept", [(True, True), (True, False), (False, True), (False, False)])
def test_gradients_are_added_where_an_index_stands_twice(way: Any, kept: Any) -> None:
    device = GPU if way == "kernel" else torch.device("cpu")
    weight = torch.randn(4, 5, dtype=torch.float64, device=device, requires_grad=True)
    own = (torch.tensor([3, 0, 3]), torch.tensor([1, 1, 4, 0]))
    rows, columns = (t.to(device) if keeps else None for t, keeps in zip(own, kept, strict=True))
    with use(way):
        assert torch.autograd.gradcheck(lambda w: prune_columns(w, rows, columns), weight)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_the_operator_is_what_torch_expects() -> None:
    kernels = pytest.importorskip("lmcore.kernels.pruning_mask")
    weight = torch.randn(4, 5, device=GPU, requires_grad=True)
    rows, columns = torch.tensor([3, 0, 3], device=GPU), torch.tensor([1, 4], device=GPU)
    torch.library.opcheck(kernels.prune_columns, (weight, rows, columns))
    torch.library.opcheck(kernels.prune_columns, (weight, None, columns))


@pytest.mark.parametrize("way", WAYS)
def test_one_graph(way: Any) -> None:
    device = GPU if way == "kernel" else torch.device("cpu")
    weight = torch.randn(4, 5, device=device)
    own = (torch.tensor([3, 0, 3], device=device), torch.tensor([1, 4], device=device))
    with use(way):
        compiled = torch.compile(prune_columns, fullgraph=True, backend="aot_eager")
        assert torch.equal(compiled(weight, *own), prune_columns(weight, *own))


def test_other_numbers_of_rows_compile_nothing_anew() -> None:
    pytest.importorskip("lmcore.kernels.pruning_mask")
    graphs = 0

    def count(graph: Any, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    weight = torch.randn(9, 8, device=GPU, requires_grad=True)
    torch.compiler.reset()
    with use("kernel"):
        compiled = torch.compile(prune_columns, fullgraph=True, dynamic=True, backend=count)
        for kept in (2, 5, 7):
            rows = torch.arange(kept, device=GPU)
            assert torch.equal(compiled(weight, rows, rows), weight[:kept, :kept])
    assert graphs == 1


W, R, C = torch.ones(4, 5), torch.tensor([3]), torch.tensor([4])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((W[0], R, C), ValueError, "weight must have the shape [any, any]: got [5]"),
        ((W, R[None], C), ValueError, "rows must have the shape [any]: got [1, 1]"),
        ((W, R, C > 0), TypeError, "columns must be of int64 or int32: got torch.bool"),
        ((W, R, C.short()), TypeError, "columns must be of int64 or int32: got torch.int16"),
        ((W, C, R), IndexError, "rows must be at least 0 and below 4: got 4"),
        ((W, None, torch.tensor([0, -1])), IndexError,
         "columns must be at least 0 and below 5: got -1"),
        ((W[:0], R, None), IndexError, "rows must be at least 0 and below 0: got 3"),
        ((W, R.to("meta"), None), ValueError, "tensors must be on one device: got cpu, meta"),
    ],
)  # fmt: skip
@pytest.mark.skipif(GPU.type == "cuda", reason="a failed assertion ends the use of a device")
def test_arguments_that_do_not_fit(way: Any, arguments: Any, kind: Any, text: str) -> None:
    with use(way), pytest.raises(kind) as error:
        prune_columns(*arguments)
    assert str(error.value) == text


@pytest.mark.skipif(GPU.type == "cuda", reason="a failed assertion ends the use of a device")
def test_a_device_asserts_what_nobody_looked_at() -> None:
    kernels = pytest.importorskip("lmcore.kernels.pruning_mask")
    with pytest.raises(RuntimeError, match="rows must be at least 0 and below 4"):
        kernels.prune_columns(W, torch.tensor([4]), None)
    with pytest.raises(RuntimeError, match="columns must be at least 0 and below 5"):
        kernels.prune_columns(W, None, torch.tensor([-1]))
