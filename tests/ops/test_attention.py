"""`ops.attention`: every way against torch's own and plain sums, and laws of what is hidden.

The kernel runs in Triton's interpreter where there is no GPU; `test_attention_kernel.py` compares
it with the definition, gradients included.
"""

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional

from attention_cases import WAYS, differentiate, draw, make_heads, make_rope, run
from lmcore.ops import attention as module
from lmcore.ops._dispatch import use
from lmcore.ops.attention import attention
from lmcore.ops.philox import random_bits
from lmcore.reference import attention as reference
from lmcore.reference.philox import Stream, philox4x32

CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def numbers(*values: int) -> Tensor:
    return torch.tensor(values)


# What others compute.


def plain(
    query: Tensor, key: Tensor, value: Tensor, visible: list[list[bool]], bias: Tensor | None
) -> list[list[float]]:
    """One head, one score at a time."""
    found = []
    for i, q in enumerate(query.tolist()):
        weights = {}
        for j, k in enumerate(key.tolist()):
            if visible[i][j]:
                score = sum(a * b for a, b in zip(q, k, strict=True)) / math.sqrt(len(q))
                added = 0.0 if bias is None else bias[j - i + len(query) - 1].item()
                weights[j] = math.exp(score + added)
        total = sum(weights.values())
        found.append([
            sum(weight / total * value[j, e].item() for j, weight in weights.items())
            for e in range(len(q))
        ])  # fmt: skip
    return found


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=8)
@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(0, 6), st.integers(0, 6), st.booleans(),
    st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_it_is_its_sum(
    way: Any, queries: int, keys: int, start: int, length: int, causal: bool, biased: bool,
    seed: int,
) -> None:  # fmt: skip
    query, key, value = make_heads(1, 1, 1, queries, keys, 4, seed)
    bias = draw(1, queries + keys - 1, seed=seed + 5) if biased else None
    found = run(
        way, query, key, value, key_starts=numbers(start), key_lengths=numbers(length),
        causal=causal, bias=bias,
    )  # fmt: skip
    visible = [
        [start <= j < start + length and (not causal or j <= keys - queries + i)
         for j in range(keys)]
        for i in range(queries)
    ]  # fmt: skip
    table = None if bias is None else bias[0]
    expected = plain(query[0, 0], key[0, 0], value[0, 0], visible, table)
    torch.testing.assert_close(found[0, 0], torch.tensor(expected).float(), **CLOSE)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("queries", "keys"), [(20, 20), (7, 66), (66, 7)])
@pytest.mark.parametrize("causal", [False, True])
def test_it_is_torch_attention(way: Any, queries: int, keys: int, causal: bool) -> None:
    """With a mask of queries x keys in place of the lengths."""
    tensors = make_heads(2, 4, 2, queries, keys, 16)
    lengths = numbers(keys, 3)
    found = run(way, *tensors, key_lengths=lengths, causal=causal)
    mask = (torch.arange(keys) < lengths[:, None])[:, None, None, :]
    if causal:
        mask = mask & torch.ones(queries, keys, dtype=torch.bool).tril(keys - queries)
    expected = functional.scaled_dot_product_attention(*tensors, mask, enable_gqa=True)
    torch.testing.assert_close(found, expected.nan_to_num(), **CLOSE)


@pytest.mark.parametrize("way", WAYS)
def test_rope_turns_pairs_of_dimensions(way: Any) -> None:
    """As complex numbers: the upper half of a head is the imaginary part."""
    tensors = make_heads(1, 2, 1, 3, 5, 8)
    rates = 100.0 ** (-torch.arange(0, 8, 2) / 8)

    def turn(x: Tensor, first: int) -> Tensor:
        places = torch.arange(first, 5)[:, None]
        turned = torch.complex(*x.chunk(2, -1)) * torch.polar(torch.ones(4), places * rates)
        return torch.cat([turned.real, turned.imag], -1)

    query, key, value = tensors
    expected = run("reference", turn(query, 2), turn(key, 0), value, causal=True)
    for rope in (make_rope(9, 8), tuple(table[None, :5] for table in make_rope(9, 8))):
        found = run(way, *tensors, causal=True, rope=rope)
        torch.testing.assert_close(found, expected, **CLOSE)


