"""The kernels of attention against the definition, gradients included, and as operators of torch.

Blocks are small here, so that short inputs cross their boundaries.
"""

import inspect
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

pytest.importorskip("triton")

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from attention_cases import GPU, differentiate, draw, make_heads, make_rope, run
from lmcore.kernels import attention as operators
from lmcore.kernels import (
    attention_backward,
    attention_blocks,
    attention_forward,
    rotation,
    tuning,
)
from lmcore.ops._dispatch import use
from lmcore.ops.attention import attention
from lmcore.reference.philox import Stream, philox4x32


@pytest.fixture(scope="module", autouse=True)
def small_blocks() -> Iterator[None]:
    """No two alike, so that one in the place of another is seen."""
    make = attention_blocks.make_candidates
    with pytest.MonkeyPatch.context() as patch:
        for module, name, sizes in (
            (attention_forward, "_CANDIDATES", (32, 16, 4, 1)),
            (attention_backward, "_QUERIES", (16, 32, 4, 1)),
            (attention_backward, "_KEYS", (32, 16, 4, 1)),
        ):
            patch.setattr(module, name, {(2, 256): make(sizes), (4, 256): make(sizes)})
        yield


# Parity.

LENGTHS = [1, 2, 15, 16, 17, 31, 32, 33, 40]


def make_options(drawn: Any, rows: int, heads: int, queries: int, keys: int, size: int) -> Any:
    options: dict[str, Any] = {"causal": drawn(st.booleans())}
    for kind, length in (("query", queries), ("key", keys)):
        if drawn(st.booleans()):
            places = st.lists(st.integers(0, length), min_size=rows, max_size=rows)
            options[f"{kind}_starts"] = torch.tensor(drawn(places), dtype=torch.int32)
            options[f"{kind}_lengths"] = torch.tensor(drawn(places))
    extra = drawn(st.sampled_from(["none", "soft", "fixed", "bias", "rope", "dropout", "all"]))
    if extra in ("soft", "all"):
        options["head_mask"] = draw(rows, heads, seed=5)
    if extra == "fixed":
        options["head_mask"] = draw(heads, seed=6) > 0
    if extra in ("bias", "all"):
        options["bias"] = draw(heads, queries + keys - 1, seed=7)
    if extra == "rope" and size % 2 == 0 and queries <= keys:
        options["rope"] = make_rope(keys, size)
    if extra in ("dropout", "all"):
        options |= {"dropout": 0.25, "seed": drawn(st.integers(0, (1 << 64) - 1))}
    if drawn(st.integers(0, 3)) == 0:
        options["scale"] = drawn(st.sampled_from([-0.4, 0.0, 1.5]))
    return options


@settings(max_examples=10)
@given(st.data())
def test_kernels_are_the_definition(data: st.DataObject) -> None:
    drawn = data.draw
    rows, groups, share = (drawn(st.integers(1, 2)) for _ in range(3))
    queries, keys = (drawn(st.sampled_from(LENGTHS)) for _ in range(2))
    size = drawn(st.sampled_from([1, 3, 8, 16, 20, 40]))
    tensors = make_heads(
        rows, groups * share, groups, queries, keys, size, drawn(st.integers(0, 9))
    )
    options = make_options(drawn, rows, groups * share, queries, keys, size)
    check_parity(tensors, options)


