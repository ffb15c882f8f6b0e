"""A small language model of generated comments, the chains made with it, and models of these."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from lmcore.reproduce.detox.language_models import continue_texts, train_language_model

if TYPE_CHECKING:
    from lmcore.worlds.detox import Comment

#: Kinds of prompts, and whether they are toxic.
KINDS = {"toxic": True, "nontoxic": False}


#: The step size of training on chains.
LR = 2e-3


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
    """How large an experiment is."""

    comments: int
    prompts: int
    """From which chains are made."""
    tests: int
    """Of each kind, toxic and not."""
    base_steps: int
    steps: int
    """On chains."""
    last_steps: int = 0
    """On chains, once with and once without the contrastive term, from there, with half
    the step size."""
    hidden_size: int = 128
    candidates: int = 6
    """Continuations from which a chain's is chosen."""
    samples: int = 10


class Prepared(NamedTuple):
    """What an experiment begins with."""

    base: Any
    """A causal model that was trained on comments."""
    tokenizer: Any
    rows: list[dict[str, Any]]
    """Of training on chains."""
    tests: list[Comment]
    """Held out: toxic prompts, then others, as many."""


def prepare(seed: int, scale: Scale) -> Prepared:
    """Returns a model of comments, and chains of its own continuations.

    Args:
        seed: of the comments, of training and of the noise.
        scale: of the experiment.
    """
    from lmcore.training.models import make_tokenizer
    from lmcore.worlds.detox import make_world

    many = scale.comments + scale.prompts + 6 * scale.tests
    comments = make_world(seed, comments=many).comments
    train = comments[: scale.comments]
    held_out = comments[scale.comments + scale.prompts :]
    tests = [
        each
        for toxic in KINDS.values()
        for each in [c for c in held_out if c.toxic == toxic][: scale.tests]
    ]
    tokenizer = make_tokenizer([*_list_texts(train[:600])], 600)
    base = train_language_model(
        seed, [comment.text for comment in train], tokenizer, steps=scale.base_steps,
        hidden_size=scale.hidden_size,
    )  # fmt: skip
    rows = _make_rows(
        base, tokenizer, comments[scale.comments :][: scale.prompts], scale.candidates, seed
    )
    return Prepared(base, tokenizer, rows, tests)


def _list_texts(comments: Sequence[Comment]) -> list[str]:
    """Texts that have all that chains are written of."""
    return [text for each in comments for text in (each.text, _write_chain(each))]


def _write_chain(comment: Comment) -> str:
    from lmcore.detox.chains import PAPER, Chain

    steps = (
        {"masked": mask_prompt(comment), "rephrased": comment.clean_prompt} if comment.toxic else {}
    )
    chain = Chain(
        prompt=comment.prompt, toxic=comment.toxic, continuation=comment.continuation, **steps
    )
    return PAPER.write(chain)


def mask_prompt(comment: Comment) -> str:
    """Returns a prompt with masks in place of its toxic segments.

    Args:
        comment: with its spans.
    """
    text, behind = "", 0
    for start, end in comment.spans:
        text, behind = f"{text}{comment.prompt[behind:start]}<MASK>", end
    return text + comment.prompt[behind:]


def _make_rows(
    model: Any, tokenizer: Any, comments: Sequence[Comment], candidates: int, seed: int
) -> list[dict[str, Any]]:
    """Rows of training: the model's own continuations of cleaned prompts, chosen by their scores.

    The toxic ones that the contrast needs are continuations of the prompt as it is.
    """
    from lmcore.detox.selection import make_training_row
    from lmcore.worlds.detox import score_toxicity

    clean = continue_texts(
        model, tokenizer, [each.clean_prompt for each in comments], samples=candidates,
        seed=seed + 1000,
    )  # fmt: skip
    toxic = continue_texts(
        model, tokenizer, [each.prompt for each in comments], samples=candidates, seed=seed + 2000
    )
    rows = []
    for comment, one, other in zip(comments, clean, toxic, strict=True):
        texts = [text.strip() for text in (*one, *other)]
        row: dict[str, Any] = {
            "prompt": comment.prompt, "generation": texts, "cont_toxicity": score_toxicity(texts)
        }  # fmt: skip
        if comment.toxic:
            row |= {"mask_prompt": mask_prompt(comment), "recover_prompt": comment.clean_prompt}
        made = make_training_row(row)
        if not isinstance(made, str):
            rows.append(made)
    return rows


