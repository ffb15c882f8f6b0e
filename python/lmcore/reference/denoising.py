"""UL2's denoisers: text in, encoder ids, decoder ids and labels out.

Source: OpenBA (arXiv 2309.10706), its table 3, and OpenBA-V2 (arXiv 2405.05957), O-UL2, with the
code of both; their draws are made here by Philox4x32-10, so that a sample depends on
(seed, index) alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.reference._arguments import as_integers, same_length
from lmcore.reference._denoisers import (
    MIX_SPANS,
    MIX_SUFFIX,
    DenoisedBatch,
    Denoiser,
    PackedSamples,
    PairBatch,
    Plan,
    Sample,
    SpecialIds,
    check_denoisers,
    check_ids,
    check_indices,
    check_lengths,
    check_pair_widths,
    check_prefix,
    check_rows,
    check_widths,
    too_many,
    too_short,
    ul2,
    widths,
)
from lmcore.reference.philox import Stream, below, random_uniform, words_by_group


def draw_task(seed: int, index: int, weights: Sequence[float]) -> int:
    """Returns which denoiser a sample gets, in proportion to the weights.

    Example:
        >>> [draw_task(1, index, [0.0, 1.0, 0.0]) for index in range(3)]
        [1, 1, 1]
    """
    sums = list(accumulate(map(float, weights)))
    number = random_uniform(seed, Stream.DENOISERS, index, 0) * sums[-1]
    return next(task for task, most in enumerate(sums) if number < most)


def draw_lengths(
    denoiser: Denoiser, length: int, ids: SpecialIds, seed: int, index: int, row: int = 0
) -> list[int]:
    """Returns the lengths of kept and noise spans in turn: kept first, noise last.

    Args:
        denoiser: what is drawn.
        length: L, of the text, at least 2.
        ids: says how many sentinels there are.
        seed: below 2**64.
        index: of the sample.
        row: of the batch, for errors.

    Raises:
        ValueError: the text is too short, or there are too few sentinels.

    Example:
        >>> lengths = draw_lengths(ul2()[3], 568, SpecialIds(), seed=1, index=0)
        >>> len(lengths), sum(lengths[::2]), sum(lengths[1::2])
        (190, 284, 284)
    """
    if length < 2:
        raise too_short(row, length)
    if denoiser.max_length is not None:
        length = min(length, denoiser.max_length)
    words = words_by_group(seed, Stream.NOISE_SPANS, index)
    noise = min(max(round(length * denoiser.density), 1), length - 1)
    if denoiser.kind == "suffix":
        noise = 1 + below(words, noise)
    if denoiser.kind in ("suffix", "fixed_suffix"):
        return [length - noise, noise]
    kept = length - noise
    if denoiser.kind == "spans":
        count = min(max(round(noise / denoiser.mean_span), 1), noise, kept)
        spans = _compose(words, noise, _limit(count, denoiser, ids, row))
    else:
        spans = _draw_mix(words, noise, kept, denoiser, ids, row)
    parts = _compose(words, kept, len(spans))
    return [part for pair in zip(parts, spans, strict=True) for part in pair]


def apply_spans(
    tokens: ArrayLike,
    lengths: ArrayLike,
    *,
    prefix: int | None = None,
    ids: SpecialIds | None = None,
) -> Sample:
    """The definition of `lmcore.ops.denoising.apply_spans`, with the same arguments.

    Source: OpenBA, `t5_dataset.py`.

    Example:
        >>> sample = apply_spans([5, 6, 7, 8], [1, 2])
        >>> sample.encoder.tolist(), sample.decoder.tolist(), sample.labels.tolist()
        ([5, 250199, 8, 1], [0, 250199, 6, 7], [250199, 6, 7, 1])
    """
    ids = ids or SpecialIds()
    check_prefix(prefix, ids)
    text = as_integers("tokens", tokens, "[L]").tolist()
    parts = as_integers("lengths", lengths, "[2 K]").tolist()
    if len(parts) % 2:
        raise ValueError(f"lengths must be an even number of values: got {len(parts)}")
    for index, part in enumerate(parts):
        if part < index % 2:
            raise ValueError(f"lengths[{index}] must be at least {index % 2}: got {part}")
    if sum(parts) > len(text):
        raise ValueError(f"lengths must be at most {len(text)} in sum: got {sum(parts)}")
    if len(parts) // 2 > ids.first_sentinel + 1:
        raise too_many(0, ids.first_sentinel + 1, len(parts) // 2)
    check_ids("tokens", 0, text, ids)
    return _assemble(text, parts, prefix, ids)


def apply_mask(
    tokens: ArrayLike,
    mask: ArrayLike,
    *,
    prefix: int | None = None,
    ids: SpecialIds | None = None,
) -> Sample:
    """Returns the sample of a text whose masked tokens are noise.

    Source: OpenBA, `t5_dataset.py`.

    Args:
        tokens: `[L]` integers.
        mask: `[L]` bool: true at noise.
        prefix: the first id of the encoder; None for no such id.
        ids: the special tokens.

    Example:
        >>> apply_mask([5, 6, 7, 8], [False, True, True, False]).labels.tolist()
        [250199, 6, 7, 1]
    """
    runs = [(noise, len(list(run))) for noise, run in groupby(np.asarray(mask, bool).tolist())]
    if runs and runs[0][0]:
        runs.insert(0, (False, 0))
    lengths = [length for _, length in runs]
    return apply_spans(tokens, lengths[: len(lengths) // 2 * 2], prefix=prefix, ids=ids)


def reconstruct(
    encoder: ArrayLike,
    labels: ArrayLike,
    *,
    prefix: int | None = None,
    ids: SpecialIds | None = None,
) -> list[int]:
    """Returns the text of a sample: the law that nothing is lost.

    The text must hold no sentinel of its own.

    Args:
        encoder: `[S]`, without padding.
        labels: `[T]`, without padding.
        prefix: the first id of the encoder; None for no such id.
        ids: the special tokens.

    Raises:
        ValueError: these are not the encoder's ids and the labels of a sample.

    Example:
        >>> reconstruct([5, 250199, 8, 1], [250199, 6, 7, 1])
        [5, 6, 7, 8]
    """
    ids = ids or SpecialIds()
    *source, end = np.asarray(encoder).tolist()
    *target, last = np.asarray(labels).tolist()
    if (end, last) != (ids.eos, ids.eos):
        raise ValueError(f"encoder and labels must end with {ids.eos}: got {end} and {last}")
    if prefix is not None and source.pop(0) != prefix:
        raise ValueError(f"encoder must begin with {prefix}")
    spans: list[list[int]] = []
    for token in target:
        if token == ids.first_sentinel - len(spans):
            spans.append([])
        elif spans:
            spans[-1].append(token)
        else:
            raise ValueError(f"labels must begin with {ids.first_sentinel}: got {token}")
    text: list[int] = []
    used = 0
    for token in source:
        if used < len(spans) and token == ids.first_sentinel - used:
            text += spans[used]
            used += 1
        else:
            text.append(token)
    if used < len(spans):
        raise ValueError(f"encoder must hold {len(spans)} sentinels: got {used}")
    return text


def plan_batch(
    lengths: ArrayLike,
    indices: ArrayLike,
    *,
    seed: int,
    denoisers: Sequence[Denoiser] | None = None,
    ids: SpecialIds | None = None,
    tasks: ArrayLike | None = None,
) -> Plan:
    """The definition of `lmcore.ops.denoising.plan_batch`, with the same arguments.

    Example:
        >>> plan_batch([568], [0], seed=0, tasks=[3]).encoder_lengths.tolist()
        [381]
    """
    denoisers, ids = ul2() if denoisers is None else tuple(denoisers), ids or SpecialIds()
    check_denoisers(denoisers, ids)
    samples, given = check_indices(indices, seed, tasks, len(denoisers))
    sizes = check_lengths(lengths, samples)
    weights = [denoiser.weight for denoiser in denoisers]
    plan = np.zeros((3, len(samples)), np.int64)
    for row, (index, size) in enumerate(zip(samples.tolist(), sizes.tolist(), strict=True)):
        task = draw_task(seed, index, weights) if given is None else int(given[row])
        parts = draw_lengths(denoisers[task], size, ids, seed, index, row)
        start = denoisers[task].prefix is not None
        sentinels = len(parts) // 2
        plan[0, row] = task
        plan[1, row] = start + sum(parts[::2]) + sentinels + 1
        plan[2, row] = sum(parts[1::2]) + sentinels + 1
    return Plan(*plan)


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
) -> DenoisedBatch:
    """The definition of `lmcore.ops.denoising.denoise_batch`, with the same arguments.

    Example:
        >>> batch = denoise_batch([[5, 6, 7, 8]], [0], seed=0, tasks=[2])
        >>> batch.encoder.tolist(), batch.labels.tolist()
        ([[250201, 5, 6, 7, 250199, 1]], [[250199, 8, 1]])
    """
    ids = ids or SpecialIds()
    given = check_widths(encoder_width, decoder_width)
    plan, samples = _denoise(tokens, indices, seed, denoisers, ids, rows, tasks, given)
    source, target = widths(plan, *given)
    encoders, decoders, labels = _columns(samples)
    return DenoisedBatch(
        _pad(encoders, source, ids.pad),
        _pad(decoders, target, ids.pad),
        _pad(labels, target, ids.label_padding),
        plan.encoder_lengths,
        plan.decoder_lengths,
        plan.tasks,
    )


def denoise_packed(
    tokens: Any,
    indices: ArrayLike,
    *,
    seed: int,
    denoisers: Sequence[Denoiser] | None = None,
    ids: SpecialIds | None = None,
    rows: ArrayLike | None = None,
    tasks: ArrayLike | None = None,
) -> PackedSamples:
    """The definition of `lmcore.ops.denoising.denoise_packed`, with the same arguments.

    Example:
        >>> denoise_packed([[5, 6, 7, 8]], [0], seed=0, tasks=[2]).encoder_offsets.tolist()
        [0, 6]
    """
    plan, samples = _denoise(tokens, indices, seed, denoisers, ids or SpecialIds(), rows, tasks)
    ends = [np.concatenate([[0], np.cumsum(lengths)]) for lengths in plan[1:]]
    parts = [np.concatenate([np.zeros(0, np.int64), *column]) for column in _columns(samples)]
    return PackedSamples(parts[0], parts[1], parts[2], ends[0], ends[1], plan.tasks)


def pair_batch(
    sources: Sequence[ArrayLike],
    targets: Sequence[ArrayLike],
    *,
    encoder_width: int,
    decoder_width: int,
    prefix: int | None = 250_201,
    ids: SpecialIds | None = None,
) -> PairBatch:
    """The definition of `lmcore.ops.denoising.pair_batch`, with the same arguments.

    Source: OpenBA, `t5_dataset.py`, its multi-task samples.

    Example:
        >>> batch = pair_batch([[5, 6]], [[7, 1]], encoder_width=5, decoder_width=4)
        >>> batch.encoder.tolist(), batch.decoder.tolist(), batch.labels.tolist()
        ([[250201, 5, 6, 250199, 1]], [[0, 250199, 7, 1]], [[250199, 7, 1, -100]])
    """
    ids = ids or SpecialIds()
    check_prefix(prefix, ids)
    check_pair_widths(encoder_width, decoder_width)
    same_length(sources=sources, targets=targets)
    start = [] if prefix is None else [prefix]
    room = encoder_width - len(start) - 2
    made: list[list[list[int]]] = []
    dropped = []
    for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
        x = as_integers("sources", source, "[L]").tolist()
        y = as_integers("targets", target, "[L]").tolist()
        check_ids("sources", row, x, ids)
        check_ids("targets", row, y, ids)
        sentinel = ids.first_sentinel
        encoder = [*start, *x[:room], sentinel, ids.eos]
        decoder = [ids.bos, sentinel, *y[: decoder_width - 2]]
        labels = [sentinel, *y[: decoder_width - 1]]
        made.append([encoder, decoder, labels])
        dropped.append([max(len(x) - room, 0), max(len(y) - decoder_width + 1, 0)])
    encoders, decoders, labelled = ([row[part] for row in made] for part in range(3))
    return PairBatch(
        _pad(encoders, encoder_width, ids.pad),
        _pad(decoders, decoder_width, ids.pad),
        _pad(labelled, decoder_width, ids.label_padding),
        np.array([len(row) for row in encoders], np.int64),
        np.array([len(row) for row in decoders], np.int64),
        np.array(dropped, np.int64).reshape(-1, 2),
    )


def _denoise(
    tokens: Any,
    indices: ArrayLike,
    seed: int,
    denoisers: Sequence[Denoiser] | None,
    ids: SpecialIds,
    rows: ArrayLike | None,
    tasks: ArrayLike | None,
    given: tuple[int | None, int | None] = (None, None),
) -> tuple[Plan, list[Sample]]:
    """Returns what is planned, and the samples."""
    denoisers = ul2() if denoisers is None else tuple(denoisers)
    check_denoisers(denoisers, ids)
    samples, _ = check_indices(indices, seed, tasks, len(denoisers))
    chosen = check_rows(tokens, rows, len(samples)).tolist()
    texts = [as_integers("tokens", tokens[row], "[L]") for row in chosen]
    sizes = [len(text) for text in texts]
    plan = plan_batch(sizes, samples, seed=seed, denoisers=denoisers, ids=ids, tasks=tasks)
    widths(plan, *given)
    made = []
    for row, (text, task) in enumerate(zip(texts, plan.tasks.tolist(), strict=True)):
        denoiser = denoisers[task]
        parts = draw_lengths(denoiser, len(text), ids, seed, int(samples[row]), row)
        kept = text.tolist()[: sum(parts)]
        check_ids("tokens", row, kept, ids)
        made.append(_assemble(kept, parts, denoiser.prefix, ids))
    return plan, made


def _assemble(text: list[int], parts: list[int], prefix: int | None, ids: SpecialIds) -> Sample:
    """Returns the ids of a text whose kept and noise spans take turns; what is left is kept."""
    encoder, labels = [] if prefix is None else [prefix], []
    ends = list(accumulate(parts))
    starts = [0, *ends]
    for span in range(len(parts) // 2):
        kept, noise = starts[2 * span], ends[2 * span]
        sentinel = ids.first_sentinel - span
        encoder += [*text[kept:noise], sentinel]
        labels += [sentinel, *text[noise : ends[2 * span + 1]]]
    encoder += [*text[starts[-1] :], ids.eos]
    labels.append(ids.eos)
    rows = (encoder, [ids.bos, *labels[:-1]], labels)
    return Sample(*(np.array(row, np.int64) for row in rows))


def _compose(words: Iterator[int], total: int, count: int) -> list[int]:
    """Returns `count` positive parts of a number, all compositions of it alike.

    Of the total - 1 places between its units, count - 1 are chosen by Floyd's algorithm.
    """
    chosen: set[int] = set()
    for place in range(total - count, total - 1):
        drawn = below(words, place + 1)
        chosen.add(place if drawn in chosen else drawn)
    ends = [*(place + 1 for place in sorted(chosen)), total]
    return [end - start for start, end in zip([0, *ends], ends, strict=False)]


def _draw_mix(
    words: Iterator[int], noise: int, kept: int, denoiser: Denoiser, ids: SpecialIds, row: int
) -> list[int]:
    """Returns the noise spans of O-UL2's mix, of which the last is the suffix.

    Source: OpenBA-V2, O-UL2, with the suffix that its paper describes: what the spans leave.
    """
    least, most = (round(noise * share) for share in MIX_SUFFIX)
    rest = noise - least - below(words, most - least + 1)
    left = noise - 1
    sizes, counts = [], []
    for mean, share in MIX_SPANS:
        size = min(round(rest * share), left)
        left -= size
        sizes.append(size)
        counts.append(min(max(round(size / mean), 1), size))
    # The suffix takes a sentinel and a kept span as well.
    limit = min(kept, ids.sentinel_count if denoiser.excess == "cap" else kept) - 1
    for least_count in (1, 0):
        for kind in range(len(counts)):
            excess = max(sum(counts) - limit, 0)
            counts[kind] -= min(excess, max(counts[kind] - least_count, 0))
    spans = []
    for size, count in zip(sizes, counts, strict=True):
        if count:
            spans += _compose(words, size, count)
    _limit(len(spans) + 1, denoiser, ids, row)
    for last in range(len(spans) - 1, 0, -1):
        other = below(words, last + 1)
        spans[last], spans[other] = spans[other], spans[last]
    return [*spans, noise - sum(spans)]


def _limit(count: int, denoiser: Denoiser, ids: SpecialIds, row: int) -> int:
    """Returns how many noise spans there are, or raises ValueError without enough sentinels."""
    if denoiser.excess == "cap":
        return min(count, ids.sentinel_count)
    most = ids.sentinel_count if denoiser.excess == "refuse" else ids.first_sentinel + 1
    if count > most:
        raise too_many(row, most, count)
    return count


def _pad(rows: Sequence[Any], width: int, padding: int) -> NDArray[np.int64]:
    """Returns rows in an array that is filled up with padding."""
    padded = np.full((len(rows), width), padding, np.int64)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return padded


def _columns(samples: list[Sample]) -> list[list[NDArray[Any]]]:
    return [[sample[part] for sample in samples] for part in range(3)]
