"""The arms of UFNRec on real interactions: every arm goes on from the same checkpoint.

    python arms_recsys.py DATA --name seqdistill --warm-epochs 80 --epochs 160 --arms plain,ema

An arm that starts mining at step S trains like plain training before it, so the warm-up is
trained once per seed and the arms branch from it, as `lmcore.reproduce.arms` does it. That is
training each from the start with `start=S`. One line per seed and arm goes to
`results/arms_<name>.jsonl`; arms that stand there already are left out. `--table` prints what
stands there. (Lines of before 2026-11-24 drew dropout in one go over all epochs.)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lmcore.recsys import (
    consistency,
    evaluate,
    leave_one_out,
    patient,
    plain,
    read_interactions,
    representation,
    reversal,
)
from lmcore.recsys.data import Split
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.run import SequenceRun
from lmcore.reproduce.arms import branch
from lmcore.reproduce.recsys.ablation import StepRun
from lmcore.training.config import change

RESULTS = Path(__file__).resolve().parent / "results"
ARMS: dict[str, Callable[[], TrainConfig]] = {
    "plain": plain,
    # Plain training, evaluated with the moving average of its weights.
    "ema": lambda: replace(plain(), ema_decay=consistency().ema_decay),
    "representation": representation,
    "reversal": reversal,
    "consistency": consistency,
    "reversal, m = 15": patient,
    "reversal, m = 40": lambda: replace(reversal(), threshold=40),
    "consistency, m = 40": lambda: replace(consistency(), threshold=40),
    "consistency, share 0.1 %": lambda: replace(consistency(), max_reversed_share=0.001),
    "consistency, balanced": lambda: replace(consistency(), normalization="balanced"),
    "consistency, alpha 0.03": lambda: replace(consistency(), alpha=0.03),
}


def main() -> None:
    """Trains the arms that are missing, or prints the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", help="file of interactions")
    parser.add_argument("--name", required=True, help="of the data, in the results")
    parser.add_argument("--warm-epochs", type=int, default=80)
    parser.add_argument("--epochs", type=int, default=160)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--arms", default="plain,ema,representation,reversal,consistency")
    parser.add_argument("--eval-every", type=int, default=4)
    parser.add_argument("--table", action="store_true")
    arguments = parser.parse_args()
    results = RESULTS / f"arms_{arguments.name}.jsonl"
    if arguments.table:
        print(format_table(read_lines(results)))
        return
    torch.set_num_threads(1)
    data = leave_one_out(read_interactions(arguments.data))
    arms = [arm.replace(";", ",") for arm in arguments.arms.split(",")]
    for seed in map(int, arguments.seeds.split(",")):
        done = [line_key(line) for line in read_lines(results)]
        keys = {arm: (seed, arm, arguments.warm_epochs, arguments.epochs) for arm in arms}
        train_arms(data, seed, [a for a in arms if keys[a] not in done], arguments, results)


