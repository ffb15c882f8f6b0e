"""`ops.cross_entropy`: every way against torch's, with all logits in memory.

The kernels run in Triton's interpreter where there is no GPU.
"""

import importlib.util
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from lmcore.ops import cross_entropy as module
from lmcore.ops._dispatch import use
from lmcore.ops.cross_entropy import cross_entropy

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNEL = pytest.param(
    "kernel",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed"
    ),
)
WAYS = ["core", "reference", KERNEL]
# Of gradients; slopes of the kernels are rounded once, by the interpreter towards zero.
ROUNDING = {torch.float32: 2e-6, torch.bfloat16: 2**-7, torch.float16: 2**-10}
# The interpreter computes with numpy, which warns of what is no number.
QUIETLY = pytest.mark.filterwarnings(
    "ignore:(invalid value|overflow|divide by|All-NaN):RuntimeWarning"
)
Made = dict[str, Any]


def make(rows: int, entries: int, size: int, seed: int = 0, dtype: Any = torch.float32) -> Made:
    generator = torch.Generator().manual_seed(seed)
    return {
        "states": torch.randn(rows, size, generator=generator).to(dtype),
        "weight": (torch.randn(entries, size, generator=generator) / size**0.5).to(dtype),
        "targets": torch.randint(entries, (rows,), generator=generator),
        "bias": torch.randn(entries, generator=generator),
    }


def keep(made: Made, every: int) -> Made:
    """Every third entry or so, the targets among them."""
    kept = torch.arange(0, len(made["weight"]), every)
    places = made["targets"] % len(kept)
    return made | {"kept": kept, "targets": kept[places]}


def run(way: Any, made: Made, outer: Tensor | None = None, **more: Any) -> list[Tensor]:
    """The loss, and the gradients of states, weight and bias."""
    device = GPU if way == "kernel" else torch.device("cpu")
    given = {name: tensor.to(device) for name, tensor in made.items()}
    names = [name for name in ("states", "weight", "bias") if name in given]
    learned = {name: given[name].detach().requires_grad_() for name in names}
    with use(way):
        loss = cross_entropy(**(given | learned), **more)
    outer = torch.ones_like(loss) if outer is None else outer.to(loss)
    gradients = torch.autograd.grad(loss, list(learned.values()), outer)
    for gradient, name in zip(gradients, names, strict=True):
        assert gradient.dtype == learned[name].dtype
    return [tensor.detach().cpu() for tensor in (loss, *gradients)]


def expect(made: Made, outer: Tensor | None = None, **more: Any) -> list[Tensor]:
    """What torch computes of all logits in float64; entries that are not kept have -inf."""
    learned = [
        made[name].double().requires_grad_()
        for name in ("states", "weight", "bias") if name in made
    ]  # fmt: skip
    logits = functional.linear(*learned)
    if "kept" in made:
        shut = torch.ones(logits.shape[1]) > 0
        shut[made["kept"]] = False
        logits = logits.masked_fill(shut, -torch.inf)
    loss = functional.cross_entropy(logits, made["targets"], **more)
    outer = torch.ones_like(loss) if outer is None else outer.double()
    return [loss.detach(), *torch.autograd.grad(loss, learned, outer)]


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    """By what is large in a gradient: a slope is rounded before many are summed."""
    torch.testing.assert_close(found[0].double(), expected[0], rtol=1e-5, atol=1e-5, equal_nan=True)
    for one, other in zip(found[1:], expected[1:], strict=True):
        largest = other.abs().max().item() if other.numel() else 0
        torch.testing.assert_close(
            one.double(), other, rtol=4 * tolerance, atol=8 * tolerance * (largest + 1e-3)
        )


