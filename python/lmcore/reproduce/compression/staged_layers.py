"""Claim: layers that are cut in stages, with recovery between, cost less than all of them at once.

Both ways end with the same layers after as many steps of recovery.
"""

from __future__ import annotations

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.compression.recovering import GROUP, QUICK, SIZES, Sizes, train_whole

_SIZES: dict[Size, Sizes] = {**SIZES, "quick": QUICK}
# Half of the layers; in stages as the paper's 36 to 30, 27 and 24: half of them, and twice half of
# the rest. What is cut lies spread out in every stage.
_LEFT = 4
_STAGES = ((0, 2), (1,), (3,))
_WAYS = {"direct": "at once", "1": "stage 1", "2": "stage 2", "3": "stage 3"}
_POINTS = {"cut": "right after the cut", "recovered": "after recovery"}


def measure_stages(seed: int, size: Size) -> Measurement:
    """Returns the losses of a small OpenBA whose layers are cut in stages, or at once.

    Args:
        seed: of the texts and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `cut/<way>` and `recovered/<way>`, for what is cut at once and for each stage,
        and `whole`: nats per target token, the mean of all seven denoisers. `jump` is how much
        more is lost right after the cut at once than after that of any stage, and `gain` how much
        more at the end.
    """
    from lmcore.compression import Plan, Stage, add_stage, start_plan
    from lmcore.compression.choosing import choose_layers

    sizes = _SIZES[size]
    layers = range(sizes.scale.decoder_layers)
    gone = [layer for layer in layers if layer not in choose_layers(layers, _LEFT)]
    steps = sizes.steps // len(_STAGES)
    values = {}
    with train_whole(seed, sizes) as whole:
        values["whole"] = whole.losses["loss"]
        plan: Plan = start_plan(whole.folder)
        for places in _STAGES:
            plan = add_stage(plan, Stage(), cut_decoder=[gone[place] for place in places])
        model = whole.folder
        for number in range(1, len(_STAGES) + 1):
            model = whole.cut(plan, model, number)
            values[f"cut/{number}"] = whole.measure(model)["loss"]
            recovered = whole.recover(model, steps=steps, stage=number)
            model = recovered.model
            values[f"recovered/{number}"] = recovered.losses["loss"]
        small = whole.cut(plan)
        values["cut/direct"] = whole.measure(small)["loss"]
        recovered = whole.recover(small, steps=steps * len(_STAGES))
        values["recovered/direct"] = recovered.losses["loss"]
    values["jump"] = values["cut/direct"] - max(values[f"cut/{number}"] for number in "123")
    values["gain"] = values["recovered/direct"] - values["recovered/3"]
    return Measurement(values=values)


def stages_lose_less(estimates: Estimates) -> bool:
    """Returns whether stages lose less after every cut, and no more in the end.

    Args:
        estimates: the numbers of `measure_stages`.
    """
    jump, gain = estimates["jump"], estimates["gain"]
    return jump.mean > jump.spread and gain.mean >= -gain.spread


def _describe(estimates: Estimates) -> str:
    lines = [
        "nats per target token, mean of seven denoisers",
        f"before: {estimates['whole'].format(3)}",
    ]
    for point, name in _POINTS.items():
        stages = ", ".join(estimates[f"{point}/{number}"].format(3) for number in "123")
        lines.append(f"{name}: at once {estimates[f'{point}/direct'].format(3)}; stages {stages}")
    jump, gain = (estimates[name].format(3, sign=True) for name in ("jump", "gain"))
    lines.append(f"at once above every stage, right after: {jump}")
    lines.append(f"at once above stages, at the end: {gain}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = [
        Series(
            name=name,
            y=tuple(estimates[f"{point}/{way}"].mean for way in _WAYS),
            spread=tuple(estimates[f"{point}/{way}"].spread for way in _WAYS),
        )
        for point, name in _POINTS.items()
    ]
    whole = (estimates["whole"].mean,) * len(_WAYS), (estimates["whole"].spread,) * len(_WAYS)
    series.insert(0, Series(name="nothing cut", y=whole[0], spread=whole[1]))
    return (
        Plot(
            title="Loss while layers are cut and the model recovers", kind="bars",
            x_label="what was cut", y_label="nats per target token", x=tuple(_WAYS.values()),
            panels=(Panel(title="", series=tuple(series)),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="staged_layers",
        system="compression",
        statement="Layers that are cut in stages, with recovery between, cost less than at once.",
        source="OpenBA-V2, arXiv 2405.05957, section 3, table of layer pruning",
        paper=(
            "loss 1.73 before; from 12 and 36 to 8 and 24 layers at once 2.69 right after; in "
            "three stages 1.85, 1.90, 1.89 right after each, 1.76, 1.80, 1.82 after training"
        ),
        setting=(
            "A small OpenBA trained from nothing on a generated English and Chinese corpus, with "
            "eight layers in its decoder; four of them are cut, at once or two, one and one, and "
            "as many steps of recovery follow in all, with the seven denoisers alike. The step "
            "size is a fifth of the first training's, as in the paper, and warms up in each stage."
        ),
        measure=measure_stages,
        describe=_describe,
        rule="Right after the cut, what is cut at once loses more than what is cut in stages does "
        "after any of its cuts, by more than the spread; and at the end, in stages it loses no "
        "more than at once by more than the spread.",
        expected="not reproduced",
        group=GROUP,
        holds=stages_lose_less,
        plot=_plot,
    ),
)  # fmt: skip
