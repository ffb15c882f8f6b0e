"""`ops.pruning_mask`: gated layers against sums that are written out, and against cut layers."""

from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lmcore.ops._dispatch import use
from lmcore.ops.pruning_mask import masked_linear, masked_swiglu

Layer = Callable[..., Tensor]
LAYERS: list[Layer] = [masked_linear, masked_swiglu]


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


# Laws: plain Python says what a layer is.


def plain_linear(
    x: list[float], w: list[list[float]], b: list[float], g: list[float], h: list[float], parts: int
) -> list[float]:
    """One element at a time; an output's group is found by division."""
    inputs = [value * h[i // (len(x) // len(h))] for i, value in enumerate(x)]
    part = len(w) // parts
    found = []
    for o, row in enumerate(w):
        total = sum(a * value for a, value in zip(row, inputs, strict=True)) + b[o]
        found.append(g[(o % part) // (part // len(g))] * total)
    return found


@settings(deadline=None)
@given(
    st.tuples(*[st.integers(1, 3)] * 5), st.integers(0, 3), st.booleans(), st.booleans(),
    st.booleans(), st.integers(0, 99), st.sampled_from(["core", "reference"]),
)  # fmt: skip
def test_linear_is_its_sum(
    sizes: Any, rows: int, biased: bool, shuts: bool, gates: bool, seed: int, way: Any
) -> None:
    parts, groups, size, input_groups, input_size = sizes
    outputs, inputs = parts * groups * size, input_groups * input_size
    x, w = draw(rows, inputs, seed=seed), draw(outputs, inputs, seed=seed + 1)
    b = draw(outputs, seed=seed + 2) if biased else None
    g, h = draw(groups, seed=seed + 3), draw(input_groups, seed=seed + 4)
    if shuts:
        g, h = g > 0, h > 0
    with use(way):
        found = masked_linear(
            x, w, b, output_gate=g if gates else None, input_gate=h, output_parts=parts
        )
    ones = [1.0] * groups
    expected = [
        plain_linear(row, w.tolist(), b.tolist() if b is not None else [0.0] * outputs,
                     [float(v) for v in g.tolist()] if gates else ones,
                     [float(v) for v in h.tolist()], parts)
        for row in x.tolist()
    ]  # fmt: skip
    torch.testing.assert_close(found, torch.tensor(expected).double().reshape(rows, outputs))


@pytest.mark.parametrize("way", ["core", "reference", "kernel"])
@pytest.mark.parametrize("kind", ["soft", "fixed", "none"])
def test_swiglu_is_its_sum(way: Any, kind: str) -> None:
    x, w_in, w_out = draw(3, 6), draw(16, 6, seed=1), draw(4, 8, seed=2)
    b_in, b_out = draw(16, seed=3), draw(4, seed=4)
    e, g, h = (draw(n, seed=5 + n) for n in (4, 2, 3))
    if kind == "fixed":
        e, g, h = e > 0, g > 0, h > 0
        assert all(0 < gate.sum() < len(gate) for gate in (e, g, h))
    gates = {"inner_gate": e, "output_gate": g, "input_gate": h}
    with use(way):
        found = masked_swiglu(x, w_in, w_out, b_in, b_out, **({} if kind == "none" else gates))
    if kind == "none":
        e, g, h = torch.ones(4), torch.ones(2), torch.ones(3)
    middle = (x * h.double().repeat_interleave(2)) @ w_in.T + b_in
    units = torch.sigmoid(middle[:, :8]) * middle[:, :8] * middle[:, 8:]
    units = units * e.double().repeat_interleave(2)
    expected = (units @ w_out.T + b_out) * g.double().repeat_interleave(2)
    torch.testing.assert_close(found, expected)


# Cut layers.


def make_case(layer: Layer, dtype: torch.dtype) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Arguments of a layer, and fixed gates of it, of groups of two features."""
    shapes = [(12, 8), (12,)] if layer is masked_linear else [(24, 8), (10, 12), (24,), (10,)]
    weights = [draw(*shape, seed=seed, dtype=dtype) for seed, shape in enumerate(shapes)]
    tensors = [draw(2, 3, 8, dtype=dtype), *weights]
    outputs = 12 if layer is masked_linear else 10
    gates = {
        "output_gate": torch.arange(outputs // 2) % 3 != 1,
        "input_gate": torch.tensor([True, False, False, True]),
    }
    if layer is masked_swiglu:
        gates["inner_gate"] = torch.tensor([False, True, True, False, True, False])
    return tensors, gates


def cut_case(
    layer: Layer, tensors: list[Tensor], gates: dict[str, Tensor]
) -> tuple[list[Tensor], Tensor]:
    """The same of the layer that is cut, and which outputs it has."""
    kept = {name: gate.repeat_interleave(2).nonzero()[:, 0] for name, gate in gates.items()}
    rows, columns = kept["output_gate"], kept["input_gate"]
    if layer is masked_linear:
        x, w, b = tensors
        return [x[..., columns], w[rows][:, columns], b[rows]], rows
    x, w_in, w_out, b_in, b_out = tensors
    inner = kept["inner_gate"]
    both = torch.cat([inner, 12 + inner])
    cut = [x[..., columns], w_in[both][:, columns], w_out[rows][:, inner], b_in[both], b_out[rows]]
    return cut, rows


def plain_layer(layer: Layer, x: Tensor, *weights: Tensor) -> Tensor:
    """The layer without gates, as torch has it."""
    if layer is masked_linear:
        return functional.linear(x, *weights)
    w_in, w_out, b_in, b_out = weights
    first, second = functional.linear(x, w_in, b_in).chunk(2, -1)
    return functional.linear(functional.silu(first) * second, w_out, b_out)


def gradient(tensor: Tensor) -> Tensor:
    assert tensor.grad is not None
    return tensor.grad


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str
)
def test_fixed_gates_compute_what_the_cut_layer_does(layer: Layer, dtype: torch.dtype) -> None:
    """Bit for bit, forward and backward; what is shut is zero, and has no gradient."""
    tensors, gates = make_case(layer, dtype)
    tensors = [tensor.requires_grad_() for tensor in tensors]
    found = layer(*tensors, **gates)
    cut, rows = cut_case(layer, tensors, gates)
    cut = [tensor.detach().requires_grad_() for tensor in cut]
    expected = plain_layer(layer, *cut)
    assert found.dtype == dtype
    assert torch.equal(found[..., rows], expected)
    shut = torch.ones(found.shape[-1], dtype=torch.bool).index_fill(0, rows, False)
    assert shut.any()
    assert not found[..., shut].any()
    weights = draw(*expected.shape, seed=9, dtype=dtype)
    expected.backward(weights)
    found.backward(found.detach().new_zeros(found.shape).index_copy(-1, rows, weights))
    kept, _ = cut_case(layer, [gradient(tensor) for tensor in tensors], gates)
    for whole, part in zip(kept, cut, strict=True):
        assert torch.equal(whole, gradient(part))
    for tensor, part in zip(tensors, cut, strict=True):
        assert gradient(tensor).count_nonzero() == gradient(part).count_nonzero()


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_what_is_shut_is_not_computed(layer: Layer) -> None:
    """Not even where it is no number; and no product is larger than that of the cut layer."""
    tensors, gates = make_case(layer, torch.float32)
    expected = layer(*tensors, **gates)
    kept = {name: gate.repeat_interleave(2) for name, gate in gates.items()}
    tensors[1][:, ~kept["input_gate"]] = torch.nan
    if layer is masked_linear:
        tensors[1][~kept["output_gate"]] = torch.inf
    else:
        tensors[1][~kept["inner_gate"].repeat(2)] = torch.inf
        tensors[2][:, ~kept["inner_gate"]] = torch.nan
        tensors[2][~kept["output_gate"]] = torch.inf
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            if func is functional.linear:
                sizes.append(tuple(args[1].shape))
            return func(*args, **(kwargs or {}))

    with Watch():
        found = layer(*tensors, **gates)
    assert torch.equal(found, expected)
    assert sizes == ([(8, 4)] if layer is masked_linear else [(12, 4), (6, 6)])


@pytest.mark.parametrize("way", ["core", "reference"])
@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize("state", [True, False])
def test_gates_that_are_all_open_or_all_shut(layer: Layer, way: Any, state: bool) -> None:
    tensors, gates = make_case(layer, torch.float32)
    plain = layer(*tensors)
    for name, gate in gates.items():
        with use(way):
            found = layer(*tensors, **{name: torch.full_like(gate, state)})
        if state:
            torch.testing.assert_close(found, plain)
        elif name == "output_gate":
            assert not found.any()
        else:  # the bias alone, or what is made of it
            assert torch.equal(found, found[:1, :1].expand(found.shape))


# Gradients, types and ways.


def all_gates(layer: Layer) -> Iterator[dict[str, Tensor]]:
    _, fixed = make_case(layer, torch.float64)
    soft = {name: draw(len(gate), seed=7).sigmoid() for name, gate in fixed.items()}
    for choice in product(*[((name, None), (name, fixed), (name, soft)) for name in fixed]):
        yield {name: gates[name].clone() for name, gates in choice if gates is not None}


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_gradients_are_those_of_differences(layer: Layer) -> None:
    tensors, _ = make_case(layer, torch.float64)
    leaves = [tensor[:1] if place == 0 else tensor for place, tensor in enumerate(tensors)]
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    for gates in all_gates(layer):
        names = list(gates)
        values = [v.requires_grad_() if v.is_floating_point() else v for v in gates.values()]

        def call(*values: Tensor, names: list[str] = names) -> Tensor:
            count = len(leaves)
            return layer(*values[:count], **dict(zip(names, values[count:], strict=True)))

        assert torch.autograd.gradcheck(call, [*leaves, *values], fast_mode=True)


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
@pytest.mark.parametrize(
    ("dtype", "tolerance"),
    [(torch.float32, 1e-5), (torch.bfloat16, 3e-2), (torch.float16, 4e-3)],
    ids=str,
)
def test_ways_agree(layer: Layer, dtype: torch.dtype, tolerance: float) -> None:
    """Results and gradients, in types of less precision against the definition in float64."""
    whole, _ = make_case(layer, torch.float64)
    for gates in all_gates(layer):
        results = []
        for kind, way in ((torch.float64, "reference"), (dtype, "core"), (dtype, "reference")):
            leaves = [t.to(dtype).to(kind).detach().requires_grad_() for t in whole]
            own = {n: g.float().to(kind) if g.is_floating_point() else g for n, g in gates.items()}
            soft = [g.requires_grad_() for g in own.values() if g.is_floating_point()]
            with use(way):  # type: ignore[arg-type]
                found = layer(*leaves, **own)
            assert found.dtype == kind
            grads = torch.autograd.grad(found.square().sum(), [*leaves, *soft])
            results.append([found, *grads])
        expected, *others = results
        for other in others:
            for value, wanted in zip(other, expected, strict=True):
                scale = wanted.abs().max().clamp(min=1)
                assert (value.double() - wanted).abs().max() <= tolerance * scale


def test_gates_multiply_in_the_type_of_the_inputs() -> None:
    x, w = draw(3, 4, dtype=torch.bfloat16), draw(4, 4, dtype=torch.bfloat16)
    gate = torch.tensor([0.3, 0.7])
    found = masked_linear(x, w, output_gate=gate.requires_grad_())
    found.sum().backward()
    assert found.dtype == torch.bfloat16
    assert gate.grad is not None
    assert gate.grad.dtype == torch.float32


@pytest.mark.parametrize("layer", LAYERS, ids=["linear", "swiglu"])
def test_mixed_types_under_autocast(layer: Layer) -> None:
    tensors, gates = make_case(layer, torch.float32)
    expected = layer(*tensors, **gates)
    tensors[0] = tensors[0].bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(*tensors, **gates)
    assert found.dtype == torch.bfloat16
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


# What does not fit.

X, W, B = torch.ones(2, 6), torch.ones(8, 6), torch.ones(8)


@pytest.mark.parametrize("way", ["core", "reference"])
@pytest.mark.parametrize(
    ("arguments", "gates", "kind", "text"),
    [
        ((X.long(), W), {}, TypeError, "inputs must be of floating point: got torch.int64"),
        ((X, W.double()), {}, TypeError,
         "weight must be of torch.float32 as inputs are: got torch.float64"),
        ((X, W, B.half()), {}, TypeError,
         "bias must be of torch.float32 as inputs are: got torch.float16"),
        ((X, B), {}, ValueError, "weight must have the shape [any, any]: got [8]"),
        ((X[:, :5], W), {}, ValueError, "inputs must have 6 features: got the shape [2, 5]"),
        ((X[0, 0], W), {}, ValueError, "inputs must have 6 features: got the shape []"),
        ((X, W, B[:7]), {}, ValueError, "bias must have the shape [8]: got [7]"),
        ((X, W), {"output_gate": torch.ones(3)}, ValueError,
         "output_gate must divide 8 features into groups: got 3"),
        ((X, W), {"output_gate": torch.ones(8), "output_parts": 2}, ValueError,
         "output_gate must divide 4 features into groups: got 8"),
        ((X, W), {"output_parts": 3}, ValueError, "output_parts must divide the 8 outputs: got 3"),
        ((X, W), {"output_parts": 0}, ValueError, "output_parts must divide the 8 outputs: got 0"),
        ((X, W), {"input_gate": torch.ones(0)}, ValueError,
         "input_gate must divide 6 features into groups: got 0"),
        ((X, W), {"input_gate": torch.ones(6, 1)}, ValueError,
         "input_gate must have one axis: got the shape [6, 1]"),
        ((X, W), {"input_gate": torch.ones(6).int()}, TypeError,
         "input_gate must be of floating point or bool: got torch.int32"),
        ((X, W), {"input_gate": torch.ones(6, device="meta")}, ValueError,
         "tensors must be on one device: got cpu, meta"),
    ],
)  # fmt: skip
def test_linear_layers_that_do_not_fit(
    arguments: Any, gates: Any, kind: Any, text: str, way: Any
) -> None:
    with use(way), pytest.raises(kind) as error:
        masked_linear(*arguments, **gates)
    assert str(error.value) == text


@pytest.mark.parametrize("way", ["core", "reference"])
@pytest.mark.parametrize(
    ("change", "kind", "text"),
    [
        ({"weight_in": torch.ones(7, 6)}, ValueError,
         "weight_in must have the shape [8, any]: got [7, 6]"),
        ({"weight_out": torch.ones(4)}, ValueError,
         "weight_out must have the shape [any, any]: got [4]"),
        ({"inputs": X[:, :5]}, ValueError, "inputs must have 6 features: got the shape [2, 5]"),
        ({"bias_in": torch.ones(4)}, ValueError, "bias_in must have the shape [8]: got [4]"),
        ({"bias_out": torch.ones(4)}, ValueError, "bias_out must have the shape [3]: got [4]"),
        ({"weight_out": torch.ones(3, 4).half()}, TypeError,
         "weight_out must be of torch.float32 as inputs are: got torch.float16"),
        ({"inner_gate": torch.ones(8)}, ValueError,
         "inner_gate must divide 4 features into groups: got 8"),
        ({"output_gate": torch.ones(2)}, ValueError,
         "output_gate must divide 3 features into groups: got 2"),
        ({"input_gate": torch.ones(4)}, ValueError,
         "input_gate must divide 6 features into groups: got 4"),
    ],
)  # fmt: skip
def test_swiglu_layers_that_do_not_fit(change: Any, kind: Any, text: str, way: Any) -> None:
    arguments = {"inputs": X, "weight_in": W, "weight_out": torch.ones(3, 4)} | change
    with use(way), pytest.raises(kind) as error:
        masked_swiglu(**arguments)
    assert str(error.value) == text
