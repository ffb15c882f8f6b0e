"""Paths as JSON, read strictly: what no path holds is refused, and names lie beside the file.

    {"format": "lmcore-path", "version": 1, "model": "large", "data": "texts", "stages": [
      {"name": "layers", "sizes": {"decoder_layers": 24},
       "recover": {"recipe": "d_ul2", "set": {"loop.steps": 1000}}},
      {"name": "tokens", "vocabulary": {"keep": 100000}}]}

A stage has at most one of `keep` (indices of the original, as in a plan), `sizes`, `target` and
`vocabulary`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmcore._files import write_text
from lmcore.compression.indices import format_indices, parse_indices
from lmcore.compression.path import (
    Cut,
    PathConfig,
    PathStage,
    SizesCut,
    TargetCut,
    VocabularyCut,
)
from lmcore.compression.plan import FLAT, LAYERED, MOST_INDICES, Stage
from lmcore.compression.plan_files import check_keys, check_object, read_document
from lmcore.compression.recipes import RECOVERY_RECIPES
from lmcore.training.config import change, config_to_dict

if TYPE_CHECKING:
    from lmcore.compression.recovery_config import RecoveryConfig

FORMAT, VERSION = "lmcore-path", 1
_KEYS = ("format", "version", "model", "data", "valid", "stages")
_KINDS: dict[str, type[Any]] = {
    "keep": Stage, "sizes": SizesCut, "target": TargetCut, "vocabulary": VocabularyCut,
}  # fmt: skip
_STAGE_KEYS = ("name", *_KINDS, "recover", "teacher", "data", "valid", "published_parameters")
_KEEP_KEYS = (*FLAT, *LAYERED, "method", "seed")
_RECOVER_KEYS = ("recipe", "set")
_LAYER = re.compile("0|[1-9][0-9]{0,3}", re.ASCII)
# More than any model has: what the original has is compared when the path is walked.
_MOST_INDEX = 1 << 22


def write_path(file: str | os.PathLike[str], path: PathConfig) -> None:
    """Writes a path as JSON, whole or not at all.

    Args:
        file: where to; its folder must exist. Relative names of the path are read beside it.
        path: what it shall hold.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> stages = [PathStage(name="a", cut=SizesCut(ffn=7))]
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_path(Path(folder, "path.json"), PathConfig(stages=stages))
        ...     read_path(Path(folder, "path.json")).stages[0].cut.ffn
        7
    """
    write_text(file, json.dumps(dump_path(path), indent=1, ensure_ascii=False) + "\n")


def read_path(file: str | os.PathLike[str]) -> PathConfig:
    """Returns the path that a file holds; names in it become such as lie beside the file.

    Args:
        file: the JSON.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no path; the text names the file and what is wrong.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "path.json")
        ...     _ = file.write_text('{"format": "lmcore-path", "version": 1, "stages": []}')
        ...     try:
        ...         read_path(file)
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(str(file)))
        : not a path: a path has from 1 to 100 stages: got none
    """
    return read_document(file, "a path", lambda content: load_path(content, Path(file).parent))


def dump_path(path: PathConfig) -> dict[str, Any]:
    """Returns a path as JSON has it; training is told as a recipe and what differs from it.

    Args:
        path: any.

    Example:
        >>> stages = [PathStage(name="a", cut=SizesCut(ffn=7))]
        >>> dump_path(PathConfig(stages=stages))["stages"]
        [{'name': 'a', 'sizes': {'ffn': 7}, 'recover': None}]
    """
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    if path.model is not None:
        content["model"] = path.model
    content |= _dump_names(path)
    return content | {"stages": [_dump_stage(stage) for stage in path.stages]}


def load_path(content: Any, folder: str | os.PathLike[str] = ".") -> PathConfig:
    """Returns the path that JSON describes.

    Args:
        content: as `dump_path` makes it.
        folder: beside which relative names are.

    Raises:
        IndexError: no model has such a layer, head, unit or id.
        TypeError: a field has another type.
        ValueError: a field is missing, is too many, or says what no path says.

    Example:
        >>> load_path({"format": "lmcore-path", "version": 1, "steps": []})
        Traceback (most recent call last):
        ValueError: expected format, version, model, data, valid, stages: got 'steps', too
    """
    check_object("the file", content)
    for name, value in (("format", FORMAT), ("version", VERSION)):
        if content.get(name) != value or isinstance(content.get(name), bool):
            raise ValueError(f"{name} must be {value}: got {content.get(name)!r:.60}")
    check_keys(content, _KEYS, optional=_KEYS)
    stages, base = content.get("stages"), Path(folder)
    if not isinstance(stages, list):
        raise TypeError(f"stages must be a list: got {stages!r:.60}")
    room = [MOST_INDICES]
    return PathConfig(
        model=_place("model", content["model"], base) if "model" in content else None,
        stages=tuple(_load_stage(n, stage, base, room) for n, stage in enumerate(stages, 1)),
        data=_load_names("data", content, base),
        valid=_load_names("valid", content, base),
    )


def _dump_stage(stage: PathStage) -> dict[str, Any]:
    content: dict[str, Any] = {"name": stage.name}
    kind = next((name for name, one in _KINDS.items() if type(stage.cut) is one), None)
    if kind is not None and stage.cut is not None:
        content[kind] = _dump_cut(stage.cut)
    recover = stage.recover
    content["recover"] = None if recover is None else dump_recovery(recover)
    if stage.teacher != "original":
        content["teacher"] = stage.teacher
    if stage.published_parameters is not None:
        content["published_parameters"] = stage.published_parameters
    return content | _dump_names(stage)


def _dump_cut(cut: Cut) -> dict[str, Any]:
    names = _KEEP_KEYS if isinstance(cut, Stage) else [field.name for field in fields(cut)]
    values = {name: getattr(cut, name) for name in names}
    usual = {field.name: field.default for field in fields(cut)}
    content: dict[str, Any] = {}
    for name, value in values.items():
        if value == usual[name] or value == {}:
            continue
        if name in FLAT and not isinstance(value, int):
            value = format_indices(value)
        elif name in LAYERED:
            value = {str(layer): format_indices(indices) for layer, indices in value.items()}
        content[name] = dict(value) if isinstance(value, Mapping) else value
    return content


def dump_recovery(config: RecoveryConfig) -> dict[str, Any]:
    """Returns the recipe that is nearest to some settings, and what differs from it.

    Args:
        config: any settings.

    Example:
        >>> from lmcore.compression.recipes import RECOVERY_RECIPES
        >>> from lmcore.training.config import change
        >>> dump_recovery(change(RECOVERY_RECIPES["d_ul2"](), {"loop.steps": 7}))
        {'recipe': 'd_ul2', 'set': {'loop.steps': 7}}
    """
    wanted = _flatten(config_to_dict(config))
    found = []
    for name, recipe in RECOVERY_RECIPES.items():
        known = _flatten(config_to_dict(recipe()))
        found.append((name, {key: value for key, value in wanted.items() if known[key] != value}))
    name, differs = min(found, key=lambda pair: len(pair[1]))
    return {"recipe": name, **({"set": differs} if differs else {})}


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            found |= _flatten(value, f"{prefix}{key}.")
        else:
            found[prefix + key] = value
    return found


def _dump_names(holder: PathConfig | PathStage) -> dict[str, Any]:
    content = {}
    for name in ("data", "valid"):
        given = getattr(holder, name)
        if given:
            content[name] = given[0] if len(given) == 1 else [*given]
    return content


def _load_stage(number: int, content: Any, base: Path, room: list[int]) -> PathStage:
    where = f"stage {number}"
    check_object(where, content)
    name = content.get("name")
    where += f" ({name})" if isinstance(name, str) and name.isprintable() else ""
    try:
        check_keys(content, _STAGE_KEYS, optional=_STAGE_KEYS)
        kinds = [kind for kind in _KINDS if kind in content]
        if len(kinds) > 1:
            raise ValueError(f"expected one of {', '.join(_KINDS)}: got {' and '.join(kinds)}")
        more: dict[str, Any] = {}
        if kinds:
            more["cut"] = _load_cut(kinds[0], content[kinds[0]], base, room)
        if content.get("recover") is not None:
            more["recover"] = _load_recovery(content["recover"])
        for key in ("teacher", "published_parameters"):
            if key in content:
                more[key] = content[key]
        for key in ("data", "valid"):
            more[key] = _load_names(key, content, base)
        return PathStage(name=name if "name" in content else str(number), **more)
    except (IndexError, TypeError, ValueError) as error:
        raise type(error)(f"{where}: {error}") from None


def _load_cut(kind: str, content: Any, base: Path, room: list[int]) -> Cut:
    check_object(kind, content)
    made = _KINDS[kind]
    names = _KEEP_KEYS if made is Stage else [field.name for field in fields(made)]
    check_keys(content, names, optional=names, where=f"{kind}: ")
    values = dict(content)
    for name in values:
        if name in ("text", "counts") and values[name] is not None:
            values[name] = _place(name, values[name], base)
        elif name == "vocabulary" or (made is Stage and name in FLAT):
            values[name] = _load_indices(name, values[name], room)
        elif name in LAYERED:
            values[name] = _load_layers(name, values[name], room)
    try:
        cut: Cut = made(**values)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{kind}: {error}") from None
    if isinstance(cut, Stage) and all(getattr(cut, name) is None for name in (*FLAT, *LAYERED)):
        raise ValueError("keep: names nothing that is kept")
    return cut


def _load_indices(name: str, text: Any, room: list[int]) -> list[int]:
    if not isinstance(text, str):
        raise TypeError(f"{name} must be indices such as 0-3,7: got {text!r:.60}")
    found: list[int] = parse_indices(text, _MOST_INDEX).tolist()
    room[0] -= len(found)
    if room[0] < 0:
        raise ValueError(f"a path has at most {MOST_INDICES} indices")
    return found


def _load_layers(name: str, content: Any, room: list[int]) -> dict[int, list[int]]:
    check_object(name, content)
    for key in content:
        if not _LAYER.fullmatch(key):
            raise ValueError(f"{name} must name layers: got {key!r:.60}")
    return {int(key): _load_indices(name, text, room) for key, text in content.items()}


def _load_recovery(content: Any) -> RecoveryConfig:
    check_object("recover", content)
    check_keys(content, _RECOVER_KEYS, optional=_RECOVER_KEYS, where="recover: ")
    name, changes = content.get("recipe"), content.get("set", {})
    if not isinstance(name, str) or name not in RECOVERY_RECIPES:
        raise ValueError(
            f"recover: recipe must be one of {', '.join(RECOVERY_RECIPES)}: got {name!r:.60}"
        )
    check_object("recover: set", changes)
    try:
        return change(RECOVERY_RECIPES[name](), changes)
    except (TypeError, ValueError) as error:
        raise type(error)(f"recover: {error}") from None


def _load_names(what: str, content: dict[str, Any], base: Path) -> tuple[str, ...]:
    given = content.get(what, ())
    names = [given] if isinstance(given, str) else given
    if not isinstance(names, list | tuple):
        raise TypeError(f"{what} must be the name of a file, or names: got {given!r:.60}")
    return tuple(_place(what, name, base) for name in names)


def _place(what: str, name: Any, base: Path) -> str:
    if not isinstance(name, str) or not name or "\0" in name or not _is_encoded(name):
        raise TypeError(f"{what} must be the name of a file: got {name!r:.60}")
    return os.fspath(base / name)


def _is_encoded(name: str) -> bool:
    """Whether the system can have such a name: not of half a character, which JSON can hold."""
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


__all__ = ["dump_path", "dump_recovery", "load_path", "read_path", "write_path"]
