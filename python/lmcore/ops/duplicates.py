"""Which texts stood before, exactly, by their hashes.

The definition is `lmcore.reference.duplicates`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmcore.reference.duplicates import PREFIX_BITS, hash_text


class Duplicates:
    """The texts that were seen, by their hashes.

    Args:
        key: 16 bytes of the hash.

    Example:
        >>> seen = Duplicates()
        >>> seen.add(["a", "b", "a"]).tolist(), seen.add(["b", "c"]).tolist()
        ([False, False, True], [True, False])
    """

    def __init__(self, *, key: bytes = bytes(16)) -> None:
        self._key = key
        self._seen: set[tuple[int, int]] = set()

    def __len__(self) -> int:
        return len(self._seen)

    def add(self, texts: Sequence[str], *, threads: int | None = None) -> NDArray[np.bool_]:
        """Returns for each text whether it stood before, `[texts]` bool, and keeps them all."""
        found = []
        for text in texts:
            low, high = hash_text(text, self._key)
            known = (low & (1 << PREFIX_BITS) - 1, high)
            found.append(known in self._seen)
            self._seen.add(known)
        return np.array(found, bool)
