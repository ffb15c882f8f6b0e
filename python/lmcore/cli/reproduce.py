"""The command `lmcore reproduce`."""

from __future__ import annotations

import os
import sys
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
    full: Annotated[
        bool, typer.Option("--full", help="Every claim, on larger samples; takes long.")
    ] = False,
    tiny: Annotated[
        bool, typer.Option("--tiny", help="Every claim, to see that it runs; without verdicts.")
    ] = False,
    out: Annotated[
        str, typer.Option(metavar="FOLDER", parser=name_of_file, help="Where the report goes.")
    ] = "report",
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what FOLDER/measurements holds.")
    ] = False,
    processes: Annotated[
        int | None,
        whole(1, 1024, text="How many measure side by side; one for each core by default."),
    ] = None,
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Exit with 1 if a verdict is not the documented one; needs two seeds. Claims that "
            "are not run are not held to theirs.",
        ),
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Print what differs from the results.json of an earlier report.",
        ),
    ] = None,
) -> None:
    """Measure the papers' claims here: a table, and FOLDER/index.html with plots."""
    with starting():
        from lmcore.reproduce import reproduce
        from lmcore.reproduce.compare import format_difference, read_results
        from lmcore.reproduce.table import describe_kept, format_table

    if full and tiny:
        raise ValueError("--full and --tiny exclude each other")
    if strict and (seeds < 2 or tiny):
        given = "--tiny" if tiny else seeds
        raise ValueError(f"--strict needs --seeds 2 or more, for a verdict: got {given}")
    earlier = None if against is None else read_results(against)
    rows = reproduce(
        None if only is None else only.split(","),
        seeds=seeds,
        size="full" if full else "tiny" if tiny else "quick",
        out=Path(out),
        fresh=fresh,
        processes=processes,
    )
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    show(format_table(rows, colour=colour))
    show(f"\nreport: {escape(str(Path(out) / 'index.html'))}")
    if any(row.kept for row in rows):
        show(describe_kept(rows, escape(str(Path(out)))))
    if earlier is not None:
        show(f"\n{format_difference(earlier, rows)}")
    judged = [row for row in rows if row.verdict != "not run"]
    if strict and any(row.verdict != row.expected for row in judged):
        raise typer.Exit(1)
