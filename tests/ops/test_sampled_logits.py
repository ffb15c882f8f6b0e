"""`ops.sampled_logits`: every way against products that are made one at a time.

The kernel runs in Triton's interpreter where there is no GPU.
"""

import importlib.util
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

from lmcore.ops import sampled_logits as module
from lmcore.ops._dispatch import use
from lmcore.ops.sampled_logits import sampled_logits, sampled_loss
from lmcore.reference import sampled_logits as reference

GPU = torch.device("cuda" if torch.cuda.is_available() else "cpu")
KERNEL = pytest.param(
    "kernel",
    marks=pytest.mark.skipif(
        importlib.util.find_spec("triton") is None, reason="triton is not installed"
    ),
)
WAYS = ["core", "reference", KERNEL]
KINDS = ["bce", "softmax"]
# Half-precision results are rounded once; the interpreter truncates bfloat16, which is twice that.
ROUNDING = {torch.float32: 1e-5, torch.bfloat16: 2**-7, torch.float16: 2**-10}
# The interpreter computes with numpy, which warns of what is no number.
QUIETLY = pytest.mark.filterwarnings("ignore:(invalid value|overflow|divide by):RuntimeWarning")


def make(
    rows: int, samples: int, items: int, size: int, seed: int = 0, dtype: Any = torch.float32
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    states = torch.randn(rows, size, generator=generator).to(dtype)
    table = torch.randn(items, size, generator=generator).to(dtype)
    ids = torch.randint(items, (rows, 1 + samples), generator=generator)
    return [states, table, ids[:, 0], ids[:, 1:]]


def run(way: Any, call: Any, *tensors: Tensor, outer: Tensor | None = None, **more: Any) -> Any:
    """What a way computes, and the gradients of states, table and bias."""
    device = GPU if way == "kernel" else torch.device("cpu")
    states, table, *ids = (tensor.to(device) for tensor in tensors)
    more = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in more.items()}
    learned = [states, table, *((more["bias"],) if "bias" in more else ())]
    learned = [tensor.detach().requires_grad_() for tensor in learned]
    more |= {"bias": learned[2]} if "bias" in more else {}
    with use(way):
        found = call(*learned[:2], *ids, **more)
    outer = torch.ones_like(found) if outer is None else outer.to(found)
    gradients = torch.autograd.grad(found, learned, outer)
    for gradient, tensor in zip(gradients, learned, strict=True):
        assert gradient.dtype == tensor.dtype
    return [tensor.detach().cpu() for tensor in (found, *gradients)]


def expect(call: Any, *tensors: Tensor, outer: Tensor | None = None, **more: Any) -> Any:
    """The definition in float64, of the same inputs."""
    wide = [tensor.double() if tensor.is_floating_point() else tensor for tensor in tensors]
    more = {
        k: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v
        for k, v in more.items()
    }
    return run("reference", call, *wide, outer=outer, **more)


