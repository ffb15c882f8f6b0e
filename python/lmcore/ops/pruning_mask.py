"""Linear and SwiGLU layers with gates of groups of features: heads, inner units, hidden units.

On a CUDA device gated layers of float32, bfloat16 and float16 are computed by kernels, which leave
out what fixed gates shut without waiting for the device to know what that is.  A layer without a
gate, and one of float64, is torch's own there: `torch.nn.functional.linear`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.ops._dispatch import choose
from lmcore.reference import pruning_mask as reference

__all__ = ["masked_linear", "masked_swiglu", "prune_columns"]

# What kernels compute.
_TYPES = (torch.float32, torch.bfloat16, torch.float16)
# Of an element that a kernel copies: all but complex128.
_MOST_BYTES = 8


def masked_linear(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    output_gate: Tensor | None = None,
    input_gate: Tensor | None = None,
    output_parts: int = 1,
) -> Tensor:
    """Returns what a linear layer computes of gated inputs, gated.

    A gate has one number for each group of consecutive features, all groups of one size: as many
    numbers as heads gate heads, as many as features gate each. One of floating point is soft: it
    multiplies, in the type of the inputs, and has a gradient. One of bool is fixed: the groups
    that it shuts are left out of the product, whose outputs are bit for bit those of the layer
    that is cut to the others; outputs that it shuts are zero, bias included.

    On a CUDA device sums have another order than those of the cut layer, there is no second
    derivative, and `torch.compile` finds one operator. On a CPU it finds sizes that depend on
    fixed gates, for which `fullgraph=True` needs `capture_dynamic_output_shape_ops` of
    `torch._dynamo.config` in versions of torch that do not take them so.

    Source: OpenBA-V2 (arXiv 2405.05957), pruning of width.

    Args:
        inputs: `[..., I]` floating point.
        weight: `[O, I]` of the same type.
        bias: `[O]` of the same type.
        output_gate: `[groups]` floating point or bool.
        input_gate: `[groups]` floating point or bool.
        output_parts: equal ones of the outputs, one behind the other, that are gated alike: 3
            where queries, keys and values of all heads are packed.

    Returns:
        `[..., O]` of the same type.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, groups do not divide features, or tensors are on several
            devices.

    Example:
        >>> inputs, weight = torch.ones(2), torch.ones(4, 2)
        >>> masked_linear(inputs, weight, output_gate=torch.tensor([0.5, 0.0]))
        tensor([1., 1., 0., 0.])
        >>> masked_linear(inputs, weight, input_gate=torch.tensor([True, False]))
        tensor([1., 1., 1., 1.])
    """
    tensors = (inputs, weight, bias, output_gate, input_gate)
    way = choose(*(tensor for tensor in tensors if tensor is not None))
    if way == "reference":
        return reference.masked_linear(*tensors, output_parts)
    reference.check_linear(*tensors, output_parts)
    if way == "kernel" and (layer := _find_layer(inputs, weight, bias, gates=tensors[3:])):
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels import pruning_mask as kernels

        outputs: Tensor = kernels.masked_linear(*layer, *tensors[3:], output_parts)
        return outputs
    return _cut_linear(*tensors, output_parts)


def masked_swiglu(
    inputs: Tensor,
    weight_in: Tensor,
    weight_out: Tensor,
    bias_in: Tensor | None = None,
    bias_out: Tensor | None = None,
    *,
    inner_gate: Tensor | None = None,
    output_gate: Tensor | None = None,
    input_gate: Tensor | None = None,
) -> Tensor:
    """Returns what a SwiGLU layer computes with gates of inner units, inputs and outputs.

    Gates are those of `masked_linear`, and so is what holds of devices. `weight_in` holds two maps:
    the outputs of the first half pass through SiLU and multiply those of the second.

    Source: OpenBA-V2 (arXiv 2405.05957), pruning of width.

    Args:
        inputs: `[..., I]` floating point.
        weight_in: `[2 E, I]` of the same type.
        weight_out: `[O, E]` of the same type.
        bias_in: `[2 E]` of the same type.
        bias_out: `[O]` of the same type.
        inner_gate: `[groups]` floating point or bool, of the E inner units.
        output_gate: `[groups]` floating point or bool.
        input_gate: `[groups]` floating point or bool.

    Returns:
        `[..., O]` of the same type.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, groups do not divide features, or tensors are on several
            devices.

    Example:
        >>> inputs, weight_in, weight_out = torch.ones(1), torch.ones(4, 1), torch.ones(1, 2)
        >>> masked_swiglu(inputs, weight_in, weight_out, inner_gate=torch.tensor([True, False]))
        tensor([0.7311])
    """
    tensors = (inputs, weight_in, weight_out, bias_in, bias_out)
    gates = (inner_gate, output_gate, input_gate)
    known = [tensor for tensor in (*tensors, *gates) if tensor is not None]
    way = choose(*known)
    if way == "reference":
        return reference.masked_swiglu(*tensors, *gates)
    reference.check_swiglu(*tensors, *gates)
    if way == "kernel" and (layer := _find_layer(*tensors, gates=gates)):
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels import pruning_mask as kernels

        keep = torch.is_grad_enabled() and any(tensor.requires_grad for tensor in known)
        outputs: Tensor = kernels.masked_swiglu(*layer, *gates, keep)[0]
        return outputs
    inner = _find_open(inner_gate, weight_out.shape[1])
    if inner is not None:
        both = torch.cat([inner, inner + weight_out.shape[1]])
        weight_in, bias_in = weight_in.index_select(0, both), _select(bias_in, both)
        weight_out, inner_gate = weight_out.index_select(1, inner), None
    first, second = _cut_linear(inputs, weight_in, bias_in, None, input_gate).chunk(2, -1)
    return _cut_linear(
        functional.silu(first) * second, weight_out, bias_out, output_gate, inner_gate
    )


def prune_columns(
    weight: Tensor, rows: Tensor | None = None, columns: Tensor | None = None
) -> Tensor:
    """Returns the kept rows and columns of a weight: new memory, the same bits.

    On a CUDA device one kernel reads what is kept and nothing else, with no matrix in between.

    Source: OpenBA-V2 (arXiv 2405.05957), pruning of width.

    Args:
        weight: `[O, I]` of any type.
        rows: `[kept]` int64 or int32, in any order; an index may stand twice. None: all.
        columns: the same of the columns.

    Returns:
        `[kept rows, kept columns]` of the same type. Its gradient is added up where an index
        stands twice.

    Raises:
        IndexError: an index is negative or too large, on a CPU. On another device, which nothing
            waits for, its own assertion fails, as that of `torch.index_select` does.
        TypeError: indices have another type.
        ValueError: shapes do not fit, or tensors are on several devices.

    Example:
        >>> weight = torch.tensor([[1, 2, 3], [4, 5, 6]])
        >>> prune_columns(weight, torch.tensor([1, 1]), torch.tensor([2, 0]))
        tensor([[6, 4],
                [6, 4]])
    """
    tensors = (weight, rows, columns)
    way = choose(*(tensor for tensor in tensors if tensor is not None))
    if way != "kernel" or weight.element_size() > _MOST_BYTES:
        return reference.prune_columns(*tensors)
    reference.check_indices(*tensors)
    from lmcore.kernels import pruning_mask as kernels

    kept: Tensor = kernels.prune_columns(*tensors)
    return kept


def _find_layer(
    *tensors: Tensor | None, gates: tuple[Tensor | None, ...]
) -> tuple[Tensor | None, ...]:
    """Inputs and weights as the kernel takes them; none where torch computes the layer itself."""
    inputs = tensors[0]
    assert inputs is not None
    if all(gate is None for gate in gates):
        return ()
    kind = inputs.device.type
    if torch.is_autocast_enabled(kind):
        # In float64 torch leaves it as it is.
        if any(tensor is not None and tensor.dtype == torch.float64 for tensor in tensors):
            return ()
        dtype = torch.get_autocast_dtype(kind)
        tensors = tuple(None if tensor is None else tensor.to(dtype) for tensor in tensors)
        return tensors if dtype in _TYPES else ()
    return tensors if inputs.dtype in _TYPES else ()


def _cut_linear(
    inputs: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    output_gate: Tensor | None,
    input_gate: Tensor | None,
    output_parts: int = 1,
) -> Tensor:
    """As the definition, without what fixed gates shut."""
    rows = _find_open(output_gate, weight.shape[0], output_parts)
    columns = _find_open(input_gate, weight.shape[1])
    size = weight.shape[0]
    if rows is not None:
        weight, bias = weight.index_select(0, rows), _select(bias, rows)
    if columns is not None:
        weight, inputs = weight.index_select(1, columns), inputs.index_select(-1, columns)
    elif input_gate is not None:
        inputs = reference.apply_gate(inputs, input_gate)
    outputs = functional.linear(inputs, weight, bias)
    if rows is not None:
        return outputs.new_zeros(*outputs.shape[:-1], size).index_copy(-1, rows, outputs)
    return reference.apply_gate(outputs, output_gate, output_parts)


def _find_open(gate: Tensor | None, features: int, parts: int = 1) -> Tensor | None:
    """The features that a fixed gate lets through; None where there is none."""
    if gate is None or gate.dtype != torch.bool:
        return None
    return reference.expand_gate(gate, features, parts).nonzero()[:, 0]


def _select(tensor: Tensor | None, rows: Tensor) -> Tensor | None:
    return None if tensor is None else tensor.index_select(0, rows)