# Laws.


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_it_is_that_of_torch(way: Any, reduction: str) -> None:
    made = make(9, 70, 12)
    made["targets"][4] = -100
    expected = expect(made, reduction=reduction)
    assert_near(run(way, made, reduction=reduction), expected, ROUNDING[torch.float32])
    made["targets"][4] = 3
    made["targets"][2] = 69
    expected = expect(made, reduction=reduction, ignore_index=69)
    found = run(way, made, reduction=reduction, ignore_index=69)
    assert_near(found, expected, ROUNDING[torch.float32])


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("every", [1, 3, 69])
def test_a_kept_part_is_a_smaller_head(way: Any, every: int) -> None:
    made = keep(make(9, 70, 12), every)
    kept = made["kept"]
    small = {
        "states": made["states"], "weight": made["weight"][kept], "bias": made["bias"][kept],
        "targets": torch.searchsorted(kept, made["targets"]),
    }  # fmt: skip
    loss, for_states, for_weight, for_bias = run(way, made)
    expected = run(way, small)
    torch.testing.assert_close([loss, for_states], expected[:2])
    torch.testing.assert_close([for_weight[kept], for_bias[kept]], expected[2:])
    gone = torch.ones(70) > 0
    gone[kept] = False
    assert not for_weight[gone].any()
    assert not for_bias[gone].any()


def test_gradients_of_the_definition() -> None:
    made = keep(make(3, 7, 4, dtype=torch.float64), 2)
    made["bias"] = made["bias"].double()
    made["targets"][1] = -100
    names = ("states", "weight", "bias")
    for way in ("reference", "core", "kernel"):
        with use(way):  # type: ignore[arg-type]
            assert torch.autograd.gradcheck(
                lambda *given: cross_entropy(**(made | dict(zip(names, given, strict=True)))),
                [made[name].requires_grad_() for name in names],
            )


@pytest.mark.parametrize("way", ["core", KERNEL])
@settings(max_examples=10)
@given(
    st.sampled_from([0, 1, 3, 63, 64, 65, 129]), st.sampled_from([1, 2, 63, 64, 65, 130, 300]),
    st.sampled_from([1, 16, 31, 32, 33, 70]), st.sampled_from(list(ROUNDING)),
    st.sampled_from([None, 1, 2, 7]), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@example(65, 300, 33, torch.float32, None, True, 0)
@example(65, 300, 70, torch.bfloat16, 2, True, 1)
@example(129, 65, 16, torch.float16, 1, False, 2)
def test_parity(
    way: Any, rows: int, entries: int, size: int, dtype: torch.dtype, every: int | None,
    with_bias: bool, seed: int,
) -> None:  # fmt: skip
    made = make(rows, entries, size, seed, dtype)
    if every is not None:
        made = keep(made, every)
    if not with_bias:
        del made["bias"]
    generator = torch.Generator().manual_seed(seed + 1)
    made["targets"][torch.rand(rows, generator=generator) > 0.7] = -100
    outer = torch.randn(rows, generator=generator)
    expected = expect(made, outer, reduction="none")
    assert_near(run(way, made, outer, reduction="none"), expected, ROUNDING[dtype])


@pytest.mark.parametrize("way", WAYS)
def test_views(way: Any) -> None:
    made = keep(make(5, 40, 70), 2)
    del made["bias"]
    expected = run(way, made)
    for name in ("states", "weight"):
        found = run(way, made | {name: made[name].T.contiguous().T})
        torch.testing.assert_close(found, expected)
    wide = torch.full((20, 2), 10**6)
    wide[:, 1] = made["kept"]
    bias = torch.ones(1).expand(40)
    found = run(way, made | {"kept": wide[:, 1], "bias": bias})
    torch.testing.assert_close(found[:3], expected)
    shared = made | {"states": made["states"][:1].expand(5, 70)}
    found = run(way, shared)
    torch.testing.assert_close(found, run(way, shared | {"states": shared["states"].contiguous()}))


@pytest.mark.parametrize("way", WAYS)
def test_sizes_of_none(way: Any) -> None:
    for rows, entries, size in ((0, 5, 4), (0, 0, 4), (2, 5, 0)):
        made = make(rows, max(entries, 1), size)
        made = {n: t[:entries] if n in ("weight", "bias") else t for n, t in made.items()}
        loss, for_states, for_weight, for_bias = run(way, made, reduction="sum")
        assert for_states.shape == (rows, size)
        assert for_weight.shape == (entries, size)
        assert not for_weight.any()
        if not rows:
            assert loss == 0
            assert not for_bias.any()
    made = make(3, 5, 4)
    made["targets"][:] = -100
    assert run(way, made)[0].isnan()
    assert not any(g.any() for g in run(way, made, reduction="sum"))


@pytest.mark.parametrize("way", WAYS)
def test_inputs_without_gradients(way: Any) -> None:
    made = make(4, 40, 8)
    whole = run(way, made)
    device = GPU if way == "kernel" else torch.device("cpu")
    for place, name in enumerate(("states", "weight", "bias")):
        given = {n: t.clone().to(device).requires_grad_(n == name) for n, t in made.items()}
        with use(way):
            cross_entropy(**given).backward()
        torch.testing.assert_close(given.pop(name).grad.cpu(), whole[1 + place])
        assert all(tensor.grad is None for tensor in given.values())


# What is no number.


@QUIETLY
@pytest.mark.parametrize("way", ["core", KERNEL])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("name", ["states", "weight", "bias"])
def test_what_is_no_number_goes_where_torch_carries_it(way: Any, value: float, name: str) -> None:
    made = make(3, 70, 5)
    made["targets"][:] = torch.tensor([1, 2, 66])
    made[name][(2,) if name == "bias" else (2, 0)] = value
    found, expected = (run(w, made, reduction="none") for w in (way, "reference"))
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True, rtol=1e-4, atol=1e-5)


