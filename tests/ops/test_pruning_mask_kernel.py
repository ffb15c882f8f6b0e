"""The kernels of `ops.pruning_mask` against the definition in float64, forward and backward.

They run in Triton's interpreter where there is no GPU, in blocks that small layers cross.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmcore.ops._dispatch import use
from lmcore.ops.pruning_mask import masked_linear, masked_swiglu

kernels = pytest.importorskip("lmcore.kernels.pruning_mask")
launches = kernels.launches

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Layer = Callable[..., Tensor]
LAYERS: list[Layer] = [masked_linear, masked_swiglu]
# The interpreter cuts bfloat16 off in place of rounding.
TOLERANCES = {torch.float32: 2e-5, torch.float16: 6e-3, torch.bfloat16: 6e-2}
SMALL = (
    {"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 16, "GROUP": 2, "num_warps": 4, "num_stages": 2},
)
# The interpreter computes with numpy, which warns of what is no number, and that may stand in
# memory that is read and left out.
pytestmark = pytest.mark.filterwarnings("ignore:(invalid value|overflow):RuntimeWarning")


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HALF", "SINGLE", "HALF_PAIR", "SINGLE_PAIR", "HALF_WEIGHT"):
        monkeypatch.setattr(launches, name, SMALL)
    monkeypatch.setattr(launches, "_LIST_BLOCK", 32)


def draw(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def make_gate(kind: str | None, groups: int, seed: int) -> Tensor | None:
    """Of several groups the first is open and the last is shut; soft ones have 0 and 1."""
    values = draw(groups, seed=seed)
    values[-1], values[0] = -1, 0.25
    if kind is None:
        return None
    return values > 0 if kind == "fixed" else (values + 0.5).clamp(0, 1).float()


def make_case(
    layer: Layer, tokens: int, shape: tuple[int, int, int, int], kinds: Any, seed: int
) -> tuple[list[Tensor | None], dict[str, Tensor | None]]:
    """Arguments of a layer whose axes have these numbers of groups of one size.

    Args:
        layer: which.
        tokens: rows.
        shape: groups of inputs, of inner units (or parts of the outputs), of outputs, and size.
        kinds: of gates of inputs, outputs and inner units, and whether there are biases.
        seed: of the numbers.
    """
    inputs, inner, outputs, size = shape
    by_input, by_output, by_inner, biased = kinds
    gates = {
        "input_gate": make_gate(by_input, inputs, seed + 5),
        "output_gate": make_gate(by_output, outputs, seed + 6),
    }
    if layer is masked_linear:
        shapes = [(inner * outputs * size, inputs * size), (inner * outputs * size,)]
    else:
        shapes = [(2 * inner * size, inputs * size), (outputs * size, inner * size)]
        shapes += [(2 * inner * size,), (outputs * size,)]
        gates["inner_gate"] = make_gate(by_inner, inner, seed + 7)
    weights = [draw(*shape, seed=seed + place) for place, shape in enumerate(shapes)]
    weights = [w / max(w.shape[-1], 1) ** 0.5 if w.dim() == 2 else w for w in weights]
    own = [w if w.dim() == 2 or biased else None for w in weights]
    return [draw(tokens, inputs * size, seed=seed + 9), *own], gates


def run(
    layer: Layer, way: Any, tensors: list[Tensor | None], gates: Mapping[str, Any], dy: Tensor,
    dtype: torch.dtype,
) -> list[Tensor]:  # fmt: skip
    """Outputs and all gradients; tensors may be views, which stay as they are."""
    leaves = [None if t is None else t.detach().to(GPU, dtype).requires_grad_() for t in tensors]
    own = {name: g.to(GPU) if isinstance(g, Tensor) else g for name, g in gates.items()}
    soft = {n: g for n, g in own.items() if isinstance(g, Tensor) and g.is_floating_point()}
    own |= {name: gate.requires_grad_() for name, gate in soft.items()}
    with use(way):
        found = layer(*leaves, **own)
    assert found.dtype == dtype
    wanted = [leaf for leaf in leaves if leaf is not None] + [own[name] for name in soft]
    grads = torch.autograd.grad(found, wanted, dy.to(GPU, dtype))
    for leaf, grad in zip(wanted, grads, strict=True):
        assert (grad.dtype, grad.shape) == (leaf.dtype, leaf.shape)
    return [found.detach(), *grads]


def assert_same(
    layer: Layer, tensors: list[Tensor | None], gates: Mapping[str, Any], dtype: torch.dtype
) -> list[Tensor]:
    """What the kernel computes is what torch does in float64 of the same numbers."""
    rounded = [None if t is None else t.to(dtype) for t in tensors]
    width = tensors[1 if layer is masked_linear else 2]
    assert rounded[0] is not None
    assert width is not None
    dy = draw(*rounded[0].shape[:-1], len(width), seed=77).to(dtype)
    found = run(layer, "kernel", rounded, gates, dy, dtype)
    expected = run(layer, "core", rounded, gates, dy, torch.float64)
    for value, wanted in zip(found, expected, strict=True):
        scale = wanted.abs().max().clamp(min=1) if wanted.numel() else 1
        torch.testing.assert_close(
            value.double() / scale, wanted.double() / scale, rtol=0, atol=TOLERANCES[dtype]
        )
    return found


KINDS = st.sampled_from([None, "soft", "fixed"])


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([0, 1, 15, 16, 17]), st.tuples(*[st.integers(1, 2)] * 3),
    st.sampled_from([1, 2, 5, 8, 13]), st.tuples(KINDS, KINDS, KINDS, st.booleans()),
    st.sampled_from(list(TOLERANCES)), st.integers(0, 99),
)  # fmt: skip
@example(17, (2, 3, 3), 8, ("fixed", "fixed", "fixed", True), torch.float32, 0)
@example(17, (2, 3, 3), 8, ("soft", "soft", "soft", True), torch.float32, 0)
@example(5, (3, 3, 3), 7, ("soft", "fixed", "soft", True), torch.float32, 1)
@example(5, (3, 3, 3), 7, ("fixed", "soft", "fixed", False), torch.float32, 2)
def test_it_is_the_definition(
    layer: Layer, tokens: int, groups: Any, size: int, kinds: Any, dtype: torch.dtype, seed: int
) -> None:
    tensors, gates = make_case(layer, tokens, (*groups, size), kinds, seed)
    more = {"output_parts": groups[1]} if layer is masked_linear else {}
    assert_same(layer, tensors, gates | more, dtype)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize(
    ("shape", "kind"),
    [((3, 3, 3, 64), "fixed"), ((5, 2, 7, 40), "fixed"), ((2, 1, 1, 128), "soft"),
     ((130, 2, 129, 1), "fixed")],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_blocks_of_a_gpu(layer: Layer, shape: Any, kind: str, dtype: torch.dtype) -> None:
    tensors, gates = make_case(layer, 33, shape, (kind, kind, kind, True), 3)
    assert_same(layer, tensors, gates, dtype)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_gates_that_are_all_open_or_all_shut(layer: Layer) -> None:
    tensors, gates = make_case(layer, 17, (3, 2, 3, 8), ("fixed", "fixed", "fixed", True), 0)
    tensors[0] = draw(3, 24, seed=0)
    for name, gate in gates.items():
        assert gate is not None
        for state in (True, False):
            own = {name: torch.full_like(gate, state)}
            found = assert_same(layer, tensors, own, torch.float32)
            if not state and name == "output_gate":
                assert not any(value.any() for value in found)
    assert_same(layer, tensors, {name: torch.zeros(1) for name in gates}, torch.float32)
    assert_same(layer, tensors, {name: torch.zeros(1) > 0 for name in gates}, torch.float32)


@pytest.mark.usefixtures("small_blocks")
def test_layers_without_features() -> None:
    for outputs, inputs in ((0, 4), (4, 0), (0, 0)):
        tensors = [draw(3, inputs, seed=0), draw(outputs, inputs, seed=1), draw(outputs, seed=2)]
        for gate in (torch.ones(1), torch.ones(1) > 0):
            gates = {"output_gate": gate.clone(), "input_gate": gate.clone()}
            assert_same(masked_linear, tensors, gates, torch.float32)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize("kind", ["soft", "fixed"])
def test_views(layer: Layer, kind: str) -> None:
    """Turned, spread and repeated tensors, of several axes, and gates of every second number."""
    tensors, gates = make_case(layer, 12, (3, 2, 3, 8), (kind, kind, kind, True), 1)
    tensors = [None if t is None else t.float() for t in tensors]
    x, *weights = tensors
    assert x is not None
    x = x.view(3, 4, -1).transpose(0, 1)
    expected = assert_same(layer, [x.contiguous(), *weights], gates, torch.float32)
    views: list[Tensor | None] = [x]
    for weight in weights:
        assert weight is not None
        views.append(
            weight.T.contiguous().T if weight.dim() == 2 else torch.stack([weight] * 2, 1)[:, 1]
        )
    own = {n: torch.stack([g, g], 1).flatten()[::2] for n, g in gates.items() if g is not None}
    found = assert_same(layer, views, own, torch.float32)
    for value, wanted in zip(found, expected, strict=True):
        torch.testing.assert_close(value, wanted)
    outputs = expected[0].shape[-1]
    leaf = x.to(GPU).requires_grad_()
    for dy in (torch.ones(()).expand(4, 3, outputs), torch.ones(4, 3, 2 * outputs)[..., ::2]):
        with use("kernel"):
            layer(leaf, *(None if w is None else w.to(GPU) for w in weights),
                  **{n: g.to(GPU) for n, g in own.items()}).backward(dy.to(GPU))  # fmt: skip
    double = run(layer, "core", [x, *weights], gates, torch.full((4, 3, outputs), 2), torch.float64)
    assert leaf.grad is not None
    torch.testing.assert_close(leaf.grad.double(), double[1], rtol=1e-4, atol=1e-4)


# What is no number.


def shut_features(gates: Mapping[str, Tensor | None], name: str, size: int) -> Tensor:
    gate = gates[name]
    assert gate is not None
    return ~gate.repeat_interleave(size)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize("size", [1, 8])
def test_what_is_shut_may_be_no_number(layer: Layer, size: int) -> None:
    groups = 24 // size
    tensors, gates = make_case(
        layer, 5, (groups, 1 if layer is masked_linear else groups, groups, size),
        ("fixed", "fixed", "fixed", True), 2,
    )  # fmt: skip
    whole = [t.float() for t in tensors if t is not None]
    dy = draw(5, 24, seed=4).float()
    expected = run(layer, "kernel", list(whole), gates, dy, torch.float32)
    columns, rows = (shut_features(gates, f"{name}_gate", size) for name in ("input", "output"))
    assert 0 < rows.sum() < 24
    dy[:, rows] = torch.inf
    whole[0][:, columns] = torch.nan
    whole[1][:, columns] = torch.nan
    if layer is masked_linear:
        whole[1][rows] = torch.inf
        whole[2][rows] = torch.nan
    else:
        inner = shut_features(gates, "inner_gate", size)
        whole[1][inner.repeat(2)] = torch.inf
        whole[2][:, inner] = torch.nan
        whole[2][rows] = torch.inf
        whole[3][inner.repeat(2)] = torch.nan
        whole[4][rows] = torch.inf
    found = run(layer, "kernel", list(whole), gates, dy, torch.float32)
    for value, wanted in zip(found, expected, strict=True):
        assert wanted.isfinite().all()
        assert torch.equal(value, wanted)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("kind", ["soft", "fixed"])
def test_what_is_open_carries_what_is_no_number(value: float, kind: str) -> None:
    """As torch does; also through a soft gate of 0, which is not shut."""
    tensors, gates = make_case(masked_linear, 17, (3, 1, 3, 8), (kind, kind, None, True), 2)
    for name in gates:
        gates[name] = torch.tensor([0.5, 0, 1]) if kind == "soft" else torch.tensor([True] * 3)
    for place, where in ((0, (3, 9)), (1, (4, 9)), (2, (9,))):
        own = [None if t is None else t.float() for t in tensors]
        target = own[place]
        assert target is not None
        target[where] = value
        dy = draw(17, 24, seed=4)
        found = run(masked_linear, "kernel", own, gates, dy, torch.float32)
        wanted = run(masked_linear, "reference", own, gates, dy, torch.float32)
        # Gradients of gates are other sums, in which infinities may meet or not.
        count = 4
        assert not all(v.isfinite().all() for v in wanted[:count])
        for one, other in zip(found[:count], wanted[:count], strict=True):
            torch.testing.assert_close(one, other, equal_nan=True, rtol=1e-4, atol=1e-4)
        for one, other in zip(found[count:], wanted[count:], strict=True):
            assert torch.equal(one.isfinite(), other.isfinite())


# Work that is left out, places that are far, and the device that nobody waits for.


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.skipif(GPU.type == "cuda", reason="counts what the interpreter does")
def test_what_is_shut_is_not_multiplied(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of blocks, with half of four groups of a block's size shut on both sides."""
    from triton.runtime.interpreter import InterpreterBuilder

    counts: list[int] = []
    plain = InterpreterBuilder.create_dot

    def create_dot(self: Any, *args: Any) -> Any:
        counts.append(1)
        return plain(self, *args)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)
    x, weight = draw(16, 64, seed=0).float(), draw(64, 64, seed=1).float()
    half = torch.tensor([True, False, False, True])
    expected = {(False, False): 48, (True, False): 24, (False, True): 24, (True, True): 12}
    for (by_output, by_input), wanted in expected.items():
        counts.clear()
        gates = {"output_gate": half if by_output else None, "input_gate": torch.ones(1) > 0}
        gates |= {"input_gate": half} if by_input else {}
        leaves = [x.clone().requires_grad_(), weight.clone().requires_grad_()]
        with use("kernel"):
            masked_linear(*leaves, **gates).sum().backward()
        assert len(counts) == wanted


