"""The command `lmcore recsys recommend`."""

from __future__ import annotations

from typing import Annotated

import typer

from lmcore.cli.failures import starting
from lmcore.cli.options import MOST, Device, SkipBadRows, name_of_file, whole
from lmcore.cli.recsys.data_options import Format, ItemColumn, TimeColumn, UserColumn, make_form
from lmcore.cli.recsys.model_options import Heads, Model, load_model_run


def recommend_command(
    model: Model,
    users: Annotated[
        list[str],
        typer.Argument(
            metavar="USERS", help="Ids of users as in the data, or `all`.", show_default=False
        ),
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            parser=name_of_file,
            help="Their interactions; those of the training by default.",
        ),
    ] = None,
    count: Annotated[
        int, whole(1, MOST, "--top", "-k", text="Items for each user.", metavar="K")
    ] = 10,
    heads: Heads = None,
    device: Device = None,
    data_format: Format = "auto",
    user_column: UserColumn = None,
    item_column: ItemColumn = None,
    time_column: TimeColumn = None,
    skip_bad_rows: SkipBadRows = False,
) -> None:
    """Print each user's best items that are not in the history, one JSON object for a user."""
    with starting():
        from lmcore._rows import RowWriter
        from lmcore.recsys.recommendation import recommend

    form = make_form(data_format, user_column, item_column, time_column, skip_bad_rows)
    run = load_model_run(model, data, form, heads, device, quiet=True)
    chosen = None if users == ["all"] else users
    with RowWriter("-") as rows:
        for recommendation in recommend(run.model, run.interactions, chosen, count=count):
            rows.write(recommendation.to_dict())
