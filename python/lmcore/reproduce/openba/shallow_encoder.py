"""Claims: a shallow encoder and a deep decoder are best on S; a balanced model is on the mixture.

Layers are counted as the paper counts them, and once more at equal numbers of weights: a layer of
a decoder has an attention more than one of an encoder, so that equal layers are not equal models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.pretraining import (
    SCALES,
    Corpus,
    Pretraining,
    Scale,
    generate_corpus,
    read_corpus,
)

_SHAPES = {"2/6": (2, 6), "4/4": (4, 4), "6/2": (6, 2)}
_TINY = {"2/6": (1, 2), "4/4": (1, 1), "6/2": (2, 1)}
_TASKS = ("S", "mixture")


def measure_depth(corpus: Callable[[int, Scale], Corpus], seed: int, size: Size) -> Measurement:
    """Returns the losses of three depths, at equal layers and at equal numbers of weights.

    Args:
        corpus: (seed, scale) to what is read.
        seed: of the texts and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<count>/<depth>/<denoiser>`, where count is `layers` or `weights`, nats per
        target token; `<count>/S` is how much less 2/6 loses on S than the better one of the
        others, and `<count>/mixture` the same for 4/4 on the mixture.
    """
    scale = SCALES[size]
    texts = corpus(seed, scale)
    values = {}
    for count in ("layers", "weights"):
        for name, (encoder, decoder) in (_TINY if size == "tiny" else _SHAPES).items():
            shape = replace(scale, encoder_layers=encoder, decoder_layers=decoder)
            if count == "weights":
                shape = replace(shape, inner_size=_equalize(shape, scale))
            run = Pretraining(seed, shape, texts, texts.denoisers).train()
            for task, loss in run.evaluate(*texts.denoisers).items():
                task = "mixture" if task == "loss" else task.removeprefix("loss_")
                values[f"{count}/{name}/{task}"] = loss
        for task, best in (("S", "2/6"), ("mixture", "4/4")):
            others = [values[f"{count}/{name}/{task}"] for name in _SHAPES if name != best]
            values[f"{count}/{task}"] = min(others) - values[f"{count}/{best}/{task}"]
    return Measurement(values=values)


def _equalize(shape: Scale, scale: Scale) -> int:
    """The inner size with which a shape has the weights of the balanced one, as nearly as can be.

    The feed-forward has 3 h weights for each of its inner size, an attention 4 h**2 and biases.
    """
    layers = shape.encoder_layers + shape.decoder_layers
    balanced = layers / 2
    attention = 4 * scale.hidden_size + 6
    more = (shape.decoder_layers - balanced) * attention
    return max(1, round(scale.inner_size - more / (3 * layers)))


def measure_generated(seed: int, size: Size) -> Measurement:
    """Returns what `measure_depth` does, on generated texts."""
    return measure_depth(generate_corpus, seed, size)


def measure_real(seed: int, size: Size) -> Measurement:
    """Returns what `measure_depth` does, on lines of Shakespeare, a Chinese novel and headlines."""
    return measure_depth(read_corpus, seed, size)


def shallow_wins_suffix(estimates: Estimates) -> bool:
    """Returns whether 2/6 loses least on S, by more than the spread, at equal layers.

    Args:
        estimates: the numbers of `measure_depth`.
    """
    gain = estimates["layers/S"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = ["loss on S; on the mean of all seven; nats per target token"]
    for count in ("layers", "weights"):
        for name in _SHAPES:
            found = (estimates[f"{count}/{name}/{task}"].format(3) for task in _TASKS)
            lines.append(f"{name} at equal {count}: {'; '.join(found)}")
        for task, best in (("S", "2/6"), ("mixture", "4/4")):
            gain = estimates[f"{count}/{task}"]
            seen = "" if abs(gain.mean) > gain.spread else ", not visible at this size"
            shown = f"{best} on {task} below the others: {gain.format(3, sign=True)}{seen}"
            lines.append(f"at equal {count}, {shown}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    tasks = ("R3", "R8", "S", "X3", "X8", "X64_15", "X64_50", "mixture")
    panels = tuple(
        Panel(
            title=f"equal {count}",
            series=tuple(
                Series(
                    name=name,
                    y=tuple(estimates[f"{count}/{name}/{task}"].mean for task in tasks),
                    spread=tuple(estimates[f"{count}/{name}/{task}"].spread for task in tasks),
                )
                for name in _SHAPES
            ),
        )
        for count in ("layers", "weights")
    )
    return (
        Plot(
            title="Loss by denoiser", kind="bars", x_label="denoiser",
            y_label="nats per target token", x=tasks, panels=panels,
        ),
    )  # fmt: skip


_PAPER = (
    "18/6, 12/12 and 6/18 layers after 15,000 steps, losses of about 2.6 to 3.4 (curves only)\n"
    "S: 6/18 is best; mixture: 12/12 is best; 18/6 is worst in both, by 0.05 to 0.1"
)
_SETTING = (
    "OpenBA with 8 layers in all, trained from nothing with all seven denoisers {texts}, at equal "
    "layers and once more with the inner size of the feed-forward chosen for equal numbers of "
    "weights. Beside S, the mean over the denoisers is given."
)
_RULE = "At equal layers, 2/6 loses less on S than both others, by more than the spread."

CLAIMS = (
    Claim(
        id="shallow_encoder",
        system="openba",
        statement="A shallow encoder with a deep decoder is the best model of what comes next.",
        source="OpenBA, arXiv 2309.10706, section 5.1",
        paper=_PAPER,
        setting=_SETTING.format(texts="on a generated English and Chinese corpus"),
        measure=measure_generated,
        describe=_describe,
        rule=_RULE,
        expected="not reproduced",
        sizes=("tiny", "full"),
        holds=shallow_wins_suffix,
        plot=_plot,
    ),
    Claim(
        id="shallow_encoder_real",
        system="openba",
        statement="The same on real texts.",
        source="OpenBA, arXiv 2309.10706, section 5.1",
        paper=_PAPER,
        setting=_SETTING.format(
            texts="on lines of Shakespeare, of a Chinese novel and of Chinese headlines"
        ),
        measure=measure_real,
        describe=_describe,
        rule=_RULE,
        expected="reproduced",
        needs=("data:corpora", "data:tok"),
        sizes=("tiny", "full"),
        holds=shallow_wins_suffix,
        plot=_plot,
    ),
)
