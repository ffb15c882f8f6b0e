"""A step of training that learns from an unpruned model, against whole logits of both.

A small OpenBA with 250,112 entries of vocabulary learns from one that is wider and deeper. The
step is also set against what cannot be saved: the step without a teacher, and its forward pass.
Optimizers are left out: all would pay the same.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from lmcore.compression import DistillationConfig, Teacher, distil_batch
from lmcore.openba import OpenBAConfig, OpenBAForConditionalGeneration
from timing import Row, compare, is_full, make_row, measure_peak, print_conditions, save

VOCABULARY = 250_112
CONFIG = DistillationConfig(weight=0.5)
ROWS, SOURCE, TARGET = 4, 128, 64


def make_model(hidden: int, layers: int, seed: int) -> Any:
    """A model with random weights."""
    torch.manual_seed(seed)
    config = OpenBAConfig(
        vocab_size=VOCABULARY, hidden_size=hidden, kv_channels=32, num_heads=hidden // 32,
        ffn_hidden_size=2 * hidden, encoder_layers=layers, decoder_layers=2 * layers,
        max_seq_length=256, decoder_max_seq_length=256, swiglu_rule=False, hidden_dropout=0.0,
        attention_dropout=0.0,
    )  # fmt: skip
    return OpenBAForConditionalGeneration(config)


class Contenders:
    """The same batch and the same models for everybody."""

    def __init__(self, target: int) -> None:
        self.student, whole = make_model(256, 1, 0), make_model(384, 2, 1).eval()
        self.whole = whole.requires_grad_(False)
        self.teacher = Teacher(make_model(384, 2, 1))
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(2, VOCABULARY, (ROWS, SOURCE + target), generator=generator)
        self.labels = ids[:, SOURCE:].clone()
        self.inputs = {
            "input_ids": ids[:, :SOURCE],
            "decoder_input_ids": functional.pad(self.labels[:, :-1], (1, 0)),
        }

    def ours(self) -> Tensor:
        losses = distil_batch(self.student, self.teacher, self.inputs, self.labels, CONFIG)
        return self.finish(losses.rows.sum())

    def dense(self) -> Tensor:
        with torch.no_grad():
            taught = self.whole(**self.inputs, use_cache=False).logits.flatten(0, 1)
        logits = self.student(**self.inputs, use_cache=False).logits.flatten(0, 1)
        losses = functional.cross_entropy(logits, self.labels.flatten(), reduction="sum")
        divergence = functional.kl_div(
            logits.log_softmax(1), taught.log_softmax(1), log_target=True, reduction="sum"
        )
        return self.finish(0.5 * losses + 0.5 * divergence)

    def plain(self) -> Tensor:
        logits = self.student(**self.inputs, use_cache=False).logits.flatten(0, 1)
        return self.finish(functional.cross_entropy(logits, self.labels.flatten(), reduction="sum"))

    @torch.no_grad()
    def teacher_forward(self) -> Tensor:
        logits: Tensor = self.whole(**self.inputs, use_cache=False).logits
        return logits

    def least(self) -> None:
        """The step without a teacher, and the teacher's forward pass."""
        self.plain()
        self.teacher_forward()

    def finish(self, loss: Tensor) -> Tensor:
        self.student.zero_grad(set_to_none=True)
        (loss / self.labels.numel()).backward()
        return loss.detach()

    def check(self) -> None:
        """Asserts equal losses and gradients."""
        found = []
        for call in (self.ours, self.dense):
            loss = call()
            grads = [p.grad.clone() for p in self.student.parameters() if p.grad is not None]
            found.append((loss, grads))
        (loss, grads), (other, others) = found
        torch.testing.assert_close(loss, other, rtol=1e-5, atol=0)
        for one, two in zip(grads, others, strict=True):
            torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5 * float(two.abs().max()))


def peak(call: Callable[[], object]) -> int:
    """Megabytes beyond what is there once gradients are, and without them."""
    return measure_peak(call)


def run() -> list[Row]:
    rows = []
    for target in (TARGET, 256) if is_full() else (TARGET,):
        all_of = Contenders(target)
        all_of.check()
        case = f"{ROWS * target} labels x {VOCABULARY} entries"
        rounds = 3 if target > TARGET else 5
        peaks = []
        for call in (all_of.dense, all_of.ours):
            all_of.student.zero_grad(set_to_none=True)
            peaks.append(peak(call))
        print(f"{case}: peaks {peaks[0]} and {peaks[1]} MB")
        rows += compare(
            "distillation", f"{case}, step", ("whole logits", all_of.dense),
            ("blocks", all_of.ours, ""), rounds=rounds, repeats=1,
        )  # fmt: skip
        rows += compare(
            "distillation", f"{case}, least", ("plain step + teacher's forward", all_of.least),
            ("step with distillation", all_of.ours, ">= 1 / 1.5"), rounds=rounds, repeats=1,
        )  # fmt: skip
    return rows


if __name__ == "__main__":
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    print_conditions()
    save(run(), sys.argv)
