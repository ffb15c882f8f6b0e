"""What is removed from texts before a model is trained on them: named rules, one text by one.

The definition is `lmcore.reference.cleaning`; `docs/openba.md` has a table of what each rule
matches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.reference._arguments import check_int
from lmcore.reference.cleaning import MOST_PASSES, RULES

__all__ = ["MOST_PASSES", "OUTCOMES", "RULES", "CleanedTexts", "clean_texts"]

OUTCOMES = ("", "empty", "unsettled", "duplicate_documents")
"""Why a text is dropped, by the core's numbers; the first one is kept."""
_MOST = 1 << 31

Rules = tuple[bool, bool, bool, bool, int, int]
"""As the core takes them."""


class CleanedTexts(NamedTuple):
    """Texts without what the rules remove."""

    texts: list[str | None]
    """In order; None where a text is dropped."""
    dropped: list[str]
    """Why each is: `empty` where nothing is left, `unsettled` where each pass uncovered more to
    remove; empty where it is kept."""
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

    The rules run over a text in the order of `RULES`, and again until it stays as it is: cleaning
    it once more changes nothing. A text that does not settle in `MOST_PASSES` is dropped. What is
    left keeps its order; nothing is added but a space for a tag that begins a line or a box.

    Source: OpenBA-V2 (arXiv 2405.05957), its section on data, names the rules.

    Args:
        texts: any number of them, without lone surrogates.
        html: remove tags, comments, and scripts and styles with what they hold.
        links: remove addresses that begin with `http://`, `https://`, `ftp://` or `www.`.
        emails: remove addresses of mail.
        phone_numbers: remove phone numbers.
        most_repeats: longest run of one character that stays, of longer ones one character does;
            0 leaves all.
        minimum_words: words of a sentence that stays; 0 leaves all. A Chinese or Japanese
            character is a word.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        MemoryError: the memory is refused.
        TypeError: texts are no sequence of str, or a number is none.
        ValueError: a text holds a lone surrogate, or a number is outside its range.

    Example:
        >>> clean_texts(["<b>Hi</b>!!!!!! See www.a.org.", ""], minimum_words=0)
        CleanedTexts(texts=['Hi! See .', None], dropped=['', 'empty'], removed=[(1, 7), (1, 9), \
(0, 0), (0, 0), (1, 5), (0, 0)])
    """
    rules = _pack_rules(html, links, emails, phone_numbers, most_repeats, minimum_words)
    left, outcomes, removed = _core.clean_texts(texts, rules, limit_threads(threads))
    return CleanedTexts(left, [OUTCOMES[outcome] for outcome in outcomes.tolist()], removed)


def _pack_rules(
    html: bool,
    links: bool,
    emails: bool,
    phone_numbers: bool,
    most_repeats: int,
    minimum_words: int,
) -> Rules:
    """The rules as the core takes them."""
    repeats = check_int("most_repeats", most_repeats, 0, _MOST)
    words = check_int("minimum_words", minimum_words, 0, _MOST)
    return bool(html), bool(links), bool(emails), bool(phone_numbers), repeats, words
