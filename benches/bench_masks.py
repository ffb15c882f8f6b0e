"""A training step with gates on a CPU, against the plain step.

A small OpenBA, all its layers, heads, inner units and channels gated; one thread. The plain step
trains the weights on the same micro-batches with the same loss and optimizer. Gates are drawn anew
for each step, and the step has the penalty and the updates of gates and multipliers in it. Once
the weights are trained with the gates, as the plain step does, and once gates alone are trained,
which leaves out the weights' gradients and their update.
"""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from lmcore.compression.calibration import CalibrationRow
from lmcore.compression.mask_run import MaskRun, Texts
from lmcore.compression.probes import sum_losses
from lmcore.compression.recipes import tiny_masks
from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
from lmcore.training.config import change
from lmcore.training.optimizer import Optimizer
from timing import Row, compare, print_conditions, save

ROWS, SOURCE, TARGET, VOCABULARY = 64, 128, 128, 4096
BATCH, MICRO = 16, 8
ROUNDS = 9
GOAL = "at least 0.91: a tenth more time"


def save_model(folder: Path) -> Path:
    """Writes a small OpenBA: hidden 256, two and four layers, 8 heads of 32, 688 inner units."""
    torch.manual_seed(0)
    config = OpenBAConfig(
        vocab_size=VOCABULARY, hidden_size=256, encoder_layers=2, decoder_layers=4, num_heads=8,
        kv_channels=32, ffn_hidden_size=688, swiglu_rule=False, hidden_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    OpenBAForConditionalGeneration(config).save_pretrained(folder)
    return folder


def make_texts() -> Texts:
    """Returns rows of random ids."""
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(2, VOCABULARY, (ROWS, SOURCE + TARGET), generator=generator).tolist()
    rows = [CalibrationRow(tuple(row[:SOURCE]), tuple(row[SOURCE:])) for row in ids]
    return Texts(rows, "encoder-decoder", {"pad": 0, "start": 0}, "")


def make_run(folder: Path, **changes: Any) -> MaskRun:
    """Returns a run whose target is at once that of the end."""
    settings = {"model": folder, "batch_size": BATCH, "micro_batch_size": MICRO}
    settings |= {"device.device": "cpu", "warmup_steps": 0, "optimizer.lr": 1e-6}
    return MaskRun(change(tiny_masks(), settings | changes), make_texts())


class Plain:
    """The step without gates."""

    def __init__(self, folder: Path) -> None:
        self.run = make_run(folder, trains_weights=True)
        self.run.gated.remove()
        config = self.run.config
        self.optimizer = Optimizer(
            self.run.model, config.optimizer, config.schedule, steps=config.loop.steps
        )

    def step(self, step: int) -> float:
        """Trains on one batch; its loss."""
        torch.nn.Module.train(self.run.model)
        batches = self.run._make_batches(step)
        labels = sum(int((batch.labels != -100).sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = sum_losses(self.run.model, batch, self.run.plan.shape)
            self.optimizer.backward(loss / labels)
            total += float(loss.detach())
        self.optimizer.update(step)
        return total / labels


def check(folder: Path) -> None:
    """With all gates open the loss is that of the plain step, bit for bit."""
    plain = Plain(folder).step(1)
    for trains in (False, True):
        run = make_run(folder, trains_weights=trains)
        with torch.no_grad():
            run.gates.log_alpha.fill_(30)
        found = float(run.step(1)["loss"])
        assert found == plain, (found, plain)


def measure(folder: Path) -> list[Row]:
    """Returns rows of both ways against the plain step."""
    plain, numbers = Plain(folder), count(1)
    both, alone = (make_run(folder, trains_weights=trains) for trains in (True, False))
    case = f"step of {BATCH} x {SOURCE} + {TARGET} tokens, hidden 256"
    return compare(
        "masks",
        case,
        ("plain step", lambda: plain.step(next(numbers))),
        ("gates and weights", lambda: both.step(next(numbers)), GOAL),
        ("gates alone", lambda: alone.step(next(numbers)), GOAL),
        rounds=ROUNDS,
        repeats=1,
    )


def main() -> None:
    """Prints the comparison; `--save` keeps it."""
    torch.set_num_threads(1)
    print_conditions()
    with TemporaryDirectory() as place:
        folder = save_model(Path(place, "model"))
        check(folder)
        rows = measure(folder)
    if "--save" in sys.argv:
        save("masks", rows)


if __name__ == "__main__":
    main()
