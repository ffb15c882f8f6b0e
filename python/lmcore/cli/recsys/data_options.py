"""Options of the interactions that commands read: their file, and which columns are meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore.cli.options import name_of_file, plain_text
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.recsys.reports import InteractionReport

Data = Annotated[
    str,
    typer.Option(
        metavar="FILE",
        parser=name_of_file,
        help="Interactions: CSV, TSV or parquet, MovieLens' files, RecBole's .inter, lines of "
        "`user item` or `user item item ...`.",
        show_default=False,
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        metavar="auto|pairs|sequences|inter|csv|tsv|movielens|parquet",
        help="Form of the data; auto looks at the name and the first line.",
    ),
]
UserColumn = Annotated[
    str | None,
    typer.Option(
        "--user", metavar="NAME", parser=plain_text, help="Column of users; user_id and the like."
    ),
]
ItemColumn = Annotated[
    str | None,
    typer.Option(
        "--item", metavar="NAME", parser=plain_text, help="Column of items; item_id and the like."
    ),
]
TimeColumn = Annotated[
    str | None,
    typer.Option(
        "--time",
        metavar="NAME",
        parser=plain_text,
        help="Column of times, numbers or ISO dates; timestamp and the like.",
    ),
]


def make_form(
    data_format: str, user: str | None, item: str | None, time: str | None, skip_bad_rows: bool
) -> dict[str, Any]:
    """Returns how data are read: what a run notes of it, for what reads them again."""
    columns = {"user": user, "item": item, "time": time}
    return {"format": data_format, **columns, "skip_bad_rows": skip_bad_rows}


def say_report(report: InteractionReport, *, quiet: bool) -> None:
    """Lines on rows that were left out, and one on what was read."""
    for row in report.listed_skipped:
        say(f"skipped {row}")
    if not quiet:
        say(report.describe())
