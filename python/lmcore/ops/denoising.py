"""Samples of UL2's denoisers: texts in, encoder ids, decoder ids and labels out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import as_integers, as_native, same_length
from lmcore.reference._denoisers import (
    EXCESS_RULES,
    KINDS,
    UNUSED,
    DenoisedBatch,
    Denoiser,
    PackedSamples,
    PairBatch,
    Plan,
    Sample,
    SpecialIds,
    check_denoisers,
    check_indices,
    check_lengths,
    check_pair_widths,
    check_prefix,
    check_rows,
    check_widths,
    join_texts,
    o_ul2,
    ul2,
    widths,
)

__all__ = [
    "EXCESS_RULES",
    "KINDS",
    "DenoisedBatch",
    "Denoiser",
    "PackedSamples",
    "PairBatch",
    "Plan",
    "Sample",
    "SpecialIds",
    "apply_spans",
    "denoise_batch",
    "denoise_packed",
    "o_ul2",
    "pair_batch",
    "plan_batch",
    "ul2",
]

_UL2, _IDS = ul2(), SpecialIds()
# What the core reads where it lies.
_READ = (np.dtype(np.uint16), np.dtype(np.int32), np.dtype(np.uint32), np.dtype(np.int64))


def plan_batch(
    lengths: ArrayLike,
    indices: ArrayLike,
    *,
    seed: int,
    denoisers: Sequence[Denoiser] | None = None,
    ids: SpecialIds | None = None,
    tasks: ArrayLike | None = None,
) -> Plan:
    """Returns which denoisers samples get and how long they become, without their tokens.

    Args:
        lengths: `[B]` integers: of the texts; at least 2 and below 2**31.
        indices: `[B]` integers: of the samples, below 2**64. A sample depends on
            (seed, index, its text) alone.
        seed: below 2**64.
        denoisers: what is drawn from, by their weights; None for `ul2()`.
        ids: the special tokens; None for OpenBA's.
        tasks: `[B]` integers: which of the denoisers each sample gets, from 0; None to draw
            them. Where the noise is does not depend on whether its task was drawn.

    Raises:
        TypeError: arguments that are not of their types.
        ValueError: a text is too short, there are fewer sentinels than a denoiser that refuses
            this needs, or a setting is out of its range.
        IndexError: a task that does not exist.

    Example:
        >>> plan = plan_batch([568, 568], [0, 1], seed=0, tasks=[0, 3])
        >>> plan.encoder_lengths.tolist(), plan.decoder_lengths.tolist()
        ([513, 381], [114, 380])
    """
    core, denoisers, _ = _prepare(denoisers, ids)
    samples, given = check_indices(indices, seed, tasks, len(denoisers))
    return _plan(core, check_lengths(lengths, samples), samples, seed, given)


def denoise_batch(
    tokens: Any,
    indices: ArrayLike,
    *,
    seed: int,
    denoisers: Sequence[Denoiser] | None = None,
    ids: SpecialIds | None = None,
    rows: ArrayLike | None = None,
    tasks: ArrayLike | None = None,
    encoder_width: int | None = None,
    decoder_width: int | None = None,
    dtype: DTypeLike = np.int64,
    out: DenoisedBatch | None = None,
    threads: int | None = None,
) -> DenoisedBatch:
    """Returns a batch of samples with padding on the right.

    A sample depends on (seed, index, its text) alone: not on other samples, on `rows`, or on
    the number of threads. A denoiser is drawn for it, then the lengths of the noise spans and
    of what is kept between them, all compositions alike. The text begins with a kept span and
    ends with a noise span. The encoder gets the prefix, the text with a sentinel in place of
    each noise span, and the end; the labels are each sentinel with its tokens, and the end;
    the decoder gets the start and the labels without their last.

    Rounding is to the nearest number, the even one of two. Of L tokens, round(L * density) are
    noise, at least 1 and at most L - 1, so that texts of 0 or 1 tokens are refused.

    Source: OpenBA (arXiv 2309.10706), table 3; OpenBA-V2 (arXiv 2405.05957), O-UL2.

    Args:
        tokens: `[N, L]` integers, or N texts of different lengths. Rows of a contiguous array
            of uint16, int32, uint32 or int64, also of one that is mapped from a file, are read
            where they lie.
        indices: `[B]` integers: of the samples, below 2**64.
        seed: below 2**64.
        denoisers: what is drawn from, by their weights; None for `ul2()`.
        ids: the special tokens; None for OpenBA's.
        rows: `[B]` integers: which texts the samples are of; None for all N = B in order.
        tasks: `[B]` integers: which of the denoisers each sample gets, from 0; None to draw.
        encoder_width: S; None for the longest row.
        decoder_width: T; None for the longest row.
        dtype: of the ids, int64 or int32; without `out`.
        out: a batch of the same shapes whose arrays are overwritten and returned; S and T are
            then those of its arrays. After an error, it holds anything.
        threads: at most this many; None for the machine's. Small batches take one.

    Raises:
        TypeError: arguments that are not of their types.
        ValueError: a text is too short, a row is longer than S or T, there are fewer sentinels
            than a denoiser that refuses this needs, or a setting is out of its range.
        IndexError: a token outside of the vocabulary, or a row or task that does not exist.

    Example:
        >>> batch = denoise_batch([[5, 6, 7, 8]], [0], seed=0, tasks=[2])
        >>> batch.encoder.tolist(), batch.labels.tolist()
        ([[250201, 5, 6, 7, 250199, 1]], [[250199, 8, 1]])
    """
    given_widths = check_widths(encoder_width, decoder_width)
    core, denoisers, _ = _prepare(denoisers, ids)
    samples, given = check_indices(indices, seed, tasks, len(denoisers))
    flat, starts, ends = _find_texts(tokens, rows, len(samples))
    plan = _plan(core, check_lengths(ends - starts, samples), samples, seed, given)
    if out is not None:
        given_widths = _widths_of(out, len(samples))
    source, target = widths(plan, *given_widths)
    if out is None:
        shapes = ((len(samples), source), (len(samples), target), (len(samples), target))
        arrays = [_allocate(*shape, dtype=_check_dtype(dtype)) for shape in shapes]
        out = DenoisedBatch(
            arrays[0], arrays[1], arrays[2], plan.encoder_lengths, plan.decoder_lengths, plan.tasks
        )
    else:
        out.tasks[:] = plan.tasks
        out.encoder_lengths[:] = plan.encoder_lengths
        out.decoder_lengths[:] = plan.decoder_lengths
    steps = np.arange(len(samples) + 1)
    core.write(
        *(flat, starts, ends, samples, seed, plan.tasks),
        *(out.encoder, steps * source, out.decoder, out.labels, steps * target),
        limit_threads(threads),
    )
    return out


def denoise_packed(
    tokens: Any,
    indices: ArrayLike,
    *,
    seed: int,
    denoisers: Sequence[Denoiser] | None = None,
    ids: SpecialIds | None = None,
    rows: ArrayLike | None = None,
    tasks: ArrayLike | None = None,
    dtype: DTypeLike = np.int64,
    out: PackedSamples | None = None,
    threads: int | None = None,
) -> PackedSamples:
    """Returns the samples of `denoise_batch` one after the other, without padding.

    Args:
        tokens: `[N, L]` integers, or N texts of different lengths.
        indices: `[B]` integers: of the samples, below 2**64.
        seed: below 2**64.
        denoisers: what is drawn from, by their weights; None for `ul2()`.
        ids: the special tokens; None for OpenBA's.
        rows: `[B]` integers: which texts the samples are of; None for all N = B in order.
        tasks: `[B]` integers: which of the denoisers each sample gets, from 0; None to draw.
        dtype: of the ids, int64 or int32; without `out`.
        out: what this function returned before, or other samples whose `encoder`, `decoder` and
            `labels` have room. They are overwritten; the result holds views of their beginnings.
        threads: at most this many; None for the machine's. Small batches take one.

    Raises:
        TypeError: arguments that are not of their types.
        ValueError: a text is too short, `out` has no room, there are fewer sentinels than a
            denoiser that refuses this needs, or a setting is out of its range.
        IndexError: a token outside of the vocabulary, or a row or task that does not exist.

    Example:
        >>> packed = denoise_packed([[5, 6, 7, 8]] * 2, [0, 1], seed=0, tasks=[2, 2])
        >>> packed.encoder.tolist(), packed.encoder_offsets.tolist()
        ([250201, 5, 6, 7, 250199, 1, 250201, 5, 6, 7, 250199, 1], [0, 6, 12])
    """
    core, denoisers, _ = _prepare(denoisers, ids)
    samples, given = check_indices(indices, seed, tasks, len(denoisers))
    flat, starts, ends = _find_texts(tokens, rows, len(samples))
    plan = _plan(core, check_lengths(ends - starts, samples), samples, seed, given)
    offsets = [np.zeros(len(samples) + 1, np.int64) for _ in range(2)]
    for found, lengths in zip(offsets, plan[1:], strict=True):
        np.cumsum(lengths, out=found[1:])
    sizes = {name: int(offsets[name != "encoder"][-1]) for name in ("encoder", "decoder", "labels")}
    if out is None:
        kind = _check_dtype(dtype)
        arrays = [_allocate(size, dtype=kind) for size in sizes.values()]
    else:
        kind = _check_dtype(out.encoder.dtype, "out.encoder")
        arrays = [_take(name, getattr(out, name), size, kind) for name, size in sizes.items()]
    core.write(
        *(flat, starts, ends, samples, seed, plan.tasks),
        *(arrays[0], offsets[0], arrays[1], arrays[2], offsets[1]),
        limit_threads(threads),
    )
    return PackedSamples(arrays[0], arrays[1], arrays[2], offsets[0], offsets[1], plan.tasks)


def apply_spans(
    tokens: ArrayLike,
    lengths: ArrayLike,
    *,
    prefix: int | None = None,
    ids: SpecialIds | None = None,
) -> Sample:
    """Returns the sample of a text whose noise spans are given.

    Source: OpenBA, `t5_dataset.py`.

    Args:
        tokens: `[L]` integers.
        lengths: `[2 K]` integers: of kept and noise spans in turn, kept first; a kept span may
            be empty, a noise span not. What is left of the text is kept.
        prefix: the first id of the encoder; None for no such id.
        ids: the special tokens; None for OpenBA's.

    Raises:
        TypeError: arguments that are not of their types.
        ValueError: lengths of an odd number, out of their range, or longer than the text, or
            more noise spans than ids up to the first sentinel.
        IndexError: a token outside of the vocabulary.

    Example:
        >>> sample = apply_spans([5, 6, 7, 8], [1, 2])
        >>> sample.encoder.tolist(), sample.decoder.tolist(), sample.labels.tolist()
        ([5, 250199, 8, 1], [0, 250199, 6, 7], [250199, 6, 7, 1])
    """
    ids = ids or _IDS
    check_prefix(prefix, ids)
    text = as_integers("tokens", tokens, "[L]")
    parts = as_integers("lengths", lengths, "[2 K]")
    core, _, _ = _prepare(UNUSED, ids)
    return Sample(*core.apply_spans(text, parts, prefix))


def pair_batch(
    sources: Sequence[ArrayLike],
    targets: Sequence[ArrayLike],
    *,
    encoder_width: int,
    decoder_width: int,
    prefix: int | None = 250_201,
    ids: SpecialIds | None = None,
) -> PairBatch:
    """Returns a batch of sources and targets in the form of a suffix that was taken away.

    The encoder gets the prefix, as much of the source as there is room for, the first sentinel
    and the end. The labels are the sentinel and as much of the target as there is room for,
    which has its own end; the decoder gets the start, the sentinel, and the target.

    Source: OpenBA, `t5_dataset.py`, its multi-task samples.

    Args:
        sources: B texts `[L]` of integers.
        targets: B texts `[L]` of integers.
        encoder_width: S, at least 3.
        decoder_width: T, at least 2.
        prefix: the first id of the encoder; None for no such id.
        ids: the special tokens; None for OpenBA's.

    Returns:
        The batch, int64. It says how many tokens found no room.

    Raises:
        TypeError: arguments that are not of their types.
        ValueError: not as many targets as sources, or a setting is out of its range.
        IndexError: a token outside of the vocabulary.

    Example:
        >>> batch = pair_batch([[5, 6]], [[7, 1]], encoder_width=5, decoder_width=4)
        >>> batch.encoder.tolist(), batch.decoder.tolist(), batch.labels.tolist()
        ([[250201, 5, 6, 250199, 1]], [[0, 250199, 7, 1]], [[250199, 7, 1, -100]])
    """
    ids = ids or _IDS
    check_prefix(prefix, ids)
    check_pair_widths(encoder_width, decoder_width)
    same_length(sources=sources, targets=targets)
    core, _, _ = _prepare(UNUSED, ids)
    count = len(sources)
    x, x_offsets = join_texts("sources", sources)
    y, y_offsets = join_texts("targets", targets)
    encoder = _allocate(count, encoder_width)
    decoder, labels = _allocate(count, decoder_width), _allocate(count, decoder_width)
    encoder_lengths, decoder_lengths = np.zeros(count, np.int64), np.zeros(count, np.int64)
    dropped = np.zeros((count, 2), np.int64)
    steps = np.arange(count + 1)
    core.write_pairs(
        *(x, x_offsets, y, y_offsets, prefix),
        *(encoder, steps * encoder_width, decoder, labels, steps * decoder_width),
        *(encoder_lengths, decoder_lengths, dropped),
    )
    return PairBatch(encoder, decoder, labels, encoder_lengths, decoder_lengths, dropped)


_Mixture: TypeAlias = tuple[_core.Denoising, tuple[Denoiser, ...], SpecialIds]
# By the identity of what was checked, which is held here: what is equal (1, 1.0, True) is not
# always as good.
_MIXTURES: dict[tuple[int, int], _Mixture] = {}
_MOST_MIXTURES = 64


def _prepare(denoisers: Sequence[Denoiser] | None, ids: SpecialIds | None) -> _Mixture:
    """Returns the core's mixture of denoisers that were checked, and these."""
    chosen = _UL2 if denoisers is None else tuple(denoisers)
    special = ids or _IDS
    key = id(chosen), id(special)
    known = _MIXTURES.get(key)
    if known is None:
        check_denoisers(chosen, special)
        settings = [
            (
                *(one.kind, float(one.density), float(one.mean_span), one.prefix),
                *(float(one.weight), one.max_length, one.excess),
            )
            for one in chosen
        ]
        numbers = (special.vocabulary_size, special.first_sentinel, special.sentinel_count)
        others = (special.eos, special.bos, special.pad, special.label_padding)
        known = _core.Denoising(settings, (*numbers, *others)), chosen, special
        if len(_MIXTURES) >= _MOST_MIXTURES:
            _MIXTURES.clear()
        _MIXTURES[key] = known
    return known


