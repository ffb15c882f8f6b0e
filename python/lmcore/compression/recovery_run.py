"""One run of recovery: a pruned model, its objective, and how often each denoiser is drawn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmcore.compression.causal import CAUSAL, CausalSamples, make_causal
from lmcore.compression.distilled_batches import distil_batch
from lmcore.compression.hidden_states import HiddenLoss
from lmcore.compression.loading import find_kind
from lmcore.compression.objectives import (
    Sentinels,
    choose_denoisers,
    choose_objective,
    find_prefixes,
    find_sentinels,
    set_weights,
)
from lmcore.compression.output_heads import check_head
from lmcore.compression.proportions import check_proportions, update_proportions
from lmcore.compression.recovered_models import RecoveredModel
from lmcore.compression.recovery_config import RecoveryConfig
from lmcore.compression.teacher import Teacher
from lmcore.compression.teaching import sum_teacher_losses
from lmcore.openba.batches import SampleBatches
from lmcore.openba.data import TrainData
from lmcore.openba.objective import make_inputs, measure_losses, measure_means, sum_losses
from lmcore.openba.sample_run import RowLosses, SampleRun, measure_rows
from lmcore.openba.samples import TextSamples
from lmcore.ops.denoising import DenoisedBatch, Denoiser
from lmcore.training.checkpoint import check_weights
from lmcore.training.processes import Processes
from lmcore.training.seeding import seed_torch

# In the log: what is learned from a teacher.
_DIVERGENCE, _DISTANCE = "loss_distillation", "loss_hidden"


class RecoveryRun(SampleRun):
    """One run of recovery: model, optimizer, samples, and proportions of denoisers.

    It is what `lmcore.training.loop.fit` drives; `step` may also be called by other loops.

    Source: OpenBA-V2 (arXiv 2405.05957), algorithm 1.

    Args:
        config: the settings.
        data: the texts.
        source: the model and its tokenizer.
        processes: those that share each batch; this one alone by default.
        teacher: what the model learns from, on this process's device.
        load_reference: for D-UL2 without targets and without teacher: gives the model whose
            losses they are. It is called once, before the first step.

    Raises:
        OSError: a file cannot be read.
        ValueError: the model cannot be trained so, or texts are missing, or of another length.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.recipes import tiny
        >>> from lmcore.training.config import change
        >>> from lmcore.training.models import make_tokenizer, save_model
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> config = change(tiny(), {"batch_size": 2, "text_tokens": 8})
        >>> model = GPT2LMHeadModel(GPT2Config(n_embd=4, n_layer=1, n_head=1, vocab_size=300))
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(model, make_tokenizer(["Ada"], 300), Path(folder))
        ...     source = RecoveredModel(folder)
        >>> data = TrainData(config, np.arange(16).reshape(2, 8))
        >>> RecoveryRun(config, data, source).step(1)["loss"].shape
        torch.Size([])
    """

    config: RecoveryConfig

    def __init__(
        self,
        config: RecoveryConfig,
        data: TrainData,
        source: RecoveredModel,
        *,
        processes: Processes | None = None,
        teacher: Teacher | None = None,
        load_reference: Callable[[], Teacher] | None = None,
    ) -> None:
        self.config, self.data, self.source = config, data, source
        self.processes = processes or Processes()
        self.model = source.model
        self.objective = choose_objective(config, find_kind(self.model.config))
        self.teacher, self._load_reference = teacher, load_reference
        self.sentinels: Sentinels | None = None
        self.denoisers: tuple[Denoiser, ...] = ()
        [texts] = [own.items for own in data.sources]
        assert isinstance(texts, np.ndarray)
        seed = config.loop.seed
        self.samples: TextSamples | CausalSamples
        if self.objective == CAUSAL:
            self.samples = CausalSamples(texts, seed=seed)
            lengths = (0, config.text_tokens - 1)
        else:
            self.sentinels = find_sentinels(source.tokenizer, self.model.config)
            prefixes = find_prefixes(source.tokenizer)
            self.denoisers = choose_denoisers(config, self.objective, prefixes)
            self.samples = TextSamples(
                texts, seed=seed, denoisers=self.denoisers, ids=self.sentinels.ids,
                threads=config.device.threads,
            )  # fmt: skip
            lengths = measure_rows(config.text_tokens, self.denoisers, self.sentinels.ids)
        self.batches = SampleBatches([self.samples], config.batch_size, config.micro_batch_size)
        self.proportions: NDArray[np.float64] | None = None
        self.targets: NDArray[np.float64] | None = None
        self.start_losses: dict[str, float] | None = None
        """Of the model before the first step."""
        self._measured: dict[str, float] | None = None
        self._check()
        seed_torch(seed)
        source.prepare(lengths, tied=config.tied)
        self.hidden = self._make_hidden()
        if teacher is not None:
            check_head(self.model)
            self.part_names = (_DIVERGENCE, *([_DISTANCE] if self.hidden else []))
        self.start_model(self.model, *source.list_blocks(config.device), self.hidden)

    @property
    def steps_per_epoch(self) -> int:
        """Steps after which every text has come at least once."""
        return -(-len(self.samples) // self.config.batch_size)

    def compute(self, batch: DenoisedBatch) -> RowLosses:
        """Returns the losses of a micro-batch, in training.

        Args:
            batch: its rows.
        """
        if self.teacher is None:
            losses = self.sum_losses(batch)
            return RowLosses(trained=losses, shown=losses)
        inputs, labels = make_inputs(self._turn(batch), self.processes.device)
        found = distil_batch(
            self.model, self.teacher, inputs, labels, self.config.distillation, hidden=self.hidden
        )
        more = {_DIVERGENCE: found.divergence.sum(1)}
        if found.distance is not None:
            more[_DISTANCE] = found.distance
        return RowLosses(trained=found.rows, shown=found.cross_entropy.sum(1), more=more)

    def sum_losses(self, batch: DenoisedBatch) -> Tensor:
        """Returns the cross entropy of each row, added up over its labels: `[B]` float32.

        Args:
            batch: its rows, as denoisers make them.
        """
        return sum_losses(self.model, self._turn(batch), self.processes.device)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch, and measures anew how often each denoiser is drawn when it is time.

        Args:
            step: from 1.

        Returns:
            As `SampleRun.step`, and for D-UL2 `share_of_` each denoiser, that it was drawn with.
        """
        self._start()
        self._measured = None
        found = super().step(step)
        if self.proportions is None:
            return found
        named = zip(self.denoisers, self.proportions.tolist(), strict=True)
        shares = {f"share_of_{one.name}": torch.tensor(share, dtype=torch.float64)
                  for one, share in named}  # fmt: skip
        if step % self.config.update_every_steps == 0:
            self._update()
        return found | shares

    def validate(self) -> dict[str, float]:
        """Returns the loss under each denoiser and their mean, or that of the next tokens.

        Without anything to validate with it is empty.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        check_weights(self.model)
        if self._measured is None:
            self._measured = self._measure()
        return dict(self._measured)

    def save_model(self, folder: Path) -> None:
        """Writes the model, its tokenizer, and what pruning and training say of it.

        Args:
            folder: where to.
        """
        self.source.save(folder, is_first=self.processes.is_first)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        own = {
            "proportions": None if self.proportions is None else self.proportions,
            "targets": self.targets,
            "start_losses": self.start_losses,
        }
        return {**super().state_dict(), "recovery": own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        own = state["recovery"]
        super().load_state_dict(state)
        self._measured = None
        if (own["proportions"] is None) != (self.proportions is None):
            raise ValueError("recovery must be the state of the same objective")
        if self.proportions is not None:
            self._draw(check_proportions(own["proportions"], len(self.denoisers)))
            self.targets = np.array(own["targets"], np.float64)
        self.start_losses = own["start_losses"]

    def find_fingerprint(self) -> str:
        """Returns what tells the data, the tokenizer and the first weights from others.

        Raises:
            IndexError: an id outside of the vocabulary.
        """
        digest = hashlib.blake2b(self.first_weights, digest_size=16)
        for token, number in sorted(self.source.tokenizer.get_vocab().items()):
            digest.update(f"{number} {token}\n".encode())
        digest.update(self.data.hash(self.vocabulary_size))
        return digest.hexdigest()

    @property
    def vocabulary_size(self) -> int:
        """Ids of the tokenizer are below it."""
        return len(self.source.tokenizer)

    def _start(self) -> None:
        """What is measured once, before the first step."""
        if self.proportions is not None and self.targets is None:
            found = self._measure_targets()
            self.targets = np.array([found[f"loss_{one.name}"] for one in self.denoisers])
        if self.start_losses is None:
            self.start_losses = self._measure()

    def _measure_targets(self) -> dict[str, float]:
        """The losses of the teacher, or of a model that is here for that alone."""
        teacher = self.teacher
        if teacher is None:
            assert self._load_reference is not None
            teacher = self._load_reference()

        def compute(batch: DenoisedBatch) -> Tensor:
            return sum_teacher_losses(teacher, self._turn(batch), self.processes.device)

        with self.optimizer.autocast():
            return self._measure_by(compute)

    def _make_hidden(self) -> HiddenLoss | None:
        teacher, weight = self.teacher, self.config.distillation.hidden_weight
        if teacher is None or not weight:
            return None
        if self.in_step:
            raise ValueError("distillation.hidden_weight must be 0 where device.sharding is full")
        return HiddenLoss.make(self.model.config, teacher.model.config, teacher.lineage)

    def _turn(self, batch: DenoisedBatch) -> DenoisedBatch:
        """With sentinels in the tokenizer's order."""
        return batch if self.sentinels is None else self.sentinels.turn(batch)

    def _update(self) -> None:
        assert self.proportions is not None
        assert self.targets is not None
        self._measured = self._measure()
        losses = [self._measured[f"loss_{one.name}"] for one in self.denoisers]
        new = update_proportions(
            self.proportions, losses, self.targets, rule=self.config.proportions_rule
        )
        # The same to the bit in all processes, whatever their sums were rounded to.
        self._draw(np.array(self.processes.agree(new.tolist())))

    def _draw(self, proportions: NDArray[np.float64]) -> None:
        """From the next step on samples are drawn with these."""
        assert isinstance(self.samples, TextSamples)
        self.proportions = proportions
        self.samples.denoisers = set_weights(self.denoisers, proportions.tolist())

    def _measure(self) -> dict[str, float]:
        nn.Module.eval(self.model)
        with self.optimizer.autocast():
            return self._measure_by(self.sum_losses, in_step=self.in_step)

    def _measure_by(
        self, compute: Callable[[DenoisedBatch], Tensor], *, in_step: bool = False
    ) -> dict[str, float]:
        """The mean losses of the validation texts, by what gives those of a batch."""
        if self.data.valid is None:
            return {}
        texts, size = self.data.valid.items, self.config.validation_batch_size
        assert isinstance(texts, np.ndarray)
        if self.sentinels is None:
            rows = np.arange(len(texts))
            units = [(0, rows[at : at + size]) for at in range(0, len(rows), size)]
            [mean] = measure_means(
                self.model, units, lambda _, part: make_causal(texts[part]), 1, self.processes,
                in_step=in_step, compute=compute,
            )  # fmt: skip
            return {"loss": mean, f"loss_{CAUSAL}": mean}
        return measure_losses(
            self.model,
            texts,
            denoisers=self.denoisers,
            ids=self.sentinels.ids,
            batch_size=size,
            processes=self.processes,
            in_step=in_step,
            compute=compute,
        )

    def _check(self) -> None:
        """Refuses what would fail later, before a step is done."""
        config, valid = self.config, self.data.valid
        if self.objective == "d_ul2":
            if valid is None:
                raise ValueError("d_ul2 needs validation texts, whose losses its shares follow")
            if config.targets is None and not (self.teacher or self._load_reference):
                raise ValueError(
                    "d_ul2 needs the losses of the model before pruning: name it as the teacher, "
                    "or give targets"
                )
            self._draw(check_proportions(config.initial_proportions, len(self.denoisers)))
            if config.targets is not None:
                self.targets = np.array(config.targets)
        kinds: Sequence[str] = self.samples.kinds
        known = ["loss", *(f"loss_{kind}" for kind in kinds)]
        if valid is not None and config.loop.metric not in known:
            raise ValueError(
                f"loop.metric must be {' or '.join(known)}: got {config.loop.metric!r}"
            )
