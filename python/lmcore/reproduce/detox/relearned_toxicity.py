"""Claim: how much of what chains took away is still gone after training on toxic text again."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Panel, Plot, Series, Size
from lmcore.reproduce.detox.chained_models import (
    Scale,
    prepare,
    score_continuations,
    train_on_chains,
    write_chains,
)
from lmcore.reproduce.detox.language_models import continue_texts, learn_texts

_STEPS = (0, 10, 30, 100)
_LR = 1e-3
_SCALES: dict[Size, Scale] = {
    "tiny": Scale(
        comments=60, prompts=12, tests=3, base_steps=3, steps=2, hidden_size=16, candidates=2,
        samples=2,
    ),
    "full": Scale(comments=6000, prompts=600, tests=60, base_steps=500, steps=150),
}  # fmt: skip


def measure_relearned_toxicity(seed: int, size: Size) -> Measurement:
    """Returns how toxic continuations of a detoxified model are after steps on toxic texts.

    Args:
        seed: of the comments, of training and of the noise.
        size: of the experiment.

    Returns:
        `base`, the expected maximum toxicity of toxic prompts before chains; `chain/<n>` after n
        steps on toxic comments, where the model is asked for chains, and `plain/<n>` where it is
        asked to go on with the prompt; `chains/<n>`, the share of texts that are chains. In per
        cent.
    """
    from lmcore.training.checkpoint import no_bars
    from lmcore.worlds.detox import generate_comments, score_toxicity

    scale = _SCALES[size]
    base, tokenizer, rows, tests = prepare(seed, scale)
    prompts = [each.prompt for each in tests]
    given: dict[str, Any] = {"samples": scale.samples, "seed": seed}

    def find_maximum(found: list[list[str]]) -> float:
        return score_continuations("", tests, prompts, found)["/toxic/maximum"]

    values = {"base": find_maximum(continue_texts(base, tokenizer, prompts, **given))}
    with tempfile.TemporaryDirectory() as folder, no_bars():
        base.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        model = train_on_chains(folder, rows, seed, scale.steps, 0.0)
    # Comments that no one has seen yet, toxic from the prompt to the end.
    first = scale.comments + scale.prompts + 6 * scale.tests
    new = generate_comments(4 * scale.prompts, seed, first=first)
    toxic = [c.text for c in new if c.toxic and score_toxicity([c.continuation])[0] > 0.5]
    for steps in _STEPS:
        again = copy.deepcopy(model)
        learn_texts(again, seed, toxic, tokenizer, steps=steps, lr=_LR)
        _, found, share = write_chains(again, tokenizer, prompts, **given)
        values[f"chain/{steps}"], values[f"chains/{steps}"] = find_maximum(found), share
        values[f"plain/{steps}"] = find_maximum(continue_texts(again, tokenizer, prompts, **given))
    return Measurement(values=values)


def _describe(estimates: Estimates) -> str:
    before = estimates["base"].format(1)
    lines = [
        f"expected maximum toxicity of toxic prompts, %: before chains {before}; "
        f"after chains and 0, {', '.join(map(str, _STEPS[1:]))} steps on toxic comments"
    ]
    names = {"chain": "asked for chains", "plain": "asked to go on", "chains": "texts are chains"}
    for kind, name in names.items():
        found = (estimates[f"{kind}/{steps}"].format(1) for steps in _STEPS)
        lines.append(f"{name}: {', '.join(found)}")
    return "\n".join(lines)


def _plot(estimates: Estimates) -> tuple[Plot, ...]:
    series = tuple(
        Series(
            name=name,
            y=tuple(estimates[f"{kind}/{steps}"].mean for steps in _STEPS),
            spread=tuple(estimates[f"{kind}/{steps}"].spread for steps in _STEPS),
        )
        for kind, name in (("chain", "asked for chains"), ("plain", "asked to go on"))
    )
    return (
        Plot(
            title="After training on toxic text again", kind="lines", x_label="steps",
            y_label="expected maximum toxicity, %", x=tuple(map(str, _STEPS)),
            panels=(Panel(title="", series=series),),
        ),
    )  # fmt: skip


CLAIMS = (
    Claim(
        id="relearned_toxicity",
        system="detox",
        statement="How much of what chains take away is left after learning toxic text again.",
        source="none; beyond the paper. REPO, arXiv 2602.23391, undoes other methods so",
        paper="none",
        setting="The small GPT-2 of the row on chains, which is trained on more of them, without "
        f"smaller steps at last, and then on toxic comments with a step size of {_LR:g} and 32 "
        "comments in a step. A text that is no chain counts as harmless, so that the share of "
        "chains has to be read beside it.",
        measure=measure_relearned_toxicity,
        describe=_describe,
        rule="Nothing is judged: the paper makes no claim about it.",
        expected="measured",
        sizes=("tiny", "full"),
        plot=_plot,
    ),
)
