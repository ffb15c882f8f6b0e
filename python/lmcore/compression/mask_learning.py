"""Learning of which parts of a model stay: gates on layers, heads, inner units and channels.

Source: Sheared-LLaMA (arXiv 2310.06694), section 2.1. It is no part of OpenBA-V2, which draws.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcore._manifest import find_model
from lmcore.compression.checkpoint_folders import keep_outside
from lmcore.compression.mask_config import MaskConfig
from lmcore.compression.mask_run import PLAN, SCORES, MaskRun, read_texts
from lmcore.compression.plan import Plan, prune_shape
from lmcore.compression.plan_files import read_plan
from lmcore.cost import Shape, count_parameters
from lmcore.training.folder import DataRecord, Recipe, keep_apart, point_to
from lmcore.training.loop import fit
from lmcore.training.processes import choose_precision, start_processes, use_threads

# What may change when a run goes on. Files may move: a fingerprint tells texts and first weights.
# The steps may not, where the step size of the weights depends on them.
_FREE = (
    "config.model", "config.loop.save_every_seconds", "config.loop.keep_states",
    "config.loop.tensorboard", "config.device.device", "config.device.threads",
    "config.fused", "config.validation_batch_size", "data.path", "data.files", "data.valid",
)  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class MaskResult:
    """What a run left behind.

    Example:
        >>> MaskResult.__slots__[:2]
        ('folder', 'plan')
    """

    folder: Path
    """Holds everything; `plan.json` and `masks.scores` in it are those of the best step."""
    plan: Plan
    """For the model that was there, or, where weights were trained, for that in `best`."""
    shape: Shape
    """That the plan leaves."""
    parameters: int
    """Of it."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the plan was the best one."""
    best_value: float | None
    """The loss right after its cut; None without validation texts, where the last is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def learn_masks(
    config: MaskConfig,
    data: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    valid: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = False,
) -> MaskResult:
    """Returns what gates of a model have come to under a target size: a plan.

    The folder gets `recipe.json`, `log.jsonl`, `states`, `models`, `best`, and links to the best
    step's `plan.json`, for `lmcore compression prune`, and `masks.scores`, from which
    `lmcore compression plan --choose learned` makes plans of other sizes. A killed run, started
    again, goes on from the last saved step and ends with the same gates as an unbroken one.

    The model reads what it is scored with as well: see `lmcore.compression.calibration`. What is
    validated is the model that the plan leaves, right after the cut.

    Source: Sheared-LLaMA (arXiv 2310.06694), section 2.1.

    Args:
        config: the settings.
        data: files of text: lines, or JSONL with `text`, or with `src` and `trg`.
        out: the folder; it is made if it does not exist.
        model: its folder, or that of a run; takes the place of `config.model`.
        valid: such a file, for validation; without it the last step is the best.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar and a line for each validation on standard error.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data, or another process
            trains into it.
        FloatingPointError: a loss, a weight or a gate is not finite; the text names the step.
        ImportError: torch or transformers is not installed.
        OSError: a file cannot be read or written.
        ValueError: the target cannot be reached, the model cannot be loaded, a row cannot be used,
            the data is too short, or a file of the folder has changed.

    Example:
        >>> learn_masks(MaskConfig(), [], "masks", model="none")
        Traceback (most recent call last):
        ValueError: expected a file of text, got none
    """
    given = config.model if model is None else model
    if given is None:
        raise ValueError("a model must be given: got none")
    source = find_model(given)
    config = replace(config, model=source)
    files = [data] if isinstance(data, str | os.PathLike) else [*data]
    inputs = [*files, source, *([] if valid is None else [valid])]
    keep_outside(out, source)
    keep_apart(out, inputs)
    for name in (PLAN, SCORES):
        _check_link(Path(out), name, inputs)
    texts = read_texts(source, files, config.tokens)
    checked = None if valid is None else read_texts(source, [valid], config.valid_tokens)
    config = replace(config, device=choose_precision(config.device, progress=progress))
    with use_threads(config.device.threads), start_processes(config.device.device) as processes:
        run = MaskRun(config, texts, checked, processes=processes)
        steps = config.loop.steps
        if progress and processes.is_first and steps is not None and steps < config.warmup_steps:
            _say_short(run, steps)
        record = DataRecord(
            path=None,
            options={"files": [os.fspath(file) for file in files],
                     "valid": None if valid is None else os.fspath(valid)},
            sizes={"rows": len(texts.rows), "tokens": texts.tokens,
                   "valid_rows": 0 if checked is None else len(checked.rows)},
            fingerprint=processes.first(run.find_fingerprint),
        )  # fmt: skip
        is_fixed = config.trains_weights and config.schedule.needs_steps
        free = _FREE if is_fixed else (*_FREE, "config.loop.steps")
        result = fit(
            run,
            out,
            config.loop,
            recipe=Recipe(config=config, data=record, free=free),
            processes=processes,
            unit="tokens",
            resume=resume,
            progress=progress,
        )
        processes.first(lambda: _link(Path(out)))
    plan = read_plan(Path(out, "best", PLAN))
    shape = prune_shape(plan)
    return MaskResult(
        folder=Path(out),
        plan=plan,
        shape=shape,
        parameters=count_parameters(shape).distinct,
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        history=result.history,
    )


def _say_short(run: MaskRun, steps: int) -> None:
    """That gates are never held to the target, on standard error."""
    last = round(run.find_target(steps) * run.polynomial.whole)
    print(
        f"loop.steps is {steps} and warmup_steps {run.config.warmup_steps}: gates are held to "
        f"{last:,} parameters at last, and the plan is cut to {int(run.most):,}",
        file=sys.stderr,
    )


def _check_link(folder: Path, name: str, inputs: Sequence[str | os.PathLike[str]]) -> None:
    """Refuses to put a link where something else stands."""
    path = folder / name
    is_own = path.is_symlink() and path.readlink() == Path("best", name)
    if os.path.lexists(path) and not is_own:
        raise FileExistsError(f"{path}: is there already, and no link of a run")
    if any(os.path.realpath(one) == os.path.realpath(path) for one in inputs):
        raise ValueError(f"{path}: the output is an input too")


def _link(folder: Path) -> None:
    """Names the best step's files in the folder itself; they follow `best` wherever it goes."""
    for name in (PLAN, SCORES):
        point_to(folder / name, folder / "best" / name)
