"""Claims: which steps are kept matters, and so does that estimates are drawn together."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.diffusion.paraphrasing import (
    ARMS,
    SETTING,
    Scale,
    go_on,
    keep_steps,
    list_pairs,
    make_config,
    name_scores,
    sample_texts,
    train_run,
)

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.training import DiffusionRun

SCHEDULES = {"adaptive": "adaptive", "uniform": "uniform", "quadratic": "quadratic"}
STEPS = (4, 5, 10, 20)
_SCALES: dict[Size, Scale] = {
    "tiny": Scale(pairs=60, tests=10, steps=4, more_steps=3, batch_size=8, hidden_size=16),
    "quick": Scale(pairs=8000, tests=200, steps=400, more_steps=100),
    "full": Scale(pairs=20_000, tests=500, steps=1000, more_steps=250, slow_steps=(200, 2000)),
}


@functools.cache
def measure_few_steps(seed: int, size: Size) -> Measurement:
    """Returns how good the texts of a small model are, for several lists of steps.

    Args:
        seed: of the pairs, of training and of the noise.
        size: of the model, and how many steps.

    Returns:
        Values named `<schedule>/<steps>/good`, the share of texts that are a good answer in per
        cent, and `.../bleu`, BLEU-4 against the nearest good answer; `<arm>/<steps>/...` the same
        for training that went on with and without Distance Penalty, for adaptive steps;
        `<arm>/distance`, the mean squared distance between estimates at neighbouring timesteps;
        `gain` is adaptive minus uniform steps in BLEU, the mean over all numbers of steps;
        `apart` is the share of the distance that the penalty takes away, in per cent, and
        `penalty/<steps>` is BLEU with minus without it.
    """
    from lmcore.diffusion.tokenization import make_bert_tokenizer
    from lmcore.worlds.diffusion import list_tokens, make_world

    scale = _SCALES[size]
    values: dict[str, float] = {}
    world = make_world(seed, pairs=scale.pairs + scale.tests).pairs
    tokenizer, tests = make_bert_tokenizer(list_tokens()), world[scale.pairs :]
    pairs = list_pairs(world[: scale.pairs])
    config = make_config(seed, scale)
    run = train_run(config, pairs, tokenizer, scale.steps)
    for name in SCHEDULES:
        for steps in STEPS:
            values |= name_scores(
                f"{name}/{steps}", sample_texts(run, tests, keep_steps(name, steps), seed)
            )
    for steps in scale.slow_steps:
        values |= name_scores(
            f"uniform/{steps}", sample_texts(run, tests, keep_steps("uniform", steps), seed)
        )
    with tempfile.TemporaryDirectory() as folder:
        run.save_model(Path(folder))
        for arm, weight in ARMS.items():
            changed = go_on(config, folder, scale.more_steps, weight)
            trained = train_run(changed, pairs, tokenizer, scale.more_steps)
            values[f"{arm}/distance"] = _find_distance(trained, list_pairs(tests))
            for steps in STEPS:
                values |= name_scores(
                    f"{arm}/{steps}",
                    sample_texts(trained, tests, keep_steps("adaptive", steps), seed),
                )
    gains = [values[f"adaptive/{n}/bleu"] - values[f"uniform/{n}/bleu"] for n in STEPS]
    values["gain"] = float(np.mean(gains))
    values["apart"] = 100 * (1 - values["with/distance"] / values["without/distance"])
    for steps in STEPS:
        values[f"penalty/{steps}"] = values[f"with/{steps}/bleu"] - values[f"without/{steps}/bleu"]
    return Measurement(values=values)


def _find_distance(run: DiffusionRun, pairs: Sequence[Pair]) -> float:
    """Between estimates at neighbouring timesteps, on pairs that were not trained on."""
    from lmcore.diffusion.training import DiffusionRun
    from lmcore.training.config import change

    # The weight of -1 makes the penalty the distance itself.
    changes = {"penalty.weight": -1.0, "batch_size": len(pairs), "micro_batch_size": len(pairs)}
    with tempfile.TemporaryDirectory() as folder:
        run.save_model(Path(folder))
        config = change(run.config, {**changes, "model": folder, "average": 0.0})
        other = DiffusionRun(config, pairs, tokenizer=run.tokenizer)
        values = [float(other.measure(step)["penalty"]) for step in range(1, 9)]
    return float(np.mean(values))


def adaptive_is_better(estimates: Estimates) -> bool:
    """Returns whether adaptive steps give better texts than uniform ones, by more than the spread.

    Args:
        estimates: the numbers of `measure_few_steps`.
    """
    return estimates["gain"].mean > estimates["gain"].spread


def penalty_draws_together(estimates: Estimates) -> bool:
    """Returns whether Distance Penalty lessens the distance by more than the spread.

    Args:
        estimates: the numbers of `measure_few_steps`.
    """
    return estimates["apart"].mean > 2 * estimates["apart"].spread


def _describe_schedules(estimates: Estimates) -> str:
    lines = ["BLEU-4 (good answers, %) at " + ", ".join(map(str, STEPS)) + " steps"]
    for name in SCHEDULES:
        parts = (
            f"{estimates[f'{name}/{n}/bleu'].format(1)} ({estimates[f'{name}/{n}/good'].mean:.0f})"
            for n in STEPS
        )
        lines.append(f"{name}: {', '.join(parts)}")
    slow = [n for n in (200, 2000) if f"uniform/{n}/bleu" in estimates]
    if slow:
        parts = (f"{n}: {estimates[f'uniform/{n}/bleu'].format(1)}" for n in slow)
        lines.append(f"uniform at more steps, {', '.join(parts)}")
    lines.append(f"adaptive minus uniform: {estimates['gain'].format(2, sign=True)}")
    return "\n".join(lines)


def _describe_penalty(estimates: Estimates) -> str:
    lines = [
        "distance of estimates at neighbouring timesteps without the penalty "
        f"{estimates['without/distance'].format(4)}, with it "
        f"{estimates['with/distance'].format(4)}: {estimates['apart'].format(0)} % less"
    ]
    for arm in ARMS:
        parts = (f"{estimates[f'{arm}/{n}/bleu'].format(1)}" for n in STEPS)
        lines.append(f"BLEU-4 {arm} it at {', '.join(map(str, STEPS))} steps: {', '.join(parts)}")
    parts = (f"{n}: {estimates[f'penalty/{n}'].format(2, sign=True)}" for n in (10, 20))
    lines.append(f"with minus without, {', '.join(parts)}")
    return "\n".join(lines)


def _plot(estimates: Estimates, names: Sequence[str], title: str) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{name}/{n}/bleu"].mean for n in STEPS),
            spread=tuple(estimates[f"{name}/{n}/bleu"].spread for n in STEPS),
        )
        for name in names
    )
    return (
        Plot(
            title=title, kind="lines", x_label="steps", y_label="BLEU-4",
            x=tuple(map(str, STEPS)), panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="few_steps_schedule",
        system="diffusion",
        statement="With few steps, many of them should lie where there is much noise.",
        source="Bridge-Gap Diffusion, arXiv 2305.04465, Adaptive Decay Sampling",
        paper="QQP, 20 steps: BLEU-2 41.74, more than DiffuSeq with 2,000 (reported by others)",
        setting=f"{SETTING} One model, other lists of kept steps.",
        measure=measure_few_steps,
        describe=_describe_schedules,
        rule="In the mean over 4, 5, 10 and 20 steps, adaptive steps are better than uniform ones "
        "in BLEU-4, by more than the spread.",
        expected="not reproduced",
        group="few_steps",
        holds=adaptive_is_better,
        plot=lambda e: _plot(e, tuple(SCHEDULES), "Texts by kept steps"),
    ),
    Claim(
        id="few_steps_penalty",
        system="diffusion",
        statement="Distance Penalty draws estimates at like timesteps together.",
        source="Bridge-Gap Diffusion, arXiv 2305.04465, Distance Penalty",
        paper="no number could be had; a figure of distances",
        setting=f"{SETTING} Training goes on from one model with the penalty and without it, each "
        "row at two timesteps in both. Texts are made with adaptive steps.",
        measure=measure_few_steps,
        describe=_describe_penalty,
        rule="The distance is smaller with the penalty, by more than twice the spread.",
        expected="reproduced",
        group="few_steps",
        holds=penalty_draws_together,
        plot=lambda e: _plot(e, tuple(ARMS), "Texts after more training"),
    ),
)
