"""The tree of commands: one module for each package that has some, under the package's name."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_command

import lmcore
from lmcore.cli.failures import Commands, make_app, starting
from lmcore.cli.terminal import show

#: Packages with commands, and what they are for.
PACKAGES = {
    "reproduce": "Measure the papers' claims here: a table, and a page with plots.",
    "ner": "Named entities from generated text (GNER).",
    "openba": "Bilingual encoder-decoders, pre-trained by denoising (OpenBA).",
    "compression": "Smaller models: plans, pruning, recovery (OpenBA-V2).",
    "detox": "Less toxic text: scores, masks, chains (Detox-Chain, CMD).",
    "diffusion": "Text diffusion in few steps (DiffuSeq, Bridge-Gap Diffusion).",
    "recsys": "Sequential recommendation (UFNRec).",
}


class _Packages(Commands):
    """Commands whose modules are imported when one of them is called."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Returns the command that was named, of a module that is imported now."""
        if args[0] in PACKAGES:
            self.commands[args[0]] = load(args[0])
        return super().resolve_command(ctx, args)


def load(package: str) -> Any:
    """Returns a package's command, or its group of commands.

    Args:
        package: one of `PACKAGES`.

    Example:
        >>> load("ner").help
        'Named entities from generated text (GNER).'
    """
    with starting():
        module = import_module(f"lmcore.cli.{package}")
    command = get_command(module.app)
    if hasattr(command, "commands"):
        command.help = PACKAGES[package]
    return command


app = make_app(_Packages, "Six published language-model and recommendation systems.")
for _name, _help in PACKAGES.items():
    # In the place of the real one, which describes itself.
    app.add_typer(typer.Typer(help=_help), name=_name)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
) -> None:
    if version:
        show(lmcore.__version__)
        raise typer.Exit
