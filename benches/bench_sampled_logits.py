"""Losses of sampled items against gathered rows and a batched product, forward and backward.

`--cuda`: 128 x 50 positions, 100 negatives, rows of 64, 57,000 items, bfloat16, and against the
published kernel for this, rebuilt from its description.  On a CPU it is a small case in float32.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from gpu import Contender, compare_on, find_device, name_device, print_device
from lmcore.ops.sampled_logits import sampled_logits, sampled_loss
from lmcore.reference import sampled_logits as reference
from timing import is_full, save

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def gather(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """All rows `[P, 1 + N, H]`, and a batched product."""
    return (functional.embedding(ids, table) @ states.unsqueeze(-1)).squeeze(-1)


def measure_bce(logits: Tensor) -> Tensor:
    """Binary cross-entropy with an array of labels."""
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    return functional.binary_cross_entropy_with_logits(logits, labels)


def measure_softmax(logits: Tensor) -> Tensor:
    """Cross-entropy of column 0."""
    return functional.cross_entropy(logits, logits.new_zeros(len(logits), dtype=torch.int64))


MEASURES = {"bce": measure_bce, "softmax": measure_softmax}


def list_opponents(kind: str, device: torch.device) -> dict[str, Loss]:
    """What else computes a loss, by name."""

    def by_gather(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return MEASURES[kind](gather(states, table, ids).float())

    found: dict[str, Loss] = {"gather + batched product": by_gather}
    if device.type == "cuda" or is_full():
        found["compiled gather + batched product"] = torch.compile(by_gather)
    if device.type == "cuda" and kind == "softmax":
        from published_sampled_logits import compute_loss

        found["CCE-, rebuilt"] = compute_loss
    return found


def list_ours(kind: str) -> dict[str, Loss]:
    """What is timed, by name."""

    def fused(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return sampled_loss(states, table, ids[:, 0], ids[:, 1:], kind=kind)

    def sorted_sums(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return sampled_loss(states, table, ids[:, 0], ids[:, 1:], kind=kind, deterministic=True)

    def by_logits(states: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        return MEASURES[kind](sampled_logits(states, table, ids[:, 0], ids[:, 1:]).float())

    return {"sampled_loss": fused, "deterministic": sorted_sums, "sampled_logits": by_logits}


def make_step(loss: Loss, *inputs: Tensor) -> Callable[[], list[Tensor]]:
    """A loss and both gradients."""
    states, table, ids = inputs
    learned = [tensor.detach().requires_grad_() for tensor in (states, table)]

    def step() -> list[Tensor]:
        value = loss(*learned, ids)
        return [value.detach(), *torch.autograd.grad(value, learned)]

    return step


def check(name: str, found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """That a loss and its gradients are those of the definition, by the size of the error."""
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other).norm() / other.norm()
        if not error < tolerance:
            raise AssertionError(f"{name} is off by {error:.2g}")


def main() -> None:
    """Times both losses and the logits alone, after all have computed the same."""
    device = find_device()
    print_device(device)
    on_gpu = device.type == "cuda"
    rows, samples, items, size = (6400, 100, 57_000, 64) if on_gpu else (320, 100, 12_000, 64)
    dtype, tolerance = (torch.bfloat16, 2e-2) if on_gpu else (torch.float32, 1e-4)
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(rows, size, generator=generator).to(device, dtype)
    table = (torch.randn(items, size, generator=generator) / size**0.5).to(device, dtype)
    ids = torch.randint(items, (rows, 1 + samples), generator=generator).to(device)
    inputs = (states, table, ids)
    name = f"{device.type}, {rows} positions, {samples} negatives, {items} rows of {size}"
    found = []
    for kind in MEASURES:

        def define(states: Tensor, table: Tensor, ids: Tensor, kind: str = kind) -> Tensor:
            return reference.sampled_loss(states, table, ids[:, 0], ids[:, 1:], kind=kind)

        expected = make_step(define, states.double(), table.double(), ids)()
        opponents, ours = list_opponents(kind, device), list_ours(kind)
        for one, loss in (opponents | ours).items():
            check(one, make_step(loss, *inputs)(), expected, tolerance)
        found += compare_on(
            device, "sampled_logits", f"{kind}, {name}",
            [Contender(name=n, call=make_step(x, *inputs)) for n, x in opponents.items()],
            [
                Contender(name=n, call=make_step(x, *inputs), goal=">= 2" if on_gpu else "")
                for n, x in ours.items()
            ],
        )  # fmt: skip
    with torch.no_grad():
        found += compare_on(
            device, "sampled_logits", f"logits alone, {name}",
            [Contender(name="gather + batched product", call=lambda: gather(*inputs))],
            [Contender(
                name="sampled_logits", goal=">= 2" if on_gpu else "",
                call=lambda: sampled_logits(states, table, ids[:, 0], ids[:, 1:]),
            )],
        )  # fmt: skip
    save("sampled_logits", found, name_device(device))


if __name__ == "__main__":
    main()