@pytest.mark.usefixtures("small_blocks")
def test_offsets_beyond_31_bits() -> None:
    """Rows or columns 2**30 elements apart, in memory of which little is touched."""
    far = torch.empty(2**31 + 64, dtype=torch.float16, device=GPU)
    numbers = {3: torch.tensor([0.5, 0, 1], device=GPU), 16: torch.tensor([0.5, 1], device=GPU)}
    for shape, strides in (((3, 16), (2**30, 1)), ((16, 3), (1, 2**30))):
        x = far.as_strided(shape, strides)
        x.copy_(draw(*shape, seed=0))
        near = x.clone()
        for soft in (True, False):
            gates = {size: gate if soft else gate > 0 for size, gate in numbers.items()}
            own = {"input_gate": gates[shape[1]], "output_gate": gates[shape[0]]}
            results = []
            for a, b in ((x, near), (near, x), (near, near)):
                leaves = [a.detach().requires_grad_(), b.detach().requires_grad_()]
                with use("kernel"):
                    found = masked_linear(*leaves, **own)
                results.append([found, *torch.autograd.grad(found.sum(), leaves)])
            for values in results[:2]:
                for value, wanted in zip(values, results[2], strict=True):
                    assert torch.equal(value, wanted)


@pytest.mark.usefixtures("small_blocks")
def test_nothing_waits_for_the_device() -> None:
    """No operator reads a number from the device, or makes a shape of numbers there."""
    names: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            names.append(str(func))
            return func(*args, **(kwargs or {}))

    tensors, gates = make_case(masked_linear, 17, (3, 1, 3, 8), ("fixed", "fixed", None, True), 2)
    x, weight, bias = (t.float().to(GPU) for t in tensors if t is not None)
    dy = torch.ones(17, 24, device=GPU)
    with Watch():
        i, o = (
            launches.make_axis(g.to(GPU), 24, torch.float32)
            for g in gates.values()
            if g is not None
        )
        launches.multiply(x, weight, o, i, bias)
        launches.differentiate_weight(dy, x, weight, o, i, needs=(True, True, True))
        kernels._differentiate_bias(dy, bias, None, o, True)
    assert names
    assert not {name for name in names if "scalar_dense" in name or "nonzero" in name}


