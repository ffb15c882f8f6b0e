"""The commands `lmcore recsys ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import make_app, starting
from lmcore.cli.options import (
    MOST,
    ColdItems,
    Core,
    Data,
    Device,
    Format,
    Heads,
    ItemColumn,
    Last,
    MinItemUsers,
    MinUserItems,
    Model,
    Out,
    Quiet,
    Resume,
    Seed,
    Settings,
    SkipBadRows,
    SplitBy,
    TestFrom,
    TestQuantile,
    Threads,
    TimeColumn,
    UserColumn,
    ValidFrom,
    ValidQuantile,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import is_first_process, say, show, show_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import Interactions, Split
    from lmcore.recsys.evaluation import Evaluation
    from lmcore.recsys.folder import TrainedRun
    from lmcore.recsys.recipes import TrainConfig
    from lmcore.recsys.reports import InteractionReport
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.training import TrainResult

app = make_app()


@app.command("train")
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
    min_user_items: MinUserItems = None,
    min_item_users: MinItemUsers = None,
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
    form = _form(data_format, user_column, item_column, time_column, skip_bad_rows)
    times = (valid_from, test_from, valid_quantile, test_quantile)
    cut = (_make_rule(split_by, last, *times, cold_items), core, min_user_items, min_item_users)
    kept = {"data_path": data, "data_options": form, "resume": resume, "progress": not quiet}
    found = _train(config, _read_split(data, form, *cut, quiet=quiet), out, kept)
    _print_result(found, config, quiet=quiet)


@app.command("recipe")
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


@app.command("evaluate")
def evaluate_command(
    model: Model,
    data: Data,
    protocol: Annotated[
        str,
        typer.Option(metavar="full|sampled", help="Rank among all items, or among 100 drawn ones."),
    ] = "full",
    split: Annotated[
        str, typer.Option(metavar="valid|test", help="Which of each user's last items.")
    ] = "test",
    ties: Annotated[
        str,
        typer.Option(
            metavar="average|optimistic|pessimistic", help="How items of equal scores count."
        ),
    ] = "average",
    seed: Seed = 0,
    heads: Heads = 1,
    device: Device = None,
    threads: Threads = None,
    data_format: Format = "auto",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    skip_bad_rows: SkipBadRows = False,
    split_by: SplitBy = None,
    last: Last = None,
    valid_from: ValidFrom = None,
    test_from: TestFrom = None,
    valid_quantile: ValidQuantile = None,
    test_quantile: TestQuantile = None,
    cold_items: ColdItems = None,
    metric: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            parser=plain_text,
            help="HR, Recall, Precision, NDCG, MAP, MRR, Coverage, Popularity or Novelty with a K, "
            "such as NDCG@20, or MRR, any number of times, in place of the usual six.",
        ),
    ] = None,
    baselines: Annotated[
        bool,
        typer.Option("--baselines/--no-baselines", help="Measure what a model must beat, too."),
    ] = True,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Rank each user's held-out items: HR, NDCG and MRR, or other metrics.

    Beside the model stand popularity and item-kNN, which know the training part alone. Item ids
    are read by DIR's id_map.json; without one, as with weights of others, they are the rows of
    the model's table. A run's data are filtered and split as for its training; options of the
    split are for weights of others.
    """
    times = (valid_from, test_from, valid_quantile, test_quantile)
    rule = _make_rule(split_by, last, *times, cold_items)
    form = _form(data_format, user_column, item_column, time_column, skip_bad_rows)
    run = _load_run(model, data, form, heads, device, quiet=as_json)
    held_out = _split_run(run, rule, quiet=as_json)
    asked = _measures(split, protocol, ties, seed, metric, threads)
    _print_evaluation(_evaluate(run.model, held_out, asked, baselines), as_json)


