"""Launches of the products whose rows and columns are open or shut: sizes, blocks, outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from lmcore.kernels import _feature_lists as lists
from lmcore.kernels import _gated_products as products
from lmcore.kernels import tuning
from lmcore.kernels._interpreter import INTERPRETED
from lmcore.kernels._precision import find_precision

# As many neighbours as a list tells the compiler of; loads are no wider.
_MOST_NEIGHBOURS = 128
_LIST_BLOCK = 1024
_GATHER_BLOCK = (8, products.PADDING)
# What is read at one time of neighbours is not much slower than what the widest load takes.
_LEAST_BYTES = 8


def _configure(m: int, n: int, k: int, warps: int, stages: int) -> Mapping[str, int]:
    sizes = {"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP": 8}
    return {**sizes, "num_warps": warps, "num_stages": stages}


# The default of each size of M comes first: the largest that spills no registers on A100 and H100.
HALF = (
    _configure(128, 256, 64, 8, 3),
    _configure(128, 128, 64, 8, 3),
    _configure(128, 128, 64, 4, 4),
    _configure(64, 256, 64, 4, 3),
    _configure(64, 128, 64, 4, 4),
    _configure(32, 128, 64, 4, 4),
    _configure(16, 128, 64, 4, 4),
)
SINGLE = (
    _configure(64, 64, 32, 4, 3),
    _configure(128, 64, 32, 8, 3),
    _configure(16, 64, 32, 4, 3),
)
# Two products with one left side need twice as many sums.
HALF_PAIR = (
    _configure(128, 64, 64, 8, 4),
    _configure(128, 128, 64, 8, 3),
    _configure(64, 128, 64, 8, 3),
    _configure(64, 64, 64, 4, 4),
    _configure(16, 64, 64, 4, 4),
)
SINGLE_PAIR = (
    _configure(64, 32, 32, 4, 3),
    _configure(16, 32, 32, 4, 3),
)
# Gradients of weights have the weights beside their sums.
HALF_WEIGHT = (
    _configure(128, 128, 64, 8, 4),
    _configure(128, 256, 64, 8, 3),
    _configure(64, 256, 64, 8, 3),
    _configure(64, 128, 64, 4, 4),
    _configure(16, 128, 64, 4, 4),
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Axis:
    """Features and their gate.

    Args:
        size: how many features.
        unit: a power of two; so many of them at each multiple of it are open or shut together.
        factors: `[size]` of a soft gate, in the type of the inputs, or None.
        order: `[size + 1]` int32 of a fixed gate: open features, shut ones, how many are open.
    """

    size: int
    unit: int
    factors: Tensor | None = None
    order: Tensor | None = None


def make_axis(gate: Tensor | None, size: int, dtype: torch.dtype, parts: int = 1) -> Axis:
    """Returns the features of an axis with their gate, without waiting for the device.

    Args:
        gate: `[groups]` floating point or bool, or None.
        size: how many features.
        dtype: of the inputs.
        parts: equal ones of the features, which are gated alike.
    """
    if gate is None or not size:
        return Axis(size=size, unit=_find_unit(size))
    if gate.dtype != torch.bool:
        factors = expand_gate(gate.to(dtype), size, parts)
        return Axis(size=size, unit=_find_unit(size), factors=factors)
    part = size // parts
    group = part // len(gate)
    order = torch.empty(size + 1, dtype=torch.int32, device=gate.device)
    with torch.cuda.device_of(gate):
        lists.order_kernel[(triton.cdiv(size, _LIST_BLOCK),)](
            gate.contiguous().view(torch.uint8), order, size, part, group,
            BLOCK=_LIST_BLOCK, enable_fp_fusion=True,
        )  # fmt: skip
    return Axis(size=size, unit=_find_unit(group), order=order)


def expand_gate(gate: Tensor, size: int, parts: int) -> Tensor:
    """Returns the number of each feature, `[size]`."""
    group = size // parts // len(gate)
    # A copy of a single group too, which would be a view of one number.
    return gate[None, :, None].expand(parts, -1, group).reshape(size).contiguous()


def sum_groups(values: Tensor, gate: Tensor, parts: int) -> Tensor:
    """Returns the sums of groups of features as the gradient of their gate, `[groups]`."""
    size = len(values) // parts // len(gate)
    return values.view(parts, len(gate), size).sum((0, 2)).to(gate.dtype)


def multiply(
    a: Tensor,
    b: Tensor,
    n: Axis,
    k: Axis,
    bias: Tensor | None = None,
    *,
    packed_a: bool = False,
    packed_c: bool = False,
) -> Tensor:
    """Returns n * (a (k * b^T) + bias), `[M, N]`.

    Args:
        a: `[M, K]`, of any strides.
        b: `[N, K]`, of any strides.
        n: gate of the rows of b.
        k: gate of the columns of both.
        bias: `[N]` or None.
        packed_a: columns of a are the open ones of k alone.
        packed_c: columns of the result are the open ones of n alone; what lies behind them is not
            written.
    """
    rows = len(a)
    c = a.new_empty(rows, n.size)
    if not c.numel():
        return c
    a, form_a = (a, products.PACKED) if packed_a else _pack(a, k)
    b, form_k = _pack(b, k)
    turned, form_n = _pack(b.T, n)
    b = turned.T
    bias = None if bias is None else bias.contiguous()
    options = {"FORM_A": form_a, "FORM_K": form_k, "FORM_N": form_n, "FORM_C": packed_c}
    options |= _find_options(a, b)
    listed = k.order is not None and not (form_a and form_k)

    def launch(configuration: Mapping[str, int]) -> None:
        products.product_kernel[_grid(configuration, rows, n.size)](
            a, b, c, bias, n.factors, k.factors, n.order, k.order,
            rows, n.size, k.size, *a.stride(), *b.stride(),
            **_find_units(configuration, UNIT_N=(n, "BLOCK_N"), UNIT_K=(k, "BLOCK_K")),
            **options, **_add_stages(configuration, listed),
        )  # fmt: skip

    _run("gated_product", a, (rows, n, k), (HALF, SINGLE), launch)
    return c


def multiply_swiglu(
    a: Tensor, b: Tensor, n: Axis, k: Axis, bias: Tensor | None, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """Returns silu(u) * v, `[M, E]`, and u and v, `[M, 2 E]`; columns are the open ones alone.

    Args:
        a: `[M, K]`, of any strides.
        b: `[2 E, K]`, of any strides: u is a (k * b^T) + bias of its first half.
        n: gate of the E; a soft one is left out.
        k: gate of the columns of a and b.
        bias: `[2 E]` or None.
        keep: without it the second result has no rows.
    """
    rows = len(a)
    units = a.new_empty(rows, n.size)
    both = a.new_empty(rows if keep else 0, 2 * n.size)
    if not units.numel():
        return units, both
    (a, form_a), (b, form_k) = _pack(a, k), _pack(b, k)
    bias = None if bias is None else bias.contiguous()
    options = {"KEEP": keep, "FORM_A": form_a, "FORM_K": form_k, **_find_options(a, b)}
    listed = k.order is not None and not (form_a and form_k)

    def launch(configuration: Mapping[str, int]) -> None:
        products.swiglu_kernel[_grid(configuration, rows, n.size)](
            a, b, bias, units, both, k.factors, n.order, k.order,
            rows, n.size, k.size, *a.stride(), *b.stride(),
            **_find_units(configuration, UNIT_N=(n, "BLOCK_N"), UNIT_K=(k, "BLOCK_K")),
            **options, **_add_stages(configuration, listed),
        )  # fmt: skip

    _run("gated_swiglu", a, (rows, n, k), (HALF_PAIR, SINGLE_PAIR), launch)
    return units, both


def differentiate_swiglu(both: Tensor, units: Tensor, n: Axis) -> Tensor:
    """Returns the gradients of u and v, `[M, 2 E]`, and puts silu(u) * v in place of its gradient.

    Args:
        both: u and v, `[M, 2 E]`.
        units: gradients of silu(u) * v, `[M, E]`.
        n: gate of the E, whose open ones alone stand in all columns.
    """
    gradients = torch.empty_like(both)
    if not units.numel():
        return gradients
    block_m, block_n = (8, 256) if n.size > 128 else (16, 128)
    with torch.cuda.device_of(units):
        products.swiglu_gradient_kernel[
            triton.cdiv(len(units), block_m), triton.cdiv(n.size, block_n)
        ](
            both, gradients, units, len(units), n.size, n.order,
            UNIT=n.unit, BLOCK_M=block_m, BLOCK_N=block_n, enable_fp_fusion=True,
        )  # fmt: skip
    return gradients


def differentiate_weight(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    o: Axis,
    i: Axis,
    *,
    needs: tuple[bool, bool, bool],
    packed_o: bool = False,
    packed_i: bool = False,
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """Returns the gradients of the weight `[O, I]`, and float32 ones of factors of o and of i.

    Those of factors of o lack what a bias brings.

    Args:
        dy: `[N, O]`, of any strides: gradients of the gated outputs.
        x: `[N, I]`, of any strides: inputs before their gate.
        weight: `[O, I]`, of any strides.
        o: gate of the outputs.
        i: gate of the inputs.
        needs: which of the three; others are None.
        packed_o: columns of dy are the open ones of o alone.
        packed_i: columns of x are the open ones of i alone.
    """
    if not any(needs):
        return None, None, None
    tokens = len(dy)
    dw = weight.new_empty(o.size, i.size) if needs[0] else None
    dy, form_o = (dy, products.PACKED) if packed_o else _pack(dy, o)
    x, form_i = (x, products.PACKED) if packed_i else _pack(x, i)
    options = {"FORM_O": form_o, "FORM_I": form_i, **_find_options(dy, x, weight)}
    shares: list[Tensor | None] = [None, None]

    def launch(configuration: Mapping[str, int]) -> None:
        tiles_o = triton.cdiv(o.size, configuration["BLOCK_M"])
        tiles_i = triton.cdiv(i.size, configuration["BLOCK_N"])
        shares[0] = _new_shares(dy, tiles_i, o.size) if needs[1] else None
        shares[1] = _new_shares(dy, tiles_o, i.size) if needs[2] else None
        if not tiles_o * tiles_i:
            return
        products.weight_gradient_kernel[(tiles_o * tiles_i,)](
            dy, x, weight, dw, o.factors, i.factors, *shares, o.order, i.order,
            tokens, o.size, i.size, *dy.stride(), *x.stride(), *weight.stride(),
            **_find_units(configuration, UNIT_O=(o, "BLOCK_M"), UNIT_I=(i, "BLOCK_N")),
            **options, **configuration,
        )  # fmt: skip

    _run("gated_weight_gradient", dy, (o.size, i, tokens), (HALF_WEIGHT, SINGLE), launch)
    own, others = (None if share is None else share.sum(0) for share in shares)
    return dw, own, others


def gather(
    source: Tensor,
    rows: Tensor | None,
    columns: Tensor | None,
    target: Tensor,
    limit: Tensor | None = None,
) -> None:
    """Puts these rows and columns of a matrix into another one; None: all of them.

    Args:
        source: a matrix of any type and strides.
        rows: `[M]` whole numbers or None.
        columns: `[N]` whole numbers or None.
        target: `[M, N]` of the same type, contiguous.
        limit: how many columns there are, `[1]`; zeros fill their last block. None: N.
    """
    (height, width), (block_m, block_n) = target.shape, _GATHER_BLOCK
    if not target.numel():
        return
    with torch.cuda.device_of(target):
        lists.gather_kernel[triton.cdiv(height, block_m), triton.cdiv(width, block_n)](
            _view_bits(source), _view_bits(target), rows, columns, limit,
            height, width, *source.stride(),
            BLOCK_M=block_m, BLOCK_N=block_n, enable_fp_fusion=True,
        )  # fmt: skip


def _view_bits(tensor: Tensor) -> Tensor:
    """Whole numbers of the same size: a copy keeps bits, and types of 8 bits are many."""
    kinds = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return tensor.view(kinds[tensor.element_size()])


def _pack(tensor: Tensor, columns: Axis) -> tuple[Tensor, int]:
    """A matrix with its open columns side by side, where loading them one by one would be slow."""
    narrow = columns.unit * tensor.element_size() < _LEAST_BYTES
    if columns.order is None or tensor.stride(1) != 1 or not narrow:
        return tensor, products.WHOLE
    width = triton.cdiv(columns.size, products.PADDING) * products.PADDING
    packed = tensor.new_empty(len(tensor), width)
    gather(tensor, None, columns.order, packed, limit=columns.order[-1:])
    return packed, products.PADDED


def _new_shares(like: Tensor, tiles: int, size: int) -> Tensor:
    return torch.empty(tiles, size, dtype=torch.float32, device=like.device)


def _grid(configuration: Mapping[str, int], m: int, n: int) -> tuple[int]:
    return (
        triton.cdiv(m, configuration["BLOCK_M"]) * triton.cdiv(n, configuration["BLOCK_N"]),
    )  # fmt: skip


def _run(
    name: str,
    a: Tensor,
    sizes: tuple[int, Axis, Axis | int],
    candidates: tuple[Sequence[Mapping[str, int]], Sequence[Mapping[str, int]]],
    launch: tuning.Launch,
) -> None:
    m, n, k = (size.size if isinstance(size, Axis) else size for size in sizes)
    # A block of rows that are not there costs as much as one of rows.
    most = max(triton.next_power_of_2(m), 16)
    fitting = [
        candidate
        for candidate in candidates[a.dtype == torch.float32]
        if candidate["BLOCK_M"] <= most
    ]
    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(a):
        launch(tuning.choose(name, {"m": m, "n": n, "k": k}, a.dtype, a.device, fitting, launch))


def _add_stages(configuration: Mapping[str, int], listed: bool) -> Mapping[str, int]:
    """A list is loaded in stages of its own: those of what it points at shall stay as many."""
    if not listed:
        return configuration
    return {**configuration, "num_stages": 2 * configuration["num_stages"] - 1}


def _find_units(configuration: Mapping[str, int], **axes: tuple[Axis, str]) -> dict[str, int]:
    """A block has no more neighbours than features."""
    return {name: min(axis.unit, configuration[block]) for name, (axis, block) in axes.items()}


def _find_options(*tensors: Tensor) -> dict[str, bool | str]:
    return {
        "PRECISION": find_precision(tensors[0].dtype),
        "WIDE": any(_find_span(tensor) >= 2**31 for tensor in tensors),
        "WIDEN": INTERPRETED,
        "enable_fp_fusion": True,
    }


def _find_span(tensor: Tensor) -> int:
    """The largest offset of an element."""
    return sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride(), strict=True))


def _find_unit(size: int) -> int:
    """The largest power of two that divides a size, or as large as is of use."""
    return min(size & -size, _MOST_NEIGHBOURS) if size else 1
