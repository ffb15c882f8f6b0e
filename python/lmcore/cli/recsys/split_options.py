"""Options of how interactions are filtered and split."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from lmcore._text import count_noun
from lmcore.cli.options import MOST, decimal, plain_text, whole
from lmcore.cli.terminal import say

if TYPE_CHECKING:
    from lmcore.recsys.data import Split
    from lmcore.recsys.rules import SplitRule

Core = Annotated[
    int | None,
    whole(1, MOST, text="Keep users and items with so many interactions, until none has fewer."),
]
MinUser = Annotated[
    int | None, whole(1, MOST, text="Keep users with so many interactions; also with --core.")
]
MinItem = Annotated[
    int | None, whole(1, MOST, text="Keep items with so many interactions; also with --core.")
]
SplitBy = Annotated[
    str | None,
    typer.Option(
        metavar="leave-one-out|leave-last|time",
        help="What is held out: each user's last item for testing and the one before it for "
        "validation, the last N and the N before, or what lies after a time.",
    ),
]
Last = Annotated[int | None, whole(1, MOST, text="N of leave-last.")]
ValidFrom = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        parser=plain_text,
        help="When validation begins, as the times of the data are: a number, or a date.",
    ),
]
TestFrom = Annotated[
    str | None, typer.Option(metavar="TIME", parser=plain_text, help="When the test begins.")
]
ValidQuantile = Annotated[
    float | None,
    decimal(0.0, 1.0, text="Share of the interactions before validation, in place of its time."),
]
TestQuantile = Annotated[
    float | None,
    decimal(0.0, 1.0, text="Share of the interactions before the test, in place of its time."),
]
ColdItems = Annotated[
    str | None,
    typer.Option(
        metavar="keep|drop",
        help="What becomes of held-out items that no one has in training; a split by time drops "
        "them by default, the others keep them.",
    ),
]


def make_rule(
    split_by: str | None,
    last: int | None,
    valid_from: str | None,
    test_from: str | None,
    valid_quantile: float | None,
    test_quantile: float | None,
    cold_items: Any,
) -> SplitRule | None:
    """Returns the rule that the options say; None where there are none."""
    from lmcore.recsys.rules import SplitRule, parse_time

    options: dict[str, Any] = {
        "by": split_by,
        "last": last,
        "valid_from": None if valid_from is None else parse_time("valid_from", valid_from),
        "test_from": None if test_from is None else parse_time("test_from", test_from),
        "valid_quantile": valid_quantile,
        "test_quantile": test_quantile,
        "cold_items": cold_items,
    }
    given = {name: value for name, value in options.items() if value is not None}
    return SplitRule(**given) if given else None


def say_split(split: Split) -> None:
    """Lines on a split that is not the usual one, on items new to it, and on what leaks."""
    from lmcore.recsys.rules import SplitRule
    from lmcore.recsys.splits import find_leakage

    if split.rule != SplitRule():
        say(f"{split.rule.describe()}: {split.report.describe()}")
    elif split.report.cold_targets:
        say(f"{count_noun(split.report.cold_targets, 'held-out item')} new to training")
    leakage = find_leakage(split)
    if leakage is not None:
        say(f"{split.rule.by}: {leakage.describe()}")
