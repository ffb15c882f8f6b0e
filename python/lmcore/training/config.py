"""Settings of a run: frozen dataclasses, to and from JSON and `name=value` texts.

A recipe nests the four of this module and adds fields of its own; names within are joined by
dots, as in `optimizer.lr`.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import re
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lmcore._extras import optional_imports
from lmcore._json import parse_json

with optional_imports():
    from pydantic import ConfigDict, TypeAdapter, ValidationError

Config = TypeVar("Config")

# Above this nothing can be counted here, and libraries in C start to wrap around.
_MOST = 2**31 - 1
# Numbers that JSON has not and a shell's user writes: `.5`, `5.`.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


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


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class OptimizerConfig:
    """Adam with decoupled weight decay.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range.

    Example:
        >>> OptimizerConfig(lr=3e-4).betas
        (0.9, 0.999)
    """

    lr: Annotated[float, Between(0, 1e30, open_low=True)] = 1e-3
    """The step size at its highest."""
    betas: Annotated[tuple[float, float], Between(0, 1, open_high=True)] = (0.9, 0.999)
    """Of the moving averages of gradients and of their squares."""
    eps: Annotated[float, Between(0, 1e30)] = 1e-8
    """Added to the root of the second average."""
    weight_decay: Annotated[float, Between(0, 1e30)] = 0.0
    """Of matrices; biases, norms and other vectors do not decay."""
    clip_norm: Annotated[float | None, Between(0, 1e30, open_low=True)] = None
    """The norm of all gradients together is at most this; None: no limit."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class ScheduleConfig:
    """How the step size rises and falls, as a share of `OptimizerConfig.lr`.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a text is none of the choices.

    Example:
        >>> ScheduleConfig(kind="cosine", warmup_steps=100).needs_steps
        True
    """

    kind: Literal["constant", "linear", "cosine", "inverse_sqrt", "stable"] = "constant"
    """After the warm-up; `stable` stays until the last `decay_steps` and falls along a cosine."""
    warmup_steps: Annotated[int, Between(0, _MOST)] = 0
    """Steps in which it rises from 0 in a line."""
    decay_steps: Annotated[int | None, Between(1, _MOST)] = None
    """Steps in which it falls; None: all after the warm-up (`linear` and `cosine`)."""
    final_share: Annotated[float, Between(0, 1)] = 0.0
    """Where it ends (`linear`, `cosine`, `stable`)."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.kind == "stable" and self.decay_steps is None:
            raise ValueError("decay_steps must be given where kind is stable: got none")
        if self.kind in ("constant", "inverse_sqrt"):
            for name, usual in (("decay_steps", None), ("final_share", 0.0)):
                if getattr(self, name) != usual:
                    raise ValueError(f"{name} has no meaning where kind is {self.kind}")

    @property
    def needs_steps(self) -> bool:
        """Whether it depends on the length of the run, which then cannot change later."""
        falls = self.kind in ("linear", "cosine")
        return self.kind == "stable" or (falls and self.decay_steps is None)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class LoopConfig:
    """What `lmcore.training.loop.fit` does and when; its clock is the global step, from 1.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a text is none of the choices.

    Example:
        >>> LoopConfig(steps=1000, metric="loss", metric_mode="min").seed
        0
    """

    steps: Annotated[int | None, Between(1, 2**40 - 1)] = None
    """When to end; None: as the system says, such as after a number of epochs."""
    validate_every_steps: Annotated[int | None, Between(1, 2**40 - 1)] = None
    """Steps between validations, with one at the end; None: as the system says, or at the end."""
    log_every_steps: Annotated[int | None, Between(1, 2**40 - 1)] = None
    """Steps between lines of the log; each validation has a line as well. None: as the system
    says, or with validations alone."""
    save_every_seconds: Annotated[float, Between(0, 1e9)] = 60.0
    """The state is saved after a step after so much time, and at the end."""
    keep_states: Annotated[int, Between(1, 1000)] = 2
    """States that are kept, the newest ones."""
    patience: Annotated[int | None, Between(1, _MOST)] = None
    """End after so many validations without a better one; None: never."""
    metric: str = "loss"
    """What the best step is best in, of what validation gives."""
    metric_mode: Literal["max", "min"] = "max"
    """Whether a high or a low metric is good."""
    seed: Annotated[int, Between(0, 2**64 - 1)] = 0
    """Of everything random."""
    tensorboard: bool = False
    """Whether the log goes to the folder `tensorboard` of the run as well; needs that extra."""

    def __post_init__(self) -> None:
        check_fields(self)


@dataclasses.dataclass(kw_only=True, slots=True, frozen=True)
class DeviceConfig:
    """Where and how a run computes.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a number is out of its range, or a text is none of the choices.

    Example:
        >>> DeviceConfig(device="cpu", threads=1).precision
        'float32'
    """

    device: str = "auto"
    """`cpu`, `cuda`, or `auto`: a GPU where there is one. Under torchrun each process takes the
    GPU of its local rank."""
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    """Of forward passes; weights are float32. float16 comes with a scaled loss."""
    sharding: Literal["none", "full"] = "none"
    """Whether each process holds all weights, or a part of them (FSDP2)."""
    compile: bool = False
    """Whether blocks are compiled."""
    recompute: bool = False
    """Whether blocks are computed again in the backward pass rather than kept."""
    threads: Annotated[int | None, Between(1, _MOST)] = None
    """Threads of this process; None: as many as torch and the core choose."""

    def __post_init__(self) -> None:
        check_fields(self)


def config_to_dict(config: Any) -> dict[str, Any]:
    """Returns the fields of a configuration as plain values for JSON.

    Args:
        config: an instance of a dataclass; its fields are numbers, texts, booleans, None, paths,
            other such dataclasses, or tuples, lists and mappings of these.

    Example:
        >>> config_to_dict(OptimizerConfig(betas=(0.9, 0.98)))["betas"]
        [0.9, 0.98]
    """
    names = (field.name for field in dataclasses.fields(config))
    return {name: _plain(getattr(config, name)) for name in names}


def fill_defaults(config: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns plain values of a configuration, and defaults of fields that they do not have.

    What was written before a field was there means its default, which is why a new field's default
    must be what was done without it.

    Args:
        config: an instance of the dataclass.
        values: of `config_to_dict`, now or formerly; those that are no fields stay.

    Example:
        >>> fill_defaults(OptimizerConfig(lr=3e-4), {"lr": 0.1, "betas": [0.9, 0.98]})["eps"]
        1e-08
    """
    filled = dict(values)
    for field in dataclasses.fields(config):
        value, given = getattr(config, field.name), filled.get(field.name)
        if isinstance(given, dict) and dataclasses.is_dataclass(value):
            filled[field.name] = fill_defaults(value, given)
        elif field.name not in filled and field.default is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default)
        elif field.name not in filled and field.default_factory is not dataclasses.MISSING:
            filled[field.name] = _plain(field.default_factory())
    return filled


