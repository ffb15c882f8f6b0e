"""Cross-entropy of a linear head over a large vocabulary, or a kept part of it.

The logits of all positions and entries are never in memory, forward or backward.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor

from lmcore.ops._autocast import cast, without_autocast
from lmcore.ops._dispatch import choose
from lmcore.reference import cross_entropy as reference
from lmcore.reference._reductions import reduce

__all__ = ["cross_entropy"]

Reduction: TypeAlias = Literal["mean", "sum", "none"]

# Logits that exist at one time: 16 MB of float32 on a CPU, 256 MB of half precision on a GPU.
_BLOCK = 1 << 22
# Of the forward pass on a CPU, which goes over them several times: what its caches hold.
_NEAR_BLOCK = 1 << 18
_LEAST_STEP = 512
_KERNEL_BLOCK = 1 << 27


def cross_entropy(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    kept: Tensor | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Returns the cross-entropy of targets by the logits of a linear head.

    It is `torch.nn.functional.cross_entropy` of `states @ weight.T + bias`, without these logits
    in memory: blocks of entries follow each other, and the backward pass makes their logits again.
    Sums are in float32, those of gradients too, whatever the number of entries; gradients are
    exact: none is left out for being small. All of it is the same bits each time.

    With `kept` the vocabulary is those entries alone: others cost nothing and have a gradient of
    zero. Targets stay ids of the whole vocabulary.

    What computes it: on a CUDA device kernels, which make logits and slopes, and torch's products
    with the slopes; float64, and devices of other kinds, the definition, with all logits in
    memory; a CPU blocks in torch. On a CPU targets and `kept` are checked. On a CUDA device that
    would wait for it: there the loss of a target that does not take part is NaN and has no
    gradient, and so is every loss where `kept` has what is no entry.

    Source: Cut cross-entropy (arXiv 2411.09009), section 4, for norms made block by block.

    Args:
        states: `[P, H]` floating point.
        weight: `[V, H]` of the same type, but under autocast, whose type decides.
        targets: `[P]` int64, ids of entries that take part, or `ignore_index`.
        bias: `[V]` floating point.
        kept: `[K]` int64, ascending: the entries that take part; None: all.
        ignore_index: of positions that do not count.
        reduction: over the positions that count: `mean`, `sum` or `none`. The mean of no
            positions is NaN.

    Returns:
        A scalar, or `[P]` for `none`, where a position that does not count has 0: float32, or
        float64 for float64. Its gradient has none itself.

    Raises:
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, a name is unknown, `kept` does not ascend, or tensors are
            on several devices.
        IndexError: a target does not take part, or a kept entry is none (on a CPU).

    Example:
        >>> states, weight = torch.zeros(2, 3), torch.ones(8, 3)
        >>> cross_entropy(states, weight, torch.tensor([7, -100])).exp()
        tensor(8.)
        >>> kept = torch.tensor([1, 5, 7])
        >>> cross_entropy(states, weight, torch.tensor([7, 5]), kept=kept, reduction="none").exp()
        tensor([3., 3.])
    """
    tensors = (states, weight, targets, bias, kept)
    way = choose(*(tensor for tensor in tensors if tensor is not None))
    states, weight = cast(states, weight)
    with without_autocast(states.device):
        if way == "reference" or states.dtype == torch.float64:
            return reference.cross_entropy(
                states, weight, targets, bias, kept, ignore_index, reduction
            )
        reference.check_arguments(states, weight, targets, bias, kept, ignore_index, reduction)
        bias, kept = (None if t is None else t.contiguous() for t in (bias, kept))
        losses: Tensor = _losses(
            states, weight, targets, bias, kept, ignore_index, way == "kernel"
        )[0]
        return reduce(losses, targets != ignore_index, reduction)


# What torch sees of it.


