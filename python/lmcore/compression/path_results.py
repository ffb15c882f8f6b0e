"""What a path came to, stage by stage: a report as JSON and as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmcore._files import write_text
from lmcore._tables import format_table
from lmcore._text import escape


@dataclass(kw_only=True, slots=True, frozen=True)
class StageResult:
    """What a stage came to.

    Example:
        >>> StageResult(name="a", folder=Path("1-a"), parameters_before=8, parameters=6).steps
        0
    """

    name: str
    folder: Path
    """Of its model: what the next stage starts from."""
    parameters_before: int
    """Distinct ones: one table for embedding and output layer."""
    parameters: int
    published_parameters: int | None = None
    objective: str | None = None
    """Under which the losses are measured; None: they are not."""
    loss_before: float | None = None
    """Of the model that the stage starts from."""
    loss_cut: float | None = None
    """Right after the cut; where nothing is cut that before."""
    loss: float | None = None
    """After training; None without training, or without texts of validation."""
    steps: int = 0
    """Of training."""
    tokens: int = 0
    """Of the texts that it was trained on; those that come again count again."""


@dataclass(kw_only=True, slots=True, frozen=True)
class PathResult:
    """What a path came to."""

    folder: Path
    """Holds a folder for each stage, `plan.json`, `report.json` and a link `model`."""
    model: Path
    """The folder of the last model."""
    stages: tuple[StageResult, ...]


def write_report(result: PathResult) -> None:
    """Writes `report.json` into the folder of a path.

    Args:
        result: of the path.

    Raises:
        OSError: the file cannot be written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name:
        ...     write_report(PathResult(folder=Path(name), model=Path(name, "1-a"), stages=()))
        ...     json.loads(Path(name, "report.json").read_text())
        {'model': '1-a', 'stages': []}
    """
    stages = [
        {**asdict(stage), "folder": _name(stage.folder, result.folder)} for stage in result.stages
    ]
    content: dict[str, Any] = {"model": _name(result.model, result.folder), "stages": stages}
    write_text(result.folder / "report.json", json.dumps(content, indent=1) + "\n")


def format_stages(stages: Sequence[StageResult]) -> list[str]:
    r"""Returns the lines of a table: parameters, losses, steps and tokens of each stage.

    Args:
        stages: of a path.

    Example:
        >>> small = StageResult(
        ...     name="a", folder=Path("1-a"), parameters_before=8, parameters=6, loss_cut=2.5)
        >>> print("\n".join(format_stages([small])))
        stage  parameters  loss before  after cut  trained  steps  tokens
        a               6            -     2.5000        -      0       0
    """
    head = ("stage", "parameters", "loss before", "after cut", "trained", "steps", "tokens")
    rows = [
        (
            escape(stage.name), f"{stage.parameters:,}", _loss(stage.loss_before),
            _loss(stage.loss_cut), _loss(stage.loss), f"{stage.steps:,}", f"{stage.tokens:,}",
        )
        for stage in stages
    ]  # fmt: skip
    return format_table(rows, head)


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _name(folder: Path, base: Path) -> str:
    return folder.relative_to(base).as_posix() if folder.is_relative_to(base) else str(folder)
