"""Settings of a run: frozen dataclasses, to and from JSON and `name=value` texts."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import types
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lmcore._json import parse_json

Config = TypeVar("Config")


@dataclasses.dataclass(frozen=True, slots=True)
class Between:
    """The range of a numeric field: `lr: Annotated[float, Between(0, 1, open_low=True)]`.

    A number that is not finite lies in no range. Fields of a tuple or of a union with None have
    their range in the same place.

    Attributes:
        low: the least value.
        high: the greatest.
        open_low: whether `low` itself is outside.
        open_high: whether `high` itself is outside.
    """

    low: float
    high: float
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = self.low < value if self.open_low else self.low <= value
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        least = "above" if self.open_low else "at least"
        most = "below" if self.open_high else "at most"
        return f"{least} {self.low} and {most} {self.high}"


def config_to_dict(config: Any) -> dict[str, Any]:
    """Returns the fields of a configuration as plain values for JSON.

    Args:
        config: an instance of a dataclass; its fields are numbers, texts, booleans, None or
            tuples of these.

    Example:
        >>> import dataclasses
        >>> Adam = dataclasses.make_dataclass("Adam", [("betas", tuple[float, float])])
        >>> config_to_dict(Adam((0.9, 0.98)))
        {'betas': [0.9, 0.98]}
    """
    values = dataclasses.asdict(config)
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def config_from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the configuration that `config_to_dict` wrote.

    Args:
        kind: the dataclass.
        values: field names to values; fields left out keep their defaults.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a name is no field, or a value is none of those its field allows.

    Example:
        >>> import dataclasses
        >>> Adam = dataclasses.make_dataclass("Adam", [("betas", tuple[float, float])])
        >>> config_from_dict(Adam, {"betas": [0.9, 0.98]})
        Adam(betas=(0.9, 0.98))
    """
    hints = get_type_hints(kind, include_extras=True)
    _check_names(kind, values, hints)
    return kind(**{name: _fit(name, value, hints[name]) for name, value in values.items()})


def check_fields(config: Any) -> None:
    """Returns nothing if each field of a configuration has its type and an allowed value.

    For `__post_init__`: without it, a misspelt choice would only be seen where it is used.

    Args:
        config: an instance of a dataclass.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a value is none of those its field allows.

    Example:
        >>> import dataclasses
        >>> check_fields(dataclasses.make_dataclass("Adam", [("lr", float)])(1))
    """
    for name, hint in get_type_hints(type(config), include_extras=True).items():
        _fit(name, getattr(config, name), hint)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Returns a configuration with some fields changed, each given as `name=value`.

    A value is read as JSON where it is JSON, and as text otherwise; `none` is None.

    Args:
        config: an instance of a dataclass.
        assignments: such as `"lr=0.01"`, `"betas=[0.9, 0.98]"` or `"device=cuda"`.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a text is not `name=value`, a name is no field, or a value is none of those
            its field allows.

    Example:
        >>> import dataclasses
        >>> Adam = dataclasses.make_dataclass("Adam", [("lr", float)])
        >>> override(Adam(0.001), ["lr=0.01"])
        Adam(lr=0.01)
    """
    kind = type(config)
    hints = get_type_hints(kind, include_extras=True)
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE: got {_shorten(assignment)}")
        name = name.strip().replace("-", "_")
        _check_names(kind, [name], hints)
        changes[name] = _fit(name, _read(text.strip()), hints[name])
    return dataclasses.replace(config, **changes)  # type: ignore[type-var]


def _read(text: str) -> Any:
    if text.lower() in ("none", "true", "false"):
        text = {"none": "null"}.get(text.lower(), text.lower())
    try:
        return parse_json(text)
    except ValueError:
        return text


def _check_names(kind: type[Any], names: Iterable[str], hints: Mapping[str, Any]) -> None:
    for name in names:
        if name not in hints:
            known = ", ".join(hints)
            raise ValueError(
                f"{_shorten(name)} is no setting of {kind.__name__}; there are {known}"
            )


def _fit(name: str, value: Any, hint: Any) -> Any:
    """The value as the field's type has it."""
    if get_origin(hint) is Annotated:
        hint, *ranges = get_args(hint)
        value = _fit(name, value, hint)
        for number in value if isinstance(value, tuple) else [value]:
            # A text or None has no range: `int | Literal["epoch_loss"]`, `float | None`.
            is_number = isinstance(number, int | float)
            if is_number and any(number not in r for r in ranges if isinstance(r, Between)):
                raise ValueError(f"{name} must be {ranges[0]}: got {_shorten(value)}")
        return value
    if get_origin(hint) in (Union, types.UnionType):
        for choice in get_args(hint):
            with contextlib.suppress(TypeError, ValueError):
                return _fit(name, value, choice)
        raise _unfit(name, value, hint)
    if get_origin(hint) is Literal:
        if value not in get_args(hint):
            raise _unfit(name, value, hint)
        return value
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if not isinstance(value, list | tuple) or len(value) != len(parts):
            raise _unfit(name, value, hint)
        return tuple(_fit(name, item, part) for item, part in zip(value, parts, strict=True))
    if hint is float and type(value) is int:
        with contextlib.suppress(OverflowError):
            return float(value)
        raise _unfit(name, value, hint)
    if type(value) is not hint:
        raise _unfit(name, value, hint)
    if hint is float and not math.isfinite(value):
        raise ValueError(f"{name} must be finite: got {value}")
    return value


def _unfit(name: str, value: Any, hint: Any) -> Exception:
    literals = [a for a in (hint, *get_args(hint)) if get_origin(a) is Literal]
    if literals and isinstance(value, str):
        return ValueError(f"{name} must be {_say(hint)}: got {_shorten(value)}")
    return TypeError(f"{name} must be {_say(hint)}: got {_shorten(value)}")


def _shorten(value: Any) -> str:
    if type(value) is int and abs(value) >= 10**40:
        return f"a number of {value.bit_length()} bits"
    text = repr(list(value) if isinstance(value, tuple) else value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _say(hint: Any) -> str:
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    origin, parts = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(map(_say, parts))
    if origin is Literal:
        return " or ".join(map(str, parts))
    if origin is tuple:
        return f"[{', '.join(map(_say, parts))}]"
    return "none" if hint is type(None) else str(hint.__name__)
