"""Options of the trained model that commands read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, name_of_file, whole
from lmcore.cli.recsys.data_options import say_report

if TYPE_CHECKING:
    from lmcore.recsys.folder import TrainedRun

Model = Annotated[
    str,
    typer.Argument(
        metavar="DIR",
        parser=name_of_file,
        help="Folder of a run, or a file of SASRec weights (.pth, .pt, .safetensors).",
        show_default=False,
    ),
]
Heads = Annotated[
    int | None, whole(1, MOST, text="Attention heads of a file of weights; 1 by default.")
]


def load_model_run(
    model: str,
    data: str | None,
    form: dict[str, Any],
    heads: int | None,
    device: str | None,
    *,
    quiet: bool,
) -> TrainedRun:
    """Returns the model with interactions in its ids, after a line on what these are."""
    if heads is not None and Path(model).is_dir():
        raise ValueError(f"{model}: heads (--heads) are of files of weights: a folder says its own")
    with starting():
        from lmcore.recsys.folder import load_run

    run = load_run(
        model,
        data=data,
        **form,
        num_attention_heads=heads or 1,
        device="auto" if device is None else device,
    )
    say_report(run.interactions.report, quiet=quiet)
    return run
