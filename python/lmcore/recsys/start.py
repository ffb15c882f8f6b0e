"""When mining starts (UFNRec): a rule that is asked in every step, and a switch that stays on."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from lmcore._text import count_noun

__all__ = ["EpochLossStart", "StartRule", "StartSwitch", "StepStart"]


class StartRule(Protocol):
    """Says when mining starts."""

    def is_reached(self, epoch: int, step: int, epoch_loss_sums: Sequence[float]) -> bool:
        """Returns whether mining starts now; see `StartSwitch.update`."""


@dataclass(slots=True, frozen=True)
class EpochLossStart:
    """The authors' rule: the loss of the last epoch fell by little.

    In epoch e, with loss sums S of the finished epochs: e is at least 9, and S[e-2] - S[e-1]
    is below (S[1] - S[6]) / 200, half a percent of what the first five improvements came to.
    It counts epochs: where an epoch is a few steps, it fires long before the model has
    learned anything, and `StepStart` is the better choice.

    Source: UFNRec (arXiv 2208.04116), the authors' `main.py`.

    Example:
        >>> sums = [9.0, 6.0, 4.0, 3.0, 2.5, 2.2, 2.1, 2.095]
        >>> EpochLossStart().is_reached(9, 1, sums), EpochLossStart().is_reached(8, 1, sums)
        (True, False)
    """

    def is_reached(self, epoch: int, step: int, epoch_loss_sums: Sequence[float]) -> bool:
        """Returns whether mining starts now.

        Args:
            epoch: e, from 1.
            step: not used.
            epoch_loss_sums: S, the loss sums of epochs 1 to e - 1 at least.

        Raises:
            ValueError: `epoch` is below 1, or sums are missing.

        Example:
            >>> EpochLossStart().is_reached(1, 1, [])
            False
        """
        if epoch < 1 or len(epoch_loss_sums) < epoch - 1:
            raise ValueError(
                f"epoch_loss_sums must hold the epochs before epoch {epoch}, counted from 1: got "
                f"{len(epoch_loss_sums)}"
            )
        if epoch < 9:
            return False
        last_gain = epoch_loss_sums[epoch - 3] - epoch_loss_sums[epoch - 2]
        return last_gain < (epoch_loss_sums[0] - epoch_loss_sums[5]) / 200

    def explain(self, step: int, epoch_loss_sums: Sequence[float]) -> str:
        """Returns when mining would start and how far training is, in words.

        Args:
            step: not used.
            epoch_loss_sums: S, the loss sums of the finished epochs.

        Example:
            >>> EpochLossStart().explain(700, [9.0, 6.0])
            'in epoch 9 or later, after one whose loss fell by little; 2 epochs are done'
        """
        done = len(epoch_loss_sums)
        if done < 8:
            rule = "in epoch 9 or later, after one whose loss fell by little"
            return f"{rule}; {_say_done(done, 'epoch')}"
        gain = epoch_loss_sums[-2] - epoch_loss_sums[-1]
        least = (epoch_loss_sums[0] - epoch_loss_sums[5]) / 200
        rule = f"after an epoch whose loss fell by less than {least:.4g}"
        return f"{rule}; that of epoch {done} fell by {gain:.4g}"


@dataclass(slots=True, frozen=True)
class StepStart:
    """Mining starts when that many steps are done: a warm-up.

    Args:
        step: global number of steps, counted from 1; 0 and 1 start with the first.

    Raises:
        TypeError: `step` is no int.
        ValueError: `step` is below 0.

    Example:
        >>> StepStart(1_000).is_reached(3, 999, []), StepStart(1_000).is_reached(3, 1_000, [])
        (False, True)
    """

    step: int

    def __post_init__(self) -> None:
        try:
            operator.index(self.step)
        except TypeError:
            raise TypeError(f"step must be an int: got {type(self.step).__name__}") from None
        if self.step < 0:
            raise ValueError(f"step must be at least 0: got {self.step}")

    def is_reached(self, epoch: int, step: int, epoch_loss_sums: Sequence[float]) -> bool:
        """Returns whether mining starts now.

        Args:
            epoch: not used.
            step: global number of the step that ends now, from 1.
            epoch_loss_sums: not used.

        Example:
            >>> StepStart(0).is_reached(1, 1, [])
            True
        """
        return step >= self.step

    def explain(self, step: int, epoch_loss_sums: Sequence[float]) -> str:
        """Returns when mining would start and how far training is, in words.

        Args:
            step: steps that are done.
            epoch_loss_sums: not used.

        Example:
            >>> StepStart(1_000).explain(700, [])
            'with step 1000; 700 steps are done'
            >>> StepStart(1_000).explain(1, [])
            'with step 1000; 1 step is done'
        """
        return f"with step {self.step}; {_say_done(step, 'step')}"


def _say_done(count: int, noun: str) -> str:
    return f"{count_noun(count, noun)} {'is' if count == 1 else 'are'} done"


class StartSwitch:
    """Whether mining, and the teacher that goes with it, have started; once on it stays on.

    Args:
        rule: says when; None: it is on from the beginning.

    Raises:
        TypeError: `rule` has no `is_reached`.

    Example:
        >>> switch = StartSwitch(StepStart(2))
        >>> switch.update(1, 1, []), switch.update(1, 2, []), switch.on
        (False, True, True)
    """

    def __init__(self, rule: StartRule | None = None) -> None:
        if rule is not None and not callable(getattr(rule, "is_reached", None)):
            raise TypeError(f"start must have is_reached, or be None: got {type(rule).__name__}")
        self.rule = rule
        self.on = rule is None

    def update(self, epoch: int, step: int, epoch_loss_sums: Sequence[float]) -> bool:
        """Returns whether the switch is on, after asking the rule once if it is not.

        Args:
            epoch: number of the epoch, from 1.
            step: global number of the step that ends now, from 1.
            epoch_loss_sums: loss sums of the finished epochs.

        Raises:
            ValueError: the sums are not those that the rule needs.

        Example:
            >>> StartSwitch().update(1, 1, [])
            True
        """
        if not self.on and self.rule is not None:
            self.on = self.rule.is_reached(epoch, step, epoch_loss_sums)
        return self.on
