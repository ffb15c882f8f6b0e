"""Pre-training of OpenBA on denoised texts (OpenBA, sections 3.3 and 4.1)."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmcore.openba.batches import DenoisedBatches
from lmcore.openba.indexed import IndexedDataset
from lmcore.openba.models import (
    check_fit,
    find_blocks,
    find_denoisers,
    find_ids,
    load_model,
    make_model,
    save_model,
    tie_head,
)
from lmcore.openba.objective import measure_losses, share_parts, sum_losses
from lmcore.openba.recipes import TrainConfig
from lmcore.openba.texts import hash_texts, read_texts
from lmcore.openba.tokenization_openba import OpenBATokenizer, load_tokenizer
from lmcore.ops.denoising import plan_batch
from lmcore.training.checkpoint import check_weights, gather_weights, hash_weights, take_weights
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.manifest import find_model
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch

Texts: TypeAlias = str | os.PathLike[str] | IndexedDataset | NDArray[np.integer[Any]]

# What may change when a run goes on. Files may move: a fingerprint tells texts, tokens and first
# weights from others.
_FREE = (
    "config.model", "config.loop.steps", "config.loop.save_every_seconds",
    "config.loop.keep_states", "config.loop.tensorboard", "config.device.device",
    "config.device.threads", "config.device.sharding", "config.device.recompute",
    "config.validation_batch_size", "data.path", "data.valid", "data.tokenizer",
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
    data: Texts,
    out: str | os.PathLike[str],
    *,
    tokenizer: OpenBATokenizer | str | os.PathLike[str] | None = None,
    valid: Texts | None = None,
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
    of the log has the loss of each denoiser as well. Validation measures the loss of fixed texts
    under all seven denoisers.

    Source: OpenBA (arXiv 2309.10706), sections 3.3 and 4.1.

    Args:
        config: the settings.
        data: prefix of a token file as `pack_files` writes it, one that is open, or an array
            `[texts, config.text_length]` of ids.
        out: the folder; it is made if it does not exist.
        tokenizer: or its SentencePiece file or folder; None: that in the model's folder.
        valid: such texts; without them the last model is the best.
        model: takes the place of `config.model`.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar and a line for each validation on standard error.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        IndexError: a text has an id that the tokenizer does not have.
        OSError: a file cannot be read or written.
        ValueError: there are no texts, or one has another length; no tokenizer is given; the
            model cannot be loaded, or does not fit the tokenizer or the settings; the device
            does not exist; the data would be overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
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
    source = config.model if tokenizer is None else tokenizer
    if source is None:
        raise ValueError("a tokenizer must be given where no model is named")
    named = {"data": data, "valid": valid, "tokenizer": source}
    shown = {name: _name(value) for name, value in named.items()}
    keep_apart(out, _list_inputs(shown, config.model))
    device = choose_precision(config.device, progress=progress)
    config = replace(config, device=device)
    with use_threads(device.threads), start_processes(device.device) as processes:
        run = OpenBARun(config, data, valid, tokenizer=_load_tokenizer(source), processes=processes)
        idle = processes.data_count - run.micro_batch_count
        if progress and processes.is_first and idle > 0:
            print(f"{idle} processes have no micro-batch to compute", file=sys.stderr)
        record = DataRecord(
            path=shown["data"],
            options={"valid": shown["valid"], "tokenizer": shown["tokenizer"]},
            sizes={
                "texts": len(run.texts),
                "tokens": run.texts.size,
                "valid_texts": 0 if run.valid is None else len(run.valid),
            },
            fingerprint=processes.first(run.find_fingerprint),
        )
        free = [n for n in _FREE if n != "config.loop.steps" or not config.schedule.needs_steps]
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
        steps_per_epoch=run.batches.steps_per_epoch,
        history=result.history,
    )


class OpenBARun:
    """One run of training: model, optimizer, and texts.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops.

    Args:
        config: the settings.
        data: texts to train on, as for `train`.
        valid: texts to validate with.
        tokenizer: of the texts.
        processes: those that share each batch; this one alone by default.

    Raises:
        OSError: as for `train`.
        ValueError: as for `train`.

    Example:
        >>> import tempfile
        >>> from lmcore.openba.recipes import tiny
        >>> from lmcore.training.config import change
        >>> from lmcore.worlds.openba import write_piece_file
        >>> sizes = {"shape.hidden_size": 8, "shape.ffn_hidden_size": 8, "encoder_length": 18}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     _ = write_piece_file(Path(folder, "spiece.model"))
        ...     tokenizer = OpenBATokenizer(Path(folder, "spiece.model"))
        >>> texts = np.arange(300, 332).reshape(2, 16)
        >>> run = OpenBARun(change(tiny(), sizes), texts, tokenizer=tokenizer)
        >>> run.step(1)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self,
        config: TrainConfig,
        data: Texts,
        valid: Texts | None = None,
        *,
        tokenizer: OpenBATokenizer,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.tokenizer = config, processes, tokenizer
        self.texts = read_texts(data, config.text_length)
        self.valid: NDArray[np.integer[Any]] | None = None
        if valid is not None:
            self.valid = read_texts(valid, config.text_length)[: config.validation_texts]
        files = (_name(data), _name(valid))
        self._text_names = [f"{name}.bin" if name else "texts" for name in files]
        self.ids = find_ids(tokenizer)
        self.denoisers = find_denoisers(tokenizer, prefixes=config.prefixes)
        chosen = [one for one in self.denoisers if one.name in config.denoisers]
        self._names = [one.name for one in chosen]
        lengths = (config.encoder_length, self._find_decoder_length())
        self.batches = DenoisedBatches(
            self.texts,
            config.batch_size,
            config.micro_batch_size,
            seed=config.loop.seed,
            denoisers=chosen,
            ids=self.ids,
            grouped=config.grouping,
            # The authors' scripts ask for one more than the longest.
            widths=None if config.grouping else (lengths[0], lengths[1] + 1),
            threads=config.device.threads,
        )
        seed_torch(config.loop.seed)
        if config.model is None:
            self.model = make_model(config.shape, tokenizer, lengths, tied=config.tied)
        else:
            self.model = load_model(config.model)
        check_fit(self.model, tokenizer)
        if config.tied and not self.model.config.tie_word_embeddings:
            tie_head(self.model)
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        nn.Module.to(self.model, processes.device)  # transformers' own `to` is untyped
        processes.shard(self.model, find_blocks(self.model), config.device)
        self.optimizer = Optimizer(
            self.model,
            config.optimizer,
            config.schedule,
            config.device,
            processes,
            steps=config.loop.steps,
        )

    @property
    def micro_batch_count(self) -> int:
        """Of a step, of all processes together."""
        return -(-self.config.batch_size // self.config.micro_batch_size)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of its micro-batches, one after the other.

        Args:
            step: from 1.

        Returns:
            `loss`, the batch's mean over its labels, and `loss_` with the name of each denoiser
            that it has; `tokens`, those that encoder and decoder get in this process.
        """
        nn.Module.train(self.model)
        batches = self.batches(step)
        counts = np.zeros(len(self._names), np.int64)
        for batch in batches:
            np.add.at(counts, batch.tasks, batch.decoder_lengths)
        whole = int(counts.sum())
        sums = torch.zeros(len(counts), dtype=torch.float64, device=self.processes.device)
        tokens = 0
        for index, is_own in share_parts(len(batches), self.processes, in_step=self._in_step):
            batch = batches[index]
            # Dropout belongs to the micro-batch, whichever process computes it.
            seed_torch(self.config.loop.seed, step, index)
            with self.optimizer.autocast():
                losses = sum_losses(self.model, batch, self.processes.device)
            self.optimizer.backward(losses.sum() * (is_own / whole))
            if is_own:
                tasks = torch.from_numpy(batch.tasks).to(sums.device)
                sums.index_add_(0, tasks, losses.detach().double())
                tokens += int(batch.encoder_lengths.sum() + batch.decoder_lengths.sum())
        self.optimizer.update(step)
        sums = self.processes.sum(sums)
        found = {"loss": sums.sum() / whole}
        for index, count in enumerate(counts.tolist()):
            if count:
                found[f"loss_{self._names[index]}"] = sums[index] / count
        return {**found, "tokens": torch.tensor(tokens)}

    def validate(self) -> dict[str, float]:
        """Returns the loss under each denoiser and their mean; empty without validation texts.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        if self.valid is None:
            return {}
        nn.Module.eval(self.model)
        with self.optimizer.autocast():
            return measure_losses(
                self.model,
                self.valid,
                denoisers=self.denoisers,
                ids=self.ids,
                batch_size=self.config.validation_batch_size,
                processes=self.processes,
                in_step=self._in_step,
            )

    def save_model(self, folder: Path) -> None:
        """Writes the model and its tokenizer, for `from_pretrained`.

        Args:
            folder: where to.
        """
        save_model(self.model, self.tokenizer, folder, is_first=self.processes.is_first)

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
        """Returns what tells the texts, the tokenizer and the first weights from others.

        Raises:
            IndexError: an id outside of the vocabulary.
        """
        digest = hashlib.blake2b(self._first_weights, digest_size=16)
        for token, number in sorted(self.tokenizer.get_vocab().items()):
            digest.update(f"{number} {token}\n".encode())
        for name, texts in zip(self._text_names, (self.texts, self.valid), strict=True):
            if texts is not None:
                digest.update(hash_texts(texts, self.ids.vocabulary_size, name))
        return digest.hexdigest()

    @property
    def _in_step(self) -> bool:
        return self.config.device.sharding != "none"

    def _find_decoder_length(self) -> int:
        """What the denoisers need, if the settings leave room for it."""
        length, count = self.config.text_length, len(self.denoisers)
        plan = plan_batch(
            np.full(count, length), np.arange(count), seed=0, denoisers=self.denoisers,
            ids=self.ids, tasks=np.arange(count),
        )  # fmt: skip
        # A suffix has a length that is drawn; half of a text as spans is always more.
        needed = int(plan.decoder_lengths.max())
        given = self.config.decoder_length
        if given is not None and given < needed:
            raise ValueError(
                f"decoder_length must be at least {needed} for texts of {length} tokens: got "
                f"{given}"
            )
        return given or needed


def _load_tokenizer(source: Any) -> OpenBATokenizer:
    if isinstance(source, OpenBATokenizer):
        return source
    # Of a run, that of its best model.
    return load_tokenizer(find_model(source))


def _name(value: Any) -> str | None:
    """Where something lies, for `recipe.json`; None if that is no file."""
    if isinstance(value, IndexedDataset):
        value = value.prefix
    return os.path.abspath(value) if isinstance(value, str | os.PathLike) else None  # noqa: PTH100


def _list_inputs(shown: Mapping[str, str | None], model: str | None) -> list[str]:
    """The files that a run reads."""
    prefixes = [shown[name] for name in ("data", "valid")]
    files = [f"{prefix}.{end}" for prefix in prefixes if prefix for end in ("bin", "idx")]
    return [*files, *(name for name in (shown["tokenizer"], model) if name is not None)]
