"""Words of generated texts as ids: a vocabulary that is as small as the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from lmcore.worlds.openba import LANGUAGES

TEXT = 2
"""The first id of a word; 0 is padding and 1 the end."""
_CHINESE = sorted({word for word in LANGUAGES["zh"].words() if len(word) > 1}, key=len)[::-1]
_PARTS = re.compile("|".join([*map(re.escape, _CHINESE), "[A-Za-z]+", r"\d+", r"\S"]))


class Words:
    """The words of texts, with an id for each in the order in which they come.

    Example:
        >>> words = Words()
        >>> words.encode("Ada met Ada."), words.encode("小芳住在东村。")
        ([2, 3, 2, 4], [5, 6, 7, 8])
    """

    def __init__(self) -> None:
        self.ids: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.ids)

    def add(self, words: Iterable[str]) -> list[int]:
        """Returns the ids of words; new ones get the next.

        Args:
            words: any.
        """
        return [self.ids.setdefault(word, TEXT + len(self.ids)) for word in words]

    def encode(self, text: str) -> list[int]:
        """Returns the ids of a text's words, numbers and marks.

        Args:
            text: English or Chinese, where generated words are found and others are letters.
        """
        return self.add(_PARTS.findall(text))

    def decode(self, ids: Sequence[int]) -> str:
        """Returns words with spaces between them, to read; those without a word are left out.

        Args:
            ids: any.
        """
        known = {id_: word for word, id_ in self.ids.items()}
        return " ".join(known[id_] for id_ in ids if id_ in known)
