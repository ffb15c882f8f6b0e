"""Progressive distillation: a student learns to do two steps of its teacher's sampling in one.

The teacher samples by DDIM without rounding, over 2 N timesteps, of which the student keeps every
other one.  From latents at a timestep that it keeps the teacher makes two steps; the student's
estimate shall be the one with which a single DDIM step of its own process leads to the same
latents.  After a halving the averaged student is the next teacher.

Source: Salimans and Ho (arXiv 2202.00512), algorithm 2, in the estimate of the clean latents.

Shapes: B rows, L positions, E latent size, N steps of the student, T of the training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lmcore.diffusion.modeling_text_diffusion import TextDiffusionModel
from lmcore.diffusion.models import load_model
from lmcore.diffusion.objective import Losses, View
from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.process import Process
from lmcore.diffusion.recipes import DistillConfig, PenaltyConfig, TrainConfig
from lmcore.diffusion.timesteps import TimestepChoice
from lmcore.diffusion.training import DiffusionRun
from lmcore.ops.schedule import adaptive_timesteps, make_betas, space_betas, space_timesteps
from lmcore.training.checkpoint import check_weights, gather_weights


def plan_halvings(
    total: int, config: DistillConfig, known: list[int] | None = None
) -> list[list[int]]:
    """Returns the timesteps of the first teacher and of each student, in ascending order.

    Each student keeps every other timestep of its teacher, and the last one with them.

    Args:
        total: T.
        config: how many there are, and how far apart.
        known: timesteps for which the teacher itself was distilled, which it then keeps.

    Raises:
        ValueError: there are more steps than T, or not those for which the teacher was distilled.

    Example:
        >>> plan_halvings(100, DistillConfig(first_steps=4, halvings=2, spacing="uniform"))
        [[0, 33, 66, 99], [33, 99], [99]]
    """
    steps = config.first_steps
    if steps > total:
        raise ValueError(
            f"distill.first_steps must be at most the {total} timesteps of the teacher: got {steps}"
        )
    if known is not None and len(known) != steps:
        raise ValueError(
            f"distill.first_steps must be the {len(known)} steps that the teacher was distilled "
            f"for: got {steps}"
        )
    if known is not None:
        kept = list(known)
    elif config.spacing == "adaptive":
        kept = adaptive_timesteps(total, steps)[::-1]
    else:
        kept = [int(step) for step in space_timesteps(total, [steps])]
    return [kept[2**count - 1 :: 2**count] for count in range(config.halvings + 1)]


class Halving:
    """What a teacher and its student need of their processes.

    Args:
        betas: `[T]`, of the training.
        kept: the teacher's timesteps in ascending order, an even number.
        device: of the tables.

    Attributes:
        teacher: process of 2 N steps.
        student: process of N steps; its step k is step 2 k + 1 of the teacher.

    Raises:
        ValueError: a beta or a timestep is out of its range, or their number is odd.

    Example:
        >>> halving = Halving(make_betas("sqrt", 100), [0, 33, 66, 99])
        >>> halving.student.timestep_map.tolist()
        [33, 99]
    """

    def __init__(
        self, betas: ArrayLike, kept: list[int], device: torch.device | str = "cpu"
    ) -> None:
        if len(kept) % 2:
            raise ValueError(f"kept must be an even number of timesteps: got {len(kept)}")
        self.teacher = _make_process(betas, kept, device)
        self.student = _make_process(betas, kept[1::2], device)
        self._of_teacher = _make_weights(self.teacher, device)
        self._of_student = _make_weights(self.student, device)

    def find_targets(
        self,
        denoise: Callable[[Tensor, Tensor], Tensor],
        states: Tensor,
        steps: Tensor,
        sources: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """Returns the estimates with which one step of the student is two of the teacher.

        With x the states, x'' where the teacher's two steps lead, and a DDIM step of the student
        w f + v x for an estimate f, that is (x'' - v x) / w. The student's step 0 returns its
        estimate (w = 1, v = 0), and so its target is x''. Without gradients.

        Args:
            denoise: the teacher: `[B, L, E]` float32 and `[B]` scaled timesteps to `[B, L, E]`.
            states: `[B, L, E]` noisy latents.
            steps: `[B]` int64, of the student, below N.
            sources: `[B, L, E]` what stands at source positions at every step.
            mask: `[B, L]` bool, the positions that are made; only there the result counts.

        Returns:
            `[B, L, E]` float32.
        """
        with torch.no_grad():
            latents = states
            for own in (2 * steps + 1, 2 * steps):
                estimates = denoise(latents, self.teacher.scale_times(own)).float()
                moved = self.step(estimates, latents, own, of_teacher=True)
                latents = torch.where(mask[..., None], moved, sources)
            weight, kept = (table[steps][:, None, None] for table in self._of_student)
            target: Tensor = (latents - kept * states) / weight
            return target

    def step(
        self, estimates: Tensor, states: Tensor, steps: Tensor, *, of_teacher: bool = False
    ) -> Tensor:
        """Returns latents one DDIM step without noise before, for rows at steps of their own.

        Source: DDIM (arXiv 2010.02502), equation 12.

        Args:
            estimates: `[B, L, E]` of the clean latents.
            states: `[B, L, E]` noisy latents.
            steps: `[B]` int64, of `states`.
            of_teacher: whether they are the teacher's, and not the student's.
        """
        tables = self._of_teacher if of_teacher else self._of_student
        weight, kept = (table[steps][:, None, None] for table in tables)
        return weight * estimates + kept * states


def compute_student_losses(
    model: Any, process: Process, states: Tensor, steps: Tensor, targets: Tensor, mask: Tensor
) -> Losses:
    """Returns the loss of each row: the mean squared error at target positions, and nothing else.

    Args:
        model: the student.
        process: its own, N steps.
        states: `[B, L, E]` noisy latents.
        steps: `[B]` int64, of the process.
        targets: `[B, L, E]`, of `Halving.find_targets`.
        mask: `[B, L]` bool, the positions that are made.

    Example:
        >>> ones = torch.ones(1, 2, 4)
        >>> losses = compute_student_losses(
        ...     lambda latents, times: latents, Process([0.1, 0.2]), ones, torch.tensor([1]),
        ...     3 * ones, torch.tensor([[False, True]]))
        >>> losses.loss
        tensor([4.])
    """
    estimates = model(states, process.scale_times(steps)).float()
    squares = (estimates - targets).square().mean(-1) * mask
    error = squares.sum(1) / mask.sum(1)
    none = torch.zeros_like(error)
    return Losses(error, error, (error,), none, none, none, none.bool(), None)


class DistillationRun(DiffusionRun):
    """One run of distillation: a student, its teacher of the moment, and all of `DiffusionRun`.

    Words keep their embeddings, which are the space that both compute in. Only the last halving
    is validated: errors of different numbers of steps cannot be compared, and the best model is
    one of the last.

    Args:
        config: the settings; `distill` names the teacher.
        pairs: as for `DiffusionRun`.
        valid: as for `DiffusionRun`.
        options: of `DiffusionRun`.

    Raises:
        OSError: as for `DiffusionRun`.
        ValueError: as for `DiffusionRun`, there is no teacher, its number of steps is not that of
            the settings, or the steps of the run cannot be shared among the halvings.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> from lmcore.diffusion.models import make_model, save_model
        >>> from lmcore.diffusion.recipes import distilled, tiny
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save_model(make_model(tiny(), tokenizer), tokenizer, Path(folder))
        ...     run = DistillationRun(distilled(tiny(), folder), [Pair("a", "b")])
        >>> [len(kept) for kept in run.plan]
        [64, 32, 16, 8, 4]
    """

    def __init__(
        self, config: TrainConfig, pairs: Iterable[Pair], valid: Iterable[Pair] = (), **options: Any
    ) -> None:
        if config.distill.teacher is None:
            raise ValueError("distill.teacher must be given: got none")
        count, steps = config.distill.halvings, config.loop.steps
        if steps is None or steps % count:
            raise ValueError(
                f"loop.steps must be a multiple of the {count} halvings, which share them: "
                f"got {steps}"
            )
        self.steps_per_halving = steps // count
        super().__init__(config, pairs, valid, **options)
        own = self.model.config
        betas = make_betas(own.noise_schedule, own.diffusion_steps)
        self.start_deviation = self.process.start_deviation
        known = self.teacher.config.distilled_timesteps
        self.plan = plan_halvings(own.diffusion_steps, config.distill, known)
        self.halvings = [Halving(betas, kept, self.device) for kept in self.plan[:-1]]
        nn.Module.to(self.teacher, self.device)  # transformers' own `to` is untyped
        self._enter(0)

    def step(self, step: int) -> dict[str, Tensor]:
        """Trains on one batch; with the first one of a halving the student becomes the teacher.

        Args:
            step: from 1.

        Returns:
            `loss` and `error`, both the mean over the batch; `student_steps`, N; `tokens` of this
            process.
        """
        halving = min((step - 1) // self.steps_per_halving, len(self.halvings) - 1)
        while self.halving < halving:
            self._halve()
        values = super().step(step)
        steps = torch.tensor(self.process.steps)
        return {
            "loss": values["loss"], "error": values["error"], "student_steps": steps,
            "tokens": values["tokens"],
        }  # fmt: skip

    def validate(self) -> dict[str, float]:
        """Returns the averaged student's error against its teacher; empty before the last halving.

        Raises:
            FloatingPointError: a weight is not finite.
        """
        if self.halving + 1 < len(self.halvings):
            check_weights(self.model)
            return {}
        return super().validate()

    def state_dict(self) -> dict[str, Any]:
        """Returns what that of `DiffusionRun` does, which halving it is, and its teacher."""
        names = gather_weights(self.model, trained=True)
        weights = self.teacher.state_dict()
        # The first one is what the run starts from.
        teacher = {name: weights[name] for name in names} if self.halving else None
        return {**super().state_dict(), "halving": self.halving, "teacher": teacher}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned.

        Args:
            state: of a run with the same settings.

        Raises:
            Exception: of any kind: it is no state, or one of another run.
        """
        halving, teacher = state["halving"], state["teacher"]
        if type(halving) is not int or not 0 <= halving < len(self.halvings):
            raise ValueError(f"halving must be one of {len(self.halvings)}: got {halving!r:.40}")
        if (teacher is None) != (halving == 0):
            raise ValueError("teacher must be there behind the first halving")
        if teacher is not None:
            names = gather_weights(self.model, trained=True)
            if set(teacher) != set(names):
                raise ValueError(f"teacher must hold the {len(names)} weights that are trained")
            self.teacher.load_state_dict(teacher, strict=False)
        self._enter(halving)
        super().load_state_dict(state)

    _compute = staticmethod(compute_student_losses)

    def _find_model(self) -> TextDiffusionModel:
        teacher = self.config.distill.teacher
        assert teacher is not None
        self.teacher = load_model(teacher)
        nn.Module.eval(self.teacher)
        self.teacher.requires_grad_(False)
        model = load_model(teacher)
        # Latents of both must be the same; the output layer takes no part.
        model.word_embedding.weight.requires_grad_(False)
        model.lm_head.bias.requires_grad_(False)
        return model

    def _find_batch_losses(
        self, ids: Tensor, mask: Tensor, start: Tensor, views: list[View], *, is_valid: bool
    ) -> Any:
        (view,), halving = views, self.halvings[self.halving]
        sources = self.teacher.embed(ids).float()
        clean = sources + self.start_deviation * start
        noisy = halving.student.add_noise(clean, view.timesteps, view.noise)
        # As in sampling, sources have no noise at all.
        states = torch.where(mask[..., None], noisy, sources)
        targets = halving.find_targets(self.teacher, states, view.timesteps, sources, mask)
        return self.objective(self.process, states, view.timesteps, targets, mask)

    def _find_schedule_step(self, step: int) -> int:
        return step - self.halving * self.steps_per_halving

    def _make_optimizer(self, steps: int | None = None) -> Any:
        return super()._make_optimizer(self.steps_per_halving)

    def _halve(self) -> None:
        """Makes the averaged student the teacher, and begins anew with it."""
        if self.average is not None:
            self.average.write()
        weights = {
            name: value.full_tensor() if isinstance(value, DTensor) else value
            for name, value in gather_weights(self.model, trained=True).items()
        }
        self.teacher.load_state_dict(weights, strict=False)
        self.optimizer, self.average = self._make_optimizer(), self._make_average()
        self._enter(self.halving + 1)

    def _enter(self, halving: int) -> None:
        self.halving = halving
        self.process = self.halvings[halving].student
        self.timesteps = TimestepChoice(
            self.process.betas, PenaltyConfig(kind="none"), seed=self.config.loop.seed
        )
        self.model.config.distilled_timesteps = list(self.plan[halving + 1])


def _make_process(betas: ArrayLike, kept: list[int], device: torch.device | str) -> Process:
    total = len(np.asarray(betas))
    return Process(space_betas(betas, kept), kept, total_steps=total, device=device)


def _make_weights(process: Process, device: torch.device | str) -> tuple[Tensor, Tensor]:
    """What a DDIM step without noise takes of the estimate and of the state, `[N]` each."""
    left, before = process.alphas_cumprod, process.alphas_cumprod_prev
    kept = np.sqrt((1 - before) / (1 - left))
    weight = np.sqrt(before) - kept * np.sqrt(left)
    first, second = (
        torch.tensor(table, dtype=torch.float32, device=device) for table in (weight, kept)
    )
    return first, second
