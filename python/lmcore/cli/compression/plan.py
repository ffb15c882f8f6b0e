"""The commands `lmcore compression plan` and `lmcore compression recipe`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.compression.scoring import check_scoring, find_scores
from lmcore.cli.compression.searching import add_best_stages, check_searching, search_sizes
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    AsJson,
    Device,
    Quiet,
    Settings,
    SwigluRule,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import say, show_json

if TYPE_CHECKING:
    from lmcore.compression.path import PathConfig


def plan_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|DIR",
            parser=name_of_file,
            help="A config.json, or the folder of a model or of a run, whose best model it is: the "
            "original.",
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
    targets: Annotated[
        list[str] | None,
        typer.Option(
            "--target",
            metavar="params|memory_mb|ms_per_token=VALUE",
            help="What to come down to, in place of sizes, which are searched: 3.4e9, 3.4B, or a "
            "share such as 25%. Sizes that are given beside it stay.",
        ),
    ] = None,
    divisor: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="Of sizes that are searched, such as hidden=64; any number of times.",
        ),
    ] = None,
    least: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=N",
            help="Of sizes that are searched, such as decoder_layers=6; half of what is there in "
            "each round by default.",
        ),
    ] = None,
    candidates: Annotated[
        int | None, whole(1, 1000, text="Sizes under the target to list; 10 by default.")
    ] = None,
    rounds: Annotated[
        int | None,
        whole(
            1,
            6,
            text="Of pruning and recovery on the way to the target; as few by default as cut at "
            "most half of the parameters each.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="A text like --text, by whose loss right after the cut the best is chosen.",
        ),
    ] = None,
    valid_tokens: Annotated[
        int | None, whole(1, MOST, text="Of --valid that are read at most; 131072 by default.")
    ] = None,
    losses: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Losses of candidates on --valid: read where the file is there, and added to.",
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            metavar="float32|bfloat16|float16|int8|int4",
            parser=plain_text,
            help="In which memory_mb is counted; bfloat16 by default.",
        ),
    ] = None,
    rows: Annotated[
        int | None, whole(1, MOST, text="Whose keys and values memory_mb counts; 1 by default.")
    ] = None,
    source_tokens: Annotated[
        int | None, whole(0, MOST, text="Of such a row, that are read; 512 by default.")
    ] = None,
    target_tokens: Annotated[
        int | None, whole(1, MOST, text="Of such a row, that are generated; 512 by default.")
    ] = None,
    device: Device = None,
    swiglu_rule: SwigluRule = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Plan what a smaller model keeps: which layers, channels, heads and inner units.

    Only the configuration is read, for a vocabulary the tokenizer, and the weights where --choose
    asks for scores. All indices count from 0, in the original.
    """
    _plan(locals())


def recipe_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            parser=plain_text,
            help="openba_v2, the paper's plan from 15B to 3.4B; a path, for `path`: "
            "openba_v2_path, the same with its training, or tiny_path, a small model's; or one "
            "that `recover` or `learn-masks` takes.",
            show_default=False,
        ),
    ],
    seed: Annotated[int, whole(0, 2**64 - 1, text="Of what a plan draws.")] = 0,
    settings: Settings = None,
) -> None:
    """Print a plan of the paper, for OpenBA's 15B, a path, or settings of training, as JSON."""
    _show_recipe(recipe, seed, settings or [])


def _show_recipe(recipe: str, seed: int, settings: list[str]) -> None:
    with starting():
        from lmcore.compression.plan_files import dump_plan
        from lmcore.compression.recipes import MASK_RECIPES, PATHS, RECIPES, RECOVERY_RECIPES

    training: dict[str, Callable[[], Any]] = {**RECOVERY_RECIPES, **MASK_RECIPES}
    if recipe in training:
        _show_training(training, recipe, settings)
    elif recipe not in RECIPES and recipe not in PATHS:
        known = ", ".join((*RECIPES, *PATHS, *training))
        raise ValueError(f"RECIPE must be one of {known}: got {recipe!r:.60}")
    elif settings:
        what = "a path" if recipe in PATHS else "a plan"
        raise ValueError(f"--set belongs to settings of training: {recipe} is {what}")
    elif recipe in PATHS:
        _show_path(PATHS[recipe](seed))
    else:
        show_json(dump_plan(RECIPES[recipe](seed)), indent=1)


def _show_training(recipes: dict[str, Callable[[], Any]], recipe: str, settings: list[str]) -> None:
    with starting():
        from lmcore.training.config import choose_recipe, config_to_dict

    show_json(config_to_dict(choose_recipe(recipes, recipe, settings)), indent=2)


def _show_path(path: PathConfig) -> None:
    with starting():
        from lmcore.compression.path_files import dump_path

    show_json(dump_path(path), indent=1)


_SIZES = ("encoder_layers", "decoder_layers", "hidden", "heads", "ffn")
_SCORING = ("text", "tokens", "batch_size", "scores")
_SEARCHING = (
    "targets", "divisor", "least", "candidates", "rounds", "valid", "valid_tokens", "losses",
    "dtype", "rows", "source_tokens", "target_tokens", "device", "as_json",
)  # fmt: skip


def _plan(given: dict[str, Any]) -> None:
    """Plans by what the command was given, by the names of its parameters."""
    with starting():
        from lmcore._files import find_output
        from lmcore._manifest import find_model
        from lmcore.compression.choosing import Sizes
        from lmcore.compression.plan import prune_shape
        from lmcore.compression.plan_files import read_plan, write_plan
        from lmcore.compression.planning import add_chosen_stage, choose_vocabulary, start_plan
        from lmcore.compression.pruning import describe_limits
        from lmcore.cost import count_parameters

    model, counts, after = str(find_model(given["model"])), given["counts"], given["after"]
    method, quiet, layout = given["choose"], given["quiet"], given["layers"]
    sizes, scoring, searching = (
        {name: given[name] for name in names} for names in (_SIZES, _SCORING, _SEARCHING)
    )
    about = {"name": given["name"], "method": method, "seed": given["seed"]}
    asked = check_searching(searching)
    if (given["vocabulary"] is None) != (counts is None):
        raise ValueError("--vocabulary and --counts belong together: got one of them")
    check_scoring(model, method, sizes, scoring, searching)
    read = (scoring["text"], scoring["scores"], searching["valid"], searching["losses"])
    find_output(given["plan"], [model, *filter(None, read)])
    old = None if after is None else read_plan(after)
    plan = start_plan(model, old, swiglu_rule=given["swiglu_rule"])
    ids = None if counts is None else choose_vocabulary(model, counts, given["vocabulary"] or 0)
    wanted = Sizes(**sizes, vocabulary=ids)
    # Sizes that do not fit are found before the model is scored.
    search = None
    if asked is not None:
        search = search_sizes(model, plan, asked, wanted, {**searching, "quiet": quiet})
    elif method != "random":
        add_chosen_stage(plan, wanted, layout=layout)
    found = find_scores(model, method, plan, scoring, quiet=quiet)
    if search is None:
        made, _ = add_chosen_stage(plan, wanted, scores=found, layout=layout, **about)
    else:
        made = add_best_stages(plan, search, {**about, "scores": found, "layout": layout})
    write_plan(given["plan"], made)
    for number in range(len(plan.stages) + 1, len(made.stages) + 1):
        left = count_parameters(prune_shape(made, number)).distinct
        say(f"stage {number}: {left:,} parameters of {count_parameters(made.shape).distinct:,}")
    for line in describe_limits(made):
        say(line)
