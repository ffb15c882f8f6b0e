"""What a loop keeps an eye on: values of steps, numbers that are not finite, time, Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor

from lmcore.training.processes import Processes

# Steps are below this; a bad one travels as the distance from it, of which the largest wins.
_MOST_STEPS = 1 << 41


class Window:
    """Values of the steps since the last line of the log, kept on their device until it is asked.

    Args:
        processes: over which values are averaged.
        unit: the value that is added up and given per second; None: none.

    Example:
        >>> window = Window(Processes(), None)
        >>> for loss in (1.0, 2.0):
        ...     window.add({"loss": torch.tensor(loss), "hard": torch.tensor(3)})
        >>> window.read()
        {'loss': 1.5, 'hard': 3, 'seconds': 0.0}
    """

    def __init__(self, processes: Processes, unit: str | None) -> None:
        self.processes, self.unit = processes, unit
        self.seconds = 0.0
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}
        self._last: dict[str, Tensor] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Takes note of what a step returned.

        Args:
            values: scalars without a graph.

        Raises:
            ValueError: a value is no scalar.
        """
        for name, value in values.items():
            if value.ndim:
                raise ValueError(f"{name} of a step must be a scalar: got {list(value.shape)}")
            if not value.is_floating_point() and name != self.unit:
                self._last[name] = value.detach()
                continue
            value = value.detach().double()
            known = self._sums.get(name)
            # Adding on the device: no step waits for its loss.
            self._sums[name] = value if known is None else known + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, Any]:
        """Returns what a line of the log says; every process calls it."""
        found: dict[str, Any] = {}
        for name, total in self._sums.items():
            if name == self.unit:
                count = round(float(self.processes.sum(self._copy(total))))
                found[name] = count
                if self.seconds > 0:
                    found[f"{name}_per_second"] = round(count / self.seconds, 1)
            else:
                found[name] = float(self.processes.mean(self._copy(total))) / self._counts[name]
        found |= {name: value.item() for name, value in self._last.items()}
        if found or self.seconds:
            found["seconds"] = round(self.seconds, 3)
        return found

    def _copy(self, total: Tensor) -> Tensor:
        """A sum where processes can exchange it."""
        return total.to(self.processes.device, copy=True)

    def clear(self) -> None:
        """Begins anew, after a line was written."""
        self.seconds = 0.0
        self._sums, self._counts, self._last = {}, {}, {}

    def state_dict(self) -> dict[str, Any]:
        """Returns the values so far."""
        # Sums are of one process each; the state is the first one's.
        combine = {self.unit: self.processes.sum}
        sums = {
            name: combine.get(name, self.processes.mean)(self._copy(total))
            for name, total in self._sums.items()
        }
        return {
            "sums": {name: float(total) for name, total in sums.items()},
            "counts": dict(self._counts),
            "last": {name: value.item() for name, value in self._last.items()},
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over what `state_dict` gave.

        Args:
            state: what it returned.

        Raises:
            ValueError: it is none.
        """
        sums, counts, last = state["sums"], state["counts"], state["last"]
        if set(sums) != set(counts) or not all(type(c) is int and c > 0 for c in counts.values()):
            raise ValueError("window must have a count for each sum")
        if not all(type(v) is float and math.isfinite(v) for v in sums.values()):
            raise ValueError("window must hold numbers that are finite")
        place = self.processes.device
        self._sums = {
            name: torch.tensor(value, dtype=torch.float64, device=place)
            / (self.processes.data_count if name == self.unit else 1)
            for name, value in sums.items()
        }
        self._counts = dict(counts)
        self._last = {name: torch.tensor(value) for name, value in last.items()}
        self.seconds = float(state["seconds"])


class Watch:
    """Looks now and then, in all processes at the same step, at what must not go on unseen.

    One process looks after each step on a CPU; a GPU, or other processes, are asked about once a
    second, so that no step waits for them.

    Args:
        processes: which look together.
        save_every_seconds: after which a state is wanted.

    Example:
        >>> watch = Watch(Processes(), 60.0)
        >>> watch.add(1, {"loss": torch.tensor(float("nan"))})
        >>> watch.look(1, False)
        Traceback (most recent call last):
        FloatingPointError: loss of step 1 is not finite; a smaller lr may help
    """

    def __init__(self, processes: Processes, save_every_seconds: float) -> None:
        self.processes, self.save_every_seconds = processes, save_every_seconds
        self._alone = processes.count == 1 and processes.device.type == "cpu"
        self._bad: Tensor | None = None
        self._names: tuple[str, ...] = ()
        self._next, self._last = 1, 0
        self._looked = self._saved = time.monotonic()

    def add(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Takes note of the first step of which a value is not finite.

        Args:
            step: of the run, from 1.
            values: what it returned.
        """
        names = tuple(name for name, value in values.items() if value.is_floating_point())
        if not names:
            return
        self._names = names
        finite = values[names[0]].detach().isfinite()
        for name in names[1:]:
            finite = finite & values[name].detach().isfinite()
        now = torch.where(finite, 0, _MOST_STEPS - step)
        self._bad = now if self._bad is None else torch.maximum(self._bad, now)

    def is_due(self, step: int) -> bool:
        """Whether it is time to look, in all processes.

        Args:
            step: of the run, from 1.
        """
        return self._alone or step >= self._next

    def look(self, step: int, interrupted: bool) -> tuple[bool, bool]:
        """Returns whether a state is wanted, and whether any process was interrupted.

        Args:
            step: of the run, from 1.
            interrupted: whether this process was.

        Raises:
            FloatingPointError: a value was not finite.
        """
        now = time.monotonic()
        bad = 0 if self._bad is None else int(self._bad)
        late = now - self._saved >= self.save_every_seconds
        pace = (now - self._looked) / max(step - self._last, 1)
        found = [float(bad), float(interrupted), float(late), pace]
        if self.processes.count > 1:
            place = self.processes.device
            found = self.processes.largest(
                torch.tensor(found, dtype=torch.float64, device=place)
            ).tolist()
        self._looked, self._last = now, step
        self._next = step + max(1, min(1000, int(1 / max(found[3], 1e-3))))
        if found[0]:
            names = " or ".join(self._names or ("a value",))
            raise FloatingPointError(
                f"{names} of step {_MOST_STEPS - int(found[0])} is not finite; a smaller lr may "
                "help"
            )
        return bool(found[2]), bool(found[1])

    def saved(self) -> None:
        """Takes note that a state was saved."""
        self._saved = time.monotonic()


class Interrupts:
    """Ctrl-C while a loop runs: it waits for the end of a step, a second one does not.

    It acts in the main thread, and where Ctrl-C raises; whoever ignores it, or has it end the
    process, keeps that.

    Example:
        >>> with Interrupts() as interrupts:
        ...     interrupts.count
        0
    """

    def __init__(self) -> None:
        self.count = 0
        self._before: Any = None
        self._at_once = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            before = signal.getsignal(signal.SIGINT)
            if callable(before):
                self._before = before
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # What it was answered with may have set another handler, which stays.
        if self._before is not None and signal.getsignal(signal.SIGINT) == self._handle:
            signal.signal(signal.SIGINT, self._before)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Yields while Ctrl-C does not wait.

        Raises:
            KeyboardInterrupt: there was one already.
        """
        self._at_once = True
        try:
            self.answer()
            yield
        finally:
            self._at_once = False

    def answer(self) -> None:
        """Does what Ctrl-C would have done, if there was one.

        Raises:
            KeyboardInterrupt: as the handler before this one does.
        """
        if self.count and self._before is not None:
            self.count = 0
            self._before(signal.SIGINT, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        if self._at_once or self.count > 1:
            self.count = 0
            self._before(number, frame)
