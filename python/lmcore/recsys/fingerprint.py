"""The fingerprint of interactions, by which a run knows its data again."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from lmcore.recsys.data import Split
from lmcore.recsys.ids import Ids
from lmcore.recsys.rules import SplitRule


def find_fingerprint(data: Split) -> str:
    """Returns what tells data apart: equal interactions, ids and splits have equal ones.

    Args:
        data: the split; what it is made of counts.

    Example:
        >>> from lmcore.recsys.data import leave_one_out, make_interactions
        >>> len(find_fingerprint(leave_one_out(make_interactions([0, 2], [1, 2], 3))))
        32
    """
    interactions = data.interactions
    digest = hashlib.blake2b(digest_size=16)
    # Every part stands behind its length and kind, so that no two data give the same bytes.
    for numbers in (interactions.offsets, interactions.items):
        _update(digest, b"numbers", numbers)
    for ids in (interactions.user_ids, interactions.item_ids):
        _update_ids(digest, ids)
    # Leave-one-out adds nothing: runs from before there were other splits go on.
    if data.rule != SplitRule():
        _update(digest, b"trained", data.train_ends)
        _update(digest, b"checked", data.valid_ends)
        digest.update(str(data.rule.cold_items).encode())
    return digest.hexdigest()


def _update_ids(digest: hashlib.blake2b, ids: Ids) -> None:
    if isinstance(ids, np.ndarray):
        _update(digest, b"numbers", ids)
        return
    texts = [text.encode("utf-8", "surrogatepass") for text in ids]
    _update(digest, b"lengths", np.fromiter(map(len, texts), dtype=np.int64, count=len(texts)))
    digest.update(b"".join(texts))


def _update(digest: hashlib.blake2b, kind: bytes, numbers: NDArray[np.int64]) -> None:
    digest.update(kind + len(numbers).to_bytes(8, "little"))
    digest.update(np.ascontiguousarray(numbers, dtype="<i8").tobytes())
