"""Layers whose groups of features are gated: open, shut, or in between.

A gate has one number for each group of consecutive features: a single one, a head, or a number of
inner units. OpenBA-V2 prunes by such masks: one of the hidden size for the whole network, one of
the heads and one of the inner units for each layer. A gate of floating point is soft, and has a
gradient; one of bool is fixed: what it shuts is zero, whatever stands there.

Source: OpenBA-V2 (arXiv 2405.05957), pruning of width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional


def masked_linear(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    g: Tensor | None = None,
    h: Tensor | None = None,
    parts: int = 1,
) -> Tensor:
    """Returns g * (w (h * x) + b).

    Args:
        x: `[..., I]` floating point.
        w: `[O, I]` of the same type.
        b: `[O]` of the same type.
        g: `[groups]` floating point or bool, of the outputs.
        h: `[groups]` floating point or bool, of the inputs.
        parts: equal ones of the outputs, which g gates alike.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or groups do not divide features.

    Example:
        >>> x, w = torch.ones(2), torch.ones(4, 2)
        >>> masked_linear(x, w, g=torch.tensor([0.5, 0.0]))
        tensor([1., 1., 0., 0.])
    """
    check_linear(x, w, b, g, h, parts)
    y = functional.linear(apply_gate(x, h), w, b)
    return apply_gate(y, g, parts)


def masked_swiglu(
    x: Tensor,
    w_in: Tensor,
    w_out: Tensor,
    b_in: Tensor | None = None,
    b_out: Tensor | None = None,
    e: Tensor | None = None,
    g: Tensor | None = None,
    h: Tensor | None = None,
) -> Tensor:
    """Returns g * (w_out (e * silu(a) * u) + b_out); a and u are the halves of w_in (h * x) + b_in.

    Args:
        x: `[..., I]` floating point.
        w_in: `[2 E, I]` of the same type.
        w_out: `[O, E]` of the same type.
        b_in: `[2 E]` of the same type.
        b_out: `[O]` of the same type.
        e: `[groups]` floating point or bool, of the inner units.
        g: `[groups]` floating point or bool, of the outputs.
        h: `[groups]` floating point or bool, of the inputs.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or groups do not divide features.

    Example:
        >>> x = torch.ones(1)
        >>> masked_swiglu(x, torch.ones(4, 1), torch.ones(1, 2), e=torch.tensor([True, False]))
        tensor([0.7311])
    """
    check_swiglu(x, w_in, w_out, b_in, b_out, e, g, h)
    a, u = masked_linear(x, w_in, b_in, h=h).chunk(2, -1)
    return masked_linear(functional.silu(a) * u, w_out, b_out, g=g, h=e)


def prune_columns(w: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Returns `w[rows][:, columns]`: new memory, the same bits.

    Args:
        w: `[O, I]` of any type.
        rows: `[kept]` int64 or int32, in any order and as often as they stand there; None: all.
        columns: the same of the columns.

    Raises:
        IndexError: an index is negative or too large.
        TypeError: indices have another type.
        ValueError: shapes do not fit.

    Example:
        >>> w = torch.tensor([[1, 2, 3], [4, 5, 6]])
        >>> prune_columns(w, columns=torch.tensor([2, 0]))
        tensor([[3, 1],
                [6, 4]])
    """
    check_indices(w, rows, columns)
    for axis, indices in enumerate((rows, columns)):
        if indices is not None:
            w = w.index_select(axis, indices)
    return w.clone(memory_format=torch.contiguous_format) if rows is columns is None else w


def apply_gate(x: Tensor, g: Tensor | None, parts: int = 1) -> Tensor:
    """Returns x, each feature times the number of its group.

    Args:
        x: `[..., features]` floating point.
        g: `[groups]` floating point or bool; None: all are open.
        parts: equal ones of the features, which are gated alike.

    Example:
        >>> apply_gate(torch.ones(4), torch.tensor([True, False]), parts=2)
        tensor([1., 0., 1., 0.])
    """
    if g is None:
        return x
    whole = expand_gate(g, x.shape[-1], parts)
    if g.dtype == torch.bool:
        return torch.where(whole, x, torch.zeros((), dtype=x.dtype, device=x.device))
    return x * whole.to(x.dtype)


