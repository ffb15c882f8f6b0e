"""The commands `lmcore diffusion train` and `lmcore diffusion recipe`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Out,
    Quiet,
    Resume,
    Settings,
    SkipBadRows,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import is_first_process, say, show_json

if TYPE_CHECKING:
    from lmcore.diffusion.pairs import Pair
    from lmcore.diffusion.recipes import TrainConfig


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="tiny (a small model, minutes on two cores), paper, diffuseq (without Distance "
            "Penalty), or a task: qqp, wiki_auto, quasar_t, roc, e2e_semantic, e2e_syntax, "
            "iwslt14.",
            show_default=False,
        ),
    ],
    data: Annotated[
        str,
        typer.Option(
            metavar="DIR|FILE",
            parser=name_of_file,
            help="Pairs, or a folder with train.jsonl and, for validation, valid.jsonl, or the "
            "same in .tsv, .csv and .gz.",
            show_default=False,
        ),
    ],
    out: Out,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="BERT's vocabulary (.txt) or a file of tokenizers; the model's by default.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(metavar="FILE", parser=name_of_file, help="Pairs for validation."),
    ] = None,
    data_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="auto|jsonl|tsv|csv",
            parser=plain_text,
            help="Form of the pairs; auto looks at their names.",
        ),
    ] = "auto",
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model to go on from; one from random weights by default.",
        ),
    ] = None,
    distill: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a teacher: its steps are halved, 64 to 4 by default, in place of "
            "training; see `distill` in the recipe.",
        ),
    ] = None,
    steps: Annotated[
        int | None, whole(1, 2**40 - 1, text="When to end; as the recipe says by default.")
    ] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; as the recipe says by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    skip_bad_rows: SkipBadRows = False,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train text diffusion on pairs of a source and a target; a killed run goes on.

    DIR gets recipe.json, log.jsonl, states to go on from, models, and a link `best` to the best of
    them in validation, with its tokenizer. Under torchrun all processes share each batch.
    """
    options = {
        "model": model, "loop.steps": steps, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(recipe, options, settings or [], distill)
    files = _find_files(data, valid)
    given = {"tokenizer": tokenizer, "resume": resume}
    reading = {"form": data_format, "skip_bad_rows": skip_bad_rows}
    _train(config, files, out, reading, progress=not quiet, **given)


def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "paper",
    settings: Settings = None,
) -> None:
    """Print the settings of a recipe as JSON."""
    with starting():
        from lmcore.training.config import config_to_dict

    show_json(config_to_dict(_make_config(recipe, {}, settings or [])), indent=2)


def _make_config(
    recipe: str, options: dict[str, Any], settings: list[str], teacher: str | None = None
) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    with starting():
        from lmcore.diffusion.recipes import RECIPES, distilled
        from lmcore.training.config import choose_recipe

    recipes = RECIPES
    if teacher is not None and recipe in RECIPES:
        recipes = {**RECIPES, recipe: lambda: distilled(RECIPES[recipe](), teacher)}
    return choose_recipe(recipes, recipe, settings, options)


def _find_files(data: str, valid: str | None) -> tuple[str, str | None]:
    """The files of pairs: those that were named, or those of a folder."""
    with starting():
        from lmcore.diffusion.pairs import find_split

    if not Path(data).is_dir():
        return data, valid
    train = find_split(data, "train")
    if train is None:
        raise FileNotFoundError(2, "holds no train.jsonl, train.tsv or train.csv", data)
    return train, valid or find_split(data, "valid")


def _train(
    config: TrainConfig,
    files: tuple[str, str | None],
    out: str,
    reading: dict[str, Any],
    *,
    progress: bool,
    **given: Any,
) -> None:
    """Trains, and prints what came of it."""
    with starting():
        from lmcore.diffusion.training import train

    is_first = is_first_process()
    pairs, valid = (_read(file, reading, is_first) if file else [] for file in files)
    given |= {"valid": valid, "data_path": files[0], "valid_path": files[1]}
    result = train(config, pairs, out, progress=progress and is_first, **given)
    if is_first:
        show_json(
            {
                "out": str(result.folder),
                "steps": result.steps,
                "best_step": result.best_step,
                config.loop.metric: result.best_value,
                "shortened_pairs": result.shortened,
                "unknown_tokens": result.unknown_tokens,
            }
        )


def _read(file: str, reading: dict[str, Any], is_first: bool) -> list[Pair]:
    from lmcore.diffusion.pairs import PairReader

    reader = PairReader(file, **reading)
    pairs = list(reader)
    for row in reader.listed_bad_rows if is_first else ():
        say(f"skipped {row}")
    return pairs
