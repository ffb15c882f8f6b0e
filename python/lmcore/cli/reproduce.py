"""The command `lmcore reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lmcore.cli.failures import failures_as_lines


def reproduce_command(
    only: Annotated[
        str | None, typer.Option(metavar="NAME,...", help="Only these systems or claims.")
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Repetitions with different seeds.")] = 3,
    full: Annotated[bool, typer.Option("--full", help="Larger samples; takes longer.")] = False,
    out: Annotated[str, typer.Option(metavar="FOLDER", help="Where the report goes.")] = "report",
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit with 1 if a verdict is not the README's.")
    ] = False,
) -> None:
    """Measure the papers' claims here: a table, and FOLDER/index.html with plots."""
    from lmcore.reproduce import reproduce
    from lmcore.reproduce.report import format_table

    with failures_as_lines():
        names = only.split(",") if only else None
        rows = reproduce(names, seeds=seeds, quick=not full, out=Path(out), progress=True)
    typer.echo(format_table(rows))
    typer.echo(f"\nreport: {Path(out) / 'index.html'}")
    if strict and any(row.verdict not in ("measured", row.expected) for row in rows):
        raise typer.Exit(1)