@QUIETLY
@pytest.mark.parametrize("way", WAYS)
def test_entries_that_are_shut_out(way: Any) -> None:
    """By a bias of -inf: whole blocks of them, and then all."""
    made = make(2, 300, 3)
    made["targets"][:] = torch.tensor([290, 299])
    made["bias"][:280] = -torch.inf
    assert_near(run(way, made), expect(made), 1e-5)
    made["bias"][:] = -torch.inf
    assert run(way, made)[0].isnan()


# Ids.


@pytest.mark.parametrize("way", ["core", "reference"])
def test_ids_that_do_not_take_part_on_a_cpu(way: Any) -> None:
    made = make(3, 9, 4)
    for wrong in (9, -1, 2**40):
        made["targets"][1] = wrong
        with use(way), pytest.raises(IndexError) as error:
            cross_entropy(**made)
        assert str(error.value) == (
            f"targets must be of the entries that take part: got {wrong} at position 1"
        )
    made["targets"][:] = torch.tensor([0, 4, 0])
    for kept, kind, text in (
        ([0, 5, 8], IndexError, "targets must be of the entries that take part: got 4 at position"),
        ([], IndexError, "targets must be of the entries that take part: got"),
        ([4, 9], IndexError, "kept must be 0 to 8: got 9"),
        ([-1, 4], IndexError, "kept must be 0 to 8: got -1"),
        ([4, 4], ValueError, "kept must ascend, each entry once"),
    ):
        made["kept"] = torch.tensor(kept, dtype=torch.int64)
        with use(way), pytest.raises(kind, match=text):
            cross_entropy(**made)


@QUIETLY
def test_ids_that_do_not_take_part_on_a_device() -> None:
    pytest.importorskip("triton")
    made = make(3, 9, 4)
    whole = run("kernel", made, torch.tensor([1.0, 0.0, 1.0]), reduction="none")
    for wrong in (9, -1, 2**40):
        made["targets"][1] = wrong
        found = run("kernel", made, reduction="none")
        assert found[0].isnan().tolist() == [False, True, False]
        torch.testing.assert_close(found[1:], whole[1:])
    made["targets"][1] = 4
    made["kept"] = torch.tensor([0, 4, 10**9])
    assert run("kernel", made, reduction="none")[0].isnan().all()


# Blocks.


