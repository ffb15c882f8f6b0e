"""Words of a text with their places, and the n-grams that a small model sees of them.

A word is a run of letters and digits, also with signs in it that stand for letters (`sh*t`), or a
single Chinese or Japanese character, or a sign. A word's form is that of Unicode's compatibility,
in small letters, without invisible characters, and with runs of one letter cut to two. Features
are the word, neighbouring pairs of words, and pieces of three and four characters with marks for
the word's ends; each is a number below `2 ** bits` by its checksum.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

PIECES = (3, 4)
"""Characters of the pieces of a word."""

# Ideographs and kana stand alone, so that Chinese is read by character. The classes of the two
# parts of a run have no character in common: matching takes linear time.
_SINGLE = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_INNER = "*@$#'’\u00ad\u200b-\u200d\u2060\ufeff\u0300-\u036f-"
_WORD = re.compile(rf"[{_SINGLE}]|[@$]?[^\W{_SINGLE}]+(?:[{_INNER}]+[^\W{_SINGLE}]+)*|[^\w\s]")
_INVISIBLE = dict.fromkeys([0xAD, 0x200B, 0x200C, 0x200D, 0x2060, 0xFEFF])
_RUN = re.compile(r"(.)\1{2,}", re.DOTALL)
_CACHED_LENGTH = 64


class Word(NamedTuple):
    """A word of a text."""

    start: int
    """In characters."""
    end: int
    form: str
    """What features are made of."""


def find_words(text: str) -> list[Word]:
    r"""Returns the words of a text, in order and without overlap.

    Args:
        text: any text.

    Example:
        >>> [word.form for word in find_words("You SH*T, soooo\u200bo 坏人")]
        ['you', 'sh*t', ',', 'soo', '坏', '人']
    """
    return [Word(*match.span(), _fold(match[0])) for match in _WORD.finditer(text)]


def hash_words(words: Sequence[Word], bits: int) -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yields features, and the indices of the words that each comes from.

    A feature that occurs several times comes several times.

    Args:
        words: of one text.
        bits: features are below `2 ** bits`.

    Example:
        >>> [index for _, index in hash_words(find_words("a b"), 18)]
        [(0,), (1,), (0, 1)]
    """
    mask = (1 << bits) - 1
    for index, word in enumerate(words):
        for feature in _hash_word(word.form):
            yield feature & mask, (index,)
        if index:
            yield _hash_pair(words[index - 1].form, word.form) & mask, (index - 1, index)


def hash_texts(texts: Sequence[str], bits: int) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Returns the distinct features of each text, in rising order.

    Args:
        texts: N texts.
        bits: features are below `2 ** bits`.

    Returns:
        `[N + 1]` int64, where the features of each text begin, and int32 the features.

    Example:
        >>> offsets, features = hash_texts(["a a", ""], 18)
        >>> offsets.tolist(), len(features)
        ([0, 2, 2], 2)
    """
    import numpy as np

    counts, parts = [0], [np.zeros(0, np.int32)]
    mask = (1 << bits) - 1
    for text in texts:
        forms = [_fold(word) for word in _WORD.findall(text)]
        found = set(map(_hash_pair, forms, forms[1:]))
        found.update(*map(_hash_word, forms))
        # Distinct checksums may become one number.
        distinct = np.unique(np.fromiter(found, np.int64, len(found)) & mask)
        counts.append(len(distinct))
        parts.append(distinct.astype(np.int32))
    return np.cumsum(counts), np.concatenate(parts)


def _fold(word: str) -> str:
    return _fold_short(word) if len(word) <= _CACHED_LENGTH else _fold_any(word)


def _fold_any(word: str) -> str:
    form = word if word.isascii() else unicodedata.normalize("NFKC", word)
    return _RUN.sub(r"\1\1", form.lower().translate(_INVISIBLE))


def _hash_word(form: str) -> tuple[int, ...]:
    return _hash_short(form) if len(form) <= _CACHED_LENGTH else _hash_pieces(form)


def _hash_pieces(form: str) -> tuple[int, ...]:
    features = [crc32(f"1 {form}".encode("utf-8", "surrogatepass"))]
    if len(form) > 1:
        marked = f"<{form}>"
        features += [
            crc32(f"c {marked[start : start + size]}".encode("utf-8", "surrogatepass"))
            for size in PIECES
            for start in range(len(marked) - size + 1)
        ]
    return tuple(features)


def _hash_pair(form: str, after: str) -> int:
    return crc32(f"2 {form} {after}".encode("utf-8", "surrogatepass"))


# Few words make most of a text.
_fold_short = lru_cache(maxsize=1 << 16)(_fold_any)
_hash_short = lru_cache(maxsize=1 << 16)(_hash_pieces)
