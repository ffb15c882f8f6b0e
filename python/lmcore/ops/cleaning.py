"""What is removed from texts before a model is trained on them.

The definition is `lmcore.reference.cleaning`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmcore.reference import cleaning as reference
from lmcore.reference.cleaning import MOST_PASSES, RULES

__all__ = ["MOST_PASSES", "RULES", "CleanedTexts", "clean_texts"]


class CleanedTexts(NamedTuple):
    """Texts without what the rules remove."""

    texts: list[str | None]
    """In order; None where a text is dropped."""
    dropped: list[str]
    """Why each is: `empty` where nothing is left, `unsettled`; empty where it is kept."""
    removed: list[tuple[int, int]]
    """By rule in the order of `RULES`: the texts that it changed, and the characters that it
    removed."""


def clean_texts(
    texts: Sequence[str],
    *,
    html: bool = True,
    links: bool = True,
    emails: bool = True,
    phone_numbers: bool = True,
    most_repeats: int = 3,
    minimum_words: int = 10,
    threads: int | None = None,
) -> CleanedTexts:
    """Returns texts without what the rules remove.

    Example:
        >>> clean_texts(["<b>Hi</b>!!!!!! See www.a.org.", ""], minimum_words=0)
        CleanedTexts(texts=['Hi! See .', None], dropped=['', 'empty'], removed=[(1, 7), (1, 9), \
(0, 0), (0, 0), (1, 5), (0, 0)])
    """
    found = reference.clean_texts(
        texts, html=html, links=links, emails=emails, phone_numbers=phone_numbers,
        most_repeats=most_repeats, minimum_words=minimum_words,
    )  # fmt: skip
    rules = zip(*(each.removed for each in found), strict=True) if found else [()] * len(RULES)
    return CleanedTexts(
        [each.text for each in found],
        [each.dropped for each in found],
        [(sum(map(bool, each)), sum(each)) for each in rules],
    )
