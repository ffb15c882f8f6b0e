"""The texts of a run: rows of a token file, all of one length, with ids that the model has."""

from __future__ import annotations

import hashlib
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.openba.indexed import IndexedDataset

# Tokens that are looked at before a run starts; of more, parts from all over the file.
_LOOKED_AT = 1 << 28
_AT_ONCE = 1 << 22


def read_texts(
    data: str | os.PathLike[str] | IndexedDataset | NDArray[np.integer[Any]], length: int
) -> NDArray[np.integer[Any]]:
    """Returns texts as rows: `[texts, length]`, of a token file a view.

    Args:
        data: the prefix of a token file, one that is open, or rows of ids.
        length: tokens of each text.

    Raises:
        OSError: a file cannot be read.
        TypeError: the ids of an array are no whole numbers.
        ValueError: there is no text, or one of another length, or items have targets.

    Example:
        >>> read_texts(np.arange(6).reshape(2, 3), 3).shape
        (2, 3)
    """
    if isinstance(data, np.ndarray):
        if not np.issubdtype(data.dtype, np.integer):
            raise TypeError(f"texts must be of whole numbers: got {data.dtype}")
        if data.ndim != 2 or data.shape[1] != length or not len(data):
            raise ValueError(f"texts must be [texts, {length}]: got {list(data.shape)}")
        return data
    found = data if isinstance(data, IndexedDataset) else IndexedDataset(data)
    name = f"{found.prefix}.idx"
    if not len(found):
        raise ValueError(f"{name}: it holds no texts")
    targets = np.flatnonzero(found.sizes[:, 1])
    if len(targets):
        raise ValueError(f"{name}: expected texts alone, got a target in item {targets[0]}")
    wrong = np.flatnonzero(found.sizes[:, 0] != length)
    if len(wrong):
        raise ValueError(
            f"{name}: expected texts of {length} tokens, as `pack --length {length}` makes them: "
            f"got {found.sizes[wrong[0], 0]} in item {wrong[0]}"
        )
    assert found.table is not None
    return found.table


def hash_texts(texts: NDArray[np.integer[Any]], vocabulary_size: int, name: str = "texts") -> bytes:
    """Returns what tells texts from others, once their ids are looked at.

    Of more than 2**28 tokens, parts from all over are looked at.

    Args:
        texts: `[N, L]` integers.
        vocabulary_size: ids must be below it.
        name: of the texts, for the error.

    Raises:
        IndexError: an id outside of the vocabulary.

    Example:
        >>> len(hash_texts(np.arange(6).reshape(2, 3), 10))
        16
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(f"{list(texts.shape)}".encode())
    rows = max(1, _AT_ONCE // texts.shape[1])
    starts = np.arange(0, len(texts), rows)
    if texts.size > _LOOKED_AT:
        starts = starts[np.linspace(0, len(starts) - 1, _LOOKED_AT // _AT_ONCE).astype(np.int64)]
    for start in starts.tolist():
        part = np.asarray(texts[start : start + rows])
        outside = find_outside(part.ravel(), vocabulary_size)
        if outside is not None:
            row, place = divmod(outside, part.shape[1])
            raise IndexError(
                f"{name}: expected ids below {vocabulary_size}, the tokens of the tokenizer: got "
                f"{part[row, place]} at position {place} of text {start + row}"
            )
        digest.update(part.astype("<i4").tobytes())
    return digest.digest()


def find_outside(ids: NDArray[np.integer[Any]], vocabulary_size: int) -> int | None:
    """Returns where the first id stands that a vocabulary does not have; None if there is none.

    Args:
        ids: `[...]` integers.
        vocabulary_size: ids must be below it.

    Example:
        >>> find_outside(np.array([3, 9, -1]), 9)
        1
    """
    if not ids.size or (ids.min() >= 0 and ids.max() < vocabulary_size):
        return None
    return int(np.argmax((ids < 0) | (ids >= vocabulary_size)))
