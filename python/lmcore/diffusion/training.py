"""Training of text diffusion on pairs, with or without Distance Penalty."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lmcore.diffusion.data import EncodedPairs, encode_pairs
from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.models import (
    check_fit,
    find_blocks,
    load_model,
    load_tokenizer_of,
    make_model,
    save_model,
)
from lmcore.diffusion.objective import Losses, Penalty, View, compute_losses
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.process import Process
from lmcore.diffusion.recipes import TrainConfig
from lmcore.diffusion.timesteps import BatchTimesteps, TimestepChoice
from lmcore.diffusion.tokenization import TextTokenizer, load_tokenizer
from lmcore.ops.schedule import make_betas
from lmcore.training.average import WeightAverage
from lmcore.training.batches import ExampleBatches
from lmcore.training.checkpoint import check_weights, gather_weights, hash_weights, take_weights
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import (
    Processes,
    choose_precision,
    find_device,
    start_processes,
    use_threads,
)
from lmcore.training.seeding import seed_torch

# What may change when a run goes on. Data may move: a fingerprint tells what they are.
_FREE = (
    "config.loop.steps", "config.loop.save_every_seconds", "config.loop.keep_states",
    "config.loop.tensorboard", "config.device.device", "config.device.threads",
    "config.device.sharding", "config.device.recompute", "config.model", "config.distill.teacher",
    "data.path", "data.valid", "data.tokenizer",
)  # fmt: skip
# Validation has the same noise each time, and at the same timesteps: what falls is the model's.
_VALIDATION_STEP = (1 << 40) - 1


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
    """Its validation metric; None without validation pairs, where the last model is the best."""
    resumed_after: int
    """The step after which the run went on; 0 for a new run."""
    steps_per_epoch: int
    """Steps after which every pair has come at least once."""
    shortened: int
    """Training pairs that did not fit into a row, and lost tokens at their end."""
    cut_tokens: int
    """Tokens that these have lost."""
    unknown_tokens: int
    """Tokens of the training pairs that stand for text which has none."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


def train(
    config: TrainConfig,
    pairs: Iterable[Pair],
    out: str | os.PathLike[str],
    *,
    valid: Iterable[Pair] = (),
    tokenizer: str | os.PathLike[str] | TextTokenizer | None = None,
    resume: bool = True,
    progress: bool = False,
    data_path: str | os.PathLike[str] | None = None,
    valid_path: str | os.PathLike[str] | None = None,
) -> TrainResult:
    """Returns the result of a training run, whose files stand in a folder.

    The folder gets `recipe.json` (settings and data), `log.jsonl`, `states`, `models`, and `best`:
    the model of the best step in validation and its tokenizer. What is validated and saved is the
    moving average of the weights. A killed run, started again, goes on from the last saved step
    and ends with the same weights as an unbroken one, at the same number of processes and threads.

    Source: Bridge-Gap Diffusion (arXiv 2305.04465), section 5 of the specification.

    Args:
        config: the settings.
        pairs: to train on.
        out: the folder; it is made if it does not exist.
        valid: to validate with; without them the last model is the best.
        tokenizer: of the texts, or its file; that of `config.model` by default.
        resume: whether to go on from the folder's state.
        progress: whether to show a bar, a line for each validation, and what was cut, on standard
            error.
        data_path: where the pairs came from, for `recipe.json`; no file of the run.
        valid_path: where the validation pairs came from.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite; the text names the step.
        OSError: a file cannot be read or written.
        ValueError: there are no pairs, or one has no tokens; there is no tokenizer; the model
            cannot be loaded, or does not fit its tokenizer or the settings; the device does not
            exist; the data would be overwritten; or a file of the folder has changed.

    Example:
        >>> import tempfile
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> from lmcore.training.config import change
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> sizes = {"shape.hidden_size": 8, "shape.layers": 1, "shape.ffn_size": 8}
        >>> config = change(tiny(), {**sizes, "loop.steps": 2, "schedule.warmup_steps": 1})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     train(config, [Pair("a", "b")], folder, tokenizer=tokenizer).steps
        2
    """
    paths = {"data": data_path, "valid": valid_path}
    paths["tokenizer"] = None if isinstance(tokenizer, TextTokenizer) else tokenizer
    shown = {k: None if v is None else os.path.abspath(v) for k, v in paths.items()}  # noqa: PTH100
    keep_apart(out, [path for path in (*paths.values(), config.first_model) if path is not None])
    config = replace(config, device=choose_precision(config.device, progress=progress))
    with use_threads(config.device.threads), start_processes(config.device.device) as processes:
        kind = _choose_run(config)
        run = kind(config, pairs, valid, tokenizer=tokenizer, processes=processes)
        if progress and processes.is_first:
            _say_losses(run.data)
        record = DataRecord(
            path=shown["data"],
            options={"valid": shown["valid"], "tokenizer": shown["tokenizer"]},
            sizes={"pairs": len(run.data), "valid_pairs": len(run.valid)},
            fingerprint=processes.first(run.find_fingerprint),
        )
        is_fixed = config.schedule.needs_steps or config.distill.teacher is not None
        free = [n for n in _FREE if n != "config.loop.steps" or not is_fixed]
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
        shortened=run.data.shortened,
        cut_tokens=run.data.cut_tokens,
        unknown_tokens=run.data.unknown_tokens,
        history=result.history,
    )


