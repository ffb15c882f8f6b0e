"""The loss of samples, in training, of fixed texts under each denoiser, and of fixed pairs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from lmcore.openba.samples import PAIRS, PairSamples
from lmcore.ops.denoising import DenoisedBatch, Denoiser, SpecialIds, denoise_batch, plan_batch
from lmcore.training.processes import Processes

# Of all draws in validation: runs of any seed are compared on the same noise.
_SEED = 0


def make_inputs(
    batch: DenoisedBatch, device: torch.device | None = None
) -> tuple[dict[str, Tensor], Tensor]:
    """Returns what a model of transformers gets of a batch, and the labels `[B, T]` int64.

    Args:
        batch: its rows; those of a decoder have nothing for an encoder.
        device: of the model; the CPU if None.

    Example:
        >>> ids, length = np.array([[3, 1]]), np.array([2])
        >>> inputs, labels = make_inputs(DenoisedBatch(ids, ids, ids, length, length, length))
        >>> [*inputs], labels.tolist()
        (['input_ids', 'decoder_input_ids'], [[3, 1]])
    """
    source, target, labels = (
        torch.from_numpy(part).to(device) for part in (batch.encoder, batch.decoder, batch.labels)
    )
    if not source.shape[1]:
        return {"input_ids": target}, labels
    inputs = {"input_ids": source, "decoder_input_ids": target}
    if int(batch.encoder_lengths.min()) < source.shape[1]:
        inputs["attention_mask"] = torch.from_numpy(batch.masks()[0]).to(device)
    return inputs, labels


def sum_losses(model: Any, batch: DenoisedBatch, device: torch.device | None = None) -> Tensor:
    """Returns the cross entropy of each row, added up over its labels: `[B]` float32.

    The decoder gets no mask: padding stands on the right, where no label sees it.

    Args:
        model: OpenBA, or another encoder-decoder of transformers; a decoder where rows have nothing
            for an encoder.
        batch: its rows, in int64.
        device: of the model; the CPU if None.

    Example:
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
        >>> sizes = {"vocab_size": 9, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes))
        >>> ids, length = np.array([[3, 1]]), np.array([2])
        >>> sum_losses(model, DenoisedBatch(ids, ids, ids, length, length, length)).shape
        torch.Size([1])
    """
    inputs, labels = make_inputs(batch, device)
    logits = model(**inputs, use_cache=False).logits
    losses = functional.cross_entropy(
        logits.flatten(0, 1).float(), labels.flatten(), reduction="none"
    )
    return losses.view(labels.shape).sum(1)


def measure_losses(
    model: Any,
    texts: NDArray[np.integer[Any]],
    *,
    denoisers: Sequence[Denoiser],
    ids: SpecialIds,
    batch_size: int = 16,
    processes: Processes | None = None,
    in_step: bool = False,
    compute: Callable[[DenoisedBatch], Tensor] | None = None,
) -> dict[str, float]:
    """Returns the mean loss of a label under each denoiser, and the mean of these as `loss`.

    Every text comes under every denoiser, with noise that depends on its place alone. All
    processes call it, share the work, and get the same.

    Args:
        model: in the mode of evaluation, on the device of this process.
        texts: `[N, L]` integers.
        denoisers: what to measure under.
        ids: the special tokens.
        batch_size: rows that are computed at once.
        processes: those that share the work; this one alone if None.
        in_step: whether the weights are sharded, so that all processes must compute as often.
        compute: gives the losses `[B]` of some rows; None: `sum_losses` of the model.

    Raises:
        IndexError: a token outside of the vocabulary.
        ValueError: `batch_size` is below 1, there is no text, or it is too short.

    Example:
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
        >>> from lmcore.ops.denoising import ul2
        >>> sizes = {"vocab_size": 120, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes)).eval()
        >>> special = SpecialIds(vocabulary_size=120, first_sentinel=119)
        >>> one = ul2(None, None, None)[2:3]
        >>> found = measure_losses(model, np.full((2, 16), 5), denoisers=one, ids=special)
        >>> list(found)
        ['loss', 'loss_S']
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: got {batch_size}")
    if not len(texts):
        raise ValueError("texts must not be empty")
    rows = np.arange(len(texts))
    units: list[Unit] = []
    for task in range(len(denoisers)):
        plan = plan_batch(
            np.full(len(rows), texts.shape[1]),
            rows,
            seed=_SEED,
            denoisers=denoisers,
            ids=ids,
            tasks=np.full(len(rows), task),
        )
        # Rows of about one length stand together.
        order = np.lexsort((rows, plan.decoder_lengths))
        units += [(task, order[at : at + batch_size]) for at in range(0, len(order), batch_size)]

    def make(task: int, part: NDArray[np.int64]) -> DenoisedBatch:
        return denoise_batch(
            texts, part, seed=_SEED, denoisers=denoisers, ids=ids, rows=part,
            tasks=np.full(len(part), task),
        )  # fmt: skip

    means = measure_means(
        model, units, make, len(denoisers), processes, in_step=in_step, compute=compute
    )
    found = {"loss": sum(means) / len(means)}
    return found | {f"loss_{one.name}": mean for one, mean in zip(denoisers, means, strict=True)}


