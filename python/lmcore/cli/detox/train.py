"""The commands `lmcore detox train` and `lmcore detox recipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

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
    name_of_file,
    whole,
)
from lmcore.cli.terminal import is_first_process, say, show_json

if TYPE_CHECKING:
    from lmcore.detox.recipes import TrainConfig

_Released = Annotated[
    bool,
    typer.Option(
        "--released",
        help="The contrastive term as the released code has it: weight 0.5, padding in the mean, "
        "anchors in every step.",
    ),
]


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="tiny (a small model from random weights), gpt2_xl, flan_t5_xl, mistral_7b, "
            "llama2_7b, llama2_13b, alpaca_7b or llama_33b.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="JSONL: rows of `detox chains`. A name that ends with .gz is decompressed, `-` is "
            "standard input.",
            show_default=False,
        ),
    ],
    out: Out,
    valid: Annotated[
        str | None,
        typer.Option(metavar="FILE", parser=name_of_file, help="Such rows for validation."),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model to start from, or its name; that of the recipe by default.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, whole(1, MOST, text="When to end; as the recipe says by default.")
    ] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; 42 by default.")
    ] = None,
    released: _Released = False,
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train a model to write chains, with a contrastive term against toxic continuations.

    DIR gets recipe.json, log.jsonl, states to go on from, models, and a link `best` to the best of
    them in validation, with its tokenizer. A killed run goes on. Under torchrun all processes
    share each batch.
    """
    options = {
        "model": model, "epochs": epochs, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(recipe, options, settings or [], released)
    rows = _read_rows(data, skip_bad_rows)
    given = {"valid": [] if valid is None else _read_rows(valid, skip_bad_rows), "resume": resume}
    paths = {"data_path": data, "valid_path": valid}
    _train(config, rows, out, paths, progress=not quiet and is_first_process(), **given)


def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "gpt2_xl",
    released: _Released = False,
    settings: Settings = None,
) -> None:
    """Print the settings of a recipe as JSON."""
    with starting():
        from lmcore.training.config import config_to_dict

    config = _make_config(recipe, {}, settings or [], released)
    show_json(config_to_dict(config), indent=2)


def _make_config(
    recipe: str, options: dict[str, Any], settings: list[str], released: bool
) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    with starting():
        from lmcore.detox import recipes
        from lmcore.training.config import choose_recipe

    known = recipes.RECIPES
    if released and recipe in known:
        known = {**known, recipe: lambda: recipes.released(recipes.RECIPES[recipe]())}
    return choose_recipe(known, recipe, settings, options)


def _read_rows(path: str, skip_bad_rows: bool) -> list[dict[str, Any]]:
    from lmcore._rows import RowReader

    reader = RowReader(path, skip_bad_rows=skip_bad_rows)
    rows = [row.value for row in reader]
    for row in reader.listed_bad_rows if is_first_process() else []:
        say(f"skipped {row}")
    return rows


def _train(
    config: TrainConfig,
    rows: list[dict[str, Any]],
    out: str,
    paths: dict[str, str | None],
    **given: Any,
) -> None:
    """Trains, and prints what came of it."""
    with starting():
        from lmcore.detox.training import train

    given |= {name: None if path == "-" else path for name, path in paths.items()}
    result = train(config, rows, out, **given)
    if not is_first_process():
        return
    if str(result.counts) and not given["progress"]:  # which says it before the first step
        say(f"lmcore: {result.counts}")
    show_json(
        {
            "out": str(result.folder),
            "steps": result.steps,
            "best_step": result.best_step,
            "loss": result.best_value,
            "groups": result.groups,
        }
    )
