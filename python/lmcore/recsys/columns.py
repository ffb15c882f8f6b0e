"""Which columns of a table hold users, items and times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from lmcore.recsys.times import shorten

__all__ = ["Places", "find_columns"]

# How columns are called where nobody says it, in small letters and without what joins words.
_USUAL = {
    "user": ("user", "userid", "uid", "reviewerid"),
    "item": (
        *("item", "itemid", "iid", "movie", "movieid"),
        *("asin", "parentasin", "product", "productid"),
    ),
    "time": ("time", "timestamp", "ts", "date", "datetime", "unixreviewtime"),
}
_ROLES = {"user": "users", "item": "items", "time": "times"}


class Places(NamedTuple):
    """Where the columns stand, from 0."""

    user: int
    item: int
    time: int | None


def find_columns(
    place: str,
    names: Sequence[str],
    *,
    user: str | None = None,
    item: str | None = None,
    time: str | None = None,
) -> Places:
    """Returns where users, items and times stand in a table, as named or by usual names.

    Args:
        place: of the names, for errors: the file, and its line if it has any.
        names: of the columns.
        user: name of the users' column; None: `user_id`, `userId`, `user` and the like.
        item: name of the items' column; None: `item_id`, `movieId`, `asin` and the like.
        time: name of the times' column; None: `timestamp`, `time`, `date` and the like, if any.

    Raises:
        ValueError: two columns of one name, a column that is absent, or that could be several.

    Example:
        >>> find_columns("a.csv", ["userId", "movieId", "rating", "when"], time="when")
        Places(user=0, item=1, time=3)
    """
    twice = find_repeated(names)
    if twice is not None:
        raise ValueError(f"{place}: column {shorten(twice)} stands twice in the header")
    found = {
        role: _find_column(place, names, role, given)
        for role, given in (("user", user), ("item", item), ("time", time))
    }
    places = Places(found["user"] or 0, found["item"] or 0, found["time"])
    if len({place for place in places if place is not None}) + (places.time is None) < 3:
        roles = [role for role in found if found[role] in _repeated(list(places))]
        text = " and ".join(_ROLES[role] for role in roles)
        name = names[next(iter(_repeated(list(places))))]
        raise ValueError(f"{place}: {text} cannot be one column, {shorten(name)}")
    return places


def find_repeated(names: Iterable[str]) -> str | None:
    """Returns the first name that stands there for the second time; None if all are different.

    Example:
        >>> find_repeated(["a", "b", "a"])
        'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def list_columns(names: Iterable[str]) -> str:
    """Returns the names of columns as errors show them.

    Example:
        >>> list_columns(["a", "b"])
        "'a', 'b'"
    """
    return shorten(", ".join(map(repr, names)), 400) or "none"


def is_user_column(name: str, user: str | None) -> bool:
    """Returns whether a column holds users: it is named so, or has a usual name.

    Example:
        >>> is_user_column("User_ID", None), is_user_column("12", None)
        (True, False)
    """
    return name == user or _simplify(name) in _USUAL["user"]


def _repeated(places: list[int | None]) -> set[int]:
    return {place for place in places if place is not None and places.count(place) > 1}


def _find_column(place: str, names: Sequence[str], role: str, given: str | None) -> int | None:
    if given is not None:
        if given not in names:
            listed = list_columns(names)
            raise ValueError(f"{place}: there is no column {given!r}: the header has {listed}")
        return names.index(given)
    usual = [index for index, name in enumerate(names) if _simplify(name) in _USUAL[role]]
    if len(usual) > 1:
        text = " and ".join(repr(names[index]) for index in usual[:2])
        raise ValueError(
            f"{place}: {text} may both hold the {_ROLES[role]}: say which does by {role} (--{role})"
        )
    if not usual and role != "time":
        raise ValueError(
            f"{place}: no column has a usual name of {_ROLES[role]}: say by {role} "
            f"(--{role}) which of {list_columns(names)} it is"
        )
    return usual[0] if usual else None


def _simplify(name: str) -> str:
    return name.strip().lower().replace("_", "").replace("-", "").replace(" ", "")
