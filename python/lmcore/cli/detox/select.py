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
    apply_steps,
    check_scorer_device,
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
    given = {**locals()}
    check_scorer_device(device, scorer)
    apply_steps(_make, given)


def _make(_: dict[str, Any], scorer: Scorer | None, device: str) -> list[Step]:
    from lmcore.detox import SelectStep

    return [SelectStep(scorer=scorer)]
