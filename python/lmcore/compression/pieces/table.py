"""The pieces of a tokenizer, whatever files they come from, and what must stay of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.pieces.merging import Merges, derive_piece
from lmcore.openba.protobuf import PieceKind

ALGORITHMS = ("unigram", "bpe", "wordpiece", "wordlevel")


@dataclass(kw_only=True, frozen=True, eq=False)
class PieceTable:
    """The tokens of a tokenizer in the order of their ids.

    Attributes:
        algorithm: how texts are segmented: `unigram`, `bpe`, `wordpiece`, or `wordlevel`, which
            segments nothing.
        ids: `[tokens]` int64, rising; an id may lie beyond the number of tokens.
        texts: of the tokens, each once.
        kinds: `[tokens]` uint8, of `PieceKind`. What a file calls normal and a tokenizer adds
            (special tokens, tokens of users) is `CONTROL` or `USER_DEFINED`; the characters that
            stand for bytes are `BYTE`.
        scores: `[tokens]` float64 of the Unigram model, NaN where the model has none; else None.
        merges: of BPE.
        prefix: what begins a piece of WordPiece that continues a word.
        takes_whole_words: whether a word that is a piece is taken without merges.

    Raises:
        ValueError: ids or texts stand twice.

    Example:
        >>> from lmcore.compression.pieces.merging import ListedMerges
        >>> table = PieceTable(
        ...     algorithm="bpe", ids=np.arange(5), texts=["<s>", "a", "b", "c", "ab"],
        ...     kinds=np.array([3, 1, 1, 1, 1], np.uint8), merges=ListedMerges([("a", "b")]),
        ... )
        >>> table.find_required().tolist(), table.find_parents(4), table.is_built(4)
        ([0], [1, 2], True)
        >>> table.find_characters([4]).tolist()
        [1, 2]
    """

    algorithm: str
    ids: NDArray[np.int64]
    texts: Sequence[str]
    kinds: NDArray[np.uint8]
    scores: NDArray[np.float64] | None = None
    merges: Merges | None = None
    prefix: str = ""
    takes_whole_words: bool = False
    _derived: dict[int, list[int] | None] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if (self.ids[1:] <= self.ids[:-1]).any():
            twice = int(self.ids[1:][self.ids[1:] <= self.ids[:-1]][0])
            raise ValueError(f"two tokens have the id {twice}")
        if len(self.index_by_text) < len(self.texts):
            seen: set[str] = set()
            twin = next(text for text in self.texts if text in seen or seen.add(text))  # type: ignore[func-returns-value]
            raise ValueError(f"two tokens are {twin!r:.60}")

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def index_by_text(self) -> dict[str, int]:
        """Place of each text in the table."""
        return {text: i for i, text in enumerate(self.texts)}

    def find_id(self, text: str) -> int | None:
        """Returns the id of a text, or None.

        Args:
            text: of a token.
        """
        index = self.index_by_text.get(text)
        return None if index is None else int(self.ids[index])

    def find_required(self) -> NDArray[np.int64]:
        """Returns places of the tokens that always stay, rising.

        These are all that are not normal. Of the Unigram model they are as well one piece of the
        least score and one of the greatest: what an unknown character costs follows from the one,
        and from the other what a symbol of a user is worth in `lmcore.openba.pieces`. Without them
        the segmentation of texts whose pieces all stay could change.
        """
        required = self.kinds != PieceKind.NORMAL
        if self.scores is not None:
            for places in (np.arange(len(self)), np.flatnonzero(~required)):
                known = places[~np.isnan(self.scores[places])]
                if known.size:
                    scores = self.scores[known]
                    required[known[[int(scores.argmin()), int(scores.argmax())]]] = True
        return np.flatnonzero(required)

    def find_characters(self, places: Iterable[int]) -> NDArray[np.int64]:
        """Returns places of the single characters that normal tokens are made of, rising.

        Each text that has these tokens can be written with the characters alone, so that it does
        not become unknown when the tokens go.

        Args:
            places: of tokens in the table.
        """
        normal = self.kinds == PieceKind.NORMAL
        texts = [self.texts[place] for place in places if normal[place]]
        found = (self.index_by_text.get(atom) for atom in set(self._split(texts)))
        return np.array(sorted(place for place in found if place is not None), np.int64)

    def find_parents(self, place: int) -> list[int]:
        """Returns places of the tokens that a token is built from, without itself, rising.

        Args:
            place: of the token; a special one and one that nothing builds are built from none.
        """
        derived = self._derive(place)
        return [] if derived is None else derived

    def is_built(self, place: int) -> bool:
        """Whether a token can come in a text: a normal one of BPE that no merges build cannot.

        Args:
            place: of the token.
        """
        return self.takes_whole_words or self._derive(place) is not None

    def _split(self, texts: Collection[str]) -> Iterator[str]:
        if self.algorithm == "wordlevel":
            return
        if self.merges is not None:
            for text in texts:
                yield from self.merges.split(text)
        elif self.algorithm == "wordpiece":
            for text in texts:
                continues = bool(self.prefix) and text.startswith(self.prefix)
                body = text[len(self.prefix) :] if continues else text
                yield from (
                    (self.prefix if i or continues else "") + char for i, char in enumerate(body)
                )
        else:
            yield from "".join(texts)

    def _derive(self, place: int) -> list[int] | None:
        if self.merges is None or self.kinds[place] != PieceKind.NORMAL:
            return []
        if place not in self._derived:
            text = self.texts[place]
            symbols = derive_piece(text, self.merges)
            found = {self.index_by_text.get(symbol) for symbol in symbols or ()} - {None, place}
            self._derived[place] = None if symbols is None else sorted(found)  # type: ignore[arg-type]
        return self._derived[place]
