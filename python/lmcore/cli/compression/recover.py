"""The command `lmcore compression recover`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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
    whole,
)
from lmcore.cli.terminal import is_first_process, show_json

if TYPE_CHECKING:
    from lmcore.compression.recovery_config import RecoveryConfig


def recover_command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of a pruned model, an encoder-decoder or a decoder, or of a run.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Where the model, its log and its state go.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Option(
            metavar="PREFIX|FILE",
            parser=name_of_file,
            help="Texts as `lmcore openba pack` writes them, PREFIX.bin and PREFIX.idx; or files "
            "of texts, any number of times: lines, JSONL with text, or parquet.",
            show_default=False,
        ),
    ],
    valid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX|FILE",
            parser=name_of_file,
            help="Such texts, for validation; d_ul2 needs some.",
        ),
    ] = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|none",
            parser=name_of_file,
            help="Model to learn from; the one before pruning by default, where it is at hand.",
        ),
    ] = None,
    recipe: Annotated[
        str,
        typer.Option(
            metavar="RECIPE",
            help="d_ul2, d_ul2_as_shipped, ul2_uniform, o_ul2, causal, or of a small model, "
            "minutes on two cores, tiny; auto: d_ul2 of an encoder-decoder, causal of a decoder.",
        ),
    ] = "auto",
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
    """Train a pruned model, so that it comes back to what it could.

    A killed run goes on where it was. OUT gets recipe.json, log.jsonl, states to go on from,
    models, and a link `best` to the best of them in validation, which can be pruned further. Under
    torchrun all processes share each batch.
    """
    options = {
        "teacher": teacher, "loop.steps": steps, "loop.seed": seed, "device.device": device,
        "device.threads": limit_threads(threads),
    }  # fmt: skip
    config = _make_config(model, recipe, options, settings or [])
    given = {"model": model, "valid": valid or None, "resume": resume}
    _recover(config, data, out, progress=not quiet and is_first_process(), **given)


def _make_config(
    model: str, recipe: str, options: dict[str, Any], settings: list[str]
) -> RecoveryConfig:
    """The recipe's settings, changed by options that were given and by `--set`."""
    with starting():
        from lmcore.compression.recipes import RECOVERY_RECIPES
        from lmcore.compression.recovery import find_recipe
        from lmcore.training.config import choose_recipe

    chosen = find_recipe(model) if recipe == "auto" else recipe
    return choose_recipe(RECOVERY_RECIPES, chosen, settings, options)


def _recover(config: RecoveryConfig, data: list[str], out: str, **given: Any) -> None:
    """Trains, and prints what came of it."""
    with starting():
        from lmcore.compression.recovery import recover

    result = recover(config, data, out, **given)
    if is_first_process():
        metric = config.loop.metric
        show_json(
            {
                "out": str(result.folder),
                "objective": result.objective,
                "steps": result.steps,
                "best_step": result.best_step,
                metric: result.best_value,
                f"{metric}_before": result.start_losses.get(metric),
            }
        )
