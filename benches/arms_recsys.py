"""The arms of UFNRec on real interactions: every arm goes on from the same checkpoint.

    python arms_recsys.py DATA --name seqdistill --warm-epochs 80 --epochs 160 --arms plain,ema

An arm that starts mining at step S trains like plain training before it, so the warm-up is
trained once per seed and the arms branch from it. But for the draws of dropout that is training
each from the start with `start=S`. One line per seed and arm goes to `results/arms_<name>.jsonl`;
arms that stand there already are left out. `--table` prints what stands there.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

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
from lmcore.recsys.training import SequenceRun
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
    for seed in map(int, arguments.seeds.split(",")):
        warm = None
        for arm in arguments.arms.split(","):
            arm = arm.replace(";", ",")
            key = (seed, arm, arguments.warm_epochs, arguments.epochs)
            done = [line_key(line) for line in read_lines(results)]
            if key in done:
                continue
            warm = warm or warm_up(data, seed, arguments)
            line = train_arm(data, seed, arm, warm, arguments)
            with results.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            print(json.dumps(line), flush=True)


def line_key(line: dict[str, Any]) -> tuple[int, str, int, int]:
    """What tells lines apart."""
    return line["seed"], line["arm"], line["warm_epochs"], line["epochs"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def warm_up(data: Split, seed: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Plain training up to where the arms begin."""
    run = SequenceRun(change(plain(), {"loop.seed": seed, "device.device": "cpu"}), data)
    for epoch in tqdm(range(1, arguments.warm_epochs + 1), desc=f"warm-up, seed {seed}"):
        train_epoch(run, epoch)
    return {"run": run.state_dict(), "random": torch.get_rng_state()}


def train_epoch(run: SequenceRun, epoch: int) -> dict[str, Any]:
    """One epoch; returns what its last step says of it."""
    done = (epoch - 1) * run.steps_per_epoch
    values = [run.step(done + place) for place in range(1, 1 + run.steps_per_epoch)]
    return {name: value.item() for name, value in values[-1].items()}


def train_arm(
    data: Split, seed: int, arm: str, warm: dict[str, Any], arguments: argparse.Namespace
) -> dict[str, Any]:
    """One arm from the warm checkpoint on: metrics of its best epoch in validation."""
    started = time.perf_counter()
    # An arm starts with the first step after the warm-up.
    config = change(
        ARMS[arm](),
        {"start": 0, "loop.seed": seed, "device.device": "cpu", "epochs": arguments.epochs},
    )
    run = SequenceRun(config, data)
    state = copy.deepcopy(warm["run"])  # the optimizer goes on in these very tensors
    state["miner"] = None if run.miner is None else run.miner.state_dict()
    run.load_state_dict(state)
    torch.set_rng_state(warm["random"])
    best: dict[str, Any] = {}
    for epoch in tqdm(
        range(arguments.warm_epochs + 1, arguments.epochs + 1), desc=f"{arm}, seed {seed}"
    ):
        log = train_epoch(run, epoch)
        if epoch % arguments.eval_every and epoch != arguments.epochs:
            continue
        value = run.validate()["NDCG@10"]
        if not best or value > best["valid"]["NDCG@10"]:
            best = {"best_epoch": epoch, **score(run, data)}
    last = {} if best["best_epoch"] == arguments.epochs else score(run, data)
    return {
        "seed": seed,
        "arm": arm,
        "warm_epochs": arguments.warm_epochs,
        "epochs": arguments.epochs,
        **best,
        "last": last or None,
        "reversed_last_epoch": log.get("reversed", 0) / (run.steps_per_epoch * config.batch_size),
        **check_reversed(run, data),
        "memory_bytes": log.get("memory_bytes", 0),
        "seconds": round(time.perf_counter() - started),
    }


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
