"""What models change in the words that they copy: width, form, quotes and the case of labels.

`fold` makes equal what differs in nothing else:

| | for example | becomes |
| --- | --- | --- |
| width and compatibility (NFKC) | `ＥＵ（` `ﬁ` | `EU(` `fi` |
| composed or decomposed (NFC, NFD) | `e` and an accent | `é` |
| quotes and apostrophes | `“ ” „ « » '' ``` and `‘ ’ ´` | `"` and `'` |
| dashes and minus signs | `‐ ‑ – — −` | `-` |

`lmcore.ner.extract` compares folded words; scoring and aligning files compare as the authors do.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

_SINGLE = "\u2018\u2019\u201a\u201b\u2032\u02bc\u00b4`"
_DOUBLE = "\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb\u301d\u301e\u301f"
_DASHES = "\u2010\u2011\u2012\u2013\u2014\u2015\u2212"
_SIGNS = str.maketrans(
    {**dict.fromkeys(_SINGLE, "'"), **dict.fromkeys(_DOUBLE, '"'), **dict.fromkeys(_DASHES, "-")}
)
_CHANGED = re.compile(f"[{_SINGLE}{_DOUBLE}{_DASHES}]|''")
_PAIRS = ("''", "``", "\u2018\u2018", "\u2019\u2019")
# What joins the character before it though it has no combining class: vowels and finals of
# Hangul, and the half-width marks of Katakana.
_JOINING = re.compile("[\u1160-\u11ff\uff9e\uff9f\ufe00-\ufe0f\u200d]")
_LABEL = re.compile(r"\(\s*(?:([BbIi])\s*-\s*([^()\n]*?)|([Oo]))\s*\)")


class Folded(NamedTuple):
    """A folded text, and where its characters stood."""

    text: str
    starts: Sequence[int]
    """For each character, and for the end, the first character of the original text."""
    ends: Sequence[int]
    """For each character the end of what it came from."""


def fold(text: str) -> Folded:
    r"""Returns a text in one width, form and kind of quotes, with the places of its characters.

    Args:
        text: any text.

    Example:
        >>> folded = fold("“ｅ\u0301”")
        >>> folded.text, list(folded.starts), list(folded.ends)
        ('"é"', [0, 1, 3, 4], [1, 3, 4])
    """
    if _CHANGED.search(text) is None and unicodedata.is_normalized("NFKC", text):
        return Folded(text, range(len(text) + 1), range(1, len(text) + 1))
    parts: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    start = 0
    while start < len(text):
        end = _end_of_cluster(text, start)
        part = _fold_cluster(text[start:end])
        parts.append(part)
        starts += [start] * len(part)
        ends += [end] * len(part)
        start = end
    return Folded("".join(parts), [*starts, len(text)], ends)


def fold_labels(generation: str, types: Sequence[str]) -> str:
    """Returns a generated text, folded, with its labels as the types are written.

    Args:
        generation: what a model wrote; `( b-PERSON )` is a label of the type `person`.
        types: what entities may be. Labels of other types stay as they are.

    Example:
        >>> fold_labels("Ada（B-PERSON） met(o)", ["person"])
        'Ada(B-person) met(O)'
    """
    known = {_fold_type(name): name for name in reversed(types)}
    exact = set(types)

    def write(label: re.Match[str]) -> str:
        prefix, name, _ = label.groups()
        if prefix is None:
            return "(O)"
        found = name if name in exact else known.get(_fold_type(name))
        return label[0] if found is None else f"({prefix.upper()}-{found})"

    return _LABEL.sub(write, fold(generation).text)


def _fold_type(name: str) -> str:
    return fold(name).text.casefold().strip()


def _end_of_cluster(text: str, start: int) -> int:
    """The end of a character with all that joins it."""
    if text[start : start + 2] in _PAIRS:
        return start + 2
    end = start + 1
    while end < len(text) and (unicodedata.combining(text[end]) or _JOINING.match(text[end])):
        end += 1
    return end


def _fold_cluster(cluster: str) -> str:
    if cluster in _PAIRS:
        return '"'
    # Compatibility makes a space and an accent of some signs, so signs are folded first.
    return unicodedata.normalize("NFKC", cluster.translate(_SIGNS)).translate(_SIGNS)
