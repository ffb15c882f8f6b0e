"""The command `lmcore`: one module for each system, under the system's name."""

from __future__ import annotations

from typing import Annotated

import typer

import lmcore
from lmcore.cli import ner, recsys
from lmcore.cli.reproduce import reproduce_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Six published language-model and recommendation systems.",
)
app.add_typer(ner.app, name="ner")
app.add_typer(recsys.app, name="recsys")
app.command("reproduce")(reproduce_command)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        typer.echo(lmcore.__version__)
        raise typer.Exit


def main() -> None:
    """Runs the command line."""
    app(prog_name="lmcore")
