"""The command `lmcore detox select`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.detox.scorer_options import SCORER_HELP, Cache, Checkpoint, Label, Unpickle
from lmcore.cli.detox.spans import ResumeRows, Target
from lmcore.cli.detox.step_options import (
    BatchSize,
    Field,
    Format,
    Rows,
    check_scorer_device,
    run_command,
)
from lmcore.cli.options import Device, Quiet, SkipBadRows, name_of_file

if TYPE_CHECKING:
    from lmcore.detox import Scorer
    from lmcore.detox.steps import Step


def select_command(
    source: Rows,
    target: Target,
    scorer: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|DIR|FILE",
            parser=name_of_file,
            help=f"{SCORER_HELP} By default rows have scores.",
        ),
    ] = None,
    label: Label = None,
    checkpoint: Checkpoint = None,
    unpickle: Unpickle = False,
    cache: Cache = None,
    batch_size: BatchSize = 32,
    field: Field = None,
    data_format: Format = "auto",
    device: Device = None,
    skip_bad_rows: SkipBadRows = False,
    resume: ResumeRows = True,
    quiet: Quiet = False,
) -> None:
    """Score continuations, and keep those of which `lmcore detox chains` makes a chain.

    The cleanest and the three most toxic ones of a prompt, under the authors' keys: generation,
    cont_toxicity, and of a prompt with masks mask_prompt and recover_prompt.
    """
    check_scorer_device(device, scorer)
    judge: dict[str, Any] = {"name": scorer, "label": label, "checkpoint": checkpoint}
    judge |= {"unpickle": unpickle, "cache": cache, "batch_size": batch_size}
    rows = {"field": field, "form": data_format, "skip_bad_rows": skip_bad_rows, "resume": resume}
    given = None if scorer is None else judge
    if given is None and (label or checkpoint or unpickle or cache):
        raise ValueError("options of a scorer need --scorer")
    run_command(_make, (source, target), rows, given, device=device, quiet=quiet)


def _make(_: str, scorer: Scorer | None) -> list[Step]:
    from lmcore.detox import SelectStep

    return [SelectStep(scorer=scorer)]
