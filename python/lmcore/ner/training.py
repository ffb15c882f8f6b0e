"""Training of models that write every word with its label (GNER, section 5)."""

from __future__ import annotations

import hashlib
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lmcore.ner.collator import Encoded, GNERCollator, Truncation
from lmcore.ner.evaluation import score
from lmcore.ner.models import make_model
from lmcore.ner.pairs import find_pair, find_words
from lmcore.ner.recipes import TrainConfig
from lmcore.ner.validation import generate_texts
from lmcore.training.batches import ExampleBatches, share_rows
from lmcore.training.checkpoint import (
    check_weights,
    gather_weights,
    hash_weights,
    take_weights,
)
from lmcore.training.config import LoopConfig
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.models import (
    add_lora,
    check_fit,
    find_blocks,
    load_model,
    load_tokenizer,
    make_tokenizer,
    recompute_layers,
    save_model,
)
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch

# What may change when a run goes on. Files and the model may move: a fingerprint of the tokens and
# of the first weights tells what they are.
_FREE = (
    "config.model", "config.epochs", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "config.validation_batch_size", "data.path", "data.dev",
)  # fmt: skip
# Where the length of the run changes what each step does.
_OF_LENGTH = ("config.epochs", "config.loop.steps")
# Rows that are encoded at once.
_BLOCK = 1000


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
    """Its validation metric; None without validation rows, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """Steps after which every row has come at least once."""
    truncation: Truncation
    """What of the training rows was cut."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def train(
    config: TrainConfig,
    rows: Sequence[Mapping[str, Any]],
    out: str | os.PathLike[str],
    *,
    dev: Sequence[Mapping[str, Any]] = (),
    model: str | os.PathLike[str] | None = None,
    resume: bool = True,
    progress: bool = False,
    data_path: str | os.PathLike[str] | None = None,
    dev_path: str | os.PathLike[str] | None = None,
) -> TrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model that was best in validation and its tokenizer, for `from_pretrained`. A killed run,
    started again, goes on from the last saved step and ends with the same weights as an unbroken
    one, at the same number of processes and threads.

    The loss is the mean cross entropy over the target tokens of the whole batch, however it is
    divided among processes and micro-batches. Validation generates greedily for the validation
    rows and scores as `lmcore.ner.score` does.

    Source: GNER (arXiv 2402.16602), section 5 of the specification.

    Args:
        config: the settings.
        rows: with `instruction` and `target`, or as the authors' code writes them.
        out: the folder; it is made if it does not exist.
        dev: such rows with words, labels and types; without them the last model is the best.
        model: takes the place of `config.model`.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar, a line for each validation, and what was cut, on standard
            error.
        data_path: where the rows came from, for `recipe.json`; no file of the run.
        dev_path: where the validation rows came from.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        ImportError: LoRA is asked for, and peft is not installed.
        OSError: a file cannot be written.
        TypeError: a text of a row is none.
        ValueError: there are no rows, or one cannot be used; the model cannot be loaded, or does
            not fit its tokenizer or the settings; the device does not exist; the data would be
            overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> from lmcore.ner.recipes import tiny
        >>> from lmcore.training.config import change
        >>> rows = [{"instruction": "Label. Sentence: Ada", "target": "Ada(B-person)"}] * 2
        >>> config = change(tiny(), {"loop.steps": 2, "scratch.hidden_size": 8, "batch_size": 2})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(config, rows, folder).steps
        2
    """
    if model is not None:
        config = replace(config, model=os.fspath(model))
    paths = {"data": data_path, "dev": dev_path}
    shown = {k: None if v is None else os.path.abspath(v) for k, v in paths.items()}  # noqa: PTH100
    keep_apart(out, [path for path in (*paths.values(), config.model) if path is not None])
    device = choose_precision(config.device, progress=progress)
    config = replace(config, device=device)
    with use_threads(config.device.threads), start_processes(config.device.device) as processes:
        run = GNERRun(config, rows, dev, processes)
        if progress and run.truncation.tokens:
            print(f"{run.truncation}", file=sys.stderr)
        record = DataRecord(
            path=shown["data"],
            options={"dev": shown["dev"]},
            sizes={"rows": len(rows), "dev_rows": len(dev)},
            fingerprint=processes.first(run.find_fingerprint),
        )
        is_fixed = run.schedule.needs_steps or config.warmup_share > 0
        free = [name for name in _FREE if not (is_fixed and name in _OF_LENGTH)]
        result = fit(
            run,
            out,
            run.loop,
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
        steps_per_epoch=run.batches.steps_per_epoch,
        truncation=run.truncation,
        history=result.history,
    )


class GNERRun:
    """One run of training: tokenizer, model, optimizer and encoded rows.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops, which
    seed dropout as they like.

    Args:
        config: the settings.
        rows: to train on.
        dev: to validate with.
        processes: those that share each batch; this one alone by default.

    Raises:
        ImportError: LoRA is asked for, and peft is not installed.
        TypeError: as for `train`.
        ValueError: as for `train`.

    Example:
        >>> from lmcore.ner.recipes import tiny
        >>> from lmcore.training.config import change
        >>> rows = [{"instruction": "Label. Sentence: Ada", "target": "Ada(B-person)"}]
        >>> config = change(tiny(), {"scratch.hidden_size": 8, "batch_size": 1})
        >>> GNERRun(config, rows).step(1)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self,
        config: TrainConfig,
        rows: Sequence[Mapping[str, Any]],
        dev: Sequence[Mapping[str, Any]] = (),
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.device = config, processes, processes.device
        count = processes.data_count
        is_sharded = config.device.sharding != "none"
        if config.batch_size < count or (is_sharded and config.batch_size % count):
            raise ValueError(
                f"batch_size must be {'a multiple of' if is_sharded else 'at least'} the {count} "
                f"processes: got {config.batch_size}"
            )
        _check_rows(rows, dev)
        seed_torch(config.loop.seed)
        self.tokenizer, self.model = _make(config, rows)
        self.collator = GNERCollator(
            self.tokenizer,
            model=self.model,
            max_source_tokens=config.max_source_tokens,
            max_target_tokens=config.max_target_tokens,
        )
        self.encoded: list[Encoded] = []
        for first in range(0, len(rows), _BLOCK):
            block = rows[first : first + _BLOCK]
            self.encoded += self.collator.encode(block, first=first)
        self.truncation = replace(self.collator.truncation)
        self.prompts = self.collator.encode_prompts(dev) if dev else []
        self.dev = [find_words(row) for row in dev]
        sequences = [*(ids for item in self.encoded for ids in item), *self.prompts]
        check_fit(self.model, sequences, "max_source_tokens and max_target_tokens")
        self.counts = [item.label_count for item in self.encoded]
        self.batches = ExampleBatches(
            self.encoded, config.batch_size, config.loop.seed, self.collator.pad
        )
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        if config.lora.rank:
            self.model = add_lora(self.model, config.lora)
        nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        if config.device.recompute:
            recompute_layers(self.model)
        processes.shard(
            self.model, find_blocks(self.model), replace(config.device, recompute=False)
        )
        self.optimizer = Optimizer(
            self.model,
            config.optimizer,
            self.schedule,
            config.device,
            processes,
            steps=self.loop.steps,
        )

    @property
    def loop(self) -> LoopConfig:
        """When to validate, log and end, with epochs as numbers of steps."""
        loop, epoch = self.config.loop, self.batches.steps_per_epoch
        validate = loop.validate_every_steps or epoch
        return replace(
            loop,
            steps=loop.steps or self.config.epochs * epoch,
            validate_every_steps=validate,
            log_every_steps=loop.log_every_steps or min(validate, epoch),
        )

    @property
    def schedule(self) -> Any:
        """Of the step size, with the share of the warm-up as a number of steps."""
        share, steps = self.config.warmup_share, self.loop.steps
        assert steps is not None
        if not share:
            return self.config.schedule
        return replace(self.config.schedule, warmup_steps=math.ceil(share * steps))

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of it, a micro-batch at a time.

        Args:
            step: from 1.

        Returns:
            `loss`, the batch's mean over its target tokens; `tokens`, those of this process.
        """
        config = self.config
        self.model.train()
        whole = sum(self.counts[p] for p in self.batches.find(step, slice(config.batch_size)))
        indices = self.batches.find(step, share_rows(config.batch_size, self.processes))
        # Rows of about one length stand together; the longest come first, where memory may end.
        indices.sort(key=lambda index: -len(self.encoded[index].input_ids))
        size = config.micro_batch_size
        total = torch.zeros((), device=self.device)
        for first in range(0, len(indices), size):
            part = indices[first : first + size]
            batch = self._put(self.collator.pad([self.encoded[index] for index in part]))
            with self.optimizer.autocast():
                mean = self.model(**batch, use_cache=False).loss
            loss = mean.float() * (sum(self.counts[index] for index in part) / whole)
            self.optimizer.backward(loss)
            total += loss.detach()
        self.optimizer.update(step)
        tokens = sum(self.counts[index] for index in indices)
        return {"loss": self.processes.sum(total), "tokens": torch.tensor(tokens)}

    def validate(self) -> dict[str, float]:
        """Returns F1, precision and recall of the validation rows; empty without such rows.

        Raises:
            FloatingPointError: a weight is not finite.
            ValueError: a row cannot be scored.
        """
        check_weights(self.model)
        if not self.prompts:
            return {}
        self.model.eval()
        with self.optimizer.autocast():
            texts = generate_texts(
                self.model,
                self.collator,
                self.prompts,
                batch_size=self.config.validation_batch_size,
                processes=self.processes,
                in_step=self.config.device.sharding != "none",
            )
        if not self.processes.is_first:
            return {}
        rows = [{**words, "prediction": text} for words, text in zip(self.dev, texts, strict=True)]
        mean = score(rows, threads=self.config.device.threads).mean
        return {"f1": mean.f1, "precision": mean.precision, "recall": mean.recall}

    def save_model(self, folder: Path) -> None:
        """Writes the model and its tokenizer, for `from_pretrained`.

        Args:
            folder: where to.
        """
        save_model(
            self.model,
            self.tokenizer,
            folder,
            save=self.config.lora.save,
            is_first=self.processes.is_first,
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": gather_weights(self.model, trained=True),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        take_weights(self.model, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])

    def find_fingerprint(self) -> str:
        """Returns what tells the rows, their tokens and the first weights from others."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(self._first_weights)
        for ids in [*[ids for item in self.encoded for ids in item], *self.prompts]:
            digest.update(len(ids).to_bytes(8, "little"))
            digest.update(ids.astype("<i4").tobytes())
        digest.update(json.dumps(self.dev, sort_keys=True).encode())
        return digest.hexdigest()

    def _put(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: value.to(self.device) for name, value in batch.items()}


def _make(config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> tuple[Any, Any]:
    """The tokenizer and the model, loaded or made of nothing."""
    if config.model is not None:
        return load_tokenizer(config.model), load_model(config.model)
    texts = (text for row in rows for text in find_pair(row))
    tokenizer = make_tokenizer(texts, config.scratch.vocabulary)
    return tokenizer, make_model(config.scratch, tokenizer)


def _check_rows(rows: Sequence[Mapping[str, Any]], dev: Sequence[Mapping[str, Any]]) -> None:
    if not len(rows):
        raise ValueError("rows must not be empty: there is nothing to train on")
    for name, some in (("rows", rows), ("dev", dev)):
        for index, row in enumerate(some):
            try:
                find_pair(row)
                if some is dev:
                    find_words(row)
            except TypeError as error:
                raise TypeError(f"{name}[{index}]: {error}") from None
            except ValueError as error:
                raise ValueError(f"{name}[{index}]: {error}") from None