def config_from_dict(kind: type[Config], values: Mapping[str, Any]) -> Config:
    """Returns the configuration that `config_to_dict` wrote.

    Args:
        kind: the dataclass.
        values: field names to values; fields left out keep their defaults.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a name is no field, or a value is none of those its field allows.

    Example:
        >>> config_from_dict(OptimizerConfig, {"betas": [0.9, 0.98]}).betas
        (0.9, 0.98)
    """
    return _from_dict(kind, values, "")


def check_fields(config: Any) -> None:
    """Returns nothing if each field of a configuration has an allowed value of its type.

    For `__post_init__`: without it, a misspelt choice would only be seen where it is used. Values
    of JSON become those of the fields: lists tuples, texts paths, whole numbers floats.

    Args:
        config: an instance of a dataclass.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a value is none of those its field allows.

    Example:
        >>> import dataclasses
        >>> Adam = dataclasses.make_dataclass("Adam", [("lr", float)])
        >>> adam = Adam(1)
        >>> check_fields(adam)
        >>> adam
        Adam(lr=1.0)
    """
    for name, hint in _hints(type(config)).items():
        value = getattr(config, name)
        fitted = _fit(name, value, hint)
        if fitted is not value:
            object.__setattr__(config, name, fitted)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Returns a configuration with some fields changed, each given as `name=value`.

    A value is read as JSON where that fits its field, and as text otherwise; `none` is None.

    Args:
        config: an instance of a dataclass.
        assignments: such as `"lr=0.01"`, `"optimizer.betas=[0.9, 0.98]"` or `"device=cuda"`.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a text is not `name=value`, a name is no field, or a value is none of those
            its field allows.

    Example:
        >>> override(OptimizerConfig(), ["lr=.01"]).lr
        0.01
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE: got {_shorten(assignment)}")
        name = name.strip().replace("-", "_")
        changes[name] = _Text(text.strip())
    return change(config, changes)


def choose_recipe(
    recipes: Mapping[str, Callable[[], Config]],
    name: str,
    assignments: Iterable[str] = (),
    options: Mapping[str, Any] | None = None,
) -> Config:
    """Returns the configuration of a recipe, as a command changes it.

    Args:
        recipes: by their names.
        name: which.
        assignments: as for `override`.
        options: as for `change`, and stronger; those that are None are left out.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: there is no such recipe, or as for `override`.

    Example:
        >>> choose_recipe({"adam": OptimizerConfig}, "adam", ["lr=0.1"], {"lr": None}).lr
        0.1
    """
    if name not in recipes:
        raise ValueError(f"RECIPE must be one of {', '.join(recipes)}: got {name!r}")
    given = {field: value for field, value in (options or {}).items() if value is not None}
    return change(override(recipes[name](), assignments), given)


