"""How much a recovered model learns from the unpruned one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from lmcore.training.config import Between, check_fields


@dataclass(kw_only=True, slots=True, frozen=True)
class DistillationConfig:
    """Settings of distillation: the loss of a label is (1 - w) cross-entropy + w divergence.

    Source: Hinton et al. (arXiv 1503.02531), section 2; OpenBA-V2 has no distillation.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> DistillationConfig(weight=0.25).scales
        (0.75, 0.25)
    """

    temperature: Annotated[float, Between(1e-3, 1e3)] = 1.0
    """Both distributions are those of logits over this; the divergence is times its square."""
    weight: Annotated[float, Between(0, 1)] = 0.5
    """Share of the divergence from the teacher; the rest is that of the labels."""
    hidden_weight: Annotated[float, Between(0, 1e30)] = 0.0
    """Of the distance of states in chosen layers, which is added; 0: none is computed."""

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def scales(self) -> tuple[float, float]:
        """What cross-entropy and divergence count."""
        return 1 - self.weight, self.weight
