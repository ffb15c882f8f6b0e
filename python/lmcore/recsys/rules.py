"""How interactions are split into training, validation and test."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal

from lmcore.training.config import Between, check_fields

__all__ = ["SplitRule", "parse_time"]

_RULES = ("leave-one-out", "leave-last", "time")
_OF_TIME = ("valid_from", "test_from", "valid_quantile", "test_quantile")
_MOST = 2**31 - 1

DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]{1,18})?")
"""A date as numpy reads it; of other texts it reads `now`."""

# What a date and a time end with where they say no more than without it.
_ZEROS = re.compile(r"(?<=-[0-9]{2})[T ]00:00:00(\.0+)?$|(?<=:[0-9]{2})\.0+$")


@dataclass(kw_only=True, slots=True, frozen=True)
class SplitRule:
    """How interactions are split; each rule has its own fields.

    Args:
        by: `leave-one-out`: each user's last item is for testing and the one before it for
            validation; `leave-last`: the last N and the N before them; `time`: what lies from
            `test_from` on, and what lies from `valid_from` on and before that.
        last: N of `leave-last`.
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
    last: Annotated[int | None, Between(1, _MOST)] = None
    valid_from: int | float | str | None = None
    test_from: int | float | str | None = None
    valid_quantile: Annotated[float | None, Between(0, 1, open_low=True, open_high=True)] = None
    test_quantile: Annotated[float | None, Between(0, 1, open_low=True, open_high=True)] = None
    cold_items: Literal["keep", "drop"] | None = None

    def __post_init__(self) -> None:
        if self.by not in _RULES:
            raise ValueError(f"split must be by one of {', '.join(_RULES)}: got {self.by!r:.60}")
        check_fields(self)
        if self.by == "leave-last" and self.last is None:
            raise ValueError("last must be given where items are split by leave-last")
        own: dict[str, tuple[str, ...]] = {"leave-last": ("last",), "time": _OF_TIME}
        for name in ("last", *_OF_TIME):
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
        return 2 * (self.last or 1) + 1

    def describe(self) -> str:
        """Returns the fields that say something, as one text, dates without zeros at their end.

        Example:
            >>> SplitRule(by="leave-last", last=3).describe()
            'by leave-last, last 3, cold_items keep'
            >>> SplitRule(by="time", valid_from="2020-01-03T12:00:00.000").describe()
            'by time, valid_from 2020-01-03T12:00:00, cold_items drop'
        """
        fields = self.to_dict().items()
        return ", ".join(f"{name} {_ZEROS.sub('', str(value))}" for name, value in fields)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields that say something.

        Example:
            >>> SplitRule(by="leave-last", last=3).to_dict()
            {'by': 'leave-last', 'last': 3, 'cold_items': 'keep'}
        """
        return {name: value for name, value in asdict(self).items() if value is not None}


def parse_time(name: str, text: str) -> int | float | str:
    """Returns a time of a command line: a number, or a date as a text.

    Args:
        name: of what is given, for errors.
        text: digits with a decimal point or without, or a date in ISO form.

    Raises:
        ValueError: it is neither.

    Example:
        >>> parse_time("test_from", "892000000"), parse_time("test_from", "2014-07-01")
        (892000000, '2014-07-01')
    """
    if re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        return int(text)
    if re.fullmatch(r"[+-]?[0-9]{1,19}\.[0-9]{1,19}", text):
        return float(text)
    if not DATE.fullmatch(text):
        raise ValueError(f"{name} must be a number or a date such as 2014-07-01: got {text!r:.60}")
    return text
