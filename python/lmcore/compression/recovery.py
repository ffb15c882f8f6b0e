"""Training of a pruned model, so that it comes back to what it could (OpenBA-V2, section 3)."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcore._manifest import read_recipe
from lmcore._text import escape
from lmcore.compression.checkpoint_folders import keep_outside
from lmcore.compression.objectives import choose_objective
from lmcore.compression.recovered_models import (
    RecoveredModel,
    find_model_folder,
    find_model_kind,
)
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.compression.recovery_data import PACKED, RecoveryTexts, find_texts, pack_texts
from lmcore.compression.recovery_run import RecoveryRun
from lmcore.compression.teacher import Teacher
from lmcore.compression.teaching import (
    choose_teacher,
    find_reference,
    hash_teacher,
    load_teacher,
)
from lmcore.openba.data import TrainData
from lmcore.training.config import change
from lmcore.training.folder import Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.optimizer import check_schedule
from lmcore.training.processes import Processes, choose_precision, start_processes, use_threads

FREE = (
    "config.model", "config.teacher", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "config.validation_batch_size", "data.path", "data.valid", "data.tokenizer", "data.files",
    "data.valid_files",
)  # fmt: skip
"""What may change when a run goes on. Files may move: a fingerprint tells texts, tokens and first
weights from others."""


@dataclass(kw_only=True, slots=True, frozen=True)
class RecoveryResult:
    """What recovery left behind."""

    folder: Path
    """Holds everything; `best` in it is the folder of the best model and its tokenizer."""
    objective: str
    """`ul2`, `d_ul2`, `o_ul2` or `causal`."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the model was the best one."""
    best_value: float | None
    """Its validation loss; None without validation texts, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    start_losses: dict[str, float]
    """Losses in validation of the model as it was pruned; empty without validation texts."""
    targets: dict[str, float]
    """Of D-UL2: losses that each denoiser shall come back to; empty otherwise."""
    proportions: dict[str, float]
    """Of D-UL2: how often each denoiser is drawn in the end; empty otherwise."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def recover(
    config: RecoveryConfig,
    data: RecoveryTexts,
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] | None = None,
    teacher: str | os.PathLike[str] | None = None,
    valid: RecoveryTexts | None = None,
    tokenizer: Any = None,
    resume: bool = True,
    progress: bool = False,
) -> RecoveryResult:
    """Returns what the training of a pruned model came to, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model that was best in validation, with its tokenizer and the `pruning.json` of the model
    that it started from, so that it can be pruned further. A killed run, started again, goes on
    from the last saved step and ends with the same weights as an unbroken one, at the same number
    of processes and threads.

    Source: OpenBA-V2 (arXiv 2405.05957), sections 3 to 5.

    Args:
        config: the settings.
        data: prefix of a token file as `lmcore openba pack` writes it, one that is open, an array
            `[texts, config.text_tokens]` of ids, or files of texts, which are packed with the
            model's own tokenizer into the folder.
        out: the folder; it is made if it does not exist.
        model: takes the place of `config.model`.
        teacher: takes the place of `config.teacher`.
        valid: such texts, for validation; without them the last model is the best.
        tokenizer: in the place of that of the model's folder.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar and a line for each validation on standard error.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        IndexError: a text has an id that the tokenizer does not have.
        OSError: a file cannot be read or written.
        ValueError: there are no texts, or one has another length; no model is named; it cannot be
            loaded, or not be trained so; D-UL2 has no validation texts or no targets; the device
            does not exist; the data would be overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lmcore.compression.recipes import tiny
        >>> from lmcore.training.config import change
        >>> from lmcore.training.models import make_tokenizer, save_model
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = change(tiny(), {"loop.steps": 2, "schedule.warmup_steps": 0,
        ...                          "batch_size": 2, "text_tokens": 8})
        >>> small = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(small, make_tokenizer(["Ada"], 300), Path(folder, "small"))
        ...     texts = np.arange(16).reshape(2, 8)
        ...     result = recover(config, texts, folder + "/run", model=folder + "/small")
        >>> result.objective, result.steps
        ('causal', 2)
    """
    given = {"model": model, "teacher": teacher}
    named = {name: os.fspath(path) for name, path in given.items() if path is not None}
    config = change(config, named)
    name = config.model
    if name is None:
        raise ValueError("the folder of a pruned model must be named: got none")
    check_schedule(config.schedule, config.loop.steps)
    device = choose_precision(config.device, progress=progress)
    config = replace(config, device=device)
    with use_threads(device.threads), start_processes(device.device) as processes:
        source = RecoveredModel(name, tokenizer)
        place, why = choose_teacher(config, source.folder)
        if resume and place is None and config.teacher is None:
            _check_alone(Path(out), why)
        items, texts = _read(config, data, valid, source, place, Path(out), processes)
        taught_by = None
        if progress and processes.is_first:
            print(escape(why), file=sys.stderr)
        if place is not None:
            taught_by = load_teacher(config, place, source.folder, processes.device)
        run = RecoveryRun(
            config,
            items,
            source,
            processes=processes,
            teacher=taught_by,
            load_reference=None if taught_by else _find_reference(config, source, processes),
        )
        fingerprint = processes.first(run.find_fingerprint)
        teacher_digest = (
            None if taught_by is None else processes.first(lambda: hash_teacher(taught_by))
        )
        record = items.record(str(source.folder.absolute()), (0, 0), fingerprint)
        record = replace(record, options={**record.options, **texts, "teacher": teacher_digest})
        free = [n for n in FREE if n != "config.loop.steps" or not config.schedule.needs_steps]
        result = fit(
            run,
            out,
            config.loop,
            recipe=Recipe(config=config, data=record, free=tuple(free)),
            processes=processes,
            unit="tokens",
            resume=resume,
            progress=progress,
        )
    names = [one.name for one in run.denoisers]

    def label(values: Any) -> dict[str, float]:
        return {} if values is None else dict(zip(names, values.tolist(), strict=True))

    return RecoveryResult(
        folder=Path(out),
        objective=run.objective,
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        start_losses=run.start_losses or {},
        targets=label(run.targets),
        proportions=label(run.proportions),
        history=result.history,
    )