class DiffusionRun:
    """One run of training: model, its moving average, optimizer, timesteps and encoded pairs.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops.

    Args:
        config: the settings.
        pairs: to train on.
        valid: to validate with.
        tokenizer: as for `train`.
        processes: those that share each batch; this one alone by default.

    Raises:
        OSError: as for `train`.
        ValueError: as for `train`.

    Example:
        >>> from lmcore.diffusion.recipes import tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> run = DiffusionRun(tiny(), [Pair("a", "b")], tokenizer=tokenizer)
        >>> run.step(1)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self,
        config: TrainConfig,
        pairs: Iterable[Pair],
        valid: Iterable[Pair] = (),
        *,
        tokenizer: str | os.PathLike[str] | TextTokenizer | None = None,
        processes: Processes | None = None,
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.device = config, processes, processes.device
        count = -(-config.batch_size // config.micro_batch_size)
        if config.device.sharding != "none" and count % processes.data_count:
            raise ValueError(
                f"batch_size must come to a multiple of {processes.data_count} micro-batches, one "
                f"for each process: got {count} of {config.micro_batch_size}"
            )
        self.tokenizer = _find_tokenizer(tokenizer, config.first_model)
        self.data = encode_pairs(pairs, self.tokenizer, config.length)
        if not len(self.data):
            raise ValueError("there are no pairs to train on")
        self.valid = encode_pairs(valid, self.tokenizer, config.length)
        seed_torch(config.loop.seed)
        self.model = self._find_model()
        check_fit(self.model, self.tokenizer, config.length)
        own = self.model.config
        own.row_length = config.length  # sampling reads it
        betas = make_betas(own.noise_schedule, own.diffusion_steps)
        self.process = Process(betas, device=self.device)
        self.penalty = Penalty(
            kind=config.penalty.kind, weight=config.penalty.weight,
            near_weight=config.penalty.near_weight, far_weight=config.penalty.far_weight,
        )  # fmt: skip
        seed = config.loop.seed
        is_loss_aware = config.timesteps == "loss_aware"
        self.timesteps = TimestepChoice(
            betas, config.penalty, is_loss_aware=is_loss_aware, seed=seed
        )
        self.batches = ExampleBatches(range(len(self.data)), config.batch_size, seed, _no_tensors)
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        # Embeddings and output layer are asked for around the network's own pass.
        self.objective = _Objective(self.model, self._compute)
        processes.shard(self.objective, find_blocks(self.model), config.device)
        self.optimizer = self._make_optimizer()
        self.average = self._make_average()

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of its micro-batches, one after the other.

        Args:
            step: from 1.

        Returns:
            `loss` and its parts, means over the batch: `error` of the estimates, `embedding`,
            and `penalty` over those rows that have one; `tokens` of this process.
        """
        nn.Module.train(self.model)
        timesteps, losses, sums, tokens = self._pass(step, trains=True)
        self.optimizer.update(self._find_schedule_step(step))
        if self.average is not None:
            self.average.update()
        # Losses that are not finite end the run by name, behind this step.
        if self.timesteps.sampler is not None and bool(losses.isfinite().all()):
            self.timesteps.update(timesteps.views[0], losses.cpu().numpy())
        return {**self._describe(timesteps, losses, sums), "tokens": torch.tensor(tokens)}

    def measure(self, step: int) -> dict[str, Tensor]:
        """Returns what `step` says of a batch, for the weights as they are, and trains nothing.

        Args:
            step: from 1.
        """
        nn.Module.eval(self.model)
        with torch.no_grad():
            timesteps, losses, sums, _ = self._pass(step, trains=False)
        self._give_back()
        return self._describe(timesteps, losses, sums)

    def _pass(self, step: int, *, trains: bool) -> tuple[BatchTimesteps, Tensor, Tensor, int]:
        """The loss of each row of a batch, sums of its parts, and this process's tokens."""
        config, size = self.config, self.config.micro_batch_size
        indices = np.array(self.batches.find(step, slice(config.batch_size)))
        timesteps = self.timesteps.draw(step, config.batch_size)
        losses = torch.zeros(config.batch_size, dtype=torch.float64, device=self.device)
        sums = torch.zeros(4, dtype=torch.float64, device=self.device)
        rows = 0
        for number, first in enumerate(range(0, config.batch_size, size)):
            if number % self.processes.data_count != self.processes.data_rank:
                continue
            part = slice(first, min(first + size, config.batch_size))
            found = self._find_losses(indices[part], timesteps, part, (step, number))
            if trains:
                weights = torch.from_numpy(timesteps.weights[part]).to(self.device)
                self.optimizer.backward((found.loss * weights.float()).sum() / config.batch_size)
            losses[part] = found.loss.detach().double()
            error, parts = found.mse.detach().double(), found.penalized
            penalty = torch.where(parts, found.penalty.detach().double(), 0.0)
            sums += torch.stack([
                error.sum(), found.embedding.detach().double().sum(), penalty.sum(),
                parts.double().sum(),
            ])  # fmt: skip
            rows += part.stop - part.start
        losses, sums = self.processes.sum(losses), self.processes.sum(sums)
        return timesteps, losses, sums, rows * config.length

    def _describe(
        self, timesteps: BatchTimesteps, losses: Tensor, sums: Tensor
    ) -> dict[str, Tensor]:
        weights = torch.from_numpy(timesteps.weights).to(losses.device)
        count = self.config.batch_size * self.penalty.views
        return {
            "loss": (losses * weights).mean(),
            "error": sums[0] / count,
            "embedding": sums[1] / count,
            "penalty": sums[2] / sums[3].clamp(min=1),
        }

    def validate(self) -> dict[str, float]:
        """Returns the loss of the averaged model, without a penalty, and its estimates' error.

        Timesteps and noise are the same each time. Empty without validation pairs.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        if not len(self.valid):
            return {}
        count = min(len(self.valid), self.config.validation_pairs)
        size, total = self.config.micro_batch_size, self.process.steps
        # Timesteps are spread evenly: a few pairs say as much as many drawn ones.
        spread = (np.arange(count) * total + total // 2) // count
        timesteps = BatchTimesteps(views=(spread,), weights=np.ones(count))
        loss = error = 0.0
        with self.averaged(), torch.no_grad():
            nn.Module.eval(self.model)
            for number, first in enumerate(range(0, count, size)):
                part = slice(first, min(first + size, count))
                where = (_VALIDATION_STEP, number)
                found = self._find_losses(
                    np.arange(part.start, part.stop), timesteps, part, where, is_valid=True
                )
                loss += float(found.loss.double().sum())
                error += float(found.mse.double().sum())
            self._give_back()
        return {"loss": loss / count, "error": error / count}

    def averaged(self) -> AbstractContextManager[TextDiffusionModel]:
        """Returns a context that gives the model with its averaged weights."""
        if self.average is None:
            return nullcontext(self.model)
        held: Any = self.average.swapped_into(self.model)
        return held  # type: ignore[no-any-return]

    def save_model(self, folder: Path) -> None:
        """Writes the averaged model and its tokenizer.

        Args:
            folder: where to.
        """
        with self.averaged():
            save_model(self.model, self.tokenizer, folder, is_first=self.processes.is_first)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": gather_weights(self.model, trained=True),
            "optimizer": self.optimizer.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "timesteps": self.timesteps.state_dict(),
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
        if self.average is not None:
            self.average.load_state_dict(state["average"])
        self.timesteps.load_state_dict(state["timesteps"])

    def find_fingerprint(self) -> str:
        """Returns what tells the pairs, the tokenizer and the first weights from others."""
        digest = hashlib.blake2b(self._first_weights, digest_size=16)
        digest.update(self.tokenizer.tokenizer.to_str().encode())
        digest.update(self.data.find_fingerprint() + self.valid.find_fingerprint())
        return digest.hexdigest()

    def _find_losses(
        self,
        indices: Any,
        timesteps: BatchTimesteps,
        part: slice,
        where: tuple[int, int],
        *,
        is_valid: bool = False,
    ) -> Any:
        """The losses of a micro-batch; its noise and dropout are its own, whoever computes it."""
        data = self.valid if is_valid else self.data
        ids = torch.from_numpy(data.ids[indices]).long()
        given = torch.from_numpy(data.source_lengths[indices]).long()
        mask = torch.arange(data.length) >= given[:, None]
        seed_torch(self.config.loop.seed, *where)
        shape = (*ids.shape, self.model.config.latent_size)
        start = torch.randn(shape, device=self.device)
        views = [
            View(
                torch.from_numpy(view[part]).to(self.device), torch.randn(shape, device=self.device)
            )
            for view in timesteps.views
        ]
        with self.optimizer.autocast():
            return self._find_batch_losses(
                ids.to(self.device), mask.to(self.device), start, views, is_valid=is_valid
            )

    def _find_batch_losses(
        self, ids: Tensor, mask: Tensor, start: Tensor, views: list[View], *, is_valid: bool
    ) -> Any:
        penalty = Penalty(kind="none") if is_valid else self.penalty
        return self.objective(self.process, ids, mask, start, views, penalty)

    # What distillation does in another way.

    _compute: Callable[..., Losses] = staticmethod(compute_losses)

    def _find_model(self) -> TextDiffusionModel:
        """The model that is trained, as it starts."""
        if self.config.model is None:
            return make_model(self.config, self.tokenizer)
        model = load_model(self.config.model)
        model.config.distilled_timesteps = None  # what it forgets here
        return model

    def _find_schedule_step(self, step: int) -> int:
        """Where a step stands in the schedule of the step size."""
        return step

    def _make_optimizer(self, steps: int | None = None) -> Optimizer:
        config = self.config
        return Optimizer(
            self.model, config.optimizer, config.schedule, config.device, self.processes,
            steps=steps or config.loop.steps,
        )  # fmt: skip

    def _make_average(self) -> WeightAverage | None:
        decay = self.config.average
        return WeightAverage(self.model.parameters(), decay) if decay else None

    def _give_back(self) -> None:
        """Divides sharded weights again, which stay whole after a pass that has no backward one."""
        sharded: Any = self.objective
        if hasattr(sharded, "reshard"):
            sharded.reshard()


class _Objective(nn.Module):
    """The losses of a model as one forward pass, for which sharded weights come together."""

    def __init__(self, model: nn.Module, compute: Callable[..., Losses]) -> None:
        super().__init__()
        self.model, self.compute = model, compute

    def forward(self, *arguments: Any) -> Losses:
        """Returns what `compute` does for the model and the arguments."""
        return self.compute(self.model, *arguments)


def _choose_run(config: TrainConfig) -> type[DiffusionRun]:
    if config.distill.teacher is None:
        return DiffusionRun
    from lmcore.diffusion.distillation import DistillationRun  # which builds on this module

    return DistillationRun


def _find_tokenizer(
    tokenizer: str | os.PathLike[str] | TextTokenizer | None, model: str | None
) -> TextTokenizer:
    if isinstance(tokenizer, TextTokenizer):
        return tokenizer
    if tokenizer is not None:
        return load_tokenizer(tokenizer)
    if model is None:
        raise ValueError("tokenizer must be given where no model is: got none")
    return load_tokenizer_of(model)


def _no_tensors(rows: list[Any]) -> Any:
    raise RuntimeError("rows are taken by their numbers")


def _say_losses(data: EncodedPairs) -> None:
    if data.shortened:
        print(
            f"{data.shortened:,} of {len(data):,} pairs do not fit into {data.length} positions, "
            f"and lost {data.cut_tokens:,} tokens at their end",
            file=sys.stderr,
        )
    if data.unknown_tokens:
        print(f"{data.unknown_tokens:,} tokens are not in the vocabulary", file=sys.stderr)
