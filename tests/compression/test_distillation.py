"""Distillation against its definition: all logits in memory, torch's own derivatives."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import cross_entropy
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from lmcore.compression import DistillationConfig, distil, distillation

Case = dict[str, Any]


def define(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    teacher_states: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    *,
    kept: Tensor | None = None,
    temperature: float = 1.0,
    scales: object = None,
) -> tuple[Tensor, Tensor]:
    """What it means, in float64."""
    logits = states.double() @ weight.double().T + (0 if bias is None else bias.double())
    taught = teacher_states.double() @ teacher_weight.double().T
    if teacher_bias is not None:
        taught = taught + teacher_bias.double()
    if kept is not None:
        taught = torch.where(kept < 0, -torch.inf, taught[:, kept.clamp(min=0)])
    losses = cross_entropy(logits, labels, reduction="none", ignore_index=-100)
    log_p, log_q = (z.div(temperature).log_softmax(1) for z in (taught, logits))
    each = torch.where(log_p == -torch.inf, 0, log_p.exp() * (log_p.clamp(min=-1e30) - log_q))
    divergences = each.sum(1) * temperature**2
    return losses, torch.where(labels == -100, 0, divergences)


def make_case(
    positions: int, entries: int, *, seed: int = 0, size: int = 6, teacher_size: int = 9,
    bias: bool = True, kept: bool = False, gap: bool = False, ignored: float = 0.2,
    dtype: torch.dtype = torch.float32, spread: float = 1.0,
) -> Case:  # fmt: skip
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return (torch.randn(shape, generator=generator, dtype=torch.float64) * spread).to(dtype)

    teacher_entries = entries + 5 if kept else entries
    ids = torch.randperm(teacher_entries, generator=generator)[:entries].sort()[0]
    if gap and entries > 1:
        ids[entries // 2] = -1
    labels = torch.randint(0, entries, (positions,), generator=generator)
    labels[torch.rand(positions, generator=generator) < ignored] = -100
    return {
        "states": draw(positions, size), "weight": draw(entries, size),
        "bias": draw(entries) if bias else None, "labels": labels,
        "teacher_states": draw(positions, teacher_size),
        "teacher_weight": draw(teacher_entries, teacher_size),
        "teacher_bias": draw(teacher_entries) if bias else None, "kept": ids if kept else None,
    }  # fmt: skip


def differentiate(function: Any, case: Case, outer: list[Tensor], **options: Any) -> list[Tensor]:
    """Losses, divergences, and gradients of what has some."""
    leaves = {
        name: case[name].clone().requires_grad_()
        for name in ("states", "weight", "bias")
        if case[name] is not None
    }
    found = function(**{**case, **leaves}, **options)
    total = sum((part * grad.to(part.dtype)).sum() for part, grad in zip(found, outer, strict=True))
    gradients = torch.autograd.grad(total, [*leaves.values()])
    return [part.detach() for part in (*found, *gradients)]


def assert_close(found: list[Tensor], expected: list[Tensor], bound: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape
        largest = float(other.abs().max()) if other.any() else 1.0
        assert torch.isfinite(one).all()
        torch.testing.assert_close(one.double(), other.double(), rtol=0, atol=bound * largest)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 8 positions x 64 entries."""
    monkeypatch.setattr(distillation, "_BLOCK", 8 * 64)
    monkeypatch.setattr(distillation, "_NEAR_BLOCK", 1)
    monkeypatch.setattr(distillation, "_LEAST_STEP", 16)


SHAPES = [
    (0, 5), (1, 1), (1, 64), (7, 64), (8, 64), (9, 64), (8, 63), (8, 65), (33, 15), (33, 16),
    (33, 17), (5, 700),
]  # fmt: skip
WAYS: list[tuple[float, float] | None] = [None, (0.25, 0.75), (1.0, 0.0), (0.0, 2.0)]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scales", WAYS)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_blocks_are_the_definition(
    shape: tuple[int, int], scales: tuple[float, float] | None, temperature: float
) -> None:
    case = make_case(*shape, kept=True, gap=True)
    if scales is None:
        generator = torch.Generator().manual_seed(1)
        outer = [torch.randn(shape[0], generator=generator) for _ in range(2)]
    else:
        outer = [torch.full((shape[0],), 3 * scale) for scale in scales]
    options: Case = {"temperature": temperature, "scales": scales}
    expected = differentiate(define, case, outer, **options)
    assert_close(differentiate(distil, case, outer, **options), expected, 1e-5)


