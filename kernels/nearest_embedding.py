"""The nearest word embedding of each position, with the minimum taken where the product is made.

Shapes: P positions, V words, E size of an embedding.

A program has a block of positions and a share of the words.  It keeps the least distance that it
has seen and where, and in the end puts both into one integer: the bits of a float that is not
negative order as it does, and below them stands the word, so that the least integer is the nearest
word, the lowest one of several.  Programs with other shares of the words take their minimum in
memory; its order does not matter, so the result is the same each time.

Of |w|^2 + |x|^2 - 2 w x the middle is the same for all words, so that it is added in the end, and
its negative is the least that the rest can be.  What is no number loses every comparison.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from lmcore.kernels import tuning
from lmcore.kernels._interpreter import INTERPRETED

_NONE = torch.iinfo(torch.int64).max
# Programs that a multiprocessor shall have at least.
_PROGRAMS = 2
# The largest embedding that is read at once, and the part of a larger one.
_WHOLE, _PART = 128, 64
_SQUARES = 128


def _list_candidates(*rows: tuple[int, int, int, int]) -> list[dict[str, int]]:
    names = ("BLOCK_P", "BLOCK_V", "num_warps", "num_stages")
    return [dict(zip(names, row, strict=True)) for row in rows]


# Products of half precision, by the units made for them: a large block reads the words less often.
_HALF = _list_candidates((128, 64, 8, 3), (256, 64, 8, 3), (64, 64, 4, 3), (64, 64, 4, 4))
# Those of float32 are made by the others, in registers.
_SINGLE = _list_candidates((128, 32, 8, 2), (64, 32, 4, 2))


@triton.jit
def _squares_kernel(
    table, squares, words, size, table_stride, table_step,
    BLOCK_V: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_V + tl.arange(0, BLOCK_V)
    own = tl.zeros([BLOCK_V], tl.float32)
    for offset in range(0, size, BLOCK_E):
        part = offset + tl.arange(0, BLOCK_E)
        w = tl.load(
            table + rows[:, None] * table_stride + part[None, :] * table_step,
            mask=(rows[:, None] < words) & (part[None, :] < size),
            other=0.0,
        ).to(tl.float32)
        own += tl.sum(w * w, 1)
    tl.store(squares + rows, own, mask=rows < words)


@triton.jit
def _nearest_kernel(
    latents, table, squares, mask, keys, positions, words, size,
    latents_stride, latents_step, table_stride, table_step, share,
    HAS_MASK: tl.constexpr, IS_WHOLE: tl.constexpr, WIDEN: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_V: tl.constexpr, BLOCK_E: tl.constexpr,
):  # fmt: skip
    rows = tl.program_id(0).to(tl.int64) * BLOCK_P + tl.arange(0, BLOCK_P)
    wanted = rows < positions
    if HAS_MASK:
        wanted = wanted & (tl.load(mask + rows, mask=wanted, other=0) != 0)
    # Sources stand side by side, and whole blocks of them cost nothing.
    if tl.max(wanted.to(tl.int32), 0) == 0:
        return
    begin = tl.program_id(1).to(tl.int64) * share
    end = tl.minimum(begin + share, words)
    inner = tl.arange(0, BLOCK_E)
    x_places = latents + rows[:, None] * latents_stride + inner[None, :] * latents_step
    block = tl.arange(0, BLOCK_V)
    w_offsets = block[:, None].to(tl.int64) * table_stride + inner[None, :] * table_step
    own = tl.zeros([BLOCK_P], tl.float32)
    if IS_WHOLE:
        x = tl.load(x_places, mask=wanted[:, None] & (inner[None, :] < size), other=0.0)
        if WIDEN:
            x = x.to(tl.float32)
        own += tl.sum(x.to(tl.float32) * x.to(tl.float32), 1)
    else:
        for offset in range(0, size, BLOCK_E):
            within = inner[None, :] < size - offset
            part = tl.load(
                x_places + offset * latents_step, mask=wanted[:, None] & within, other=0.0
            ).to(tl.float32)
            own += tl.sum(part * part, 1)
    best = tl.full([BLOCK_P, BLOCK_V], float("inf"), tl.float32)
    where = tl.full([BLOCK_P, BLOCK_V], 0, tl.int32)
    for first in range(begin, end, BLOCK_V):
        columns = first + block
        known = columns < end
        # One beyond the end is as far as none can be.
        others = tl.load(squares + columns, mask=known, other=float("inf"))
        w_places = table + first * table_stride + w_offsets
        product = tl.zeros([BLOCK_P, BLOCK_V], tl.float32)
        # Not in TF32: its error is larger than the differences that are looked for.
        if IS_WHOLE:
            w = tl.load(w_places, mask=known[:, None] & (inner[None, :] < size), other=0.0)
            if WIDEN:
                w = w.to(tl.float32)
            product = tl.dot(x, tl.trans(w), product, input_precision="ieee")
        else:
            for offset in range(0, size, BLOCK_E):
                within = inner[None, :] < size - offset
                x = tl.load(
                    x_places + offset * latents_step, mask=wanted[:, None] & within, other=0.0
                )
                w = tl.load(w_places + offset * table_step, mask=known[:, None] & within, other=0.0)
                if WIDEN:
                    x, w = x.to(tl.float32), w.to(tl.float32)
                product = tl.dot(x, tl.trans(w), product, input_precision="ieee")
        distance = tl.maximum(
            others[None, :] - 2 * product, -own[:, None], propagate_nan=tl.PropagateNan.ALL
        )
        nearer = distance < best
        best = tl.where(nearer, distance, best)
        where = tl.where(nearer, columns[None, :].to(tl.int32), where)
    distance = best + own[:, None]
    bits = distance.to(tl.int32, bitcast=True).to(tl.int64)
    key = tl.min((bits << 32) | where.to(tl.int64), 1)
    found = tl.min(best, 1) + own < float("inf")
    tl.atomic_min(keys + rows, key, mask=wanted & found)


def find_nearest(latents: Tensor, table: Tensor, mask: Tensor | None, shares: int = 0) -> Tensor:
    """Returns the index of the nearest word of each position, -1 where there is none: `[P]` int64.

    Args:
        latents: `[P, E]` float32, bfloat16 or float16.
        table: `[V, E]` of the same type, V below 2**31.
        mask: `[P]` bool or None.
        shares: into how many the words are divided; 0: as many as fill the device.
    """
    (positions, size), words = latents.shape, len(table)
    latents, table = _bring_near(latents), _bring_near(table)
    keys = torch.full((positions,), _NONE, dtype=torch.int64, device=latents.device)
    if not positions:
        return keys
    squares = torch.empty(words, dtype=torch.float32, device=latents.device)
    part = max(triton.next_power_of_2(size), 16)
    part = part if part <= _WHOLE else _PART
    flags = None if mask is None else mask.contiguous().view(torch.uint8)

    def launch(configuration: tuning.Configuration) -> None:
        blocks = triton.cdiv(positions, configuration["BLOCK_P"])
        divided = shares or max(_count_processors(latents.device) * _PROGRAMS // blocks, 1)
        block = configuration["BLOCK_V"]
        share = triton.cdiv(triton.cdiv(words, divided), block) * block
        _nearest_kernel[(blocks, triton.cdiv(words, share))](
            latents, table, squares, flags, keys, positions, words, size,
            *latents.stride(), *table.stride(), share,
            HAS_MASK=mask is not None, IS_WHOLE=part >= size, WIDEN=INTERPRETED, BLOCK_E=part,
            enable_fp_fusion=True, **configuration,
        )  # fmt: skip

    # Triton launches on the current device, which need not be that of the tensors.
    with torch.cuda.device_of(latents):
        _squares_kernel[(triton.cdiv(words, _SQUARES),)](
            table, squares, words, size, *table.stride(),
            BLOCK_V=_SQUARES, BLOCK_E=part, enable_fp_fusion=True, num_warps=4,
        )  # fmt: skip
        sizes = {"positions": positions, "words": words, "size": size}
        candidates = _SINGLE if latents.dtype == torch.float32 else _HALF
        launch(
            tuning.choose(
                "nearest_embedding", sizes, latents.dtype, latents.device, candidates, launch
            )
        )
    return torch.where(keys == _NONE, -1, keys & 0xFFFFFFFF)


def _bring_near(matrix: Tensor) -> Tensor:
    """The offset of a column must be within 32 bits, which a matrix that is turned may exceed."""
    return matrix.contiguous() if matrix.shape[1] * matrix.stride(1) >= 2**31 else matrix


def _count_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count
