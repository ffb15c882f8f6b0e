"""Pairs of a source and a target: items of a token file, or rows of ids in memory."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.openba.indexed import IndexedDataset, Item
from lmcore.openba.texts import find_outside

# Tokens that are looked at before a run starts; of more, parts from all over the file.
_LOOKED_AT = 1 << 28
_AT_ONCE = 1 << 22


class Pairs:
    """Pairs in memory, with what a token file of pairs has.

    Args:
        sources: N texts `[tokens]` of ids.
        targets: N texts `[tokens]` of ids; each has its own end.

    Attributes:
        tokens: `[tokens]` int64, source and target of each pair in turn.
        sizes: `[N, 2]` int64, tokens of source and target.

    Raises:
        TypeError: ids are no whole numbers.
        ValueError: not as many targets as sources, or one that is no list of ids.

    Example:
        >>> pairs = Pairs([[5, 6]], [[7, 1]])
        >>> len(pairs), pairs[0].target.tolist()
        (1, [7, 1])
    """

    def __init__(self, sources: Sequence[ArrayLike], targets: Sequence[ArrayLike]) -> None:
        if len(sources) != len(targets):
            raise ValueError(
                f"expected a target for each of {len(sources)} sources: got {len(targets)}"
            )
        parts = []
        for source, target in zip(sources, targets, strict=True):
            parts += [_convert("sources", source), _convert("targets", target)]
        self.sizes: NDArray[np.int64] = np.array([len(p) for p in parts], np.int64).reshape(-1, 2)
        self.tokens: NDArray[np.int64] = np.concatenate([np.zeros(0, np.int64), *parts])
        self._ends = np.cumsum(self.sizes.ravel()).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> Item:
        """Returns a pair, as views.

        Args:
            index: from 0.

        Raises:
            IndexError: there is no such pair.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"pair {index} of {len(self)}")
        middle, end = self._ends[index].tolist()
        source, target = self.sizes[index].tolist()
        return Item(self.tokens[middle - source : middle], self.tokens[end - target : end])


PairData: TypeAlias = IndexedDataset | Pairs
"""What `PairSamples` takes: it has `tokens`, `sizes` and items."""


def read_pairs(data: str | os.PathLike[str] | PairData) -> PairData:
    """Returns pairs, each of which has a target.

    Args:
        data: the prefix of a token file, one that is open, or `Pairs`.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no pair, or one without a target.

    Example:
        >>> read_pairs(Pairs([[5]], [[]]))
        Traceback (most recent call last):
        ValueError: pairs: expected a source and a target in each item, got no target in item 0
    """
    found = data if isinstance(data, IndexedDataset | Pairs) else IndexedDataset(data)
    name = "pairs" if isinstance(found, Pairs) else f"{found.prefix}.idx"
    if not len(found):
        raise ValueError(f"{name}: it holds no pairs")
    absent = np.flatnonzero(found.sizes[:, 1] == 0)
    if len(absent):
        raise ValueError(
            f"{name}: expected a source and a target in each item, got no target in item "
            f"{absent[0]}"
        )
    return found


def hash_pairs(pairs: PairData, vocabulary_size: int, name: str = "pairs") -> bytes:
    """Returns what tells pairs from others, once their ids are looked at.

    Of more than 2**28 tokens, parts from all over are looked at.

    Args:
        pairs: of a file or in memory.
        vocabulary_size: ids must be below it.
        name: of the pairs, for the error.

    Raises:
        IndexError: an id outside of the vocabulary.

    Example:
        >>> len(hash_pairs(Pairs([[5]], [[6, 1]]), 10))
        16
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"pairs {len(pairs)} {len(pairs.tokens)}".encode())
    for first in range(0, len(pairs), _AT_ONCE):
        digest.update(pairs.sizes[first : first + _AT_ONCE].astype("<i4").tobytes())
    starts = np.arange(0, len(pairs.tokens), _AT_ONCE)
    if len(pairs.tokens) > _LOOKED_AT:
        starts = starts[np.linspace(0, len(starts) - 1, _LOOKED_AT // _AT_ONCE).astype(np.int64)]
    for start in starts.tolist():
        part = np.asarray(pairs.tokens[start : start + _AT_ONCE])
        place = find_outside(part, vocabulary_size)
        if place is not None:
            ends = np.cumsum(pairs.sizes.sum(1, dtype=np.int64))
            item = int(np.searchsorted(ends, start + place, side="right"))
            raise IndexError(
                f"{name}: expected ids below {vocabulary_size}, the tokens of the tokenizer: got "
                f"{part[place]} in pair {item}"
            )
        digest.update(part.astype("<i4").tobytes())
    return digest.digest()


def _convert(name: str, ids: ArrayLike) -> NDArray[np.int64]:
    row = np.asarray(ids)
    if row.ndim != 1:
        raise ValueError(f"{name} must be texts [tokens] of ids: got one of {row.ndim} axes")
    if row.size and not np.issubdtype(row.dtype, np.integer):
        raise TypeError(f"{name} must be of whole numbers: got {row.dtype}")
    return row.astype(np.int64)
