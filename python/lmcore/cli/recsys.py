"""The commands `lmcore recsys ...`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._json import read_json
from lmcore.cli.failures import Commands, starting
from lmcore.cli.options import (
    MOST,
    Data,
    Device,
    Format,
    Heads,
    Model,
    Seed,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    whole,
)
from lmcore.cli.terminal import say, show, show_json

if TYPE_CHECKING:
    from lmcore.recsys.backbone import SequenceModel
    from lmcore.recsys.data import IdMap, Interactions
    from lmcore.recsys.recipes import TrainConfig

app = typer.Typer(cls=Commands, no_args_is_help=True, help="Sequential recommendation (UFNRec).")


@app.command("train")
def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="plain, representation, reversal, consistency (the complete UFNRec) or patient.",
            show_default=False,
        ),
    ],
    data: Data,
    out: Annotated[
        str,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Where the model, its log and its state go.",
            show_default=False,
        ),
    ],
    backbone: Annotated[
        str | None, typer.Option(metavar="sasrec|gru4rec|fmlp", help="The sequence model.")
    ] = None,
    epochs: Annotated[int | None, whole(1, MOST, text="When to end; after 201 by default.")] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; 0 by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="Another setting of the recipe, any number of times; `recsys recipe` lists them.",
        ),
    ] = None,
    data_format: Format = "auto",
    skip_bad_rows: SkipBadRows = False,
    resume: Annotated[
        bool,
        typer.Option("--resume/--no-resume", help="Go on from DIR's state, or start anew."),
    ] = True,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress.")] = False,
) -> None:
    """Train a sequential recommender; a killed or interrupted run goes on where it was.

    The last item of each user is kept for testing, the one before it for validation. DIR gets
    recipe.json, log.jsonl, states to go on from, models, and a link `best` to the best of them in
    validation. Under torchrun all processes share each batch.
    """
    with starting():
        from lmcore.recsys.data import leave_one_out
        from lmcore.recsys.training import train

    is_first = os.environ.get("RANK", "0") == "0"
    quiet = quiet or not is_first
    options = {
        "backbone": backbone, "epochs": epochs, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(recipe, options, settings or [])
    split = leave_one_out(_read_interactions(data, data_format, skip_bad_rows, quiet=quiet))
    if not quiet and split.training_only_count:
        count = split.training_only_count
        say(f"{count} users have fewer than 3 items: for training only")
    result = train(
        config,
        split,
        out,
        resume=resume,
        progress=not quiet,
        data_path=data,
        data_options={"format": data_format, "skip_bad_rows": skip_bad_rows},
    )
    summary = {
        "out": str(result.folder),
        "epochs": result.epochs,
        "best_epoch": result.best_epoch,
        config.loop.metric: result.best_value,
    }
    if is_first:
        show_json(summary)


@app.command("recipe")
def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "plain",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Another setting.")
    ] = None,
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
        from lmcore.recsys.evaluate import evaluate, load_model

    place = "auto" if device is None else device
    trained = load_model(model, num_attention_heads=heads, device=place)
    ids = _find_ids(model, trained)
    interactions = _read_interactions(data, data_format, skip_bad_rows, ids, quiet=as_json)
    result = evaluate(
        trained,
        leave_one_out(interactions),
        split=split,
        protocol=protocol,
        ties=ties,
        seed=seed,
        threads=limit_threads(threads),
    )
    if as_json:
        show_json(result.to_dict())
        return
    show(f"{result.split}, {result.protocol}: {result.users} users, {result.ties} with ties")
    for name, value in result.metrics.items():
        show(f"{name:8}{value:.4f}")


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
        from lmcore.recsys.evaluate import load_model
        from lmcore.recsys.recommend import recommend

    source = data
    if source is None:
        source, options = _find_data(model)
        # As the training read it, unless another way is asked for.
        data_format = options["format"] if data_format == "auto" else data_format
        skip_bad_rows = skip_bad_rows or options["skip_bad_rows"]
    place = "auto" if device is None else device
    trained = load_model(model, num_attention_heads=heads, device=place)
    ids = _find_ids(model, trained)
    interactions = _read_interactions(source, data_format, skip_bad_rows, ids, quiet=True)
    chosen = None if users == ["all"] else users
    for recommendation in recommend(trained, interactions, chosen, count=count):
        show_json(recommendation.to_dict())


def _make_config(recipe: str, options: dict[str, Any], settings: list[str]) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    from lmcore.recsys.recipes import RECIPES
    from lmcore.training.config import override

    if recipe not in RECIPES:
        raise ValueError(f"RECIPE must be one of {', '.join(RECIPES)}: got {recipe!r}")
    given = [f"{name}={value}" for name, value in options.items() if value is not None]
    return override(RECIPES[recipe](), [*settings, *given])


def _read_interactions(
    path: str, data_format: str, skip_bad_rows: bool, id_map: IdMap | None = None, *, quiet: bool
) -> Interactions:
    """The interactions of a file, with the item ids of a map if one is given."""
    from lmcore.recsys.data import read_interactions

    found = read_interactions(path, format=data_format, skip_bad_rows=skip_bad_rows, id_map=id_map)
    for row in found.report.listed_skipped:
        say(f"skipped {row}")
    if not quiet:
        numbers = {k: v for k, v in found.report.to_dict().items() if isinstance(v, int) and v}
        say(", ".join(f"{v} {k.replace('_', ' ')}" for k, v in numbers.items()))
    return found


def _find_ids(path: str, model: SequenceModel) -> IdMap:
    """The ids that a model was trained with: its folder's, or the rows of its table."""
    from lmcore.recsys.data import IdMap
    from lmcore.training.manifest import find_model

    saved = find_model(path) / "id_map.json"
    return IdMap.load(saved) if saved.is_file() else IdMap.identity(0, model.config.item_count)


def _find_data(model: str) -> tuple[str, dict[str, Any]]:
    """The file that a run was trained on, and how it was read."""
    recipe = Path(model) / "recipe.json"
    if not recipe.is_file():
        raise ValueError(f"{model}: holds no recipe.json that names the data; give --data FILE")
    content = read_json(recipe, "the recipe of a run")
    data = content.get("data") if isinstance(content, dict) else None
    if not isinstance(data, dict) or "path" not in data:
        raise ValueError(f"{recipe}: data.path is missing; give --data FILE")
    path = data["path"]
    if not isinstance(path, str | None):
        raise ValueError(f"{recipe}: not the recipe of a run: data.path is no text: {path!r}")
    # Runs of version 0.1.0 did not note how they read.
    options = {"format": "auto", "skip_bad_rows": False}
    noted = {name: data.get(name, usual) for name, usual in options.items()}
    for name, usual in options.items():
        if type(noted[name]) is not type(usual):
            raise ValueError(f"{recipe}: not the recipe of a run: data.{name} is {noted[name]!r}")
    if path is None or not Path(path).is_file():
        raise ValueError(f"{recipe}: the data {path} is not there; give --data FILE")
    return path, noted