def change(config: Config, changes: Mapping[str, Any]) -> Config:
    """Returns a configuration with some fields changed; `dataclasses.replace` through all levels.

    Args:
        config: an instance of a dataclass.
        changes: names, with dots where a field is a configuration, to values.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: a name is no field, or a value is none of those its field allows.

    Example:
        >>> import dataclasses
        >>> Recipe = dataclasses.make_dataclass("Recipe", [("optimizer", OptimizerConfig)])
        >>> change(Recipe(OptimizerConfig()), {"optimizer.lr": 0.5}).optimizer.lr
        0.5
    """
    return _change(config, changes, "")


def _change(config: Config, changes: Mapping[str, Any], prefix: str) -> Config:
    kind = type(config)
    hints = _hints(kind)
    own: dict[str, Any] = {}
    nested: dict[str, dict[str, Any]] = {}
    for name, value in changes.items():
        first, dot, rest = name.partition(".")
        _check_name(kind, first, hints, prefix)
        if dot:
            if not dataclasses.is_dataclass(hints[first]):
                raise ValueError(f"{_shorten(prefix + name)} is no setting: {first} has no parts")
            nested.setdefault(first, {})[rest] = value
        else:
            own[first] = _fit(prefix + first, value, hints[first])
    for first, parts in nested.items():
        own[first] = _change(own.get(first, getattr(config, first)), parts, f"{prefix}{first}.")
    return dataclasses.replace(config, **own)  # type: ignore[type-var]


def _from_dict(kind: type[Config], values: Mapping[str, Any], prefix: str) -> Config:
    hints = _hints(kind)
    fitted = {}
    for name, value in values.items():
        _check_name(kind, name, hints, prefix)
        hint = hints[name]
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hint):
            inner: Any = hint
            fitted[name] = _from_dict(inner, value, f"{prefix}{name}.")
        else:
            fitted[name] = _fit(prefix + name, value, hint)
    return kind(**fitted)


def _hints(kind: Any) -> dict[str, Any]:
    return _read_hints(kind)


@functools.cache
def _read_hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _check_name(kind: type[Any], name: str, hints: Mapping[str, Any], prefix: str) -> None:
    if name not in hints:
        known = ", ".join(hints)
        raise ValueError(
            f"{_shorten(prefix + name)} is no setting of {kind.__name__}; there are {known}"
        )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return config_to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


class _Text(str):
    """A value as a command line has it, which may be JSON or mean itself."""

    __slots__ = ()

    def readings(self) -> list[Any]:
        known: dict[str, Any] = {"none": None, "true": True, "false": False}
        if self.lower() in known:
            return [known[self.lower()], str(self)]
        try:
            return [parse_json(self), str(self)]
        except ValueError:
            pass
        if _NUMBER.fullmatch(self) and not self.lstrip("+-").isdigit():
            return [float(self), str(self)]
        return [str(self)]


def _fit(name: str, value: Any, hint: Any) -> Any:
    """The value as the field's type has it."""
    ranges: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        ranges = tuple(item for item in rest if isinstance(item, Between))
    readings = value.readings() if isinstance(value, _Text) else [value]
    for reading in readings:
        try:
            fitted = _validate(reading, hint)
            break
        except (ValidationError, TypeError):
            continue
    else:
        raise _unfit(name, readings[0], hint)
    for number in fitted if isinstance(fitted, tuple) else [fitted]:
        # A text or None has no range: `int | Literal["epoch_loss"]`, `float | None`.
        is_number = isinstance(number, int | float) and not isinstance(number, bool)
        if is_number and any(number not in one for one in ranges):
            raise ValueError(f"{name} must be {ranges[0]}: got {_shorten(readings[0])}")
    return fitted


def _validate(value: Any, hint: Any) -> Any:
    """The value, if it is one of Python's of this type, or one of JSON's that stands for it."""
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, hint):  # type: ignore[arg-type]
            raise TypeError
        return value
    python, from_json = _validators(hint)
    try:
        return python(value)
    except ValidationError:
        if not isinstance(value, str | list | tuple | dict):
            raise
    try:
        return from_json(json.dumps(value))
    except (ValueError, RecursionError):  # of json; pydantic's is one as well
        raise TypeError from None


@functools.cache
def _validators(hint: Any) -> tuple[Callable[[Any], Any], Callable[[str], Any]]:
    adapter = TypeAdapter(hint, config=ConfigDict(strict=True, allow_inf_nan=False))
    return adapter.validate_python, adapter.validate_json


def _unfit(name: str, value: Any, hint: Any) -> Exception:
    if hint is float and isinstance(value, float) and not math.isfinite(value):
        return ValueError(f"{name} must be finite: got {value}")
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
        if parts[-1] is Ellipsis:
            return f"a list of {_say(parts[0])}"
        return f"[{', '.join(map(_say, parts))}]"
    if origin is not None:
        return str(hint)
    return "none" if hint is type(None) else str(hint.__name__)
