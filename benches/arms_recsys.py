"""The arms of UFNRec on real interactions, by today's losses: arms go on from one checkpoint.

    python arms_recsys.py DATA --name beauty

An arm that starts mining at step S trains like training without mining before it, so the warm-up
is trained once per seed and loss, and the arms branch from it, as `lmcore.reproduce.arms` does
it. That is training each from the start with `start=S`. One line per seed and arm goes to
`results/arms_<name>.jsonl`; arms that stand there already are left out, and what was killed goes
on from its last validation (`--states`). `--table` prints what stands there, and `--write` puts
it between the marks of docs/papers/ufnrec.md. The file may be of any format that
`read_interactions` tells by its content or `--format` names. (Lines of before 2026-11-24 drew
dropout in one go over all epochs; those without a loss are of `bce`.)
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from arms_table import fill_in, format_missing, format_tables
from lmcore.ops.ranking import ranking_metrics
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
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.data import Split
from lmcore.recsys.recipes import TrainConfig
from lmcore.reproduce.arms import branch
from lmcore.reproduce.recsys.ablation import METRIC, StepRun
from lmcore.reproduce.recsys.bands import (
    Bands,
    band_items,
    band_users,
    check_held_out,
    find_ranks,
    score_bands,
)
from lmcore.training.checkpoint import load_state, save_state
from lmcore.training.config import change, config_to_dict, override

ROOT = Path(__file__).resolve().parent
RESULTS = ROOT / "results"
DOCUMENT = ROOT.parent / "docs/papers/ufnrec.md"
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class Loss:
    """What arms share from the first step on."""

    changes: Mapping[str, Any]
    """Of `plain`."""
    arms: tuple[str, ...]
    """Which go with it."""
    warm_epochs: int
    """Before mining starts: until validation without mining flattens, with seed 0."""
    epochs: int
    """Of an arm in all."""


# `plain` is evaluated as it is and with the moving average of its weights, which changes nothing
# in it: it gives the lines of two arms.
ARMS: dict[str, TrainConfig] = {
    "plain": replace(plain(), ema_decay=consistency().ema_decay),
    "representation": representation(),
    "reversal": reversal(),
    "consistency": consistency(),
    "reversal, m = 15": patient(),
    "reversal, m = 40": replace(reversal(), threshold=40),
    "consistency, m = 40": replace(consistency(), threshold=40),
    "consistency, share 0.1 %": replace(consistency(), max_reversed_share=0.001),
    "consistency, balanced": replace(consistency(), normalization="balanced"),
    "consistency, alpha 0.03": replace(consistency(), alpha=0.03),
}
AVERAGE = "ema"
_PAIR = "plain", "reversal, m = 15"
_PAPERS = "representation", "reversal", "consistency"
# Equal negatives, but for the one that eSASRec publishes and the one that has all items. Epochs
# are those of Beauty, about where validation without mining flattens with seed 0.
LOSSES: dict[str, Loss] = {
    "bce": Loss({}, (*_PAIR, *_PAPERS), 40, 80),
    "sampled_softmax": Loss({"loss": "sampled_softmax"}, _PAIR, 32, 72),
    "gbce": Loss({"loss": "gbce"}, _PAIR, 60, 100),
    "sampled_softmax_256": Loss(
        {"loss": "sampled_softmax", "negatives": 256, "log_q": "none"}, ("plain",), 32, 72
    ),
    "sampled_softmax_uncorrected": Loss(
        {"loss": "sampled_softmax", "log_q": "none"}, ("plain",), 32, 72
    ),
    "ligr": Loss({"loss": "sampled_softmax", "backbone": "ligr"}, ("plain",), 32, 72),
    "cross_entropy": Loss({"loss": "cross_entropy"}, ("plain",), 20, 60),
}
# What the document shows of each data set; on others nothing is missed.
PLANNED = {"beauty": tuple(LOSSES), "sports": ("bce", "sampled_softmax")}


def main() -> None:
    """Trains the arms that are missing, or prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="?", help="file of interactions")
    parser.add_argument("--name", required=True, help="of the data, in the results")
    parser.add_argument("--format", default="auto", help="of the file")
    parser.add_argument("--losses", default=",".join(LOSSES))
    parser.add_argument("--arms", help="only these, separated by commas; ; is a comma in a name")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)))
    parser.add_argument("--warm-epochs", type=int, help="of all losses")
    parser.add_argument("--epochs", type=int, help="of all losses")
    parser.add_argument("--eval-every", type=int, default=4)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--out", type=Path, help="file of the lines; results/arms_<name>.jsonl")
    parser.add_argument("--states", type=Path, help="folder of what is not over")
    parser.add_argument("--table", action="store_true", help="print, and train nothing")
    parser.add_argument("--write", action="store_true", help="tables into docs/papers/ufnrec.md")
    arguments = parser.parse_args()
    results = arguments.out or RESULTS / f"arms_{arguments.name}.jsonl"
    if arguments.table or arguments.write:
        tables = describe(read_lines(results), arguments.name)
        if arguments.write:
            text = DOCUMENT.read_text(encoding="utf-8")
            DOCUMENT.write_text(fill_in(text, arguments.name, tables), encoding="utf-8")
        print(tables)
        return
    torch.set_num_threads(1)
    states = arguments.states or ROOT.parent / "target/arms" / arguments.name
    states.mkdir(parents=True, exist_ok=True)
    data = leave_one_out(read_interactions(arguments.data, format=arguments.format))
    chosen = arguments.arms and [arm.replace(";", ",") for arm in arguments.arms.split(",")]
    settings = find_changes(override(plain(), arguments.set))
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.losses.split(","):
            loss = LOSSES[name]
            for arm in chosen or loss.arms:
                plan = Plan(
                    seed=seed,
                    loss=name,
                    arm=arm,
                    warm_epochs=arguments.warm_epochs or loss.warm_epochs,
                    epochs=arguments.epochs or loss.epochs,
                    settings=settings,
                )
                if plan.key not in map(find_key, read_lines(results)):
                    kept = Kept(states, plan, data)
                    run = train_arm(plan, data, arguments.eval_every, kept)
                    text = "".join(json.dumps(line) + "\n" for line in run)
                    # In one piece: other calls may add lines, and this one may be killed.
                    with results.open("ab", buffering=0) as file:
                        file.write(text.encode())
                    kept.find_file(arm).unlink(missing_ok=True)
    print(format_tables(read_lines(results), arguments.name))


