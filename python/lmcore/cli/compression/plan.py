"""The commands `lmcore compression plan` and `lmcore compression recipe`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore.cli.compression.scoring import check_scoring, find_scores
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Quiet,
    Settings,
    SwigluRule,
    name_of_file,
    plain_text,
    whole,
)
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
    vocabulary: Annotated[
        int | None, whole(1, MOST, text="Tokens to keep, the most frequent of --counts.")
    ] = None,
    counts: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="How often each token occurs: what `lmcore compression count` writes, or lines "
            "`id count`.",
        ),
    ] = None,
    choose: Annotated[
        str,
        typer.Option(
            metavar="random|magnitude|activation|taylor|block_influence|learned",
            parser=plain_text,
            help="Which channels, heads and units are kept: drawn ones, those with the largest "
            "weights, the largest activations on --text, or those that a loss on it feels most. "
            "block_influence keeps the layers, in place of --layers, that change their input most; "
            "learned takes what `learn-masks` wrote as --scores.",
        ),
    ] = "random",
    text: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="What the model reads to be scored: lines, or JSONL with text, or with src and "
            "trg.",
        ),
    ] = None,
    tokens: Annotated[
        int | None, whole(1, MOST, text="Of --text that are read at most; 131072 by default.")
    ] = None,
    batch_size: Annotated[int, whole(1, 65536, text="Rows of --text that are read together.")] = 8,
    scores: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Scores of the model: read where the file is there, else written.",
        ),
    ] = None,
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
    quiet: Quiet = False,
) -> None:
    """Plan what a smaller model keeps: which layers, channels, heads and inner units.

    Only the configuration is read, for a vocabulary the tokenizer, and the weights where --choose
    asks for scores. All indices count from 0, in the original.
    """
    sizes = {"encoder_layers": encoder_layers, "decoder_layers": decoder_layers}
    sizes |= {"hidden": hidden, "heads": heads, "ffn": ffn}
    about = {"name": name, "method": choose, "seed": seed}
    files = {"output": plan, "after": after, "counts": counts}
    scoring = {"text": text, "tokens": tokens, "batch_size": batch_size, "scores": scores}
    scoring["quiet"] = quiet
    _plan(model, sizes, vocabulary, files, about, scoring, layout=layers, swiglu_rule=swiglu_rule)


def recipe_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            parser=plain_text,
            help="openba_v2, the paper's plan from 15B to 3.4B, or one that `recover` takes.",
            show_default=False,
        ),
    ],
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of what a plan draws.")] = 0,
    settings: Settings = None,
) -> None:
    """Print a plan of the paper, for OpenBA's 15B, or the settings of a recovery, as JSON."""
    with starting():
        from lmcore.compression.plan_files import dump_plan
        from lmcore.compression.recipes import RECIPES, RECOVERY_RECIPES

    if recipe in RECOVERY_RECIPES:
        _show_recovery(recipe, settings or [])
    elif recipe not in RECIPES:
        known = ", ".join((*RECIPES, *RECOVERY_RECIPES))
        raise ValueError(f"RECIPE must be one of {known}: got {recipe!r:.60}")
    elif settings:
        raise ValueError(f"--set belongs to a recovery: {recipe} is a plan")
    else:
        show_json(dump_plan(RECIPES[recipe](seed)), indent=1)


def _show_recovery(recipe: str, settings: list[str]) -> None:
    with starting():
        from lmcore.compression.recipes import RECOVERY_RECIPES
        from lmcore.training.config import choose_recipe, config_to_dict

    show_json(config_to_dict(choose_recipe(RECOVERY_RECIPES, recipe, settings)), indent=2)


def _plan(
    model: str,
    sizes: dict[str, Any],
    vocabulary: int | None,
    files: dict[str, Any],
    about: dict[str, Any],
    scoring: dict[str, Any],
    *,
    layout: str,
    swiglu_rule: bool | None,
) -> None:
    with starting():
        from lmcore._files import find_output
        from lmcore.compression.choosing import Sizes
        from lmcore.compression.plan_files import read_plan, write_plan
        from lmcore.compression.planning import add_chosen_stage, choose_vocabulary, start_plan
        from lmcore.compression.pruning import describe_limits
        from lmcore.cost import count_parameters

    counts, after = files["counts"], files["after"]
    if (vocabulary is None) != (counts is None):
        raise ValueError("--vocabulary and --counts belong together: got one of them")
    method, quiet = about["method"], scoring.pop("quiet")
    check_scoring(model, method, sizes, scoring)
    find_output(files["output"], [model, *filter(None, (scoring["text"], scoring["scores"]))])
    old = None if after is None else read_plan(after)
    plan = start_plan(model, old, swiglu_rule=swiglu_rule)
    ids = None if counts is None else choose_vocabulary(model, counts, vocabulary or 0)
    wanted = Sizes(**sizes, vocabulary=ids)
    if method != "random":  # sizes that do not fit are found before the model is scored
        add_chosen_stage(plan, wanted, layout=layout)
    found = find_scores(model, method, plan, scoring, quiet=quiet)
    made, shape = add_chosen_stage(plan, wanted, scores=found, layout=layout, **about)
    write_plan(files["output"], made)
    say(
        f"stage {len(made.stages)}: {count_parameters(shape).distinct:,} parameters of "
        f"{count_parameters(made.shape).distinct:,}"
    )
    for line in describe_limits(made):
        say(line)
