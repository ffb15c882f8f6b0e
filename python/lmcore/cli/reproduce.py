"""The command `lmcore reproduce`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import escape
from lmcore.cli.failures import make_app, starting
from lmcore.cli.options import name_of_file, whole
from lmcore.cli.terminal import show

if TYPE_CHECKING:
    from lmcore.reproduce.claim import ResultRow, Size

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

    size = _find_size(seeds, full=full, tiny=tiny, strict=strict)
    names = None if only is None else only.split(",")
    earlier = None if against is None else _read_earlier(against)
    rows = reproduce(names, seeds, size, out, fresh=fresh, processes=processes)
    _print_rows(rows, out, earlier)
    if strict and any(row.verdict not in ("not run", row.expected) for row in rows):
        raise typer.Exit(1)


def _find_size(seeds: int, *, full: bool, tiny: bool, strict: bool) -> Size:
    """The size that was asked for; ValueError where options do not go together."""
    if full and tiny:
        raise ValueError("--full and --tiny exclude each other")
    if strict and (seeds < 2 or tiny):
        given = "--tiny" if tiny else seeds
        raise ValueError(f"--strict needs --seeds 2 or more, for a verdict: got {given}")
    return "full" if full else "tiny" if tiny else "quick"


def _read_earlier(path: str) -> dict[str, Any]:
    from lmcore.reproduce.compare import read_results

    return read_results(path)


def _print_rows(rows: list[ResultRow], out: str, earlier: dict[str, Any] | None) -> None:
    """The table, where the report is, and what differs from an earlier one."""
    from lmcore.reproduce.compare import format_difference
    from lmcore.reproduce.table import describe_kept, format_table

    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    show(format_table(rows, colour=colour))
    show(f"\nreport: {escape(str(Path(out) / 'index.html'))}")
    if any(row.kept for row in rows):
        show(describe_kept(rows, escape(str(Path(out)))))
    if earlier is not None:
        show(f"\n{format_difference(earlier, rows)}")