@given(
    positions=st.integers(0, 40),
    entries=st.integers(1, 90),
    seed=st.integers(0, 2**31),
    temperature=st.sampled_from([1e-3, 0.5, 1.0, 2.0, 8.0, 9.0, 1e3]),
    bias=st.booleans(),
    kept=st.booleans(),
    gap=st.booleans(),
    scaled=st.booleans(),
    spread=st.sampled_from([0.1, 1.0, 3.0]),
)
def test_any_case_is_the_definition(
    positions: int, entries: int, seed: int, temperature: float, bias: bool, kept: bool, gap: bool,
    scaled: bool, spread: float,
) -> None:  # fmt: skip
    case = make_case(
        positions, entries, seed=seed, bias=bias, kept=kept, gap=gap, dtype=torch.float64,
        spread=spread,
    )  # fmt: skip
    outer = [torch.full((positions,), 0.3).double(), torch.full((positions,), 0.7).double()]
    options: Case = {"temperature": temperature, "scales": (0.3, 0.7) if scaled else None}
    expected = differentiate(define, case, outer, **options)
    # By float64 alone divergences at a temperature of 1,000 have ten digits less.
    assert_close(differentiate(distil, case, outer, **options), expected, 1e-7)


@pytest.mark.parametrize("temperature", [1e-3, 1e3])
def test_extreme_temperatures_keep_their_digits(temperature: float) -> None:
    case = make_case(30, 300)
    outer = [torch.ones(30), torch.ones(30)]
    expected = differentiate(define, case, outer, temperature=temperature)
    assert_close(differentiate(distil, case, outer, temperature=temperature), expected, 1e-5)


@pytest.mark.parametrize("scales", [None, (1.0, 1.0)])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_gradients_are_derivatives(scales: Any, temperature: float) -> None:
    case = make_case(4, 7, dtype=torch.float64, kept=True, gap=True)
    leaves = [case.pop(name).requires_grad_() for name in ("states", "weight", "bias")]

    def compute(states: Tensor, weight: Tensor, bias: Tensor) -> Any:
        found = distil(states, weight, bias, temperature=temperature, scales=scales, **case)
        return found if scales is None else found[0] + found[1]

    assert torch.autograd.gradcheck(compute, leaves)


def test_scales_that_do_not_hold_cost_time_and_nothing_else() -> None:
    case = make_case(12, 40)
    generator = torch.Generator().manual_seed(1)
    outer = [torch.randn(12, generator=generator) for _ in range(2)]
    expected = differentiate(distil, case, outer)
    found = differentiate(distil, case, outer, scales=(0.5, 0.5))
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_gradients_can_be_asked_for_twice() -> None:
    case = make_case(12, 40)
    states = case["states"].requires_grad_()
    first, second = distil(**case, scales=(0.5, 0.5))
    total = (0.5 * first + 0.5 * second).sum() * 3
    one, two = (torch.autograd.grad(total, states, retain_graph=True)[0] for _ in range(2))
    torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-6)


def test_its_gradient_has_none() -> None:
    case = make_case(3, 5)
    states = case["states"].requires_grad_()
    gradient = torch.autograd.grad(distil(**case)[0].sum(), states, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="the gradient of distil has none itself"):
        torch.autograd.grad(gradient.sum(), states)


def test_the_teacher_itself_is_no_way_from_itself() -> None:
    case = make_case(20, 50, teacher_size=6)
    for name in ("states", "weight", "bias"):
        case[f"teacher_{name}"] = case[name]
    states = case["states"].clone().requires_grad_()
    divergence = distil(**{**case, "states": states})[1]
    assert (divergence >= 0).all()
    assert float(divergence.detach().max()) < 1e-6
    assert float(torch.autograd.grad(divergence.sum(), states)[0].abs().max()) < 1e-6


