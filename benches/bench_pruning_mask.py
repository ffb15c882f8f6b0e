"""Gated layers against dense ones, and against layers that are cut, forward and backward.

A fixed gate shuts half of the groups of inner units; a soft gate has one number for each group.
There is no kernel yet: what is timed is torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.ops.pruning_mask import masked_swiglu
from timing import compare, print_conditions, save

TOKENS, HIDDEN, INNER, GROUP = 512, 1024, 2752, 64


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


def main() -> None:
    """Times a step of each layer."""
    print_conditions()
    torch.manual_seed(0)
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
    rows = [
        row
        for opponent in ("dense", "cut")
        for row in compare(
            "pruning_mask", f"{name}, half of the groups shut", (opponent, steps[opponent]), *gated
        )
    ]
    save("pruning_mask", rows)


if __name__ == "__main__":
    main()
