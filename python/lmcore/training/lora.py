"""Settings of low-rank matrices, which are trained in the place of a model's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from lmcore.training.config import Between, check_fields


@dataclass(kw_only=True, slots=True, frozen=True)
class LoraConfig:
    """Low-rank matrices that are trained in the place of the model's own (LoRA, by peft).

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a text is none of the choices.

    Example:
        >>> LoraConfig(rank=8).alpha
        16.0
    """

    rank: Annotated[int, Between(0, 65_536)] = 0
    """Of the matrices; 0: the whole model is trained."""
    alpha: Annotated[float, Between(0, 1e30, open_low=True)] = 16.0
    """The product of the matrices is multiplied with alpha / rank."""
    dropout: Annotated[float, Between(0, 1, open_high=True)] = 0.0
    """Of what the matrices read."""
    targets: tuple[str, ...] | None = None
    """Names of the linear layers that get matrices, such as `q` and `v`; None: those that peft
    knows for the kind of model."""
    save: Literal["merged", "adapter"] = "merged"
    """What a saved model is: a whole one with the matrices added in, or the matrices alone, which
    need the model that they were trained for."""

    def __post_init__(self) -> None:
        check_fields(self)
