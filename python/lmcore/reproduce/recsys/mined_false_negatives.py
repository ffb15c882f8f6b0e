"""Claim: the negatives that UFNRec reverses are real false negatives.

On a generated world it is known which items a user likes. So what was mined has a precision: the
share of the reversed (user, item) pairs whose user likes the item. It is held against that of
items drawn at random for the same users, which is what a negative is.
"""

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.recsys.ablation import SCALES, THRESHOLDS, ArmRuns, Mined, run_arms

_PAPER_THRESHOLD = 5
_METHODS = {
    "consistency": "UFNRec",
    "representation": "re-presentation only, where nothing is reversed",
}
_LIFTS = {"liked": "liked by their user", "held_out": "the user's validation or test item"}


def measure_mining(seed: int, size: Size) -> Measurement:
    """Returns which of the mined pairs are liked, and which are held out, in percent.

    Args:
        seed: of the world and of training.
        size: of the world, and how many epochs.

    Returns:
        Values named `<arm>/<m>/<share>` for the pairs that were presented again more than m
        times; `pairs` is their number. `lift/<share>` is how many times the share of UFNRec's
        reversed pairs is that of random ones.
    """
    return _measure(run_arms(seed, SCALES[size]))


def _measure(runs: ArmRuns) -> Measurement:
    values: dict[str, float] = {}
    for arm in _METHODS:
        for threshold, mined in zip(THRESHOLDS, runs.mined[arm], strict=True):
            values |= {f"{arm}/{threshold}/{name}": v for name, v in _to_values(mined).items()}
    for share in _LIFTS:
        found = values[f"consistency/{_PAPER_THRESHOLD}/{share}"]
        values[f"lift/{share}"] = (
            found / values[f"consistency/{_PAPER_THRESHOLD}/{share}_at_random"]
        )
    return Measurement(values=values)


def mining_finds_liked_items(estimates: Estimates) -> bool:
    """Returns whether reversed pairs are liked more often than random ones are.

    Args:
        estimates: the numbers of `measure_mining`.
    """
    lift = estimates["lift/liked"]
    return lift.mean - 1 > 2 * lift.spread


def _to_values(mined: Mined) -> dict[str, float]:
    shares = ("liked", "liked_at_random", "held_out", "held_out_at_random")
    return {"pairs": mined.pairs} | {name: 100 * getattr(mined, name) for name in shares}


def _describe(estimates: Estimates) -> str:
    def of(name: str) -> str:
        return estimates[f"consistency/{_PAPER_THRESHOLD}/{name}"].format(2)

    return "\n".join(
        [
            "reversed (user, item) pairs / random items of the same users",
            f"liked: {of('liked')} / {of('liked_at_random')} %",
            f"lift: {estimates['lift/liked'].format(1)}",
            f"held out: {of('held_out')} / {of('held_out_at_random')} %",
            f"lift: {estimates['lift/held_out'].format(1)}",
        ]
    )


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    return tuple(
        Plot(
            title=f"Share of mined pairs that are {meaning}",
            kind="lines",
            x_label="m: presented again more than m times",
            y_label="share of the pairs (%)",
            x=tuple(map(str, THRESHOLDS)),
            panels=(
                Panel(
                    title="",
                    series=(
                        _series(estimates, "consistency", f"{share}_at_random", "random items"),
                        *(_series(estimates, arm, share, label) for arm, label in _METHODS.items()),
                    ),
                ),
            ),
        )
        for share, meaning in _LIFTS.items()
    )


def _series(estimates: Estimates, arm: str, share: str, label: str) -> Series:
    points = [estimates[f"{arm}/{threshold}/{share}"] for threshold in THRESHOLDS]
    return Series(
        name=label,
        y=tuple(point.mean for point in points),
        spread=tuple(point.spread for point in points),
        reference=share.endswith("at_random"),
    )


CLAIMS = (
    Claim(
        id="mined_false_negatives",
        system="recsys",
        statement="Negatives that stay above the positive are false negatives: items the user "
        "would like.",
        source="UFNRec, arXiv 2208.04116, abstract",
        paper="that it finds false negatives, by the ranking that they improve; no precision",
        setting=(
            "The runs of the claim four_arms, on a generated world where it is known what each "
            "user likes: 4 % of the catalogue, of which she has consumed a part. A pair is mined "
            "when the item was presented again more than m = 5 times at one of the user's "
            "positions, and counts once. Random items are all that the same users do not have in "
            "their training part, out of which negatives are drawn; held-out items, which the "
            "user likes, are among them on both sides. The lift of held-out items is what can be "
            "measured on real data. A model can learn the tastes of these users: how large the "
            "lift is says nothing about other data."
        ),
        measure=measure_mining,
        describe=_describe,
        rule="The lift of liked items exceeds 1 by more than twice its spread.",
        group="ablation",
        expected="reproduced",
        holds=mining_finds_liked_items,
        plot=_plot,
    ),
)
