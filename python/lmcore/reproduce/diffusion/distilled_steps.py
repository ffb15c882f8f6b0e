"""Claim: a distilled model makes in one to four steps what another one needs more steps for."""

from __future__ import annotations

import tempfile
from pathlib import Path

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.diffusion.paraphrasing import (
    SETTING,
    Scale,
    keep_steps,
    list_pairs,
    make_config,
    name_scores,
    sample_texts,
    train_run,
)

_STEPS = (4, 2, 1)
_FIRST = 16
_HALVINGS = 4
_SPACINGS = ("uniform", "adaptive")
_ARMS = {
    "uniform": "uniform steps",
    "adaptive": "adaptive steps",
    "longer": "adaptive steps after as much more training",
    "distilled/uniform": "distilled for uniform steps",
    "distilled/adaptive": "distilled for adaptive steps",
}
_SCALES: dict[Size, Scale] = {
    "tiny": Scale(pairs=60, tests=10, steps=4, more_steps=4, batch_size=8, hidden_size=16),
    "full": Scale(pairs=20_000, tests=500, steps=400, more_steps=400),
}


def measure_distilled_steps(seed: int, size: Size) -> Measurement:
    """Returns how good texts of 1, 2 and 4 steps are with and without distillation.

    Args:
        seed: of the pairs, of training and of the noise.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/<steps>/good` and `.../bleu`, in per cent, and `teacher/20/...`; `gain`
        is BLEU-4 of what was distilled for adaptive steps minus that of the model that was trained
        as much longer, the mean over 1, 2 and 4 steps.
    """
    from lmcore.diffusion.distillation import DistillationRun
    from lmcore.diffusion.recipes import distilled
    from lmcore.diffusion.sampling import Sampler
    from lmcore.diffusion.tokenization import make_bert_tokenizer
    from lmcore.training.config import change
    from lmcore.worlds.diffusion import list_tokens, make_world

    scale = _SCALES[size]
    world = make_world(seed, pairs=scale.pairs + scale.tests).pairs
    tokenizer, tests = make_bert_tokenizer(list_tokens()), world[scale.pairs :]
    pairs = list_pairs(world[: scale.pairs])
    config = make_config(seed, scale)
    run = train_run(config, pairs, tokenizer, scale.steps)
    values = name_scores("teacher/20", sample_texts(run, tests, keep_steps("adaptive", 20), seed))
    for arm in ("uniform", "adaptive"):
        for steps in _STEPS:
            kept = keep_steps(arm, steps) if steps > 1 else [1999]
            values |= name_scores(f"{arm}/{steps}", sample_texts(run, tests, kept, seed))
    with tempfile.TemporaryDirectory() as folder:
        run.save_model(Path(folder))
        more = {"loop.steps": scale.more_steps, "schedule.warmup_steps": 0, "optimizer.lr": 1e-3}
        more["loop.seed"] = config.loop.seed + 1000
        longer = train_run(
            change(config, {**more, "model": folder}), pairs, tokenizer, scale.more_steps
        )
        for steps in _STEPS:
            kept = keep_steps("adaptive", steps) if steps > 1 else [1999]
            values |= name_scores(f"longer/{steps}", sample_texts(longer, tests, kept, seed))
        for spacing in _SPACINGS:
            plan = {"distill.first_steps": _FIRST, "distill.halvings": _HALVINGS}
            settings = change(
                distilled(change(config, more), folder), {**plan, "distill.spacing": spacing}
            )
            student = DistillationRun(settings, pairs, tokenizer=tokenizer)
            for step in range(1, scale.more_steps + 1):
                student.step(step)
                if step % student.steps_per_halving == 0 and student.process.steps in _STEPS:
                    found = sample_texts(
                        student, tests, student.process.timestep_map.tolist(), seed,
                        Sampler(solver="ddim", clamp=False),
                    )  # fmt: skip
                    values |= name_scores(f"distilled/{spacing}/{student.process.steps}", found)
    values["gain"] = sum(
        values[f"distilled/adaptive/{n}/bleu"] - values[f"longer/{n}/bleu"] for n in _STEPS
    ) / len(_STEPS)
    return Measurement(values=values)


def distilled_is_better(estimates: Estimates) -> bool:
    """Returns whether distillation gains more than as much more training, beyond the spread.

    Args:
        estimates: the numbers of `measure_distilled_steps`.
    """
    return estimates["gain"].mean > estimates["gain"].spread


def _describe(estimates: Estimates) -> str:
    teacher = estimates["teacher/20/bleu"].format(1)
    lines = [f"BLEU-4 (good answers, %) at 4, 2, 1 steps; before, at 20 steps {teacher}"]
    for arm, name in _ARMS.items():
        parts = (
            f"{estimates[f'{arm}/{n}/bleu'].format(1)} ({estimates[f'{arm}/{n}/good'].mean:.0f})"
            for n in _STEPS
        )
        lines.append(f"{name}: {', '.join(parts)}")
    lines.append(f"distilled minus trained longer: {estimates['gain'].format(2, sign=True)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{arm}/{n}/bleu"].mean for n in _STEPS),
            spread=tuple(estimates[f"{arm}/{n}/bleu"].spread for n in _STEPS),
        )
        for arm, name in _ARMS.items()
    )
    return (
        Plot(
            title="Texts of very few steps", kind="lines", x_label="steps", y_label="BLEU-4",
            x=tuple(map(str, _STEPS)), panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="distilled_steps",
        system="diffusion",
        statement="Distilled step by step, a model needs one to four steps.",
        source="beyond the paper; Salimans and Ho, arXiv 2202.00512",
        paper="none for text; images keep their quality down to four steps",
        setting=f"{SETTING} The number of steps is halved from {_FIRST} to 1; what is held against "
        "it has been trained for as many more steps.",
        measure=measure_distilled_steps,
        describe=_describe,
        rule="In the mean over 4, 2 and 1 steps, BLEU-4 is higher after distillation than after as "
        "much more training, by more than the spread.",
        expected="not reproduced",
        sizes=("tiny", "full"),
        holds=distilled_is_better,
        plot=_plot,
    ),
)