# Laws.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, 7.0])
def test_what_is_hidden_does_not_matter(way: Any, causal: bool, value: float) -> None:
    tensors = make_heads(2, 2, 1, 9, 9, 8)
    ranges = {
        "query_starts": numbers(2, 0), "query_lengths": numbers(4, 9),
        "key_starts": numbers(3, 0), "key_lengths": numbers(5, 0),
    }  # fmt: skip
    options: dict[str, Any] = {**ranges, "causal": causal, "bias": draw(2, 17)}
    if way == "kernel":
        options["head_mask"] = draw(2, seed=5)
    expected = differentiate(way, *tensors, **options)
    for name, tensor in zip(("query", "key", "value"), tensors, strict=True):
        kind = "query" if name == "query" else "key"
        for row in range(2):
            start = ranges[f"{kind}_starts"][row]
            end = start + ranges[f"{kind}_lengths"][row]
            tensor[row, :, :start] = value
            tensor[row, :, end:] = value
            gradient = expected[name]
            assert gradient is not None
            assert not gradient[row, :, :start].any()
            assert not gradient[row, :, end:].any()
    found = differentiate(way, *tensors, **options)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        assert tensor is not None
        assert torch.equal(tensor, expected[name]), name
    assert not found["out"][1].any()  # type: ignore[index]
    assert not found["out"][0, :, :2].any()  # type: ignore[index]
    assert found["out"][0].any()  # type: ignore[index]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [torch.int32, torch.int64])
def test_padding_may_stand_on_either_side(way: Any, kind: torch.dtype) -> None:
    """A row that is moved within its tensor has the same output, moved."""
    tensors = make_heads(2, 2, 2, 12, 12, 8)
    lengths = torch.tensor([5, 12], dtype=kind)
    starts = 12 - lengths
    shifts = starts.tolist()
    moved = [
        torch.stack([row.roll(shift, 1) for row, shift in zip(tensor, shifts, strict=True)])
        for tensor in tensors
    ]
    rope = make_rope(12, 8)
    options = {"causal": True, "rope": rope, "bias": draw(2, 23)}
    right = run(way, *tensors, query_lengths=lengths, key_lengths=lengths, **options)
    ranges = {
        "query_starts": starts, "query_lengths": lengths, "key_starts": starts,
        "key_lengths": lengths,
    }  # fmt: skip
    left = run(way, *moved, **ranges, **options)
    for row, start in enumerate(shifts):
        torch.testing.assert_close(left[row], right[row].roll(start, 1), **CLOSE)


@pytest.mark.parametrize("way", WAYS)
def test_rows_do_not_know_each_other(way: Any) -> None:
    tensors = make_heads(3, 2, 1, 5, 7, 8)
    lengths, gate = numbers(7, 0, 4), torch.rand(3, 2)
    found = run(way, *tensors, key_lengths=lengths, head_mask=gate)
    other = [2, 0, 1]
    again = run(
        way, *(tensor[other] for tensor in tensors), key_lengths=lengths[other],
        head_mask=gate[other],
    )  # fmt: skip
    assert torch.equal(again, found[other])


@pytest.mark.parametrize("way", WAYS)
def test_ranges_beyond_the_tensor(way: Any) -> None:
    """What of them is no position is left out, however large the numbers."""
    tensors = make_heads(5, 1, 1, 3, 6, 8)
    most = (1 << 63) - 1
    starts = torch.tensor([-2, 4, most, -most - 1, 0])
    lengths = torch.tensor([4, most, most, most, -3])
    found = run(way, *tensors, key_starts=starts, key_lengths=lengths)
    expected = run(
        "reference", *tensors, key_starts=numbers(0, 4, 0, 0, 0), key_lengths=numbers(2, 2, 0, 0, 0)
    )
    torch.testing.assert_close(found, expected, **CLOSE)
    assert found[:2].any()
    assert not found[2:].any()


@pytest.mark.parametrize("way", WAYS)
def test_head_masks(way: Any) -> None:
    """A soft one multiplies; a fixed one leaves a head out, whatever stands there."""
    tensors = make_heads(2, 2, 2, 5, 5, 8)
    found = run(way, *tensors)
    gate = torch.tensor([[0.5, 2.0], [0.0, -1.0]])
    soft = run(way, *tensors, head_mask=gate)
    torch.testing.assert_close(soft, found * gate[..., None, None], **CLOSE)
    tensors[0][:, 1] = math.nan
    fixed = run(way, *tensors, head_mask=torch.tensor([True, False]))
    assert torch.equal(fixed[:, 0], found[:, 0])
    assert not fixed[:, 1].any()
    gradients = differentiate(way, *tensors, head_mask=torch.tensor([True, False]))
    for name in ("query", "key", "value"):
        assert not gradients[name][:, 1].any()  # type: ignore[index]
        assert gradients[name][:, 0].any()  # type: ignore[index]