def assert_near(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(
            one.double(), other, atol=8 * tolerance, rtol=tolerance, equal_nan=True
        )


def plain(states: Tensor, table: Tensor, positives: Tensor, negatives: Tensor) -> list[list[float]]:
    """One product at a time."""
    rows, found = table.tolist(), []
    for state, first, others in zip(states.tolist(), positives, negatives, strict=True):
        found.append(
            [
                sum(a * b for a, b in zip(state, rows[item], strict=True))
                for item in (int(first), *others.tolist())
            ]
        )
    return found


# Laws.


@pytest.mark.parametrize("way", WAYS)
def test_logits_are_products(way: Any) -> None:
    inputs = make(7, 5, 11, 6)
    found = run(way, sampled_logits, *inputs)[0]
    torch.testing.assert_close(found, torch.tensor(plain(*inputs)))
    bias = torch.linspace(-1, 1, 11)
    with_bias = run(way, sampled_logits, *inputs, bias=bias)[0]
    ids = torch.cat([inputs[2][:, None], inputs[3]], 1)
    torch.testing.assert_close(with_bias, found + bias[ids])


@pytest.mark.parametrize("way", WAYS)
def test_losses_are_those_of_torch(way: Any) -> None:
    inputs = make(7, 5, 11, 6)
    logits = torch.tensor(plain(*inputs))
    labels = torch.zeros_like(logits)
    labels[:, 0] = 1
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    torch.testing.assert_close(run(way, sampled_loss, *inputs)[0], expected)
    expected = torch.nn.functional.cross_entropy(logits, torch.zeros(7, dtype=torch.int64))
    torch.testing.assert_close(run(way, sampled_loss, *inputs, kind="softmax")[0], expected)


def test_the_softmax_corrected_by_log_q_estimates_that_over_all_items() -> None:
    """Unbiased in its sum: with every item sampled as often as log Q says, it is the same."""
    states, table, _, _ = make(3, 0, 4, 5)
    log_q = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()
    drawn = torch.tensor([0, 1, 1, 2, 2, 2, 3, 3, 3, 3]).expand(3, -1)
    positives = torch.tensor([0, 2, 3])
    loss = sampled_loss(
        states, table, positives, drawn, kind="softmax", log_q=log_q, reduction="none"
    )
    logits = states @ table.T
    # The sample's terms are e^z / q, so ten of them sum to ten times that over all items.
    own = (logits - log_q).gather(1, positives[:, None])[:, 0]
    expected = (own.exp() + 10 * logits.exp().sum(1)).log() - own
    torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("kind", [None, *KINDS])
def test_gradients_of_the_definition(kind: Any) -> None:
    states, table, *ids = make(3, 2, 5, 4, dtype=torch.float64)
    bias = torch.randn(5, dtype=torch.float64)
    mask, log_q = torch.tensor([True, False, True]), torch.rand(5, dtype=torch.float64)

    def call(*learned: Tensor) -> Tensor:
        b, more = learned[2], {} if kind is None else {"kind": kind, "log_q": log_q}
        function = sampled_logits if kind is None else sampled_loss
        return function(*learned[:2], *ids, bias=b, mask=mask, **more)

    learned = [tensor.requires_grad_() for tensor in (states, table, bias)]
    for way in ("reference", "core", "kernel"):
        with use(way):  # type: ignore[arg-type]
            assert torch.autograd.gradcheck(call, learned)


# Parity with the definition in float64, on sizes around blocks.


@pytest.mark.parametrize("way", ["core", KERNEL])
@settings(max_examples=14)
@given(
    st.sampled_from([0, 1, 3]), st.sampled_from([0, 1, 15, 16, 65, 130]),
    st.sampled_from([1, 2, 9]), st.sampled_from([1, 15, 16, 17, 64, 257]),
    st.sampled_from(list(ROUNDING)), st.sampled_from([None, *KINDS]), st.booleans(),
    st.booleans(), st.booleans(), st.integers(0, 99),
)  # fmt: skip
@example(3, 65, 9, 64, torch.bfloat16, "bce", True, True, False, 0)
@example(3, 65, 2, 257, torch.float32, "softmax", True, True, True, 1)
@example(3, 16, 9, 300, torch.float32, None, True, True, False, 2)
@example(3, 16, 9, 16, torch.float16, None, True, False, True, 3)
def test_parity(
    way: Any, rows: int, samples: int, items: int, size: int, dtype: torch.dtype, kind: Any,
    with_bias: bool, with_mask: bool, deterministic: bool, seed: int,
) -> None:  # fmt: skip
    inputs = make(rows, samples, items, size, seed, dtype)
    inputs[1] /= size**0.5
    generator = torch.Generator().manual_seed(seed + 1)
    more: dict[str, Any] = {}
    if with_bias:
        more["bias"] = torch.randn(items, generator=generator).to(dtype)
    if with_mask:
        more["mask"] = torch.rand(rows, generator=generator) > 0.4
        # Nobody looks at them.
        inputs[2][~more["mask"]] = -100
        inputs[0][~more["mask"]] = torch.nan
    call, shape = sampled_logits, (rows, 1 + samples)
    if kind is not None:
        call, shape = sampled_loss, (rows,)
        more |= {"kind": kind, "reduction": "none", "log_q": torch.rand(items, generator=generator)}
        tolerance = max(ROUNDING[dtype], 2e-5)
    else:
        tolerance = ROUNDING[dtype]
    more["padding_index"] = items // 2 if seed % 2 else None
    outer = torch.randn(shape, generator=generator).to(dtype)
    expected = expect(call, *inputs, outer=outer, **more)
    found = run(way, call, *inputs, outer=outer, deterministic=deterministic, **more)
    assert_near(found, expected, 4 * tolerance)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_reductions(way: Any, kind: Any, reduction: Any) -> None:
    inputs = make(5, 3, 9, 4)
    for mask in (None, torch.tensor([True, False, True, True, False])):
        more = {} if mask is None else {"mask": mask}
        each = run(way, sampled_loss, *inputs, kind=kind, reduction="none", **more)
        whole = run(way, sampled_loss, *inputs, kind=kind, reduction=reduction, **more)
        count = (5 if mask is None else 3) if reduction == "mean" else 1
        torch.testing.assert_close(whole[0], each[0].sum() / count)
        torch.testing.assert_close(whole[1], each[1] / count)
        torch.testing.assert_close(whole[2], each[2] / count)
    assert run(way, sampled_loss, *inputs, mask=torch.zeros(5) > 0)[0].isnan()


@pytest.mark.parametrize("way", WAYS)
def test_masked_positions_are_zero(way: Any) -> None:
    inputs = make(4, 3, 9, 5)
    mask = torch.tensor([True, False, False, True])
    whole = run(way, sampled_logits, *inputs, outer=mask[:, None].expand(4, 4).float())
    inputs[0][1:3], inputs[2][1], inputs[3][2] = torch.nan, 10**6, -1
    inputs[1] = torch.cat([inputs[1], torch.full((1, 5), torch.nan)])
    found = run(way, sampled_logits, *inputs, mask=mask)
    assert torch.equal(found[0], torch.where(mask[:, None], whole[0], 0))
    assert torch.equal(found[1], torch.where(mask[:, None], whole[1], 0))
    torch.testing.assert_close(found[2][:9], whole[2])
    assert not found[2][9].any()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_the_padding_learns_nothing(way: Any, deterministic: bool) -> None:
    states, table = torch.ones(1, 2), torch.ones(3, 2)
    ids = [torch.tensor([0]), torch.tensor([[0, 2, 2]])]
    more = {"bias": torch.zeros(3), "deterministic": deterministic}
    _, for_states, *others = run(way, sampled_logits, states, table, *ids, **more)
    assert for_states.tolist() == [[4, 4]]
    assert [g.tolist() for g in others] == [[[2, 2], [0, 0], [2, 2]], [2, 0, 2]]
    more["padding_index"] = 0
    _, for_states, *others = run(way, sampled_logits, states, table, *ids, **more)
    assert for_states.tolist() == [[4, 4]]
    assert [g.tolist() for g in others] == [[[0, 0], [0, 0], [2, 2]], [0, 0, 2]]


@pytest.mark.parametrize("way", WAYS)
def test_views_and_kinds_of_ids(way: Any) -> None:
    states, table, positives, negatives = make(4, 6, 9, 5)
    expected = run(way, sampled_logits, states, table, positives, negatives)
    turned = [tensor.T.contiguous().T for tensor in (states, table)]
    wide = torch.full((4, 14), 99)
    wide[:, 1::2] = torch.cat([positives[:, None], negatives], 1)
    views = [*turned, wide[:, 1], wide[:, 3::2]]
    short = [*turned, positives.int(), negatives.int()]
    for inputs in (views, short):
        assert all(
            torch.equal(one, other)
            for one, other in zip(run(way, sampled_logits, *inputs), expected, strict=True)
        )
    bias = torch.ones(1).expand(9)
    found = run(way, sampled_logits, *views, bias=bias)
    torch.testing.assert_close(found[0], expected[0] + 1)
    shared = [states[:1].expand(4, 5), table, positives, negatives[:1].expand(4, 6)]
    found = run(way, sampled_logits, *shared)
    again = run(way, sampled_logits, *(tensor.contiguous() for tensor in shared))
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


@pytest.mark.parametrize("way", WAYS)
def test_inputs_without_gradients(way: Any) -> None:
    states, table, *ids = make(3, 2, 5, 4)
    device = GPU if way == "kernel" else torch.device("cpu")
    whole = run(way, sampled_loss, states, table, *ids)
    for learned in (0, 1):
        pair = (t.clone().to(device) for t in (states, table))
        inputs = [t.requires_grad_(n == learned) for n, t in enumerate(pair)]
        with use(way):
            loss = sampled_loss(*inputs, *(t.to(device) for t in ids))
        loss.backward()
        assert inputs[1 - learned].grad is None
        torch.testing.assert_close(inputs[learned].grad.cpu(), whole[1 + learned])
    with use(way), torch.no_grad():
        loss = sampled_loss(*inputs, *(t.to(device) for t in ids))
    assert not loss.requires_grad
    torch.testing.assert_close(loss.cpu(), whole[0])


@pytest.mark.parametrize("way", WAYS)
def test_sizes_of_none(way: Any) -> None:
    for rows, samples, items, size in ((0, 3, 5, 4), (2, 0, 5, 4), (2, 3, 5, 0), (0, 0, 0, 0)):
        inputs = make(rows, samples, max(items, 1), size)
        inputs[1] = inputs[1][:items]
        logits, for_states, for_table = run(way, sampled_logits, *inputs)
        assert logits.shape == (rows, 1 + samples)
        assert for_states.shape == (rows, size)
        assert for_table.shape == (items, size)
        if not size or not rows:
            assert not logits.any()
            assert not for_table.any()


# What is no number.


@QUIETLY
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", [None, *KINDS])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("place", ["states", "table", "bias"])
def test_what_is_no_number_goes_where_torch_carries_it(
    way: Any, kind: Any, value: float, place: str
) -> None:
    states, table, positives, negatives = make(3, 4, 9, 3)
    positives[:], negatives[:] = torch.tensor([1, 2, 3]), torch.arange(4, 8)
    negatives[1, 2] = 0
    bias = torch.zeros(9)
    {"states": states[1], "table": table[0], "bias": bias[:1]}[place][0] = value
    more = {} if kind is None else {"kind": kind, "reduction": "none"}
    call = sampled_logits if kind is None else sampled_loss
    inputs = (states, table, positives, negatives)
    expected = run("reference", call, *inputs, bias=bias, **more)
    found = run(way, call, *inputs, bias=bias, **more)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, equal_nan=True)


