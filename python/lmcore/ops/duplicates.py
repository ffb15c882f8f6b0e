"""Which texts and sentences stood before, exactly, by their hashes.

The definition is `lmcore.reference.duplicates`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from lmcore import _core
from lmcore.ops._threads import limit_threads
from lmcore.ops.cleaning import OUTCOMES, _pack_rules
from lmcore.reference._arguments import check_int
from lmcore.reference.duplicates import PREFIX_BITS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ENTRY_BYTES", "PREFIX_BITS", "DistinctTexts", "Duplicates", "hash_texts"]

ENTRY_BYTES = 10
"""Of a stored hash."""


class DistinctTexts(NamedTuple):
    """Texts without what stood before."""

    texts: list[str | None]
    """In order; None where a text is dropped."""
    dropped: list[str]
    """Why each is: `duplicate_documents` where it stood before, or as for cleaned texts."""
    documents: tuple[int, int]
    """Texts that stood before, and their characters."""
    paragraphs: tuple[int, int]
    """Texts that lost sentences, and the characters of these."""
    removed: list[tuple[int, int]]
    """What the rules of cleaning did to texts that had lost sentences, as for cleaned texts."""


class Duplicates:
    """The texts and sentences that were seen, by 80 bits of their hashes.

    A distinct text or sentence takes 10 to 13 bytes; 2^16 tables take 2 MB before the first.
    The first occurrence is kept, and what is found does not depend on the number of threads.
    Of n distinct texts, two are taken for one with a probability of n^2 / 2^81: once in 24,000
    runs over ten billion. Under a key that nobody else knows that holds for hostile texts, too.

    Args:
        key: 16 bytes of the hash. A run over texts of strangers takes `os.urandom(16)`; processes
            that share their hashes share the key.
        max_memory: bytes that the tables may take; None for no bound.
        keeps_added: keep what `take_added` returns.

    Raises:
        MemoryError: the memory is refused.
        TypeError: the key is no bytes, or the number none.
        ValueError: the key is not of 16 bytes, or the number is outside its range.

    Example:
        >>> seen = Duplicates()
        >>> seen.add(["a", "b", "a"]).tolist(), seen.add(["b", "c"]).tolist()
        ([False, False, True], [True, False])
        >>> len(seen)
        3
    """

    def __init__(
        self,
        *,
        key: bytes = bytes(16),
        max_memory: int | None = None,
        keeps_added: bool = False,
    ) -> None:
        most = None
        if max_memory is not None:
            most = check_int("max_memory", max_memory, 0, 1 << 63)
        self._core = _core.Duplicates(_check_key(key), most, keeps_added)

    def __len__(self) -> int:
        """Returns how many distinct texts and sentences were seen."""
        return len(self._core)

    @property
    def memory_bytes(self) -> int:
        """Memory that the tables take."""
        return self._core.memory_bytes()

    def add(self, texts: Sequence[str], *, threads: int | None = None) -> NDArray[np.bool_]:
        """Returns for each text whether it stood before, `[texts]` bool, and keeps them all.

        Args:
            texts: any number of them, without lone surrogates.
            threads: number of threads; all cores if None. The result does not depend on it.

        Raises:
            MemoryError: the tables may not grow, and those before the text are kept.
            TypeError: texts are no sequence of str.
            ValueError: a text holds a lone surrogate.
        """
        return self._core.add(texts, limit_threads(threads))

    def remove(
        self,
        texts: Sequence[str],
        *,
        documents: bool = True,
        sentences: int = 1,
        html: bool = True,
        links: bool = True,
        emails: bool = True,
        phone_numbers: bool = True,
        most_repeats: int = 3,
        minimum_words: int = 10,
        threads: int | None = None,
    ) -> DistinctTexts:
        """Returns texts without what stood before, in them or in those of earlier calls.

        What is left of a text that loses sentences is cleaned and looked at again, until it stays
        as it is.

        Source: OpenBA-V2 (arXiv 2405.05957), its section on data: runs of 1 to 99 sentences, of
        which the shortest are all that matter.

        Args:
            texts: any number of them, clean, without lone surrogates.
            documents: drop texts that stood before.
            sentences: of the shortest run that is removed where it stood before; 0 for none.
            html: as for `lmcore.ops.cleaning.clean_texts`.
            links: likewise.
            emails: likewise.
            phone_numbers: likewise.
            most_repeats: likewise.
            minimum_words: likewise.
            threads: number of threads; all cores if None. The result does not depend on it.

        Raises:
            MemoryError: the tables may not grow, and those before the text are kept.
            TypeError: texts are no sequence of str, or a number is none.
            ValueError: a text holds a lone surrogate, or a number is outside its range.

        Example:
            >>> seen = Duplicates()
            >>> texts = ["It rains. We stay.", "We stay. They go.", "It rains. We stay."]
            >>> seen.remove(texts, minimum_words=0).texts
            ['It rains. We stay.', 'They go.', None]
        """
        size = check_int("sentences", sentences, 0, 1 << 31)
        rules = _pack_rules(html, links, emails, phone_numbers, most_repeats, minimum_words)
        left, fates, counts = self._core.remove(
            texts, bool(documents), size, rules, limit_threads(threads)
        )
        *removed, whole, parts = counts
        dropped = [OUTCOMES[fate] for fate in fates.tolist()]
        return DistinctTexts(left, dropped, whole, parts, removed)

    def take_added(self) -> bytes:
        """Returns what came in since the last call, `ENTRY_BYTES` for each, if that is kept.

        Example:
            >>> seen, other = Duplicates(keeps_added=True), Duplicates()
            >>> _ = seen.add(["a"])
            >>> other.load(seen.take_added())
            >>> other.add(["a"]).tolist()
            [True]
        """
        return self._core.take_added()

    def load(self, stored: bytes) -> None:
        """Adds what `take_added` returned for the same key.

        Args:
            stored: any number of hashes.

        Raises:
            MemoryError: the tables may not grow.
            ValueError: they are cut off.
        """
        self._core.load(stored)


def hash_texts(
    texts: Sequence[str], *, key: bytes = bytes(16), threads: int | None = None
) -> NDArray[np.uint64]:
    """Returns both halves of the hash of each text, `[texts, 2]` uint64.

    Duplicates among more texts than one machine remembers are found by parts: all texts whose
    first half falls into one part, `first % parts == part`, are looked at by one process.

    Source: SipHash-2-4 of 128 bits (Aumasson and Bernstein, INDOCRYPT 2012).

    Args:
        texts: any number of them, without lone surrogates.
        key: 16 bytes.
        threads: number of threads; all cores if None. The result does not depend on it.

    Raises:
        MemoryError: the memory is refused.
        TypeError: texts are no sequence of str, or the key is no bytes.
        ValueError: a text holds a lone surrogate, or the key is not of 16 bytes.

    Example:
        >>> [f"{half:016x}" for half in hash_texts([""])[0].tolist()]
        ['7de0a38047d74950', 'f4f2ced447ab0242']
    """
    return _core.hash_texts(texts, _check_key(key), limit_threads(threads))


def _check_key(key: bytes) -> bytes:
    if not isinstance(key, bytes):
        raise TypeError(f"key must be bytes: got {type(key).__name__}")
    if len(key) != 16:
        raise ValueError(f"key must be 16 bytes long: got {len(key)}")
    return key
