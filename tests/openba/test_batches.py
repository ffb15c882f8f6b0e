"""Batches of denoised texts: what a step holds, and how much of it is padding."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from lmcore.openba import DenoisedBatches
from lmcore.ops.denoising import DenoisedBatch, denoise_batch, ul2
from lmcore.training.batches import share_rows
from lmcore.training.processes import Processes

TOKENS = np.random.default_rng(0).integers(3, 60_000, (300, 568)).astype(np.uint16)


def rows_of(batches: list[DenoisedBatch]) -> list[tuple[Any, ...]]:
    """All samples without their padding, sorted."""
    found = []
    for batch in batches:
        for row, (source, target) in enumerate(
            zip(batch.encoder_lengths.tolist(), batch.decoder_lengths.tolist(), strict=True)
        ):
            assert (batch.encoder[row, source:] == 0).all()
            assert (batch.decoder[row, target:] == 0).all()
            assert (batch.labels[row, target:] == -100).all()
            ids = (batch.encoder[row, :source], batch.labels[row, :target])
            found.append((int(batch.tasks[row]), *(tuple(part.tolist()) for part in ids)))
    return sorted(found)


def share_of_padding(batch: DenoisedBatch) -> float:
    used = batch.encoder_lengths.sum() + batch.decoder_lengths.sum()
    return float(1 - used / (batch.encoder.size + batch.decoder.size))


def test_grouped_steps_hold_what_others_hold() -> None:
    grouped = DenoisedBatches(TOKENS, 100, 16, seed=3)
    in_order = DenoisedBatches(TOKENS, 100, 7, seed=3, grouped=False)
    for step in (1, 2, 9):
        batches = grouped(step)
        assert [len(batch.tasks) for batch in batches] == [16] * 6 + [4]
        assert rows_of(batches) == rows_of(in_order(step))
        for batch in batches:
            assert batch.encoder.shape[1] == batch.encoder_lengths.max()
            assert batch.decoder.shape[1] == batch.decoder_lengths.max()
    assert rows_of(grouped(1)) != rows_of(grouped(2))
    assert rows_of(grouped(1)) != rows_of(DenoisedBatches(TOKENS, 100, 16, seed=4)(1))


def test_padding() -> None:
    """All rows at 570 and 381, as the authors have them, against what grouping leaves."""
    indices = np.arange(2_100)
    rows = indices % len(TOKENS)
    wide = denoise_batch(
        TOKENS, indices, rows=rows, seed=1, tasks=indices % 7, encoder_width=570, decoder_width=381
    )
    assert share_of_padding(wide) == pytest.approx(0.347, abs=0.002)
    grouped = DenoisedBatches(TOKENS, 256, 16, seed=1)
    assert grouped.measure_padding(range(1, 11)) < 0.05
    larger = DenoisedBatches(TOKENS, 4_096, 16, seed=1)
    assert larger.measure_padding([1]) < 0.01
    in_order = DenoisedBatches(TOKENS, 256, 16, seed=1, grouped=False)
    assert in_order.measure_padding(range(1, 11)) > 0.25


def test_rows_of_given_widths() -> None:
    wide = DenoisedBatches(TOKENS, 20, 8, seed=3, grouped=False, widths=(570, 381))
    assert rows_of(wide(2)) == rows_of(DenoisedBatches(TOKENS, 20, 8, seed=3)(2))
    assert {(b.encoder.shape[1], b.labels.shape[1]) for b in wide(2)} == {(570, 381)}
    narrow = DenoisedBatches(TOKENS, 20, 8, seed=3, widths=(400, 381))
    with pytest.raises(ValueError, match=r"encoder\[0\] must be at least 567 ids wide: got 400"):
        narrow(2)


def test_every_text_comes_once_in_a_pass() -> None:
    batches = DenoisedBatches(TOKENS, 90, 16, seed=5)
    assert batches.steps_per_epoch == 4
    found = [batches.find(step) for step in range(1, 11)]
    indices = np.concatenate([part for part, _ in found])
    texts = np.concatenate([part for _, part in found])
    assert indices.tolist() == list(range(900))
    orders = texts.reshape(3, 300)
    assert (np.sort(orders) == np.arange(300)).all()
    assert len({tuple(order) for order in orders.tolist()}) == 3


@pytest.mark.parametrize("count", [1, 2, 3])
def test_processes_share_a_step(count: int) -> None:
    batches = DenoisedBatches(TOKENS, 50, 8, seed=5)
    shares = [
        share_rows(50, Processes(rank=rank, data_rank=rank, count=count)) for rank in range(count)
    ]
    together = [batch for rows in shares for batch in batches(3, rows)]
    assert rows_of(together) == rows_of(batches(3))


def test_texts_of_any_kind_are_read() -> None:
    expected = rows_of(DenoisedBatches(TOKENS, 40, 8, seed=2)(7))
    kinds: list[Any] = [
        TOKENS.astype(np.int64),
        TOKENS.astype(">i4"),
        np.asfortranarray(TOKENS),
        list(TOKENS),
    ]
    for tokens in kinds:
        assert rows_of(DenoisedBatches(tokens, 40, 8, seed=2)(7)) == expected


def test_texts_of_different_lengths() -> None:
    texts: list[NDArray[Any]] = [row[: 20 + 5 * index] for index, row in enumerate(TOKENS[:60])]
    batches = DenoisedBatches(texts, 60, 8, seed=2, denoisers=ul2()[2:3])
    assert sum(len(batch.tasks) for batch in batches(1)) == 60
    assert batches.measure_padding([1, 2]) < 0.5


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"tokens": TOKENS[:0]}, "tokens must not be empty"),
        ({"batch_size": 0}, "batch_size must be at least 1: got 0"),
        ({"micro_batch_size": -1}, "micro_batch_size must be at least 1: got -1"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], text: str) -> None:
    given = {"tokens": TOKENS, "batch_size": 4, "micro_batch_size": 2, "seed": 0} | change
    with pytest.raises(ValueError, match=f"^{text}$"):
        DenoisedBatches(**given)


def test_wrong_steps_are_named() -> None:
    batches = DenoisedBatches(TOKENS, 4, 2, seed=0)
    with pytest.raises(ValueError, match=r"^step must be at least 1: got 0$"):
        batches(0)
    with pytest.raises(ValueError, match=r"^steps must not be empty$"):
        batches.measure_padding([])
