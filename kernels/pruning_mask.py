"""Linear and SwiGLU layers with gates, and the gather of what is kept, as operators of torch.

A layer is one product, with the soft gate of its inputs where they are loaded and that of its
outputs where they are stored; a SwiGLU layer is two, and its units are made where both halves of
the first one are.  Groups that a fixed gate shuts are left out, and nothing waits for the device
to know which.  The backward pass is one product for the inputs and one for weight and gates: with
r the sum over tokens of dy x, the gradient of the weight is g h r, and those of the gates are sums
of weight h r and of weight g r, so that no output is kept for them and a gate of 0 has its own.
Where infinities meet, such a sum is NaN where the definition's is infinite, or the other way.
"""

import torch
from torch import Tensor

from lmcore.kernels import _gated_launches as launches


@torch.library.custom_op("lmcore::masked_linear", mutates_args=())
def masked_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    parts: int,
) -> Tensor:
    """Returns output_gate * (weight (input_gate * x) + bias), `[..., O]`.

    Args:
        x: `[..., I]` float32, bfloat16 or float16.
        weight: `[O, I]` of the same type.
        bias: `[O]` or None.
        output_gate: `[groups]` floating point or bool, or None.
        input_gate: `[groups]` floating point or bool, or None.
        parts: equal ones of the outputs, which are gated alike.
    """
    o = launches.make_axis(output_gate, weight.shape[0], x.dtype, parts)
    i = launches.make_axis(input_gate, weight.shape[1], x.dtype)
    return launches.multiply(_flatten(x), weight, o, i, bias).view(*x.shape[:-1], o.size)


@masked_linear.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    parts: int,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], weight.shape[0])


@torch.library.custom_op("lmcore::masked_linear_backward", mutates_args=())
def _masked_linear_backward(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    parts: int,
    needs: list[bool],
) -> list[Tensor]:
    """Gradients of x, weight, bias and both gates; one that is not needed is empty."""
    o = launches.make_axis(output_gate, weight.shape[0], x.dtype, parts)
    i = launches.make_axis(input_gate, weight.shape[1], x.dtype)
    flat, dy = _flatten(x), _flatten(dy)
    dx = launches.multiply(dy, weight.T, i, o).view(x.shape) if needs[0] else None
    dw, by_o, by_i = launches.differentiate_weight(
        dy, flat, weight, o, i, needs=(needs[1], needs[3], needs[4])
    )
    db, by_o = _differentiate_bias(dy, bias, by_o, o, needs[2])
    gates = [
        None if by is None or gate is None else launches.sum_groups(by, gate, own_parts)
        for by, gate, own_parts in ((by_o, output_gate, parts), (by_i, input_gate, 1))
    ]
    return _fill([dx, dw, db, *gates], x)


@_masked_linear_backward.register_fake
def _(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    parts: int,
    needs: list[bool],
) -> list[Tensor]:
    return _fake_gradients((x, weight, bias, output_gate, input_gate), needs)


def _keep_linear(ctx, inputs, output) -> None:
    *tensors, ctx.parts = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_linear(ctx, dy):
    needs = list(ctx.needs_input_grad[:5])
    found = _masked_linear_backward(dy, *ctx.saved_tensors, ctx.parts, needs)
    return *_choose_needed(found, needs), None


masked_linear.register_autograd(_differentiate_linear, setup_context=_keep_linear)


