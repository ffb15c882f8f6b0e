"""The command `lmcore openba cost`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    AsJson,
    Precision,
    Recompute,
    SourceTokens,
    StepRows,
    SwigluRule,
    TargetTokens,
    name_of_file,
    whole,
)
from lmcore.cli.terminal import show, show_json


def cost_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|DIR",
            parser=name_of_file,
            help="A config.json, or the folder of a model: OpenBA, T5, Llama or their like.",
            show_default=False,
        ),
    ],
    devices: Annotated[int, whole(1, MOST, text="Memory is shown for 1, 2, 4, ... up to N.")] = 8,
    rows: StepRows = 1,
    source_tokens: SourceTokens = 570,
    target_tokens: TargetTokens = 380,
    precision: Precision = "bfloat16",
    recompute: Recompute = False,
    swiglu_rule: SwigluRule = None,
    tied: Annotated[
        bool | None,
        typer.Option(
            "--tied/--untied", help="Whether embedding and output layer are one, not as in CONFIG."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs, from its sizes alone.

    That is parameters, FLOPs, caches and the memory of training. Nothing is loaded, so the model
    may be larger than the machine.
    """
    step = {"rows": rows, "precision": precision, "recompute": recompute}
    lengths = (source_tokens, target_tokens)
    _show(model, devices, lengths, step, as_json=as_json, swiglu_rule=swiglu_rule, tied=tied)


def _show(
    model: str,
    devices: int,
    lengths: tuple[int, int],
    step: dict[str, Any],
    *,
    as_json: bool,
    **options: Any,
) -> None:
    with starting():
        from lmcore.cost import Step, format_report, make_report, read_shape

    shape = read_shape(model, **options)
    source, target = lengths
    report = make_report(
        shape,
        Step(
            source_tokens=source if shape.encoder_layers else 0,
            target_tokens=target if shape.decoder_layers else 0,
            **step,
        ),
        devices,
    )
    if as_json:
        show_json(report.to_dict(), indent=2)
    else:
        show(format_report(report))