def find_recipe(model: str | os.PathLike[str]) -> str:
    """Returns the name of the recipe of a kind of model: `d_ul2` or `causal`.

    Args:
        model: its folder, or that of a run.

    Raises:
        OSError: a file cannot be read.
        ValueError: it is no folder of an encoder-decoder or a decoder.

    Example:
        >>> import tempfile
        >>> from transformers import GPT2Config
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     GPT2Config(vocab_size=300).save_pretrained(folder)
        ...     find_recipe(folder)
        'causal'
    """
    return choose_objective(RecoveryConfig(), find_model_kind(find_model_folder(model)))


def _check_alone(out: Path, why: str) -> None:
    """Refuses to go on without the teacher that a run had so far, and says why there is none."""
    file = out / "recipe.json"
    if not (file.is_file() and (out / "states").exists()):
        return
    data = read_recipe(file)["data"]
    if isinstance(data, dict) and data.get("teacher") is not None:
        raise FileExistsError(f"{out}: holds a run that learned from a teacher so far; {why}")


def _find_reference(
    config: RecoveryConfig, source: RecoveredModel, processes: Processes
) -> Callable[[], Teacher] | None:
    """What loads the model before pruning, if it is there."""
    place, _ = find_reference(config, source.folder)
    if place is None:
        return None
    return lambda: load_teacher(config, place, source.folder, processes.device)


def _read(
    config: RecoveryConfig,
    data: RecoveryTexts,
    valid: RecoveryTexts | None,
    source: RecoveredModel,
    teacher: Path | None,
    out: Path,
    processes: Processes,
) -> tuple[TrainData, dict[str, list[str]]]:
    """The texts, which the first process packs where they are not, and the files they came from."""
    given = {"files": data, "valid_files": valid}
    parts = {key: ([], None) if one is None else find_texts(one) for key, one in given.items()}
    files = {key: names for key, (names, _) in parts.items()}
    models = [source.folder] if teacher is None else [source.folder, teacher]
    for folder in models:
        keep_outside(out, folder)
    keep_apart(out, [*models, *(name for names in files.values() for name in names)])

    def pack(names: list[str]) -> str:
        return pack_texts(names, source.tokenizer, out / PACKED, length=config.text_tokens)

    found = [
        processes.first(functools.partial(pack, names)) if names else packed
        for names, packed in parts.values()
    ]
    items = TrainData(config, found[0], found[1])
    keep_apart(out, items.files)
    return items, {
        name: [str(Path(one).absolute()) for one in names] for name, names in files.items()
    }


__all__ = ["RecoveryConfig", "RecoveryResult", "RecoveryRun", "recover"]