def test_nothing_is_learned_where_all_labels_are_ignored() -> None:
    case = make_case(9, 20, ignored=1.0)
    case["states"][:] = torch.nan
    case["teacher_states"][:] = torch.nan
    outer = [torch.ones(9), torch.ones(9)]
    for scales in (None, (1.0, 1.0)):
        assert not any(part.any() for part in differentiate(distil, case, outer, scales=scales))


@pytest.mark.usefixtures("small_blocks")
def test_strides_make_no_difference() -> None:
    case = make_case(20, 70, kept=True)
    outer = [torch.ones(20), torch.full((20,), 0.5)]
    expected = differentiate(distil, case, outer)
    strided = {
        name: part.T.contiguous().T if part is not None and part.ndim == 2 else part
        for name, part in case.items()
    }
    for name in ("labels", "kept"):
        strided[name] = torch.stack([strided[name]] * 2, 1)[:, 0]
    assert_close(differentiate(distil, strided, outer), expected, 1e-6)


def test_tied_weights_get_both_gradients() -> None:
    case = make_case(12, 40, bias=False)
    weight = case.pop("weight").requires_grad_()
    case["states"] = weight[torch.arange(12)]
    losses, divergences = distil(weight=weight, **case, scales=(1.0, 1.0))
    found = torch.autograd.grad((losses + divergences).sum(), weight, retain_graph=True)[0]
    expected = torch.autograd.grad(sum(define(weight=weight, **case)).sum(), weight)[0]  # type: ignore[arg-type]
    assert_close([found], [expected], 1e-5)


@pytest.mark.usefixtures("small_blocks")
def test_half_precision_sums_in_float32() -> None:
    case = make_case(20, 70, kept=True, dtype=torch.bfloat16)
    outer = [torch.ones(20), torch.ones(20)]
    found = differentiate(distil, case, outer, scales=(1.0, 1.0))
    assert [part.dtype for part in found] == [torch.float32] * 2 + [torch.bfloat16] * 3
    expected = differentiate(define, case, outer)
    assert_close(found[:2], expected[:2], 1e-5)
    assert_close(found[2:], expected[2:], 2**-8)


def test_autocast_decides_the_type() -> None:
    case = make_case(20, 70)
    half = {name: part.bfloat16() if part.is_floating_point() else part
            for name, part in case.items() if part is not None}  # fmt: skip
    half |= {name: case[name] for name in ("bias", "teacher_bias")}
    with torch.autocast("cpu", torch.bfloat16):
        found = distil(**case)
        states = case["states"].requires_grad_()
        gradient = torch.autograd.grad(distil(**case)[1].sum(), states)[0]
    assert gradient.dtype == torch.float32
    for one, other in zip(found, distil(**half), strict=True):
        assert torch.equal(one, other)


def test_entries_that_never_come_have_no_part() -> None:
    case = make_case(10, 30)
    case["teacher_bias"][3:20] = -torch.inf
    case["labels"] = case["labels"].clamp(min=0)
    outer = [torch.ones(10), torch.ones(10)]
    assert_close(differentiate(distil, case, outer), differentiate(define, case, outer), 1e-5)


def test_a_state_that_is_not_finite_stays_in_its_row() -> None:
    case = make_case(10, 30, ignored=0)
    expected = [part.clone() for part in distil(**case)]
    case["states"][4, 0] = torch.nan
    for found, before in zip(distil(**case), expected, strict=True):
        assert torch.isnan(found[4])
        rest = torch.arange(10) != 4
        torch.testing.assert_close(found[rest], before[rest])


