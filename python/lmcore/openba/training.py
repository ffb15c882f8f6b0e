"""Training of OpenBA on denoised texts and on pairs (OpenBA, sections 3.3 and 4.1)."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmcore._manifest import find_model
from lmcore.openba.data import Data, TrainData
from lmcore.openba.mixture import Mixture
from lmcore.openba.recipes import TrainConfig
from lmcore.openba.run import OpenBARun
from lmcore.openba.stages import check_stage
from lmcore.openba.tokenization_openba import OpenBATokenizer, load_tokenizer
from lmcore.training.folder import Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.processes import choose_precision, start_processes, use_threads

__all__ = ["OpenBARun", "TrainResult", "train"]

# What may change when a run goes on. Files may move: a fingerprint tells texts, tokens and first
# weights from others.
_FREE = (
    "config.model", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "config.validation_batch_size", "data.path", "data.valid", "data.tokenizer", "data.mixture",
)  # fmt: skip


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainResult:
    """What a training run left behind."""

    folder: Path
    """Holds everything; `best` in it is the folder of the best model and its tokenizer."""
    steps: int
    """Those trained, in this and earlier calls."""
    best_step: int
    """After which the model was the best one."""
    best_value: float | None
    """Its validation loss; None without validation texts, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """Steps after which every text has come at least once."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def train(
    config: TrainConfig,
    data: Data | Mixture,
    out: str | os.PathLike[str],
    *,
    tokenizer: OpenBATokenizer | str | os.PathLike[str] | None = None,
    valid: Data | None = None,
    model: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = False,
) -> TrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model that was best in validation and its tokenizer, for `from_pretrained`. A killed run,
    started again, goes on from the last saved step and ends with the same weights as an unbroken
    one, at the same number of processes and threads.

    The loss is the mean cross entropy over the labels of the whole batch. A step's micro-batches
    do not depend on the number of processes that share them, and neither does dropout. Each line
    of the log has the loss of each denoiser as well, and of a mixture the share and the loss of
    each source. Validation measures the loss of fixed texts under all seven denoisers, or that of
    fixed pairs.

    A stage starts from a model of the stage before. Pairs are cut behind where they are longer
    than encoder and decoder have room for; how many are is said, and stands in `recipe.json`.

    Source: OpenBA (arXiv 2309.10706), sections 3.3 and 4.1.

    Args:
        config: the settings.
        data: prefix of a token file as `pack_files` writes it, one that is open, or an array
            `[texts, config.text_length]` of ids; where `config.pairs` is set, of a file whose items
            have targets, or `Pairs`; or a mixture of such data.
        out: the folder; it is made if it does not exist.
        tokenizer: or its SentencePiece file or folder; None: that in the model's folder.
        valid: such texts or pairs, no mixture; without them the last model is the best.
        model: takes the place of `config.model`.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar and a line for each validation on standard error.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        IndexError: a text has an id that the tokenizer does not have.
        OSError: a file cannot be read or written.
        ValueError: there are no texts, or one has another length or a target, or a pair has none;
            no tokenizer is given; the model is of the wrong stage, cannot be loaded, or does not
            fit the tokenizer or the settings; the device does not exist; the data would be
            overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> from lmcore.openba.recipes import tiny
        >>> from lmcore.training.config import change
        >>> from lmcore.worlds.openba import write_piece_file
        >>> sizes = {"shape.hidden_size": 8, "shape.ffn_hidden_size": 8, "encoder_length": 18}
        >>> config = change(tiny(), {**sizes, "batch_size": 2, "loop.steps": 2,
        ...                          "schedule.warmup_steps": 0})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "spiece.model")
        ...     _ = write_piece_file(file)
        ...     train(config, np.arange(300, 332).reshape(2, 16), folder + "/run",
        ...           tokenizer=file).steps
        2
    """
    if model is not None:
        config = replace(config, model=os.fspath(model))
    check_stage(config.stage, config.model)
    source = config.model if tokenizer is None else tokenizer
    if source is None:
        raise ValueError("a tokenizer must be given where no model is named")
    items = TrainData(config, data, valid)
    named = _name(source)
    keep_apart(out, [*items.files, *(name for name in (named, config.model) if name is not None)])
    device = choose_precision(config.device, progress=progress)
    config = replace(config, device=device)
    with use_threads(device.threads), start_processes(device.device) as processes:
        run = OpenBARun(config, items, tokenizer=_load_tokenizer(source), processes=processes)
        cut = run.count_cut()
        if progress and processes.is_first:
            _say_at_start(run, cut)
        record = items.record(named, cut, processes.first(run.find_fingerprint))
        free = [n for n in _FREE if n != "config.loop.steps" or not config.schedule.needs_steps]
        free += [f"data.sources.{name}" for name in record.options.get("sources", ())]
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
    return TrainResult(
        folder=Path(out),
        steps=result.steps,
        best_step=result.best_step,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        steps_per_epoch=run.steps_per_epoch,
        history=result.history,
    )


def _say_at_start(run: OpenBARun, cut: tuple[int, int]) -> None:
    """What is unused of processes and of pairs, on standard error."""
    idle = run.processes.data_count - run.micro_batch_count
    if idle > 0:
        print(f"{idle} processes have no micro-batch to compute", file=sys.stderr)
    if any(cut):
        count = sum(len(source.items) for source in run.data.sources if source.are_pairs)
        source, target = run.lengths
        print(
            f"of {count} pairs {cut[0]} sources and {cut[1]} targets are cut: the encoder has room "
            f"for {source} ids, the decoder for {target}",
            file=sys.stderr,
        )


def _load_tokenizer(source: Any) -> OpenBATokenizer:
    if isinstance(source, OpenBATokenizer):
        return source
    # Of a run, that of its best model.
    return load_tokenizer(find_model(source))


def _name(value: Any) -> str | None:
    """Where a tokenizer lies, for `recipe.json`; None if that is no file."""
    return os.path.abspath(value) if isinstance(value, str | os.PathLike) else None  # noqa: PTH100
