"""Claim: the mixture of seven denoisers makes a better model of what comes next than one does."""

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.openba.pretraining import SCALES, Pretraining, generate_corpus, under

_ARMS = {"spans": "span corruption alone", "ul2": "UL2's seven denoisers"}


def measure_objectives(seed: int, size: Size) -> Measurement:
    """Returns the losses of models that were trained with spans of mean length 3, and with all.

    Args:
        seed: of the world and of training.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/S` and `<arm>/R3`, nats per target token; `gain` is how much less the
        mixture loses on S.
    """
    scale = SCALES[size]
    corpus = generate_corpus(seed, scale)
    denoisers = corpus.denoisers
    spans, suffix = denoisers[0], denoisers[2]
    values = {}
    for arm, mixture in (("spans", (spans,)), ("ul2", denoisers)):
        run = Pretraining(seed, scale, corpus, mixture).train()
        # Each model is asked with a prefix that it knows.
        asked = suffix if arm == "ul2" else under(suffix, corpus.prefixes["R"])
        values[f"{arm}/S"] = run.evaluate(asked)["loss"]
        values[f"{arm}/R3"] = run.evaluate(spans)["loss"]
    values["gain"] = values["spans/S"] - values["ul2/S"]
    return Measurement(values=values)


def mixture_loses_less(estimates: Estimates) -> bool:
    """Returns whether the mixture loses less on S by more than the spread.

    Args:
        estimates: the numbers of `measure_objectives`.
    """
    gain = estimates["gain"]
    return gain.mean > gain.spread


def _describe(estimates: Estimates) -> str:
    lines = ["loss on the end of a text (S); on short spans (R3); nats per target token"]
    lines += [
        f"{name}: {estimates[f'{arm}/S'].format(2)}; {estimates[f'{arm}/R3'].format(2)}"
        for arm, name in _ARMS.items()
    ]
    lines.append(f"difference on S: {estimates['gain'].format(2, sign=True)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{arm}/{task}"].mean for task in ("S", "R3")),
            spread=tuple(estimates[f"{arm}/{task}"].spread for task in ("S", "R3")),
        )
        for arm, name in _ARMS.items()
    )
    return (
        Plot(
            title="Loss of held-out texts",
            kind="bars",
            x_label="what is to be written",
            y_label="nats per target token",
            x=("the end of a text (S)", "short spans (R3)"),
            panels=(Panel(title="", series=series),),
        ),
    )


CLAIMS = (
    Claim(
        id="ul2_suffix",
        system="openba",
        statement="A mixture of seven denoisers teaches to go on with a text; short spans do not.",
        source="OpenBA, arXiv 2309.10706, section 3.3",
        paper="no numbers: UL2 is taken over from its own paper for this reason",
        setting=(
            "An OpenBA of one encoder layer and two decoder layers, trained from nothing on a "
            "generated English and Chinese corpus: with short spans alone, or with all seven "
            "denoisers, for equally many steps of equally many texts. Asked is the end of texts "
            "that are held out, of the model of spans under the prefix that it knows."
        ),
        measure=measure_objectives,
        describe=_describe,
        rule="The mixture's loss on S is lower by more than the spread of the difference.",
        expected="reproduced",
        holds=mixture_loses_less,
        plot=_plot,
    ),
)
