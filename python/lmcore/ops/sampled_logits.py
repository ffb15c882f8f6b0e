"""Logits of one positive and N sampled items of each position, and their loss.

On a CUDA device both are made by a kernel, without the gathered rows `[P, 1 + N, H]`, forward and
backward.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.ops._autocast import cast, without_autocast
from lmcore.ops._dispatch import choose
from lmcore.reference import sampled_logits as reference
from lmcore.reference._reductions import reduce

__all__ = ["sampled_logits", "sampled_loss"]

Kind: TypeAlias = Literal["bce", "softmax"]
Reduction: TypeAlias = Literal["mean", "sum", "none"]

# 320 KB of float32: what the second level of a cache holds.
_BUFFER_ELEMENTS = 80_000


def sampled_logits(
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    padding_index: int | None = None,
    deterministic: bool | None = None,
) -> Tensor:
    """Returns the logits of the positive (column 0) and the negatives of each position.

    A logit is the product of a state with the row of an item, and its bias. An item may stand
    there several times; each counts. A position that `mask` leaves out costs nothing: it has
    zeros, no gradient, and ids that nobody looks at.

    On a CPU ids are checked. On a CUDA device that would wait for it: there the logit of what is
    no item is NaN, and nothing is read or written outside of the table. Sums are in float32, but
    for half-precision types on a CPU, where torch's product decides.

    Logits and the gradient of the states are the same bits each time. On a CUDA device the
    gradients of table and bias are atomic sums, whose last bits vary; `deterministic` has them
    summed in sorted order instead, which takes longer, above all where few items have most places.

    Source: SASRec (arXiv 1808.09781), equation 7; UFNRec (arXiv 2208.04116), section 3.

    Args:
        states: `[P, H]` floating point.
        table: `[V, H]` of the same type, but under autocast, whose type decides.
        positives: `[P]` int32 or int64.
        negatives: `[P, N]` of the same type.
        bias: `[V]` floating point: what is added to the logit of an item.
        mask: `[P]` bool, the positions that count; None: all.
        padding_index: an item whose row and bias have no gradient, as in `torch.nn.Embedding`.
        deterministic: whether gradients are the same bits each time; None: as
            `torch.use_deterministic_algorithms` says.

    Returns:
        `[P, 1 + N]` of the same type. Its gradient has none itself.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, or tensors are on several devices.
        IndexError: an id is none of an item (on a CPU).

    Example:
        >>> states, table = torch.ones(2, 1), torch.tensor([[0.0], [1.0], [2.0]])
        >>> positives, negatives = torch.tensor([2, 1]), torch.tensor([[1, 1], [0, 2]])
        >>> sampled_logits(states, table, positives, negatives)
        tensor([[2., 1., 1.],
                [1., 0., 2.]])
        >>> sampled_logits(states, table, positives, negatives, mask=torch.tensor([False, True]))
        tensor([[0., 0., 0.],
                [1., 0., 2.]])
    """
    way = _choose(states, table, positives, negatives, bias, mask)
    if way == "core":
        return _multiply(states, table, positives, negatives, bias, mask, padding_index)
    states, table = cast(states, table)
    arguments = (states, table, positives, negatives, bias, mask, padding_index)
    if way == "reference" or states.dtype == torch.float64:
        with without_autocast(states.device):
            return reference.sampled_logits(*arguments)
    reference.check_arguments(*arguments)
    bias = None if bias is None else bias.contiguous()
    logits: Tensor = _logits(
        states, table, positives, negatives, bias, mask,
        _number(padding_index), _is_deterministic(deterministic), True,
    )  # fmt: skip
    return logits


def sampled_loss(
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    *,
    kind: Kind = "bce",
    bias: Tensor | None = None,
    log_q: Tensor | None = None,
    mask: Tensor | None = None,
    padding_index: int | None = None,
    reduction: Reduction = "mean",
    deterministic: bool | None = None,
) -> Tensor:
    """Returns the loss of the logits of `sampled_logits`, made where they are.

    `bce` is binary cross-entropy, the mean over the positive with label 1 and the negatives with
    label 0: half of what UFNRec trains with. `softmax` is the cross-entropy of the positive among
    all of a position's items.

    Items that are sampled more often are corrected for by `log_q`: it is taken from each logit,
    the positive's too, so that the softmax over the sample estimates that over all items. A
    constant in it changes nothing.

    Ids, masks and what is deterministic are as for `sampled_logits`.

    Source: UFNRec (arXiv 2208.04116), section 3; sampling-bias correction (Yi et al., RecSys
    2019), equations 3 to 5.

    Args:
        states: `[P, H]` floating point.
        table: `[V, H]` of the same type, but under autocast, whose type decides.
        positives: `[P]` int32 or int64.
        negatives: `[P, N]` of the same type.
        kind: `bce` or `softmax`.
        bias: `[V]` floating point: what is added to the logit of an item.
        log_q: `[V]` floating point: the logarithm of the probability to sample an item.
        mask: `[P]` bool, the positions that count; None: all.
        padding_index: an item whose row and bias have no gradient.
        reduction: over the positions that count: `mean`, `sum` or `none`. The mean of no
            positions is NaN.
        deterministic: whether gradients are the same bits each time; None: as
            `torch.use_deterministic_algorithms` says.

    Returns:
        A scalar, or `[P]` for `none`, where a position that does not count has 0: float32, or
        float64 for float64.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, a name is unknown, or tensors are on several devices.
        IndexError: an id is none of an item (on a CPU).

    Example:
        >>> states, table = torch.zeros(1, 2), torch.ones(5, 2)
        >>> positives, negatives = torch.tensor([4]), torch.tensor([[1, 2, 3]])
        >>> sampled_loss(states, table, positives, negatives)
        tensor(0.6931)
        >>> sampled_loss(states, table, positives, negatives, kind="softmax")
        tensor(1.3863)
        >>> log_q = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.6]).log()
        >>> sampled_loss(states, table, positives, negatives, kind="softmax", log_q=log_q)
        tensor(2.9444)
    """
    way = _choose(states, table, positives, negatives, bias, log_q, mask)
    states, table = cast(states, table)
    arguments = (states, table, positives, negatives, bias)
    rest = (mask, padding_index)
    # Half precision too is summed in float32 on a CPU.
    if (
        way == "reference"
        or states.dtype == torch.float64
        or (way == "core" and states.dtype != torch.float32)
    ):
        with without_autocast(states.device):
            return reference.sampled_loss(*arguments, log_q, *rest, kind, reduction)
    reference.check_arguments(*arguments, *rest)
    reference.check_loss(table, log_q, kind, reduction)
    bias = reference.join_bias(bias, log_q)
    if way == "core":
        logits = _multiply(states, table, positives, negatives, bias, *rest)
        losses = reference.compute_losses(logits, kind)
        losses = losses if mask is None else torch.where(mask, losses, 0)
    else:
        bias = None if bias is None else bias.contiguous()
        tensors = (states, table, bias)
        keep = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
        losses = _losses(
            kind, states, table, positives, negatives, bias, mask,
            _number(padding_index), _is_deterministic(deterministic), keep,
        )[0]  # fmt: skip
    return reduce(losses, mask, reduction)


def _choose(*tensors: Tensor | None) -> str:
    return choose(*(tensor for tensor in tensors if tensor is not None))


def _number(padding_index: int | None) -> int:
    return -1 if padding_index is None else padding_index


def _is_deterministic(wanted: bool | None) -> bool:
    return torch.are_deterministic_algorithms_enabled() if wanted is None else bool(wanted)


def _multiply(
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding_index: int | None,
) -> Tensor:
    """The logits on a CPU."""
    cast_states, cast_table = cast(states, table)
    reference.check_arguments(
        cast_states, cast_table, positives, negatives, bias, mask, padding_index
    )
    items = torch.cat([positives.unsqueeze(1), negatives], 1)
    if table.dtype == states.dtype == torch.float32:
        logits: Tensor = _logits(
            states, table, None, items, bias, mask, _number(padding_index), True, False
        )
        return logits
    rows = None if mask is None else mask.nonzero()[:, 0]
    if rows is not None:
        states, items = states.index_select(0, rows), items.index_select(0, rows)
    reference.check_range(items, len(table))
    candidates = functional.embedding(items, table, padding_idx=padding_index)
    logits = (candidates @ states.unsqueeze(-1)).squeeze(-1)
    if bias is not None:
        biases = functional.embedding(items, bias.unsqueeze(1), padding_idx=padding_index)
        logits = logits + biases.squeeze(-1).to(logits.dtype)
    if rows is None:
        return logits
    assert mask is not None
    return logits.new_zeros(len(mask), logits.shape[1]).index_copy(0, rows, logits)


# What torch sees of it. `positives` is None on a CPU, where `negatives` has all columns.


@torch.library.custom_op("lmcore::sampled_logits", mutates_args=())
def _logits(
    states: Tensor,
    table: Tensor,
    positives: Tensor | None,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding: int,
    deterministic: bool,
    kernel: bool,
) -> Tensor:
    if kernel:
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels.sampled_logits import compute_logits

        assert positives is not None
        return compute_logits("logits", states, table, positives, negatives, bias, mask)[0]
    return _multiply_by_blocks(states, table, negatives, bias, mask)


@_logits.register_fake
def _(states: Any, table: Any, positives: Any, negatives: Any, *_: Any) -> Tensor:
    columns = negatives.shape[1] + (positives is not None)
    return states.new_empty(states.shape[0], columns)  # type: ignore[no-any-return]


@torch.library.custom_op("lmcore::sampled_losses", mutates_args=())
def _losses(
    kind: str,
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding: int,
    deterministic: bool,
    keep: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and what the backward pass wants: logits and norms."""
    from lmcore.kernels.sampled_logits import compute_logits

    logits, losses, norms = compute_logits(
        kind, states, table, positives, negatives, bias, mask, keep
    )
    return losses, logits, norms


