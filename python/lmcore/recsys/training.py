"""Training of sequential recommenders on packed positions, with mined false negatives."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.ops.negatives import PackedBatch, SequenceSampler
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.data import Split
from lmcore.recsys.evaluation import check_histories, evaluate
from lmcore.recsys.fingerprint import find_fingerprint
from lmcore.recsys.mine import (
    EpochLossStart,
    FalseNegativeMiner,
    Injection,
    StartRule,
    StepStart,
)
from lmcore.recsys.models import make_model
from lmcore.recsys.objective import Counts, packed_logits, ufn_loss
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.teacher import EMATeacher
from lmcore.training.checkpoint import no_bars
from lmcore.training.config import LoopConfig
from lmcore.training.folder import DataRecord, Recipe, keep_apart
from lmcore.training.loop import fit
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import Processes, find_device, start_processes, use_threads

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
        data: the leave-one-out split of the interactions.
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
    record = DataRecord(
        path=None if data_path is None else os.path.abspath(data_path),  # noqa: PTH100
        options=dict(data_options or {}),
        sizes={
            "users": data.user_count,
            "items": data.item_count,
            "interactions": len(data.interactions.items),
        },
        fingerprint=find_fingerprint(data),
    )
    if data_path is not None:
        keep_apart(out, [data_path])
    free = [*_FREE, *(f"data.{name}" for name in record.options)]
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


class SequenceRun:
    """One run of training: model, optimizer, teacher, sampler and miner.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops, which
    seed dropout as they like.

    Args:
        config: the settings.
        data: the leave-one-out split.
        processes: those that share each batch; this one alone by default.

    Raises:
        ValueError: as for `train`.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> items = [1, 2, 3, 4, 2, 3, 4, 1, 3, 4, 1, 2]
        >>> data = leave_one_out(make_interactions([0, 4, 8, 12], items, 6))
        >>> config = TrainConfig(max_length=4, hidden_size=8, negatives=3, batch_size=2)
        >>> run = SequenceRun(config, data)
        >>> run.step(1)["loss"].shape
        torch.Size([])
    """

    def __init__(
        self, config: TrainConfig, data: Split, processes: Processes | None = None
    ) -> None:
        processes = processes or Processes(device=find_device(config.device.device))
        self.config = config
        self.data = data
        self.processes = processes
        self.device = processes.device
        check_histories(data)
        self.sampler = SequenceSampler(
            data.train_offsets,
            data.train_items,
            data.item_count,
            batch_size=config.batch_size,
            max_length=config.max_length,
            negative_count=config.negatives,
            seed=config.loop.seed,
            distribution=config.distribution,
            exponent=config.exponent,
            order=config.order,
            threads=1,  # a batch is too short a task for more
        )
        if not self.sampler.eligible_count:
            raise ValueError("no user has at least 2 items to train on")
        self.model = make_model(config, data.item_count)
        torch.nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        self.optimizer = Optimizer(
            self.model,
            config.optimizer,
            config.schedule,
            config.device,
            processes,
            steps=self.loop.steps,
        )
        self._start: StartRule = (
            EpochLossStart() if config.start == "epoch_loss" else StepStart(config.start)
        )
        self._started = False  # whether what is hard is remembered, and the teacher moves
        self.miner: FalseNegativeMiner | None = None
        if config.mining:
            self.miner = FalseNegativeMiner(
                threshold=config.threshold,
                start=self._start,
                max_reversed_share=config.max_reversed_share,
                max_keys=config.max_keys,
            )
        self.teacher: EMATeacher | None = None
        self.loss_sums: list[float] = []
        # Since the epoch began.
        self._loss_sum: Tensor | None = None
        self._reversed = 0
        self._batch = _make_batch(config)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: one draw for each user, about."""
        return self.sampler.steps_per_epoch

    @property
    def loop(self) -> LoopConfig:
        """When to validate, log and end, with epochs as numbers of steps."""
        config, epoch = self.config, self.steps_per_epoch
        loop = config.loop
        return replace(
            loop,
            steps=loop.steps or config.epochs * epoch,
            validate_every_steps=loop.validate_every_steps or config.eval_every * epoch,
            log_every_steps=loop.log_every_steps or epoch,
        )

    @property
    def validated_model(self) -> SequenceModel:
        """The model that is validated and saved: the teacher's once there is one."""
        if self.teacher is None:
            return self.model
        return cast(SequenceModel, self.teacher.model)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch; the comments number the paper's steps.

        Args:
            step: from 1; epochs are `steps_per_epoch` long.

        Returns:
            `loss`, the batch's; `positions` with an item, of this process; and, after the last
            step of an epoch, `epoch` and what mining came to.

        Raises:
            ValueError: a logit is not a number.
        """
        config, miner, started = self.config, self.miner, self._started
        epoch, place = divmod(step - 1, self.steps_per_epoch)
        epoch += 1
        # 1: the batch; every process draws the same one.
        batch = self._batch = self.sampler.sample_packed(epoch, place, out=self._batch)
        # 2: stored hard negatives take the place of drawn ones; some are reversed.
        injection = None
        if miner is not None:
            injection = miner.inject(batch.users, batch.positives, batch.negatives)
        share = self._share(batch)
        sequences = self._put(batch.sequences[share.rows])
        places = self._put(batch.places[share.packed] - share.rows.start * config.max_length)
        positives = self._put(batch.positives.ravel()[batch.places[share.packed]])
        negatives = self._put(batch.negatives[share.packed])
        # 3: the student's logits.
        self.model.train()
        table = self.model.item_emb.weight
        with self.optimizer.autocast():
            features = self.model.forward_packed(sequences, places)
            logits = packed_logits(features, table, positives, negatives).float()
        # 8: whether mining and the teacher start, tested in every step. This and what follows
        # depends on no later part of the step, and here logits and negatives are in the cache.
        if not started and (config.mining or config.ema_decay is not None):
            rule = self._start.is_reached if miner is None else miner.update_start
            self._started = rule(epoch, step, self.loss_sums)
        # 9: what is hard now.
        if miner is not None and injection is not None and self._started:
            self._reversed += injection.reversed_count
            whole = self.processes.join(logits.detach(), share.sizes)
            miner.observe(batch.users, batch.positives, injection, whole)
        # 4: the teacher's, of what is reversed; there is none in the step that creates it.
        indices, teacher_logits = None, None
        if injection is not None and injection.reversed_count:
            indices = self._find_reversed(injection, share)
            if self.teacher is not None and config.alpha > 0:
                teacher_logits = self._teach(indices, sequences, places, negatives)
        if self.teacher is None and started and config.ema_decay is not None:
            self._make_teacher(config.ema_decay)
        # 5, 6: labels and loss; what is averaged is the whole batch, in every process.
        loss = ufn_loss(
            logits,
            reversed_indices=indices,
            teacher_logits=teacher_logits,
            alpha=config.alpha,
            normalization=config.normalization,
            item_emb=table,
            l2_emb=config.l2_emb / self.processes.data_count,
            counts=_count(injection, batch),
        )
        # 7: Adam and the moving average.
        self.optimizer.backward(loss.total)
        self.optimizer.update(step)
        if self.teacher is not None:
            self.teacher.update()
        whole_loss = self.processes.sum(loss.total.detach())
        values = {"loss": whole_loss, "positions": torch.tensor(len(positives))}
        # Adding on the device: no step waits for its loss.
        known, now = self._loss_sum, whole_loss.double()
        self._loss_sum = now if known is None else known + now
        if place + 1 == self.steps_per_epoch:
            values |= self._end_epoch(epoch)
        return values

    def _end_epoch(self, epoch: int) -> dict[str, Tensor]:
        """Takes note of the sum of an epoch's losses; what the log shall say about the epoch."""
        assert self._loss_sum is not None
        self.loss_sums.append(float(self._loss_sum))
        self._loss_sum = None
        found = {"epoch": epoch}
        if self.miner is not None:
            stats = self.miner.stats()
            found |= {
                "mining": stats.active,
                "reversed": self._reversed,
                "hard": stats.hard_count,
                "keys": stats.key_count,
                "evicted": stats.evicted_count,
                "memory_bytes": stats.memory_bytes,
            }
            self._reversed = 0
        return {name: torch.tensor(value) for name, value in found.items()}

    def validate(self) -> dict[str, float]:
        """Returns the metrics over the full catalogue; empty where no user has a target.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        model = self.validated_model
        for name, weight in model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise FloatingPointError(f"{name} is not finite; a smaller lr may help")
        if not self.data.valid.any():
            return {}
        threads = self.config.device.threads
        return evaluate(model, self.data, split="valid", threads=threads).metrics

    def save_model(self, folder: Path) -> None:
        """Writes the model as it is validated, and the id map.

        Args:
            folder: where to.
        """
        if not self.processes.is_first:
            return
        with no_bars():
            self.validated_model.save_pretrained(folder)
        self.data.interactions.id_map.save(folder / "id_map.json")

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "miner": None if self.miner is None else self.miner.state_dict(),
            "loss_sums": list(self.loss_sums),
            "loss_sum": None if self._loss_sum is None else float(self._loss_sum),
            "reversed": self._reversed,
            "started": self._started,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        sums, started = state["loss_sums"], state["started"]
        if not isinstance(sums, list) or not all(type(s) is float for s in sums):
            raise ValueError("loss_sums must be a list of numbers")
        if type(started) is not bool:
            raise ValueError(f"started must be a truth value: got {started!r:.100}")
        loss_sum, reversed_count = state["loss_sum"], state["reversed"]
        if loss_sum is not None and type(loss_sum) is not float:
            raise ValueError(f"loss_sum must be a number: got {loss_sum!r:.100}")
        if type(reversed_count) is not int or reversed_count < 0:
            raise ValueError(f"reversed must be a number of labels: got {reversed_count!r:.100}")
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if state["teacher"] is not None and self.config.ema_decay is not None:
            self._make_teacher(self.config.ema_decay).load_state_dict(state["teacher"])
        if self.miner is not None:
            # The miner and the teacher start together.
            self.miner.load_state_dict({**state["miner"], "active": started})
        self.loss_sums = list(sums)
        self._loss_sum = None
        if loss_sum is not None:
            self._loss_sum = torch.tensor(loss_sum, dtype=torch.float64, device=self.device)
        self._reversed = reversed_count
        self._started = started

    def _make_teacher(self, decay: float) -> EMATeacher:
        self.teacher = EMATeacher(self.model, decay=decay, mode=self.config.teacher_mode)
        return self.teacher

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _share(self, batch: PackedBatch) -> _Share:
        """What of a batch this process computes."""
        rows, count = len(batch.users), self.processes.data_count
        starts = [rows * rank // count for rank in range(count + 1)]
        bounds = np.searchsorted(batch.places, np.array(starts) * self.config.max_length)
        rank = self.processes.data_rank
        return _Share(
            rows=slice(starts[rank], starts[rank + 1]),
            packed=slice(int(bounds[rank]), int(bounds[rank + 1])),
            sizes=np.diff(bounds).tolist(),
        )

    def _find_reversed(self, injection: Injection, share: _Share) -> Tensor:
        """The reversed negatives of this process's share, as place * N + slot."""
        indices = np.asarray(injection.reversed_indices)
        if self.processes.data_count == 1:
            return self._put(indices)
        slots = self.config.negatives
        first, last = share.packed.start * slots, share.packed.stop * slots
        return self._put(indices[(indices >= first) & (indices < last)] - first)

    def _teach(
        self, indices: Tensor, sequences: Tensor, places: Tensor, negatives: Tensor
    ) -> Tensor:
        """The teacher's logits of the reversed negatives; only rows that hold any are computed."""
        if not len(indices):
            return torch.zeros(0, device=self.device)
        assert self.teacher is not None
        length = self.config.max_length
        used, positions = torch.unique(indices // negatives.shape[1], return_inverse=True)
        rows, owners = torch.unique(places[used] // length, return_inverse=True)
        with self.teacher.teaching() as model, self.optimizer.autocast():
            teacher = cast(SequenceModel, model)
            features = teacher.forward_packed(
                sequences[rows], owners * length + places[used] % length
            )
            items = negatives.flatten()[indices]
            return teacher.score_items(features[positions], items[:, None])[:, 0].float()


@dataclass(slots=True, frozen=True)
class _Share:
    """What of a batch a process computes."""

    rows: slice
    """Rows."""
    packed: slice
    """Packed positions."""
    sizes: list[int]
    """Packed positions of each process."""


def _count(injection: Injection | None, batch: PackedBatch) -> Counts:
    """What the sums of the loss are divided by, of all processes together."""
    positions, slots = batch.negatives.shape
    turned = 0 if injection is None else injection.reversed_count
    return Counts(entries=positions * (1 + slots), positives=positions + turned, reversed=turned)


def _make_batch(config: TrainConfig) -> PackedBatch:
    """Returns arrays for the largest batch; 32 bits are half as much to read and write as 64."""
    rows, length = config.batch_size, config.max_length
    return PackedBatch(
        np.zeros(rows, np.int32),
        np.zeros((rows, length), np.int32),
        np.zeros((rows, length), np.int32),
        np.zeros(rows * length, np.int64),
        np.zeros((rows * length, config.negatives), np.int32),
    )
