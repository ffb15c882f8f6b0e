"""What is to be right before a path is walked: files, settings of training, places."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lmcore.compression.checkpoint_folders import keep_outside
from lmcore.compression.corpora import find_prefix, is_ids
from lmcore.compression.counts import Counts, read_counts
from lmcore.compression.loading import find_kind
from lmcore.compression.objectives import choose_objective
from lmcore.compression.path import PathConfig, PathStage, VocabularyCut
from lmcore.compression.path_cuts import changes_ids, check_text
from lmcore.compression.vocabulary_tensors import load_config
from lmcore.training.optimizer import check_schedule
from lmcore.training.processes import find_device


def check_training(path: PathConfig, model: Path, given: dict[str, Any]) -> None:
    """Checks that each stage has what it is trained on, and settings that can be.

    Args:
        path: its stages.
        model: the original.
        given: `data` and `valid` of the path.

    Raises:
        OSError: a file cannot be read.
        ValueError: a stage has nothing to train on, or cannot be trained so.

    Example:
        >>> path = PathConfig(stages=[PathStage(name="a", cut=VocabularyCut(keep=7))])
        >>> check_training(path, Path("model"), {"data": None, "valid": None})
        Traceback (most recent call last):
        ValueError: the stage a counts tokens: expected data, of it or of the path
    """
    new_ids = False
    for stage in path.stages:
        new_ids |= changes_ids(stage.cut)
        data = unpack(stage.data) if stage.data else unpack(given["data"])
        valid = unpack(stage.valid) if stage.valid else unpack(given["valid"])
        check_text(stage, data)
        needs_counts = isinstance(stage.cut, VocabularyCut) and stage.cut.counts is None
        if (stage.recover is not None or needs_counts) and data is None:
            what = "counts tokens" if stage.recover is None else "trains"
            raise ValueError(f"the stage {stage.name} {what}: expected data, of it or of the path")
        if isinstance(stage.cut, VocabularyCut) and stage.cut.counts is not None:
            _check_groups(stage, stage.cut.keep_per, read_counts(stage.cut.counts))
        for names in (data, valid):
            _check_names(names)
        if stage.recover is None:
            continue
        if new_ids and are_ids(data) and not stage.data:
            raise ValueError(
                f"the stage {stage.name} trains on ids, and the vocabulary is another one there: "
                "name texts, or data of the stage"
            )
        find_device(stage.recover.device.device)
        try:
            check_schedule(stage.recover.schedule, stage.recover.loop.steps)
            kind = find_kind(load_config(model))
            if choose_objective(stage.recover, kind) == "d_ul2" and valid is None:
                raise ValueError("d_ul2 needs validation texts, whose losses its shares follow")
        except ValueError as error:
            raise ValueError(f"the stage {stage.name}: {error}") from None


def _check_groups(stage: PathStage, keep_per: Mapping[str, int], counts: Counts) -> None:
    for group in keep_per:
        if group not in counts.groups:
            known = ", ".join(sorted(counts.groups))
            raise ValueError(
                f"the stage {stage.name}: keep_per names the group {group!r:.60}: there are {known}"
            )


def _check_names(data: Any) -> None:
    names = [data] if isinstance(data, str | os.PathLike) else data
    for name in names if isinstance(names, list | tuple) else []:
        if find_prefix(name) is None:
            open(name, "rb").close()


def are_ids(data: Any) -> bool:
    """Returns whether what a stage is trained on holds ids, and not texts.

    Args:
        data: as `recover` takes it.

    Example:
        >>> are_ids("a.txt"), are_ids(np.zeros((2, 3)))
        (False, True)
    """
    names = [data] if isinstance(data, str | os.PathLike) else data
    return not isinstance(names, list | tuple) or any(map(is_ids, names))


def unpack(names: Any) -> Any:
    """Returns one name alone, as it is meant where it is the prefix of a token file.

    Args:
        names: of files, or something else, which stays as it is.

    Example:
        >>> unpack(("a",)), unpack(("a", "b"))
        ('a', ('a', 'b'))
    """
    return names[0] if isinstance(names, tuple) and len(names) == 1 else names


def check_places(folder: Path, path: PathConfig, model: Path, given: dict[str, Any]) -> None:
    """Checks that the folder of a path lies outside of the original, and that it reads no output.

    Args:
        folder: of the path; it need not exist.
        path: its stages.
        model: the original.
        given: `data` and `valid` of the path.

    Raises:
        ValueError: it does not; the text names what lies where.

    Example:
        >>> path = PathConfig(stages=[PathStage(name="a", cut=VocabularyCut(keep=7))])
        >>> check_places(Path("model/out"), path, Path("model"), {})
        Traceback (most recent call last):
        ValueError: model/out: lies in the folder of the model that is read: name another folder
    """
    keep_outside(folder, model)
    place = Path(os.path.realpath(folder))
    names: list[Any] = [name for stage in path.stages for name in (*stage.data, *stage.valid)]
    for one in given.values():
        if not isinstance(one, np.ndarray):
            names += [one] if isinstance(one, str | os.PathLike) else one or []
    for own in (*path.folders, "model"):
        for name in (model, *names):
            if place / own in (real := Path(os.path.realpath(name)), *real.parents):
                raise ValueError(f"{os.fspath(name)}: the output is an input too")


__all__ = ["PathStage", "are_ids", "check_places", "check_training", "unpack"]
