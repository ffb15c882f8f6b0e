"""A training step of SASRec by each loss, at equal negatives, against that by binary cross-entropy.

All runs have the same weights and the same batch, of the shape of Beauty; full cross-entropy has
all items instead of 256 negatives.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from inputs import interactions
from lmcore.recsys import (
    SequenceRun,
    cross_entropy,
    gbce,
    leave_one_out,
    make_interactions,
    plain,
    sampled_softmax,
    sampled_softmax_loss,
    ufn_loss,
)
from lmcore.recsys.data import Split
from lmcore.recsys.recipes import TrainConfig
from lmcore.training.config import change
from lmcore.training.seeding import seed_torch
from timing import compare, measure_peak, print_conditions, save

CONCEPT = "recsys_losses"
USERS, ITEMS, SHORTEST, MEAN = 22_363, 12_101, 3, 6.9
NEGATIVES, HIDDEN = 256, 64
OPPONENT = "binary cross-entropy"
CONTENDERS: dict[str, tuple[Callable[[], TrainConfig], dict[str, object], str]] = {
    "sampled softmax": (sampled_softmax, {}, ">= 1"),
    "sampled softmax, popularity": (sampled_softmax, {"distribution": "popularity"}, ""),
    "gBCE": (gbce, {}, ""),
    "full cross-entropy": (cross_entropy, {}, ""),
}


def main() -> None:
    """Asserts, times, and keeps the rows where `--save` is given."""
    print_conditions()
    torch.set_num_threads(1)
    assert_equal_losses()
    offsets, items = interactions(USERS, ITEMS, SHORTEST, MEAN)
    data = leave_one_out(make_interactions(offsets, items, ITEMS))
    opponent = make_step(plain, {}, data)
    steps = {name: make_step(*made[:2], data) for name, made in CONTENDERS.items()}
    case = f"step, {ITEMS} items, 128 x 50, {NEGATIVES} negatives"
    for call in (opponent, *steps.values()):
        call()
    ours = [(name, steps[name], goal) for name, (*_, goal) in CONTENDERS.items()]
    rows = compare(CONCEPT, case, (OPPONENT, opponent), *ours, rounds=15, repeats=1)
    peaks = {name: measure_alone(call) for name, call in {OPPONENT: opponent, **steps}.items()}
    print(f"MB that a step takes at most: {peaks}")
    rows = [replace(row, opponent_peak=peaks[OPPONENT], ours_peak=peaks[row.ours]) for row in rows]
    if "--save" in sys.argv[1:]:
        save(CONCEPT, rows)


def measure_alone(call: Callable[[], object]) -> int:
    """Returns the MB of a call, once what earlier ones freed is given back."""
    ctypes.CDLL(None).malloc_trim(0)
    return measure_peak(call)


def make_step(
    recipe: Callable[[], TrainConfig], changes: dict[str, object], data: Split
) -> Callable[[], object]:
    """Returns a step on the first batch, which may be taken again and again."""
    sizes = {"negatives": NEGATIVES, "hidden_size": HIDDEN, "device.device": "cpu"}
    run = SequenceRun(change(recipe(), {**sizes, **changes}), data)

    def step() -> Tensor:
        seed_torch(0, 1)
        return run.step(1)["loss"]

    return step


def assert_equal_losses() -> None:
    """Each loss and its gradient are those of torch's functions."""
    generator = torch.Generator().manual_seed(0)
    given = torch.randn(500, 1 + NEGATIVES, generator=generator)
    labels = torch.zeros_like(given)
    labels[:, 0] = 1
    firsts, shift = torch.zeros(500, dtype=torch.int64), torch.full((500, 1), -2.0)
    corrected = functional.pad(shift.expand(-1, NEGATIVES), (1, 0))
    weights = torch.ones_like(given).index_fill(1, torch.tensor([0]), 0.3)
    pairs: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = [
        (
            lambda z: ufn_loss(z).total,
            lambda z: 2 * functional.binary_cross_entropy_with_logits(z, labels),
        ),
        (
            lambda z: ufn_loss(z, beta=0.3).total,
            lambda z: 2 * functional.binary_cross_entropy_with_logits(z, labels, weights),
        ),
        (
            lambda z: sampled_softmax_loss(z, log_q=shift),
            lambda z: functional.cross_entropy(z - corrected, firsts),
        ),
    ]
    for ours, theirs in pairs:
        results = []
        for loss in (ours, theirs):
            logits = given.clone().requires_grad_()
            value = loss(logits)
            results.append((value.detach(), *torch.autograd.grad(value, logits)))
        for made, expected in zip(*results, strict=True):
            torch.testing.assert_close(made, expected, atol=1e-6, rtol=1e-4)


if __name__ == "__main__":
    main()
