"""What pages of named entities share: sentences with marked entities."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape

from lmcore.ops.entities import Span

# Scripts that are written without spaces between words, and their punctuation.
_UNSPACED = re.compile("[\u2e80-\u303f\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
                       "\U00020000-\U0003ffff]")  # fmt: skip
_LONG_WORDS = 80


def join_words(words: Sequence[str]) -> str:
    """Returns words with spaces between them, where their script has spaces.

    Args:
        words: of a sentence.

    Example:
        >>> join_words(["我", "爱", "New", "York", "。"])
        '我爱 New York。'
    """
    text = ""
    for word in words:
        text += separate(text, word) + word
    return text


def separate(before: str, after: str) -> str:
    """Returns what stands between two texts of a sentence: a space or nothing.

    Args:
        before: ends where the other begins; nothing stands behind an empty text.
        after: the text that follows.

    Example:
        >>> separate("a", "b"), separate("京", "城"), separate("", "b")
        (' ', '', '')
    """
    if not before or not after:
        return ""
    sides = (_UNSPACED.match(before[-1]), _UNSPACED.match(after[0]))
    # Punctuation of such a script brings its own space.
    is_mark = after[0] in "\u3001\u3002\uff0c\uff01\uff1f\uff1b\uff1a"
    return "" if all(sides) or is_mark else " "


def mark_entities(
    words: Sequence[str], spans: Sequence[Span], right: Iterable[Span], wrong: str
) -> str:
    """Returns a sentence as HTML, each entity with its type and whether it is right.

    Args:
        words: of the sentence.
        spans: entities to mark, in order.
        right: those that are right.
        wrong: what the others are called, for readers who hear the page.

    Example:
        >>> text = mark_entities(["in", "York"], [Span(1, 2, "city")], [], "missed")
        >>> '<mark class=wrong' in text, text.count("✗")
        (True, 1)
    """
    known = set(right)
    parts: list[str] = []
    last, end = "", 0
    for span in spans:
        between = join_words(words[end : span.start])
        text = join_words(words[span.start : span.end])
        if between:
            parts.append(separate(last, between) + escape(between))
            last = between
        parts.append(separate(last, text) + mark(text, span.type, span in known, wrong))
        last, end = text, span.end
    rest = join_words(words[end:])
    return "".join(parts) + separate(last, rest) + escape(rest)


def mark(text: str, kind: str, is_right: bool, wrong: str) -> str:
    r"""Returns an entity as HTML: a colour, a sign, and the type behind a space that cannot break.

    Args:
        text: its words.
        kind: its type.
        is_right: whether it is right.
        wrong: what it is called otherwise.

    Example:
        >>> mark("York", "city", True, "missed")
        '<mark class=right><b title="right">✓</b>York\xa0<sub>city</sub></mark>'
    """
    name, sign = ("right", "✓") if is_right else ("wrong", "✗")
    title = "right" if is_right else wrong
    return (
        f'<mark class={name}><b title="{title}">{sign}</b>{escape(text)}'
        f"\u00a0<sub>{escape(kind)}</sub></mark>"
    )


def is_long(words: Sequence[str]) -> bool:
    """Returns whether a sentence is folded.

    Args:
        words: of the sentence.

    Example:
        >>> is_long(["a"] * 81)
        True
    """
    return len(words) > _LONG_WORDS
