"""Claim: right after a cut, a choice by scores loses less than one that was drawn."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.compression.recovering import CALIBRATION, write_corpus
from lmcore.reproduce.openba.pretraining import SCALES, Corpus, Pretraining, Scale

_WIDTHS = {
    "heads": "half of the heads",
    "ffn": "half of the inner units",
    "hidden": "a quarter of the channels",
}
_METHODS = ("random", "magnitude", "activation", "taylor")
_LAYERS = {"spread": "spread out", "block_influence": "block influence"}
_SCALES: dict[Size, Scale] = {
    "tiny": replace(SCALES["tiny"], decoder_layers=4),
    "full": replace(SCALES["full"], steps=600),
}


def measure_methods(seed: int, size: Size) -> Measurement:
    """Returns the losses of a small OpenBA right after cuts that were chosen in several ways.

    Args:
        seed: of the texts, of training and of what is drawn.
        size: of the model, and how many steps.

    Returns:
        Values named `<dimension>/<method>`, and `none` for the whole model: nats per target token,
        the mean of all seven denoisers; `<dimension>/gain` is how much less the choice by
        gradients (of layers that by block influence) loses than the paper's.
    """
    from lmcore.compression import Sizes, add_chosen_stage, score_model, start_plan
    from lmcore.compression.choosing import draw_scores
    from lmcore.compression.importance import Calibration
    from lmcore.training.checkpoint import no_bars

    scale = _SCALES[size]
    with tempfile.TemporaryDirectory() as name, no_bars():
        folder, whole = Path(name), Path(name, "whole")
        corpus = write_corpus(seed, scale, whole, folder / "text.txt", CALIBRATION)
        run = Pretraining(seed, scale, corpus, corpus.denoisers).train()
        run.model.save_pretrained(whole)
        values = {"none": run.evaluate(*corpus.denoisers)["loss"]}
        plan = start_plan(whole)
        calibration = Calibration(text=folder / "text.txt", device="cpu")
        shape = plan.shape
        sizes = {
            "heads": Sizes(heads=shape.heads // 2),
            "ffn": Sizes(ffn=shape.inner_size // 2),
            "hidden": Sizes(hidden=shape.hidden_size * 3 // 4),
            "layers": Sizes(decoder_layers=shape.decoder_layers * 2 // 3),
        }
        for method in (*_METHODS, *_LAYERS):
            scores = draw_scores(shape, seed)
            if method not in ("random", "spread"):
                scores = score_model(whole, method, calibration, plan=plan).scores
            for dimension in ("layers",) if method in _LAYERS else _WIDTHS:
                small, _ = add_chosen_stage(plan, sizes[dimension], scores=scores, method=method)
                values[f"{dimension}/{method}"] = _measure(
                    whole, folder / f"{dimension} {method}", small, corpus
                )
    for dimension in _WIDTHS:
        values[f"{dimension}/gain"] = values[f"{dimension}/random"] - values[f"{dimension}/taylor"]
    values["layers/gain"] = values["layers/spread"] - values["layers/block_influence"]
    return Measurement(values=values)


def _measure(whole: Path, target: Path, plan: Any, corpus: Corpus) -> float:
    from lmcore.compression import prune_folder
    from lmcore.openba import OpenBAForConditionalGeneration
    from lmcore.openba.objective import measure_losses

    prune_folder(whole, target, plan)
    model = OpenBAForConditionalGeneration.from_pretrained(target).eval()
    losses = measure_losses(
        model, corpus.test, denoisers=corpus.denoisers, ids=corpus.ids, batch_size=64
    )
    return float(losses["loss"])


def gradients_lose_less(estimates: Estimates) -> bool:
    """Returns whether gradients choose better than chance in all widths, by more than the spread.

    Args:
        estimates: the numbers of `measure_methods`.
    """
    gains = [estimates[f"{dimension}/gain"] for dimension in _WIDTHS]
    return all(gain.mean > gain.spread for gain in gains)


def _describe(estimates: Estimates) -> str:
    lines = [f"nats per target token, before: {estimates['none'].format(2)}"]
    for dimension, name in _WIDTHS.items():
        losses = (f"{m} {estimates[f'{dimension}/{m}'].format(2)}" for m in _METHODS)
        lines.append(f"without {name}: {', '.join(losses)}")
    losses = (f"{name} {estimates[f'layers/{m}'].format(2)}" for m, name in _LAYERS.items())
    lines.append(f"without a third of the decoder's layers: {', '.join(losses)}")
    return "\n".join(lines)


def plot_methods(
    estimates: Estimates, methods: Iterable[str], places: Mapping[str, str], title: str, label: str
) -> tuple[Plot, ...]:
    """Returns bars of losses, a colour for each way of choosing.

    Args:
        estimates: losses named `<place>/<method>`.
        methods: ways of choosing.
        places: what stands below the bars, by the names of places.
        title: of the picture.
        label: of its x axis.
    """
    series = tuple(
        Series(
            name=method,
            y=tuple(estimates[f"{place}/{method}"].mean for place in places),
            spread=tuple(estimates[f"{place}/{method}"].spread for place in places),
        )
        for method in methods
    )
    return (
        Plot(
            title=title, kind="bars", x_label=label, y_label="nats per target token",
            x=tuple(places.values()), panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    return plot_methods(estimates, _METHODS, _WIDTHS, "Loss right after the cut", "what was cut")


CLAIMS = (
    Claim(
        id="importance",
        system="compression",
        statement="Right after a cut, a choice by scores loses less than one that was drawn.",
        source="OpenBA-V2, arXiv 2405.05957, section 4",
        paper=(
            "draws what is kept: criteria make little difference once the model is trained again "
            "(cited from others, no numbers)"
        ),
        setting=(
            "A small OpenBA trained from nothing on a generated English and Chinese corpus. One "
            "dimension is cut at a time, by each method, and nothing is trained again. Scores come "
            "from generated documents that nothing else reads."
        ),
        measure=measure_methods,
        describe=_describe,
        rule="Of heads, inner units and channels alike: by gradients, the loss is lower than by "
        "chance by more than the spread.",
        expected="not reproduced",
        sizes=("tiny", "full"),
        holds=gradients_lose_less,
        plot=_plot,
    ),
)
