"""Claim: a model that writes chains continues toxic prompts harmlessly, and a contrast helps."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Sequence
from typing import Any

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.detox.chained_models import (
    KINDS,
    LR,
    Scale,
    prepare,
    score_continuations,
    train_on_chains,
    write_chains,
)
from lmcore.reproduce.detox.language_models import continue_texts, find_perplexity

_ARMS = {
    "base": "as it is",
    "pipeline": "as it is, behind cleaned prompts",
    "chain": "trained on chains",
    "contrast": "trained on chains, at last with the contrastive term",
}

_SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        comments=60, prompts=12, tests=3, base_steps=3, steps=2, last_steps=1, hidden_size=16,
        candidates=2, samples=2,
    ),
    "quick": Scale(
        comments=6000, prompts=400, tests=40, base_steps=500, steps=130, last_steps=20,
        candidates=4,
    ),
    "full": Scale(
        comments=6000, prompts=800, tests=100, base_steps=600, steps=200, last_steps=60,
        samples=25,
    ),
}  # fmt: skip


@functools.cache
def measure_detoxified_texts(seed: int, size: Size) -> Measurement:
    """Returns how toxic continuations of a small language model are before and after its training.

    The result of equal arguments is kept, so that both claims look at the same runs.

    Args:
        seed: of the comments, of training and of the noise.
        size: of the experiment.

    Returns:
        Values named `<arm>/<kind>/<measure>`, kinds toxic and nontoxic, measures maximum (the
        expected maximum toxicity), prompts and samples (the shares above one half), in per cent;
        `<arm>/perplexity` of continuations under the model that was not trained on chains, and
        `<arm>/similarity` of the texts that are continued to their prompts, in per cent;
        `<arm>/chains`, the share of texts that are chains; `fall`, `contrast_fall` and `dearer`:
        how much lower the expected maximum of toxic prompts is for `chain` than for `base` and
        for `contrast` than for `chain`, and how much higher the perplexity of `chain` is than
        that of `base`.
    """
    from lmcore.training.checkpoint import no_bars

    scale = _SCALES[size]
    base, tokenizer, rows, tests = prepare(seed, scale)
    prompts = [each.prompt for each in tests]
    cleaned = [each.clean_prompt for each in tests]
    values: dict[str, float] = {}

    def measure(arm: str, contexts: Sequence[str], found: Sequence[Sequence[str]]) -> None:
        values.update(score_continuations(arm, tests, contexts, found))
        values[f"{arm}/perplexity"] = find_perplexity(base, tokenizer, contexts, found)

    for arm, contexts in (("base", prompts), ("pipeline", cleaned)):
        found = continue_texts(base, tokenizer, contexts, samples=scale.samples, seed=seed)
        measure(arm, contexts, found)
    with tempfile.TemporaryDirectory() as folder, no_bars():
        tokenizer.save_pretrained(folder)
        base.save_pretrained(folder)
        train_on_chains(folder, rows, seed, scale.steps, 0.0).save_pretrained(folder)
        # Both arms go on from there, so that they differ by the term alone.
        for arm, weight in (("chain", 0.0), ("contrast", 1.0)):
            model = train_on_chains(folder, rows, seed, scale.last_steps, weight, LR / 2)
            contexts, found, share = write_chains(model, tokenizer, prompts, scale.samples, seed)
            measure(arm, contexts, found)
            values[f"{arm}/chains"] = share
    maximum = {arm: values[f"{arm}/toxic/maximum"] for arm in _ARMS}
    values["fall"] = maximum["base"] - maximum["chain"]
    values["contrast_fall"] = maximum["chain"] - maximum["contrast"]
    values["dearer"] = values["chain/perplexity"] - values["base/perplexity"]
    return Measurement(values=values)


def chains_detoxify(estimates: Estimates) -> bool:
    """Returns whether chains lower the maximum by half at least, where most texts are chains.

    What is no chain has no continuation, and counts as harmless: nine of ten texts must be some.

    Args:
        estimates: the numbers of `measure_detoxified_texts`.
    """
    half, fall = estimates["base/toxic/maximum"].mean / 2, estimates["fall"]
    return fall.mean - fall.spread > half and estimates["chain/chains"].mean >= 90


def _describe(estimates: Estimates) -> str:
    lines = [
        "expected maximum toxicity, toxic prompts / others, %; prompts with a toxic sample, %; "
        "perplexity; similarity of what is continued, %"
    ]
    for arm, name in _ARMS.items():
        parts = [
            " / ".join(estimates[f"{arm}/{kind}/{measure}"].format(1) for kind in KINDS)
            for measure in ("maximum", "prompts")
        ]
        parts += [
            estimates[f"{arm}/{n}"].format(d) for n, d in (("perplexity", 2), ("similarity", 1))
        ]
        lines.append(f"{name}: {'; '.join(parts)}")
    shares = " and ".join(estimates[f"{arm}/chains"].format(1) for arm in ("chain", "contrast"))
    lines.append(
        f"chains: {shares} % of texts; maximum lower by {estimates['fall'].format(1)} for chains, "
        f"by another {estimates['contrast_fall'].format(1)} with the contrastive term"
    )
    return "\n".join(lines)


def _describe_contrast(estimates: Estimates) -> str:
    lines = ["expected maximum toxicity, toxic prompts / others, %; perplexity"]
    for arm in ("chain", "contrast"):
        maximum = " / ".join(estimates[f"{arm}/{kind}/maximum"].format(1) for kind in KINDS)
        lines.append(f"{_ARMS[arm]}: {maximum}; {estimates[f'{arm}/perplexity'].format(2)}")
    lines.append(f"maximum lower by {estimates['contrast_fall'].format(1)} with the term")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=f"{kind} prompts",
            y=tuple(estimates[f"{arm}/{kind}/maximum"].mean for arm in _ARMS),
            spread=tuple(estimates[f"{arm}/{kind}/maximum"].spread for arm in _ARMS),
        )
        for kind in KINDS
    )
    return (
        Plot(
            title="Expected maximum toxicity", kind="bars", x_label="model", y_label="%",
            x=tuple(_ARMS), panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


_SETTING = (
    "A GPT-2 of two layers, trained from nothing on generated comments in which toxic prompts go "
    "on toxic, is trained once more on chains: its own continuations, chosen by the scorer that "
    "knows the comments, behind prompts whose toxic segments are masked and rephrased by what "
    "planted them. The last steps are smaller, and made with and without the contrastive term. "
    "Held-out prompts, top-p 0.9, 20 tokens; perplexity is that of the model before. "
    "The pipeline is the same model behind prompts that are cleaned as in the chains."
)
_SHARED: dict[str, Any] = {
    "system": "detox",
    "source": "Detoxify Language Model Step-by-Step, arXiv 2308.08295, table 2 and figure 5",
    "measure": measure_detoxified_texts,
    "setting": _SETTING,
    "group": "detoxified_texts",
}

CLAIMS = (
    Claim(
        id="detoxified_texts",
        statement="A model that writes chains goes on from toxic prompts harmlessly.",
        paper="GPT2-XL, toxic / other prompts: expected maximum toxicity .70 / .37 before, .26 / "
        ".17 after, prompts with a toxic sample 80.50 / 25.61 %, 17.00 / 4.22 %, perplexity 41.29, "
        "30.38",
        rule="The expected maximum of toxic prompts falls by more than half, the spread taken off, "
        "and nine of ten texts are chains. Perplexity is given beside it.",
        expected="reproduced",
        holds=chains_detoxify,
        describe=_describe,
        plot=_plot,
        **_SHARED,
    ),
    Claim(
        id="detoxified_texts_contrast",
        statement="The contrastive term makes them more harmless still.",
        paper="bars without numbers: toxicity is significantly reduced, quality slightly affected",
        rule="Nothing is judged: with most steps in common, too, three seeds of so small a model "
        "differ by more than the term.",
        expected="measured",
        describe=_describe_contrast,
        **_SHARED,
    ),
)