@torch.library.custom_op("lmcore::masked_swiglu", mutates_args=())
def masked_swiglu(
    x: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias_in: Tensor | None,
    bias_out: Tensor | None,
    inner_gate: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    """Returns the layer's outputs, `[..., O]`, and what its gradients need, `[N, 2 E]`.

    Args:
        x: `[..., I]` float32, bfloat16 or float16.
        weight_in: `[2 E, I]` of the same type.
        weight_out: `[O, E]` of the same type.
        bias_in: `[2 E]` or None.
        bias_out: `[O]` or None.
        inner_gate: `[groups]` floating point or bool, or None.
        output_gate: `[groups]` floating point or bool, or None.
        input_gate: `[groups]` floating point or bool, or None.
        keep: whether there will be gradients; without it the second result has no rows.
    """
    outputs, inner = weight_out.shape
    e = launches.make_axis(inner_gate, inner, x.dtype)
    o = launches.make_axis(output_gate, outputs, x.dtype)
    i = launches.make_axis(input_gate, weight_in.shape[1], x.dtype)
    units, both = launches.multiply_swiglu(_flatten(x), weight_in, e, i, bias_in, keep=keep)
    y = launches.multiply(units, weight_out, o, e, bias_out, packed_a=True)
    return y.view(*x.shape[:-1], outputs), both


@masked_swiglu.register_fake
def _(
    x: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias_in: Tensor | None,
    bias_out: Tensor | None,
    inner_gate: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    keep: bool,
) -> tuple[Tensor, Tensor]:
    rows = x.shape[:-1].numel() if keep else 0
    both = x.new_empty(rows, weight_in.shape[0])
    return x.new_empty(*x.shape[:-1], weight_out.shape[0]), both


@torch.library.custom_op("lmcore::masked_swiglu_backward", mutates_args=())
def _masked_swiglu_backward(
    dy: Tensor,
    both: Tensor,
    x: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias_in: Tensor | None,
    bias_out: Tensor | None,
    inner_gate: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    needs: list[bool],
) -> list[Tensor]:
    """Gradients of x, weights, biases and gates; one that is not needed is empty."""
    outputs, inner = weight_out.shape
    e = launches.make_axis(inner_gate, inner, x.dtype)
    o = launches.make_axis(output_gate, outputs, x.dtype)
    i = launches.make_axis(input_gate, weight_in.shape[1], x.dtype)
    fixed = inner_gate if e.order is not None else None
    halves = launches.make_axis(fixed, 2 * inner, x.dtype, 2)
    flat, dy = _flatten(x), _flatten(dy)
    units = launches.multiply(dy, weight_out.T, e, o, packed_c=True)
    dz = launches.differentiate_swiglu(both, units, e)
    dw_out, by_o, by_e = launches.differentiate_weight(
        dy, units, weight_out, o, e, needs=(needs[2], needs[6], needs[5]), packed_i=True
    )
    dw_in, _, by_i = launches.differentiate_weight(
        dz, flat, weight_in, halves, i, needs=(needs[1], False, needs[7]), packed_o=True
    )
    dx = None
    if needs[0]:
        dx = launches.multiply(dz, weight_in.T, i, halves, packed_a=True).view(x.shape)
    db_in = _sum_packed(dz, halves) if needs[3] else None
    db_out, by_o = _differentiate_bias(dy, bias_out, by_o, o, needs[4])
    gates = [
        None if by is None or gate is None else launches.sum_groups(by, gate, 1)
        for by, gate in ((by_e, inner_gate), (by_o, output_gate), (by_i, input_gate))
    ]
    return _fill([dx, dw_in, dw_out, db_in, db_out, *gates], x)


@_masked_swiglu_backward.register_fake
def _(
    dy: Tensor,
    both: Tensor,
    x: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias_in: Tensor | None,
    bias_out: Tensor | None,
    inner_gate: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    needs: list[bool],
) -> list[Tensor]:
    tensors = (x, weight_in, weight_out, bias_in, bias_out, inner_gate, output_gate, input_gate)
    return _fake_gradients(tensors, needs)


def _keep_swiglu(ctx, inputs, output) -> None:
    *tensors, ctx.keep = inputs
    ctx.save_for_backward(output[1], *tensors)
    ctx.mark_non_differentiable(output[1])
    # Or torch would hand zeros over as the gradient of the products, as many as there are.
    ctx.set_materialize_grads(False)


def _differentiate_swiglu(ctx, dy, _):
    if dy is None:
        return (None,) * 9
    if not ctx.keep:
        raise RuntimeError("gradients need the products of the forward pass: keep was False")
    needs = list(ctx.needs_input_grad[:8])
    found = _masked_swiglu_backward(dy, *ctx.saved_tensors, needs)
    return *_choose_needed(found, needs), None


masked_swiglu.register_autograd(_differentiate_swiglu, setup_context=_keep_swiglu)


@torch.library.custom_op("lmcore::prune_columns", mutates_args=())
def prune_columns(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    """Returns the kept rows and columns of a weight, `[kept rows, kept columns]`.

    Args:
        weight: `[O, I]` of any type.
        rows: `[kept]` int64 or int32, each below O, or None: all.
        columns: `[kept]` int64 or int32, each below I, or None: all.
    """
    height, width = _pruned_shape(weight, rows, columns)
    for name, index, size in zip(("rows", "columns"), (rows, columns), weight.shape, strict=True):
        if index is not None:
            # As `index_select` does it: the device stops before it reads elsewhere.
            known = ((index >= 0) & (index < size)).all()
            torch._assert_async(known, f"{name} must be at least 0 and below {size}")
    kept = weight.new_empty(height, width)
    own = (None if index is None else index.contiguous() for index in (rows, columns))
    launches.gather(weight, *own, kept)
    return kept


@prune_columns.register_fake
def _(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    return weight.new_empty(_pruned_shape(weight, rows, columns))


def _keep_indices(ctx, inputs, output) -> None:
    weight, rows, columns = inputs
    ctx.shape = weight.shape
    ctx.save_for_backward(rows, columns)


def _put_back(ctx, gradient):
    rows, columns = ctx.saved_tensors
    whole = gradient
    # Sums, because an index may stand twice.
    if columns is not None:
        whole = whole.new_zeros(whole.shape[0], ctx.shape[1]).index_add(1, columns, whole)
    if rows is not None:
        whole = whole.new_zeros(ctx.shape).index_add(0, rows, whole)
    return whole, None, None


prune_columns.register_autograd(_put_back, setup_context=_keep_indices)


def _pruned_shape(weight: Tensor, rows: Tensor | None, columns: Tensor | None) -> tuple[int, int]:
    height, width = weight.shape
    # No `len`, which in a compiled graph is a number and not a name for any.
    if rows is not None:
        height = rows.shape[0]
    return height, width if columns is None else columns.shape[0]


def _flatten(tensor: Tensor) -> Tensor:
    """`[N, features]`, a view where there is one."""
    return tensor.reshape(tensor.shape[:-1].numel(), tensor.shape[-1])


def _differentiate_bias(
    dy: Tensor, bias: Tensor | None, by_o: Tensor | None, o: launches.Axis, needed: bool
) -> tuple[Tensor | None, Tensor | None]:
    """The gradient of a bias, and that of the factors of outputs with what the bias brings."""
    if bias is None or not (needed or by_o is not None):
        return None, by_o
    sums = dy.sum(0, dtype=torch.float32)
    if by_o is not None:
        by_o = by_o + bias * sums
    if o.factors is not None:
        sums = sums * o.factors
    if o.order is not None:
        return _sum_open(sums, sums[o.order[:-1]], o).to(bias.dtype), by_o
    return sums.to(bias.dtype), by_o


def _sum_packed(dz: Tensor, axis: launches.Axis) -> Tensor:
    """The sums of columns, each at the feature that it belongs to."""
    sums = dz.sum(0, dtype=torch.float32)
    return (sums if axis.order is None else _sum_open(sums, sums, axis)).to(dz.dtype)


def _sum_open(like: Tensor, packed: Tensor, axis: launches.Axis) -> Tensor:
    """Values in the order of the list, each at its feature; those of shut ones are 0."""
    assert axis.order is not None
    places = torch.arange(axis.size, device=like.device)
    # Not a product: what stands behind the open ones may be no number.
    packed = torch.where(places < axis.order[-1], packed, 0.0)
    return torch.empty_like(like).scatter_(0, axis.order[:-1].long(), packed)


def _fill(gradients: list[Tensor | None], like: Tensor) -> list[Tensor]:
    return [like.new_empty(0) if found is None else found for found in gradients]


def _fake_gradients(tensors: tuple[Tensor | None, ...], needs: list[bool]) -> list[Tensor]:
    like = next(tensor for tensor in tensors if tensor is not None)
    return [
        tensor.new_empty(tensor.shape) if tensor is not None and needed else like.new_empty(0)
        for tensor, needed in zip(tensors, needs, strict=True)
    ]


def _choose_needed(found: list[Tensor], needs: list[bool]) -> list[Tensor | None]:
    return [gradient if needed else None for gradient, needed in zip(found, needs, strict=True)]
