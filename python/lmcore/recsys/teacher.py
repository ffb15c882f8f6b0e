"""The teacher of UFNRec: a model whose weights follow a student's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from lmcore.training.average import WeightAverage

MODES = ("train", "eval")


class EMATeacher:
    """A teacher whose weights follow a student's.

    It starts as a copy of the student.  Update n (1, 2, ...) is
    `w <- d_n w + (1 - d_n) student` with `d_n = min(decay, (1 + n) / (10 + n))`, over all
    parameters, in float32; buffers stay as they were copied.

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
        >>> teacher.update()
        >>> round(teacher.model.weight.item(), 4), teacher.update_count
        (0.8182, 1)
    """

    def __init__(self, model: nn.Module, *, decay: float = 0.999, mode: str = "train") -> None:
        if mode not in MODES:
            raise ValueError(f"mode must be one of {', '.join(MODES)}: got {mode!r}")
        self.mode = mode
        self.model = deepcopy(model).requires_grad_(False)
        """The averaged model, for evaluation and for saving."""
        self._average = WeightAverage(model.parameters(), decay)
        for parameter, value in zip(self.model.parameters(), self._average.values, strict=True):
            if parameter.dtype == value.dtype:
                parameter.data = value  # the average is the teacher's weight; no copy is needed
            parameter.grad = None

    @property
    def decay(self) -> float:
        """The limit of the ramp."""
        return self._average.decay

    @property
    def update_count(self) -> int:
        """How many updates there were, n."""
        return self._average.update_count

    def update(self) -> None:
        """Moves the weights towards the student's; call it after the optimizer's step."""
        self._average.update()
        self._copy()

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

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, the buffers and the number of updates."""
        return {**self._average.state_dict(), "buffers": dict(self.model.named_buffers())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: it is none, or belongs to another model.
        """
        buffers, own = state["buffers"], dict(self.model.named_buffers())
        if not isinstance(buffers, Mapping) or set(buffers) != set(own):
            raise ValueError(f"buffers must be those of {len(own)} names")
        self._average.load_state_dict(state)
        for name, buffer in own.items():
            buffer.copy_(buffers[name])
        self._copy()

    @torch.no_grad()
    def _copy(self) -> None:
        """Writes the averages into weights of another type."""
        for parameter, value in zip(self.model.parameters(), self._average.values, strict=True):
            if parameter.dtype != value.dtype:
                parameter.copy_(value)
