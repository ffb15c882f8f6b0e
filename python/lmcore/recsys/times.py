"""Times of interactions: numbers or ISO dates, never both in one column."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__: list[str] = []

# Python's `int` and `float` also read `1_0`, digits of other scripts, `nan` and `infinity`.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,9})?")
_NUMBER_CHARACTERS = frozenset("0123456789+-.eE")
_NOT_FINITE = ("nan", "inf", "infinity")
_DATE = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?:[T ]([0-9]{2}:[0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_DATES = ("date", "date with a zone")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST_YEAR, LAST_YEAR = 1678, 2261
"""Years that nanoseconds in 64 bits hold, as datetime64[ns] does."""


class Times(NamedTuple):
    """Times of rows, as what sorts them and as what they are."""

    order: NDArray[np.int64]
    """`[R]`: equal only where the times are, and in their order."""
    values: NDArray[Any] | None
    """Times by rank, where `order` holds ranks; None where it holds the times themselves."""
    kind: str
    """`int64`, `float64` or `datetime64[ns]`: what the times are."""

    def restore(self, order: NDArray[np.int64]) -> NDArray[Any]:
        """Returns the times that stand in `order`: int64, float64 or datetime64[ns]."""
        if self.values is not None:
            return self.values[order]
        if self.kind == "float64":
            return _from_bits(order)
        return order.view("datetime64[ns]") if self.kind == "datetime64[ns]" else order

    def take(self, rows: NDArray[Any]) -> Times:
        """Returns the times at these places."""
        return self._replace(order=self.order[rows])


def time_problem(value: str, kind: str | None, *, takes_dates: bool) -> str | None:
    """Returns what is wrong with a time, behind the name of its column; None if nothing is.

    Args:
        value: as it stands in the file.
        kind: of the times before it, as `time_kind` says; None for the first.
        takes_dates: whether it may be a date.
    """
    own = time_kind(value)
    if own == "number":
        if not math.isfinite(float(value)):
            return f"must be finite: got {shorten(value)}"
    elif value.lower().lstrip("+-") in _NOT_FINITE:
        return f"must be finite: got {shorten(value)}"
    elif not takes_dates:
        return f"must be a number: got {shorten(value)!r}"
    elif own is None:
        return f"must be a number or a date like 2026-01-31 12:00:00: got {shorten(value)!r}"
    else:
        try:
            _to_nanoseconds(value)
        except ValueError as error:
            return (
                f"must be a date that exists, from 1678 to 2261: got {shorten(value)!r} ({error})"
            )
    if kind is not None and own != kind:
        # A date without a zone is said to be one where the other has it.
        names = {"date": "date without a zone"} if "date with a zone" in (kind, own) else {}
        before, now = names.get(kind, kind), names.get(own or "", own)
        return f"must be a {before} as in the rows before: got {shorten(value)!r}, a {now}"
    return None


def time_kind(value: str) -> str | None:
    """Returns what a time is: a number, a date, a date with a zone, or None."""
    if _NUMBER.fullmatch(value):
        return "number"
    found = _DATE.fullmatch(value)
    if found is None:
        return None
    return "date with a zone" if found[5] else "date"


def to_times(values: Sequence[str], *, takes_dates: bool = False) -> Times:
    """Returns the times of texts that `time_problem` finds nothing wrong with.

    Numbers are int64 where all are whole and fit; else float64, which keeps fifteen digits apart;
    else the ranks of the exact values.

    Raises:
        ValueError: a text is none of these times, or they are of mixed kinds.
    """
    if takes_dates and time_kind(values[0]) in _DATES:
        if len({time_kind(value) for value in values}) > 1:
            raise ValueError("times of mixed kinds")
        dates = np.array([_to_nanoseconds(value) for value in values], dtype=np.int64)
        return Times(dates, None, "datetime64[ns]")
    if not _NUMBER_CHARACTERS.issuperset("".join(values)):
        raise ValueError("a time is no number")
    try:
        return Times(np.array([int(value) for value in values], dtype=np.int64), None, "int64")
    except (ValueError, OverflowError):
        pass
    times = np.array([float(value) for value in values], dtype=np.float64)
    if not np.isfinite(times).all():
        raise ValueError("a time is not finite")
    sizes = np.abs(times[times != 0])
    vanished = any(_count_digits(values[index]) for index in np.flatnonzero(times == 0).tolist())
    digits = max(map(_count_digits, values))
    if digits <= 15 and sizes.min(initial=1.0) > 1e-300 and not vanished:
        return to_float_times(times)
    if not all(map(_NUMBER.fullmatch, values)):
        raise ValueError("a time has another form")
    exact = {text: Decimal(text) for text in set(values)}
    known = sorted(set(exact.values()))
    ranks = {value: rank for rank, value in enumerate(known)}
    order = np.array([ranks[exact[value]] for value in values], dtype=np.int64)
    return Times(order, np.array([float(value) for value in known]), "float64")


def to_float_times(times: NDArray[np.float64]) -> Times:
    """Returns finite float64 times: whole numbers in the same order stand for them."""
    bits = (times + 0.0).view(np.int64)  # there is one zero
    return Times(bits ^ (bits >> 63 & np.int64(0x7FFF_FFFF_FFFF_FFFF)), None, "float64")


def take_times(values: NDArray[Any]) -> Times:
    """Returns the times of an array of finite int64, float64 or datetime64[ns].

    Example:
        >>> times = take_times(np.array(["1970-01-02"], dtype="datetime64[ns]"))
        >>> times.kind, times.restore(times.order)[0].astype("datetime64[D]").item().day
        ('datetime64[ns]', 2)
    """
    if values.dtype.kind == "f":
        return to_float_times(values)
    return Times(values.view(np.int64), None, str(values.dtype))


def shorten(value: str, most: int = 40) -> str:
    """Returns a text of a file as errors show it."""
    return value if len(value) <= most else value[:most] + "..."


def _from_bits(order: NDArray[np.int64]) -> NDArray[np.float64]:
    return (order ^ (order >> 63 & np.int64(0x7FFF_FFFF_FFFF_FFFF))).view(np.float64)


def _to_nanoseconds(value: str) -> int:
    """Nanoseconds since 1970 of a date; one without a zone is taken as if it were in UTC."""
    found = _DATE.fullmatch(value)
    if found is None:
        raise ValueError("no date")
    day, minute, second, fraction, zone = found.groups()
    zone = "+00:00" if zone in (None, "Z") else zone
    moment = datetime.fromisoformat(f"{day}T{minute or '00:00'}:{second or '00'}{zone}")
    if not FIRST_YEAR <= moment.year <= LAST_YEAR:
        raise ValueError("the year is out of range")
    whole = moment - _EPOCH
    return (whole.days * 86400 + whole.seconds) * 10**9 + int((fraction or "0").ljust(9, "0"))


def _count_digits(number: str) -> int:
    """Digits of a number in ASCII, without leading zeros and the exponent."""
    digits = number.lower().partition("e")[0].replace(".", "")
    return len(digits.lstrip("+-0"))
