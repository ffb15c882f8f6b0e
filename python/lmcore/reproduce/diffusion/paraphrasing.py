"""What claims on text diffusion share: a small model of generated paraphrases, and its texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.recipes import TrainConfig
    from lmcore.diffusion.sampling import Sampler
    from lmcore.diffusion.tokenization import TextTokenizer
    from lmcore.diffusion.training import DiffusionRun
    from lmcore.worlds.diffusion import Paraphrase

TOTAL = 2000
"""T, timesteps of the training."""
# In both a row is looked at at two timesteps.
ARMS = {"without": 0.0, "with": -2.0}
"""Weights of Distance Penalty with which training goes on."""
SETTING = (
    "A small model that is trained from nothing to say generated sentences again in other words; "
    "each has three good answers. One text for each sentence, without a choice among several."
)


@dataclass(kw_only=True, slots=True, frozen=True)
class Scale:
    """Sizes of an experiment."""

    pairs: int
    tests: int
    steps: int
    """Of training, from nothing."""
    more_steps: int
    """Of each arm, from there."""
    batch_size: int = 32
    hidden_size: int = 128
    slow_steps: tuple[int, ...] = ()
    """Numbers of steps that the whole process is compared with."""


def list_pairs(world: Sequence[Paraphrase]) -> list[Pair]:
    """Returns sources with the targets that were drawn.

    Args:
        world: generated ones.
    """
    from lmcore.diffusion.pairs import Pair

    return [Pair(one.source, one.target) for one in world]


def make_config(seed: int, scale: Scale, length: int = 32) -> TrainConfig:
    """Returns the settings of training from nothing, without a penalty.

    Args:
        seed: of everything random.
        scale: of the experiment.
        length: positions of a row.
    """
    from lmcore.diffusion.recipes import tiny
    from lmcore.training.config import change

    return change(
        tiny(),
        {
            "loop.seed": seed, "loop.steps": scale.steps, "batch_size": scale.batch_size,
            "micro_batch_size": scale.batch_size, "shape.hidden_size": scale.hidden_size,
            "shape.ffn_size": 4 * scale.hidden_size, "schedule.kind": "constant",
            "schedule.warmup_steps": min(100, scale.steps // 2), "schedule.final_share": 0.0,
            "device.device": "cpu", "length": length, "shape.positions": max(64, length),
        },
    )  # fmt: skip


def train_run(
    config: TrainConfig, pairs: Sequence[Pair], tokenizer: TextTokenizer, steps: int
) -> DiffusionRun:
    """Returns a run after its steps.

    Args:
        config: the settings.
        pairs: to train on.
        tokenizer: of the texts.
        steps: how many.
    """
    from lmcore.diffusion.training import DiffusionRun

    run = DiffusionRun(config, pairs, tokenizer=tokenizer)
    for step in range(1, steps + 1):
        run.step(step)
    return run


def go_on(config: TrainConfig, folder: str, steps: int, weight: float) -> TrainConfig:
    """Returns the settings of more training with Distance Penalty.

    Args:
        config: of the training before.
        folder: of its model.
        steps: how many more.
        weight: of the penalty; 0 computes as much and draws nothing together.
    """
    from lmcore.training.config import change

    return change(
        config,
        {
            "model": folder, "penalty.kind": "l2_noise_random", "penalty.weight": weight,
            "loop.steps": steps, "optimizer.lr": 1e-3, "schedule.warmup_steps": 0,
            # Other batches and other noise than before, the same in both arms.
            "loop.seed": config.loop.seed + 1000,
        },
    )  # fmt: skip


def keep_steps(schedule: str, steps: int) -> list[int]:
    """Returns which of 2,000 steps are kept.

    Args:
        schedule: adaptive, uniform or quadratic.
        steps: how many.

    Example:
        >>> keep_steps("adaptive", 4), keep_steps("quadratic", 4)
        ([0, 667, 1334, 1999], [0, 1250, 1833, 1999])
    """
    from lmcore.ops.schedule import adaptive_timesteps, space_timesteps

    if schedule == "adaptive":
        return sorted(adaptive_timesteps(TOTAL, steps))
    spec: str | list[int] = f"x2_{steps}" if schedule == "quadratic" else [steps]
    found: list[int] = space_timesteps(TOTAL, spec).tolist()
    return found


def sample_texts(
    run: DiffusionRun,
    tests: Sequence[Paraphrase],
    kept: Sequence[int],
    seed: int,
    sampler: Sampler | None = None,
) -> tuple[float, float]:
    """Returns the share of texts that are good and their mean BLEU-4, both in per cent.

    Args:
        run: whose averaged model makes them.
        tests: their sources, and what is good.
        kept: timesteps of 2,000, in ascending order.
        seed: of the noise.
        sampler: the authors' if None.
    """
    from lmcore.ops.ngrams import sentence_bleu

    found = sample_ids(run, list_pairs(tests), kept, seed, sampler)
    texts = [run.tokenizer.decode(ids, skip_special_tokens=True) for ids in found]
    good = [text in one.good for text, one in zip(texts, tests, strict=True)]
    bleu = sentence_bleu(texts, [one.good for one in tests], threads=1)[:, 3]
    return 100 * float(np.mean(good)), 100 * float(bleu.mean())


def sample_ids(
    run: DiffusionRun,
    pairs: Sequence[Pair],
    kept: Sequence[int],
    seed: int,
    sampler: Sampler | None = None,
) -> list[list[int]]:
    """Returns what is made of sources, padding included.

    Args:
        run: whose averaged model makes it.
        pairs: the sources; targets say how much of a source a row has room for.
        kept: timesteps of 2,000, in ascending order.
        seed: of the noise.
        sampler: the authors' if None.
    """
    import torch
    from torch import nn

    from lmcore.diffusion.data import encode_pairs
    from lmcore.diffusion.sampling import Sampler, sample_tokens
    from lmcore.diffusion.spacing import make_process

    process = make_process(run.model.config, kept)
    encoded = encode_pairs(pairs, run.tokenizer, run.config.length)
    ids, mask = torch.from_numpy(encoded.ids).long(), torch.from_numpy(encoded.target_mask)
    with run.averaged() as model:
        nn.Module.eval(model)
        found = sample_tokens(
            model, process, ids, mask, seed=seed, rows=range(len(pairs)),
            sampler=sampler or Sampler(),
        )  # fmt: skip
    lengths = encoded.source_lengths.tolist()
    return [row[length:] for row, length in zip(found.tolist(), lengths, strict=True)]


def name_scores(name: str, values: tuple[float, float]) -> dict[str, float]:
    """Returns what `sample_texts` gave under the names `<name>/good` and `<name>/bleu`.

    Args:
        name: of the texts.
        values: the two numbers.
    """
    return {f"{name}/good": values[0], f"{name}/bleu": values[1]}
