"""Logits of sampled items, their losses and gradients, without the gathered rows of the table.

Shapes: P positions, C = 1 + N columns (the positive, then N negatives), V items, H size of a row.

A program has one position: its state stays in registers, and rows of the table pass by in blocks of
columns.  Every position has items of its own, so there is no product of matrices in this, and what
bounds it is how fast rows come out of the second level of the cache.  The losses keep the logits,
in float32, and a number for each position; slopes are made of them again where they are needed.

Gradients of states are sums of one program, in one order.  Those of the table come in two ways:
added atomically, which is the fast one and differs in the last bits from run to run, or summed by
one program for each item over its places in sorted order, which does not.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning
from lmcore.kernels.tuning import Configuration, Launch

# Where atomic sums of float32 end, which bfloat16 has none of in the interpreter.
_SUM = torch.float32
_WIDEST = 256
# Elements of the table that a program has at one time, and its warps; the first is the default.
_CANDIDATES = ((2048, 2), (4096, 4), (1024, 1), (4096, 2))
KINDS = {"logits": 0, "bce": 1, "softmax": 2}


@triton.jit
def _load_items(positives, negatives, row, places, wanted, step, stride, inner):
    # A stride times a place may be beyond 32 bits.
    places = places.to(tl.int64)
    first = tl.load(positives + row * step + places * 0, mask=wanted & (places == 0), other=0)
    others = tl.load(
        negatives + row * stride + (places - 1) * inner, mask=wanted & (places > 0), other=0
    )
    return tl.where(places == 0, first, others).to(tl.int64)


@triton.jit
def _softplus(x):
    """The logarithm of 1 + e^x; that of 1 + t keeps its digits where t is small."""
    t = tl.exp(-tl.abs(x))
    one = 1.0 + t
    logarithm = tl.where(one == 1.0, t, tl.log(one) * (t / tl.where(one == 1.0, 1.0, one - 1.0)))
    return tl.where(x > 0, x, 0.0) + logarithm


@triton.jit
def _forward_kernel(
    states,
    table,
    bias,
    positives,
    negatives,
    mask,
    logits,
    losses,
    norms,
    items,
    size,
    columns,
    states_stride,
    states_step,
    table_stride,
    table_step,
    positives_step,
    negatives_stride,
    negatives_step,
    KIND: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    HAS_MASK: tl.constexpr,
    STORE: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    row = tl.program_id(0).to(tl.int64)
    if HAS_MASK and tl.load(mask + row) == 0:
        return
    units = tl.arange(0, BLOCK_H).to(tl.int64)
    top = float("-inf")
    total = 0.0
    own = 0.0
    for start in range(0, columns, BLOCK_C):
        places = start + tl.arange(0, BLOCK_C)
        wanted = places < columns
        ids = _load_items(
            positives, negatives, row, places, wanted,
            positives_step, negatives_stride, negatives_step,
        )  # fmt: skip
        known = wanted & (ids >= 0) & (ids < items)
        z = tl.zeros([BLOCK_C], tl.float32)
        for offset in range(0, size, BLOCK_H):
            part = offset + units
            inside = part < size
            s = tl.load(states + row * states_stride + part * states_step, mask=inside, other=0.0)
            w = tl.load(
                table + ids[:, None] * table_stride + part[None, :] * table_step,
                mask=known[:, None] & inside[None, :],
                other=0.0,
            )
            z += tl.sum(w.to(tl.float32) * s.to(tl.float32)[None, :], 1)
        if HAS_BIAS:
            z += tl.load(bias + ids, mask=known, other=0.0).to(tl.float32)
        # What is no item has no logit; asking beforehand would wait for the device.
        z = tl.where(known, z, float("nan"))
        if STORE:
            tl.store(logits + row * columns + places, z, mask=wanted)
        if KIND == 1:
            each = _softplus(tl.where(places == 0, -z, z))
            total += tl.sum(tl.where(wanted, each, 0.0), 0)
        if KIND == 2:
            z = tl.where(wanted, z, float("-inf"))
            above = tl.maximum(top, tl.max(z, 0))
            # Items may be shut out by -inf: no difference of two of them. NaN stays in the sum.
            base = tl.where(above == float("-inf"), 0.0, above)
            total = total * tl.exp(top - base) + tl.sum(tl.exp(z - base), 0)
            top = above
            own += tl.sum(tl.where(places == 0, z, 0.0), 0)
    if KIND == 1:
        tl.store(losses + row, total / columns)
    if KIND == 2:
        norm = tl.where(top == float("-inf"), 0.0, top) + tl.log(total)
        tl.store(norms + row, norm)
        tl.store(losses + row, norm - own)


@triton.jit
def _load_slopes(
    gradient, scale, norms, rows, places, wanted, columns, scale_step, KIND: tl.constexpr
):
    """The gradient of logits: what is given, or what it is made of."""
    z = tl.load(gradient + rows * columns + places, mask=wanted, other=0.0).to(tl.float32)
    slope = z
    if KIND != 0:
        outer = tl.load(scale + rows * scale_step + places * 0, mask=wanted, other=0.0)
        is_own = tl.where(places == 0, 1.0, 0.0)
        if KIND == 1:
            slope = (tl.sigmoid(z) - is_own) / columns
        else:
            norm = tl.load(norms + rows + places * 0, mask=wanted, other=0.0)
            slope = tl.exp(z - norm) - is_own
        slope = tl.where(wanted, slope * outer.to(tl.float32), 0.0)
    return slope


@triton.jit
def _backward_kernel(
    gradient,
    scale,
    norms,
    states,
    table,
    positives,
    negatives,
    mask,
    for_states,
    for_table,
    for_bias,
    items,
    size,
    columns,
    scale_step,
    states_stride,
    states_step,
    table_stride,
    table_step,
    positives_step,
    negatives_stride,
    negatives_step,
    padding,
    KIND: tl.constexpr,
    HAS_MASK: tl.constexpr,
    FOR_STATES: tl.constexpr,
    FOR_TABLE: tl.constexpr,
    FOR_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Gradients of a part of a position's state, and atomically of the table and the bias."""
    row = tl.program_id(0).to(tl.int64)
    if HAS_MASK and tl.load(mask + row) == 0:
        return
    part = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = part < size
    s = tl.load(states + row * states_stride + part * states_step, mask=inside, other=0.0)
    s = s.to(tl.float32)
    total = tl.zeros([BLOCK_H], tl.float32)
    for start in range(0, columns, BLOCK_C):
        places = start + tl.arange(0, BLOCK_C)
        wanted = places < columns
        ids = _load_items(
            positives, negatives, row, places, wanted,
            positives_step, negatives_stride, negatives_step,
        )  # fmt: skip
        known = wanted & (ids >= 0) & (ids < items)
        slopes = _load_slopes(
            gradient, scale, norms, row, places, wanted, columns, scale_step, KIND
        )
        if FOR_STATES:
            w = tl.load(
                table + ids[:, None] * table_stride + part[None, :] * table_step,
                mask=known[:, None] & inside[None, :],
                other=0.0,
            )
            total += tl.sum(w.to(tl.float32) * slopes[:, None], 0)
        learns = known & (ids != padding)
        if FOR_TABLE:
            tl.atomic_add(
                for_table + ids[:, None] * size + part[None, :],
                slopes[:, None] * s[None, :],
                mask=learns[:, None] & inside[None, :],
                sem="relaxed",
            )
        if FOR_BIAS and tl.program_id(1) == 0:
            tl.atomic_add(for_bias + ids, slopes, mask=learns, sem="relaxed")
    if FOR_STATES:
        tl.store(for_states + row * size + part, total, mask=inside)


