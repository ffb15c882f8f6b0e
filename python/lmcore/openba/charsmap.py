"""Maps of characters as SentencePiece compiles them: a trie, and the texts that it leads to."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

_LABEL = 0x800000FF


class CharacterMap:
    """A map of characters, checked: no search can leave its tables.

    It begins with the size of a double-array trie, whose units have 32 bits each; behind the trie
    stand the texts, each ended by a zero byte.

    Args:
        content: the map.

    Raises:
        ValueError: it is broken.

    Example:
        >>> CharacterMap(b"")
        Traceback (most recent call last):
        ValueError: a map of characters of 0 bytes with a table of 0
    """

    def __init__(self, content: bytes) -> None:
        size = int.from_bytes(content[:4], "little")
        if size % 4 or not 0 < size <= len(content) - 4:
            raise ValueError(f"a map of characters of {len(content)} bytes with a table of {size}")
        self._units: NDArray[np.int64] = np.frombuffer(content, "<u4", size // 4, 4).astype(
            np.int64
        )
        self._texts = content[4 + size :]
        self._offsets = (self._units >> 10) << ((self._units & (1 << 9)) >> 6)
        try:
            self._texts.decode()
        except UnicodeDecodeError:
            raise ValueError("the texts of its map of characters are not UTF-8") from None
        self._check()

    @property
    def composes(self) -> bool:
        """Whether it makes all characters of Unicode's canonical composition.

        So it is with `nfkc`, `nmt_nfkc` and their like. Composing a text before it is mapped then
        changes nothing but sequences of several marks, which the map has not all.
        """
        changed = (chr(code) for code in range(0x30000) if not 0xD800 <= code < 0xE000)
        return self._maps_to_composed(
            [char for char in changed if unicodedata.normalize("NFC", char) != char]
            + ["e\u0301", "\u1112\u1161"]
        )

    def find(self, text: str) -> str | None:
        """Returns what a text becomes, or None where the map has it not as a whole.

        Args:
            text: a character, or a few.
        """
        place, end = int(self._offsets[0]), -1
        for byte in text.encode():
            place ^= byte
            unit = int(self._units[place])
            if unit & _LABEL != byte:
                return None
            place ^= int(self._offsets[place])
            end = int(self._units[place]) & 0x7FFFFFFF if unit >> 8 & 1 else -1
        if end < 0:
            return None
        return self._texts[end:].split(b"\0", 1)[0].decode()

    def _maps_to_composed(self, texts: Iterable[str]) -> bool:
        for text in texts:
            found = self.find(text)
            composed = unicodedata.normalize("NFC", text)
            if found is None or unicodedata.normalize("NFKC", composed) != found:
                return False
        return True

    def _check(self) -> None:
        """Looks at all units that a search can reach, level by level."""
        units, offsets = self._units, self._offsets
        texts = np.frombuffer(self._texts, np.uint8)
        labels = np.arange(1, 256)
        is_seen = np.zeros(len(units), bool)
        places = offsets[:1]
        while places.size:
            if (places | 255).max() >= len(units):
                raise ValueError("its map of characters points behind its table")
            found = (places[:, None] ^ labels).ravel()
            wanted = np.broadcast_to(labels, (len(places), 255)).ravel()
            found = found[(units[found] & _LABEL) == wanted]
            found = np.unique(found[~is_seen[found]])
            is_seen[found] = True
            after = found ^ offsets[found]
            if after.size and after.max() >= len(units):
                raise ValueError("its map of characters points behind its table")
            starts = units[after[(units[found] >> 8 & 1).astype(bool)]] & 0x7FFFFFFF
            if starts.size and starts.max() >= len(texts):
                raise ValueError("its map of characters points behind its texts")
            if (texts[starts] & 0xC0 == 0x80).any():
                raise ValueError("its map of characters points into a character")
            places = np.unique(after)
