"""The commands `lmcore recsys train` and `lmcore recsys recipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.failures import starting
from lmcore.cli.options import (
    MOST,
    Device,
    Out,
    Quiet,
    Resume,
    Settings,
    SkipBadRows,
    Threads,
    limit_threads,
    whole,
)
from lmcore.cli.recsys.data_options import (
    Data,
    Format,
    ItemColumn,
    TimeColumn,
    UserColumn,
    make_form,
    say_report,
)
from lmcore.cli.recsys.split_options import (
    ColdItems,
    Core,
    Last,
    MinItem,
    MinUser,
    SplitBy,
    TestFrom,
    TestQuantile,
    ValidFrom,
    ValidQuantile,
    make_rule,
    say_split,
)
from lmcore.cli.terminal import is_first_process, say, show_json

if TYPE_CHECKING:
    from lmcore.recsys.data import Interactions, Split
    from lmcore.recsys.recipes import TrainConfig
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.training import TrainResult


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="plain, representation, reversal, consistency (the complete UFNRec), patient, "
            "gbce, sampled_softmax, cross_entropy, gbce_mined or sampled_softmax_mined.",
            show_default=False,
        ),
    ],
    data: Data,
    out: Out,
    backbone: Annotated[
        str | None, typer.Option(metavar="sasrec|gru4rec|fmlp|ligr", help="The sequence model.")
    ] = None,
    epochs: Annotated[int | None, whole(1, MOST, text="When to end; after 201 by default.")] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; 0 by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    data_format: Format = "auto",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    skip_bad_rows: SkipBadRows = False,
    core: Core = None,
    min_user: MinUser = None,
    min_item: MinItem = None,
    split_by: SplitBy = None,
    last: Last = None,
    valid_from: ValidFrom = None,
    test_from: TestFrom = None,
    valid_quantile: ValidQuantile = None,
    test_quantile: TestQuantile = None,
    cold_items: ColdItems = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train a sequential recommender; a killed or interrupted run goes on where it was.

    The last item of each user is kept for testing, the one before it for validation, where
    --split-by does not say otherwise. DIR gets recipe.json, log.jsonl, states to go on from,
    models, and a link `best` to the best of them in validation. Under torchrun all processes share
    each batch.
    """
    quiet |= not is_first_process()
    config = _make_config(recipe, _options(backbone, epochs, seed, device, threads), settings)
    form = make_form(data_format, user_column, item_column, time_column, skip_bad_rows)
    times = (valid_from, test_from, valid_quantile, test_quantile)
    cut = (make_rule(split_by, last, *times, cold_items), core, min_user, min_item)
    kept = {"data_path": data, "data_options": form, "resume": resume, "progress": not quiet}
    found = _train(config, _read_split(data, form, *cut, quiet=quiet), out, kept)
    _print_result(found, config, quiet=quiet)


def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "plain",
    settings: Settings = None,
) -> None:
    """Print the settings of a recipe as JSON."""
    with starting():
        from lmcore.training.config import config_to_dict

    show_json(config_to_dict(_make_config(recipe, {}, settings)), indent=2)


def _options(
    backbone: str | None,
    epochs: int | None,
    seed: int | None,
    device: str | None,
    threads: int | None,
) -> dict[str, Any]:
    """What options of its own change in a recipe."""
    options = {"backbone": backbone, "epochs": epochs, "loop.seed": seed, "device.device": device}
    return {**options, "device.threads": limit_threads(threads)}


def _make_config(recipe: str, options: dict[str, Any], settings: list[str] | None) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    from lmcore.recsys.recipes import RECIPES
    from lmcore.training.config import choose_recipe

    return choose_recipe(RECIPES, recipe, settings or [], options)


def _read_split(
    path: str,
    form: dict[str, Any],
    rule: SplitRule | None,
    core: int | None,
    min_user: int | None,
    min_item: int | None,
    *,
    quiet: bool,
) -> Split:
    """The interactions of a file, filtered and cut for training; after lines on both."""
    from lmcore.recsys.filters import filter_interactions
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.splits import split_interactions

    rows = _read_interactions(path, form, quiet=quiet)
    if core or min_user or min_item:
        rows, report = filter_interactions(rows, core=core, min_user=min_user, min_item=min_item)
        if not quiet:
            say(report.describe())
    split = split_interactions(rows, rule or SplitRule())
    if not quiet and split.training_only_count and split.rule.by != "time":
        few = count_noun(split.training_only_count, "user")
        say(f"{few} with fewer than {split.rule.least} items: for training only")
    if not quiet:
        say_split(split)
    return split


def _read_interactions(path: str, form: dict[str, Any], *, quiet: bool) -> Interactions:
    """The interactions of a file, after a line on what they are."""
    from lmcore.recsys.reading import read_interactions

    found = read_interactions(path, **form)
    say_report(found.report, quiet=quiet)
    return found


def _train(config: TrainConfig, split: Split, out: str, kept: dict[str, Any]) -> TrainResult:
    with starting():
        from lmcore.recsys.training import train

    return train(config, split, out, **kept)


def _print_result(result: TrainResult, config: TrainConfig, *, quiet: bool) -> None:
    """One JSON object, of the first process; after lines on what did not happen."""
    if result.best_value is None and not quiet:
        say("no user has a validation item: `best` is the last model, and its worth is not known")
    if result.waits_for is not None and not quiet:
        late = "mining" if config.mining else "the moving average"
        say(f"{late} never started: it starts {result.waits_for}")
    if is_first_process():
        summary = {"out": str(result.folder), "epochs": result.epochs}
        best = {"best_epoch": result.best_epoch, config.loop.metric: result.best_value}
        show_json({**summary, **best})
