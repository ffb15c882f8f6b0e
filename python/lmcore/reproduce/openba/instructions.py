"""Claims: the third stage teaches to answer, and after it the prefix hardly matters."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.answers import (
    find_right,
    measure_answers,
    write_answers,
)
from lmcore.reproduce.openba.pretraining import Corpus, under
from lmcore.reproduce.openba.stages import train_stages
from lmcore.worlds.openba.tasks import GUESSES, Row

if TYPE_CHECKING:
    from lmcore.openba.pairs import Pairs

_STAGES = ("before", "after")
_LANGUAGES = {"en": "English", "zh": "Chinese"}
_SHOWN = 3  # questions whose answers the report has


@functools.cache
def measure_instructions(seed: int, size: Size) -> Measurement:
    """Returns how often answers are right before and after the third stage, and what prefixes cost.

    Args:
        seed: of the world and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<stage>/<language>/<task>` and `<stage>/<language>`, answers that are right
        in per cent; `<stage>/loss/<prefix>`, nats per token of an answer, and `<stage>/text/
        <prefix>`, of the end of a text (S); `after/right/<prefix>`, answers that are right of all.
        `least` is the smallest of all tasks' shares after the stage minus the larger of the share
        before and that of a guess; `range/<stage>` is the largest minus the smallest of the three
        losses of answers, and `shrink` how much smaller it is after.
    """
    stages = train_stages(seed, size)
    asked, corpus = stages.asked, stages.corpus
    values: dict[str, float] = {}
    shown: dict[str, dict[str, str]] = {}
    for stage, model in zip(_STAGES, (stages.before, stages.after), strict=True):
        values |= _score(stage, model, asked, stages.rows, corpus)
        written = write_answers(model, asked, corpus, count=_SHOWN)
        for row, ids in zip(stages.rows, written, strict=False):
            shown.setdefault(row.source, {"right": row.target})[stage] = stages.words.decode(ids)
    for prefix in "RSX":
        values[f"after/right/{prefix}"] = 100 * float(
            find_right(stages.after, asked, corpus, prefix).mean()
        )
    values["least"] = min(
        values[f"after/{language}/{task}"] - max(values[f"before/{language}/{task}"], 100 * guess)
        for language in _LANGUAGES
        for task, guess in GUESSES.items()
    )
    values["shrink"] = values["range/before"] - values["range/after"]
    return Measurement(values=values, texts=shown)


def _score(
    stage: str, model: Any, asked: Pairs, rows: Sequence[Row], corpus: Corpus
) -> dict[str, float]:
    from lmcore.openba.objective import measure_losses

    right = find_right(model, asked, corpus)
    values = {}
    for language in _LANGUAGES:
        ours = np.array([row.language == language for row in rows])
        values[f"{stage}/{language}"] = 100 * float(right[ours].mean())
        for task in GUESSES:
            chosen = ours & np.array([row.task == task for row in rows])
            values[f"{stage}/{language}/{task}"] = 100 * float(right[chosen].mean())
    for prefix, id_ in corpus.prefixes.items():
        values[f"{stage}/loss/{prefix}"] = measure_answers(model, asked, corpus, prefix)
        ends = under(corpus.denoisers[2], id_)
        values[f"{stage}/text/{prefix}"] = measure_losses(
            model, corpus.test, denoisers=(ends,), ids=corpus.ids, batch_size=64
        )["loss"]
    losses = [values[f"{stage}/loss/{prefix}"] for prefix in corpus.prefixes]
    values[f"range/{stage}"] = max(losses) - min(losses)
    return values


def every_task_is_learned(estimates: Estimates) -> bool:
    """Returns whether each task is answered better than before and than by a guess.

    Args:
        estimates: the numbers of `measure_instructions`.
    """
    least = estimates["least"]
    return least.mean > least.spread


def prefix_matters_less(estimates: Estimates) -> bool:
    """Returns whether the losses under the three prefixes lie nearer together after the stage.

    Args:
        estimates: the numbers of `measure_instructions`.
    """
    shrink = estimates["shrink"]
    return shrink.mean > shrink.spread


def _describe_answers(estimates: Estimates) -> str:
    lines = ["answers that are right, %: before; after the third stage"]
    for language, name in _LANGUAGES.items():
        for task in ("", *GUESSES):
            key = f"{language}/{task}".rstrip("/")
            found = (estimates[f"{stage}/{key}"].format(1) for stage in _STAGES)
            lines.append(f"{name}, {task or 'all'}: {'; '.join(found)}")
    least = estimates["least"].format(1, sign=True)
    lines.append(f"least gain of a task, or over a guess where that is more: {least}")
    return "\n".join(lines)


def _describe_prefix(estimates: Estimates) -> str:
    lines = ["nats per token of an answer; of the end of a text (S); under <R>, <S> and <X>"]
    for stage in _STAGES:
        parts = (
            ", ".join(estimates[f"{stage}/{kind}/{prefix}"].format(3) for prefix in "RSX")
            for kind in ("loss", "text")
        )
        lines.append(f"{stage}: {'; '.join(parts)}")
    ranges = (estimates[f"range/{stage}"].format(3) for stage in _STAGES)
    lines.append(f"range of the answers' losses: before {', after '.join(ranges)}")
    right = ", ".join(estimates[f"after/right/{prefix}"].format(1) for prefix in "RSX")
    lines.append(f"answers that are right after the stage, %: {right}")
    lines.append(f"range before minus after: {estimates['shrink'].format(3, sign=True)}")
    return "\n".join(lines)


def _plot_answers(estimates: Estimates) -> tuple[Plot, ...]:
    panels = tuple(
        Panel(
            title=name,
            series=tuple(
                Series(
                    name=stage,
                    y=tuple(estimates[f"{stage}/{language}/{task}"].mean for task in GUESSES),
                    spread=tuple(
                        estimates[f"{stage}/{language}/{task}"].spread for task in GUESSES
                    ),
                )
                for stage in _STAGES
            ),
        )
        for language, name in _LANGUAGES.items()
    )
    return (
        Plot(
            title="Answers before and after the third stage", kind="bars", x_label="task",
            y_label="right, %", x=tuple(GUESSES), panels=panels,
        ),
    )  # fmt: skip


_SETTING = (
    "An OpenBA of one encoder layer and two decoder layers, trained from nothing with all seven "
    "denoisers on generated English and Chinese texts, and then on instructions about other such "
    "texts, in the S format: where somebody lived, what she was, who lived in a place, how the "
    "text ends, and its first sentence in the other language. Asked are instructions about texts "
    "that no stage has seen."
)


CLAIMS = (
    Claim(
        id="instructions_answers",
        system="openba",
        statement="After a stage of instructions a model answers them, in both languages.",
        source="OpenBA, arXiv 2309.10706, section 4.1, stage III",
        paper="benchmarks of the last model alone",
        setting=f"{_SETTING} An answer that is written greedily is right if each token is.",
        measure=measure_instructions,
        describe=_describe_answers,
        rule="Of each task in each language, more answers are right than before, and than one of "
        "16 names, 16 places or 8 roles that is guessed, by more than the spread of the least "
        "gain.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group="instructions",
        holds=every_task_is_learned,
        plot=_plot_answers,
    ),
    Claim(
        id="instructions_prefix",
        system="openba",
        statement="After the stage of instructions the prefix matters less.",
        source="OpenBA, arXiv 2309.10706, section 5 and figure 6d",
        paper="the prefix changes MMLU during pre-training, and hardly after it (curves only)",
        setting=f"{_SETTING} The same answers are asked for under each of the three prefixes; in "
        "training on instructions there is <S> alone.",
        measure=measure_instructions,
        describe=_describe_prefix,
        rule="The largest minus the smallest of the three losses of answers is smaller after the "
        "stage, by more than the spread of that difference.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group="instructions",
        holds=prefix_matters_less,
    ),
)