@_losses.register_fake
def _(
    kind: str, states: Any, table: Any, positives: Any, negatives: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns = states.shape[0], 1 + negatives.shape[1]
    shapes = ((rows,), (rows if rest[-1] else 0, columns), (rows if kind == "softmax" else 0,))
    losses, logits, norms = (states.new_empty(shape, dtype=torch.float32) for shape in shapes)
    return losses, logits, norms


@torch.library.custom_op("lmcore::sampled_gradients", mutates_args=())
def _gradients(
    kind: str,
    gradient: Tensor,
    scale: Tensor | None,
    norms: Tensor | None,
    states: Tensor,
    table: Tensor,
    positives: Tensor | None,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding: int,
    deterministic: bool,
    kernel: bool,
    for_states: bool,
    for_table: bool,
    for_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of states, table and bias; one that is not wanted has no elements."""
    wanted = (for_states, for_table, for_bias)
    if kernel:
        from lmcore.kernels.sampled_logits import compute_gradients

        assert positives is not None
        return compute_gradients(
            kind, gradient, scale, norms, states, table, positives, negatives, bias, mask,
            padding, deterministic, wanted,
        )  # fmt: skip
    return _sum_by_items(gradient, states, table, negatives, bias, mask, padding, wanted)


@_gradients.register_fake
def _(
    kind: str, gradient: Any, scale: Any, norms: Any, states: Any, table: Any, positives: Any,
    negatives: Any, bias: Any, *rest: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    for_states, for_table, for_bias = rest[-3:]
    size, items = states.shape[1], table.shape[0]
    return (
        states.new_empty(states.shape[0] if for_states else 0, size),
        table.new_empty(items if for_table else 0, size),
        (table if bias is None else bias).new_empty(items if for_bias else 0),
    )


def _remember_logits(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    *tensors, ctx.padding, ctx.deterministic, ctx.kernel = inputs
    ctx.save_for_backward(*tensors)


def _differentiate_logits(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
    settings = (ctx.padding, ctx.deterministic, ctx.kernel)
    needs = ctx.needs_input_grad
    wanted = (needs[0], needs[1], needs[4])
    found = _gradients("logits", gradient, None, None, *ctx.saved_tensors, *settings, *wanted)
    states, table, bias = (g if w else None for g, w in zip(found, wanted, strict=True))
    return states, table, None, None, bias, None, None, None, None


def _remember_losses(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.kind, *tensors, ctx.padding, ctx.deterministic, _ = inputs
    ctx.save_for_backward(*output[1:], *tensors)
    ctx.mark_non_differentiable(*output[1:])
    # Or torch would hand zeros over as the gradients of these.
    ctx.set_materialize_grads(False)


def _differentiate_losses(ctx: Any, gradient: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if gradient is None:
        return (None,) * 10
    logits, norms, *tensors = ctx.saved_tensors
    needs = ctx.needs_input_grad
    wanted = (needs[1], needs[2], needs[5])
    settings = (ctx.padding, ctx.deterministic, True)
    found = _gradients(ctx.kind, logits, gradient, norms, *tensors, *settings, *wanted)
    states, table, bias = (g if w else None for g, w in zip(found, wanted, strict=True))
    return None, states, table, None, None, bias, None, None, None, None


_logits.register_autograd(_differentiate_logits, setup_context=_remember_logits)
_losses.register_autograd(_differentiate_losses, setup_context=_remember_losses)


# On a CPU.


def _multiply_by_blocks(
    states: Tensor, table: Tensor, items: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """Gathers a few positions at a time into one buffer that stays in the cache."""
    kept = None if mask is None else mask.nonzero()[:, 0]
    if kept is not None:
        states, items = states[kept], items[kept]
    reference.check_range(items, len(table))
    rows, columns = items.shape
    logits = states.new_empty(rows, columns)
    step = max(_BUFFER_ELEMENTS // max(columns * table.shape[1], 1), 1)
    buffer = table.new_empty(min(step, rows) * columns, table.shape[1])
    flat = items.flatten()
    for start in range(0, rows, step):
        end = min(start + step, rows)
        part = buffer[: (end - start) * columns]
        torch.index_select(table, 0, flat[start * columns : end * columns], out=part)
        torch.bmm(
            part.view(end - start, columns, -1),
            states[start:end].unsqueeze(-1),
            out=logits[start:end].unsqueeze(-1),
        )
    if bias is not None:
        logits += bias[items]
    if kept is None:
        return logits
    assert mask is not None
    return logits.new_zeros(len(mask), columns).index_copy_(0, kept, logits)


def _sum_by_items(
    gradient: Tensor,
    states: Tensor,
    table: Tensor,
    items: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding: int,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Sums weighted rows: of the table for each position, and of the states for each item.

    For the latter items are sorted, so that there is one order of the sums.
    """
    kept = None if mask is None else mask.nonzero()[:, 0]
    whole = states.shape
    if kept is not None:
        gradient, states, items = gradient[kept], states[kept], items[kept]
    gradient = gradient.contiguous()
    size = table.shape[1]
    for_states, for_table = states.new_empty(0, size), table.new_empty(0, size)
    for_bias = (table if bias is None else bias).new_empty(0)
    # Sums of no features, or of no positions, are none of torch's to make.
    empty = not states.numel()
    if wanted[0] and empty:
        for_states = states.new_zeros(whole)
    elif wanted[0]:
        for_states = functional.embedding_bag(items, table, per_sample_weights=gradient, mode="sum")
        if kept is not None:
            for_states = for_states.new_zeros(whole).index_copy_(0, kept, for_states)
    if wanted[1] and empty:
        for_table = table.new_zeros(table.shape)
    elif wanted[1]:
        flat = items.flatten()
        counts = torch.bincount(flat, minlength=len(table))
        # Sorting 32-bit keys takes half the time.
        order = flat.to(torch.int32).sort(stable=True).indices
        for_table = functional.embedding_bag(
            order // items.shape[1],
            states,
            counts.cumsum(0) - counts,
            per_sample_weights=gradient.flatten()[order],
            mode="sum",
        )
        if padding >= 0:
            for_table[padding] = 0
    if wanted[2]:
        assert bias is not None
        sums = torch.zeros(len(table)).index_add_(0, items.flatten(), gradient.flatten())
        if padding >= 0:
            sums[padding] = 0
        for_bias = sums.to(bias.dtype)
    return for_states, for_table, for_bias
