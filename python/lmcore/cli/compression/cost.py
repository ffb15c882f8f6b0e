"""The command `lmcore compression cost`."""

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
    TargetTokens,
    name_of_file,
    whole,
)
from lmcore.cli.terminal import show, show_json


def cost_command(
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN",
            parser=name_of_file,
            help="A plan, as `plan` and `recipe` write it.",
            show_default=False,
        ),
    ],
    devices: Annotated[int, whole(1, MOST, text="On which training is divided.")] = 1,
    rows: StepRows = 1,
    source_tokens: SourceTokens = 570,
    target_tokens: TargetTokens = 380,
    precision: Precision = "bfloat16",
    recompute: Recompute = False,
    as_json: AsJson = False,
) -> None:
    """Show what a model costs after each stage of a plan: parameters, FLOPs, caches, memory.

    Parameters are counted with one table for embedding and output layer, bytes (of 16 bits a
    number) with as many as the model holds. Nothing is loaded.
    """
    step = {"source_tokens": source_tokens, "target_tokens": target_tokens, "rows": rows}
    _show(plan, {**step, "precision": precision, "recompute": recompute}, devices, as_json)


def _show(plan: str, step: dict[str, Any], devices: int, as_json: bool) -> None:
    with starting():
        from lmcore._text import escape
        from lmcore.compression.plan_files import read_plan
        from lmcore.compression.planning import list_shapes
        from lmcore.cost import Step, format_stage_costs, make_stage_costs

    stages = list_shapes(read_plan(plan))
    if not as_json:
        stages = [(escape(name), shape, published) for name, shape, published in stages]
    costs = make_stage_costs(stages, Step(**step), devices)
    if as_json:
        show_json([cost.to_dict() for cost in costs], indent=2)
    else:
        show(format_stage_costs(costs))
