"""An exponential moving average of a model's weights, used as a teacher."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = tuple[Tensor, ...] | list[Tensor]
MODES = ("train", "eval")


class EMATeacher:
    """A teacher whose weights follow a student's.

    It starts as a copy of the student.  Update n (1, 2, ...) is
    `w <- d_n w + (1 - d_n) student` with `d_n = min(decay, (1 + n) / (10 + n))`, over all
    parameters; buffers stay as they were copied.

    Source: UFNRec (arXiv 2208.04116), `torch_ema`; d in the paper is `decay`.

    Args:
        model: the student.
        decay: the limit of the ramp, in [0, 1].
        mode: `train` runs the teacher with dropout, as the paper's code does; `eval` without.

    Raises:
        ValueError: `decay` or `mode` is none of these.

    Example:
        >>> student = nn.Linear(1, 1, bias=False)
        >>> _ = nn.init.zeros_(student.weight)
        >>> teacher = EMATeacher(student)
        >>> _ = nn.init.ones_(student.weight)
        >>> teacher.update(student)
        >>> round(teacher.model.weight.item(), 4), teacher.update_count
        (0.8182, 1)
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.999, mode: str = "train") -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1]: got {decay}")
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}: got {mode!r}")
        self.decay = decay
        self.mode = mode
        self._averaged = AveragedModel(model, multi_avg_fn=self._average)
        self._averaged.requires_grad_(False)
        # The first call copies, and from then on the counter is the n of the ramp.
        self._averaged.update_parameters(model)

    @property
    def model(self) -> nn.Module:
        """The averaged model, for evaluation and for saving."""
        return self._averaged.module

    @property
    def update_count(self) -> int:
        """How many updates there were, n."""
        return int(self._averaged.n_averaged) - 1

    def update(self, model: nn.Module) -> None:
        """Moves the weights towards the student's; call it after the optimizer's step.

        Args:
            model: the student.
        """
        self._averaged.update_parameters(model)

    @contextmanager
    def teaching(self) -> Iterator[nn.Module]:
        """Yields the averaged model in the teacher's mode and without gradients.

        Example:
            >>> teacher = EMATeacher(nn.Dropout(0.5), mode="eval")
            >>> with teacher.teaching() as model:
            ...     model(torch.ones(2))
            tensor([1., 1.])
        """
        self.model.train(self.mode == "train")
        with torch.no_grad():
            yield self.model

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Returns the output of the averaged model, in the teacher's mode, without gradients."""
        with self.teaching() as model:
            return model(*arguments, **options)

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the weights, as `module.<name>`, and the counter `n_averaged`."""
        return dict(self._averaged.state_dict())

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Takes over what `state_dict` gave.

        Args:
            state: what `state_dict` returned.

        Raises:
            RuntimeError: it belongs to another model.
        """
        self._averaged.load_state_dict(state)

    def _average(self, averaged: Tensors, current: Tensors, count: Tensor | int) -> None:
        n = int(count)
        torch._foreach_lerp_(averaged, current, 1 - min(self.decay, (1 + n) / (10 + n)))