@pytest.mark.usefixtures("small_blocks")
def test_products_that_are_kept_have_no_gradient_in_memory() -> None:
    made: list[Any] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None):
            found = func(*args, **(kwargs or {}))
            made.extend(t.shape for t in tree_leaves(found) if isinstance(t, Tensor))
            return found

    tensors, gates = make_case(masked_swiglu, 17, (1, 3, 1, 8), (None, None, "soft", False), 0)
    own = [None if t is None else t.float().to(GPU).requires_grad_() for t in tensors]
    with use("kernel"):
        found = masked_swiglu(*own, **{n: None if g is None else g.to(GPU)
                                       for n, g in gates.items()})  # fmt: skip
    with Watch():
        found.sum().backward()
    assert made
    assert (17, 48) not in made


# Operators.


def operator_cases() -> Iterator[tuple[Any, tuple[Any, ...]]]:
    """With fixed gates that are open where a result has memory behind its open columns.

    Nothing writes there, so that it differs from one call to the next.
    """
    for kind in ("soft", "fixed"):
        kinds = (kind, kind, kind, kind == "soft")
        for layer, operator in ((masked_linear, kernels.masked_linear),
                                (masked_swiglu, kernels.masked_swiglu)):  # fmt: skip
            tensors, gates = make_case(layer, 4, (2, 2, 2, 4), kinds, 0)
            own = [None if t is None else t.float().to(GPU).requires_grad_() for t in tensors]
            names = ["output_gate", "input_gate"]
            names = names if layer is masked_linear else ["inner_gate", *names]
            for name in names:
                gate = gates[name]
                assert gate is not None
                gate = torch.ones_like(gate) if name == "inner_gate" else gate
                gate = gate.to(GPU)
                own.append(gate.requires_grad_() if gate.is_floating_point() else gate)
            yield operator, (*own, 2 if layer is masked_linear else True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")
@pytest.mark.parametrize("place", range(4))
def test_operators_are_what_torch_expects(place: int) -> None:
    operator, arguments = list(operator_cases())[place]
    torch.library.opcheck(operator, arguments)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize("kind", ["soft", "fixed"])
def test_one_graph(layer: Layer, kind: str) -> None:
    """`torch.compile` breaks at nothing, also where gates are fixed."""
    tensors, gates = make_case(layer, 5, (2, 2, 2, 4), (kind, kind, kind, True), 0)
    whole = [t.float() for t in tensors if t is not None]
    dy = draw(5, 16 if layer is masked_linear else 8, seed=1)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    expected = run(layer, "kernel", list(whole), gates, dy, torch.float32)
    found = run(compiled, "kernel", list(whole), gates, dy, torch.float32)
    for value, wanted in zip(found, expected, strict=True):
        assert torch.equal(value, wanted)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_mixed_types_under_autocast(layer: Layer) -> None:
    tensors, gates = make_case(layer, 5, (2, 2, 2, 4), ("soft", "fixed", "soft", True), 0)
    own = [t.float().to(GPU) for t in tensors if t is not None]
    own[0] = own[0].half()
    gates = {name: None if g is None else g.to(GPU) for name, g in gates.items()}
    expected = layer(*(t.float() for t in own), **gates)
    with torch.autocast(GPU.type, torch.float16), use("kernel"):
        found = layer(*own, **gates)
    assert found.dtype == torch.float16
    assert (found - expected).abs().max() < 5e-3 * expected.abs().max()
    with torch.autocast(GPU.type, torch.float16), use("kernel"), pytest.raises(RuntimeError):
        layer(own[0], own[1].double(), *own[2:], **gates)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_there_is_no_second_derivative(layer: Layer) -> None:
    """It is refused, not zero."""
    tensors, gates = make_case(layer, 3, (2, 2, 2, 4), ("soft", None, None, False), 0)
    own = [None if t is None else t.float().to(GPU).requires_grad_() for t in tensors]
    with use("kernel"):
        found = layer(*own, **{n: None if g is None else g.to(GPU) for n, g in gates.items()})
    (slope,) = torch.autograd.grad(found.square().sum(), own[0], create_graph=True)
    with pytest.raises((NotImplementedError, RuntimeError)):
        torch.autograd.grad(slope.sum(), own[1])