def _plan(
    core: _core.Denoising,
    lengths: NDArray[np.int64],
    samples: NDArray[np.uint64],
    seed: int,
    given: NDArray[np.int64] | None,
) -> Plan:
    plan = Plan(*(np.zeros(len(samples), np.int64) for _ in range(3)))
    core.plan(lengths, samples, seed, given, *plan)
    return plan


def _find_texts(
    tokens: Any, rows: ArrayLike | None, count: int
) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """Returns an array of tokens, and where the texts of a batch start and end in it."""
    chosen = check_rows(tokens, rows, count)
    if isinstance(tokens, np.ndarray) and tokens.ndim == 2:
        flags, width = tokens.flags, tokens.shape[1]
        if tokens.dtype in _READ and tokens.dtype.isnative and flags.c_contiguous and flags.aligned:
            starts = chosen * width
            return tokens.reshape(-1), starts, starts + width
        if tokens.dtype in _READ:
            gathered = as_native(tokens[chosen])
            starts = np.arange(len(chosen)) * width
            return gathered.reshape(-1), starts, starts + width
    flat, offsets = join_texts("tokens", [tokens[row] for row in chosen.tolist()])
    return flat, offsets[:-1], offsets[1:]


def _widths_of(out: DenoisedBatch, count: int) -> tuple[int, int]:
    """Returns S and T of a batch whose arrays can be written into."""
    kind = _check_dtype(out.encoder.dtype, "out.encoder")
    source, target = (array.shape[-1:] or (0,) for array in (out.encoder, out.decoder))
    _check_array("encoder", out.encoder, (count, *source), kind)
    _check_array("decoder", out.decoder, (count, *target), kind)
    _check_array("labels", out.labels, (count, *target), kind)
    for name in ("encoder_lengths", "decoder_lengths", "tasks"):
        _check_array(name, getattr(out, name), (count,), np.dtype(np.int64))
    return source[0], target[0]


