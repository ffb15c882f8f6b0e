"""One run that learns gates: a model, its gates, and the multipliers of the Lagrangian.

With s the share of parameters that is expected to stay and t the target of the step,

    max over l1, l2  min over gates  loss + l1 (s - t) + l2 (s - t)^2

and t goes from 1 to what is asked for in a line while it warms up.

Source: Sheared-LLaMA (arXiv 2310.06694), equations 1 and 2, with one target for all sizes together
in place of one for each; Wang et al. 2020 (arXiv 1910.04732), equation 5.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmcore.compression.calibration import CalibrationBatch, CalibrationRow, make_batch
from lmcore.compression.choosing import LEARNED, Scores
from lmcore.compression.families import find_family
from lmcore.compression.gate_sizes import (
    choose_sizes,
    find_expected,
    make_gate_grid,
    make_scores,
)
from lmcore.compression.gated_model import GatedModel, make_tables
from lmcore.compression.gates import Gates, SizePolynomial
from lmcore.compression.importance import Calibration, read_rows
from lmcore.compression.loading import load_model
from lmcore.compression.mask_config import MaskConfig
from lmcore.compression.model_folders import TOKENIZER_FILES
from lmcore.compression.plan import Plan, find_kept
from lmcore.compression.plan_files import write_plan
from lmcore.compression.planning import add_chosen_stage, start_plan
from lmcore.compression.probes import sum_losses
from lmcore.compression.scores_files import StoredScores, digest_weights, write_scores
from lmcore.openba.objective import share_parts
from lmcore.training.batches import ExampleBatches
from lmcore.training.checkpoint import check_weights, gather_weights, hash_weights, take_weights
from lmcore.training.optimizer import Optimizer
from lmcore.training.processes import Processes, find_device
from lmcore.training.seeding import seed_torch

PLAN, SCORES = "plan.json", "masks.scores"
"""What a run writes beside its models."""


class Texts(NamedTuple):
    """What a model reads, and how it becomes tensors."""

    rows: list[CalibrationRow]
    kind: str
    ids: dict[str, int]
    digest: str
    """Of the rows: of all tokens."""

    @property
    def tokens(self) -> int:
        """Of all rows."""
        return sum(row.tokens for row in self.rows)


def read_texts(
    model: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]], tokens: int
) -> Texts:
    """Returns what a model reads of files, up to a number of tokens.

    Args:
        model: its folder, with its tokenizer.
        files: lines of text, or JSONL with `text`, or with `src` and `trg`.
        tokens: of all files together, at most.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no tokenizer or no file, a row cannot be used, or no token has a label.

    Example:
        >>> read_texts("model", [], 5)
        Traceback (most recent call last):
        ValueError: expected a file of text, got none
    """
    rows: list[CalibrationRow] = []
    kind, ids, left = "", dict[str, int](), tokens
    for file in files:
        if left <= 0:
            break
        found, kind, ids = read_rows(model, Calibration(text=file, tokens=left))
        rows += found
        left -= sum(row.tokens for row in found)
    if not files:
        raise ValueError("expected a file of text, got none")
    labels = sum(int((make_batch([row], kind, **ids).labels != -100).sum()) for row in rows[:64])
    if not labels:
        names = ", ".join(os.fspath(file) for file in files)
        raise ValueError(f"{names:.200}: too short: no token of it has a label")
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(repr(tuple(row)).encode())
    return Texts(rows, kind, ids, digest.hexdigest())


class MaskRun:
    """One run that learns gates; what `lmcore.training.loop.fit` drives.

    Args:
        config: the settings, with a model.
        data: what the model reads.
        valid: what the plan is validated on; nothing if None.
        processes: those that share each batch; this one alone by default.

    Raises:
        OSError: the model cannot be read.
        ValueError: it is of no family that is known, it cannot be loaded, nothing of it could be
            shut, or the target cannot be reached.

    Example:
        >>> MaskRun(MaskConfig(), Texts([], "decoder", {}, ""))
        Traceback (most recent call last):
        ValueError: a model must be given: got none
    """

    def __init__(
        self,
        config: MaskConfig,
        data: Texts,
        valid: Texts | None = None,
        *,
        processes: Processes | None = None,
    ) -> None:
        if config.model is None:
            raise ValueError("a model must be given: got none")
        processes = processes or Processes(device=find_device(config.device.device))
        self.config, self.processes, self.data, self.valid = config, processes, data, valid
        self.plan = start_plan(config.model)
        family, shape = find_family(self.plan.model_type), self.plan.shape
        self.polynomial = SizePolynomial(shape)
        self.gates = Gates(
            shape, config.dimensions, shared_heads=family.shared_heads, start=config.start
        )
        self.grid = make_gate_grid(
            shape, family, config.dimensions, config.divisors, config.least_share
        )
        self.most = self._find_most()
        # What cannot be reached is found before a step is done.
        choose_sizes(shape, self.grid, find_expected(self.gates), self.most)
        seed_torch(config.loop.seed)
        self.model = load_model(config.model, device=str(processes.device))
        self._first_weights = hash_weights(self.model) if processes.is_first else b""
        self.gates.to(processes.device)
        self.multipliers = _Multipliers().to(processes.device)
        for weight in self.model.parameters():
            weight.requires_grad_(config.trains_weights)
        self.gated = GatedModel(self.model, family, shape, fused=config.fused)
        steps = config.loop.steps
        given: Any = {"device": config.device, "processes": processes, "steps": steps}
        self.optimizers = {
            "gates": Optimizer(self.gates, config.gate_optimizer, **given),
            "multipliers": Optimizer(self.multipliers, config.multiplier_optimizer, **given),
        }
        if config.trains_weights:
            self.optimizers["weights"] = Optimizer(
                self.model, config.optimizer, config.schedule, **given
            )
        self.batches = ExampleBatches(
            range(len(data.rows)), config.batch_size, config.loop.seed, lambda _: {}
        )

    def _find_most(self) -> float:
        target, whole = self.config.parameters, self.polynomial.whole
        most = target.value * whole if target.is_share else target.value
        if most >= whole:
            raise ValueError(
                f"target must be below the {whole:,} parameters of the model: got "
                f"{self.config.target}"
            )
        return most

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch: this process's share of its micro-batches, one after the other.

        Args:
            step: from 1.

        Raises:
            FloatingPointError: a gate is not finite.

        Returns:
            `loss`, the batch's mean over its labels; `penalty` of the Lagrangian; `parameters`
            that are expected to stay and `target_parameters` of the step; `tokens`, those that
            are read in this process.
        """
        config = self.config
        self.check_gates(f"step {step}: ")
        nn.Module.train(self.model, config.trains_weights)
        batches = self._make_batches(step)
        labels = sum(int((batch.labels != -100).sum()) for batch in batches)
        drawn = self.gates.sample(config.loop.seed, step)
        # Micro-batches add up their gradients here; one pass takes them to the log alphas.
        leaf = drawn.detach().requires_grad_()
        total = torch.zeros((), dtype=torch.float64, device=self.processes.device)
        tokens = 0
        for index, _ in share_parts(len(batches), self.processes):
            batch = batches[index]
            seed_torch(config.loop.seed, step, index)
            self.gated.set(self.gates.split(leaf))
            with self.optimizers["gates"].autocast():
                loss = sum_losses(self.model, batch, self.plan.shape)
            self.optimizers["gates"].backward(loss / max(1, labels))
            total += loss.detach().double()
            tokens += batch.tokens
        if leaf.grad is not None:
            drawn.backward(leaf.grad)
        share = self.polynomial.count(self.gates.split(self.gates.find_open()))
        share = share / self.polynomial.whole
        target = self.find_target(step)
        penalty = self.multipliers(share - target)
        # Gradients are added up over processes.
        (penalty / self.processes.data_count).backward()
        self.multipliers.rise()
        for optimizer in self.optimizers.values():
            optimizer.update(step)
        whole = self.polynomial.whole
        return {
            "loss": self.processes.sum(total) / max(1, labels),
            "penalty": penalty.detach(),
            "parameters": share.detach() * whole,
            "target_parameters": torch.tensor(target * whole, dtype=torch.float64),
            "tokens": torch.tensor(tokens),
        }

    def find_target(self, step: int) -> float:
        """Returns the share of parameters that a step is held to.

        Args:
            step: from 1.
        """
        most = self.most / self.polynomial.whole
        warm = min(1.0, step / self.config.warmup_steps) if self.config.warmup_steps else 1.0
        return 1 - warm * (1 - most)

    def _make_batches(self, step: int) -> list[CalibrationBatch]:
        """The micro-batches of a step; rows of about one length stand together."""
        rows = self.data.rows
        numbers = self.batches.find(step, slice(0, self.config.batch_size))
        numbers = sorted(numbers, key=lambda number: (rows[number].tokens, number))
        first, size = (step - 1) * self.config.batch_size, self.config.micro_batch_size
        return [
            self._to_device(
                make_batch([rows[number] for number in numbers[at : at + size]], self.data.kind,
                           number=first + at, **self.data.ids)
            )
            for at in range(0, len(numbers), size)
        ]  # fmt: skip

    def _to_device(self, batch: CalibrationBatch) -> CalibrationBatch:
        device = self.processes.device
        inputs = {name: tensor.to(device) for name, tensor in batch.inputs.items()}
        return CalibrationBatch(
            inputs=inputs, shown=batch.shown, labels=batch.labels, tokens=batch.tokens
        )

    def make_plan(self) -> tuple[Plan, Scores]:
        """Returns the plan that the gates have come to, under the target, and their scores.

        Raises:
            FloatingPointError: a gate is not finite.
        """
        self.check_gates()
        scores = make_scores(self.gates)
        expected = find_expected(self.gates)
        sizes, _ = choose_sizes(self.plan.shape, self.grid, expected, self.most)
        plan, _ = add_chosen_stage(self.plan, sizes, scores=scores, method=LEARNED, name="masks")
        return plan, scores

    def check_gates(self, where: str = "") -> None:
        """Checks that all gates are finite.

        Args:
            where: what the text begins with.

        Raises:
            FloatingPointError: one is not; the text names its dimension.
        """
        if bool(torch.isfinite(self.gates.log_alpha.detach().sum())):
            return
        tables = self.gates.split(self.gates.log_alpha.detach())
        for name, table in tables.items():
            if not bool(torch.isfinite(table).all()):
                raise FloatingPointError(f"{where}a gate of {name} is no finite number")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Returns the loss of the model that the plan leaves, right after the cut.

        Without anything to validate with it is empty.

        Raises:
            FloatingPointError: a gate or a weight is not finite.
        """
        self.check_gates()
        check_weights(self.model)
        if self.valid is None:
            return {}
        plan, _ = self.make_plan()
        nn.Module.eval(self.model)
        device = self.processes.device
        tables = make_tables(find_kept(plan), plan.shape)
        self.gated.set({name: table.to(device) for name, table in tables.items()})
        size, rows = self.config.validation_batch_size, self.valid.rows
        order = sorted(range(len(rows)), key=lambda number: (rows[number].tokens, number))
        parts = [order[at : at + size] for at in range(0, len(order), size)]
        sums = torch.zeros(2, dtype=torch.float64, device=device)
        for index, _ in share_parts(len(parts), self.processes):
            chosen = [rows[number] for number in parts[index]]
            batch = make_batch(chosen, self.valid.kind, number=index * size, **self.valid.ids)
            with self.optimizers["gates"].autocast():
                loss = sum_losses(self.model, self._to_device(batch), self.plan.shape)
            sums += torch.stack([loss.double(), (batch.labels != -100).sum().to(sums)])
        total, labels = self.processes.sum(sums).tolist()
        return {"loss": total / labels}

    def save_model(self, folder: Path) -> None:
        """Writes the plan, the scores, and the model where it was trained.

        Args:
            folder: where to.
        """
        if not self.processes.is_first:
            return
        assert self.config.model is not None
        source = self.config.model
        if self.config.trains_weights:
            self.model.save_pretrained(folder)
            for name in TOKENIZER_FILES:
                if (source / name).is_file():
                    shutil.copyfile(source / name, folder / name)
            source = folder
        plan, scores = self.make_plan()
        write_plan(folder / PLAN, plan)
        stored = StoredScores(
            scores=scores, method=LEARNED, model=digest_weights(source), text=self.data.digest,
            tokens=self.data.tokens, most_tokens=self.config.tokens,
        )  # fmt: skip
        write_scores(folder / SCORES, stored)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that the next step depends on, but for the random numbers."""
        found: dict[str, Any] = {
            "gates": gather_weights(self.gates),
            "multipliers": gather_weights(self.multipliers),
            "optimizers": {name: one.state_dict() for name, one in self.optimizers.items()},
        }
        if self.config.trains_weights:
            found["model"] = gather_weights(self.model, trained=True)
        return found

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        take_weights(self.gates, state["gates"])
        take_weights(self.multipliers, state["multipliers"])
        if self.config.trains_weights:
            take_weights(self.model, state["model"])
        for name, optimizer in self.optimizers.items():
            optimizer.load_state_dict(state["optimizers"][name])

    def find_fingerprint(self) -> str:
        """Returns what tells the texts and the first weights from others."""
        digest = hashlib.blake2b(self._first_weights, digest_size=16)
        digest.update(self.data.digest.encode())
        digest.update(b"" if self.valid is None else self.valid.digest.encode())
        return digest.hexdigest()


class _Multipliers(nn.Module):
    """l1 and l2, which rise where the gates fall."""

    def __init__(self) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(2))

    def forward(self, excess: Tensor) -> Tensor:
        """Returns the penalty of an excess, a scalar."""
        first, second = self.values.double().unbind()
        return first * excess + second * excess.square()

    def rise(self) -> None:
        """Turns the gradient round: what minimises then maximises."""
        assert self.values.grad is not None
        self.values.grad.neg_()
