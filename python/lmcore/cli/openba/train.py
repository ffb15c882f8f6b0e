"""The commands `lmcore openba train` and `lmcore openba recipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Out,
    Quiet,
    Resume,
    Settings,
    Threads,
    limit_threads,
    name_of_file,
    whole,
)
from lmcore.cli.terminal import is_first_process, show_json

if TYPE_CHECKING:
    from lmcore.openba.recipes import TrainConfig


def train_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="A stage of the paper's 15B, each from a model of the one before: ul2, "
            "length_adaptation, bilingual_flan, and then chat, code, instruction_generation or "
            "tool_retrieval; or of a small model, minutes on two cores: tiny, "
            "tiny_length_adaptation, tiny_flan.",
            show_default=False,
        ),
    ],
    out: Out,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX",
            parser=name_of_file,
            help="Texts of one length, or pairs where the recipe takes these, as `pack` writes "
            "them: PREFIX.bin and PREFIX.idx.",
        ),
    ] = None,
    mixture: Annotated[
        str | None,
        typer.Option(
            metavar="MIX.json",
            parser=name_of_file,
            help="In place of --data, sources of texts or pairs by weight: "
            '{"sources": [{"name": NAME, "data": PREFIX, "weight": X}, ...]}.',
        ),
    ] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|DIR",
            parser=name_of_file,
            help="That of the texts, a SentencePiece file or a folder; the model's by default.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            metavar="PREFIX", parser=name_of_file, help="Such texts or pairs, for validation."
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model to start from, made by the stage before; ul2 and tiny start "
            "from random weights by default.",
        ),
    ] = None,
    steps: Annotated[
        int | None, whole(1, 2**40 - 1, text="When to end; as the recipe says by default.")
    ] = None,
    seed: Annotated[
        int | None, whole(0, 2**64 - 1, text="Of everything random; 1234 by default.")
    ] = None,
    device: Device = None,
    threads: Threads = None,
    settings: Settings = None,
    resume: Resume = True,
    quiet: Quiet = False,
) -> None:
    """Train a model on packed texts, denoising them, or on pairs.

    A killed run goes on where it was. DIR gets recipe.json, log.jsonl, states to go on from,
    models, and a link `best` to the best of them in validation, with its tokenizer. Under torchrun
    all processes share each batch.
    """
    options = {
        "model": model, "loop.steps": steps, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(recipe, options, settings or [])
    given = {"tokenizer": tokenizer, "valid": valid, "resume": resume}
    _train(config, data, mixture, out, progress=not quiet and is_first_process(), **given)


def recipe_command(
    recipe: Annotated[
        str, typer.Argument(metavar="RECIPE", help="One of the names that `train` takes.")
    ] = "ul2",
    settings: Settings = None,
) -> None:
    """Print the settings of a recipe as JSON."""
    with starting():
        from lmcore.training.config import config_to_dict

    show_json(config_to_dict(_make_config(recipe, {}, settings or [])), indent=2)


def _make_config(recipe: str, options: dict[str, Any], settings: list[str]) -> TrainConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    with starting():
        from lmcore.openba.recipes import RECIPES
        from lmcore.training.config import choose_recipe

    return choose_recipe(RECIPES, recipe, settings, options)


def _train(
    config: TrainConfig, data: str | None, mixture: str | None, out: str, **given: Any
) -> None:
    """Trains, and prints what came of it."""
    with starting():
        from lmcore.openba.mixture import read_mixture
        from lmcore.openba.training import train

    source = data if mixture is None else read_mixture(mixture)
    if source is None or (data is not None and mixture is not None):
        raise ValueError("one of --data and --mixture must be given")
    result = train(config, source, out, **given)
    if is_first_process():
        show_json(
            {
                "out": str(result.folder),
                "steps": result.steps,
                "best_step": result.best_step,
                config.loop.metric: result.best_value,
            }
        )