def line_key(line: dict[str, Any]) -> tuple[int, str, int, int]:
    """What tells lines apart."""
    return line["seed"], line["arm"], line["warm_epochs"], line["epochs"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def train_arms(
    data: Split, seed: int, arms: list[str], arguments: argparse.Namespace, results: Path
) -> None:
    """The arms from one warm checkpoint on; metrics of their best epochs in validation."""

    def make_run(arm: str | None) -> StepRun:
        # An arm starts with the first step after the warm-up.
        recipe = plain() if arm is None else replace(ARMS[arm](), start=0)
        changes = {"loop.seed": seed, "device.device": "cpu", "epochs": arguments.epochs}
        return StepRun(change(recipe, changes), data)

    epoch = make_run(None).run.steps_per_epoch
    own_epochs = arguments.epochs - arguments.warm_epochs
    best: dict[str, Any] = {}
    started = time.perf_counter()

    def follow(arm: str, run: StepRun, step: int) -> None:
        """Keeps what is best, and writes the line at the end."""
        nonlocal started
        if not step:
            best.clear()
            started = time.perf_counter()
            return
        at = arguments.warm_epochs + step // epoch
        print(f"{arm}, seed {seed}: epoch {at}", file=sys.stderr, flush=True)
        if not best or run.run.validate()["NDCG@10"] > best["valid"]["NDCG@10"]:
            best.update(best_epoch=at, **score(run.run, data))
        if at < arguments.epochs:
            return
        negatives = epoch * run.run.config.batch_size
        line = {
            "seed": seed,
            "arm": arm,
            "warm_epochs": arguments.warm_epochs,
            "epochs": arguments.epochs,
            **best,
            "last": None if best["best_epoch"] == at else score(run.run, data),
            "reversed_last_epoch": run.log.get("reversed", 0) / negatives,
            **check_reversed(run.run, data),
            "memory_bytes": run.log.get("memory_bytes", 0),
            "seconds": round(time.perf_counter() - started),
        }
        with results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    every = epoch * arguments.eval_every
    warm, own = epoch * arguments.warm_epochs, epoch * own_epochs
    branch(make_run, arms, warm, own, follow, score_every=every)


def score(run: SequenceRun, data: Split) -> dict[str, Any]:
    """All metrics of the model as it is evaluated now."""
    model = run.validated_model
    return {
        "valid": evaluate(model, data, split="valid").metrics,
        "full": evaluate(model, data, split="test").metrics,
        "sampled": evaluate(model, data, split="test", protocol="sampled").metrics,
    }


def check_reversed(run: SequenceRun, data: Split) -> dict[str, Any]:
    """Share of the reversed pairs (user, item) that are held out, and what chance would give."""
    if run.miner is None or run.config.threshold is None:
        return {}
    users, items = run.miner.mined_pairs().T
    if not len(users):
        return {}
    held_out = np.stack([data.valid, data.test])
    # Keys of distinct (user, item): an item that a user has twice is one that is not drawn.
    width, rows = data.item_count + 1, np.arange(data.user_count)
    known = np.unique(np.repeat(rows, np.diff(data.train_offsets)) * width + data.train_items)
    hidden = np.setdiff1d((rows * width + held_out)[held_out > 0], known)
    drawable = data.item_count - np.bincount(known // width, minlength=data.user_count)
    at_random = np.bincount(hidden // width, minlength=data.user_count) / drawable
    return {
        "reversed_pairs": len(users),
        "reversed_held_out": float((held_out[:, users - 1] == items).any(axis=0).mean()),
        "random_held_out": float(at_random[users - 1].mean()),
    }


def format_table(lines: list[dict[str, Any]]) -> str:
    """Means over the seeds, and the spread."""
    columns = [
        ("valid NDCG@10", lambda line: 100 * line["valid"]["NDCG@10"]),
        ("HR@1", lambda line: 100 * line["full"]["HR@1"]),
        ("HR@5", lambda line: 100 * line["full"]["HR@5"]),
        ("HR@10", lambda line: 100 * line["full"]["HR@10"]),
        ("NDCG@5", lambda line: 100 * line["full"]["NDCG@5"]),
        ("NDCG@10", lambda line: 100 * line["full"]["NDCG@10"]),
        ("sampled HR@10", lambda line: 100 * line["sampled"]["HR@10"]),
        ("sampled NDCG@10", lambda line: 100 * line["sampled"]["NDCG@10"]),
        ("lift", lambda line: line.get("reversed_held_out", 0)
            / (line.get("random_held_out") or 1)),
        ("best epoch", lambda line: line["best_epoch"]),
    ]  # fmt: skip
    rows = ["| arm | seeds | " + " | ".join(name for name, _ in columns) + " |"]
    rows.append("| --- " * (len(columns) + 2) + "|")
    for arm in dict.fromkeys(line["arm"] for line in lines):
        of_arm = [line for line in lines if line["arm"] == arm]
        cells = []
        for _, value in columns:
            values = [value(line) for line in of_arm]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{statistics.fmean(values):.2f}{spread}")
        rows.append(f"| {arm} | {len(of_arm)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


if __name__ == "__main__":
    main()
