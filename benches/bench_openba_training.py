"""A whole training step of OpenBA on a CPU: grouped rows against padded ones, and against T5.

All three have the same samples and the same shape; the rows of a step are grouped by length, or
padded to 570 and 381 as by the authors. T5 gets our grouped batches, our loss and our optimizer.
A step on pairs is timed too, grouped, padded to 1024 and 256 as by the authors, and in order with
each micro-batch as wide as its longest row; their lengths are those of instructions, of which few
are long. Time is given for a whole step, and since all steps have the same useful tokens, ratios
of time are ratios of useful tokens a second.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import T5Config, T5ForConditionalGeneration

from lmcore.openba import OpenBATokenizer, Pairs
from lmcore.openba.objective import sum_losses
from lmcore.openba.recipes import ShapeConfig, TrainConfig, tiny
from lmcore.openba.training import OpenBARun
from lmcore.training.config import DeviceConfig, change
from lmcore.training.optimizer import Optimizer
from lmcore.worlds.openba import write_piece_file
from timing import Row, compare, print_conditions, save

TEXTS, LENGTH, PIECES = 256, 568, 2000
# Samples of a step and of a micro-batch.
BATCH, MICRO = 48, 4
# Pairs of a step, and their most likely lengths; 95 % are shorter than five times that.
PAIRS, PAIR_BATCH, PAIR_LENGTHS, SPREAD = 512, 32, (150, 30), 1.0
# T5 has neither biases nor an output layer of its own.
SHAPE = ShapeConfig(
    hidden_size=128,
    heads=4,
    kv_channels=32,
    ffn_hidden_size=320,
    swiglu_rule=False,
    encoder_layers=2,
    decoder_layers=4,
    dropout=0.0,
    qkv_bias=False,
    head_bias=False,
    tensor_parallel=1,
)


def make_config(*, grouping: bool) -> TrainConfig:
    """Returns the settings of a step."""
    config = replace(
        tiny(), shape=SHAPE, encoder_length=LENGTH + 2, decoder_length=380, grouping=grouping,
        batch_size=BATCH, micro_batch_size=MICRO, device=DeviceConfig(device="cpu"),
    )  # fmt: skip
    return change(config, {"optimizer.lr": 1e-4})


def make_tokenizer() -> OpenBATokenizer:
    """Returns a tokenizer of a generated file."""
    with TemporaryDirectory() as folder:
        write_piece_file(Path(folder, "spiece.model"), size=PIECES)
        return OpenBATokenizer(Path(folder, "spiece.model"))


class T5Step:
    """The same step of transformers' T5."""

    def __init__(self, run: OpenBARun) -> None:
        config = run.model.config
        torch.manual_seed(0)
        self.run = run
        self.model = T5ForConditionalGeneration(
            T5Config(
                vocab_size=config.vocab_size,
                d_model=SHAPE.hidden_size,
                d_kv=SHAPE.kv_channels,
                d_ff=config.inner_size,
                num_heads=SHAPE.heads,
                num_layers=SHAPE.encoder_layers,
                num_decoder_layers=SHAPE.decoder_layers,
                feed_forward_proj="gated-silu",
                dropout_rate=0.0,
                attn_implementation="sdpa",
                decoder_start_token_id=0,
            )
        )
        self.optimizer = Optimizer(self.model, run.config.optimizer)

    def __call__(self, step: int) -> float:
        """Trains on our batches of a step; returns the loss."""
        self.model.train()
        batches = self.run.batches(step)
        whole = sum(int(batch.decoder_lengths.sum()) for batch in batches)
        total = 0.0
        for batch in batches:
            loss = sum_losses(self.model, batch).sum() / whole
            self.optimizer.backward(loss)
            total += float(loss.detach())
        self.optimizer.update(step)
        return total


