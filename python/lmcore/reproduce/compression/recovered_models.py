"""Claims: a recovered model beats one of its size from scratch, and a teacher helps it.

All arms see as many tokens, in the same order.
"""

from __future__ import annotations

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.compression.recovering import (
    DENOISERS,
    GROUP,
    SIZES,
    cut_half,
    train_whole,
)
from lmcore.reproduce.openba.pretraining import PEAK

_ARMS = {
    "plain": "pruned, recovered",
    "distilled": "pruned, recovered with the whole model as teacher",
    "scratch": "of the same size, from scratch",
}
_PARTS = 6


def measure_scratch(seed: int, size: Size) -> Measurement:
    """Returns the losses of a recovered model, and of one that begins with drawn weights.

    Args:
        seed: of the texts, of training and of what is cut.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/<denoiser>` and `<arm>/loss`, the mean, nats per target token of texts
        that are held out; `<arm>/after/<n>` the mean of validation texts after n parts of the
        steps; `whole` and `cut`
        the means before; `gain`, how much more the drawn one loses.
    """
    return _measure(seed, size, "scratch", "plain")


def measure_distilled(seed: int, size: Size) -> Measurement:
    """Returns the losses of a model that recovers alone, and of one that has a teacher.

    Args:
        seed: of the texts, of training and of what is cut.
        size: of the model, and how many steps.

    Returns:
        Values as of `measure_scratch`; `gain` is how much more the one without a teacher loses.
    """
    return _measure(seed, size, "plain", "distilled")


def _measure(seed: int, size: Size, worse: str, better: str) -> Measurement:
    sizes = SIZES[size]
    with train_whole(seed, sizes) as whole:
        small = cut_half(whole, seed)
        values = {"whole": whole.losses["loss"], "cut": whole.measure(small)["loss"]}
        for arm in (worse, better):
            if arm == "scratch":
                # With the step sizes of the whole model's own training.
                new = whole.start_anew(small)
                found = whole.recover(new, lr=PEAK, final=0.1, parts=_PARTS)
            else:
                teacher = whole.folder if arm == "distilled" else None
                found = whole.recover(small, teacher=teacher, parts=_PARTS)
            values |= {f"{arm}/{name}": loss for name, loss in found.losses.items()}
            for number, loss in enumerate(found.list_losses(), 1):
                values[f"{arm}/after/{number}"] = loss
    values["gain"] = values[f"{worse}/loss"] - values[f"{better}/loss"]
    return Measurement(values=values)


def other_loses_more(estimates: Estimates) -> bool:
    """Returns whether the first arm loses more, by more than the spread.

    Args:
        estimates: the numbers of `measure_scratch` or of `measure_distilled`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _find_arms(estimates: Estimates) -> dict[str, str]:
    return {arm: name for arm, name in _ARMS.items() if f"{arm}/loss" in estimates}


def _describe(estimates: Estimates) -> str:
    lines = [
        "nats per target token, mean of seven denoisers; on S",
        f"the whole model: {estimates['whole'].format(3)}",
        f"right after the cut: {estimates['cut'].format(3)}",
    ]
    for arm, name in _find_arms(estimates).items():
        parts = (estimates[f"{arm}/{what}"].format(3) for what in ("loss", "S"))
        lines.append(f"{name}: {'; '.join(parts)}")
    lines.append(f"difference: {estimates['gain'].format(3, sign=True)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    arms = _find_arms(estimates)
    first = next(iter(arms))
    count = sum(name.startswith(f"{first}/after/") for name in estimates)
    keys = {arm: [f"{arm}/after/{n}" for n in range(1, count + 1)] for arm in arms}
    curves = [
        Series(
            name=name,
            y=tuple(estimates[key].mean for key in keys[arm]),
            spread=tuple(estimates[key].spread for key in keys[arm]),
        )
        for arm, name in arms.items()
    ]
    whole = estimates["whole"]
    curves.append(
        Series(
            name="the whole model", y=(whole.mean,) * count, spread=(whole.spread,) * count,
            reference=True,
        )
    )  # fmt: skip
    bars = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{arm}/{denoiser}"].mean for denoiser in DENOISERS),
            spread=tuple(estimates[f"{arm}/{denoiser}"].spread for denoiser in DENOISERS),
        )
        for arm, name in arms.items()
    )
    return (
        Plot(
            title="Loss during training", kind="lines", x_label="share of the tokens",
            y_label="nats per target token",
            x=tuple(f"{n}/{count}" for n in range(1, count + 1)),
            panels=(Panel(title="", series=tuple(curves)),),
        ),
        Plot(
            title="Loss at the end", kind="bars", x_label="denoiser",
            y_label="nats per target token", x=DENOISERS, panels=(Panel(title="", series=bars),),
        ),
    )  # fmt: skip


_SETTING = (
    "A small OpenBA trained from nothing on a generated English and Chinese corpus. Half of the "
    "layers of its decoder are cut, and of its heads and inner units what was drawn; it recovers "
    "for 120 steps with the seven denoisers in equal parts, at a fifth of the first training's "
    "step size"
)

CLAIMS = (
    Claim(
        id="recovered_models",
        system="compression",
        statement="Pruned and recovered, a model is better than one of its size from scratch.",
        source="OpenBA-V2, arXiv 2405.05957, abstract and section 1",
        paper="compares with other published models alone",
        setting=f"{_SETTING}. The other begins with drawn weights and has as many steps of the "
        "same tokens, at the first training's own step size.",
        measure=measure_scratch,
        describe=_describe,
        rule="After as many tokens, the recovered one loses less by more than the spread.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group=GROUP,
        holds=other_loses_more,
        plot=_plot,
    ),
    Claim(
        id="recovered_models_taught",
        system="compression",
        statement="With the whole model as its teacher, a pruned model recovers better.",
        source="beyond OpenBA-V2, which recovers without a teacher",
        paper="none; beyond the paper",
        setting=f"{_SETTING}, alone or with half of the loss from the logits of the whole model.",
        measure=measure_distilled,
        describe=_describe,
        rule="After as many tokens, the one with a teacher loses less by more than the spread.",
        expected="reproduced",
        sizes=("tiny", "full"),
        group=GROUP,
        holds=other_loses_more,
        plot=_plot,
    ),
)
