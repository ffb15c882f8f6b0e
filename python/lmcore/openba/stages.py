"""Stages of training, each from a model of the one before: what made a model stands beside it."""

from __future__ import annotations

import json
import os
from pathlib import Path

from lmcore._files import write_text
from lmcore._json import read_json

#: Of each stage, which stages it starts from; none: from random weights too.
STAGES: dict[str, tuple[str, ...]] = {
    "ul2": (),
    "length_adaptation": ("ul2",),
    "bilingual_flan": ("length_adaptation",),
    "chat": ("bilingual_flan",),
    "code": ("bilingual_flan",),
    "instruction_generation": ("bilingual_flan",),
    "tool_retrieval": ("bilingual_flan",),
}
#: The file in a model's folder that names its stage.
STAGE_FILE = "stage.json"


def write_stage(folder: Path, stage: str) -> None:
    """Writes which stage made the model of a folder.

    Args:
        folder: of the model.
        stage: one of `STAGES`.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_stage(Path(folder), "ul2")
        ...     read_stage(folder)
        'ul2'
    """
    write_text(folder / STAGE_FILE, json.dumps({"stage": stage}) + "\n")


def read_stage(model: str | os.PathLike[str]) -> str | None:
    """Returns which stage made a model; None where nothing tells, as beside a released one.

    Args:
        model: its folder, or that of a run, whose best model it is.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is no record of a stage.

    Example:
        >>> read_stage("nowhere")
    """
    best = Path(model, "best")
    # A run's digests are looked at when its model is loaded.
    folder = best if Path(model, "recipe.json").is_file() and best.is_dir() else Path(model)
    file = folder / STAGE_FILE
    if not file.is_file():
        return None
    content = read_json(file, "a record of a stage")
    stage = content.get("stage") if isinstance(content, dict) else None
    if not isinstance(stage, str) or stage not in STAGES:
        raise ValueError(f"{file}: stage must be one of {', '.join(STAGES)}: got {stage!r:.60}")
    return stage


def check_stage(stage: str | None, model: str | os.PathLike[str] | None) -> None:
    """Returns nothing if a stage can start from a model, as far as that is known.

    A stage starts from a model of the stage before, or goes on with one of its own.

    Args:
        stage: one of `STAGES`; None: any model will do.
        model: its folder, or that of a run; None: from random weights.

    Raises:
        OSError: a file cannot be read.
        ValueError: it cannot.

    Example:
        >>> check_stage("bilingual_flan", None)
        Traceback (most recent call last):
        ValueError: the stage bilingual_flan starts from a model of length_adaptation: name one
    """
    before = STAGES[stage] if stage is not None else ()
    if stage is None or (model is None and not before):
        return
    wanted = " or ".join(before)
    if model is None:
        raise ValueError(f"the stage {stage} starts from a model of {wanted}: name one")
    found = read_stage(model)
    if found not in (None, stage, *before):
        raise ValueError(
            f"{os.fspath(model)}: a model of the stage {found}; {stage} starts from "
            f"{wanted or 'random weights'}"
        )