@torch.library.custom_op("lmcore::cross_entropy", mutates_args=())
def _losses(
    states: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    kept: Tensor | None,
    ignore_index: int,
    kernel: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Losses, and what the backward pass wants: norms, and places of the targets."""
    counted = targets != ignore_index
    if not kernel:
        reference.check_kept(kept, len(weight))
    places = reference.find_places(targets, kept, len(weight))
    if kernel:
        # Here, because triton is not everywhere where torch is.
        from lmcore.kernels.cross_entropy import compute_norms

        norms, own = compute_norms(states, weight, places, bias, kept)
        own = torch.where(places < 0, torch.nan, own)
    else:
        reference.check_places(places, counted, targets)
        norms, own = _compute_norms(states, weight, places, bias, kept)
    # Not a loss of the entry 0, where it is ignored.
    places = torch.where(counted, places, -1)
    return torch.where(counted, norms - own, 0), norms, places


@_losses.register_fake
def _(states: Any, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    losses, norms = (states.new_empty(states.shape[0], dtype=torch.float32) for _ in "12")
    return losses, norms, states.new_empty(states.shape[0], dtype=torch.int64)


@torch.library.custom_op("lmcore::cross_entropy_gradients", mutates_args=())
def _gradients(
    outer: Tensor,
    norms: Tensor,
    places: Tensor,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kept: Tensor | None,
    kernel: bool,
    for_states: bool,
    for_weight: bool,
    for_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those of states, weight and bias; one that is not wanted has no elements.

    A block of entries has all positions, so that its rows of the weight's gradient are one product
    and no sum of roundings; the states' gradient is summed over blocks in float32.
    """
    # A backward pass may be called where autocast holds.
    with without_autocast(states.device):
        return _sum_blocks(
            outer, norms, places, states, weight, bias, kept, kernel,
            (for_states, for_weight, for_bias),
        )  # fmt: skip


def _sum_blocks(
    outer: Tensor,
    norms: Tensor,
    places: Tensor,
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    kept: Tensor | None,
    kernel: bool,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    for_states, for_weight, for_bias = wanted
    (positions, size), entries = states.shape, len(weight)
    wide = states if kernel else states.float()
    # Of the strides that are told beforehand, whatever those of the states are.
    states_sum = states.new_zeros((positions if for_states else 0, size), dtype=torch.float32)
    weight_sum = weight.new_zeros(entries if for_weight else 0, size)
    bias_sum = (weight if bias is None else bias).new_zeros(entries if for_bias else 0)
    for start, end in _list_blocks(positions, entries if kept is None else len(kept), kernel):
        ids = None if kept is None else kept[start:end]
        if ids is not None and kernel:
            # Their losses are NaN; nothing outside of the weight is read or written.
            ids = ids.clamp(0, entries - 1)
        rows = weight[start:end] if ids is None else weight.index_select(0, ids)
        if kernel:
            from lmcore.kernels.cross_entropy import compute_slopes

            slopes = states.new_empty(positions, end - start)
            compute_slopes(states, weight, places, bias, kept, norms, outer, start, slopes)
        else:
            rows = rows.float()
            slopes = _compute_slopes(wide, rows, places, bias, ids, norms, outer, start)
        if for_states:
            _add_product(states_sum, slopes, rows)
        if for_weight:
            _put(weight_sum, _multiply(slopes.T, wide), start, ids)
        if for_bias:
            _put(bias_sum, slopes.sum(0, dtype=torch.float32), start, ids)
    return states_sum.to(states.dtype), weight_sum, bias_sum


@_gradients.register_fake
def _(
    outer: Any, norms: Any, places: Any, states: Any, weight: Any, bias: Any, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    for_states, for_weight, for_bias = rest[-3:]
    entries, size = weight.shape
    return (
        states.new_empty(states.shape[0] if for_states else 0, size),
        weight.new_empty(entries if for_weight else 0, size),
        (weight if bias is None else bias).new_empty(entries if for_bias else 0),
    )


def _remember(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    states, weight, _, bias, kept, _, ctx.kernel = inputs
    ctx.save_for_backward(*output[1:], states, weight, bias, kept)
    ctx.mark_non_differentiable(*output[1:])


def _differentiate(ctx: Any, outer: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    needs = ctx.needs_input_grad
    wanted = (needs[0], needs[1], needs[3])
    found = _gradients(outer, *ctx.saved_tensors, ctx.kernel, *wanted)
    states, weight, bias = (g if w else None for g, w in zip(found, wanted, strict=True))
    return states, weight, None, bias, None, None, None


_losses.register_autograd(_differentiate, setup_context=_remember)


def _list_blocks(positions: int, count: int, kernel: bool) -> list[tuple[int, int]]:
    """Blocks of entries, as large as their logits may be; whole blocks of a kernel."""
    step = max((_KERNEL_BLOCK if kernel else _BLOCK) // max(positions, 1), 1)
    step = max(step // 256 * 256, 256) if kernel else step
    return [(start, min(start + step, count)) for start in range(0, count, step)]


def _put(whole: Tensor, part: Tensor, start: int, ids: Tensor | None) -> None:
    """Writes the gradient of a block of entries."""
    if ids is None:
        whole[start : start + len(part)] = part
    else:
        whole.index_copy_(0, ids, part.to(whole.dtype))


def _add_product(total: Tensor, slopes: Tensor, rows: Tensor) -> None:
    if slopes.dtype == torch.float32:
        total.addmm_(slopes, rows)
    else:
        total += _multiply(slopes, rows)


def _multiply(left: Tensor, right: Tensor) -> Tensor:
    """A product in float32: of half precision torch may add parts of a long sum rounded."""
    if left.dtype != torch.float32 and left.is_cuda and _HAS_WIDE_PRODUCTS:
        return torch.mm(left, right, out_dtype=torch.float32)
    return left @ right


# From torch 2.8 on; before that each block's product is rounded once, and torch's switches say
# whether its parts are.
_HAS_WIDE_PRODUCTS = "dtype" in torch.ops.aten.mm.overloads()


# On a CPU.


def _compute_logits(
    wide: Tensor, rows: Tensor, bias: Tensor | None, start: int, ids: Tensor | None
) -> Tensor:
    logits = wide @ rows.T
    if bias is None:
        return logits
    return logits.add_(bias[start : start + len(rows)] if ids is None else bias[ids])


def _compute_norms(
    states: Tensor, weight: Tensor, places: Tensor, bias: Tensor | None, kept: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The logarithm of the sum of the exponentials, and the target's logit, block by block."""
    wide = states.float()
    own = torch.zeros(places.shape)
    count = len(weight) if kept is None else len(kept)
    # Exponentials are taken of what is more than the largest logit of the first block: their sum
    # is exact enough wherever it is finite, and needs no maximum of the others.
    shifts, sums = own, torch.zeros(places.shape)
    most = max(len(states), 1)
    step = max(_NEAR_BLOCK // most, min(_LEAST_STEP, _BLOCK // most), 1)
    for start in range(0, count, step):
        end = min(start + step, count)
        ids = None if kept is None else kept[start:end]
        rows = weight[start:end] if ids is None else weight[ids]
        logits = _compute_logits(wide, rows.float(), bias, start, ids)
        inside = (places >= start) & (places < end)
        near = (places - start).clamp(0, end - start - 1)
        own = torch.where(inside, logits.gather(1, near[:, None])[:, 0], own)
        if not start:
            shifts = logits.amax(1)
            shifts = torch.where(shifts.isfinite(), shifts, 0)
        sums += logits.sub_(shifts[:, None]).exp_().sum(1)
    norms = sums.log() + shifts
    # A sum below 1 lacks the largest logit of the first block, which was not finite.
    far = ~(norms.isfinite() & (sums >= 1))
    if bool(far.any()):
        norms[far] = _compute_far_norms(wide[far], weight, bias, kept)
    return norms, own


def _compute_far_norms(
    wide: Tensor, weight: Tensor, bias: Tensor | None, kept: Tensor | None
) -> Tensor:
    """Norms of positions whose logits lie far apart, or are not finite."""
    norms = torch.full(wide.shape[:1], -torch.inf)
    count = len(weight) if kept is None else len(kept)
    for start, end in _list_blocks(len(wide), count, kernel=False):
        ids = None if kept is None else kept[start:end]
        rows = weight[start:end] if ids is None else weight[ids]
        logits = _compute_logits(wide, rows.float(), bias, start, ids)
        norms = torch.logaddexp(norms, logits.logsumexp(1))
    # As torch has it, whose softmax of infinity is none.
    return norms.masked_fill_(norms == torch.inf, torch.nan)


def _compute_slopes(
    wide: Tensor,
    rows: Tensor,
    places: Tensor,
    bias: Tensor | None,
    ids: Tensor | None,
    norms: Tensor,
    outer: Tensor,
    start: int,
) -> Tensor:
    """The gradient of the logits of a block of entries."""
    slopes = _compute_logits(wide, rows, bias, start, ids).sub_(norms[:, None]).exp_()
    inside = ((places >= start) & (places < start + len(rows))).nonzero()[:, 0]
    slopes[inside, places[inside] - start] -= 1
    slopes *= outer[:, None]
    # A position that does not count has no gradient, whatever its logits are.
    return slopes.masked_fill_((places < 0)[:, None], 0)
