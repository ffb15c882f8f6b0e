"""The command `lmcore reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcore._text import escape
from lmcore.cli.failures import make_app, starting
from lmcore.cli.options import name_of_file, whole
from lmcore.cli.terminal import show

app = make_app()


@app.command("reproduce")
def reproduce_command(
    only: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these systems or claims.")
    ] = None,
    seeds: Annotated[int, whole(1, 1000, text="Repetitions with different seeds.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Larger samples; takes longer.")] = False,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", parser=name_of_file, help="Where the report goes.")
    ] = "report",
    strict: Annotated[
        bool,
        typer.Option(
            "--strict", help="Exit with 1 if a verdict is not the README's; needs two seeds."
        ),
    ] = False,
) -> None:
    """Measure the papers' claims here: a table, and FOLDER/index.html with plots."""
    with starting():
        from lmcore.reproduce import reproduce
        from lmcore.reproduce.report import format_table

    if strict and seeds < 2:
        raise ValueError(f"--strict needs --seeds 2 or more, for a verdict: got {seeds}")
    names = None if only is None else only.split(",")
    rows = reproduce(names, seeds=seeds, quick=not full, out=Path(out), progress=True)
    show(format_table(rows))
    show(f"\nreport: {escape(str(Path(out) / 'index.html'))}")
    if strict and any(row.verdict != row.expected for row in rows):
        raise typer.Exit(1)