@pytest.mark.parametrize("every", [None, 3])
def test_blocks_of_entries(every: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(5, 700, 6)
    made = made if every is None else keep(made, every)
    expected = expect(made)
    for block in (1, 5 * 99, 5 * 700):
        monkeypatch.setattr(module, "_BLOCK", block)
        monkeypatch.setattr(module, "_NEAR_BLOCK", block)
        monkeypatch.setattr(module, "_LEAST_STEP", 1)
        assert_near(run("core", made), expected, 2e-6)
    if importlib.util.find_spec("triton") is not None:
        monkeypatch.setattr(module, "_KERNEL_BLOCK", 5 * 256)
        assert_near(run("kernel", made), expected, 2e-6)


def test_logits_far_from_those_of_the_first_block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exponentials that overflow against it, or where it has none, and ones that vanish."""
    monkeypatch.setattr(module, "_NEAR_BLOCK", 12)
    monkeypatch.setattr(module, "_LEAST_STEP", 1)
    made = make(4, 40, 6)
    for low, high in ((0.0, 200.0), (200.0, 0.0), (-torch.inf, -95.0), (-torch.inf, -300.0)):
        bias = torch.full((40,), high)
        bias[:3] = low
        made |= {"bias": bias, "targets": torch.tensor([7, 39, 5, 8])}
        found = cross_entropy(**made, reduction="none")
        logits = made["states"] @ made["weight"].T + bias
        wanted = functional.cross_entropy(logits, made["targets"], reduction="none")
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=1e-6)


@pytest.mark.parametrize("group", [1, 3])
@pytest.mark.parametrize("shares", [1, 5])
def test_shares_and_groups(group: int, shares: int, monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("lmcore.kernels.cross_entropy")
    blocks = {"BLOCK_P": 16, "BLOCK_V": 32, "BLOCK_H": 16}
    monkeypatch.setattr(kernels, "_WIDE_CANDIDATES", (blocks,))
    monkeypatch.setattr(kernels, "_SHARES", shares)
    monkeypatch.setattr(kernels, "_GROUP", group)
    made = make(40, 333, 20)
    made["weight"] *= 5
    assert_near(run("kernel", made), expect(made), 4e-6)


@pytest.mark.parametrize("kept", [None, torch.tensor([0, 2])])
def test_rows_of_the_weight_beyond_32_bits(kept: Tensor | None) -> None:
    """A stride of 2^30: row 2 begins at an element that 32 bits do not reach."""
    pytest.importorskip("triton")
    storage = torch.empty(2**31 + 1, dtype=torch.float16, device=GPU)
    weight = storage.as_strided((3, 1), (2**30, 1))
    weight.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    states = torch.ones(1, 1, dtype=torch.float16, device=GPU)
    with use("kernel"), torch.no_grad():
        kept = None if kept is None else kept.to(GPU)
        loss = cross_entropy(states, weight, torch.tensor([2], device=GPU), kept=kept)
    expected = cross_entropy(states, weight.contiguous(), torch.tensor([2], device=GPU), kept=kept)
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("way", ["core", KERNEL])
def test_sums_of_many_small_slopes_do_not_drift(way: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In half precision, sums of gradients over blocks of entries would stop growing."""
    monkeypatch.setattr(module, "_BLOCK", 8)
    made = {
        "states": torch.zeros(1, 1, dtype=torch.bfloat16),
        "weight": torch.ones(2048, 1, dtype=torch.bfloat16),
        "targets": torch.tensor([0]),
    }
    made["weight"][0] = 0
    monkeypatch.setattr(module, "_KERNEL_BLOCK", 1)
    _, for_states, _ = run(way, made)
    assert for_states.item() == pytest.approx(2047 / 2048, rel=2**-7)


# What torch asks of an operator.


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("kernel", [False, pytest.param(True, marks=KERNEL.marks)])
def test_the_operators_of_torch(kernel: bool) -> None:
    made = {n: t.to(GPU) for n, t in keep(make(3, 8, 4), 2).items()}
    learned = [made[name].requires_grad_() for name in ("states", "weight")]
    bias = made["bias"].requires_grad_()
    arguments = (*learned, made["targets"], bias, made["kept"], -100, kernel)
    torch.library.opcheck(module._losses, arguments)
    with torch.no_grad():
        _, norms, places = module._losses(*arguments)
    plain = [t.detach() for t in (*learned, bias)]
    torch.library.opcheck(
        module._gradients,
        (norms.clone(), norms, places, *plain, made["kept"], kernel, True, True, True),
    )
    # What a compiled graph takes for granted are the strides.
    turned = [t.T.contiguous().T for t in plain[:2]]
    torch.library.opcheck(
        module._gradients,
        (norms.clone(), norms, places, *turned, None, None, kernel, True, True, False),
        test_utils="test_faketensor",
    )


@pytest.mark.parametrize("way", ["core", KERNEL])
def test_it_is_compiled_without_breaks(way: Any) -> None:
    made = {n: t.to(GPU) for n, t in make(3, 8, 4).items()}
    learned = [made[name].requires_grad_() for name in ("states", "weight", "bias")]

    def call(states: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return module.cross_entropy(states, weight, made["targets"], bias=bias)

    with use(way):
        compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
        expected, found = call(*learned), compiled(*learned)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        torch.autograd.grad(found, learned), torch.autograd.grad(expected, learned)
    )


@pytest.mark.parametrize("way", WAYS)
def test_autocast(way: Any) -> None:
    made = {n: t.to(GPU) for n, t in make(5, 40, 8).items()}
    made["weight"].requires_grad_()
    with use(way), torch.autocast(GPU.type, torch.bfloat16):
        loss = cross_entropy(**made)
    (gradient,) = torch.autograd.grad(loss, made["weight"])
    assert loss.dtype == gradient.dtype == torch.float32
    rounded = {n: t.detach().bfloat16().float() for n, t in made.items() if n[0] in "sw"}
    expected = cross_entropy(**(made | rounded))
    torch.testing.assert_close(loss, expected, rtol=1e-5, atol=1e-6)


# What does not fit.

S, W, T = torch.ones(2, 3), torch.ones(4, 3), torch.ones(2).long()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "more", "kind", "text"),
    [
        ((S.long(), W, T), {}, TypeError, "states must be of floating point: got torch.int64"),
        ((S, W.half(), T), {}, TypeError,
         "weight must be of torch.float32 as states are: got torch.float16"),
        ((S, W, T.int()), {}, TypeError, "targets must be of int64: got torch.int32"),
        ((S, W, T), {"kept": T.int()}, TypeError, "kept must be of int64: got torch.int32"),
        ((S, W, T), {"bias": T}, TypeError, "bias must be of floating point: got torch.int64"),
        ((S[0], W, T), {}, ValueError,
         "states must have the shape [positions, size]: got [3]"),
        ((S, W[:, :2], T), {}, ValueError, "weight must have the shape [entries, 3]: got [4, 2]"),
        ((S, W, T[:1]), {}, ValueError, "targets must have the shape [2]: got [1]"),
        ((S, W, T), {"bias": S[0]}, ValueError, "bias must have the shape [4]: got [3]"),
        ((S, W, T), {"kept": T[None]}, ValueError,
         "kept must have the shape [entries that are kept]: got [1, 2]"),
        ((S, W, T), {"ignore_index": 0.5}, TypeError,
         "ignore_index must be an integer: got 0.5"),
        ((S, W, T), {"reduction": "max"}, ValueError,
         "reduction must be one of mean, sum, none: got 'max'"),
        ((S, W.to("meta"), T), {}, ValueError, "tensors must be on one device: got cpu, meta"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(
    way: Any, arguments: Any, more: Any, kind: Any, text: str
) -> None:
    with use(way), pytest.raises(kind) as error:
        cross_entropy(*arguments, **more)
    assert str(error.value) == text
