"""A scorer of a list of toxic words and phrases, which is an input and never shipped."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from lmcore._streams import name_input, open_input
from lmcore.detox.ngram_features import Word, find_words
from lmcore.detox.scorers import WordWeight

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_MOST_WORDS = 32  # at each word of a text every length is tried


class LexiconScorer:
    """1 for a text with a word or phrase of a list, 0 for others.

    Whole words are compared, in the forms of `lmcore.detox.ngram_features`: small and capital
    letters are one, and so are runs of a letter. Chinese is compared by character.

    Args:
        phrases: words and phrases.
        name: how errors call the list.

    Raises:
        ValueError: there is none with a word in it, or one with more than 32.

    Example:
        >>> scorer = LexiconScorer(["zorgish", "blee blap"])
        >>> scorer(["A Zorgish thing", "blee, blap", "blee blap!"]).tolist()
        [1.0, 0.0, 1.0]
    """

    def __init__(self, phrases: Iterable[str], *, name: str = "the lexicon") -> None:
        forms = {tuple(word.form for word in find_words(phrase)) for phrase in phrases}
        self._phrases = {form for form in forms if form}
        if not self._phrases:
            raise ValueError(f"{name} holds no words")
        if max(map(len, self._phrases)) > _MOST_WORDS:
            raise ValueError(f"{name} holds a phrase of more than {_MOST_WORDS} words")
        self._lengths: dict[str, list[int]] = {}
        for phrase in self._phrases:
            self._lengths.setdefault(phrase[0], []).append(len(phrase))
        for lengths in self._lengths.values():
            lengths[:] = sorted(set(lengths), reverse=True)
        listed = "\n".join(sorted(" ".join(phrase) for phrase in self._phrases))
        digest = hashlib.blake2b(listed.encode("utf-8", "surrogatepass"), digest_size=16)
        self.key = f"lexicon {digest.hexdigest()}"

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> LexiconScorer:
        r"""Returns the scorer of a file with a word or phrase in each line.

        Args:
            path: UTF-8; `.gz` is decompressed.

        Raises:
            OSError: the file cannot be read.
            ValueError: it holds no words, a phrase of too many, or is not UTF-8.

        Example:
            >>> import tempfile
            >>> with tempfile.NamedTemporaryFile("w") as file:
            ...     _ = file.write("blap\n"), file.flush()
            ...     LexiconScorer.load(file.name)(["a blap"]).tolist()
            [1.0]
        """
        phrases = []
        with open_input(path) as source:
            for number, line in source.lines():
                try:
                    phrases.append(line.decode())
                except UnicodeDecodeError:
                    raise ValueError(f"{name_input(path)}:{number}: not UTF-8") from None
        return cls(phrases, name=name_input(path))

    def __call__(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """Returns 1 or 0 for each text.

        Args:
            texts: N texts.
        """
        import numpy as np

        return np.array([float(bool(self.explain(text))) for text in texts])

    def explain(self, text: str) -> list[WordWeight]:
        """Returns the words and phrases of the list that stand in a text, the longest of each.

        Args:
            text: any text.

        Example:
            >>> LexiconScorer(["blap"]).explain("a Blap")
            [WordWeight(start=2, end=6, word='Blap', weight=1.0)]
        """
        words, found, index = find_words(text), [], 0
        while index < len(words):
            length = self._match(words, index)
            if length:
                start, end = words[index].start, words[index + length - 1].end
                found.append(WordWeight(start, end, text[start:end], 1.0))
            index += length or 1
        return found

    def _match(self, words: Sequence[Word], index: int) -> int:
        """How many words from there on are a phrase of the list; 0 if none is."""
        for length in self._lengths.get(words[index].form, ()):
            forms = tuple(word.form for word in words[index : index + length])
            if forms in self._phrases:  # at the end of a text it may be a shorter one
                return len(forms)
        return 0
