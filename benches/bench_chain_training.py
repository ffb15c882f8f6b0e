"""What the contrastive term adds to a step of training on chains, and what the authors' adds.

Chains of 280 tokens, templates of 250, continuations of 24 with three toxic ones, as in the paper;
a small GPT-2. A call is four steps, so that sampling for four steps at once is counted whole.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from authors_chains import CHAIN, CONTINUATION, TEMPLATE, AuthorsStep
from lmcore.detox.anchors import Anchors, contrast
from lmcore.detox.chain_collator import EncodedChain
from lmcore.detox.recipes import TrainConfig, released, tiny
from lmcore.detox.training import ChainRun
from lmcore.ops.philox import random_below
from lmcore.training.config import change
from timing import compare, print_conditions, save

STEPS, BATCH, VOCABULARY = 4, 8, 600
SIZES = {"hidden_size": 256, "heads": 4, "layers": 4, "vocabulary": VOCABULARY, "positions": 300}
CASE = f"{STEPS} steps of {BATCH} chains of {CHAIN} tokens, 4 layers of 256"
TEXT = "# Text: a # Let's detoxify step by step. # The context is non-toxic. # Generation: b #"


def make_items(count: int) -> list[EncodedChain]:
    """Returns chains of random tokens, each as long as the paper's may be."""
    width = CHAIN + TEMPLATE + 4 * CONTINUATION
    ids = random_below(1, 1, range(count), width, 250).astype(np.int32) + 3
    items = []
    for row in ids:
        labels = row[:CHAIN].copy()
        labels[:20] = -100
        texts = np.split(row[CHAIN + TEMPLATE :], 4)
        items.append(EncodedChain(row[:CHAIN], labels, row[CHAIN : CHAIN + TEMPLATE], tuple(texts)))
    return items


def make_run(config: TrainConfig, device: str) -> ChainRun:
    """Returns a run of random chains on a device."""
    sizes = {f"scratch.{name}": value for name, value in SIZES.items()}
    more = {"batch_size": BATCH, "micro_batch_size": BATCH, "warmup_share": 0.0}
    run = ChainRun(
        change(config, {**sizes, **more, "loop.steps": 1000, "device.device": device}),
        [{"output": TEXT, "cont_generation": ["b", "c"]}],
    )
    items = make_items(4 * BATCH)
    run.encoded = items
    run.batches.examples = items
    return run


def make_authors(device: str, *, use_cache: bool) -> tuple[AuthorsStep, list[dict[str, Any]]]:
    """Returns their step and the batches of ours."""
    run = make_run(tiny(), device)
    step = AuthorsStep(
        run.model, torch.optim.AdamW(run.model.parameters(), lr=5e-4), use_cache=use_cache
    )
    batches = []
    for first in range(0, len(run.encoded), BATCH):
        batch = run._put(run.collator.pad(run.encoded[first : first + BATCH]))
        batches.append({
            "input_ids": batch["input_ids"], "labels": batch["labels"],
            "template": batch["template_ids"], "texts": batch["continuation_ids"],
        })  # fmt: skip
    return step, batches


def check(device: str) -> None:
    """Asserts that both compute the same term of the same anchors."""
    step, batches = make_authors(device, use_cache=True)
    theirs = batches[0]
    own = step.sample(theirs["template"])
    with torch.no_grad():
        expected = step.contrast(own, theirs["texts"])
        config = replace(released(tiny()).contrastive)
        ours = contrast(
            step.model,
            {"continuation_ids": theirs["texts"], "continuation_mask": (theirs["texts"] != 0)},
            Anchors(own, (own != 0).long()),
            config,
        )
    assert abs(float(ours.mean()) - float(expected)) < 1e-5


def main() -> None:
    """Times four steps of each."""
    device = "cuda" if "--cuda" in sys.argv[1:] else "cpu"
    torch.manual_seed(0)
    print_conditions()
    check(device)
    runs = {
        "plain": make_run(change(tiny(), {"contrastive.weight": 0.0}), device),
        "ours": make_run(tiny(), device),
        "every": make_run(change(tiny(), {"contrastive.refresh_every_steps": 1}), device),
    }
    authors = {cached: make_authors(device, use_cache=cached) for cached in (True, False)}
    places = dict.fromkeys(runs, 1)

    def train(name: str) -> None:
        for _ in range(STEPS):
            runs[name].step(places[name])
            places[name] += 1
        if device == "cuda":
            torch.cuda.synchronize()

    def train_theirs(cached: bool) -> None:
        step, batches = authors[cached]
        for batch in batches[:STEPS]:
            step(**batch)
        if device == "cuda":
            torch.cuda.synchronize()

    rows = compare(
        "chain_training",
        CASE if device == "cpu" else f"{CASE}, {torch.cuda.get_device_name()}",
        ("plain step, cross entropy alone", lambda: train("plain")),
        ("with the term, anchors for 4 steps at once", lambda: train("ours"), ">= 0.5"),
        ("with the term, anchors in every step", lambda: train("every"), ""),
        ("the authors' step, cached sampling", lambda: train_theirs(True), ""),
        ("the authors' step, sampling without a cache", lambda: train_theirs(False), "<= 0.2"),
        rounds=3,
        repeats=1,
    )
    save("chain_training", rows)


if __name__ == "__main__":
    main()