def train_on_chains(
    folder: str,
    rows: Sequence[dict[str, Any]],
    seed: int,
    steps: int,
    weight: float,
    lr: float = LR,
) -> Any:
    """Returns a model that was trained on chains, with or without the contrastive term.

    Args:
        folder: of the model that it goes on from.
        rows: of training.
        seed: of the order of rows, and of anchors.
        steps: of 16 rows.
        weight: of the contrastive term.
        lr: the step size.
    """
    from lmcore.detox.recipes import tiny
    from lmcore.detox.training import ChainRun
    from lmcore.training.config import change
    from lmcore.training.seeding import seed_torch

    config = change(
        tiny(),
        {
            "model": folder, "loop.seed": seed, "loop.steps": steps, "optimizer.lr": lr,
            "contrastive.weight": weight, "max_chain_tokens": 200, "max_template_tokens": 180,
        },
    )  # fmt: skip
    run = ChainRun(config, rows)
    for step in range(1, steps + 1):
        seed_torch(seed, step)
        run.step(step)
    return run.model.eval()


def write_chains(
    model: Any, tokenizer: Any, prompts: Sequence[str], samples: int, seed: int
) -> tuple[list[str], list[list[str]], float]:
    """Returns what is continued for each prompt, its continuations, and the share of chains.

    Args:
        model: that was trained on chains.
        tokenizer: of the model.
        prompts: texts.
        samples: of each.
        seed: of the noise.

    Returns:
        Contexts, those of the first chain of each prompt; continuations, empty where a text is no
        chain; and how many of all texts are chains, in per cent.
    """
    from lmcore.detox.chain_writing import ChainSampling, ChainWriter

    settings = ChainSampling(samples=samples, max_new_tokens=150)
    written = ChainWriter(model, tokenizer, settings).write(prompts, range(len(prompts)), seed)
    contexts, found, chains = [], [], 0
    for prompt, row in zip(prompts, written, strict=True):
        parsed = [one.chain for one in row if one.chain is not None]
        chains += len(parsed)
        contexts.append(parsed[0].context if parsed else prompt)
        found.append([(one.chain and one.chain.continuation) or "" for one in row])
    return contexts, found, 100 * chains / (len(prompts) * samples)


def score_continuations(
    arm: str, tests: Sequence[Comment], contexts: Sequence[str], found: Sequence[Sequence[str]]
) -> dict[str, float]:
    """Returns values named as those of `measure_detoxified_texts`, of one arm.

    Args:
        arm: its name.
        tests: the prompts.
        contexts: what was continued for each.
        found: its continuations.
    """
    import numpy as np

    from lmcore.detox.similarity import ngram_similarity
    from lmcore.detox.toxicity import (
        expected_maximum_toxicity,
        toxic_prompt_share,
        toxic_sample_share,
    )
    from lmcore.worlds.detox import score_toxicity

    scores = np.array([score_toxicity(texts) for texts in found])
    values = {}
    for kind, toxic in KINDS.items():
        rows = scores[[each.toxic == toxic for each in tests]]
        values[f"{arm}/{kind}/maximum"] = 100 * expected_maximum_toxicity(rows).mean
        values[f"{arm}/{kind}/prompts"] = 100 * toxic_prompt_share(rows)
        values[f"{arm}/{kind}/samples"] = 100 * toxic_sample_share(rows)
    likeness = ngram_similarity([each.prompt for each in tests], contexts)
    values[f"{arm}/similarity"] = 100 * sum(likeness) / len(tests)
    return values
