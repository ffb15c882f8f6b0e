"""The command `lmcore compression path`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lmcore._text import escape
from lmcore.cli.failures import starting
from lmcore.cli.options import Device, Quiet, Threads, limit_threads, name_of_file
from lmcore.cli.terminal import say, show


def path_command(
    path: Annotated[
        str,
        typer.Argument(
            metavar="PATH.json",
            parser=name_of_file,
            help="Stages, as `recipe` prints them; names in it lie beside it.",
            show_default=False,
        ),
    ],
    out: Annotated[
        str,
        typer.Argument(
            metavar="OUT",
            parser=name_of_file,
            help="Folder of what all stages make.",
            show_default=False,
        ),
    ],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            parser=name_of_file,
            help="Folder of the model to begin with, or of its run; as the path says by default.",
        ),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX|FILE",
            parser=name_of_file,
            help="What is trained on, in place of the path's: a token file, or texts in any number "
            "of files.",
        ),
    ] = None,
    valid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PREFIX|FILE", parser=name_of_file, help="Such texts, for validation."
        ),
    ] = None,
    device: Device = None,
    threads: Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume/--no-resume", help="Go on where OUT ended, or anew.")
    ] = True,
    quiet: Quiet = False,
) -> None:
    """Make a model smaller stage by stage: cut, measure, train, and go on with what came of it.

    Each stage is one of `prune` or `vocabulary` and one of `recover`; a line is printed when a step
    is done, and a table at the end. A killed path goes on where it was. OUT gets a folder for each
    stage, plan.json for `cost`, report.json, and a link `model` to the last model.
    """
    files = {"model": model, "data": data, "valid": valid}
    place = {"device": device, "threads": limit_threads(threads)}
    _walk(path, out, files, place, resume=resume, progress=not quiet)


def _walk(
    path: str, out: str, files: dict[str, Any], place: dict[str, Any], **options: Any
) -> None:
    with starting():
        from lmcore.compression.path import find_original, place_training
        from lmcore.compression.path_files import read_path
        from lmcore.compression.path_results import format_stages

    found = place_training(read_path(path), **place)
    find_original(found, files["model"])
    with starting():  # torch takes seconds, which a mistake in the file need not wait for
        from lmcore.compression.path_run import run_path
        from lmcore.training.processes import find_device

    if place["device"] is not None:  # also of a path that trains nothing
        find_device(place["device"])
    given = {name: value for name, value in files.items() if value}
    result = run_path(found, out, tell=lambda line: show(escape(line)), **given, **options)
    show("\n".join(["", *format_stages(result.stages)]))
    say(f"the model: {escape(str(result.model))}")
