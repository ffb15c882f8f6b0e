"""`ops.nearest_embedding`: every way against plain Python, and what is no number at all.

The kernel runs in Triton's interpreter where there is no GPU.
"""

import importlib.util
import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmcore.ops import nearest_embedding as module
from lmcore.ops._dispatch import use
from lmcore.ops.nearest_embedding import nearest_embedding

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
TYPES = [torch.float32, torch.bfloat16, torch.float16]


def run(way: Any, latents: Tensor, table: Tensor, mask: Tensor | None = None) -> Tensor:
    device = GPU if way == "kernel" else torch.device("cpu")
    tensors = [None if t is None else t.to(device) for t in (latents, table, mask)]
    with use(way):
        found = nearest_embedding(*tensors)  # type: ignore[arg-type]
    assert found.dtype == torch.int64
    assert found.shape == latents.shape[:-1]
    return found.cpu()


def plain(latents: Tensor, table: Tensor) -> list[int]:
    """One difference at a time."""
    found = []
    for x in latents.tolist():
        distances = [math.dist(x, w) for w in table.tolist()]
        found.append(distances.index(min(distances)))
    return found


def whole_numbers(*shape: int, seed: int, dtype: torch.dtype) -> Tensor:
    """From -2 to 2: all sums are exact in every type, and there are many ties."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(-2, 3, shape, generator=generator).to(dtype)


# Laws.


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=12)
@given(
    st.sampled_from([0, 1, 3, 127, 128, 129]), st.sampled_from([1, 2, 63, 64, 65, 131]),
    st.sampled_from([1, 2, 5, 16]), st.sampled_from(TYPES), st.integers(0, 99),
)  # fmt: skip
@example(129, 129, 129, torch.float32, 0)
@example(3, 65, 200, torch.bfloat16, 0)
@example(3, 131, 1, torch.float32, 0)
@example(2, 1, 1, torch.bfloat16, 0)
def test_it_is_the_first_of_the_nearest(
    way: Any, positions: int, words: int, size: int, dtype: torch.dtype, seed: int
) -> None:
    latents = whole_numbers(positions, size, seed=seed, dtype=dtype)
    table = whole_numbers(words, size, seed=seed + 1, dtype=dtype)
    assert run(way, latents, table).tolist() == plain(latents, table)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_random_latents_are_rounded_to_what_float64_finds(way: Any, dtype: torch.dtype) -> None:
    """But where two distances differ by less than float32 tells apart."""
    generator = torch.Generator().manual_seed(5)
    latents = torch.randn(70, 19, generator=generator).to(dtype)
    table = torch.randn(200, 19, generator=generator).to(dtype)
    found = run(way, latents, table)
    distances = torch.cdist(latents.double(), table.double()).square()
    excess = distances.gather(1, found[:, None])[:, 0] - distances.amin(1)
    assert excess.max() < 1e-4
    assert (excess == 0).float().mean() > 0.95


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_words_are_nearest_to_themselves(way: Any, dtype: torch.dtype) -> None:
    """The first of those that are the same, whose distance may come out below zero."""
    table = torch.randn(90, 32, generator=torch.Generator().manual_seed(1)).to(dtype) * 3
    table[70] = table[20]
    expected = [20 if word == 70 else word for word in range(90)]
    assert run(way, table, table).tolist() == expected


@pytest.mark.parametrize("way", WAYS)
def test_distances_below_zero_are_zero(way: Any) -> None:
    """Rounding makes one of them zero and the other one less, in any order of the sums."""
    latents, table = torch.tensor([[3575.59375]]), torch.tensor([[3575.703125], [3575.609375]])
    squares = table.square() + latents.square()
    assert (squares - 2 * latents * table).tolist() == [[0.0], [-2.0]]
    assert run(way, latents, table).tolist() == [0]


@pytest.mark.parametrize("way", WAYS)
def test_positions_that_are_left_out(way: Any) -> None:
    latents = whole_numbers(3, 67, 4, seed=1, dtype=torch.float32)
    table = whole_numbers(9, 4, seed=2, dtype=torch.float32)
    mask = torch.rand(3, 67, generator=torch.Generator().manual_seed(3)) > 0.5
    mask[1] = False
    expected = torch.where(mask, run(way, latents, table), -1)
    latents[~mask] = torch.nan
    assert torch.equal(run(way, latents, table, mask), expected)
    assert (run(way, latents, table, torch.zeros_like(mask)) == -1).all()


@pytest.mark.parametrize("way", WAYS)
def test_shapes_and_views(way: Any) -> None:
    latents = whole_numbers(4, 6, 5, seed=1, dtype=torch.float32)
    table = whole_numbers(7, 4, seed=2, dtype=torch.float32)
    turned = latents.transpose(0, 2)
    assert turned.shape == (5, 6, 4)
    expected = run(way, turned.contiguous(), table)
    assert torch.equal(run(way, turned, table), expected)
    assert torch.equal(run(way, turned, table.T.contiguous().T), expected)
    assert torch.equal(run(way, turned.half(), table.half()), expected)
    assert run(way, turned[0, 0], table).tolist() == expected[0, 0].tolist()
    assert run(way, turned[:0], table).shape == (0, 6)
    every_second = run(way, turned[::2], table, (turned[..., 0] > 0)[::2])
    assert torch.equal(every_second, torch.where(turned[..., 0] > 0, expected, -1)[::2])


@pytest.mark.parametrize("way", WAYS)
def test_a_size_of_none_and_gradients(way: Any) -> None:
    """Without features all words are the first one; ids have no gradient."""
    assert run(way, torch.ones(3, 0), torch.ones(2, 0)).tolist() == [0, 0, 0]
    latents = torch.ones(1, 2, requires_grad=True)
    assert not run(way, latents, torch.ones(1, 2, requires_grad=True)).requires_grad


# What is no number. The interpreter computes with numpy, which warns of it.

QUIETLY = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")


@QUIETLY
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_near_nothing(way: Any, dtype: torch.dtype, value: float) -> None:
    latents = whole_numbers(66, 3, seed=1, dtype=dtype)
    table = whole_numbers(70, 3, seed=2, dtype=dtype)
    plain_words = table.clone()
    table[[0, 64]] = torch.tensor([0.0, value, 1.0], dtype=dtype)
    plain_words[[0, 64]] = 99.0
    expected = torch.tensor(plain(latents, plain_words))
    latents[5, 2] = value
    expected[5] = -1
    assert torch.equal(run(way, latents, table), expected)
    assert run(way, latents, table[:1]).tolist() == [-1] * 66


@QUIETLY
@pytest.mark.parametrize("way", WAYS)
def test_distances_beyond_float32(way: Any) -> None:
    latents = torch.tensor([[3e38], [1.0], [1e19]])
    table = torch.tensor([[2e38], [0.5], [-1e19]])
    assert run(way, latents, table).tolist() == [-1, 1, 1]


def test_float64_is_computed_in_float64() -> None:
    latents = torch.tensor([[1e6]], dtype=torch.float64)
    table = torch.tensor([[1e6 + 2], [1e6 + 1]], dtype=torch.float64)
    for way in ("core", "reference", "kernel"):
        assert run(way, latents, table).tolist() == [1]


# Within torch.


@pytest.mark.parametrize("way", WAYS)
def test_autocast_changes_nothing(way: Any) -> None:
    """In bfloat16 the word would be another one."""
    latents, table = torch.tensor([[256.0, 1.0]]), torch.tensor([[256.0, 0.0], [256.0, 0.75]])
    with torch.autocast(GPU.type, torch.bfloat16):
        assert run(way, latents, table).tolist() == [1]


@pytest.mark.parametrize("way", WAYS)
def test_it_compiles_without_a_break(way: Any) -> None:
    torch.compiler.reset()
    device = GPU if way == "kernel" else torch.device("cpu")
    table = whole_numbers(7, 4, seed=2, dtype=torch.float32).to(device)
    compiled = torch.compile(
        lambda *tensors: nearest_embedding(*tensors) + 1, fullgraph=True, backend="aot_eager"
    )
    with use(way):
        for rows in (3, 5):
            latents = whole_numbers(rows, 2, 4, seed=rows, dtype=torch.float32).to(device)
            for mask in (None, latents[..., 0] > 0):
                expected = nearest_embedding(latents, table, mask) + 1
                assert torch.equal(compiled(latents, table, mask), expected)


@pytest.mark.parametrize("way", ["core", *WAYS[2:]])
@pytest.mark.parametrize("masked", [False, True])
def test_torch_knows_the_op(way: Any, masked: bool) -> None:
    device = GPU if way == "kernel" else torch.device("cpu")
    latents = whole_numbers(5, 3, seed=1, dtype=torch.float32).to(device)
    table = whole_numbers(4, 3, seed=2, dtype=torch.float32).to(device)
    mask = latents[:, 0] > 0 if masked else None
    torch.library.opcheck(torch.ops.lmcore.nearest_embedding, (latents, table, mask, way))


# Blocks.


def test_blocks_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = whole_numbers(23, 5, seed=1, dtype=torch.float32)
    table = whole_numbers(31, 5, seed=2, dtype=torch.float32)
    expected = plain(latents, table)
    for positions, words in ((1, 1), (4, 7), (23, 31), (22, 30), (100, 100)):
        monkeypatch.setattr(module, "_POSITIONS", positions)
        monkeypatch.setattr(module, "_WORDS", words)
        assert run("core", latents, table).tolist() == expected


def test_blocks_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    latents = whole_numbers(23, 5, seed=1, dtype=torch.float32)
    table = whole_numbers(31, 5, seed=2, dtype=torch.float32)
    expected = plain(latents, table)
    for block in (1, 62, 23 * 31):
        monkeypatch.setattr(module.reference, "_BLOCK", block)
        assert run("reference", latents, table).tolist() == expected


@pytest.mark.parametrize("shares", [1, 2, 3, 9])
def test_shares_of_the_words(shares: int) -> None:
    kernel = pytest.importorskip("lmcore.kernels.nearest_embedding")
    latents = whole_numbers(5, 3, seed=1, dtype=torch.float32)
    table = whole_numbers(200, 3, seed=2, dtype=torch.float32)
    found = kernel.find_nearest(latents.to(GPU), table.to(GPU), None, shares)
    assert found.tolist() == plain(latents, table)


@pytest.mark.parametrize("size", [3, 200])
def test_columns_beyond_32_bits(size: int) -> None:
    """Of turned matrices, of which only this much is memory that is used."""
    pytest.importorskip("triton")
    step = 2**31 // (size - 1) + 1
    storage = torch.empty((size - 1) * step + 1, dtype=torch.float16, device=GPU)
    latents = storage.as_strided((1, size), (1, step))
    latents.copy_(whole_numbers(1, size, seed=0, dtype=torch.float16))
    table = whole_numbers(6, size, seed=1, dtype=torch.float16).to(GPU)
    table[4] = latents[0]
    for pair in ((latents, table), (table[4:5], latents)):
        assert run("kernel", *pair).tolist() == [4 if pair[1] is table else 0]


# What does not fit.

X, W = torch.ones(2, 3), torch.ones(4, 3)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "kind", "text"),
    [
        ((X.long(), W), TypeError, "latents must be of floating point: got torch.int64"),
        ((X, W.half()), TypeError,
         "table must be of torch.float32 as latents are: got torch.float16"),
        ((X, W[0]), ValueError, "table must have the shape [at least 1, size]: got [3]"),
        ((X, W[:0]), ValueError, "table must have the shape [at least 1, size]: got [0, 3]"),
        ((X[:, :2], W), ValueError, "latents must have the size 3: got the shape [2, 2]"),
        ((X[0, 0], W), ValueError, "latents must have the size 3: got the shape []"),
        ((X, W, torch.ones(2)), TypeError, "mask must be of bool: got torch.float32"),
        ((X, W, torch.ones(2, 1) > 0), ValueError,
         "mask must have the shape [2] of the positions: got [2, 1]"),
        ((X, W.to("meta")), ValueError, "tensors must be on one device: got cpu, meta"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(way: Any, arguments: Any, kind: Any, text: str) -> None:
    with use(way), pytest.raises(kind) as error:
        nearest_embedding(*arguments)
    assert str(error.value) == text