def measure_pair_losses(
    model: Any,
    pairs: PairSamples,
    *,
    count: int | None = None,
    batch_size: int = 16,
    processes: Processes | None = None,
    in_step: bool = False,
) -> dict[str, float]:
    """Returns the mean loss of a label of pairs, as `loss` and as `loss_pairs`.

    All processes call it, share the work, and get the same.

    Args:
        model: in the mode of evaluation, on the device of this process.
        pairs: samples of which the pairs are taken in their own order.
        count: of the pairs the first so many; None for all.
        batch_size: rows that are computed at once.
        processes: those that share the work; this one alone if None.
        in_step: whether the weights are sharded, so that all processes must compute as often.

    Raises:
        IndexError: a token outside of the vocabulary.
        ValueError: `batch_size` or `count` is below 1.

    Example:
        >>> from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
        >>> from lmcore.openba.pairs import Pairs
        >>> sizes = {"vocab_size": 120, "hidden_size": 8, "encoder_layers": 1, "decoder_layers": 2}
        >>> model = OpenBAForConditionalGeneration(OpenBAConfig(**sizes)).eval()
        >>> special = SpecialIds(vocabulary_size=120, first_sentinel=119)
        >>> pairs = Pairs([[5, 6]], [[7, 1]])
        >>> samples = PairSamples(pairs, seed=0, widths=(8, 8), ids=special, prefix=None)
        >>> list(measure_pair_losses(model, samples))
        ['loss', 'loss_pairs']
    """
    for name, value in (("batch_size", batch_size), ("count", 1 if count is None else count)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1: got {value}")
    plan = pairs.plan_rows(np.arange(len(pairs) if count is None else min(count, len(pairs))))
    order = np.lexsort((plan.encoder_lengths, plan.decoder_lengths))
    units = [(0, order[at : at + batch_size]) for at in range(0, len(order), batch_size)]

    def make(_: int, part: NDArray[np.int64]) -> DenoisedBatch:
        return pairs.make_rows(part, pairs.plan_rows(part))

    [mean] = measure_means(model, units, make, 1, processes, in_step=in_step)
    return {"loss": mean, f"loss_{PAIRS}": mean}


Unit: TypeAlias = tuple[int, NDArray[np.int64]]
"""Which mean some rows count for, and which rows they are."""


def measure_means(
    model: Any,
    units: Sequence[Unit],
    make: Callable[[int, NDArray[np.int64]], DenoisedBatch],
    count: int,
    processes: Processes | None,
    *,
    in_step: bool,
    compute: Callable[[DenoisedBatch], Tensor] | None = None,
) -> list[float]:
    """Returns the mean loss of a label for each of some kinds of rows.

    All processes call it, share the work, and get the same.

    Args:
        model: in the mode of evaluation, on the device of this process.
        units: which mean some rows count for, and which rows they are.
        make: gives the batch of a unit.
        count: of means.
        processes: those that share the work; this one alone if None.
        in_step: whether the weights are sharded, so that all processes must compute as often.
        compute: gives the losses `[B]` of some rows; None: `sum_losses` of the model.

    Example:
        >>> ids, length = np.array([[3, 1]]), np.array([2])
        >>> batch = DenoisedBatch(ids, ids, ids, length, length, length)
        >>> units = [(0, np.array([0]))]
        >>> ones = lambda batch: torch.ones(1)
        >>> measure_means(None, units, lambda *_: batch, 1, None, in_step=False, compute=ones)
        [0.5]
    """
    processes = processes or Processes()
    sums = torch.zeros(count, 2, dtype=torch.float64, device=processes.device)
    for index, counts in share_parts(len(units), processes, in_step=in_step):
        kind, part = units[index]
        batch = make(kind, part)
        with torch.no_grad():
            own = sum_losses(model, batch, processes.device) if compute is None else compute(batch)
        if counts:
            sums[kind, 0] += own.double().sum()
            sums[kind, 1] += int(batch.decoder_lengths.sum())
    return [total / labels for total, labels in processes.sum(sums).tolist()]


def share_parts(
    count: int, processes: Processes, *, in_step: bool = False
) -> list[tuple[int, bool]]:
    """Returns which parts of some work this process computes, and whether each of them counts.

    They are dealt out in turn, so that parts that are sorted by size cost all processes the same.

    Args:
        count: number of parts.
        processes: those that share the work.
        in_step: whether all processes must compute as often: what a process has too few of are
            then parts that do not count.

    Example:
        >>> share_parts(3, Processes())
        [(0, True), (1, True), (2, True)]
    """
    own = [(part, True) for part in range(processes.data_rank, count, processes.data_count)]
    most = -(-count // processes.data_count)
    return own + [(0, False)] * (most - len(own)) if in_step else own
