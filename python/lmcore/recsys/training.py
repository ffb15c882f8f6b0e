"""Training of sequential recommenders on packed positions, with mined false negatives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmcore.recsys.data import Split
from lmcore.recsys.fingerprint import find_fingerprint
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.rules import SplitRule
from lmcore.recsys.run import SequenceRun
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.processes import start_processes, use_threads

# What may change when a run goes on. Data may move, and be read in another way: a fingerprint
# tells what they are. Threads stand in the recipe once more, as the number that is in use.
_FREE = (
    "config.epochs", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "data.path",
)  # fmt: skip
# Where the length of the run changes what each step does.
_OF_LENGTH = ("config.epochs", "config.loop.steps")


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainResult:
    """What a training run left behind."""

    folder: Path
    """Holds the model of the best epoch and everything else."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the model was the best one."""
    best_value: float | None
    """Its validation metric; None where no user has a validation item."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """One draw for each user, about."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""

    @property
    def epochs(self) -> int:
        """Whole epochs trained."""
        return self.steps // self.steps_per_epoch

    @property
    def best_epoch(self) -> int:
        """The epoch of the best step."""
        return -(-self.best_step // self.steps_per_epoch)


def train(
    config: TrainConfig,
    data: Split,
    out: str | os.PathLike[str],
    *,
    resume: bool = True,
    progress: bool = False,
    data_path: str | os.PathLike[str] | None = None,
    data_options: Mapping[str, Any] | None = None,
) -> TrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (config and data), `log.jsonl` (one line for each epoch),
    `states`, `models`, and `best`: `model.safetensors`, `config.json` and `id_map.json` of the
    best step in validation. A killed run, started again, goes on from the last saved step and
    ends with the same weights as an unbroken one, at the same number of processes and threads.

    Under torchrun every process draws the same batch and keeps the same memory of false
    negatives, computes its share of the rows, and the gradients are added up.

    Source: UFNRec (arXiv 2208.04116), section 4 of the specification, step for step.

    Args:
        config: the settings.
        data: the split of the interactions; `recipe.json` says how they were filtered and split,
            so that what evaluates this run does the same.
        out: the folder; it is made if it does not exist.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar and a line for each validation on standard error.
        data_path: where the data came from, for `recipe.json`; no file of the run.
        data_options: how they were read, such as `{"format": "pairs", "skip_bad_rows": True}`, so
            that what reads them again for this run reads the same; also for `recipe.json`.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        OSError: a file cannot be written.
        ValueError: no user can be trained on, a user's history is the whole catalogue, a logit is
            not a number, the device does not exist, the data would be overwritten,
            `data_options` has a name that is written anyway, or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> items = [1, 2, 3, 4, 2, 3, 4, 1, 3, 4, 1, 2]
        >>> data = leave_one_out(make_interactions([0, 4, 8, 12], items, 6))
        >>> config = TrainConfig(epochs=1, max_length=4, hidden_size=8, negatives=3, batch_size=2)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(config, data, folder).best_epoch
        1
    """
    options, prepared = dict(data_options or {}), _describe_preparation(data)
    taken = set(prepared) & set(options)
    if taken:
        raise ValueError(f"options must not hold {min(taken)!r}, which is written anyway")
    record = DataRecord(
        path=None if data_path is None else os.path.abspath(data_path),  # noqa: PTH100
        options={**options, **prepared},
        sizes={
            "users": data.user_count,
            "items": data.item_count,
            "interactions": len(data.interactions.items),
        },
        fingerprint=find_fingerprint(data),
    )
    if data_path is not None:
        keep_apart(out, [data_path])
    free = [*_FREE, *(f"data.{name}" for name in options)]
    if config.schedule.needs_steps:
        free = [name for name in free if name not in _OF_LENGTH]
    device = config.device
    with use_threads(device.threads), start_processes(device.device) as processes:
        run = SequenceRun(config, data, processes)
        result = fit(
            run,
            out,
            run.loop,
            recipe=Recipe(config=config, data=record, free=tuple(free)),
            processes=processes,
            unit="positions",
            resume=resume,
            progress=progress,
        )
    return TrainResult(
        folder=Path(out),
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        steps_per_epoch=run.steps_per_epoch,
        history=result.history,
    )


def _describe_preparation(data: Split) -> dict[str, Any]:
    """How interactions were filtered and split; nothing for what was always done."""
    prepared: dict[str, Any] = {}
    if data.interactions.filtered is not None:
        prepared["filter"] = data.interactions.filtered.to_dict()
    if data.rule != SplitRule():
        prepared["split"] = data.rule.to_dict()
    return prepared
