"""The commands `lmcore compression plan` and `lmcore compression recipe`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, SwigluRule, name_of_file, plain_text, whole
from lmcore.cli.terminal import say, show_json


def plan_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|DIR",
            parser=name_of_file,
            help="A config.json, or the folder of a model: the original.",
            show_default=False,
        ),
    ],
    plan: Annotated[
        str,
        typer.Argument(
            metavar="PLAN", parser=name_of_file, help="Where the plan goes.", show_default=False
        ),
    ],
    encoder_layers: Annotated[int | None, whole(1, MOST, text="Layers to keep.")] = None,
    decoder_layers: Annotated[int | None, whole(1, MOST, text="Layers to keep.")] = None,
    hidden: Annotated[
        int | None, whole(1, MOST, text="Channels between layers to keep, one choice for all.")
    ] = None,
    heads: Annotated[
        int | None,
        whole(1, MOST, text="Query heads of every attention to keep, in whole groups."),
    ] = None,
    ffn: Annotated[
        int | None, whole(1, MOST, text="Inner units of every feed-forward to keep.")
    ] = None,
    choose: Annotated[
        str,
        typer.Option(
            metavar="random", parser=plain_text, help="Which channels, heads and units are kept."
        ),
    ] = "random",
    layers: Annotated[
        str,
        typer.Option(
            metavar="spread|adjacent",
            parser=plain_text,
            help="How layers that are cut lie between the first and the last, which stay.",
        ),
    ] = "spread",
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of what is drawn.")] = 0,
    after: Annotated[
        str | None,
        typer.Option(
            metavar="PLAN",
            parser=name_of_file,
            help="A plan of the same original: add a stage behind those that it has.",
        ),
    ] = None,
    name: Annotated[
        str, typer.Option(metavar="TEXT", parser=plain_text, help="Of the stage.")
    ] = "",
    swiglu_rule: SwigluRule = None,
) -> None:
    """Plan what a smaller model keeps: which layers, channels, heads and inner units.

    Only the configuration is read. Layers and all else count from 0, in the original.
    """
    sizes = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
    sizes |= {"hidden": hidden, "heads": heads, "ffn": ffn}
    about = {"name": name, "method": choose, "seed": seed}
    _plan(model, plan, after, sizes, about, layout=layers, swiglu_rule=swiglu_rule)


def recipe_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            parser=plain_text,
            help="openba_v2, the paper's plan from 15B to 3.4B.",
            show_default=False,
        ),
    ],
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of what is drawn.")] = 0,
) -> None:
    """Print a plan of the paper, for OpenBA's 15B."""
    with starting():
        from lmcore.compression.plan_files import dump_plan
        from lmcore.compression.recipes import RECIPES

    if recipe not in RECIPES:
        raise ValueError(f"RECIPE must be one of {', '.join(RECIPES)}: got {recipe!r:.60}")
    show_json(dump_plan(RECIPES[recipe](seed)), indent=1)


def _plan(
    model: str,
    output: str,
    after: str | None,
    sizes: dict[str, Any],
    about: dict[str, Any],
    *,
    layout: str,
    swiglu_rule: bool | None,
) -> None:
    with starting():
        from lmcore._files import find_output
        from lmcore.compression.choosing import Sizes
        from lmcore.compression.plan_files import read_plan, write_plan
        from lmcore.compression.planning import add_chosen_stage, start_plan
        from lmcore.cost import count_parameters

    find_output(output, [model])
    plan = start_plan(model, swiglu_rule=swiglu_rule)
    if after is not None:
        plan = start_plan(model, read_plan(after), swiglu_rule=swiglu_rule)
    made, shape = add_chosen_stage(plan, Sizes(**sizes), layout=layout, **about)
    write_plan(output, made)
    say(
        f"stage {len(made.stages)}: {count_parameters(shape).distinct:,} parameters of "
        f"{count_parameters(made.shape).distinct:,}"
    )
