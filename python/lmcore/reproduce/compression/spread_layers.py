"""Claim: layers that are cut far from each other hurt less than neighbours."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.compression.recovering import GROUP, QUICK, train_on_words
from lmcore.reproduce.openba.pretraining import SCALES, Scale

_SCALES: dict[Size, Scale] = {
    "tiny": replace(SCALES["tiny"], decoder_layers=6),
    "quick": QUICK.scale,
    "full": replace(SCALES["full"], decoder_layers=12, steps=600),
}
_CUT: dict[Size, int] = {"tiny": 2, "quick": 4, "full": 6}
_LAYOUTS = {"spread": "spread out", "adjacent": "side by side", "last": "the last ones"}


def measure_layouts(seed: int, size: Size) -> Measurement:
    """Returns the losses of a small OpenBA right after layers of its decoder were cut.

    Args:
        seed: of the texts and of training.
        size: of the model, and how many steps.

    Returns:
        Values named by where the layers lay, `none` for the whole model: nats per target token,
        the mean of all seven denoisers; `gain` is how much less the model loses whose layers were
        spread out than the one whose layers were neighbours.
    """
    from lmcore.compression import Plan, Stage, prune_folder, start_plan
    from lmcore.compression.choosing import choose_layers
    from lmcore.openba import OpenBAForConditionalGeneration
    from lmcore.openba.objective import measure_losses
    from lmcore.training.checkpoint import no_bars

    scale = _SCALES[size]
    run, corpus, _ = train_on_words(seed, scale)
    layers, keep = range(scale.decoder_layers), scale.decoder_layers - _CUT[size]
    kept = {name: choose_layers(layers, keep, name) for name in ("spread", "adjacent")}
    kept["last"] = tuple(layers[:keep])
    values = {"none": run.evaluate(*corpus.denoisers)["loss"]}
    with tempfile.TemporaryDirectory() as name, no_bars():
        folder = Path(name, "whole")
        run.model.save_pretrained(folder)
        whole: Plan = start_plan(folder)
        for layout, numbers in kept.items():
            plan = replace(whole, stages=(Stage(decoder_layers=numbers),))
            prune_folder(folder, Path(name, layout), plan)
            model = OpenBAForConditionalGeneration.from_pretrained(Path(name, layout)).eval()
            losses = measure_losses(
                model, corpus.test, denoisers=corpus.denoisers, ids=corpus.ids, batch_size=64
            )
            values[layout] = losses["loss"]
    values["gain"] = values["adjacent"] - values["spread"]
    return Measurement(values=values)


def spread_loses_less(estimates: Estimates) -> bool:
    """Returns whether cutting spread layers costs less, by more than the spread of the seeds.

    Args:
        estimates: the numbers of `measure_layouts`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = [
        "nats per target token, mean of seven denoisers",
        f"before: {estimates['none'].format(3)}",
    ]
    lines += [f"cut {name}: {estimates[key].format(3)}" for key, name in _LAYOUTS.items()]
    lines.append(f"side by side minus spread out: {estimates['gain'].format(3, sign=True)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    names = {"none": "nothing cut", **_LAYOUTS}
    series = Series(
        name="loss",
        y=tuple(estimates[key].mean for key in names),
        spread=tuple(estimates[key].spread for key in names),
    )
    return (
        Plot(
            title="Loss right after layers were cut", kind="bars", x_label="where they lay",
            y_label="nats per target token", x=tuple(names.values()),
            panels=(Panel(title="", series=(series,)),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="spread_layers",
        system="compression",
        statement="Layers that are cut far from each other hurt less than neighbours.",
        source="OpenBA-V2, arXiv 2405.05957, section 4.1.1",
        paper=(
            "preliminary experiments without numbers: layers in the middle hurt less than those at "
            "the ends, and layers with larger gaps between them less than close ones"
        ),
        setting=(
            "A small OpenBA trained from nothing on a generated English and Chinese corpus; "
            "half of the layers of its decoder are cut, and nothing is trained again."
        ),
        measure=measure_layouts,
        describe=_describe,
        rule="Spread out, the loss right after the cut is lower by more than the spread.",
        expected="reproduced",
        group=GROUP,
        holds=spread_loses_less,
        plot=_plot,
    ),
)
