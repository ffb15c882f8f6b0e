"""Byte-pair encoding as far as pruning needs it: from which other pieces each piece is built.

A piece of several characters comes into a text by merges, and each merge needs both of its parts.
Whoever keeps a piece keeps what it is built from: else the file does not load, or the piece is
there and never comes. Which parts these are is found by running the merges on the piece's own
text: if they end in one symbol, the symbols on the way are what it needs. Then

- the same merges happen when fewer pieces are left: each was the first of all that were possible,
  so it is the first of those that still are;
- the same merges build the piece within any text in which it comes: no merge across its borders
  happens there, and those inside have the same order.

So a text whose pieces all stay has the same pieces as before.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Protocol


class Merges(Protocol):
    """What the merges of a tokenizer make of a text."""

    def split(self, text: str) -> list[str]:
        """Returns the symbols of a piece before the first merge.

        Args:
            text: of the piece.
        """
        ...

    def find_rank(self, left: str, right: str) -> tuple[float, str] | None:
        """Returns the rank of a merge, the least of which comes first, and what it makes.

        Args:
            left: a symbol.
            right: the one behind it.
        """
        ...


class ListedMerges:
    """Merges that a file lists in their order, as `tokenizer.json` and `merges.txt` do.

    Of a pair that is listed twice the last place counts, as in tokenizers 0.23.

    Args:
        pairs: in the order of the file.
        prefix: what begins a piece that continues a word.
        suffix: what ends a piece that ends a word.

    Example:
        >>> merges = ListedMerges([("l", "o"), ("lo", "w")])
        >>> derive_piece("low", merges)
        ['l', 'o', 'w', 'lo', 'low']
        >>> derive_piece("owl", merges) is None
        True
    """

    def __init__(
        self, pairs: Sequence[tuple[str, str]], *, prefix: str = "", suffix: str = ""
    ) -> None:
        self.prefix, self.suffix = prefix, suffix
        self._ranks = {pair: rank for rank, pair in enumerate(pairs)}

    def split(self, text: str) -> list[str]:
        """Returns the symbols of a piece before the first merge.

        Args:
            text: of the piece.
        """
        if not (self.prefix or self.suffix):
            return list(text)
        continues = bool(self.prefix) and text.startswith(self.prefix) and text != self.prefix
        body = text[len(self.prefix) :] if continues else text
        ends = bool(self.suffix) and body.endswith(self.suffix) and body != self.suffix
        body = body[: len(body) - len(self.suffix)] if ends else body
        symbols = [self.prefix + char for char in body]
        if body and not continues:
            symbols[0] = body[0]
        if ends:
            symbols[-1] += self.suffix
        return symbols

    def find_rank(self, left: str, right: str) -> tuple[float, str] | None:
        """Returns the rank of a merge, and what it makes.

        Args:
            left: a symbol.
            right: the one behind it.
        """
        rank = self._ranks.get((left, right))
        return None if rank is None else (rank, left + right[len(self.prefix) :])


class ScoredMerges:
    """Merges of SentencePiece: any two symbols that make a piece, that of the best score first.

    Pieces that a user defined stand in a text before the first merge, and are never merged.

    Args:
        scores: by the texts of the pieces that merges may make.
        symbols: what users defined.

    Example:
        >>> derive_piece("low", ScoredMerges({"lo": -1.0, "ow": -2.0, "low": -3.0}))
        ['l', 'o', 'w', 'lo', 'low']
    """

    def __init__(self, scores: dict[str, float], symbols: Collection[str] = ()) -> None:
        self._scores = scores
        self._symbols = frozenset(symbols)
        longest_first = sorted(self._symbols, key=lambda text: (-len(text), text))
        pattern = "|".join(map(re.escape, longest_first))
        self._parts = re.compile(f"(?s:{pattern}{'|' if pattern else ''}.)")

    def split(self, text: str) -> list[str]:
        """Returns the symbols of a piece before the first merge.

        Args:
            text: of the piece.
        """
        return self._parts.findall(text) if self._symbols else list(text)

    def find_rank(self, left: str, right: str) -> tuple[float, str] | None:
        """Returns the negative score of what a merge makes, and what it makes.

        Args:
            left: a symbol.
            right: the one behind it.
        """
        if left in self._symbols or right in self._symbols:
            return None
        score = self._scores.get(left + right)
        return None if score is None else (-score, left + right)


def derive_piece(text: str, merges: Merges) -> list[str] | None:
    """Returns all symbols that a piece is built from, itself last; None where nothing builds it.

    Args:
        text: of the piece.
        merges: of the tokenizer.

    Example:
        >>> derive_piece("a", ListedMerges([]))
        ['a']
    """
    symbols = merges.split(text)
    made = list(symbols)
    while len(symbols) > 1:
        found = _find_first(symbols, merges.find_rank)
        if found is None:
            return None
        place, result = found
        symbols[place : place + 2] = [result]
        made.append(result)
    return made if symbols == [text] else None


def _find_first(
    symbols: list[str], find_rank: Callable[[str, str], tuple[float, str] | None]
) -> tuple[int, str] | None:
    """Place and result of the merge that comes first: of the least rank, the leftmost of equals."""
    best: tuple[float, int, str] | None = None
    for place in range(len(symbols) - 1):
        found = find_rank(symbols[place], symbols[place + 1])
        if found is not None and (best is None or found[0] < best[0]):
            best = (found[0], place, found[1])
    return None if best is None else best[1:]
