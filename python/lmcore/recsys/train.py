"""Training of sequential recommenders on packed positions, with mined false negatives."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmcore.ops.negatives import PackedBatch, SequenceSampler
from lmcore.recsys.backbone import SequenceModel
from lmcore.recsys.configuration_fmlp import FMLPConfig
from lmcore.recsys.configuration_gru4rec import GRU4RecConfig
from lmcore.recsys.configuration_sasrec import SASRecConfig
from lmcore.recsys.data import Split
from lmcore.recsys.evaluation import check_histories, evaluate
from lmcore.recsys.ids import Ids
from lmcore.recsys.mine import (
    EpochLossStart,
    FalseNegativeMiner,
    Injection,
    StartRule,
    StepStart,
)
from lmcore.recsys.modeling_fmlp import FMLPModel
from lmcore.recsys.modeling_gru4rec import GRU4RecModel
from lmcore.recsys.modeling_sasrec import SASRecModel
from lmcore.recsys.objective import Counts, packed_logits, ufn_loss
from lmcore.recsys.recipes import TrainConfig
from lmcore.training.checkpoint import keep_apart, load_adam, no_bars
from lmcore.training.config import config_to_dict
from lmcore.training.ema import EMATeacher
from lmcore.training.loop import Processes, find_device, fit, start_processes, use_threads
from lmcore.training.seeding import seed_torch

# What `recipe.json` says of the data besides how they were read.
_DATA_NAMES = ("path", "users", "items", "interactions", "fingerprint")


@dataclass(kw_only=True, slots=True, frozen=True)
class TrainResult:
    """What a training run left behind."""

    folder: Path
    """Holds the model of the best epoch and everything else."""
    epochs: int
    """Those trained, in this and earlier calls."""
    best_epoch: int
    """Whose model was kept."""
    best_value: float | None
    """Its validation metric; None where no user has a validation item."""
    resumed_after: int
    """The last epoch of the run that was continued; 0 for a new run."""
    history: list[dict[str, Any]]
    """The lines of `log.jsonl`."""


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

    The folder gets `model.safetensors` and `config.json` of the best epoch in validation,
    `id_map.json`, `recipe.json` (config and data), `log.jsonl` (one line for each epoch) and
    `checkpoint.pt`. A killed run, started again, goes on from the last saved epoch and ends with
    the same weights as an unbroken one.

    Under torchrun every process draws the same batch and keeps the same memory of false
    negatives, computes its share of the rows, and the gradients are added up.

    Source: UFNRec (arXiv 2208.04116), section 4 of the specification, step for step.

    Args:
        config: the settings.
        data: the leave-one-out split of the interactions.
        out: the folder; it is made if it does not exist.
        resume: whether to go on from the folder's checkpoint.
        progress: whether to show a bar and a line for each validation on standard error.
        data_path: where the data came from, for `recipe.json`; no file of the run.
        data_options: how they were read, such as `{"format": "pairs", "skip_bad_rows": True}`, so
            that what reads them again for this run reads the same; also for `recipe.json`.

    Raises:
        FileExistsError: the folder holds a run of another recipe or other data or a model of no
            known run, or another process trains into it.
        FloatingPointError: a loss or a weight is not finite.
        OSError: a file cannot be written.
        ValueError: no user can be trained on, a user's history is the whole catalogue, a logit is
            not a number, the device or a metric does not exist, the data would be overwritten, or
            `data_options` has a name that is written anyway.

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
    options = dict(data_options or {})
    taken = [name for name in options if name in _DATA_NAMES]
    if taken:
        raise ValueError(f"data_options must not hold {taken[0]!r}, which is written here")
    if data_path is not None:
        keep_apart(out, [data_path])
    with use_threads(config.threads), start_processes(config.device) as processes:
        run = SequenceRun(config, data, processes)
        folder = Path(out)
        recipe: dict[str, Any] = {
            "config": config_to_dict(config),
            "data": {
                "path": None if data_path is None else os.path.abspath(data_path),  # noqa: PTH100
                **options,
                "users": data.user_count,
                "items": data.item_count,
                "interactions": len(data.interactions.items),
                "fingerprint": _fingerprint(data),
            },
        }
        result = fit(
            run,
            folder,
            recipe=recipe,
            epochs=config.epochs,
            seed=config.seed,
            metric=config.metric,
            eval_every=config.eval_every,
            patience=config.patience,
            save_seconds=config.save_seconds,
            resume=resume,
            progress=progress,
            processes=processes,
        )
    return TrainResult(
        folder=folder,
        epochs=len(result.history),
        best_epoch=result.best_epoch,
        best_value=result.best_value,
        resumed_after=result.resumed_after,
        history=result.history,
    )


def make_model(config: TrainConfig, item_count: int) -> SequenceModel:
    """Returns an untrained backbone; its first weights depend on the seed alone.

    Args:
        config: the settings.
        item_count: items of the catalogue, I.

    Raises:
        ValueError: sizes that do not fit, such as heads that do not divide the hidden size.

    Example:
        >>> make_model(TrainConfig(hidden_size=8), item_count=3).item_emb.weight.shape
        torch.Size([4, 8])
    """
    seed_torch(config.seed)
    sizes: dict[str, Any] = {
        "item_count": item_count,
        "max_length": config.max_length,
        "hidden_size": config.hidden_size,
        "num_hidden_layers": config.num_hidden_layers,
        "dropout": config.dropout,
    }
    try:
        if config.backbone == "sasrec":
            heads = config.num_attention_heads
            return SASRecModel(SASRecConfig(**sizes, num_attention_heads=heads))
        if config.backbone == "gru4rec":
            return GRU4RecModel(GRU4RecConfig(**sizes))
        return FMLPModel(FMLPConfig(**sizes))
    except ValueError:
        raise
    except Exception as error:
        if type(error).__name__ != "StrictDataclassClassValidationError":
            raise
        raise ValueError(str(error.__cause__ or error).strip().splitlines()[-1]) from None


class SequenceRun:
    """One run of training: model, optimizer, teacher, sampler and miner.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops.

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
        >>> run.step(1, 0).shape
        torch.Size([])
    """

    def __init__(
        self, config: TrainConfig, data: Split, processes: Processes | None = None
    ) -> None:
        processes = processes or Processes(0, 1, find_device(config.device))
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
            seed=config.seed,
            distribution=config.distribution,
            exponent=config.exponent,
            order=config.order,
            threads=1,  # a batch is too short a task for more
        )
        if not self.sampler.eligible_count:
            raise ValueError("no user has at least 2 items to train on")
        self.model = make_model(config, data.item_count)
        torch.nn.Module.to(self.model, self.device)  # transformers' own `to` is untyped
        self.optimizer = torch.optim.Adam(
            self.model.parameters(), lr=config.lr, betas=config.betas, fused=True
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
        self._reversed = 0  # since the epoch began
        self._batch = _make_batch(config)

    @property
    def steps_per_epoch(self) -> int:
        """Steps of an epoch: one draw for each user, about."""
        return self.sampler.steps_per_epoch

    @property
    def validated_model(self) -> SequenceModel:
        """The model that is validated and saved: the teacher's once there is one."""
        if self.teacher is None:
            return self.model
        return cast(SequenceModel, self.teacher.model)

    def step(self, epoch: int, step: int) -> Tensor:
        """Trains on one batch and returns its loss; the comments number the paper's steps.

        Args:
            epoch: from 1.
            step: within the epoch, from 0.

        Raises:
            ValueError: a logit is not a number.
        """
        config, miner, started = self.config, self.miner, self._started
        # 1: the batch; every process draws the same one.
        batch = self._batch = self.sampler.sample_packed(epoch, step, out=self._batch)
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
        with self._autocast():
            features = self.model.forward_packed(sequences, places)
            logits = packed_logits(features, table, positives, negatives).float()
        # 8: whether mining and the teacher start, tested in every step. This and what follows
        # depends on no later part of the step, and here logits and negatives are in the cache.
        if not started and (config.mining or config.ema_decay is not None):
            done = (epoch - 1) * self.steps_per_epoch + step + 1
            rule = self._start.is_reached if miner is None else miner.update_start
            self._started = rule(epoch, done, self.loss_sums)
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
            l2_emb=config.l2_emb / self.processes.count,
            counts=_count(injection, batch),
        )
        # 7: Adam and the moving average.
        self.optimizer.zero_grad(set_to_none=True)
        loss.total.backward()
        self.processes.sum_gradients(self.model.parameters())
        self.optimizer.step()
        if self.teacher is not None:
            self.teacher.update(self.model)
        return self.processes.sum(loss.total.detach())

    def end_epoch(self, epoch: int, loss_sum: float) -> dict[str, Any]:
        """Returns what the log says of an epoch: whether mining is on, and its counts.

        Args:
            epoch: from 1.
            loss_sum: the sum of its steps' losses.
        """
        self.loss_sums.append(loss_sum)
        if self.miner is None:
            return {}
        turned, self._reversed = self._reversed, 0
        stats = self.miner.stats()
        return {
            "mining": stats.active,
            "reversed": turned,
            "hard": stats.hard_count,
            "keys": stats.key_count,
            "evicted": stats.evicted_count,
            "memory_bytes": stats.memory_bytes,
        }

    def validate(self) -> dict[str, float]:
        """Returns the metrics over the full catalogue; empty where no user has a target.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        model = self.validated_model
        for name, weight in model.named_parameters():
            if not bool(weight.isfinite().all()):
                raise FloatingPointError(
                    f"{name} is not finite after epoch {len(self.loss_sums)}; a smaller lr may help"
                )
        if not self.data.valid.any():
            return {}
        threads = self.config.threads
        return evaluate(model, self.data, split="valid", threads=threads).metrics

    def save_model(self, folder: Path) -> None:
        """Writes the model as it is validated, and the id map.

        Args:
            folder: where to.
        """
        with no_bars():
            self.validated_model.save_pretrained(folder)
        self.data.interactions.id_map.save(folder / "id_map.json")

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next epoch depends on, but for the random numbers."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "teacher": None if self.teacher is None else self.teacher.state_dict(),
            "miner": None if self.miner is None else self.miner.state_dict(),
            "loss_sums": list(self.loss_sums),
            "started": self._started,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
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
        self.model.load_state_dict(state["model"])
        load_adam(self.optimizer, state["optimizer"])
        if state["teacher"] is not None and self.config.ema_decay is not None:
            self._make_teacher(self.config.ema_decay).load_state_dict(state["teacher"])
        if self.miner is not None:
            # The miner and the teacher start together.
            self.miner.load_state_dict({**state["miner"], "active": started})
        self.loss_sums = list(sums)
        self._started = started

    def _make_teacher(self, decay: float) -> EMATeacher:
        self.teacher = EMATeacher(self.model, decay=decay, mode=self.config.teacher_mode)
        return self.teacher

    def _put(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.config.precision == "float32":
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _share(self, batch: PackedBatch) -> _Share:
        """What of a batch this process computes."""
        rows, count = len(batch.users), self.processes.count
        starts = [rows * rank // count for rank in range(count + 1)]
        bounds = np.searchsorted(batch.places, np.array(starts) * self.config.max_length)
        rank = self.processes.rank
        return _Share(
            rows=slice(starts[rank], starts[rank + 1]),
            packed=slice(int(bounds[rank]), int(bounds[rank + 1])),
            sizes=np.diff(bounds).tolist(),
        )

    def _find_reversed(self, injection: Injection, share: _Share) -> Tensor:
        """The reversed negatives of this process's share, as place * N + slot."""
        indices = np.asarray(injection.reversed_indices)
        if self.processes.count == 1:
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
        with self.teacher.teaching() as model, self._autocast():
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


def _fingerprint(data: Split) -> str:
    """Tells data apart: equal interactions and ids have equal ones, others have others."""
    interactions = data.interactions
    digest = hashlib.blake2b(digest_size=16)
    # Every part stands behind its length and kind, so that no two data give the same bytes.
    for numbers in (interactions.offsets, interactions.items):
        _update(digest, b"numbers", numbers)
    for ids in (interactions.user_ids, interactions.item_ids):
        _update_ids(digest, ids)
    return digest.hexdigest()


def _update_ids(digest: hashlib.blake2b, ids: Ids) -> None:
    if isinstance(ids, np.ndarray):
        _update(digest, b"numbers", ids)
        return
    texts = [text.encode("utf-8", "surrogatepass") for text in ids]
    _update(digest, b"lengths", np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
    digest.update(b"".join(texts))


def _update(digest: hashlib.blake2b, kind: bytes, numbers: NDArray[np.int64]) -> None:
    digest.update(kind + len(numbers).to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
