"""The tree of commands: one module for each system, under the system's name."""

from __future__ import annotations

from typing import Annotated

import typer

import lmcore
from lmcore.cli import ner, recsys, reproduce
from lmcore.cli.failures import Commands
from lmcore.cli.terminal import show

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Six published language-model and recommendation systems.",
)
app.add_typer(ner.app, name="ner")
app.add_typer(recsys.app, name="recsys")
app.command("reproduce")(reproduce.reproduce_command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        show(lmcore.__version__)
        raise typer.Exit