@triton.jit
def _sorted_kernel(
    gradient,
    scale,
    norms,
    states,
    order,
    starts,
    for_table,
    for_bias,
    size,
    columns,
    scale_step,
    states_stride,
    states_step,
    padding,
    KIND: tl.constexpr,
    FOR_TABLE: tl.constexpr,
    FOR_BIAS: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """Gradients of a part of an item's row, summed over its places in their order."""
    item = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1).to(tl.int64) * BLOCK_H + tl.arange(0, BLOCK_H)
    inside = part < size
    begin = tl.load(starts + item)
    end = tl.load(starts + item + 1)
    end = tl.where(item == padding, begin, end)
    total = tl.zeros([BLOCK_H], tl.float32)
    sums = tl.zeros([BLOCK_C], tl.float32)
    for start in range(begin, end, BLOCK_C):
        entries = start + tl.arange(0, BLOCK_C)
        wanted = entries < end
        entries = tl.load(order + entries, mask=wanted, other=0)
        rows = entries // columns
        slopes = _load_slopes(
            gradient, scale, norms, rows, entries % columns, wanted, columns, scale_step, KIND
        )
        sums += slopes
        if FOR_TABLE:
            s = tl.load(
                states + rows[:, None] * states_stride + part[None, :] * states_step,
                mask=wanted[:, None] & inside[None, :],
                other=0.0,
            )
            total += tl.sum(s.to(tl.float32) * slopes[:, None], 0)
    if FOR_TABLE:
        tl.store(for_table + item * size + part, total, mask=inside)
    if FOR_BIAS and tl.program_id(1) == 0:
        tl.store(for_bias + item, tl.sum(sums, 0))


