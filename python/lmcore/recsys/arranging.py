"""Rows of a file or a frame as interactions: ids without gaps, by user and time."""

from __future__ import annotations

from collections.abc import Sequence

from lmcore.ops.interactions import Column, group_by_user
from lmcore.recsys.ids import IdMap, count_remapped, number_as, number_ids, to_column
from lmcore.recsys.interactions import Interactions
from lmcore.recsys.reports import InteractionReport
from lmcore.recsys.rows import Rows
from lmcore.recsys.times import shorten

__all__: list[str] = []

_LISTED_ROWS = 1000


def arrange(
    place: str,
    rows: Rows,
    skipped: list[str],
    id_map: IdMap | None,
    *,
    is_order_trusted: bool,
    tells_blanks: bool = False,
) -> Interactions:
    """Returns interactions with contiguous ids, grouped by user, sorted by time.

    Args:
        place: of the rows, for errors: the file, or that it is a frame.
        rows: what it holds; at least one.
        skipped: what was left out.
        id_map: whose items' ids are taken; None: new ones.
        is_order_trusted: whether times were wanted and absent.
        tells_blanks: whether ids that differ only by white space are others.

    Raises:
        ValueError: ids that differ only by white space.
    """
    users, items, times = to_column(rows.users), to_column(rows.items), rows.times
    if not tells_blanks:
        for kind, column in (("users", users), ("items", items)):
            if isinstance(column, Column):
                check_blanks(place, kind, column.names)
    user_numbers, user_ids = number_ids(users)
    if id_map is None:
        item_numbers, item_ids = number_ids(items)
    else:
        item_numbers, item_ids = number_as(items, id_map.items), id_map.items
    # What is in the arrays below need not be there twice.
    del rows, users, items
    order = None if times is None else times.order
    counts = (len(user_ids), len(item_ids))
    found = group_by_user(user_numbers, item_numbers, order, *counts)
    report = InteractionReport(
        users=counts[0],
        items=counts[1],
        interactions=len(found.items),
        repeated=found.repeated,
        remapped_users=count_remapped(user_ids),
        remapped_items=count_remapped(item_ids),
        unsorted=found.unsorted,
        skipped=len(skipped),
        listed_skipped=tuple(skipped[:_LISTED_ROWS]),
        is_order_trusted=is_order_trusted,
    )
    moments = None if times is None or found.times is None else times.restore(found.times)
    ids = IdMap(user_ids, item_ids)
    return Interactions(found.offsets, found.items, ids, report, moments)


def check_blanks(place: str, kind: str, names: Sequence[str]) -> None:
    """Raises ValueError where two ids differ only by white space, or one is nothing else.

    Args:
        place: where the ids stand.
        kind: of the ids, `users` or `items`.
        names: distinct ids.

    Example:
        >>> check_blanks("a.csv", "items", ["red lamp", "lamp", "lamp "])
        Traceback (most recent call last):
        ValueError: a.csv: items 'lamp' and 'lamp ' differ only by white space
    """
    joined = "".join(names)
    if joined.split(maxsplit=1) == [joined]:
        return
    known: dict[str, str] = {}
    for name in names:
        plain = " ".join(name.split())
        if not plain:
            raise ValueError(f"{place}: {kind}: an id of white space alone: got {name!r:.100}")
        other = known.setdefault(plain, name)
        if other != name:
            raise ValueError(
                f"{place}: {kind} {shorten(other)!r} and {shorten(name)!r} differ only by white "
                "space"
            )
