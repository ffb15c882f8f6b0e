"""What a smaller model shall come down to, in place of its sizes.

| target | what is bounded |
| --- | --- |
| `params=3.4e9` | distinct parameters: one table for embedding and output layer |
| `memory_mb=8000` | megabytes (10^6) of weights, and of keys and values of a decoded batch |
| `ms_per_token=20` | milliseconds of each token after the first, measured on the device at hand |

A share of what the model has is a target, too: `params=25%`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from lmcore.cost import Shape, count_cache_bytes, count_parameters
from lmcore.cost.parameters import BYTES, parameter_bytes
from lmcore.cost.shapes import MOST

KINDS = ("params", "memory_mb", "ms_per_token")
_UNITS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9, "T": 10**12}
_NUMBER = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,20})?)(e[+]?[0-9]{1,2})?([KMBT]?)(%?)", re.I)
_MOST_VALUE = 1e18


@dataclass(kw_only=True, slots=True, frozen=True)
class Target:
    """What a model shall have at most.

    Raises:
        TypeError: the value is no number.
        ValueError: there is no such kind, or the value is out of its range.

    Example:
        >>> Target(kind="params", value=3.4e9)
        Target(kind='params', value=3400000000.0, is_share=False)
    """

    kind: str
    """One of `KINDS`."""
    value: float
    """In the kind's unit; where it is a share, above 0 and below 1."""
    is_share: bool = False
    """Whether the value is a share of what the model has before."""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"target must be one of {', '.join(KINDS)}: got {self.kind!r:.60}")
        if isinstance(self.value, bool) or not isinstance(self.value, int | float):
            raise TypeError(f"{self.kind} must be a number: got {self.value!r:.60}")
        if self.is_share and not 0 < self.value < 1:
            raise ValueError(f"{self.kind} must be between 0% and 100%: got {self.value * 100:g}%")
        if not (math.isfinite(self.value) and 0 < self.value <= _MOST_VALUE):
            raise ValueError(
                f"{self.kind} must be above 0 and at most {_MOST_VALUE:g}: got {self.value:g}"
            )


@dataclass(kw_only=True, slots=True, frozen=True)
class Conditions:
    """Under which memory is counted and time measured.

    Raises:
        ValueError: a number is out of its range, or there is no such type.

    Example:
        >>> Conditions(batch_size=4).dtype
        'bfloat16'
    """

    dtype: str = "bfloat16"
    """Of weights, keys and values: a key of `lmcore.cost.parameters.BYTES`."""
    batch_size: int = 1
    """Rows whose keys and values are kept."""
    source_tokens: int = 512
    """That an encoder reads; a decoder alone reads them before its own."""
    target_tokens: int = 512
    """That are generated."""
    prompt_tokens: int = 128
    """That are read where time is measured."""
    new_tokens: int = 32
    """That are generated there."""
    repeats: int = 3
    """Of which times are medians."""
    device: str = "auto"
    """Where time is measured."""

    def __post_init__(self) -> None:
        if self.dtype not in BYTES:
            raise ValueError(f"dtype must be one of {', '.join(BYTES)}: got {self.dtype!r:.60}")
        least = {"new_tokens": 2, "source_tokens": 0}
        for name in ("batch_size", "source_tokens", "target_tokens", "prompt_tokens",
                     "new_tokens", "repeats"):  # fmt: skip
            if not least.get(name, 1) <= getattr(self, name) <= MOST:
                low = least.get(name, 1)
                raise ValueError(f"{name} must be from {low} to {MOST}: got {getattr(self, name)}")


def parse_target(text: str) -> Target:
    """Returns the target that a text says.

    Args:
        text: `KIND=VALUE`; the value is `3.4e9`, `3400000000`, `3.4B` (K, M, B, T are 10^3,
            10^6, 10^9, 10^12) or a share such as `25%`.

    Raises:
        ValueError: it is no such text.

    Example:
        >>> parse_target("params=3.4B").value, parse_target("memory_mb=25%").is_share
        (3400000000.0, True)
    """
    kind, _, value = text.partition("=")
    if kind not in KINDS:
        forms = ", ".join(f"{name}=VALUE" for name in KINDS)
        raise ValueError(f"a target must be one of {forms}: got {text!r:.60}")
    found = _NUMBER.fullmatch(value)
    if found is None or (found[3] and (found[4] or kind != "params")):
        example = "3.4e9, 900M or 25%" if kind == "params" else "20.5 or 25%"
        raise ValueError(f"{kind} must be a number such as {example}: got {value!r:.60}")
    number = float(found[1] + (found[2] or "")) * _UNITS[found[3].upper()]
    return Target(kind=kind, value=number / 100 if found[4] else number, is_share=bool(found[4]))


def measure(shape: Shape, target: Target | str, conditions: Conditions | None = None) -> float:
    """Returns what a shape has of what a target bounds: parameters, or megabytes.

    Memory is that of the weights and of keys and values while a batch is decoded: of all source
    and target tokens, in one type. What an allocator or a library takes is not counted.

    Args:
        shape: of a model.
        target: or its kind.
        conditions: under which memory is counted; the default ones if None.

    Raises:
        ValueError: time cannot be told from a shape: see
            `lmcore.compression.latency_models.Stopwatch`.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> measure(OPENBA_V1, "params"), measure(OPENBA_V1, "memory_mb")
        (14567703040, 31941.395456)
    """
    kind = target if isinstance(target, str) else target.kind
    if kind == "params":
        return count_parameters(shape).distinct
    if kind == "memory_mb":
        return count_memory(shape, conditions) / 1e6
    raise ValueError(f"{kind} cannot be told from a shape: it is measured")


def count_memory(shape: Shape, conditions: Conditions | None = None) -> int:
    """Returns the bytes of a model's weights, and of keys and values while a batch is decoded.

    Args:
        shape: of a model.
        conditions: type, batch and lengths; the default ones if None.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> count_memory(OPENBA_V1, Conditions(batch_size=8))
        37226218496
    """
    told = conditions or Conditions()
    weights = parameter_bytes(count_parameters(shape).total, told.dtype)
    # Of quantised weights keys and values stay in 16 bits.
    kind = told.dtype if BYTES[told.dtype] >= 2 else "bfloat16"
    source, own = count_cache_bytes(shape, kind)
    read = source if shape.has_cross_attention else own
    return weights + told.batch_size * (read * told.source_tokens + own * told.target_tokens)
