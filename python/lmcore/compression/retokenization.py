"""Ids that are gone are cut anew from their text, with the word around them.

A smaller vocabulary cuts a word into other pieces where one of its pieces is gone: the pieces of
that word are put together again, and the new model cuts them. Other words stay what they are. Of a
tokenizer whose pieces do not go across word marks, this gives the ids that the new tokenizer gives
the whole text; of one of bytes (GPT-2's and its like) the piece alone is cut anew.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.backends import Backend
from lmcore.openba.pieces import MARK
from lmcore.ops.vocabulary import remap_ids

# Words that are remembered; a corpus has few, and most of its places hold one of them.
_REMEMBERED = 1 << 20
# What stands before a piece of WordPiece within a word.
_INSIDE = "##"
# A word that is longer is cut.
_LONGEST_WORD = 1 << 16

Ids = NDArray[np.integer]


class Translator(Protocol):
    """What makes new ids of old ones."""

    keeps_lengths: bool

    def translate(self, ids: Ids, starts: Ids) -> tuple[Ids, Ids]:
        """Returns new ids, and where those begin that begin at `starts` among the old ones."""

    def find_cut(self, ids: Ids) -> int:
        """Returns up to where ids can be translated without those that follow."""


class Filler:
    """One id in place of those that are gone.

    Args:
        table: `[V]` int64, new ids by old ones; -1 where there is none.
        fill: the id; None where nothing is gone.
        dtype: of the new ids.

    Example:
        >>> filler = Filler(np.array([0, -1, 1]), 9, "int32")
        >>> filler.translate(np.array([2, 1, 0]), np.array([0, 2]))[0].tolist()
        [1, 9, 0]
    """

    keeps_lengths = True

    def __init__(self, table: NDArray[np.int64], fill: int | None, dtype: str) -> None:
        self._table, self._fill, self._dtype = table, fill, dtype

    def translate(self, ids: Ids, starts: Ids) -> tuple[Ids, Ids]:
        """Returns new ids, as many as the old ones.

        Args:
            ids: `[N]` old ids.
            starts: `[S]` places among them.
        """
        return remap_ids(ids, self._table, fill=self._fill, dtype=self._dtype).ids, starts

    def find_cut(self, ids: Ids) -> int:
        """Returns their number.

        Args:
            ids: `[N]` old ids.
        """
        return len(ids)


class Dropper:
    """Nothing in place of ids that are gone.

    Args:
        table: `[V]` int64, new ids by old ones; -1 where there is none.
        dtype: of the new ids.

    Example:
        >>> dropper = Dropper(np.array([0, -1, 1]), "int32")
        >>> new, starts = dropper.translate(np.array([2, 1, 0]), np.array([0, 2]))
        >>> new.tolist(), starts.tolist()
        ([1, 0], [0, 1])
    """

    keeps_lengths = False

    def __init__(self, table: NDArray[np.int64], dtype: str) -> None:
        self._table, self._dtype = table, dtype

    def translate(self, ids: Ids, starts: Ids) -> tuple[Ids, Ids]:
        """Returns new ids, and where those begin that begin at `starts` among the old ones.

        Args:
            ids: `[N]` old ids.
            starts: `[S]` places among them.
        """
        new = remap_ids(ids, self._table, fill=-1).ids
        is_kept = new >= 0
        before = np.concatenate([[0], np.cumsum(is_kept)])
        return new[is_kept].astype(self._dtype), before[starts]

    def find_cut(self, ids: Ids) -> int:
        """Returns their number.

        Args:
            ids: `[N]` old ids.
        """
        return len(ids)


class Retokenizer:
    """New pieces of the words in which a piece is gone.

    Args:
        table: `[V]` int64, new ids by old ones; -1 where there is none.
        old: the tokenizer of the old ids.
        new: that of the new ones.
        fill: for ids that have no text; None for nothing in their place.
        dtype: of the new ids.

    Attributes:
        has_text: `[V]` bool, which old ids can be cut anew.
        unknown: how many pieces of unknown text were made.

    Example:
        >>> from tokenizers import Tokenizer
        >>> from tokenizers.models import Unigram
        >>> pieces = [("<unk>", 0.0), ("▁a", -2.0), ("b", -2.0), ("▁ab", -3.0)]
        >>> old, new = (
        ...     Backend(
        ...         tokenizer=Tokenizer(Unigram(some, 0)), vocabulary_size=len(some), digest="",
        ...         hidden=frozenset([0]), unknown=0,
        ...     )
        ...     for some in (pieces, pieces[:3])
        ... )
        >>> words = Retokenizer(np.array([0, 1, 2, -1]), old, new, None, "int32")
        >>> words.translate(np.array([1, 3]), np.array([0, 1]))[0].tolist()
        [1, 1, 2]
    """

    keeps_lengths = False

    def __init__(
        self, table: NDArray[np.int64], old: Backend, new: Backend, fill: int | None, dtype: str
    ) -> None:
        self._table, self._dtype = table, dtype
        self._model, self._unknown = new.tokenizer.model, new.unknown
        self._none: Ids = np.asarray([] if fill is None else [fill], np.int64)
        size = len(table)
        self._texts = [old.tokenizer.id_to_token(i) or "" for i in range(size)]
        # The last entry is for ids that the old vocabulary does not have.
        self._is_text = np.array(
            [bool(text) and i not in old.hidden for i, text in enumerate(self._texts)] + [False]
        )
        self._begins, self._is_mark = self._find_words(type(new.tokenizer.model).__name__)
        self._known: dict[bytes, Ids] = {}
        self.has_text = self._is_text[:-1]
        self.unknown = 0

    def translate(self, ids: Ids, starts: Ids) -> tuple[Ids, Ids]:
        """Returns new ids, and where those begin that begin at `starts` among the old ones.

        Args:
            ids: `[N]` old ids.
            starts: `[S]` places among them, where a word begins whatever the pieces say.
        """
        new = remap_ids(ids, self._table, fill=-1).ids
        lost = np.flatnonzero(new < 0)
        if not len(lost):
            return new.astype(self._dtype), starts
        begins = self._find_begins(ids)
        begins[starts[starts < len(ids)]] = True
        firsts = np.flatnonzero(begins)
        ends = np.append(firsts[1:], len(ids))
        words = np.cumsum(begins) - 1
        parts, place, lengths = [], 0, ends - firsts
        for word in np.unique(words[lost]).tolist():
            first, end = int(firsts[word]), int(ends[word])
            found = self._cut(ids[first:end])
            parts += [new[place:first], found]
            place, lengths[word] = end, len(found)
        parts.append(new[place:])
        before = np.concatenate([[0], np.cumsum(lengths)])
        words = np.append(words, len(firsts))
        return np.concatenate(parts).astype(self._dtype), before[words[starts]]

    def find_cut(self, ids: Ids) -> int:
        """Returns where the last word begins.

        Args:
            ids: `[N]` old ids.
        """
        begins = np.flatnonzero(self._find_begins(ids[-_LONGEST_WORD:]))
        last = int(begins[-1]) if len(begins) else 0
        return len(ids) - min(_LONGEST_WORD, len(ids)) + last or len(ids)

    def _find_words(self, model: str) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which old pieces begin a word, and which are marks alone."""
        texts = [*self._texts, ""]
        if model == "WordPiece":
            self._joins = True
            begins = [not text.startswith(_INSIDE) for text in texts]
            return np.array(begins), np.zeros(len(texts), bool)
        self._joins = any(text.startswith(MARK) for text in texts)
        begins = [text.startswith(MARK) or not self._joins for text in texts]
        return np.array(begins), np.array([bool(t) and not t.strip(MARK) for t in texts])

    def _find_begins(self, ids: Ids) -> NDArray[np.bool_]:
        """Which ids begin a word."""
        size = len(self._table)
        places = np.where((ids < 0) | (ids >= size), size, ids).astype(np.int64)
        is_text = self._is_text[places]
        begins = self._begins[places]
        # A word has its marks with it, however many there are.
        begins[1:] &= ~self._is_mark[places[:-1]]
        begins |= ~is_text
        begins[1:] |= ~is_text[:-1]
        begins[:1] = True
        return begins

    def _cut(self, word: Ids) -> Ids:
        """New ids of a word."""
        key = word.tobytes()
        found = self._known.get(key)
        if found is None:
            first = int(word[0])
            if not (0 <= first < len(self._table) and self._is_text[first]):
                return self._none
            texts = [self._texts[i] for i in word.tolist()]
            text = "".join([texts[0], *(part.removeprefix(_INSIDE) for part in texts[1:])])
            if type(self._model).__name__ != "WordPiece":
                text = "".join(texts)
            found = np.asarray([token.id for token in self._model.tokenize(text)], np.int64)
            if len(self._known) < _REMEMBERED:
                self._known[key] = found
        if self._unknown is not None:
            self.unknown += int((found == self._unknown).sum())
        return found
