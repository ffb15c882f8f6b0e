"""Texts, a tokenizer and settings for training runs of OpenBA that take a moment."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.openba import OpenBATokenizer, Pairs
from lmcore.openba.recipes import TrainConfig, tiny
from lmcore.openba.training import train
from lmcore.training.config import change
from lmcore.worlds.openba import make_world, write_piece_file

LENGTH = 40
SMALL: dict[str, Any] = {
    "shape.hidden_size": 16, "shape.heads": 2, "shape.kv_channels": 12,
    "shape.ffn_hidden_size": 24, "shape.encoder_layers": 1, "shape.decoder_layers": 2,
    "shape.dropout": 0.1, "encoder_length": LENGTH + 2, "batch_size": 12, "micro_batch_size": 4,
    "validation_batch_size": 5, "optimizer.lr": 0.01, "schedule.kind": "constant",
    "schedule.final_share": 0.0, "schedule.warmup_steps": 2, "device.device": "cpu",
    "device.threads": 1, "loop.steps": 5, "loop.validate_every_steps": 2,
    "loop.save_every_seconds": 0.0, "loop.log_every_steps": 1,
}  # fmt: skip


def small(**changes: Any) -> TrainConfig:
    return change(tiny(), {**SMALL, **changes})


@cache
def make_tokenizer() -> OpenBATokenizer:
    with TemporaryDirectory() as folder:
        write_piece_file(Path(folder, "spiece.model"))
        return OpenBATokenizer(Path(folder, "spiece.model"))


@cache
def make_texts(count: int = 20, seed: int = 0) -> NDArray[np.int64]:
    """`[count, LENGTH]`, documents one behind the other."""
    tokenizer = make_tokenizer()
    ids: list[int] = []
    for text in make_world(seed, documents=2 * count).texts:
        ids += tokenizer(text)["input_ids"]
    return np.array(ids[: count * LENGTH], np.int64).reshape(count, LENGTH)


@cache
def make_pairs(count: int = 30, seed: int = 0) -> Pairs:
    """A source, the beginning of a document, and a target, its next words and an end."""
    tokenizer = make_tokenizer()
    sources, targets = [], []
    for index, text in enumerate(make_world(seed, documents=count).texts):
        ids = tokenizer(text)["input_ids"]
        middle, end = 2 + (5 * index) % 19, 3 + (3 * index) % 11
        sources.append(ids[:middle])
        targets.append([*ids[middle : middle + end], tokenizer.eos_token_id])
    return Pairs(sources, targets)


# Runs that several processes share.

# Six micro-batches a step, which four processes cannot share evenly; with dropout.
MORE: dict[str, Any] = {
    "micro_batch_size": 2, "loop.steps": 6, "loop.validate_every_steps": 3, "optimizer.lr": 2e-3,
}  # fmt: skip
ARMS = ["none", "full", "recomputed", "pairs"]


def make(arm: str, **changes: Any) -> TrainConfig:
    sharding = {"none": "none"}.get(arm, "full")
    own: dict[str, Any] = {
        "device.sharding": sharding, "device.recompute": arm == "recomputed",
    }  # fmt: skip
    if arm == "pairs":
        own |= {"pairs": True, "encoder_length": 20, "decoder_length": 10}
    return small(**{**MORE, **own, **changes})


def take(arm: str, out: str | Path, **changes: Any) -> dict[str, Any]:
    """Trains, or goes on; what came of it."""
    make_items: Any = make_pairs if arm == "pairs" else make_texts
    given: Any = {"tokenizer": make_tokenizer(), "valid": make_items(5, seed=1)}
    result = train(make(arm, **changes), make_items(), out, **given)
    losses = [
        [value for name, value in sorted(line.items()) if name.startswith("loss")]
        for line in result.history
    ]
    metrics = [line["metrics"] for line in result.history if "metrics" in line]
    tokens = [line["tokens"] for line in result.history]
    return {
        "after": result.resumed_after, "losses": losses, "metrics": metrics, "tokens": tokens,
    }  # fmt: skip
