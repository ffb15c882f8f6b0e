"""Claim: weights that follow the losses (D-UL2) leave no denoiser as far behind as equal ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.compression.recovering import DENOISERS, GROUP, SIZES, cut_half, train_whole

_ARMS = {
    "uniform": "equal weights",
    "initial": "the initial weights throughout",
    "paper": "D-UL2, the paper's rule",
    "shipped": "D-UL2, as shipped",
}
_RULES = ("paper", "shipped")


def measure_weights(seed: int, size: Size) -> Measurement:
    """Returns how far recovered models are behind the whole one, for several weights of denoisers.

    Args:
        seed: of the texts, of training and of what is cut.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/<denoiser>`, by which the model loses more than the whole one, nats
        per target token of texts that are held out; `<arm>/largest` and `<arm>/mean` over the
        denoisers; `cut/<denoiser>` the same right after the cut; `share/<rule>/<n>/<denoiser>`,
        how often a denoiser is drawn after n updates; `gain`, how much smaller the largest gap is
        by the paper's rule than under equal weights, and `mean`, the mean one.
    """
    sizes = SIZES[size]
    values = {}
    with train_whole(seed, sizes) as whole:
        small = cut_half(whole, seed)
        found: dict[str, Mapping[str, float]] = {"cut": whole.measure(small)}
        given: dict[str, dict[str, Any]] = {
            "uniform": {"objective": "ul2"},
            # Nothing is updated before the end.
            "initial": {"objective": "d_ul2", "update_every_steps": sizes.steps + 1},
        }
        given |= {rule: {"objective": "d_ul2", "proportions_rule": rule} for rule in _RULES}
        for arm, settings in given.items():
            recovered = whole.recover(small, **settings)
            found[arm] = recovered.losses
            if arm in _RULES:
                for count, shares in enumerate(recovered.list_shares(sizes.update_every_steps)):
                    for name, share in shares.items():
                        values[f"share/{arm}/{count}/{name}"] = share
        for arm, losses in found.items():
            gaps = {name: losses[name] - whole.losses[name] for name in DENOISERS}
            values |= {f"{arm}/{name}": gap for name, gap in gaps.items()}
            values[f"{arm}/largest"] = max(gaps.values())
            values[f"{arm}/mean"] = sum(gaps.values()) / len(gaps)
    values["gain"] = values["uniform/largest"] - values["paper/largest"]
    values["mean"] = values["uniform/mean"] - values["paper/mean"]
    return Measurement(values=values)


def largest_gap_shrinks(estimates: Estimates) -> bool:
    """Returns whether the paper's rule leaves a smaller largest gap, by more than the spread.

    Args:
        estimates: the numbers of `measure_weights`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = ["above the whole model, nats per target token: largest of seven denoisers; mean; S"]
    for arm, name in {"cut": "right after the cut", **_ARMS}.items():
        parts = (estimates[f"{arm}/{what}"].format(3) for what in ("largest", "mean", "S"))
        lines.append(f"{name}: {'; '.join(parts)}")
    for rule in _RULES:
        last = _count_updates(estimates, rule)
        shares = (
            f"{name} {100 * estimates[f'share/{rule}/{last}/{name}'].mean:.1f}"
            for name in DENOISERS
        )
        lines.append(f"shares at the end, %, {_ARMS[rule]}: {', '.join(shares)}")
    lines.append(f"equal weights minus D-UL2, largest: {estimates['gain'].format(3, sign=True)}")
    lines.append(f"equal weights minus D-UL2, mean: {estimates['mean'].format(3, sign=True)}")
    return "\n".join(lines)


def _count_updates(estimates: Estimates, rule: str) -> int:
    prefix = f"share/{rule}/"
    return max(int(name.split("/")[2]) for name in estimates if name.startswith(prefix))


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    counts = range(_count_updates(estimates, "paper") + 1)
    panels = tuple(
        Panel(
            title=_ARMS[rule],
            series=tuple(
                Series(
                    name=name,
                    y=tuple(estimates[f"share/{rule}/{n}/{name}"].mean for n in counts),
                    spread=tuple(estimates[f"share/{rule}/{n}/{name}"].spread for n in counts),
                )
                for name in DENOISERS
            ),
        )
        for rule in _RULES
    )
    gaps = tuple(
        Series(
            name=text,
            y=tuple(estimates[f"{arm}/{name}"].mean for name in DENOISERS),
            spread=tuple(estimates[f"{arm}/{name}"].spread for name in DENOISERS),
        )
        for arm, text in _ARMS.items()
    )
    return (
        Plot(
            title="How often a denoiser is drawn", kind="lines", x_label="updates",
            y_label="share", x=tuple(map(str, counts)), panels=panels, logarithmic=True,
        ),
        Plot(
            title="Behind the whole model after recovery", kind="bars", x_label="denoiser",
            y_label="nats per target token", x=DENOISERS, panels=(Panel(title="", series=gaps),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="denoiser_weights",
        system="compression",
        statement="D-UL2 leaves no denoiser as far behind the whole model as equal weights do.",
        source="OpenBA-V2, arXiv 2405.05957, algorithm 1",
        paper=(
            "no comparison could be had; curves: the share of S begins at 0.8 and grows, and those "
            "of R and X shrink"
        ),
        setting=(
            "A small OpenBA trained from nothing on a generated English and Chinese corpus. Half "
            "of the layers of its decoder are cut, and of its heads and inner units what was "
            "drawn; it recovers for 120 steps with the seven denoisers in equal parts, or with "
            "D-UL2, whose targets are the whole model's losses on the same validation texts, and "
            "which begins with the authors' proportions and updates them every 10 steps."
        ),
        measure=measure_weights,
        describe=_describe,
        rule="By the paper's rule the largest gap to the whole model over the denoisers is smaller "
        "than under equal weights, by more than the spread.",
        expected="not reproduced",
        sizes=("tiny", "full"),
        group=GROUP,
        holds=largest_gap_shrinks,
        plot=_plot,
    ),
)  # fmt: skip
