"""Documents of both languages, in turns."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from lmcore.worlds.openba.documents import LANGUAGES, Document, generate_documents


@dataclass(kw_only=True, slots=True, frozen=True)
class World:
    """A bilingual corpus, with the entropy that was planted in it."""

    documents: Sequence[Document]
    """English and Chinese in turns."""

    @property
    def texts(self) -> list[str]:
        """The documents as lines."""
        return [document.text for document in self.documents]

    def to_text(self) -> str:
        """Returns the corpus as a text file, a document in each line.

        Example:
            >>> len(make_world(seed=0, documents=3).to_text().splitlines())
            3
        """
        return "".join(text + "\n" for text in self.texts)

    def entropy(self) -> float:
        """Returns the nats per token that a model which knows the world loses on these documents.

        Tokens are those of `write_piece_file`: words, marks, and the end of each document, which
        costs nothing.

        Example:
            >>> 0.5 < make_world(seed=0, documents=100).entropy() < 0.9
            True
        """
        tokens = sum(document.token_count for document in self.documents)
        return sum(document.nats for document in self.documents) / tokens


def make_world(seed: int, *, documents: int = 1000) -> World:
    """Returns a generated corpus.

    Args:
        seed: below 2**64.
        documents: number of documents, at least 1; half of them are Chinese.

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> world = make_world(seed=0, documents=4)
        >>> [document.language for document in world.documents]
        ['en', 'zh', 'en', 'zh']
    """
    if documents < 1:
        raise ValueError(f"documents must be at least 1: got {documents}")
    parts = [generate_documents(language, documents, seed) for language in LANGUAGES]
    rounds = (document for pair in zip(*parts, strict=True) for document in pair)
    return World(documents=list(itertools.islice(rounds, documents)))