def describe(lines: list[dict[str, Any]], name: str) -> str:
    """All tables, and what of the whole plan has no line yet."""
    planned = [
        (seed, loss, line)
        for seed in SEEDS
        for loss in PLANNED.get(name, ())
        for arm in LOSSES[loss].arms
        for line in ((arm, AVERAGE) if arm == "plain" else (arm,))
    ]
    missing = format_missing(lines, planned)
    return format_tables(lines, name) + (f"\n\n{missing}" if missing else "")


@dataclass(frozen=True)
class Plan:
    """One arm of a seed."""

    seed: int
    loss: str
    arm: str
    warm_epochs: int
    epochs: int
    settings: Mapping[str, Any]

    @property
    def key(self) -> tuple[Any, ...]:
        """What tells its line from others."""
        return find_key(asdict(self))

    def make_config(self, *, is_warm: bool = False) -> TrainConfig:
        """The recipe; of the warm-up, that of training without mining and without a teacher."""
        own = {} if is_warm else find_changes(ARMS[self.arm]) | {"start": 0}
        changes = {**self.settings, **LOSSES[self.loss].changes, **own}
        changes |= {"loop.seed": self.seed, "device.device": "cpu", "epochs": self.epochs}
        return change(plain(), changes)


def find_key(line: Mapping[str, Any]) -> tuple[Any, ...]:
    """What tells lines apart."""
    settings = json.dumps(line.get("settings", {}), sort_keys=True)
    arm = line["seed"], line.get("loss", "bce"), line["arm"]
    return *arm, line["warm_epochs"], line["epochs"], settings


def find_changes(config: TrainConfig) -> dict[str, Any]:
    """The settings in which a recipe differs from `plain`, by their full names."""

    def walk(ours: Mapping[str, Any], usual: Mapping[str, Any], prefix: str) -> dict[str, Any]:
        found = {}
        for name, value in ours.items():
            if isinstance(value, Mapping):
                found |= walk(value, usual[name], f"{prefix}{name}.")
            elif value != usual[name]:
                found[prefix + name] = value
        return found

    return walk(config_to_dict(config), config_to_dict(plain()), "")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines so far."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


class Kept:
    """States of runs in files named by all that they depend on; those of arms go when they end."""

    def __init__(self, folder: Path, plan: Plan, data: Split) -> None:
        self.folder, self.plan = folder, plan
        self.sizes = data.user_count, data.item_count, len(data.train_items)
        self.scores: Mapping[int, Any] = {}  # of the arm, as far as they are kept

    def find_file(self, arm: str | None) -> Path:
        """Where the state of an arm stands, or that of the warm-up."""
        config = self.plan.make_config(is_warm=arm is None)
        # The first epochs do not depend on how many will come.
        changes = find_changes(replace(config, epochs=plain().epochs))
        known = [changes, self.sizes, arm, self.plan.warm_epochs]
        digest = hashlib.blake2b(json.dumps(known, sort_keys=True).encode(), digest_size=6)
        return self.folder / f"{digest.hexdigest()}.pt"

    def resume(self, arm: str | None, run: StepRun) -> tuple[int, dict[int, Any]]:
        """As `branch` wants it."""
        file = self.find_file(arm)
        if not file.exists():
            return 0, {}
        state = load_state(file)
        run.run.load_state_dict(state["run"])
        say(self.plan, f"goes on with step {state['steps']} of {arm or 'the warm-up'}")
        self.scores = {score["step"]: score for score in json.loads(state["scores"])}
        return state["steps"], self.scores

    def keep(self, arm: str | None, run: StepRun, steps: int, scores: Mapping[int, Any]) -> None:
        """As `branch` wants it."""
        self.scores = scores
        lines = json.dumps(list(scores.values()))
        state = {"run": run.run.state_dict(), "steps": steps, "scores": lines}
        save_state(self.find_file(arm), state)