def compute_logits(
    kind: str,
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    keep: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns logits `[P, C]`, losses `[P]` and norms `[P]` of the positions that count.

    Logits are of the type of `states`; for a loss they are of float32, and none are written unless
    `keep` says so.  Losses are those of a loss alone, norms (the logarithm of the sum of the
    exponentials) those of the softmax alone.  What is not made has no elements.

    Args:
        kind: one of `KINDS`.
        states: `[P, H]` float32, bfloat16 or float16.
        table: `[V, H]` of the same type.
        positives: `[P]` int32 or int64.
        negatives: `[P, N]` of the same type.
        bias: `[V]` floating point or None.
        mask: `[P]` bool or None.
        keep: whether a loss has a gradient.
    """
    (positions, size), columns = states.shape, 1 + negatives.shape[1]
    make = states.new_empty if mask is None else states.new_zeros
    store = kind == "logits" or keep
    logits = make(
        (positions, columns) if store else (0, columns),
        dtype=states.dtype if kind == "logits" else _SUM,
    )
    losses = make(0 if kind == "logits" else positions, dtype=_SUM)
    norms = make(positions if kind == "softmax" else 0, dtype=_SUM)
    if not positions:
        return logits, losses, norms

    def launch(blocks: Configuration) -> None:
        _forward_kernel[(positions,)](
            states,
            table,
            bias,
            positives,
            negatives,
            view_mask(mask),
            logits,
            losses,
            norms,
            len(table),
            size,
            columns,
            *states.stride(),
            *table.stride(),
            *positives.stride(),
            *negatives.stride(),
            KIND=KINDS[kind],
            HAS_BIAS=bias is not None,
            HAS_MASK=mask is not None,
            STORE=store,
            **blocks,
        )

    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(states):
        launch(_choose(f"sampled_{kind}", states, table, columns, launch))
    return logits, losses, norms


def compute_gradients(
    kind: str,
    gradient: Tensor,
    scale: Tensor | None,
    norms: Tensor | None,
    states: Tensor,
    table: Tensor,
    positives: Tensor,
    negatives: Tensor,
    bias: Tensor | None,
    mask: Tensor | None,
    padding: int,
    deterministic: bool,
    wanted: tuple[bool, bool, bool],
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the gradients of states, table and bias; those that are not wanted have no elements.

    Args:
        kind: one of `KINDS`.
        gradient: `[P, C]`, of the logits; for a loss the logits that were kept.
        scale: `[P]`, of the losses; None for logits.
        norms: `[P]` as they were kept; None but for the softmax.
        states: as there.
        table: as there.
        positives: as there.
        negatives: as there.
        bias: as there.
        mask: as there.
        padding: the item that learns nothing; -1: none.
        deterministic: whether the sums of the table and the bias have one order.
        wanted: whether states, table and bias have a gradient.
    """
    (positions, size), items = states.shape, len(table)
    columns = gradient.shape[1]
    for_states, for_table, for_bias = wanted
    # As one program a row of the table writes all of it.
    summed = states.dtype if deterministic else _SUM
    make = states.new_zeros if mask is not None or not size else states.new_empty
    states_gradient = make((positions, size) if for_states else (0, size))
    table_gradient = states.new_zeros((items, size) if for_table else (0, size), dtype=summed)
    bias_gradient = states.new_zeros(items if for_bias else 0, dtype=_SUM)
    gradient = gradient.contiguous()
    shared = (gradient, scale, norms, states)
    scale_step = 0 if scale is None else scale.stride(0)
    atomic = not deterministic and (for_table or for_bias)

    def launch(blocks: Configuration) -> None:
        if timed:
            # What is added to many times over must not be what is returned.
            sums = torch.empty_like(table_gradient), torch.empty_like(bias_gradient)
        else:
            sums = table_gradient, bias_gradient
        _backward_kernel[(positions, max(triton.cdiv(size, blocks["BLOCK_H"]), 1))](
            *shared,
            table,
            positives,
            negatives,
            view_mask(mask),
            states_gradient,
            *sums,
            items,
            size,
            columns,
            scale_step,
            *states.stride(),
            *table.stride(),
            *positives.stride(),
            *negatives.stride(),
            padding,
            KIND=KINDS[kind],
            HAS_MASK=mask is not None,
            FOR_STATES=for_states,
            FOR_TABLE=for_table and atomic,
            FOR_BIAS=for_bias and atomic,
            **blocks,
        )

    def launch_sorted(blocks: Configuration) -> None:
        _sorted_kernel[(items, max(triton.cdiv(size, blocks["BLOCK_H"]), 1))](
            *shared,
            order,
            starts,
            table_gradient,
            bias_gradient,
            size,
            columns,
            scale_step,
            *states.stride(),
            padding,
            KIND=KINDS[kind],
            FOR_TABLE=for_table,
            FOR_BIAS=for_bias,
            **blocks,
        )

    with torch.cuda.device_of(states):
        if positions and (for_states or atomic):
            timed = True
            blocks = _choose("sampled_gradients", states, table, columns, launch)
            timed = False
            launch(blocks)
        if positions and items and deterministic and (for_table or for_bias):
            order, starts = sort_items(positives, negatives, mask, items)
            launch_sorted(_choose("sampled_sums", states, table, columns, launch_sorted))
    bias_type = states.dtype if bias is None else bias.dtype
    return states_gradient, table_gradient.to(table.dtype), bias_gradient.to(bias_type)


def sort_items(
    positives: Tensor, negatives: Tensor, mask: Tensor | None, items: int
) -> tuple[Tensor, Tensor]:
    """Returns the places `row * C + column` by item, and where each item's begin: `[V + 1]`.

    Args:
        positives: `[P]`.
        negatives: `[P, N]`.
        mask: `[P]` bool or None.
        items: how many there are.
    """
    ids = torch.cat([positives[:, None], negatives], 1)
    known = (ids >= 0) & (ids < items)
    if mask is not None:
        known &= mask[:, None]
    # What counts for no item comes last. Sorting 32-bit keys takes half the time.
    keys = torch.where(known, ids, items).flatten().to(torch.int32)
    keys, order = keys.sort(stable=True)
    bounds = torch.arange(items + 1, dtype=torch.int32, device=keys.device)
    return order, torch.searchsorted(keys, bounds)


def _choose(
    kernel: str, states: Tensor, table: Tensor, columns: int, launch: Launch
) -> Configuration:
    (positions, size), items = states.shape, len(table)
    sizes = {"positions": positions, "columns": columns, "items": items, "size": size}
    candidates = list_blocks(columns, size)
    return tuning.choose(kernel, sizes, states.dtype, states.device, candidates, launch)


def list_blocks(columns: int, size: int) -> list[dict[str, int]]:
    """Returns candidates for the sizes of blocks: rows as wide as they are, and several of them.

    Args:
        columns: 1 + N.
        size: H.
    """
    wide = min(max(triton.next_power_of_2(max(size, 1)), 16), _WIDEST)
    widest = max(triton.next_power_of_2(columns), 16)
    found = []
    for elements, warps in _CANDIDATES:
        blocks = {"BLOCK_C": min(max(elements // wide, 16), widest), "BLOCK_H": wide}
        found.append(blocks | {"num_warps": warps, "enable_fp_fusion": True})
    return found


def view_mask(mask: Tensor | None) -> Tensor | None:
    """Returns a mask as bytes, which Triton loads.

    Args:
        mask: `[P]` bool or None.
    """
    return None if mask is None else mask.contiguous().view(torch.uint8)
