"""Claim: the prefix tells a model what to do; under another one the end of a text costs more."""

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Size
from lmcore.reproduce.openba.pretraining import SCALES, Pretraining, generate_corpus, under


def measure_prefixes(seed: int, size: Size) -> Measurement:
    """Returns the loss on the end of texts under each prefix.

    Args:
        seed: of the world and of training.
        size: of the model, and how many steps.

    Returns:
        Values named by the prefix, nats per target token; `least` is the smaller of the two rises
        above that of `<S>`.
    """
    scale = SCALES[size]
    corpus = generate_corpus(seed, scale)
    run = Pretraining(seed, scale, corpus, corpus.denoisers).train()
    suffix = corpus.denoisers[2]
    values = {
        name: run.evaluate(under(suffix, id_))["loss"] for name, id_ in corpus.prefixes.items()
    }
    return Measurement(values=values | {"least": min(values["R"], values["X"]) - values["S"]})


def others_lose_more(estimates: Estimates) -> bool:
    """Returns whether both other prefixes lose more, by more than the spread.

    Args:
        estimates: the numbers of `measure_prefixes`.
    """
    least = estimates["least"]
    return least.mean > least.spread


def _describe(estimates: Estimates) -> str:
    lines = ["loss on the end of a text (S), nats per target token"]
    lines += [f"under <{name}>: {estimates[name].format(3)}" for name in "SRX"]
    lines.append(f"least rise: {estimates['least'].format(3, sign=True)}")
    return "\n".join(lines)


CLAIMS = (
    Claim(
        id="prefix_tokens",
        system="openba",
        statement="The prefix chooses the mode: the end of a text costs more under another one.",
        source="OpenBA, arXiv 2309.10706, section 5 and figure 6d",
        paper="the prefix changes MMLU during pre-training, and hardly after it (curves only)",
        setting=(
            "An OpenBA trained with all seven denoisers on a generated English and Chinese corpus; "
            "the same texts are to be ended under each of the three prefixes."
        ),
        measure=measure_prefixes,
        describe=_describe,
        rule="The smaller of the two rises above <S> exceeds its spread.",
        expected="reproduced",
        sizes=("tiny", "full"),
        holds=others_lose_more,
    ),
)
