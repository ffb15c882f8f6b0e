"""Cross-entropy of a linear head against torch, Liger and cut cross-entropy, forward and backward.

`--cuda`: 16,384 positions, 248,320 entries, states of 2,048, bfloat16, and a kept part of 50,000
entries.  Liger (`liger-kernel`) and cut cross-entropy (`cut-cross-entropy`, with its filter of
small gradients as it is by default and without one) take part where they are installed.  On a CPU
it is a small case in float32 against torch alone.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.nn import functional

from gpu import Contender, compare_on, find_device, name_device, print_device
from lmcore.ops.cross_entropy import cross_entropy
from timing import is_full, save

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def by_logits(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """With all logits, summed in float32."""
    return functional.cross_entropy((states @ weight.T).float(), targets)


def list_opponents(device: torch.device) -> Iterator[tuple[str, Loss]]:
    """Yields what else computes it, by name; says what is not installed."""
    yield "all logits", by_logits
    if hasattr(torch.nn, "LinearCrossEntropyOptions"):
        for policy in ("compact", "accurate"):
            options = torch.nn.LinearCrossEntropyOptions(acc_policy=policy)

            def chunked(
                states: Tensor, weight: Tensor, targets: Tensor, options: object = options
            ) -> Tensor:
                return functional.linear_cross_entropy(states, weight, targets, options=options)

            yield f"torch's chunks, {policy}", chunked
    else:
        print("torch has no linear_cross_entropy: left out")
    if device.type == "cuda" and is_full():
        yield "compiled, all logits", torch.compile(by_logits)
    if device.type != "cuda":
        return
    if importlib.util.find_spec("liger_kernel") is not None:
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        liger = LigerFusedLinearCrossEntropyLoss()
        yield "Liger", lambda states, weight, targets: liger(weight, states, targets)
    else:
        print("liger-kernel is not installed: left out")
    if importlib.util.find_spec("cut_cross_entropy") is not None:
        yield from list_cut()
    else:
        print("cut-cross-entropy is not installed: left out")


def list_cut() -> Iterator[tuple[str, Loss]]:
    """Yields cut cross-entropy in all the ways that the installed version has."""
    import inspect

    from cut_cross_entropy import linear_cross_entropy

    def make(**settings: object) -> Loss:
        return lambda states, weight, targets: linear_cross_entropy(
            states, weight, targets, **settings
        )

    yield "cut cross-entropy", make()
    if "filter_eps" in inspect.signature(linear_cross_entropy).parameters:
        yield "cut cross-entropy, exact", make(filter_eps=None)
    # Later versions name their ways.
    try:
        from cut_cross_entropy.cce_utils import CCEPresets
    except ImportError:
        return
    for name in CCEPresets.names:
        yield f"cut cross-entropy, {name}", make(impl=name)


def make_step(loss: Loss, *inputs: Tensor) -> Callable[[], list[Tensor]]:
    """A loss and both gradients."""
    states, weight, targets = inputs
    learned = [tensor.detach().requires_grad_() for tensor in (states, weight)]

    def step() -> list[Tensor]:
        value = loss(*learned, targets)
        return [value.detach(), *torch.autograd.grad(value, learned)]

    return step


def check(name: str, found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """That a loss and its gradients are those of all logits, by the size of the error."""
    errors = []
    for one, other in zip(found, expected, strict=True):
        error = torch.linalg.vector_norm(one - other, dtype=torch.float32)
        errors.append(float(error / torch.linalg.vector_norm(other, dtype=torch.float32)))
    print(f"{name}: errors of loss and gradients {', '.join(f'{e:.2g}' for e in errors)}")
    if not max(errors) < tolerance:
        raise AssertionError(f"{name} is off by {max(errors):.2g}")


def main() -> None:
    """Times all entries and a kept part, after all have computed the same."""
    device = find_device()
    print_device(device)
    on_gpu = device.type == "cuda"
    rows, entries, size, few = (16_384, 248_320, 2048, 50_000) if on_gpu else (128, 8192, 64, 1650)
    dtype, tolerance = (torch.bfloat16, 3e-2) if on_gpu else (torch.float32, 1e-4)
    generator = torch.Generator(device).manual_seed(0)
    states = torch.randn(rows, size, generator=generator, device=device).to(dtype)
    weight = torch.randn(entries, size, generator=generator, device=device).to(dtype)
    weight *= size**-0.5
    kept = torch.randperm(entries, generator=generator, device=device)[:few].sort().values
    targets = kept[torch.randint(few, (rows,), generator=generator, device=device)]
    inputs = (states, weight, targets)

    def ours(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(states, weight, targets)

    def ours_kept(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return cross_entropy(states, weight, targets, kept=kept)

    def sliced(states: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        return by_logits(states, weight[kept], torch.searchsorted(kept, targets))

    opponents = dict(list_opponents(device))
    case = f"{device.type}, {rows} positions, {entries} entries, size {size}"
    expected = make_step(by_logits, *inputs)()
    for name, loss in {**opponents, "cross_entropy": ours}.items():
        # A filter leaves out what is small, and half-precision sums drift: theirs may be far off.
        limit = tolerance if loss is ours else 1.0
        check(name, make_step(loss, *inputs)(), expected, limit)
    expected = make_step(sliced, *inputs)()
    check("kept", make_step(ours_kept, *inputs)(), expected, tolerance)
    del expected
    rounds = 7
    found = compare_on(
        device, "cross_entropy", case,
        [Contender(name=name, call=make_step(loss, *inputs)) for name, loss in opponents.items()],
        [Contender(
            name="cross_entropy", call=make_step(ours, *inputs),
            goal="<= 1.1x cut cross-entropy" if on_gpu else "",
        )],
        rounds=rounds,
    )  # fmt: skip
    found += compare_on(
        device, "cross_entropy", f"{case}, {few} of them kept",
        [
            Contender(name="cross_entropy of all", call=make_step(ours, *inputs)),
            Contender(name="all logits of the cut head", call=make_step(sliced, *inputs)),
        ],
        [Contender(
            name="cross_entropy, kept", call=make_step(ours_kept, *inputs),
            goal=">= 4 (of all)" if on_gpu else "",
        )],
        rounds=rounds,
    )  # fmt: skip
    save("cross_entropy", found, name_device(device))


if __name__ == "__main__":
    main()