def train_arm(plan: Plan, data: Split, eval_every: int, kept: Kept) -> list[dict[str, Any]]:
    """The lines of an arm, with the metrics of its best epoch in validation."""

    def make_run(arm: str | None) -> StepRun:
        return StepRun(plan.make_config(is_warm=arm is None), data)

    run = make_run(None)
    epoch = run.run.steps_per_epoch
    own = epoch * (plan.epochs - plan.warm_epochs)
    users, items = band_users(data), band_items(data)
    clock = time.process_time()

    def score(arm: str, run: StepRun, step: int) -> dict[str, Any]:
        """Validation, the other metrics where it is the best so far, and at the last step all."""
        nonlocal clock
        views = {arm: run.run.validated_model}
        if run.run.miner is None:
            views = {arm: run.run.model, AVERAGE: run.run.validated_model}
        found: dict[str, Any] = {"step": step, "epoch": plan.warm_epochs + step // epoch}
        found["views"] = {}
        for name, view in views.items():
            valid = evaluate(view, data, split="valid").metrics
            # All else is asked of what may go into the line.
            earlier = [kept.scores[at]["views"][name]["valid"] for at in kept.scores if at]
            wanted = step == own or (
                step and valid[METRIC] > max((one[METRIC] for one in earlier), default=-1)
            )
            found["views"][name] = {"valid": valid} | (
                measure(view, data, users, items) if wanted else {}
            )
        negatives = epoch * run.run.config.batch_size
        found["reversed"] = run.log.get("reversed", 0) / negatives
        found["memory_bytes"] = run.log.get("memory_bytes", 0)
        miner = run.run.miner
        if step == own and miner is not None and run.run.config.threshold is not None:
            found["mined"] = check_held_out(miner.mined_pairs(), data, items)
        found["seconds"], clock = time.process_time() - clock, time.process_time()
        say(plan, f"epoch {found['epoch']}, " + ", ".join(
            f"{name} {view['valid'][METRIC]:.4f}" for name, view in found["views"].items()
        ))  # fmt: skip
        return found

    every = epoch * eval_every
    found = branch(
        make_run, [plan.arm], epoch * plan.warm_epochs, own, score,
        score_every=every, states=kept,
    )  # fmt: skip
    scores = [found.scores[plan.arm][step] for step in sorted(found.scores[plan.arm])]
    return [make_line(plan, name, scores) for name in scores[0]["views"]]


def measure(model: SequenceModel, data: Split, users: Bands, items: Bands) -> dict[str, Any]:
    """The metrics of a model on the test items, in all and by bands."""
    owners, targets, ranks = find_ranks(model, data)
    return {
        "full": ranking_metrics(ranks),
        "sampled": evaluate(model, data, split="test", protocol="sampled").metrics,
        "by_popularity": score_bands(ranks, items.of[targets - 1], items),
        "by_history": score_bands(ranks, users.of[owners - 1], users),
    }


def make_line(plan: Plan, name: str, scores: list[dict[str, Any]]) -> dict[str, Any]:
    """What is kept of an arm: the best epoch after the warm-up, the last, and the curve."""
    last = scores[-1]
    best = max(scores[1:], key=lambda score: score["views"][name]["valid"][METRIC])
    end = last["views"][name]
    return {
        **asdict(plan),
        "arm": name,
        "best_epoch": best["epoch"],
        **best["views"][name],
        "last": None if best is last else {key: end[key] for key in ("valid", "full", "sampled")},
        "curve": {score["epoch"]: score["views"][name]["valid"][METRIC] for score in scores},
        "reversed_last_epoch": last["reversed"],
        **({"mined": last["mined"]} if "mined" in last else {}),
        "memory_bytes": last["memory_bytes"],
        "seconds": round(sum(score["seconds"] for score in scores)),
    }


def say(plan: Plan, text: str) -> None:
    """A line of the log."""
    now = time.strftime("%H:%M:%S", time.gmtime())
    print(f"{now} seed {plan.seed}, {plan.loss}, {plan.arm}: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
