"""An exponential moving average of weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


class WeightAverage:
    """A moving average in float32 of parameters of any type, sharded or not.

    It starts as a copy of them. Update n (1, 2, ...) is `w <- d_n w + (1 - d_n) parameter`, where
    d_n is `decay`, or `min(decay, (1 + n) / (10 + n))` with the ramp. In bfloat16 the average
    would stand still: a step of a thousandth of the distance is below its last digit.

    Args:
        parameters: of the model; they are read at every update.
        decay: the limit of d, in [0, 1].
        ramp: whether the first updates move it faster.

    Raises:
        ValueError: `decay` is out of its range.

    Example:
        >>> weight = nn.Parameter(torch.zeros(1, dtype=torch.bfloat16))
        >>> average = WeightAverage([weight], decay=0.999)
        >>> _ = nn.init.ones_(weight)
        >>> average.update()
        >>> round(average.values[0].item(), 4), average.update_count
        (0.8182, 1)
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], decay: float, *, ramp: bool = True
    ) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay must be in [0, 1]: got {decay}")
        self.decay = decay
        self.ramp = ramp
        self.update_count = 0
        self._parameters = list(parameters)
        self.values: list[Tensor] = [
            p.detach().to(torch.float32, copy=True) for p in self._parameters
        ]
        """The averages, as the parameters lie: `[...]` float32 each."""

    @torch.no_grad()
    def update(self) -> None:
        """Moves the average towards the parameters; call it after the optimizer's step.

        Nothing waits for a GPU: the counter is a number of this process.
        """
        if not self._parameters:
            return
        self.update_count += 1
        n = self.update_count
        decay = min(self.decay, (1 + n) / (10 + n)) if self.ramp else self.decay
        # The part of a sharded tensor that lies here moves by itself.
        averages = [_local(value) for value in self.values]
        current = [_local(p.detach()).to(torch.float32) for p in self._parameters]
        torch._foreach_lerp_(averages, current, 1 - decay)

    @contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[nn.Module]:
        """Yields the model with the averages as its parameters, which come back afterwards.

        Args:
            model: whose parameters these are, in the same order.

        Raises:
            ValueError: it has other parameters.

        Example:
            >>> layer = nn.Linear(1, 1, bias=False)
            >>> average = WeightAverage(layer.parameters(), decay=0.9)
            >>> with torch.no_grad():
            ...     _ = layer.weight.add_(1)
            >>> with average.swapped_into(layer):
            ...     inside = layer.weight.item()
            >>> round(layer.weight.item() - inside, 4)
            1.0
        """
        own = [p for p in model.parameters() if any(p is mine for mine in self._parameters)]
        if len(own) != len(self._parameters):
            raise ValueError("the model must hold the parameters that are averaged")
        kept = [_local(p.detach()).clone() for p in self._parameters]
        self._write(self.values)
        try:
            yield model
        finally:
            self._write(kept)

    def write(self) -> None:
        """Writes the averages into the parameters, for good."""
        self._write(self.values)

    def state_dict(self) -> dict[str, Any]:
        """Returns the averages, in the order of the parameters, and the number of updates."""
        return {"values": list(self.values), "update_count": self.update_count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Args:
            state: what `state_dict` returned.

        Raises:
            ValueError: it is none, or one of other parameters.
        """
        values, count = state["values"], state["update_count"]
        if not isinstance(values, list) or len(values) != len(self.values):
            raise ValueError(f"an average must hold {len(self.values)} tensors")
        if type(count) is not int or count < 0:
            raise ValueError(f"update_count must be a number of updates: got {count!r:.100}")
        for index, (own, value) in enumerate(zip(self.values, values, strict=True)):
            fits = isinstance(value, Tensor) and value.dtype == torch.float32
            if not fits or value.shape != own.shape:
                got = f"{list(value.shape)} {value.dtype}" if isinstance(value, Tensor) else value
                raise ValueError(
                    f"average {index} must be {list(own.shape)} torch.float32: got {got!s:.100}"
                )
        with torch.no_grad():
            for own, value in zip(self.values, values, strict=True):
                own.copy_(value)
        self.update_count = count

    @torch.no_grad()
    def _write(self, values: Iterable[Tensor]) -> None:
        for parameter, value in zip(self._parameters, values, strict=True):
            _local(parameter.detach()).copy_(_local(value))


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