def make_pairs() -> Pairs:
    """Returns pairs whose lengths are log-normal, with an end behind each target."""
    generator = np.random.default_rng(1)
    parts = []
    for length in PAIR_LENGTHS:
        sizes = np.exp(generator.normal(np.log(length), SPREAD, PAIRS)).astype(int) + 1
        parts.append([generator.integers(300, PIECES, size) for size in sizes])
    return Pairs(parts[0], [np.append(target, 1) for target in parts[1]])


def time_pairs(tokenizer: OpenBATokenizer) -> list[Row]:
    """Asserts that losses on pairs are equal, and times steps.

    Args:
        tokenizer: of the pairs.
    """
    changes = {"pairs": True, "encoder_length": 1024, "decoder_length": 256}
    pairs = make_pairs()
    grouped, padded, in_order = (
        OpenBARun(
            change(make_config(grouping=grouping), {**changes, "batch_size": PAIR_BATCH}),
            pairs,
            tokenizer=tokenizer,
        )
        for grouping in (True, False, True)
    )
    in_order.batches.grouped = False
    runs = (grouped, padded, in_order)
    for step in (1, 2):
        one, *others = (run.step(step) for run in runs)
        assert all(abs(float(one["loss"] - other["loss"])) < 1e-4 for other in others), (
            one,
            others,
        )
        assert all(one["tokens"] == other["tokens"] for other in others)
    share = [run.batches.measure_padding(range(1, 11)) for run in runs]
    print(f"padding {share[0]:.1%} grouped, {share[1]:.1%} padded, {share[2]:.1%} in order")
    case = f"{PAIR_BATCH} pairs, micro-batches of {MICRO}, 2 + 4 blocks of 128"
    rows = []
    for name, run, goal in (
        ("padded to 1024 and 256", padded, "2x"),
        ("in order, padded to the longest", in_order, "1x"),
    ):
        rows += compare(
            "openba_training", case, (name, in_turn(run.step)),
            ("grouped", in_turn(grouped.step), goal), rounds=7, repeats=1,
        )  # fmt: skip
    return rows


def in_turn(call: Callable[[int], Any]) -> Callable[[], Any]:
    """Returns what calls with steps from 1 on."""
    steps = count(1)
    return lambda: call(next(steps))


def count_parameters(model: Any) -> int:
    """Returns how many a model has, tied ones once."""
    return sum(parameter.numel() for parameter in model.parameters())


def main() -> None:
    """Asserts that losses are equal, and times steps."""
    print_conditions()
    torch.set_num_threads(1)
    tokenizer = make_tokenizer()
    generator = np.random.default_rng(0)
    texts: NDArray[Any] = generator.integers(300, PIECES, (TEXTS, LENGTH)).astype(np.uint16)
    grouped, padded = (
        OpenBARun(make_config(grouping=grouping), texts, tokenizer=tokenizer)
        for grouping in (True, False)
    )
    t5 = T5Step(grouped)
    for step in (1, 2):
        one, two = (run.step(step) for run in (grouped, padded))
        assert abs(float(one["loss"] - two["loss"])) < 1e-4, (one, two)
        assert one["tokens"] == two["tokens"]
        t5(step)
    share = [run.batches.measure_padding(range(1, 11)) for run in (grouped, padded)]
    print(f"padding {share[0]:.1%} grouped, {share[1]:.1%} padded")
    print(f"{count_parameters(grouped.model):,} parameters, T5 {count_parameters(t5.model):,}")
    case = f"{BATCH} x {LENGTH} tokens, micro-batches of {MICRO}, 2 + 4 blocks of 128"
    rounds = 7
    ours = ("grouped", in_turn(grouped.step))
    rows: list[Row] = compare(
        "openba_training", case, ("padded to 570 and 381", in_turn(padded.step)),
        (*ours, "1.35x"), rounds=rounds, repeats=1,
    )  # fmt: skip
    rows += compare(
        "openba_training", case, ("T5 of transformers", in_turn(t5)), (*ours, "0.95x"),
        rounds=rounds, repeats=1,
    )  # fmt: skip
    rows += time_pairs(tokenizer)
    if "--save" in sys.argv[1:]:
        save("openba_training", rows)


if __name__ == "__main__":
    main()
