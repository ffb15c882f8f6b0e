"""The command `lmcore compression learn-masks`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import (
    Device,
    Quiet,
    Resume,
    Settings,
    Threads,
    limit_threads,
    name_of_file,
    plain_text,
    whole,
)
from lmcore.cli.terminal import is_first_process, show_json


def learn_masks_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model, with its tokenizer, or of a run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Where the run, its plan.json and its masks.scores go.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="What the model reads, any number of times: lines, or JSONL with text, or with "
            "src and trg.",
            show_default=False,
        ),
    ],
    targets: Annotated[
        str | None,
        typer.Option(
            "--target",
            metavar="params=VALUE",
            parser=plain_text,
            help="Parameters at most, with one table for embedding and output layer: "
            "params=3.4e9, params=3.4B or params=25%; half by default.",
        ),
    ] = None,
    valid: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Such a file: the plan whose model has the least loss on it is taken.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="learned_masks|tiny_masks",
            help="Of a large model, or of a small one: minutes on two cores.",
        ),
    ] = "learned_masks",
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
    """Learn which layers, heads, inner units and channels of a model stay under a target size.

    Gates are trained on the data with the number of parameters held to the target; what they come
    to is a plan for `prune`. A killed run goes on where it was.
    """
    options = {
        "target": targets, "loop.steps": steps, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    given = {"model": model, "valid": valid, "resume": resume}
    _learn(recipe, settings or [], options, data, out, quiet=quiet, **given)


def _learn(
    recipe: str,
    settings: list[str],
    options: dict[str, Any],
    data: list[str],
    out: str,
    *,
    quiet: bool,
    **given: Any,
) -> None:
    """Learns, and prints what came of it."""
    with starting():
        from lmcore.compression.recipes import MASK_RECIPES
        from lmcore.training.config import choose_recipe

    config = choose_recipe(MASK_RECIPES, recipe, settings, options)
    with starting():  # torch, once the settings are known to be right
        from lmcore.compression.mask_learning import learn_masks

    result = learn_masks(config, data, out, progress=not quiet and is_first_process(), **given)
    if is_first_process():
        shape = result.shape
        show_json(
            {
                "plan": str(result.folder / "plan.json"),
                "steps": result.steps,
                "best_step": result.best_step,
                "loss": result.best_value,
                "parameters": result.parameters,
                "encoder_layers": shape.encoder_layers,
                "decoder_layers": shape.decoder_layers,
                "hidden": shape.hidden_size,
                "heads": shape.heads,
                "ffn": shape.inner_size,
            }
        )