def expand_gate(g: Tensor, features: int, parts: int = 1) -> Tensor:
    """Returns the number of each feature, `[features]`.

    Args:
        g: `[groups]`.
        features: how many.
        parts: equal ones of them, which are gated alike.

    Example:
        >>> expand_gate(torch.tensor([1.0, 0.5]), 4)
        tensor([1.0000, 1.0000, 0.5000, 0.5000])
    """
    return g.repeat_interleave(features // parts // len(g)).repeat(parts)


def check_linear(
    x: Tensor,
    w: Tensor,
    b: Tensor | None,
    g: Tensor | None,
    h: Tensor | None,
    parts: int,
) -> None:
    """Checks the arguments of `masked_linear`.

    Args:
        x: as there.
        w: as there.
        b: as there.
        g: as there.
        h: as there.
        parts: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or groups do not divide features.

    Example:
        >>> check_linear(torch.ones(2), torch.ones(4, 2), None, None, None, 1)
    """
    _check_types(x, {"weight": w, "bias": b})
    _check_shape("weight", w, (None, None))
    _check_width(x, w.shape[1])
    _check_shape("bias", b, (w.shape[0],))
    _check_gate("output_gate", g, w.shape[0], parts)
    _check_gate("input_gate", h, w.shape[1])


def check_swiglu(
    x: Tensor,
    w_in: Tensor,
    w_out: Tensor,
    b_in: Tensor | None,
    b_out: Tensor | None,
    e: Tensor | None,
    g: Tensor | None,
    h: Tensor | None,
) -> None:
    """Checks the arguments of `masked_swiglu`.

    Args:
        x: as there.
        w_in: as there.
        w_out: as there.
        b_in: as there.
        b_out: as there.
        e: as there.
        g: as there.
        h: as there.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or groups do not divide features.

    Example:
        >>> w_in, w_out = torch.ones(4, 1), torch.ones(1, 2)
        >>> check_swiglu(torch.ones(1), w_in, w_out, None, None, None, None, None)
    """
    weights = {"weight_in": w_in, "weight_out": w_out, "bias_in": b_in, "bias_out": b_out}
    _check_types(x, weights)
    _check_shape("weight_out", w_out, (None, None))
    outputs, inner = w_out.shape
    _check_shape("weight_in", w_in, (2 * inner, None))
    _check_width(x, w_in.shape[1])
    _check_shape("bias_in", b_in, (2 * inner,))
    _check_shape("bias_out", b_out, (outputs,))
    _check_gate("inner_gate", e, inner)
    _check_gate("output_gate", g, outputs)
    _check_gate("input_gate", h, w_in.shape[1])


def check_indices(w: Tensor, rows: Tensor | None, columns: Tensor | None) -> None:
    """Checks the arguments of `prune_columns`.

    Which indices there are is asked on a CPU alone: elsewhere it would have to wait, and a compiled
    graph leaves it to what selects.

    Args:
        w: as there.
        rows: as there.
        columns: as there.

    Raises:
        IndexError: an index is negative or too large.
        TypeError: indices have another type.
        ValueError: shapes do not fit.

    Example:
        >>> check_indices(torch.ones(2, 3), torch.tensor([1]), None)
    """
    _check_shape("weight", w, (None, None))
    for name, indices, size in (("rows", rows, w.shape[0]), ("columns", columns, w.shape[1])):
        if indices is None:
            continue
        if indices.dtype not in (torch.int64, torch.int32):
            raise TypeError(f"{name} must be of int64 or int32: got {indices.dtype}")
        _check_shape(name, indices, (None,))
        if w.device.type != "cpu" or torch.compiler.is_compiling() or not len(indices):
            continue
        least, most = (int(end) for end in indices.aminmax())
        if least < 0 or most >= size:
            got = least if least < 0 else most
            raise IndexError(f"{name} must be at least 0 and below {size}: got {got}")


def _check_types(x: Tensor, others: Mapping[str, Tensor | None]) -> None:
    if not x.is_floating_point():
        raise TypeError(f"inputs must be of floating point: got {x.dtype}")
    if torch.is_autocast_enabled(x.device.type):  # which brings them to one type
        return
    for name, tensor in others.items():
        if tensor is not None and tensor.dtype != x.dtype:
            raise TypeError(f"{name} must be of {x.dtype} as inputs are: got {tensor.dtype}")


def _check_shape(name: str, tensor: Tensor | None, sizes: tuple[int | None, ...]) -> None:
    """None stands for any size."""
    if tensor is None:
        return
    fits = len(sizes) == tensor.dim() and all(
        size in (None, got) for size, got in zip(sizes, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ValueError(f"{name} must have the shape [{wanted}]: got {list(tensor.shape)}")


def _check_width(x: Tensor, width: int) -> None:
    if x.dim() == 0 or x.shape[-1] != width:
        raise ValueError(f"inputs must have {width} features: got the shape {list(x.shape)}")


def _check_gate(name: str, gate: Tensor | None, features: int, parts: int = 1) -> None:
    if parts < 1 or features % parts:
        raise ValueError(f"output_parts must divide the {features} outputs: got {parts}")
    if gate is None:
        return
    if not (gate.is_floating_point() or gate.dtype == torch.bool):
        raise TypeError(f"{name} must be of floating point or bool: got {gate.dtype}")
    if gate.dim() != 1:
        raise ValueError(f"{name} must have one axis: got the shape {list(gate.shape)}")
    size = features // parts
    if not len(gate) or size % len(gate):
        raise ValueError(f"{name} must divide {size} features into groups: got {len(gate)}")