@app.command("recommend")
def recommend_command(
    model: Model,
    users: Annotated[
        list[str],
        typer.Argument(
            metavar="USERS", help="Ids of users as in the data, or `all`.", show_default=False
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Their interactions; those of the training by default.",
        ),
    ] = None,
    count: Annotated[
        int, whole(1, MOST, "--top", "-k", text="Items for each user.", metavar="K")
    ] = 10,
    heads: Heads = 1,
    device: Device = None,
    data_format: Format = "auto",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Print each user's best items that are not in the history, one JSON object for a user."""
    with starting():
        from lmcore._rows import RowWriter
        from lmcore.recsys.recommendation import recommend

    form = _form(data_format, user_column, item_column, time_column, skip_bad_rows)
    run = _load_run(model, data, form, heads, device, quiet=True)
    chosen = None if users == ["all"] else users
    with RowWriter("-") as rows:
        for recommendation in recommend(run.model, run.interactions, chosen, count=count):
            rows.write(recommendation.to_dict())


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


def _measures(
    split: str,
    protocol: str,
    ties: str,
    seed: int,
    metric: list[str] | None,
    threads: int | None,
) -> dict[str, Any]:
    """How the held-out items are ranked and what is made of it."""
    rule = {"split": split, "protocol": protocol, "ties": ties, "seed": seed, "metrics": metric}
    return {**rule, "threads": limit_threads(threads)}


def _make_config(recipe: str, options: dict[str, Any], settings: list[str] | None) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    from lmcore.recsys.recipes import RECIPES
    from lmcore.training.config import choose_recipe

    return choose_recipe(RECIPES, recipe, settings or [], options)


def _form(
    data_format: str, user: str | None, item: str | None, time: str | None, skip_bad_rows: bool
) -> dict[str, Any]:
    """How data are read: what a run notes of it, for what reads them again."""
    columns = {"user": user, "item": item, "time": time}
    return {"format": data_format, **columns, "skip_bad_rows": skip_bad_rows}


def _make_rule(
    split_by: str | None,
    last: int | None,
    valid_from: str | None,
    test_from: str | None,
    valid_quantile: float | None,
    test_quantile: float | None,
    cold_items: Any,
) -> SplitRule | None:
    """The rule that the options say; None where there are none."""
    from lmcore.recsys.rules import SplitRule, parse_time

    options: dict[str, Any] = {
        "by": split_by,
        "last": last,
        "valid_from": None if valid_from is None else parse_time("valid_from", valid_from),
        "test_from": None if test_from is None else parse_time("test_from", test_from),
        "valid_quantile": valid_quantile,
        "test_quantile": test_quantile,
        "cold_items": cold_items,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return SplitRule(**given) if given else None


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
        few = f"fewer than {split.rule.least} items"
        say(f"{split.training_only_count} users have {few}: for training only")
    if not quiet:
        _say_split(split)
    return split


def _split_run(run: TrainedRun, rule: SplitRule | None, *, quiet: bool) -> Split:
    """The interactions as the training split them; another split would test what it has seen."""
    from lmcore.recsys.splits import split_interactions

    other = (
        f"the run was trained on another split, {run.rule.describe()}: without options of the "
        "split, that one is taken"
    )
    # By the kind of split first: one that cannot be made of these data is another one, too.
    if run.has_recipe and rule is not None and rule.by != run.rule.by:
        raise ValueError(other)
    split = split_interactions(run.interactions, rule or run.rule)
    if run.has_recipe and split.rule != run.rule:
        raise ValueError(other)
    if not quiet:
        _say_split(split)
    return split


def _say_split(split: Split) -> None:
    """Lines on a split that is not the usual one, on items new to it, and on what leaks."""
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.splits import find_leakage

    if split.rule != SplitRule():
        say(split.report.describe())
    elif split.report.cold_targets:
        say(f"{split.report.cold_targets} held-out items are new to training")
    leakage = find_leakage(split)
    if leakage is not None:
        say(f"{split.rule.by}: {leakage.describe()}")


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


def _load_run(
    model: str,
    data: str | None,
    form: dict[str, Any],
    heads: int,
    device: str | None,
    *,
    quiet: bool,
) -> TrainedRun:
    """The model with interactions in its ids, after a line on what these are."""
    with starting():
        from lmcore.recsys.folder import load_run

    run = load_run(
        model,
        data=data,
        **form,
        num_attention_heads=heads,
        device="auto" if device is None else device,
    )
    _say_report(run.interactions.report, quiet=quiet)
    return run


def _evaluate(
    model: SequenceModel, data: Split, asked: dict[str, Any], baselines: bool
) -> dict[str, Evaluation]:
    """The model's result, and those of what it must beat."""
    with starting():
        from lmcore.recsys.evaluation import evaluate, evaluate_baselines

    found = {"model": evaluate(model, data, **asked)}
    return found | evaluate_baselines(data, **asked) if baselines else found


def _print_evaluation(found: Mapping[str, Evaluation], as_json: bool) -> None:
    """A table or an object; of a model alone as it was before there were baselines."""
    from lmcore._tables import format_table

    result, *_ = found.values()
    if as_json:
        others = {
            name: {"ties": other.ties, "metrics": other.metrics}
            for name, other in found.items()
            if other is not result
        }
        show_json(result.to_dict() | ({"baselines": others} if others else {}))
        return
    show(f"{result.split}, {result.protocol}: {result.users} users, {result.ties} with ties")
    rows = [
        (name, *(f"{column.metrics[name]:.4f}" for column in found.values()))
        for name in result.metrics
    ]
    head = ("", *found) if len(found) > 1 else None
    show("\n".join(format_table(rows, head, gap=2 if head else 1)))


def _read_interactions(path: str, form: dict[str, Any], *, quiet: bool) -> Interactions:
    """The interactions of a file, after a line on what they are."""
    from lmcore.recsys.reading import read_interactions

    found = read_interactions(path, **form)
    _say_report(found.report, quiet=quiet)
    return found


def _say_report(report: InteractionReport, *, quiet: bool) -> None:
    from lmcore.recsys.reports import ORDER_TRUSTED

    for row in report.listed_skipped:
        say(f"skipped {row}")
    if not quiet:
        numbers = {k: v for k, v in report.to_dict().items() if type(v) is int and v}
        say(", ".join(f"{v} {k.replace('_', ' ')}" for k, v in numbers.items()))
        if report.is_order_trusted:
            say(ORDER_TRUSTED)