@pytest.mark.parametrize("way", WAYS)
def test_a_number_that_is_none_reaches_what_sees_it(way: Any) -> None:
    tensors = make_heads(1, 1, 1, 4, 4, 8)
    tensors[1][0, 0, 3, 0] = math.nan
    found = run(way, *tensors, key_lengths=numbers(4))
    assert found.isnan().all()


@pytest.mark.parametrize("way", WAYS)
def test_scores_of_minus_infinity_hide(way: Any) -> None:
    tensors = make_heads(1, 1, 1, 3, 4, 8)
    bias = torch.zeros(1, 6)
    bias[0, :5] = -math.inf
    found = differentiate(way, *tensors, bias=bias)
    assert torch.equal(found["out"][0, 0, 0], tensors[2][0, 0, 3])  # type: ignore[index]
    assert not found["out"][0, 0, 1:].any()  # type: ignore[index]
    assert all(tensor.isfinite().all() for tensor in found.values() if tensor is not None)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("rows", "heads", "queries", "keys"), [(0, 2, 3, 3), (2, 2, 0, 3), (2, 2, 3, 0), (2, 0, 3, 3)]
)
def test_nothing_at_all(way: Any, rows: int, heads: int, queries: int, keys: int) -> None:
    tensors = make_heads(rows, heads, heads or 1, queries, keys, 8)
    bias = draw(heads, queries + keys - 1)
    found = differentiate(way, *tensors, bias=bias, causal=True, head_mask=torch.ones(heads))
    for tensor in found.values():
        assert tensor is not None
        assert not tensor.any()


def test_gradients_are_those_of_differences() -> None:
    tensors = [tensor.double().requires_grad_() for tensor in make_heads(2, 4, 2, 3, 4, 2)]
    bias, gate = (draw(*shape, seed=7).double().requires_grad_() for shape in ((4, 6), (2, 4)))

    def attend(q: Tensor, k: Tensor, v: Tensor, b: Tensor, g: Tensor) -> Tensor:
        return reference.attention(
            q, k, v, key_lengths=numbers(4, 2), query_starts=numbers(0, 1), causal=True, bias=b,
            head_mask=g, rope=make_rope(4, 2), dropout=0.3, seed=3,
        )  # fmt: skip

    assert torch.autograd.gradcheck(attend, (*tensors, bias, gate))


# Dropout.


def test_the_mix_is_philox() -> None:
    """The published vectors, and the core."""
    full = 0xFFFFFFFF
    for counter, key in (((0,) * 4, (0, 0)), ((full,) * 4, (full, full)), ((1, 2, 3, 4), (5, 6))):
        words = reference.mix(tuple(torch.tensor(word) for word in counter), key)  # type: ignore[arg-type]
        assert tuple(words) == philox4x32(counter, key)  # type: ignore[arg-type]
    assert philox4x32((full,) * 4, (full, full))[0] == 0x408F276D  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_dropped_weights_are_those_of_the_core(way: Any) -> None:
    rows, heads, queries, keys, seed = 2, 2, 3, 8, (1 << 64) - 7
    query, key, _ = make_heads(rows, heads, heads, queries, keys, keys)
    value = torch.eye(keys).expand(rows, heads, keys, keys)
    weights = run(way, query * 0, key, value, dropout=0.4, seed=seed)
    items = [place << 32 | i for place in range(rows * heads) for i in range(queries)]
    bits = random_bits(seed, Stream.ATTENTION_DROPOUT, items, keys)
    kept = torch.from_numpy(bits >> 32).double() >= round(0.4 * 2**32)
    expected = kept.float() / keys / 0.6
    torch.testing.assert_close(weights.reshape(-1, keys), expected, **CLOSE)
    assert 0.3 < kept.float().mean() < 0.9


# Types.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_types(way: Any, dtype: torch.dtype) -> None:
    tensors = make_heads(1, 2, 1, 20, 20, 16, dtype=dtype)
    wide = [tensor.float() for tensor in tensors]
    found = differentiate(way, *tensors, causal=True)
    expected = differentiate("reference", *wide, causal=True)
    for name, tensor in found.items():
        assert tensor is not None
        assert tensor.dtype == dtype
        bound = 0.03 if dtype == torch.bfloat16 else 0.004
        torch.testing.assert_close(tensor.float(), expected[name], rtol=bound, atol=bound)


