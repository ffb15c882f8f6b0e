"""The language of a text by its script: English, Chinese, or another.

A Chinese character says about as much as three letters, and is counted so. Letters are those of
ASCII for English (so a text in another language of the Latin script may be called English), and
kana, Hangul, Cyrillic and all others for another language. A text without letters is another, too.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LANGUAGES = ("en", "zh", "other")
_EN, _ZH, _OTHER = range(3)
_HAN_WEIGHT = 3
# First and last characters that belong together; those in none are letters of other languages.
_RANGES = [
    (0x41, 0x5A, _EN), (0x61, 0x7A, _EN), (0x3400, 0x4DBF, _ZH), (0x4E00, 0x9FFF, _ZH),
    (0xF900, 0xFAFF, _ZH),
]  # fmt: skip
# Punctuation, symbols, full-width forms and what else is no letter.
_NO_LETTERS = [
    (0x00, 0xBF), (0xD7, 0xD7), (0xF7, 0xF7), (0x2000, 0x2BFF), (0x3000, 0x303F),
    (0xFE00, 0xFE6F), (0xFF00, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF65), (0xFFE0, 0xFFFF),
]  # fmt: skip


def find_languages(texts: Sequence[str]) -> NDArray[np.intp]:
    """Returns the language of each text, as its place in `LANGUAGES`.

    Args:
        texts: N texts.

    Returns:
        `[N]` integers.

    Example:
        >>> [LANGUAGES[k] for k in find_languages(["Ada met Otto.", "他说 hi。", "Да", "1 + 1"])]
        ['en', 'zh', 'other', 'other']
    """
    if not texts:
        return np.zeros(0, np.intp)
    # One character more for each text: reduceat knows no empty parts.
    content = np.frombuffer(" ".join([*texts, ""]).encode("utf-32-le", "replace"), "<u4")
    starts = np.cumsum([0, *(len(text) + 1 for text in texts[:-1])])
    kinds = _kinds()[np.minimum(content, 0x10000)]
    supplement = content >= 0x10000
    if supplement.any():
        kinds = kinds.copy()
        kinds[(content >= 0x20000) & (content < 0x40000)] = _ZH
    weights = np.stack([
        np.add.reduceat(kinds == kind, starts, dtype=np.int64) for kind in range(len(LANGUAGES))
    ])  # fmt: skip
    weights[_ZH] *= _HAN_WEIGHT
    found: NDArray[np.intp] = weights.argmax(axis=0)
    found[weights.sum(axis=0) == 0] = _OTHER
    return found


def _kinds() -> NDArray[np.int8]:
    """What each character of the first plane is; the last entry is for all others."""
    global _table
    if _table is None:
        table = np.full(0x10001, _OTHER, np.int8)
        table[0x10000] = -1
        for first, last in _NO_LETTERS:
            table[first : last + 1] = -1
        for first, last, kind in _RANGES:
            table[first : last + 1] = kind
        _table = table
    return _table


_table: NDArray[np.int8] | None = None