@QUIETLY
@pytest.mark.parametrize("way", WAYS)
def test_items_that_are_shut_out(way: Any) -> None:
    """By a bias of -inf: whole blocks of them, and then all."""
    inputs = make(2, 150, 9, 3)
    inputs[2][:], inputs[3][:, :140], inputs[3][:, 140:] = 1, 0, 2
    bias = torch.zeros(9)
    bias[0] = -torch.inf
    loss = run(way, sampled_loss, *inputs, kind="softmax", bias=bias)
    inputs[3] = inputs[3][:, 140:]
    expected = run("reference", sampled_loss, *inputs, kind="softmax", bias=bias)
    torch.testing.assert_close(loss, expected)
    inputs = make(1, 150, 9, 3)
    inputs[2][:], inputs[3][:, :140], inputs[3][:, 140:] = 0, 0, 2
    assert run(way, sampled_loss, *inputs, kind="softmax", bias=bias)[0] == torch.inf
    bias[:] = -torch.inf
    assert run(way, sampled_loss, *inputs, kind="softmax", bias=bias)[0].isnan()


@pytest.mark.parametrize("way", WAYS)
def test_losses_of_large_logits_keep_their_digits(way: Any) -> None:
    table = torch.tensor([[30.0], [-30.0], [-8.0], [200.0]])
    ids = torch.tensor([0, 1, 0]), torch.tensor([[1], [3], [2]])
    found, *_ = run(way, sampled_loss, torch.ones(3, 1), table, *ids, reduction="none")
    expected, *_ = expect(sampled_loss, torch.ones(3, 1), table, *ids, reduction="none")
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=0)