def test_torch_computes_what_needs_no_mask_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """On one that is not there: shapes alone go through."""
    pytest.importorskip("triton")
    masks: list[Any] = []

    def attend(query: Tensor, key: Tensor, value: Tensor, mask: Any, **options: Any) -> Tensor:
        masks.append((mask, options["is_causal"]))
        return torch.empty_like(query)

    monkeypatch.setattr(module.functional, "scaled_dot_product_attention", attend)
    with FakeTensorMode():
        for queries, keys, causal, known in (
            (5, 5, True, [(None, True)]), (3, 5, False, [(None, False)]),
            (1, 5, True, [(None, False)]), (3, 5, True, []),
        ):  # fmt: skip
            query, key = (torch.empty(2, 1, n, 8, device="cuda") for n in (queries, keys))
            assert module.attention(query, key, key, causal=causal).shape == query.shape
            assert masks == known
            masks.clear()


@pytest.mark.parametrize("way", WAYS)
def test_autocast(way: Any) -> None:
    tensors = make_heads(1, 2, 1, 5, 5, 8)
    with torch.autocast("cpu", torch.bfloat16), use(way):
        found = attention(*tensors, bias=torch.zeros(2, 9), rope=make_rope(5, 8))
    assert found.dtype == torch.bfloat16
    expected = run(way, *tensors, rope=make_rope(5, 8))
    torch.testing.assert_close(found.float(), expected, rtol=0.03, atol=0.03)


# What does not fit.

Q, K = torch.ones(2, 4, 3, 6), torch.ones(2, 2, 5, 6)
TABLE = torch.ones(5, 6)
FAULTS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"query": Q.long()}, TypeError, "query must be of floating point: got torch.int64"),
    ({"key": K.half()}, TypeError,
     "key must be of torch.float32 as query is: got torch.float16"),
    ({"query": Q[0]}, ValueError,
     "query must have the shape [rows, heads, queries, at least 1]: got [4, 3, 6]"),
    ({"key": K[:1]}, ValueError, "key must have the shape [2, heads, keys, 6]: got [1, 2, 5, 6]"),
    ({"key": torch.ones(2, 3, 5, 6)}, ValueError,
     "heads of key must divide the 4 of query: got 3"),
    ({"value": K[:, :, 1:]}, ValueError,
     "value must have the shape [2, 2, 5, 6]: got [2, 2, 4, 6]"),
    ({"key_lengths": torch.ones(2)}, TypeError,
     "key_lengths must be of int32 or int64: got torch.float32"),
    ({"query_starts": torch.ones(3).long()}, ValueError,
     "query_starts must have the shape [2]: got [3]"),
    ({"head_mask": torch.ones(4).long()}, TypeError,
     "head_mask must be of floating point or bool: got torch.int64"),
    ({"head_mask": torch.ones(2)}, ValueError,
     "head_mask must have the shape [4] or [2, 4]: got [2]"),
    ({"bias": torch.ones(4, 8)}, ValueError, "bias must have the shape [4, 7]: got [4, 8]"),
    ({"rope": (TABLE, TABLE[:4])}, ValueError,
     "rope's sines must have the shape [at least 5, 6] or [2, 5, 6]: got [4, 6]"),
    ({"rope": (TABLE, TABLE), "query": torch.ones(2, 4, 6, 6)}, ValueError,
     "rope needs as many keys as queries: got 5 and 6"),
    ({"dropout": 1.0}, ValueError, "dropout must be at least 0 and below 1: got 1.0"),
    ({"dropout": math.nan}, ValueError, "dropout must be at least 0 and below 1: got nan"),
    ({"seed": -1}, ValueError, "seed must be at least 0 and below 2**64: got -1"),
    ({"bias": torch.ones(4, 7, device="meta")}, ValueError,
     "tensors must be on one device: got cpu, meta"),
]  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("fault", "kind", "text"), FAULTS)
def test_arguments_that_do_not_fit(way: Any, fault: Any, kind: Any, text: str) -> None:
    with use(way), pytest.raises(kind) as error:
        attention(**({"query": Q, "key": K, "value": K} | fault))
    assert str(error.value) == text