class _Largest(TorchDispatchMode):
    """Records the largest tensor that an operator makes, and the elements that live at once."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        sizes = [part.numel() for part in tree_leaves(found) if isinstance(part, Tensor)]
        self.elements = max(self.elements, *sizes, 0)
        return found


@pytest.mark.parametrize("scales", [None, (0.5, 0.5)])
def test_no_logits_are_whole(monkeypatch: pytest.MonkeyPatch, scales: Any) -> None:
    monkeypatch.setattr(distillation, "_BLOCK", 1 << 14)
    monkeypatch.setattr(distillation, "_NEAR_BLOCK", 1 << 12)
    found = []
    for positions in (64, 1024):
        case = make_case(positions, 4000, size=4, teacher_size=4)
        states, weight = (case[name].requires_grad_() for name in ("states", "weight"))
        with _Largest() as seen:
            first, second = distil(**case, scales=scales)
            torch.autograd.grad((first + second).sum() * 0.5, [states, weight])
        found.append(seen.elements)
    # That of weights; logits would be 64 or 1,024 times 4,000.
    assert found == [16000, 16000]


def test_products_are_as_few_as_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def count(name: str) -> None:
        whole = getattr(distillation, name)
        monkeypatch.setattr(
            distillation, name, lambda *given: (made.append(name), whole(*given))[1]
        )

    count("_multiply")
    count("_add_product")
    counts = []
    for scales in (None, (0.5, 0.5)):
        case = make_case(8, 100, size=4, teacher_size=4)
        leaves = [case[name].requires_grad_() for name in ("states", "weight")]
        made.clear()
        first, second = distil(**case, scales=scales)
        torch.autograd.grad((first + second).sum() * 0.5, leaves)
        counts.append(len(made))
    assert counts == [6, 4]


CHANGES: list[tuple[Case, type[Exception], str]] = [
    ({"labels": torch.tensor([0, 1, 5])}, IndexError, "labels must be 0 to 4, or -100: got 5 at"),
    ({"labels": torch.tensor([0, -1, 2])}, IndexError, "got -1 at position 1"),
    ({"labels": torch.tensor([0, 1, 2.0])}, TypeError, "labels must be of int64: got torch.float"),
    ({"labels": torch.tensor([0, 1])}, ValueError, r"states must have the shape \[2, D\]"),
    ({"labels": torch.zeros(3, 1).long()}, ValueError, r"labels must have the shape \[N\]"),
    ({"states": torch.zeros(3, 7)}, ValueError, r"weight must have the shape \[V, 7\]"),
    ({"weight": torch.zeros(5, 6).double()}, TypeError, "weight must be of torch.float32"),
    ({"weight": torch.zeros(0, 6)}, ValueError, r"weight must have the shape \[V, 6\]"),
    ({"bias": torch.zeros(4)}, ValueError, r"bias must have the shape \[5\]"),
    ({"states": torch.zeros(3, 6).long()}, TypeError, "states must be of floating point"),
    ({"teacher_states": torch.zeros(2, 9)}, ValueError, r"teacher_states must have .* \[3, D\]"),
    ({"teacher_weight": torch.zeros(6, 9), "teacher_bias": None}, ValueError,
     "teacher_weight must have 5 entries"),
    ({"kept": torch.tensor([0, 1, 2, 3, 5])}, IndexError, "kept must be -1 to 4: got 5"),
    ({"kept": torch.tensor([0, 1, 2, 3, -2])}, IndexError, "kept must be -1 to 4: got -2"),
    ({"kept": torch.full((5,), -1)}, ValueError, "kept must name an entry"),
    ({"kept": torch.zeros(4).long()}, ValueError, r"kept must have the shape \[5\]"),
    ({"kept": torch.zeros(5)}, TypeError, "kept must be of int64"),
    ({"temperature": 0.0}, ValueError, "temperature must be from 1e-3 to 1e3: got 0.0"),
    ({"temperature": np.nan}, ValueError, "temperature must be from 1e-3 to 1e3: got nan"),
    ({"scales": (1.0, np.inf)}, ValueError, "scales must be finite"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "kind", "text"), CHANGES)
def test_what_does_not_fit_is_refused(change: Case, kind: type[Exception], text: str) -> None:
    case = make_case(3, 5, ignored=0)
    with pytest.raises(kind, match=text):
        distil(**{**case, **change})


@pytest.mark.parametrize(
    "change", [{"temperature": 0.0}, {"weight": 1.5}, {"weight": np.nan}, {"hidden_weight": -1.0}]
)
def test_settings_have_ranges(change: Case) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        DistillationConfig(**change)
