"""The folder of a path: what tells it from another path's, and what it holds of one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from lmcore._manifest import read_recipe
from lmcore.compression.corpora import find_prefix
from lmcore.compression.path import PathConfig, is_stage_folder
from lmcore.compression.path_files import dump_path
from lmcore.compression.plan import Plan
from lmcore.compression.plan_files import read_plan
from lmcore.compression.recovery import FREE
from lmcore.training.config import config_to_dict
from lmcore.training.folder import TEMPORARY, Recipe, remove, take_recipe

_RECORD = "path.json"
_OUTPUTS = ("model", "report.json", "plan.json")
# What may change when a path goes on, of each stage's training: as for `recover`, but for steps,
# after which the stages behind would start from another model.
_FREE = [
    name.removeprefix("config.")
    for name in FREE
    if name.startswith("config.") and name != "config.loop.steps"
]


def open_folder(
    folder: Path, path: PathConfig, digest: str, given: dict[str, Any], *, resume: bool
) -> None:
    """Checks that a folder is that of a path, or notes that it is; removes what shall not stay.

    Args:
        folder: of the path, which exists and is locked.
        path: its stages.
        digest: of the model that it begins with.
        given: `data` and `valid` of the path.
        resume: whether to go on from what is there, if anything was cut; otherwise the folders
            of stages go.

    Raises:
        FileExistsError: it is that of another path, or holds something else under a name that
            the path writes.
        OSError: a file cannot be read, written or removed.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.path import PathStage, SizesCut
        >>> path = PathConfig(stages=(PathStage(name="a", cut=SizesCut(ffn=7)),))
        >>> given = {"data": None, "valid": None}
        >>> with tempfile.TemporaryDirectory() as name:
        ...     folder = Path(name)
        ...     open_folder(folder, path, "ab", given, resume=True)
        ...     Path(name, "1-a").mkdir()
        ...     _ = Path(name, "1-a", "plan.json").write_text("{}")
        ...     open_folder(folder, path, "cd", given, resume=True)
        Traceback (most recent call last):
        FileExistsError: ...: holds another run: config.model is "ab" there and "cd" here; ...
    """
    for left in folder.glob(f"{TEMPORARY}*"):
        remove(left)
    file = folder / _RECORD
    if not os.path.lexists(file):
        for name in (*_OUTPUTS, "packed", *path.folders):
            if os.path.lexists(folder / name):
                raise FileExistsError(
                    f"{folder / name}: is there already, and not of a path: name another folder"
                )
    elif not (resume and _is_begun(folder)):
        resume = False
        known = read_recipe(file)["config"]  # before anything is removed: it may be another's file
        for name in _OUTPUTS:  # of what is no longer there
            remove(folder / name)
        stages = known.get("stages") if isinstance(known, dict) else None
        for name in [*(stages if isinstance(stages, dict) else ()), *path.folders]:
            if is_stage_folder(name):
                remove(folder / name)
    take_recipe(file, Recipe(config=_describe(path, digest, given)), resume=resume)


def _is_begun(folder: Path) -> bool:
    """Whether a stage has been cut, or its cut chosen: before, nothing would be lost."""
    stages = [place for place in folder.iterdir() if is_stage_folder(place.name)]
    return any(os.path.lexists(one / name) for one in stages for name in ("plan.json", "pruned"))


def _describe(path: PathConfig, digest: str, given: dict[str, Any]) -> dict[str, Any]:
    """What tells a path from others: files by their names and sizes, so that they may move."""
    stages = {}
    told = dump_path(path)["stages"]
    for name, stage, content in zip(path.folders, path.stages, told, strict=True):
        recover = {} if stage.recover is None else config_to_dict(stage.recover)
        for free in _FREE if recover else ():
            *outer, last = free.split(".")
            holder = recover
            for part in outer:
                holder = holder[part]
            holder.pop(last, None)
        stages[name] = {
            **content, "recover": recover or None, "teacher": stage.teacher,
            "data": _stamp(stage.data), "valid": _stamp(stage.valid),
        }  # fmt: skip
    return {
        "model": digest,
        "data": _stamp(given["data"]),
        "valid": _stamp(given["valid"]),
        "stages": stages,
    }


def _stamp(data: Any) -> Any:
    if data is None:
        return None
    if isinstance(data, np.ndarray):
        return [f"{data.dtype} {[*data.shape]}"]
    found = []
    for name in [data] if isinstance(data, str | os.PathLike) else data:
        prefix = find_prefix(name)
        file = Path(name if prefix is None else f"{prefix}.bin")
        found.append(f"{file.name}: {file.stat().st_size} bytes")
    return found


def read_next(file: Path, plan: Plan) -> Plan:
    """Returns the plan of a stage, if it goes on with the one before.

    Args:
        file: of the stage.
        plan: of the stages before.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is no plan, or does not go on.

    Example:
        >>> import tempfile
        >>> from lmcore.compression.plan_files import write_plan
        >>> from lmcore.compression.recipes import openba_v2
        >>> plan = openba_v2()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_plan(Path(folder, "plan.json"), plan)
        ...     read_next(Path(folder, "plan.json"), plan)  # it is the same, and no next one
        Traceback (most recent call last):
        ValueError: ...plan.json: does not follow from the plan of the stage before
    """
    found = read_plan(file)
    if (found.model_type, found.shape, found.stages[:-1]) != (
        plan.model_type, plan.shape, plan.stages,
    ):  # fmt: skip
        raise ValueError(f"{file}: does not follow from the plan of the stage before")
    return found