def _take(name: str, array: NDArray[Any], size: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Returns the beginning of an array, or of the one that it is a view of."""
    base = array.base
    whole = base if isinstance(base, np.ndarray) and base.ndim == 1 else array
    if whole.dtype == dtype and whole.ndim == 1 and len(whole) < size:
        raise ValueError(f"out.{name} must be at least {size} long: got {len(whole)}")
    _check_array(name, whole, whole.shape[:1], dtype)
    return whole[:size]


def _check_array(
    name: str, array: NDArray[Any], shape: tuple[int, ...], dtype: np.dtype[Any]
) -> None:
    if array.dtype != dtype:
        raise TypeError(f"out.{name} must be {dtype}: got {array.dtype}")
    flags = array.flags
    if array.shape != shape or not (flags.c_contiguous and flags.writeable and flags.aligned):
        raise ValueError(
            f"out.{name} must be a writeable array of shape {list(shape)} in C order and aligned: "
            f"got {list(array.shape)}"
        )


def _check_dtype(dtype: DTypeLike, name: str = "dtype") -> np.dtype[Any]:
    kind = np.dtype(dtype)
    if kind not in (np.int64, np.int32):
        raise TypeError(f"{name} must be int64 or int32: got {kind}")
    return kind


def _allocate(*shape: int, dtype: DTypeLike = np.int64) -> NDArray[Any]:
    """Returns an array; numpy itself refuses what no address reaches as a wrong value."""
    size = math.prod(shape)
    if size >= 1 << 60:
        raise MemoryError(f"not enough memory for {size} values")
    return np.empty(shape, dtype)
