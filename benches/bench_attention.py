"""Attention by lengths against torch's own without a mask, with a mask, and FlexAttention.

A row of a batch is a length of the same distribution for all: the mask, the block mask and our
lengths say the same.  FlexAttention has its block mask made before the clock runs.  `--cuda` runs
the shapes of training: an encoder-decoder's 570 sources and 381 targets, and 2,048 positions of
which 30 % are padding; a CPU small ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from gpu import Contender, compare_on, find_device, name_device, print_device
from lmcore.ops.attention import attention
from timing import Row, save


@dataclass(kw_only=True, slots=True, frozen=True)
class Case:
    """Sizes of an attention, and the ratios that were asked for."""

    name: str
    rows: int
    heads: int
    queries: int
    keys: int
    size: int
    causal: bool
    padding: float
    goals: dict[str, str]


BARE, MASKED, FLEX = "sdpa without a mask", "sdpa with a mask", "flex attention, cached block mask"
CASES = [
    Case(name="full", rows=16, heads=16, queries=2048, keys=2048, size=64, causal=False,
         padding=0.0, goals={BARE: "0.95"}),
    Case(name="full causal", rows=16, heads=16, queries=2048, keys=2048, size=128, causal=True,
         padding=0.0, goals={BARE: "0.95"}),
    Case(name="encoder", rows=32, heads=16, queries=570, keys=570, size=64, causal=False,
         padding=0.15, goals={MASKED: "1.3", FLEX: "1"}),
    Case(name="decoder", rows=32, heads=16, queries=381, keys=381, size=64, causal=True,
         padding=0.15, goals={MASKED: "1.3", FLEX: "1"}),
    Case(name="decoder to encoder", rows=32, heads=16, queries=381, keys=570, size=64, causal=False,
         padding=0.15, goals={MASKED: "1.3", FLEX: "1"}),
    Case(name="long", rows=8, heads=16, queries=2048, keys=2048, size=64, causal=False,
         padding=0.3, goals={MASKED: "2", FLEX: "1"}),
    Case(name="long causal", rows=8, heads=16, queries=2048, keys=2048, size=128, causal=True,
         padding=0.3, goals={MASKED: "2", FLEX: "1"}),
]  # fmt: skip
SMALL = [
    Case(name="encoder", rows=4, heads=4, queries=190, keys=190, size=32, causal=False,
         padding=0.15, goals={}),
    Case(name="decoder to encoder", rows=4, heads=4, queries=127, keys=190, size=32, causal=False,
         padding=0.15, goals={}),
    Case(name="long causal", rows=2, heads=4, queries=512, keys=512, size=32, causal=True,
         padding=0.3, goals={}),
]  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class Inputs:
    """What all contenders have."""

    query: Tensor
    key: Tensor
    value: Tensor
    gradient: Tensor
    lengths: Tensor
    mask: Tensor | None


def make_inputs(case: Case, device: torch.device) -> Inputs:
    """Returns heads as a projection leaves them, and lengths around those that padding leaves."""
    generator = torch.Generator(device).manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def draw(length: int) -> Tensor:
        shape = (case.rows, length, case.heads, case.size)
        drawn = torch.randn(shape, generator=generator, device=device).to(dtype)
        return drawn.transpose(1, 2).detach().requires_grad_()

    # From the whole length down to what leaves so much padding in the mean.
    share = 1 - 2 * case.padding * torch.arange(case.rows, device=device) / max(case.rows - 1, 1)
    lengths = (share * case.keys).round().int()
    mask = None
    if case.padding:
        mask = (torch.arange(case.keys, device=device) < lengths[:, None])[:, None, None, :]
        if case.causal:
            shape = (case.queries, case.keys)
            order = torch.ones(shape, dtype=torch.bool, device=device)
            mask = mask & order.tril(case.keys - case.queries)
        # As a model hands it over.
        mask = mask.expand(-1, -1, case.queries, -1).contiguous()
    return Inputs(
        query=draw(case.queries), key=draw(case.keys), value=draw(case.keys),
        gradient=draw(case.queries).detach(), lengths=lengths, mask=mask,
    )  # fmt: skip


def list_opponents(case: Case, inputs: Inputs) -> dict[str, Callable[[], Tensor]]:
    """Returns calls of forward by their names."""
    tensors = (inputs.query, inputs.key, inputs.value)

    def by_torch(mask: Tensor | None, causal: bool) -> Tensor:
        return functional.scaled_dot_product_attention(*tensors, mask, is_causal=causal)

    found: dict[str, Callable[[], Tensor]] = {}
    if case.queries == case.keys:
        found[BARE] = lambda: by_torch(None, case.causal)
    if inputs.mask is not None:
        found[MASKED] = lambda: by_torch(inputs.mask, False)
    if inputs.query.device.type == "cuda":
        found[FLEX] = make_flex(case, inputs)
    return found


def make_flex(case: Case, inputs: Inputs) -> Callable[[], Tensor]:
    """Returns a call of FlexAttention, compiled for this case."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    lengths, shift = inputs.lengths, case.keys - case.queries

    def see(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        there = key < lengths[row]
        return there & (key <= query + shift) if case.causal else there

    device = inputs.query.device
    mask = create_block_mask(see, case.rows, None, case.queries, case.keys, device=device)
    # After eight graphs of one function torch gives up compiling it: a case has two.
    torch.compiler.reset()
    compiled = torch.compile(flex_attention, dynamic=False)
    return lambda: compiled(inputs.query, inputs.key, inputs.value, block_mask=mask)


def assert_near(found: Tensor, expected: Tensor, bound: float, name: str) -> None:
    """Raises an error where the difference has more than this share of the length of a result.

    Means of hundreds of values are small: a bound for each number would let everything pass.
    """
    found, expected = found.detach().float(), expected.detach().float()
    error = float((found - expected).norm() / expected.norm())
    if not error < bound:
        raise AssertionError(f"attention differs from {name} by {error:.2g}")


def measure(case: Case, device: torch.device) -> list[Row]:
    """Returns rows of forward, and of forward and backward, after all have said the same."""
    inputs = make_inputs(case, device)
    leaves = (inputs.query, inputs.key, inputs.value)

    def by_lengths() -> Tensor:
        return attention(*leaves, key_lengths=inputs.lengths, causal=case.causal)

    def whole() -> Tensor:
        return attention(*leaves, causal=case.causal)

    ours = {"by lengths": by_lengths}
    if not case.padding:
        ours["without lengths"] = whole

    def both(call: Callable[[], Tensor]) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: torch.autograd.grad(call(), leaves, inputs.gradient)

    def forward(call: Callable[[], Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return call()

        return run

    opponents = list_opponents(case, inputs)
    bound = 0.02 if device.type == "cuda" else 1e-4
    for name, call in opponents.items():
        if name == BARE and case.padding:
            continue
        for own in ours.values():
            assert_near(own(), call(), bound, name)
            for found, expected in zip(both(own)(), both(call)(), strict=True):
                assert_near(found, expected, bound, f"the gradient of {name}")
    shape = f"{case.rows} x {case.heads} heads of {case.size}, {case.queries} / {case.keys}"
    rows = []
    for part, wrap in (("forward", forward), ("forward and backward", both)):
        for name, call in opponents.items():
            rows += compare_on(
                device, "attention",
                f"{device.type}, {case.name}, {shape}, {case.padding:.0%} padding, {part}",
                [Contender(name=name, call=wrap(call))],
                [Contender(name=own, call=wrap(ours[own]), goal=case.goals.get(name, ""))
                 for own in ours],
            )  # fmt: skip
    return rows


def count_compilations(device: torch.device) -> None:
    """Prints how many kernels other lengths and sizes compile after a first call."""
    if device.type != "cuda":
        return
    from lmcore.kernels import attention_backward, attention_forward
    from lmcore.kernels.tuning import pin

    kernels = (
        attention_forward._forward_kernel,
        attention_backward._queries_kernel,
        attention_backward._keys_kernel,
    )

    def count() -> int:
        return sum(len(kernel.device_caches[device.index][0]) for kernel in kernels)

    def call(rows: int, queries: int, keys: int) -> None:
        shapes = ((queries, 16), (keys, 16), (keys, 16))
        tensors = [
            torch.randn(rows, heads, length, 64, device=device, dtype=torch.bfloat16)
            .requires_grad_()
            for length, heads in shapes
        ]  # fmt: skip
        lengths = torch.randint(0, keys + 1, (rows,), device=device)
        attention(*tensors, key_lengths=lengths).sum().backward()

    with pin([]):
        call(4, 64, 64)
        before = count()
        for sizes in ((4, 64, 63), (1, 17, 570), (7, 381, 570), (32, 512, 1), (3, 1000, 2048)):
            call(*sizes)
        print(f"kernels that other lengths and sizes compile: {count() - before}")
    if count() != before:
        raise AssertionError("other lengths compile kernels anew")


def main() -> None:
    """Times all cases."""
    device = find_device()
    print_device(device)
    count_compilations(device)
    rows = []
    for case in CASES if device.type == "cuda" else SMALL:
        rows += measure(case, device)
        if device.type == "cuda":
            torch.cuda.empty_cache()
    save("attention", rows, name_device(device))


if __name__ == "__main__":
    main()
