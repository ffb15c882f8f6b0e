"""Claims: words that are no entity, written out with their label, raise F1; also zero-shot.

The arms of the paper's section 5.1: a target holds the entities alone, one word on each side of
each as well, or all words. All arms start from one model that copies, and see the same sentences.
"""

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.ner.labelling import ARMS, SCALES, run_arms

_NAMES = {"entities": "entities only", "one": "one word around", "all": "all words"}
_KINDS = {"unlabelled": "unlabelled", "noisy": "wrong type", "boundary": "wrong boundary"}


def measure_labelling(test: str, seed: int, size: Size) -> Measurement:
    """Returns F1 and the shares of missed entities by kind of each arm, in percent.

    Args:
        test: `seen` or `unseen`: the domains that are scored.
        seed: of the world and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/<number>`; `gain` is all words minus entities only.
    """
    outcomes = {arm: tests[test] for arm, tests in run_arms(seed, SCALES[size]).items()}
    values = {
        f"{arm}/{name}": 100 * getattr(outcome, name)
        for arm, outcome in outcomes.items()
        for name in ("f1", *_KINDS)
    }
    values["gain"] = values["all/f1"] - values["entities/f1"]
    return Measurement(values=values)


def measure_seen(seed: int, size: Size) -> Measurement:
    """Returns what `measure_labelling` does, on domains that were trained on."""
    return measure_labelling("seen", seed, size)


def measure_unseen(seed: int, size: Size) -> Measurement:
    """Returns what `measure_labelling` does, on domains and types that were not trained on."""
    return measure_labelling("unseen", seed, size)


def negatives_raise_f1(estimates: Estimates) -> bool:
    """Returns whether all words beat the entities alone by more than the spread.

    Args:
        estimates: the numbers of `measure_labelling`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = ["F1 (%); missed: unlabelled, wrong type, wrong boundary (%)"]
    for arm in ARMS:
        missed = ", ".join(estimates[f"{arm}/{kind}"].format() for kind in _KINDS)
        lines.append(f"{_NAMES[arm]}: {estimates[f'{arm}/f1'].format()}; {missed}")
    lines.append(f"all words minus entities only: {estimates['gain'].format(sign=True)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = []
    for name, label in {"f1": "F1", **_KINDS}.items():
        points = [estimates[f"{arm}/{name}"] for arm in ARMS]
        series.append(
            Series(
                name=label,
                y=tuple(point.mean for point in points),
                spread=tuple(point.spread for point in points),
            )
        )
    return (
        Plot(
            title="F1, and which gold entities are missed",
            kind="bars",
            x_label="what a target holds",
            y_label="%",
            x=tuple(_NAMES[arm] for arm in ARMS),
            panels=(Panel(title="", series=tuple(series)),),
        ),
    )


_PAPER = (
    "F1 (%), Flan-T5-large on 10,000 samples, zero-shot\n"
    "entities only: 59.0\n"
    "one word around: 60.3\n"
    "all words: 61.0, with BIO labels 61.8"
)
_RULE = "All words minus entities only exceeds its spread."
_SETTING = (
    "A T5-shaped model of some 170,000 weights, trained from nothing: it learns to copy words, and "
    "three arms go on from there for equally many steps on the same generated sentences of seven "
    "domains. A type is the word that its entities carry (`bela coros river`), and four types are "
    "asked for. {tested} The paper's model has read much of the world before; how large the "
    "difference is here says nothing about it."
)

CLAIMS = (
    Claim(
        id="negative_instances",
        system="ner",
        statement="Writing out the words that are no entity raises F1.",
        source="GNER, arXiv 2402.16602, table 1",
        paper=_PAPER,
        setting=_SETTING.format(tested="Scored are new sentences of the same domains."),
        measure=measure_seen,
        describe=_describe,
        rule=_RULE,
        group="labelling",
        expected="reproduced",
        holds=negatives_raise_f1,
        plot=_plot,
    ),
    Claim(
        id="negative_instances_unseen",
        system="ner",
        statement="It does so for domains and types that were never trained on.",
        source="GNER, arXiv 2402.16602, table 1",
        paper=_PAPER,
        setting=_SETTING.format(
            tested="Scored are sentences of two other domains, whose types were not asked for in "
            "training, and whose words were seen only in texts to copy and as entities that were "
            "not asked for."
        ),
        measure=measure_unseen,
        describe=_describe,
        rule=_RULE,
        group="labelling",
        expected="reproduced",
        holds=negatives_raise_f1,
        plot=_plot,
    ),
)
