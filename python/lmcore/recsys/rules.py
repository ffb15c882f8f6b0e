"""How interactions are split into training, validation and test."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from lmcore.training.config import Between, check_fields

__all__ = ["SplitRule"]

_MOST = 2**31 - 1


@dataclass(kw_only=True, slots=True, frozen=True)
class SplitRule:
    """How interactions are split; each rule has its own fields.

    Args:
        by: `leave-one-out`: each user's last item is for testing and the one before it for
            validation; `leave-last`: the last `count` and the `count` before them; `time`: what
            lies from `test_from` on, and what lies from `valid_from` on and before that.
        count: N of `leave-last`.
        valid_from: a time as in the data; None: the quantile. A date is a text in ISO form.
        test_from: like `valid_from`.
        valid_quantile: the share of all interactions that lie before validation; 0.8 where
            `valid_from` does not say.
        test_quantile: the share of all interactions that lie before the test; 0.9 where
            `test_from` does not say.
        cold_items: whether targets that no one has in the training part are kept, so that they
            count as missed by whatever cannot know them, or dropped. By default `time` drops
            them, and the others keep them.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, a text is none of the choices, or a field is
            given that the rule has not.

    Example:
        >>> SplitRule(by="time").cold_items, SplitRule().cold_items
        ('drop', 'keep')
    """

    by: Literal["leave-one-out", "leave-last", "time"] = "leave-one-out"
    count: Annotated[int | None, Between(1, _MOST)] = None
    valid_from: int | float | str | None = None
    test_from: int | float | str | None = None
    valid_quantile: Annotated[float | None, Between(0, 1, open_low=True, open_high=True)] = None
    test_quantile: Annotated[float | None, Between(0, 1, open_low=True, open_high=True)] = None
    cold_items: Literal["keep", "drop"] | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.by == "leave-last" and self.count is None:
            raise ValueError("count must be given where items are split by leave-last")
        own: dict[str, tuple[str, ...]] = {"leave-last": ("count",), "time": _OF_TIME}
        for name in ("count", *_OF_TIME):
            if getattr(self, name) is not None and name not in own.get(self.by, ()):
                raise ValueError(f"{name} is not for a split by {self.by}")
        for part in ("valid", "test"):
            if None not in (getattr(self, f"{part}_from"), getattr(self, f"{part}_quantile")):
                raise ValueError(f"{part}_from and {part}_quantile say the same: give one of them")
        if self.cold_items is None:
            object.__setattr__(self, "cold_items", "drop" if self.by == "time" else "keep")

    @property
    def least(self) -> int:
        """Fewest items of a user who gets targets, where the rule counts them."""
        return 2 * (self.count or 1) + 1

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that say something.

        Example:
            >>> SplitRule(by="leave-last", count=3).to_dict()
            {'by': 'leave-last', 'count': 3, 'cold_items': 'keep'}
        """
        return {name: value for name, value in asdict(self).items() if value is not None}


_OF_TIME = ("valid_from", "test_from", "valid_quantile", "test_quantile")
