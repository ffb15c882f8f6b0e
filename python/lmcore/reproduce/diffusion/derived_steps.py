"""Claim: a model's own profile gives better proportions than the three constants."""

from __future__ import annotations

from typing import Literal

from lmcore.reproduce.claim import Claim, Estimates, Measurement, Size
from lmcore.reproduce.diffusion.paraphrasing import (
    SETTING,
    TOTAL,
    Scale,
    list_pairs,
    make_config,
    name_scores,
    sample_texts,
    train_run,
)

By = Literal["distance", "travel", "gap"]
_STEPS = (4, 5, 10, 20)
_RULES: tuple[By, ...] = ("distance", "travel", "gap")
_SECTIONS = (3, 6)
_SCALES: dict[Size, Scale] = {
    "tiny": Scale(pairs=60, tests=10, steps=4, more_steps=0, batch_size=8, hidden_size=16),
    "full": Scale(pairs=20_000, tests=500, steps=400, more_steps=0),
}


def measure_derived_steps(seed: int, size: Size) -> Measurement:
    """Returns how good texts are for steps that follow from the model's profile.

    Args:
        seed: of the pairs, of training and of the noise.
        size: of the model, and how many steps.

    Returns:
        Values named `<arm>/<steps>/good` and `.../bleu`, in per cent; an arm is `constants` or
        `<rule>/<sections>`. `share/<rule>/<k>` is the derived share of section k of three, and
        `gain` is BLEU-4 of `distance/3` minus that of the constants, the mean over all steps.
    """
    from lmcore.diffusion.data import encode_pairs
    from lmcore.diffusion.profiling import make_profile
    from lmcore.diffusion.proportions import adaptive_timesteps, find_proportions
    from lmcore.diffusion.tokenization import make_bert_tokenizer
    from lmcore.ops.schedule import ADAPTIVE_DECAY
    from lmcore.worlds.diffusion import list_tokens, make_world

    scale = _SCALES[size]
    world = make_world(seed, pairs=scale.pairs + 2 * scale.tests).pairs
    tokenizer = make_bert_tokenizer(list_tokens())
    train, rest = world[: scale.pairs], world[scale.pairs :]
    studied, tests = rest[: scale.tests], rest[scale.tests :]
    config = make_config(seed, scale)
    run = train_run(config, list_pairs(train), tokenizer, scale.steps)
    with run.averaged() as model:
        rows = encode_pairs(list_pairs(studied[:64]), tokenizer, config.length)
        profile = make_profile(model.train(False), rows, chains=[20], seed=seed)
    arms = {"constants": list(ADAPTIVE_DECAY)}
    values: dict[str, float] = {}
    for rule in _RULES:
        for sections in _SECTIONS:
            arms[f"{rule}/{sections}"] = find_proportions(profile, sections, rule)
        shares = arms[f"{rule}/{_SECTIONS[0]}"]
        values |= {f"share/{rule}/{k}": share for k, share in enumerate(shares)}
    for arm, proportions in arms.items():
        for steps in _STEPS:
            kept = sorted(adaptive_timesteps(proportions, steps, total=TOTAL))
            values |= name_scores(f"{arm}/{steps}", sample_texts(run, tests, kept, seed))
    values["gain"] = sum(
        values[f"distance/3/{n}/bleu"] - values[f"constants/{n}/bleu"] for n in _STEPS
    ) / len(_STEPS)
    return Measurement(values=values)


def derived_is_better(estimates: Estimates) -> bool:
    """Returns whether derived proportions give better texts, by more than the spread.

    Args:
        estimates: the numbers of `measure_derived_steps`.
    """
    return estimates["gain"].mean > estimates["gain"].spread


def _describe(estimates: Estimates) -> str:
    lines = ["BLEU-4 at " + ", ".join(map(str, _STEPS)) + " steps"]
    arms = ["constants", *(f"{rule}/{sections}" for rule in _RULES for sections in _SECTIONS)]
    for arm in arms:
        parts = (estimates[f"{arm}/{n}/bleu"].format(1) for n in _STEPS)
        rule, _, sections = arm.partition("/")
        name = f"by {rule}, {sections} sections" if sections else "the authors' constants"
        lines.append(f"{name}: {', '.join(parts)}")
    for rule in _RULES:
        shares = (estimates[f"share/{rule}/{k}"].format(2) for k in range(3))
        lines.append(f"shares by {rule}, low to high noise: {', '.join(shares)}")
    lines.append(f"by distance minus the constants: {estimates['gain'].format(2, sign=True)}")
    return "\n".join(lines)


CLAIMS = (
    Claim(
        id="derived_steps",
        system="diffusion",
        statement="A model's own profile gives better proportions of steps than three constants.",
        source="beyond the paper; Bridge-Gap Diffusion, arXiv 2305.04465, Adaptive Decay Sampling",
        paper="0.084, 0.368, 0.548 for all models",
        setting=f"{SETTING} Proportions are derived from what is measured at 50 timesteps on 64 "
        "other sentences, and in a chain of 20 steps.",
        measure=measure_derived_steps,
        describe=_describe,
        rule="In the mean over 4, 5, 10 and 20 steps, three shares by the distance of estimates "
        "are better than the constants in BLEU-4, by more than the spread.",
        expected="not reproduced",
        sizes=("tiny", "full"),
        holds=derived_is_better,
    ),
)
