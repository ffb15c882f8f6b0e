"""Claim: after a short second stage a model reads and writes twice the length of the first one.

Two runs go on as long at the old length: one with the seven denoisers of before, and one with the
second stage's own, half of a text. What the first gains is of more training, and what the second
gains, of the other denoiser: only what lies beyond both is of the length.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.ops.denoising import Denoiser
from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.pretraining import (
    PEAK,
    SCALES,
    Corpus,
    Pretraining,
    Scale,
    generate_corpus,
    learn,
)

# Half of four times as many tokens: the encoder's rows become twice as long, as with 1,027 ids in
# place of 570, and the decoder's three times, as with 1,025 in place of 381.
_TIMES = 4
# Of the first stage's step size: 4e-5 of 1e-4, which falls to 1e-5.
_SHARE, _FINAL = 0.4, 0.25
_ARMS = {
    "before": "before",
    "longer": "as long on, as before",
    "halves": "as long on, with half of a text of the old length",
    "adapted": "length adaptation",
}
_CONTROLS = ("before", "longer", "halves")
_TASKS = ("long", "short", "mixture")


@dataclass(kw_only=True, slots=True, frozen=True)
class _Sizes:
    """Of the experiment."""

    scale: Scale
    """Of the first stage."""
    steps: int
    """Of the second stage, and of the runs that are held against it."""


_SIZES: dict[Size, _Sizes] = {
    "tiny": _Sizes(scale=SCALES["tiny"], steps=2),
    "quick": _Sizes(
        scale=replace(SCALES["quick"], steps=160, documents=10_000, tests=256), steps=60
    ),
    "full": _Sizes(scale=replace(SCALES["quick"], steps=1200, tests=512), steps=300),
}


def measure_length_adaptation(seed: int, size: Size) -> Measurement:
    """Returns the losses before and after a second stage at twice the length.

    Args:
        seed: of the world and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/long`, half of texts that are four times as long as those of the first
        stage, `<arm>/short`, the end of its texts (S), and `<arm>/mixture`, the mean over its
        seven denoisers; nats per target token of texts that are held out. `gain` is how much less
        the adapted model loses on `long` than the best of the others.
    """
    from lmcore.openba import DenoisedBatches

    sizes = _SIZES[size]
    scale = sizes.scale
    corpus = generate_corpus(seed, scale)
    first = Pretraining(seed, scale, corpus, corpus.denoisers).train()
    half = Denoiser(
        name="S_50", kind="fixed_suffix", density=0.5, prefix=corpus.prefixes["S"]
    )  # fmt: skip
    values = _evaluate("before", first.model, corpus, half)
    arms: dict[str, tuple[NDArray[np.int64], int, tuple[Denoiser, ...]]] = {
        "longer": (corpus.train, scale.batch_size, corpus.denoisers),
        "halves": (corpus.train, scale.batch_size, (half,)),
        # As many tokens of text in each step.
        "adapted": (_join(corpus.train), scale.batch_size // _TIMES, (half,)),
    }
    for arm, (texts, batch_size, denoisers) in arms.items():
        model = copy.deepcopy(first.model)
        batches = DenoisedBatches(
            texts, batch_size, batch_size, seed=seed + 1000, denoisers=denoisers, ids=corpus.ids,
            threads=1,
        )  # fmt: skip
        learn(model, batches, sizes.steps, lr=_SHARE * PEAK, final=_FINAL)
        values |= _evaluate(arm, model, corpus, half)
    values["gain"] = min(values[f"{arm}/long"] for arm in _CONTROLS) - values["adapted/long"]
    return Measurement(values=values)


def _join(groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Texts of several groups that follow each other."""
    count = len(groups) // _TIMES
    return groups[: count * _TIMES].reshape(count, -1)


def _evaluate(arm: str, model: Any, corpus: Corpus, half: Denoiser) -> dict[str, float]:
    from lmcore.openba.objective import measure_losses

    model.eval()
    given: dict[str, Any] = {"ids": corpus.ids, "batch_size": 32}
    short = measure_losses(model, corpus.test, denoisers=corpus.denoisers, **given)
    long = measure_losses(model, _join(corpus.test), denoisers=(half,), **given)
    return {
        f"{arm}/long": long["loss"],
        f"{arm}/short": short["loss_S"],
        f"{arm}/mixture": short["loss"],
    }


def adapted_loses_least(estimates: Estimates) -> bool:
    """Returns whether the adapted model loses least at twice the length, by more than the spread.

    Args:
        estimates: the numbers of `measure_length_adaptation`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = [
        "loss at twice the length; at the old length on S; on the mean of all seven; nats per "
        "target token"
    ]
    for arm, name in _ARMS.items():
        found = (estimates[f"{arm}/{task}"].format(3) for task in _TASKS)
        lines.append(f"{name}: {'; '.join(found)}")
    gain = estimates["gain"].format(3, sign=True)
    lines.append(f"adapted below the best of the others, at twice the length: {gain}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{arm}/{task}"].mean for task in _TASKS),
            spread=tuple(estimates[f"{arm}/{task}"].spread for task in _TASKS),
        )
        for arm, name in _ARMS.items()
    )
    return (
        Plot(
            title="Loss of held-out texts",
            kind="bars",
            x_label="what is to be written",
            y_label="nats per target token",
            x=("half, twice the length", "the end (S), old length", "all seven, old length"),
            panels=(Panel(title="", series=series),),
        ),
    )


CLAIMS = (
    Claim(
        id="length_adaptation",
        system="openba",
        statement="A short second stage at twice the length makes a model good at that length.",
        source="OpenBA, arXiv 2309.10706, section 4.1, stage II",
        paper="no numbers: 1024 and 1024 tokens after 570 and 380, S alone, half of the text",
        setting=(
            "An OpenBA of one encoder layer and two decoder layers, trained from nothing with all "
            "seven denoisers on generated English and Chinese texts of 64 tokens. It goes on for "
            "some steps with half of texts of 256 tokens, so that the encoder's rows are twice and "
            "the decoder's three times as long; or for as many steps of as many tokens at the old "
            "length, with the denoisers of before or with half of a text. Asked is half of texts "
            "of 256 tokens that are held out."
        ),
        measure=measure_length_adaptation,
        describe=_describe,
        rule="The loss at twice the length is below that of the model before, and below both runs "
        "that went on at the old length, by more than the spread of the smallest difference.",
        expected="reproduced",
        holds=adapted_loses_least,
        plot=_plot,
    ),
)
