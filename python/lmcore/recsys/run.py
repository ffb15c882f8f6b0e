"""The training step of UFNRec, as `lmcore.training.loop.fit` drives it."""

from __future__ import annotations

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
from lmcore.recsys.injection import Injection
from lmcore.recsys.losses import StepLoss
from lmcore.recsys.metrics import find_validated
from lmcore.recsys.mine import FalseNegativeMiner
from lmcore.recsys.models import make_model
from lmcore.recsys.objective import Counts, add_norm, packed_logits
from lmcore.recsys.recipes import TrainConfig
from lmcore.recsys.start import EpochLossStart, StartSwitch, StepStart
from lmcore.recsys.teacher import EMATeacher
from lmcore.training.checkpoint import no_bars
from lmcore.training.config import LoopConfig
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import Processes, find_device


class SequenceRun:
    """One run of training: model, optimizer, teacher, sampler and miner.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops, which
    seed dropout as they like.

    Args:
        config: the settings.
        data: the split.
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
        # Full cross-entropy looks at no negative; a sampler draws at least one.
        self._slots = 1 if config.loss == "cross_entropy" else config.negatives
        check_histories(data)
        find_validated(config.loop.metric, data.item_count)
        self.sampler = SequenceSampler(
            data.train_offsets,
            data.train_items,
            data.item_count,
            batch_size=config.batch_size,
            max_length=config.max_length,
            negative_count=self._slots,
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
        # Whether what is hard is remembered, and the teacher moves: mining's and the teacher's.
        self._rule = EpochLossStart() if config.start == "epoch_loss" else StepStart(config.start)
        self.start = StartSwitch(self._rule)
        self.miner: FalseNegativeMiner | None = None
        if config.mining:
            self.miner = FalseNegativeMiner(
                threshold=config.threshold,
                start=self.start,
                max_reversed_share=config.max_reversed_share,
                max_keys=config.max_keys,
            )
        self.teacher: EMATeacher | None = None
        self.loss = StepLoss(config, self.sampler, data.item_count, self.device)
        self.loss_sums: list[float] = []
        # Since the epoch began.
        self._loss_sum: Tensor | None = None
        self._reversed = 0
        self._batch = _make_batch(config, self._slots)

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
        config, miner, started = self.config, self.miner, self.start.on
        epoch, index = divmod(step - 1, self.steps_per_epoch)
        epoch += 1
        # 1: the batch; every process draws the same one.
        batch = self._batch = self.sampler.sample_packed(epoch, index, out=self._batch)
        # 2: stored hard negatives take the place of drawn ones; some are reversed.
        injection = None
        if miner is not None:
            injection = miner.inject(batch.users, batch.positives, batch.negatives)
        share = self._share(batch)
        sequences = self._put(batch.sequences[share.rows])
        places = batch.flat_indices[share.packed]
        flat_indices = self._put(places - share.rows.start * config.max_length)
        positives = self._put(batch.positives.ravel()[places])
        users = self._put(batch.users[places // config.max_length])
        negatives = self._put(batch.negatives[share.packed])
        # 3: the student's logits.
        self.model.train()
        table = self.model.item_emb.weight
        with self.optimizer.autocast():
            features = self.model.forward_packed(sequences, flat_indices)
            if self.loss.takes_logits:
                logits = packed_logits(features, table, positives, negatives).float()
        # 8: whether mining and the teacher start, tested in every step. This and what follows
        # depends on no later part of the step, and here logits and negatives are in the cache.
        if config.mining or config.ema_decay is not None:
            self.start.update(epoch, step, self.loss_sums)
        # 9: what is hard now.
        if miner is not None and injection is not None and self.start.on:
            self._reversed += injection.reversed_count
            whole = self.processes.join(logits.detach(), share.sizes)
            miner.observe(batch.users, batch.positives, injection, whole)
        # 4: the teacher's, of what is reversed; there is none in the step that creates it.
        indices, teacher_logits = None, None
        if injection is not None and injection.reversed_count:
            indices = self._find_reversed(injection, share)
            if self.teacher is not None and config.alpha > 0:
                teacher_logits = self._teach(indices, sequences, flat_indices, negatives)
        if self.teacher is None and started and config.ema_decay is not None:
            self._make_teacher(config.ema_decay)
        # 5, 6: labels and loss; what is averaged is the whole batch, in every process.
        counts = _count(injection, batch)
        if self.loss.takes_logits:
            loss = self.loss.of_logits(
                logits,
                users,
                positives,
                negatives,
                counts=counts,
                reversed_indices=indices,
                teacher_logits=teacher_logits,
            )
        else:
            with self.optimizer.autocast():
                loss = self.loss.of_features(features, table, positives, counts=counts)
        loss = add_norm(loss, table, config.l2_emb / self.processes.data_count)
        # 7: Adam and the moving average.
        self.optimizer.backward(loss)
        self.optimizer.update(step)
        if self.teacher is not None:
            self.teacher.update()
        whole_loss = self.processes.sum(loss.detach())
        values = {"loss": whole_loss, "positions": torch.tensor(len(positives))}
        # Adding on the device: no step waits for its loss.
        known, now = self._loss_sum, whole_loss.double()
        self._loss_sum = now if known is None else known + now
        if index + 1 == self.steps_per_epoch:
            values |= self._end_epoch(epoch)
        return values

    def explain_start(self, step: int) -> str | None:
        """Returns when mining and the teacher would start; None if they did, or are not wanted.

        Args:
            step: steps that are done.
        """
        wanted = self.config.mining or self.config.ema_decay is not None
        if not wanted or self.start.on:
            return None
        return self._rule.explain(step, self.loss_sums)

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
        if not len(self.data.valid_targets.items):
            return {}
        threads = self.config.device.threads
        names = find_validated(self.config.loop.metric, self.data.item_count)
        return evaluate(model, self.data, split="valid", metrics=names, threads=threads).metrics

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
            "started": self.start.on,
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
            self.miner.load_state_dict(state["miner"])
        self.loss_sums = list(sums)
        self._loss_sum = None
        if loss_sum is not None:
            self._loss_sum = torch.tensor(loss_sum, dtype=torch.float64, device=self.device)
        self._reversed = reversed_count
        self.start.on = started  # the miner's too

    def _make_teacher(self, decay: float) -> EMATeacher:
        self.teacher = EMATeacher(self.model, decay=decay, mode=self.config.teacher_mode)
        return self.teacher

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _share(self, batch: PackedBatch) -> _Share:
        """What of a batch this process computes."""
        rows, count = len(batch.users), self.processes.data_count
        starts = [rows * rank // count for rank in range(count + 1)]
        bounds = np.searchsorted(batch.flat_indices, np.array(starts) * self.config.max_length)
        rank = self.processes.data_rank
        return _Share(
            rows=slice(starts[rank], starts[rank + 1]),
            packed=slice(int(bounds[rank]), int(bounds[rank + 1])),
            sizes=np.diff(bounds).tolist(),
        )

    def _find_reversed(self, injection: Injection, share: _Share) -> Tensor:
        """The reversed negatives of this process's share, as position * N + slot."""
        indices = np.asarray(injection.reversed_indices)
        if self.processes.data_count == 1:
            return self._put(indices)
        slots = self.config.negatives
        first, last = share.packed.start * slots, share.packed.stop * slots
        return self._put(indices[(indices >= first) & (indices < last)] - first)

    def _teach(
        self, indices: Tensor, sequences: Tensor, flat_indices: Tensor, negatives: Tensor
    ) -> Tensor:
        """The teacher's logits of the reversed negatives; only rows that hold any are computed."""
        if not len(indices):
            return torch.zeros(0, device=self.device)
        assert self.teacher is not None
        length = self.config.max_length
        used, positions = torch.unique(indices // negatives.shape[1], return_inverse=True)
        rows, owners = torch.unique(flat_indices[used] // length, return_inverse=True)
        with self.teacher.teaching() as model, self.optimizer.autocast():
            teacher = cast(SequenceModel, model)
            features = teacher.forward_packed(
                sequences[rows], owners * length + flat_indices[used] % length
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
    count = 0 if injection is None else injection.reversed_count
    return Counts(entries=positions * (1 + slots), positives=positions + count, reversed=count)


def _make_batch(config: TrainConfig, slots: int) -> PackedBatch:
    """Returns arrays for the largest batch; 32 bits are half as much to read and write as 64."""
    rows, length = config.batch_size, config.max_length
    return PackedBatch(
        np.zeros(rows, np.int32),
        np.zeros((rows, length), np.int32),
        np.zeros((rows, length), np.int32),
        np.zeros(rows * length, np.int64),
        np.zeros((rows * length, slots), np.int32),
    )
