"""What every run on samples of texts has: steps of micro-batches, shared by processes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmcore.openba.batches import SampleBatches
from lmcore.openba.objective import share_parts, sum_losses
from lmcore.ops.denoising import DenoisedBatch, Denoiser, SpecialIds, plan_batch
from lmcore.training.checkpoint import gather_weights, hash_weights, take_weights
from lmcore.training.config import DeviceConfig, LoopConfig, OptimizerConfig, ScheduleConfig
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import Processes
from lmcore.training.seeding import seed_torch


class SampleConfig(Protocol):
    """The settings that such a run looks at."""

    @property
    def batch_size(self) -> int:
        """Samples of a step; of all processes together."""

    @property
    def micro_batch_size(self) -> int:
        """Samples that a device computes at once."""

    @property
    def validation_batch_size(self) -> int:
        """Samples that a device validates at once."""

    @property
    def optimizer(self) -> OptimizerConfig:
        """AdamW."""

    @property
    def schedule(self) -> ScheduleConfig:
        """Of its step size."""

    @property
    def loop(self) -> LoopConfig:
        """Steps, states and seed."""

    @property
    def device(self) -> DeviceConfig:
        """Where to compute."""


@dataclass(slots=True, frozen=True, kw_only=True)
class RowLosses:
    """What a forward pass gives of some rows: `[B]` each, added up over the labels of a row."""

    trained: Tensor
    """What is minimised, with its graph."""
    shown: Tensor
    """The cross entropy, which the log shows."""
    more: Mapping[str, Tensor] = field(default_factory=dict)
    """Other parts of what is minimised, for the log, by their names."""


class SampleRun:
    """Steps of micro-batches of samples, each a function of (seed, step).

    A subclass sets `config`, `processes` and `batches`, and calls `start_model`.

    Attributes:
        config: the settings.
        processes: those that share each batch.
        batches: gives the micro-batches of a step.
        model: what is trained.
        trained: the same, or a module that holds it and what is trained with it.
        optimizer: of their weights.
        first_weights: what tells the weights that training started from from others; in the first
            process alone.
        part_names: of what `compute` gives beside the cross entropy.
    """

    part_names: tuple[str, ...] = ()

    config: SampleConfig
    processes: Processes
    batches: SampleBatches
    model: Any
    trained: nn.Module
    optimizer: Optimizer
    first_weights: bytes

    def start_model(
        self,
        model: Any,
        blocks: Sequence[nn.Module],
        device: DeviceConfig | None = None,
        more: nn.Module | None = None,
    ) -> None:
        """Takes a model to this process's device, and makes its optimizer.

        Args:
            model: what is trained.
            blocks: of it, which are sharded one by one.
            device: what is asked for of the blocks; None: as the settings say.
            more: what is trained with it, and is no part of it; not sharded.

        Raises:
            ValueError: it cannot be sharded, or the schedule does not fit into the run.
        """
        config, processes = self.config, self.processes
        self.model = model
        self.first_weights = hash_weights(model) if processes.is_first else b""
        nn.Module.to(model, processes.device)  # transformers' own `to` is untyped
        processes.shard(model, blocks, device or config.device)
        self.trained = model
        if more is not None:
            self.trained = nn.ModuleDict({"model": model, "more": more.to(processes.device)})
        self.optimizer = Optimizer(
            self.trained,
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

    @property
    def in_step(self) -> bool:
        """Whether weights are sharded, so that all processes must compute as often."""
        return self.config.device.sharding != "none"

    def compute(self, batch: DenoisedBatch) -> RowLosses:
        """Returns the losses of a micro-batch, in training.

        Args:
            batch: its rows.
        """
        losses = sum_losses(self.model, batch, self.processes.device)
        return RowLosses(trained=losses, shown=losses)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of its micro-batches, one after the other.

        Args:
            step: from 1.

        Returns:
            `loss`, the batch's mean over its labels, and `loss_` with the name of each denoiser
            that it has, or `loss_pairs`; `tokens`, those that encoder and decoder get in this
            process.
        """
        nn.Module.train(self.model)
        batches = self.batches(step)
        groups = len(self.batches.groups)
        # Labels and rows of each group.
        counts = np.zeros((2, groups), np.int64)
        for batch in batches:
            np.add.at(counts[0], batch.tasks, batch.decoder_lengths)
            np.add.at(counts[1], batch.tasks, 1)
        whole = int(counts[0].sum())
        sums = torch.zeros(groups, dtype=torch.float64, device=self.processes.device)
        # Of processes without a micro-batch, too: all of them add up.
        more = {name: torch.zeros_like(sums[0]) for name in self.part_names}
        tokens = 0
        for index, is_own in share_parts(len(batches), self.processes, in_step=self.in_step):
            batch = batches[index]
            # Dropout belongs to the micro-batch, whichever process computes it.
            seed_torch(self.config.loop.seed, step, index)
            with self.optimizer.autocast():
                losses = self.compute(batch)
            self.optimizer.backward(losses.trained.sum() * (is_own / whole))
            tasks = torch.from_numpy(batch.tasks).to(sums.device)
            if is_own:
                sums.index_add_(0, tasks, losses.shown.detach().double())
                tokens += int(batch.encoder_lengths.sum() + batch.decoder_lengths.sum())
                for name, total in more.items():
                    total += losses.more[name].detach().double().sum()
        self.optimizer.update(step)
        found = self.describe(self.processes.sum(sums), counts[0], counts[1])
        parts = {name: self.processes.sum(total) / whole for name, total in more.items()}
        return {**found, **parts, "tokens": torch.tensor(tokens)}

    def describe(
        self, sums: Tensor, labels: NDArray[np.int64], rows: NDArray[np.int64]
    ) -> dict[str, Tensor]:
        """Returns what the log says of a step: its loss, and those of kinds of samples.

        Args:
            sums: `[groups]` float64: cross entropies of all labels of each group.
            labels: `[groups]`: how many these are.
            rows: `[groups]`: samples of each.
        """
        found = {"loss": sums.sum() / int(labels.sum())}
        groups = self.batches.groups
        for kind in dict.fromkeys(group.kind for group in groups):
            places = [place for place, group in enumerate(groups) if group.kind == kind]
            found |= mean_of(f"loss_{kind}", places, sums, labels)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        return {
            "model": gather_weights(self.trained, trained=True),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        take_weights(self.trained, state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def mean_of(
    name: str, places: Sequence[int], sums: Tensor, labels: NDArray[np.int64]
) -> dict[str, Tensor]:
    """Returns the mean over the labels of some groups under a name; nothing if they have none.

    Args:
        name: in the log.
        places: of the groups.
        sums: `[groups]`: of the cross entropies.
        labels: `[groups]`: how many these are.

    Example:
        >>> mean_of("loss", [0, 1], torch.tensor([3.0, 1.0]), np.array([1, 3]))
        {'loss': tensor(1.)}
    """
    count = int(labels[list(places)].sum())
    return {name: sums[list(places)].sum() / count} if count else {}


def measure_rows(length: int, denoisers: Sequence[Denoiser], ids: SpecialIds) -> tuple[int, int]:
    """Returns how many ids encoder and decoder get of a text at most.

    Args:
        length: tokens of the text.
        denoisers: that it may come under.
        ids: the special tokens.

    Raises:
        ValueError: it is too short.

    Example:
        >>> from lmcore.ops.denoising import ul2
        >>> measure_rows(568, ul2(), SpecialIds())
        (570, 380)
    """
    count = len(denoisers)
    plan = plan_batch(
        np.full(count, length), np.arange(count), seed=0, denoisers=denoisers, ids=ids,
        tasks=np.arange(count),
    )  # fmt: skip
    # A suffix has a length that is drawn: it may be one token, or its share of the text.
    drawn = [one for one in denoisers if one.kind == "suffix"]
    least = [round(one.density * length) + 2 for one in drawn]
    longest = [length + 2] if drawn else []
    return (
        max([*longest, *plan.encoder_lengths.tolist()]),
        max([*least, *plan.decoder_lengths.tolist()]),
    )
