"""Plans as JSON: indices as ranges, `0-3,7`, so that 48 layers of 6,912 units stay readable.

A file is read strictly: what no plan holds is refused, and no size is believed before it is
compared with the shape.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from lmcore._files import write_text
from lmcore._json import read_json
from lmcore.compression.indices import format_indices, parse_indices
from lmcore.compression.plan import (
    FLAT,
    LAYERED,
    MOST_INDICES,
    STAGE_FIELDS,
    Plan,
    Stage,
    check_shape,
    find_sizes,
)
from lmcore.cost import Shape

FORMAT, VERSION = "lmcore-plan", 1
_MOST_BYTES = 1 << 28
Document = TypeVar("Document")
_PLAN_KEYS = ("format", "version", "model_type", "shape", "published_parameters", "stages")


def write_plan(path: str | os.PathLike[str], plan: Plan) -> None:
    """Writes a plan as JSON, whole or not at all.

    Args:
        path: the file; its folder must exist.
        plan: what it shall hold.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(hidden=[0, 1, 5])])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_plan(Path(folder, "plan.json"), plan)
        ...     read_plan(Path(folder, "plan.json")) == plan
        True
    """
    write_text(path, json.dumps(dump_plan(plan), indent=1, ensure_ascii=False) + "\n")


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Returns the plan that a file holds.

    Args:
        path: the file.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no plan; the text names the file and what is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "plan.json")
        ...     _ = file.write_text('{"format": "lmcore-plan", "version": 2}')
        ...     try:
        ...         read_plan(file)
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(str(file)))
        : not a plan: version must be 1: got 2
    """
    return read_document(path, "a plan", load_plan)


def read_document(
    path: str | os.PathLike[str], what: str, load: Callable[[Any], Document]
) -> Document:
    """Returns what a file of JSON holds, once it is found to be that.

    Args:
        path: the file.
        what: it shall hold, for errors.
        load: makes it of the content.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is none; the text names the file and what is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "a.json")
        ...     _ = file.write_text("[1, 2]")
        ...     read_document(file, "numbers", sum)
        3
    """
    file = Path(path)
    if file.exists() and not file.is_file():
        raise ValueError(f"{file}: not {what}: expected a file")
    if file.stat().st_size > _MOST_BYTES:
        raise ValueError(f"{file}: not {what}: it has more than {_MOST_BYTES} bytes")
    content = read_json(file, what)
    try:
        return load(content)
    except (IndexError, TypeError, ValueError) as error:
        raise ValueError(f"{file}: not {what}: {error}") from None


def dump_plan(plan: Plan) -> dict[str, Any]:
    """Returns a plan as JSON has it.

    Args:
        plan: any.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(hidden=[0, 1, 5])])
        >>> dump_plan(plan)["stages"]
        [{'hidden': '0-1,5'}]
    """
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    content |= {"model_type": plan.model_type, "shape": asdict(plan.shape)}
    if plan.published_parameters is not None:
        content["published_parameters"] = plan.published_parameters
    return content | {"stages": [_dump_stage(stage) for stage in plan.stages]}


def load_plan(content: Any) -> Plan:
    """Returns the plan that JSON describes.

    Args:
        content: as `dump_plan` makes it.

    Raises:
        IndexError: the original has no such layer, head, unit or id.
        TypeError: a field has another type.
        ValueError: a field is missing, is too many, or says what no plan says.

    Example:
        >>> load_plan({"format": "lmcore-plan", "version": 1, "stage": []})
        Traceback (most recent call last):
        ValueError: expected format, version, model_type, shape, stages: got 'stage', too
    """
    check_object("the file", content)
    for name, value in (("format", FORMAT), ("version", VERSION)):
        if content.get(name) != value or isinstance(content.get(name), bool):
            raise ValueError(f"{name} must be {value}: got {content.get(name)!r:.60}")
    check_keys(content, _PLAN_KEYS, optional={"published_parameters"})
    check_object("shape", content["shape"])
    check_keys(content["shape"], [field.name for field in fields(Shape)])
    shape = Shape(**content["shape"])
    check_shape(shape)
    stages = content["stages"]
    if not isinstance(stages, list):
        raise TypeError(f"stages must be a list: got {stages!r:.60}")
    sizes, room = find_sizes(shape), [MOST_INDICES]
    return Plan(
        model_type=content["model_type"],
        shape=shape,
        stages=tuple(_load_stage(n, stage, sizes, room) for n, stage in enumerate(stages, 1)),
        published_parameters=content.get("published_parameters"),
    )


def _dump_stage(stage: Stage) -> dict[str, Any]:
    content: dict[str, Any] = {}
    for name in STAGE_FIELDS:
        value = getattr(stage, name)
        if name in FLAT and value is not None:
            value = format_indices(value)
        elif name in LAYERED and value is not None:
            value = {str(layer): format_indices(indices) for layer, indices in value.items()}
        if value not in (None, ""):
            content[name] = value
        elif value == "" and name in FLAT:  # a stack without layers
            content[name] = ""
    return content


def _load_stage(number: int, content: Any, sizes: dict[str, int], room: list[int]) -> Stage:
    where = f"stage {number}"
    check_object(where, content)
    check_keys(content, STAGE_FIELDS, optional=STAGE_FIELDS, where=f"{where}: ")

    def take(name: str, text: Any) -> NDArray[np.int64]:
        if not isinstance(text, str):
            raise TypeError(f"{where}: {name} must be indices such as 0-3,7: got {text!r:.60}")
        found: NDArray[np.int64]
        found = _naming(f"{where}: {name}", parse_indices, text, sizes[name])
        room[0] -= len(found)
        if room[0] < 0:
            raise ValueError(f"a plan has at most {MOST_INDICES} indices")
        return found

    values = dict(content)
    for name in FLAT:
        if name in content:
            values[name] = take(name, content[name])
    for name in LAYERED:
        if name in content:
            check_object(f"{where}: {name}", content[name])
            layers = {}
            for key, text in content[name].items():
                if not re.fullmatch("0|[1-9][0-9]{0,3}", key, re.ASCII):
                    raise ValueError(f"{where}: {name} must name layers: got {key!r:.60}")
                layers[int(key)] = take(name, text)
            values[name] = layers
    made: Stage = _naming(where, Stage, **values)
    return made


def _naming(where: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
    try:
        return function(*arguments, **named)
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def check_object(where: str, content: Any) -> None:
    """Checks that JSON is an object.

    Args:
        where: what it is, for the error.
        content: any value.

    Raises:
        TypeError: it is something else.

    Example:
        >>> check_object("shape", {})
    """
    if not isinstance(content, dict):
        raise TypeError(f"{where} must be an object: got {content!r:.60}")


def check_keys(
    content: dict[str, Any], known: Sequence[str], optional: Collection[str] = (), where: str = ""
) -> None:
    """Checks that an object has the keys that it must have, and no others.

    Args:
        content: the object.
        known: its keys.
        optional: those that may be missing.
        where: what the error begins with.

    Raises:
        ValueError: a key is missing or unknown.

    Example:
        >>> check_keys({"a": 1}, ["a", "b"], optional=["b"])
    """
    needed = [name for name in known if name not in optional]
    expected = ", ".join(needed or known)
    for name in content:
        if name not in known:
            raise ValueError(f"{where}expected {expected}: got {name!r:.60}, too")
    for name in needed:
        if name not in content:
            raise ValueError(f"{where}expected {expected}: {name} is missing")