def check_parity(tensors: list[Tensor], options: dict[str, Any]) -> None:
    expected = differentiate("reference", *tensors, **options)
    found = differentiate("kernel", *tensors, **options)
    assert found.keys() == expected.keys()
    for name, tensor in found.items():
        other = expected[name]
        assert tensor is not None
        assert other is not None
        scale = max(other.abs().max().item(), 1.0)
        torch.testing.assert_close(
            tensor,
            other,
            rtol=1e-5,
            atol=1e-5 * scale,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("extra", ["none", "all", "rope"])
def test_several_blocks(causal: bool, extra: str) -> None:
    """Of queries and of keys, with ranges that begin and end inside of blocks."""
    tensors = make_heads(2, 2, 1, 50, 70, 16)
    options: dict[str, Any] = {
        "causal": causal,
        "query_starts": torch.tensor([3, 0]), "query_lengths": torch.tensor([45, 50]),
        "key_starts": torch.tensor([21, 0]), "key_lengths": torch.tensor([40, 70]),
    }  # fmt: skip
    if extra == "all":
        options |= {
            "bias": draw(2, 119, seed=4), "head_mask": draw(2, seed=3), "dropout": 0.3, "seed": 8
        }  # fmt: skip
    if extra == "rope":
        # Halves that differ: a gradient goes through the transposed map, not the inverse turn.
        options["rope"] = tuple(draw(70, 16, seed=seed) for seed in (5, 6))
    check_parity(tensors, options)


@pytest.mark.parametrize("size", [64, 80, 256])
def test_head_sizes(size: int) -> None:
    # The last query alone sees the last key, which begins a block.
    check_parity(make_heads(1, 1, 1, 17, 17, size), {"causal": True})


def test_larger_heads_and_wider_types_are_the_definition() -> None:
    for tensors in (
        make_heads(1, 1, 1, 2, 3, 260),
        [tensor.double() for tensor in make_heads(1, 1, 1, 2, 3, 8)],
    ):
        assert torch.equal(run("kernel", *tensors), run("reference", *tensors))


def test_views() -> None:
    """Parts of one tensor, expanded ones, and features that lie apart."""
    packed = draw(2, 20, 3, 2, 16)
    query, key, value = (packed[:, :, place].transpose(1, 2) for place in range(3))
    whole = [tensor.contiguous() for tensor in (query, key, value)]
    expected = differentiate("kernel", *whole, causal=True)["out"]
    assert torch.equal(run("kernel", query, key, value, causal=True), expected)
    turned = [tensor.transpose(2, 3).contiguous().transpose(2, 3) for tensor in whole]
    assert torch.equal(run("kernel", *turned, causal=True), expected)
    shared = key[:, :1].expand(-1, 2, -1, -1)
    assert torch.equal(run("kernel", query, shared, value), run(
        "kernel", query, shared.contiguous(), value
    ))  # fmt: skip
    out = attention(*(tensor.requires_grad_() for tensor in whole))
    gradients = torch.autograd.grad(out.sum(), whole)  # whose strides are 0
    assert gradients[2].sum().item() == pytest.approx(out.numel(), rel=1e-5)


def test_nothing_is_read_behind_the_end() -> None:
    """Positions and features beyond those of a tensor lie in it where it is a part."""
    whole = [torch.full((1, 1, 40, 24), math.nan) for _ in range(3)]
    parts = [tensor[:, :, 3:22, :20] for tensor in whole]
    for part, tensor in zip(parts, make_heads(1, 1, 1, 19, 19, 20), strict=True):
        part.copy_(tensor)
    bias = torch.full((2, 60), math.nan)[:1, :37].zero_()
    gradients = differentiate("kernel", *parts, bias=bias, causal=True)
    for tensor in gradients.values():
        assert tensor is not None
        assert tensor.isfinite().all()


def test_offsets_beyond_32_bits() -> None:
    """Rows 2 ** 31 elements apart in memory, which a view of few bytes has."""
    tensors = make_heads(1, 1, 1, 3, 4, 8)
    expected = run("kernel", *tensors)
    far = [tensor.expand(2, -1, -1, -1)[:1].as_strided(tensor.shape, (1 << 40, 1 << 33, 8, 1))
           for tensor in tensors]  # fmt: skip
    assert torch.equal(run("kernel", *far), expected)


# Random numbers.


@triton.jit
def _philox_kernel(out, seed, c0, c1, c2, c3):
    zero = tl.zeros([1], tl.uint32)
    words = tl.philox(
        seed,
        (zero + c0).to(tl.uint32),
        (zero + c1).to(tl.uint32),
        (zero + c2).to(tl.uint32),
        (zero + c3).to(tl.uint32),
    )
    place = tl.arange(0, 1)
    tl.store(out + place, words[0].to(tl.int64))
    tl.store(out + 1 + place, words[1].to(tl.int64))
    tl.store(out + 2 + place, words[2].to(tl.int64))
    tl.store(out + 3 + place, words[3].to(tl.int64))


def test_random_words_are_those_of_the_published_vectors() -> None:
    full = 0xFFFFFFFF
    pi = (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344)
    cases = [
        ((0,) * 4, (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ((full,) * 4, (full, full), "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        (pi, (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ]
    for counter, key, expected in cases:
        out = torch.zeros(4, dtype=torch.int64, device=GPU)
        _philox_kernel[(1,)](out, key[1] << 32 | key[0], *counter)
        words = tuple(word & full for word in out.tolist())
        assert " ".join(f"{word:08x}" for word in words) == expected
        assert words == philox4x32(counter, key)  # type: ignore[arg-type]
    assert attention_blocks.STREAM == Stream.ATTENTION_DROPOUT


# Configurations.


def test_each_set_of_candidates_is_a_class_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed for one of them, or pinned, must not be asked of another one."""
    asked: dict[Any, Any] = {}

    def choose(kernel: str, sizes: Any, dtype: Any, device: Any, found: Any, launch: Any) -> Any:
        key = tuning._make_key(kernel, sizes, dtype, device)
        asked.setdefault(key, []).append([dict(one) for one in found])
        return found[0]

    table = {
        (4, size): attention_blocks.make_candidates((16, 16, 4, stages))
        for stages, size in enumerate((64, 128, 256), start=1)
    }
    for name in ("_QUERIES", "_KEYS"):
        monkeypatch.setattr(attention_backward, name, table)
    monkeypatch.setattr(tuning, "choose", choose)
    heads = make_heads(1, 1, 1, 3, 3, 8)
    for dropout in (0.0, 0.1):
        for bias in (None, draw(1, 5)):
            for causal in (False, True):
                differentiate("kernel", *heads, bias=bias, dropout=dropout, causal=causal, seed=1)
    assert all(one == found[0] for found in asked.values() for one in found)
    kernels = [key[0] for key in asked]
    assert [kernels.count(f"attention{part}") for part in ("", "_keys")] == [4, 6]


# Operators of torch.


def make_inputs() -> tuple[Any, ...]:
    query, key, value = (t.to(GPU).requires_grad_() for t in make_heads(2, 2, 1, 5, 6, 8))
    lengths = torch.tensor([6, 3], device=GPU)
    bias = draw(2, 10).to(GPU).requires_grad_()
    gate = draw(2, 2).to(GPU).requires_grad_()
    return (query, key, value, None, None, None, lengths, gate, bias, True, 0.3, 0.1, 5, True)


# The check itself asks copies for gradients.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
def test_operators_keep_torchs_contracts() -> None:
    inputs = make_inputs()
    torch.library.opcheck(operators._attend, inputs)
    states = inputs[0]
    tables = [table.to(GPU) for table in make_rope(6, 8)]
    torch.library.opcheck(operators._rotate, (states, *tables, 1, False))
    with torch.no_grad():
        outputs = operators._attend(*inputs)
        detached = [t.detach() if isinstance(t, Tensor) else t for t in inputs]
        torch.library.opcheck(
            operators._attend_backward,
            (torch.ones_like(outputs[0]), *detached[:9], *outputs, *detached[9:], True),
        )
        halves = [t.half() if isinstance(t, Tensor) and t.dim() == 4 else t for t in detached]
        halves = [*halves[:7], None, None, *halves[9:-1], False]
        outputs = operators._attend(*halves)
        torch.library.opcheck(
            operators._attend_backward,
            (torch.ones_like(outputs[0]), *halves[:9], *outputs, *halves[9:], False),
            test_utils="test_faketensor",
        )


def test_a_compiled_graph_has_no_break() -> None:
    tensors = [t.to(GPU).requires_grad_() for t in make_heads(1, 2, 1, 5, 5, 8)]
    bias, rope = draw(2, 9).to(GPU).requires_grad_(), tuple(t.to(GPU) for t in make_rope(5, 8))
    lengths = torch.tensor([4], device=GPU)

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(
            query, key, value, key_lengths=lengths, causal=True, bias=bias, rope=rope, dropout=0.1,
            seed=(1 << 64) - 1,
        )  # fmt: skip

    leaves = [*tensors, bias]
    with use("kernel"):
        expected = attend(*tensors)
        compiled = torch.compile(attend, fullgraph=True, backend="aot_eager")(*tensors)
        assert torch.equal(compiled, expected)
        found, known = (torch.autograd.grad(out.sum(), leaves) for out in (compiled, expected))
        assert all(map(torch.equal, found, known))


# What code is compiled for.


class Recorder:
    """In the place of a kernel: keeps what it is launched with."""

    def __init__(self, kernel: Any, options: dict[str, Any]) -> None:
        self.function = JITFunction(inspect.unwrap(kernel.fn), **options)
        self.keys: list[str] = []

    def __getitem__(self, grid: Any) -> Any:
        return self.launch

    def launch(self, **arguments: Any) -> None:
        backend = make_backend(GPUTarget("cuda", 90, 32))
        bind = create_function_from_signature(
            self.function.signature, self.function.params, backend
        )
        _, specialization, options = bind(**arguments)
        self.keys.append(f"{specialization} {sorted(options.items())}")


def record(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    forward = {
        "do_not_specialize": attention_forward.NUMBERS,
        "do_not_specialize_on_alignment": attention_forward.POINTERS,
    }
    backward = {
        **forward,
        "do_not_specialize": [*attention_forward.NUMBERS, *attention_backward._GRADIENT],
    }
    found = []
    for module, name, options in (
        (attention_forward, "_forward_kernel", forward),
        (attention_backward, "_queries_kernel", backward),
        (attention_backward, "_keys_kernel", backward),
    ):
        known = getattr(module, name)
        names = inspect.signature(inspect.unwrap(known.fn)).parameters
        kept = {key: [n for n in value if n in names] for key, value in options.items()}
        recorder = Recorder(known, kept)
        monkeypatch.setattr(module, name, recorder)
        found.append(recorder)
    return found


def test_other_lengths_compile_nothing_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    recorders = record(monkeypatch)

    def launch(rows: int, queries: int, keys: int, size: int, seed: int, scale: float) -> None:
        query = torch.empty(rows, queries, 4, size, requires_grad=True).transpose(1, 2)
        key = torch.empty(rows, keys, 2, size).transpose(1, 2)
        lengths = torch.ones(rows + 1, dtype=torch.int64)[1:]
        with use("kernel"):
            out = attention(
                query, key, key, key_lengths=lengths, dropout=0.1, seed=seed, scale=scale
            )
        out.backward(torch.empty(rows, queries, 4, size).transpose(1, 2))

    cases = [(1, 1, 1), (1, 16, 32), (3, 17, 33), (16, 1, 5), (2, 64, 1), (1, 7, 100), (5, 40, 16)]
    for seed, sizes in enumerate(cases):
        launch(*sizes, 40, seed=seed << 60 | seed, scale=1.0 + seed)
    for recorder in recorders:
        assert len(recorder.keys) == len(cases)
        assert len(set(recorder.keys)) == 1
    launch(1, 16, 32, 48, seed=1, scale=1.0)
    for recorder in recorders:
        assert len(set(recorder.keys)) == 2


def test_rotations_of_other_lengths_compile_nothing_anew() -> None:
    names = inspect.signature(inspect.unwrap(rotation._rotation_kernel.fn)).parameters
    numbers = {name for name in names if not name.isupper()} - {"states", "cosines", "sines", "out"}
    assert numbers == set(rotation.NUMBERS)