# Ids.


@pytest.mark.parametrize("way", ["core", "reference"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("wrong", "place"), [(9, 0), (-1, 1), (2**33, 1)])
def test_ids_of_no_item_on_a_cpu(way: Any, dtype: torch.dtype, wrong: int, place: int) -> None:
    states, table, *ids = make(3, 4, 9, 3, dtype=dtype)
    ids[place][1] = wrong
    for call in (sampled_logits, sampled_loss):
        with use(way), pytest.raises(IndexError) as error:
            call(states, table, *ids)
        assert str(error.value) == f"items must be 0 to 8: got {wrong}"


@QUIETLY
@pytest.mark.parametrize("deterministic", [False, True])
def test_ids_of_no_item_on_a_device(deterministic: bool) -> None:
    """Nothing outside of the table is read, and nothing learns from them."""
    pytest.importorskip("triton")
    states, table, positives, negatives = make(3, 4, 9, 3)
    whole = run("kernel", sampled_logits, states, table, positives, negatives)
    outer = torch.ones(3, 5)
    for wrong, column in ((9, 0), (-1, 2), (2**33, 4)):
        (positives if column == 0 else negatives[:, column - 1])[1] = wrong
        outer[1, column] = 0
    found = run(
        "kernel", sampled_logits, states, table, positives, negatives,
        deterministic=deterministic,
    )  # fmt: skip
    assert torch.equal(found[0].isnan(), outer == 0)
    ids = torch.cat([positives[:, None], negatives], 1)
    for row in range(3):
        for column in range(5):
            if outer[row, column]:
                assert found[0][row, column] == whole[0][row, column]
    rows = torch.zeros(9, 3)
    for row, column in (outer > 0).nonzero():
        rows[ids[row, column]] += states[row]
    torch.testing.assert_close(found[2], rows)


# Blocks, and orders of sums.


@pytest.mark.parametrize("blocks", [(16, 16), (16, 64), (64, 16)])
def test_blocks_of_the_kernel(blocks: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    kernels = pytest.importorskip("lmcore.kernels.sampled_logits")
    monkeypatch.setattr(
        kernels, "list_blocks",
        lambda *_: [{"BLOCK_C": blocks[0], "BLOCK_H": blocks[1], "num_warps": 4}],
    )  # fmt: skip
    inputs = make(3, 40, 50, 40)
    inputs[1] /= 40**0.5
    for kind in KINDS:
        for deterministic in (False, True):
            expected = expect(sampled_loss, *inputs, kind=kind, bias=torch.ones(50))
            found = run(
                "kernel", sampled_loss, *inputs, kind=kind, bias=torch.ones(50),
                deterministic=deterministic,
            )  # fmt: skip
            assert_near(found, expected, 1e-5)


def test_blocks_of_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = make(9, 4, 7, 3)
    expected = run("core", sampled_logits, *inputs)
    for elements in (1, 31, 10**6):
        monkeypatch.setattr(module, "_BUFFER_ELEMENTS", elements)
        found = run("core", sampled_logits, *inputs)
        torch.testing.assert_close(found, expected)


def test_sums_in_sorted_order_do_not_depend_on_the_order_of_items() -> None:
    """The flag of torch decides where the argument does not."""
    pytest.importorskip("triton")
    kernels = pytest.importorskip("lmcore.kernels.sampled_logits")
    calls: list[int] = []
    original = kernels.sort_items

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return original(*arguments)

    inputs = make(3, 5, 4, 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernels, "sort_items", count)
        run("kernel", sampled_logits, *inputs)
        assert not calls
        torch.use_deterministic_algorithms(True)
        try:
            run("kernel", sampled_logits, *inputs)
        finally:
            torch.use_deterministic_algorithms(False)
        assert len(calls) == 1


def test_rows_of_the_table_beyond_32_bits() -> None:
    """A stride of 2^30: row 2 begins at an element that 32 bits do not reach."""
    pytest.importorskip("triton")
    storage = torch.empty(2**31 + 1, dtype=torch.float16, device=GPU)
    table = storage.as_strided((3, 1), (2**30, 1))
    table.copy_(torch.tensor([[1.0], [2.0], [3.0]]))
    ids = torch.tensor([2], dtype=torch.int32), torch.tensor([[0, 1]], dtype=torch.int32)
    with use("kernel"), torch.no_grad():
        found = sampled_logits(
            torch.ones(1, 1, dtype=torch.float16, device=GPU), table, *(t.to(GPU) for t in ids)
        )
    assert found.tolist() == [[3, 1, 2]]


# What torch asks of an operator.


def arguments_of(way: str) -> dict[str, Any]:
    states, table, positives, negatives = (t.to(GPU) for t in make(3, 2, 5, 4))
    learned = [t.requires_grad_() for t in (states, table, torch.ones(5, device=GPU))]
    mask = torch.tensor([True, False, True], device=GPU)
    if way == "kernel":
        ids = positives, negatives
    else:
        ids = None, torch.cat([positives[:, None], negatives], 1)  # type: ignore[assignment]
    return {"learned": learned, "ids": ids, "mask": mask}


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("way", ["core", KERNEL])
def test_the_operators_of_torch(way: str) -> None:
    given = arguments_of(way)
    states, table, bias = given["learned"]
    both = (states, table, *given["ids"], bias, given["mask"], 0, True)
    torch.library.opcheck(module._logits, (*both, way == "kernel"))
    plain_tensors = [t.detach() if isinstance(t, Tensor) else t for t in both]
    gradient = torch.ones(3, 3, device=GPU)
    torch.library.opcheck(
        module._gradients,
        ("logits", gradient, None, None, *plain_tensors, way == "kernel", True, True, True),
    )
    # What a compiled graph takes for granted are the strides.
    turned = plain_tensors[1].T.contiguous().T
    none = [t[:0] if isinstance(t, Tensor) else t for t in plain_tensors]
    torch.library.opcheck(
        module._gradients,
        ("logits", gradient[:0], None, None, none[0], turned, *none[2:4], None, *none[5:],
         way == "kernel", True, True, False),
        test_utils="test_faketensor",
    )  # fmt: skip
    if way == "kernel":
        for kind in KINDS:
            torch.library.opcheck(module._losses, (kind, *both, True))


@pytest.mark.parametrize("way", ["core", KERNEL])
def test_it_is_compiled_without_breaks(way: Any) -> None:
    given = arguments_of("kernel")
    states, table, bias = given["learned"]

    def call(states: Tensor, table: Tensor, bias: Tensor) -> Tensor:
        more = {"bias": bias, "mask": given["mask"]}
        logits = module.sampled_logits(states, table, *given["ids"], **more)
        return logits.sum() + module.sampled_loss(states, table, *given["ids"], **more)

    with use(way):
        compiled = torch.compile(call, backend="aot_eager", fullgraph=True)
        expected, found = call(states, table, bias), compiled(states, table, bias)
    torch.testing.assert_close(found, expected)
    for one, other in zip(
        torch.autograd.grad(found, given["learned"]),
        torch.autograd.grad(expected, given["learned"]),
        strict=True,
    ):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("way", WAYS)
def test_autocast(way: Any) -> None:
    states, table, *ids = (t.to(GPU) for t in make(3, 2, 5, 4))
    table.requires_grad_()
    with use(way), torch.autocast(GPU.type, torch.bfloat16):
        logits = sampled_logits(states.bfloat16(), table, *ids)
        loss = sampled_loss(states.bfloat16(), table, *ids)
    assert logits.dtype == torch.bfloat16
    assert loss.dtype == torch.float32
    (gradient,) = torch.autograd.grad(loss, table)
    assert gradient.dtype == torch.float32
    expected = sampled_logits(states.bfloat16().float(), table.bfloat16().float(), *ids)
    torch.testing.assert_close(logits.float(), expected, rtol=2**-7, atol=1e-6)


# What does not fit.

S, W, P, N = torch.ones(2, 3), torch.ones(4, 3), torch.ones(2).long(), torch.ones(2, 5).long()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("arguments", "more", "kind", "text"),
    [
        ((S.long(), W, P, N), {}, TypeError, "states must be of floating point: got torch.int64"),
        ((S, W.half(), P, N), {}, TypeError,
         "table must be of torch.float32 as states are: got torch.float16"),
        ((S, W, P.short(), N), {}, TypeError,
         "positives must be of int32 or int64: got torch.int16"),
        ((S, W, P, N.int()), {}, TypeError,
         "negatives must be of torch.int64 as positives are: got torch.int32"),
        ((S[0], W, P, N), {}, ValueError,
         "states must have the shape [positions, size]: got [3]"),
        ((S, W[:, :2], P, N), {}, ValueError, "table must have the shape [items, 3]: got [4, 2]"),
        ((S, W, P[:1], N), {}, ValueError, "positives must have the shape [2]: got [1]"),
        ((S, W, P, N[:1]), {}, ValueError,
         "negatives must have the shape [2, samples]: got [1, 5]"),
        ((S, W, P, N), {"bias": P}, TypeError, "bias must be of floating point: got torch.int64"),
        ((S, W, P, N), {"bias": S[0]}, ValueError, "bias must have the shape [4]: got [3]"),
        ((S, W, P, N), {"mask": P}, TypeError, "mask must be of bool: got torch.int64"),
        ((S, W, P, N), {"mask": N > 0}, ValueError, "mask must have the shape [2]: got [2, 5]"),
        ((S, W, P, N), {"padding_index": 0.5}, TypeError,
         "padding_index must be an integer: got 0.5"),
        ((S, W, P, N), {"padding_index": 4}, ValueError, "padding_index must be 0 to 3: got 4"),
        ((S, W.to("meta"), P, N), {}, ValueError,
         "tensors must be on one device: got cpu, meta"),
    ],
)  # fmt: skip
def test_arguments_that_do_not_fit(
    way: Any, arguments: Any, more: Any, kind: Any, text: str
) -> None:
    for call in (sampled_logits, sampled_loss):
        with use(way), pytest.raises(kind) as error:
            call(*arguments, **more)
        assert str(error.value) == text


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("more", "kind", "text"),
    [
        ({"log_q": S[0]}, ValueError, "log_q must have the shape [4]: got [3]"),
        ({"kind": "hinge"}, ValueError, "kind must be one of bce, softmax: got 'hinge'"),
        ({"reduction": "max"}, ValueError, "reduction must be one of mean, sum, none: got 'max'"),
    ],
)
def test_arguments_of_the_loss_that_do_not_fit(way: Any, more: Any, kind: Any, text: str) -> None:
    with use(way), pytest.raises(kind) as error:
        sampled_loss(S, W, P, N, **more)
    assert str(error.value) == text


def test_the_definition_is_that_of_float64_alone() -> None:
    """What `expect` compares with, against products by hand."""
    inputs = make(4, 3, 5, 6, dtype=torch.float64)
    z = reference.sampled_logits(*inputs)
    torch.testing.assert_close(z, torch.tensor(plain(*inputs), dtype=torch.float64))
