"""The command `lmcore openba export`."""

from __future__ import annotations

from typing import Annotated

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import name_of_file
from lmcore.cli.terminal import say


def export_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a model, or of a run, whose best model it is.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Option(
            metavar="OUT",
            parser=name_of_file,
            help="Another folder, which does not exist or is empty.",
            show_default=False,
        ),
    ],
) -> None:
    """Write ONNX graphs, which runtimes outside of Python read.

    There is one of the encoder and one of the decoder. Before the folder gets its name the graphs
    are run: their logits are those of the model.
    """
    with starting():
        from lmcore.openba import export

    summary = export(model, out)
    layers = " + ".join(map(str, summary.layers))
    say(
        f"{layers} layers in {len(summary.files)} files, {summary.bytes:,} bytes; logits differ "
        f"by at most {summary.difference:.1e}"
    )
