"""Gated layers against dense ones, and against layers that are cut, forward and backward.

A fixed gate shuts half of the groups of 64 features; a soft gate has one number for each group.
On a CPU a SwiGLU layer, which torch computes.  With `--cuda` linear layers of 4,096 x 4,096 x
11,008 in bf16 by the kernels, and a SwiGLU layer of that size, also against the definition as
torch compiles it; and how much of a backward pass is the gradient of a gate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from gpu import Contender, compare_on, find_device, name_device, print_device
from lmcore.ops.pruning_mask import masked_linear, masked_swiglu, prune_columns
from lmcore.reference import pruning_mask as reference
from timing import Row, compare, save

TOKENS, HIDDEN, INNER, GROUP = 512, 1024, 2752, 64
GPU_TOKENS, GPU_HIDDEN, GPU_INNER = 4096, 4096, 11_008


def make_step(layer: Callable[..., Tensor], leaves: list[Tensor]) -> Callable[[], Tensor]:
    """Forward and backward once, and what comes out."""

    def step() -> Tensor:
        for leaf in leaves:
            leaf.grad = None
        found = layer(*leaves)
        found.sum().backward()
        return found

    return step


def plain_swiglu(x: Tensor, w_in: Tensor, w_out: Tensor) -> Tensor:
    """The layer without gates."""
    first, second = functional.linear(x, w_in).chunk(2, -1)
    return functional.linear(functional.silu(first) * second, w_out)


def assert_near(found: Tensor, expected: Tensor, name: str) -> None:
    """Raises an error where results differ by more than rounding to bf16 does."""
    error = (found.float() - expected.float()).abs().max() / expected.float().abs().max()
    if not error < 2e-2:
        raise AssertionError(f"{name} is off by {error:.3g} of the largest number")


def time_layers(device: torch.device) -> Iterator[Row]:
    """Times linear layers forward, and forward and backward, after all computed the same."""
    dtype, case = torch.bfloat16, f"{GPU_TOKENS} x {GPU_HIDDEN} x {GPU_INNER}, bfloat16"
    x = torch.randn(GPU_TOKENS, GPU_HIDDEN, device=device).to(dtype)
    weight = (torch.randn(GPU_INNER, GPU_HIDDEN, device=device) / 64).to(dtype)
    compiled = torch.compile(reference.masked_linear)
    for name, size in (("output_gate", GPU_INNER), ("input_gate", GPU_HIDDEN)):
        half = torch.arange(size // GROUP, device=device) % 2 == 0
        kept = half.repeat_interleave(GROUP).nonzero()[:, 0]
        rows, columns = (kept, None) if name == "output_gate" else (None, kept)
        own = x if columns is None else prune_columns(x, columns=columns)
        cut = prune_columns(weight, rows, columns)
        ones = torch.ones(len(half), device=device)
        places = {"g": None, "h": None}
        letter = "g" if name == "output_gate" else "h"

        def by_kernel(x: Tensor, w: Tensor, gate: Tensor, name: str = name) -> Tensor:
            return masked_linear(x, w, **{name: gate})

        def by_torch(
            x: Tensor, w: Tensor, gate: Tensor, places: dict = places, letter: str = letter
        ) -> Tensor:
            return compiled(x, w, **(places | {letter: gate}))

        for gate, kind, wanted in (
            (ones, "soft", ">= 0.95"),
            (half, "half shut", "dense >= 1.67, cut >= 0.91"),
        ):
            torch.compiler.reset()  # of several shapes it would give up compiling
            found = by_kernel(x, weight, gate)
            assert_near(found, reference.masked_linear(x, weight, **{letter: gate}), name)
            layers: dict[str, tuple[Callable[..., Tensor], list[Tensor]]] = {
                "dense": (functional.linear, [x, weight]),
                "compiled definition": (lambda x, w, g=gate, f=by_torch: f(x, w, g), [x, weight]),
            }
            if gate is half:
                layers["cut"] = (functional.linear, [own, cut])
            layers["kernel"] = (lambda x, w, g=gate, f=by_kernel: f(x, w, g), [x, weight])
            for passes in ("forward", "forward and backward"):
                calls = {}
                for other, (layer, tensors) in layers.items():
                    leaves = [t.clone().requires_grad_(passes != "forward") for t in tensors]
                    calls[other] = make_call(layer, leaves)
                *opponents, ours = (
                    Contender(name=other, call=call, goal=wanted if other == "kernel" else "")
                    for other, call in calls.items()
                )
                text = f"linear {case}, {name} {kind}, {passes}"
                yield from compare_on(device, "pruning_mask", text, opponents, [ours])


def make_call(layer: Callable[..., Tensor], leaves: list[Tensor]) -> Callable[[], object]:
    """A forward pass, and a backward pass with ones where there are gradients."""
    if not leaves[0].requires_grad:
        return lambda: layer(*leaves)
    ones = torch.ones_like(layer(*leaves))
    return lambda: torch.autograd.grad(layer(*leaves), leaves, ones)


def time_gate_gradients(device: torch.device) -> Iterator[Row]:
    """Times backward passes with and without the gradients of both soft gates."""
    dtype = torch.bfloat16
    x = torch.randn(GPU_TOKENS, GPU_HIDDEN, device=device).to(dtype).requires_grad_()
    weight = (torch.randn(GPU_INNER, GPU_HIDDEN, device=device) / 64).to(dtype).requires_grad_()
    sizes = {"output_gate": GPU_INNER, "input_gate": GPU_HIDDEN}
    gates = {n: torch.rand(s // GROUP, device=device) for n, s in sizes.items()}
    soft = {name: gate.clone().requires_grad_() for name, gate in gates.items()}
    without, found = (masked_linear(x, weight, **own) for own in (gates, soft))
    dy = torch.randn_like(found)
    wanted = list(soft.values())
    expected = torch.autograd.grad(
        reference.masked_linear(x, weight, None, *wanted), wanted, dy, retain_graph=True
    )
    for one, other in zip(
        torch.autograd.grad(found, wanted, dy, retain_graph=True), expected, strict=True
    ):
        assert_near(one, other, "the gradient of a gate")
    yield from compare_on(
        device, "pruning_mask",
        f"linear {GPU_TOKENS} x {GPU_HIDDEN} x {GPU_INNER}, bfloat16, soft gates, backward",
        [Contender(name="without gradients of the gates", call=lambda: torch.autograd.grad(
            without, [x, weight], dy, retain_graph=True))],
        [Contender(name="with them", goal=">= 0.95", call=lambda: torch.autograd.grad(
            found, [x, weight, *wanted], dy, retain_graph=True))],
    )  # fmt: skip


def time_swiglu(device: torch.device) -> Iterator[Row]:
    """Times a SwiGLU layer, half of whose inner units are shut, forward and backward."""
    shapes = [(GPU_TOKENS, GPU_HIDDEN), (2 * GPU_INNER, GPU_HIDDEN), (GPU_HIDDEN, GPU_INNER)]
    whole = [(torch.randn(shape, device=device) / 8).bfloat16() for shape in shapes]
    half = torch.arange(GPU_INNER // GROUP, device=device) % 2 == 0
    kept = half.repeat_interleave(GROUP)
    x, w_in, w_out = whole
    cut = [x, w_in[kept.repeat(2)], w_out[:, kept].contiguous()]
    compiled = torch.compile(reference.masked_swiglu)
    assert_near(masked_swiglu(*whole, inner_gate=half), plain_swiglu(*cut), "the SwiGLU layer")
    layers = {
        "dense": (plain_swiglu, whole),
        "cut": (plain_swiglu, cut),
        "compiled definition": (lambda *t: compiled(*t, e=half), whole),
        "kernel": (lambda *t: masked_swiglu(*t, inner_gate=half), whole),
    }
    for passes in ("forward", "forward and backward"):
        calls = {
            name: make_call(layer, [t.clone().requires_grad_(passes != "forward") for t in tensors])
            for name, (layer, tensors) in layers.items()
        }
        *opponents, ours = (Contender(name=name, call=call) for name, call in calls.items())
        text = f"SwiGLU {GPU_TOKENS} x {GPU_HIDDEN} x {GPU_INNER}, bfloat16, half shut, {passes}"
        yield from compare_on(device, "pruning_mask", text, opponents, [ours])


def main() -> None:
    """Times layers on the device that is asked for."""
    device = find_device()
    print_device(device)
    torch.manual_seed(0)
    if device.type != "cuda":
        save("pruning_mask", time_on_cpu())
        return
    rows = [*time_layers(device), *time_gate_gradients(device), *time_swiglu(device)]
    save("pruning_mask", rows, name_device(device))


def time_on_cpu() -> list[Row]:
    """Times a step of each layer."""
    shapes = [(TOKENS, HIDDEN), (2 * INNER, HIDDEN), (HIDDEN, INNER)]
    whole = [(torch.randn(shape) / 32).requires_grad_() for shape in shapes]
    fixed = torch.arange(INNER // GROUP) % 2 == 0
    soft = fixed.float().requires_grad_()
    kept = fixed.repeat_interleave(GROUP)
    x, w_in, w_out = (leaf.detach() for leaf in whole)
    parts = [x, w_in[kept.repeat(2)], w_out[:, kept]]
    cut = [part.clone().requires_grad_() for part in parts]
    name = f"SwiGLU {TOKENS} x {HIDDEN} x {INNER}"
    steps = {
        "dense": make_step(plain_swiglu, whole),
        "cut": make_step(plain_swiglu, cut),
        "fixed gate": make_step(lambda *t: masked_swiglu(*t, inner_gate=fixed), whole),
        "soft gate": make_step(lambda *t: masked_swiglu(*t, inner_gate=soft), whole),
    }
    if not torch.equal(steps["fixed gate"](), steps["cut"]()):
        raise AssertionError("the gated layer is not the one that is cut")
    torch.testing.assert_close(steps["soft gate"](), steps["fixed gate"](), rtol=1e-4, atol=1e-4)
    gated = [(kind, steps[kind], "") for kind in ("fixed gate", "soft gate")]
    return [
        row
        for opponent in ("dense", "cut")
        for row in compare(
            "pruning_mask", f"{name}, half of the groups shut", (opponent, steps[opponent]), *gated
        )
    ]


if __name__ == "__main__":
    main()
