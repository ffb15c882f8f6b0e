"""Cutting raw text into words that remember where they stood.

The rule, in this order:

1. White space separates words and belongs to none.
2. A Chinese or Japanese character (`_UNSPACED`) is a word of its own.
3. Letters, marks, numbers and "_" that follow each other are one word; single "-"
   between two such runs joins them.
4. Any other character is a word of its own.

Marks (accents, variation selectors), zero-width joiners with what they join, emoji skin
tones and the second half of a flag stay with the character before them.
"""

import unicodedata
from collections.abc import Sequence

_UNSPACED = (
    (0x3005, 0x3007),  # iteration mark, closing mark, zero
    (0x3041, 0x3096),  # Hiragana
    (0x309B, 0x30FF),  # voicing marks that stand alone, Katakana
    (0x31F0, 0x31FF),  # Katakana phonetic extensions
    (0x3400, 0x4DBF),  # CJK extension A
    (0x4E00, 0x9FFF),  # CJK unified ideographs
    (0xF900, 0xFAFF),  # CJK compatibility ideographs
    (0xFF66, 0xFF9F),  # half-width Katakana
    (0x20000, 0x3FFFF),  # CJK extensions B and later
)
_JOINER = "\u200d"


def split_words(text: str) -> list[tuple[int, int]]:
    """Returns the (start, end) of each word of `text`, in characters.

    Args:
        text: any text.

    Returns:
        Half-open ranges that do not overlap, in order; `text[start:end]` is the word.

    Example:
        >>> [("EU-wide ban.")[s:e] for s, e in split_words("EU-wide ban.")]
        ['EU-wide', 'ban', '.']
        >>> len(split_words("北京2008"))
        3
    """
    spans: list[tuple[int, int]] = []
    i = 0
    while i < len(text):
        start = i
        if text[i].isspace():
            i += 1
            continue
        if is_unspaced(text[i]) or not _is_word(text[i]):
            i = _end_of_character(text, i)
        else:
            i = _end_of_run(text, i)
            while i + 1 < len(text) and text[i] == "-" and _starts_run(text[i + 1]):
                i = _end_of_run(text, i + 1)
        spans.append((start, i))
    return spans


def locate_words(text: str, words: Sequence[str]) -> list[tuple[int, int]]:
    """Returns where each of the given words stands in `text`, in characters.

    Each word is looked for after the end of the one before it.

    Args:
        text: any text.
        words: words that occur in `text` in this order, without overlap.

    Returns:
        One (start, end) per word.

    Raises:
        ValueError: a word is not found after the one before it.

    Example:
        >>> locate_words("New York, USA", ["New York", ",", "USA"])
        [(0, 8), (8, 9), (10, 13)]
    """
    spans: list[tuple[int, int]] = []
    end = 0
    for index, word in enumerate(words):
        start = text.find(word, end)
        if start == -1:
            raise ValueError(f"words[{index}] {word!r} is not in text after character {end}")
        end = start + len(word)
        spans.append((start, end))
    return spans


def is_unspaced(character: str) -> bool:
    """Returns whether a character is a word of its own.

    Example:
        >>> is_unspaced("北"), is_unspaced("b")
        (True, False)
    """
    return any(low <= ord(character) <= high for low, high in _UNSPACED)


def _is_word(character: str) -> bool:
    return character == "_" or unicodedata.category(character)[0] in "LMN"


def _starts_run(character: str) -> bool:
    return _is_word(character) and not is_unspaced(character)


def _end_of_run(text: str, i: int) -> int:
    while i < len(text) and _starts_run(text[i]):
        i += 1
    return i


def _end_of_character(text: str, i: int) -> int:
    first = text[i]
    i += 1
    if _is_flag_half(first) and i < len(text) and _is_flag_half(text[i]):
        i += 1
    while i < len(text):
        if unicodedata.category(text[i])[0] == "M" or "\U0001f3fb" <= text[i] <= "\U0001f3ff":
            i += 1
        elif text[i] == _JOINER and i + 1 < len(text) and not text[i + 1].isspace():
            i += 2
        else:
            break
    return i


def _is_flag_half(character: str) -> bool:
    return "\U0001f1e6" <= character <= "\U0001f1ff"
