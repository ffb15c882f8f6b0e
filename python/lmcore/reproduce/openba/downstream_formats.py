"""Claim: each of the four fine-tunes of OpenBA learns its task in its format."""

from __future__ import annotations

import copy

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.answers import (
    find_right,
    learn_pairs,
    measure_answers,
    write_answers,
)
from lmcore.reproduce.openba.stages import SIZES, train_stages

_FORMATS = {
    "chat": "chat, what was told some turns before",
    "code": "code, a function of one line",
    "instruction_generation": "the instruction that a text answers",
    "tool_retrieval": "a search and what is made of its results",
}
_STAGES = ("before", "after")
_HALF = 50.0


def measure_formats(seed: int, size: Size) -> Measurement:
    """Returns how often answers in each format are right before and after its fine-tune.

    Args:
        seed: of the worlds and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<stage>/<format>`, answers that are right in per cent, and `<stage>/loss/
        <format>`, nats per token of an answer. `gain` is the smallest of the formats' shares after
        minus before, and `worst` the smallest share after.
    """
    stages = train_stages(seed, size)
    values: dict[str, float] = {}
    shown: dict[str, dict[str, str]] = {}
    for kind, (train, asked) in stages.tuning.items():
        tuned = copy.deepcopy(stages.after)
        learn_pairs(tuned, train, stages.corpus, seed=seed, steps=SIZES[size].tuning_steps)
        source, right = (stages.words.decode(part.tolist()) for part in asked[0])
        shown[source] = {"right": right}
        for stage, model in zip(_STAGES, (stages.after, tuned), strict=True):
            values[f"{stage}/{kind}"] = 100 * float(find_right(model, asked, stages.corpus).mean())
            values[f"{stage}/loss/{kind}"] = measure_answers(model, asked, stages.corpus)
            [ids] = write_answers(model, asked, stages.corpus, count=1)
            shown[source][stage] = stages.words.decode(ids)
    values["gain"] = min(values[f"after/{kind}"] - values[f"before/{kind}"] for kind in _FORMATS)
    values["worst"] = min(values[f"after/{kind}"] for kind in _FORMATS)
    return Measurement(values=values, texts=shown)


def every_format_is_learned(estimates: Estimates) -> bool:
    """Returns whether most answers in each format are right, and more than before.

    Args:
        estimates: the numbers of `measure_formats`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread and estimates["worst"].mean > _HALF


def _describe(estimates: Estimates) -> str:
    lines = ["answers that are right, %, and nats per token of an answer: before; after"]
    for kind, name in _FORMATS.items():
        found = (
            f"{estimates[f'{stage}/{kind}'].format(1)}, "
            f"{estimates[f'{stage}/loss/{kind}'].format(3)}"
            for stage in _STAGES
        )
        lines.append(f"{name}: {'; '.join(found)}")
    lines.append(
        f"least gain: {estimates['gain'].format(1, sign=True)}; least share after: "
        f"{estimates['worst'].format(1)}"
    )
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=stage,
            y=tuple(estimates[f"{stage}/{kind}"].mean for kind in _FORMATS),
            spread=tuple(estimates[f"{stage}/{kind}"].spread for kind in _FORMATS),
        )
        for stage in _STAGES
    )
    return (
        Plot(
            title="Answers before and after each fine-tune", kind="bars", x_label="format",
            y_label="right, %", x=tuple(kind.replace("_", " ") for kind in _FORMATS),
            panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="downstream_formats",
        system="openba",
        statement="Each of the four fine-tuning formats is learned.",
        source="OpenBA, arXiv 2309.10706, OpenBA-Chat, -Code, -InstructGen and -Tool",
        paper="examples and no numbers",
        setting=(
            "The small OpenBA of the rows on instructions, after its stage of instructions. It is "
            "trained on generated rows in each of the formats, each time from there: dialogues "
            "that ask for what was told some turns before, functions of two operations, the "
            "instruction that a sentence answers, and a search and the answer in its results. "
            "Asked is what was not trained on; an answer is right if each token is."
        ),
        measure=measure_formats,
        describe=_describe,
        rule="In each of the four, more than half of the answers are right after its training, and "
        "more than before by more than the spread of the least gain.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group="instructions",
        holds=every_format_is_learned,
        plot=_plot,
    ),
)
