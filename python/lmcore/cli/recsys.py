"""The commands `lmcore recsys ...`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import make_app, starting
from lmcore.cli.options import (
    MOST,
    Data,
    Device,
    Format,
    Heads,
    Model,
    Out,
    Quiet,
    Resume,
    Seed,
    Settings,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    whole,
)
from lmcore.cli.terminal import is_first_process, say, show, show_json

if TYPE_CHECKING:
    from lmcore.recsys.data import InteractionReport, Interactions, Split
    from lmcore.recsys.evaluation import Evaluation
    from lmcore.recsys.folder import TrainedRun
    from lmcore.recsys.recipes import TrainConfig
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
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train a sequential recommender; a killed or interrupted run goes on where it was.

    The last item of each user is kept for testing, the one before it for validation. DIR gets
    recipe.json, log.jsonl, states to go on from, models, and a link `best` to the best of them in
    validation. Under torchrun all processes share each batch.
    """
    with starting():
        from lmcore.recsys.training import train

    quiet |= not is_first_process()
    options = {"backbone": backbone, "epochs": epochs, "loop.seed": seed, "device.device": device}
    options |= {"device.threads": limit_threads(threads)}
    config = _make_config(recipe, options, settings or [])
    split = _read_split(data, data_format, skip_bad_rows, quiet=quiet)
    kept: dict[str, Any] = _note(data, data_format, skip_bad_rows, resume=resume)
    _print_result(train(config, split, out, progress=not quiet, **kept), config.loop.metric)


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

    show_json(config_to_dict(_make_config(recipe, {}, settings or [])), indent=2)


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
    skip_bad_rows: SkipBadRows = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object and nothing else.")
    ] = False,
) -> None:
    """Rank each user's held-out item: HR, NDCG and MRR.

    Item ids are read by DIR's id_map.json; without one, as with weights of others, they are the
    rows of the model's table.
    """
    with starting():
        from lmcore.recsys.data import leave_one_out
        from lmcore.recsys.evaluation import evaluate

    run = _load_run(model, data, data_format, skip_bad_rows, heads, device, quiet=as_json)
    rule: dict[str, Any] = {"split": split, "protocol": protocol, "ties": ties, "seed": seed}
    held_out = leave_one_out(run.interactions)
    result = evaluate(run.model, held_out, threads=limit_threads(threads), **rule)
    _print_evaluation(result, as_json=as_json)


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
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Print each user's best items that are not in the history, one JSON object for a user."""
    with starting():
        from lmcore._rows import RowWriter
        from lmcore.recsys.recommendation import recommend

    run = _load_run(model, data, data_format, skip_bad_rows, heads, device, quiet=True)
    chosen = None if users == ["all"] else users
    with RowWriter("-") as rows:
        for recommendation in recommend(run.model, run.interactions, chosen, count=count):
            rows.write(recommendation.to_dict())


def _make_config(recipe: str, options: dict[str, Any], settings: list[str]) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    from lmcore.recsys.recipes import RECIPES
    from lmcore.training.config import choose_recipe

    return choose_recipe(RECIPES, recipe, settings, options)


def _read_split(path: str, data_format: str, skip_bad_rows: bool, *, quiet: bool) -> Split:
    """The interactions of a file, cut for training; after a line on who has too few."""
    from lmcore.recsys.data import leave_one_out

    split = leave_one_out(_read_interactions(path, data_format, skip_bad_rows, quiet=quiet))
    if not quiet and split.training_only_count:
        count = split.training_only_count
        say(f"{count} users have fewer than 3 items: for training only")
    return split


def _note(path: str, data_format: str, skip_bad_rows: bool, *, resume: bool) -> dict[str, Any]:
    """What the run notes of its data, for what reads them again; and whether it goes on."""
    options = {"format": data_format, "skip_bad_rows": skip_bad_rows}
    return {"data_path": path, "data_options": options, "resume": resume}


def _print_result(result: TrainResult, metric: str) -> None:
    """One JSON object, of the first process."""
    if is_first_process():
        summary = {"out": str(result.folder), "epochs": result.epochs}
        show_json({**summary, "best_epoch": result.best_epoch, metric: result.best_value})


def _load_run(
    model: str,
    data: str | None,
    data_format: str,
    skip_bad_rows: bool,
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
        format=data_format,
        skip_bad_rows=skip_bad_rows,
        num_attention_heads=heads,
        device="auto" if device is None else device,
    )
    _say_report(run.interactions.report, quiet=quiet)
    return run


def _print_evaluation(result: Evaluation, *, as_json: bool) -> None:
    from lmcore._tables import format_table

    if as_json:
        show_json(result.to_dict())
        return
    show(f"{result.split}, {result.protocol}: {result.users} users, {result.ties} with ties")
    metrics = [(name, f"{value:.4f}") for name, value in result.metrics.items()]
    show("\n".join(format_table(metrics, gap=1)))


def _read_interactions(
    path: str, data_format: str, skip_bad_rows: bool, *, quiet: bool
) -> Interactions:
    """The interactions of a file, after a line on what they are."""
    from lmcore.recsys.reading import read_interactions

    found = read_interactions(path, format=data_format, skip_bad_rows=skip_bad_rows)
    _say_report(found.report, quiet=quiet)
    return found


def _say_report(report: InteractionReport, *, quiet: bool) -> None:
    for row in report.listed_skipped:
        say(f"skipped {row}")
    if not quiet:
        numbers = {k: v for k, v in report.to_dict().items() if isinstance(v, int) and v}
        say(", ".join(f"{v} {k.replace('_', ' ')}" for k, v in numbers.items()))
