"""Pairs as rows of ids: source, separator, target, and padding, which is a target, too.

DiffuSeq's format, section 4 of the specification: `[CLS] s.. [SEP] [SEP] [CLS] t.. [SEP] [PAD]..`.
The model is shown the source and its separator, and makes all that follows, padding included.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.diffusion.pairs import Pair
from lmcore.diffusion.tokenization import TextTokenizer

SHORTEST = 8
"""Positions: the four tokens around two texts, and a few for these."""
_AT_ONCE = 1024


@dataclass(kw_only=True, slots=True, frozen=True)
class EncodedPairs:
    """Rows of one length."""

    ids: NDArray[np.int32]
    """`[N, L]` int32."""
    source_lengths: NDArray[np.int32]
    """`[N]` int32: positions of a row that are given; the others are made."""
    shortened: int
    """Pairs that did not fit."""
    cut_tokens: int
    """Tokens that these have lost."""
    unknown_tokens: int
    """Tokens of all pairs, cut ones included, that stand for text which has none."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def length(self) -> int:
        """Positions of a row, L."""
        return int(self.ids.shape[1])

    @property
    def target_mask(self) -> NDArray[np.bool_]:
        """`[N, L]` bool: positions that are made."""
        return np.arange(self.length) >= self.source_lengths[:, None]

    def find_fingerprint(self) -> bytes:
        """Returns what tells these rows from others."""
        digest = hashlib.blake2b(f"{list(self.ids.shape)}".encode(), digest_size=16)
        digest.update(self.ids.astype("<i4").tobytes())
        digest.update(self.source_lengths.astype("<i4").tobytes())
        return digest.digest()


def encode_pairs(
    pairs: Iterable[Pair], tokenizer: TextTokenizer, length: int = 128
) -> EncodedPairs:
    """Returns pairs as rows of ids.

    What does not fit loses tokens at its end: the longer text of a pair until both are equally
    long, then both of them, two at once (section 4).

    Args:
        pairs: in any number.
        tokenizer: of source and target.
        length: positions of a row, L; at least `SHORTEST`.

    Raises:
        ValueError: `length` is too small, or a text has no tokens.

    Example:
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> encoded = encode_pairs([Pair("a b", "b")], tokenizer, 10)
        >>> encoded.ids[0].tolist(), encoded.source_lengths.tolist()
        ([2, 4, 5, 3, 3, 2, 5, 3, 0, 0], [5])
    """
    if length < SHORTEST:
        raise ValueError(f"length must be at least {SHORTEST}: got {length}")
    rows, lengths = [], []
    shortened = cut = unknown = total = 0
    for part in _split(pairs):
        sources, targets = (tokenizer.encode_batch(texts) for texts in zip(*part, strict=True))
        ids = np.full((len(part), length), tokenizer.pad, np.int32)
        given = np.empty(len(part), np.int32)
        for row, (source, target) in enumerate(zip(sources, targets, strict=True)):
            if not source or not target:
                name = "target" if source else "source"
                raise ValueError(f"pair {total + row}: its {name} has no tokens")
            if tokenizer.unknown is not None:
                unknown += (source + target).count(tokenizer.unknown)
            # With the token before each text and without that behind it, as the authors count.
            kept = find_kept_lengths(1 + len(source), 1 + len(target), length)
            lost = 2 + len(source) + len(target) - sum(kept)
            shortened += lost > 0
            cut += lost
            first = begin_row(source, kept[0], tokenizer)
            whole = [*first, tokenizer.start, *target[: kept[1] - 1], tokenizer.end]
            ids[row, : len(whole)] = whole
            given[row] = len(first)
        rows.append(ids)
        lengths.append(given)
        total += len(part)
    return EncodedPairs(
        ids=np.concatenate(rows) if rows else np.empty((0, length), np.int32),
        source_lengths=np.concatenate(lengths) if lengths else np.empty(0, np.int32),
        shortened=shortened, cut_tokens=cut, unknown_tokens=unknown,
    )  # fmt: skip


def begin_row(source: Sequence[int], kept: int, tokenizer: TextTokenizer) -> list[int]:
    """Returns the ids of a row that are given: those of the source, and its separator.

    Args:
        source: its ids.
        kept: how many of them stay, the one before the text counted.
        tokenizer: of the texts.

    Example:
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> begin_row([4, 5, 5], 3, tokenizer)
        [2, 4, 5, 3, 3]
    """
    return [tokenizer.start, *source[: kept - 1], tokenizer.end, tokenizer.end]


def find_kept_lengths(source: int, target: int, length: int) -> tuple[int, int]:
    """Returns how many tokens of source and target fit into a row (section 4, step 2).

    Args:
        source: tokens, the one before the text counted and the one behind it not.
        target: the same of the target.
        length: positions of the row, of which three are for the tokens behind and between.

    Example:
        >>> find_kept_lengths(10, 4, 14), find_kept_lengths(5, 5, 12)
        ((7, 4), (4, 4))
    """
    excess = source + target - (length - 3)
    if excess <= 0:
        return source, target
    first = min(excess, abs(source - target))
    # Both lose one at once: where one more would do, the row ends with padding.
    both = -(-(excess - first) // 2)
    if source > target:
        return source - first - both, target - both
    return source - both, target - first - both


def read_targets(
    ids: Sequence[int] | NDArray[np.integer[Any]], source_length: int, tokenizer: TextTokenizer
) -> str:
    """Returns the target of a row as text, as the authors write it: padding behind it is taken off.

    Args:
        ids: of a row, `[L]` integers.
        source_length: positions that were given.
        tokenizer: of the texts.

    Example:
        >>> from lmcore.diffusion.tokenization import make_bert_tokenizer
        >>> tokenizer = make_bert_tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b"])
        >>> read_targets([2, 4, 5, 3, 3, 2, 5, 3, 0, 0], 5, tokenizer)
        '[CLS] b [SEP]'
    """
    return tokenizer.decode([int(one) for one in ids[source_length:]])


def _split(pairs: Iterable[Pair]) -> Iterator[list[Pair]]:
    rest = iter(pairs)
    while part := list(islice(rest, _AT_ONCE)):
        yield part
