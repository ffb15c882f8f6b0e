"""Which tokens of a vocabulary stay: those that texts need, and then the most frequent.

Source: OpenBA-V2 (arXiv 2405.05957), vocabulary pruning; specification section 5. There, the K
most frequent pieces stay beside all that are not normal. Here the number is that of all tokens
that stay, and

1. what must stay comes first: special and added tokens, the unknown token, all bytes, tokens that
   the model's settings name, and the single characters that occur, so that no text that could be
   written before becomes unknown;
2. then the most frequent tokens of each group that has a number of its own (a language);
3. then the most frequent of all groups together, until the number is reached.

Of tokens with one count the smaller id comes first. A token of BPE comes with all that it is built
from; where these are more than there is room for, it is passed over.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.pieces.table import PieceTable
from lmcore.ops.vocabulary import rank_ids


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Selection:
    """Tokens that stay."""

    ids: NDArray[np.int64] = field(repr=False)
    """`[kept]` old ids, rising: a token's place is its new id."""
    required: int
    """Tokens that stay whatever the counts say: special ones, bytes, those that settings name."""
    characters: int
    """Single characters that stay because they occur, beside those."""
    coverage: dict[str, float]
    """Share of the counted tokens whose ids stay, by group."""


def choose_tokens(
    table: PieceTable,
    counts: Mapping[str, NDArray[np.int64]],
    keep: int,
    *,
    keep_per: Mapping[str, int] | None = None,
    named: Iterable[int] = (),
) -> Selection:
    """Returns which tokens stay.

    Args:
        table: the tokenizer's tokens.
        counts: `[vocabulary]` int64 by group: how often each id occurs.
        keep: number of tokens that stay.
        keep_per: number of the most frequent tokens of a group that stay in any case.
        named: ids that stay as well, such as those that the model's settings name; an id that no
            token has is a row of the embedding.

    Raises:
        IndexError: a count is that of an id that no token has.
        ValueError: the numbers are out of their ranges, or there are no counts.

    Example:
        >>> from lmcore.compression.pieces.merging import ListedMerges
        >>> table = PieceTable(
        ...     algorithm="bpe", ids=np.arange(6), texts=["<s>", "a", "b", "c", "ab", "bc"],
        ...     kinds=np.array([3, 1, 1, 1, 1, 1], np.uint8),
        ...     merges=ListedMerges([("a", "b"), ("b", "c")]),
        ... )
        >>> chosen = choose_tokens(table, {"en": np.array([9, 5, 1, 0, 4, 0])}, 4)
        >>> chosen.ids.tolist(), chosen.required, chosen.characters
        ([0, 1, 2, 4], 1, 2)

    Source: OpenBA-V2 (arXiv 2405.05957), vocabulary pruning; specification section 5.
    """
    totals = _check_counts(table, counts)
    most = len(table)
    if not 1 <= keep <= most:
        raise ValueError(f"keep must be from 1 to {most}, the number of tokens: got {keep}")
    rows = np.array(sorted(named), np.int64)
    required = {*table.find_required().tolist(), *np.flatnonzero(np.isin(table.ids, rows)).tolist()}
    characters = set(table.find_characters(np.flatnonzero(totals).tolist()).tolist()) - required
    chosen = _Chosen(table, required | characters, keep)
    for group, number in (keep_per or {}).items():
        if group not in counts:
            known = ", ".join(sorted(counts))
            raise ValueError(f"keep_per names the group {group!r:.60}: there are {known}")
        if number < 0:
            raise ValueError(f"keep_per must not be negative: got {number} of {group!r:.60}")
        count = _take(table, counts[group])
        # None of those that do not occur in the group.
        chosen.add_all(group, rank_ids(count)[: min(number, int((count > 0).sum()))])
    chosen.fill(rank_ids(totals))
    ids = table.ids[sorted(chosen.places)]
    kept = np.union1d(ids, rows)
    return Selection(
        ids=kept,
        required=len(required),
        characters=len(characters),
        coverage={group: measure_coverage(count, kept) for group, count in counts.items()},
    )


def measure_coverage(counts: NDArray[np.int64], ids: NDArray[np.int64]) -> float:
    """Returns the share of counted tokens that have one of these ids; 1 where none is counted.

    Args:
        counts: `[vocabulary]` int64, by id.
        ids: `[kept]` int64, each once.

    Example:
        >>> measure_coverage(np.array([6, 0, 2]), np.array([0, 1]))
        0.75
    """
    total = int(counts.sum())
    inside = ids[ids < len(counts)]
    return int(counts[inside].sum()) / total if total else 1.0


def pad_ids(ids: NDArray[np.int64], multiple: int) -> NDArray[np.int64]:
    """Returns ids with -1 behind them, up to a multiple: rows that only fill the embedding up.

    Args:
        ids: `[kept]` int64.
        multiple: from 1.

    Raises:
        ValueError: it is less.

    Example:
        >>> pad_ids(np.array([0, 7, 9]), 4).tolist()
        [0, 7, 9, -1]
    """
    if multiple < 1:
        raise ValueError(f"multiple must be at least 1: got {multiple}")
    return np.concatenate([ids, np.full(-len(ids) % multiple, -1, np.int64)])


class _Chosen:
    """Places that stay, as long as there is room for more."""

    def __init__(self, table: PieceTable, places: set[int], keep: int) -> None:
        if len(places) > keep:
            raise ValueError(
                f"keep must be at least {len(places)}: so many are special tokens, bytes and "
                f"single characters that occur; got {keep}"
            )
        self.places = places
        self._table = table
        self._keep = keep

    def add_all(self, group: str, places: Sequence[int] | NDArray[np.int64]) -> None:
        for place in map(int, places):
            self.places.update(self._with_parents(place))
        if len(self.places) > self._keep:
            raise ValueError(
                f"keep must be at least {len(self.places)} for what keep_per asks of {group!r:.60} "
                f"and before: got {self._keep}"
            )

    def fill(self, places: NDArray[np.int64]) -> None:
        for place in map(int, places):
            if len(self.places) >= self._keep:
                return
            more = self._with_parents(place) - self.places
            if len(self.places) + len(more) <= self._keep:
                self.places |= more

    def _with_parents(self, place: int) -> set[int]:
        """A token and what it is built from; nothing where nothing builds it."""
        if not self._table.is_built(place):
            return set()
        return {place, *self._table.find_parents(place)}


def _check_counts(table: PieceTable, counts: Mapping[str, NDArray[np.int64]]) -> NDArray[np.int64]:
    """Counts of all groups together, by place in the table."""
    if not counts:
        raise ValueError("expected counts of at least one group, got none")
    for group, count in counts.items():
        if count.ndim != 1 or (count < 0).any():
            raise ValueError(f"counts of {group!r:.60} must be one row of numbers from 0")
        strangers = np.setdiff1d(np.flatnonzero(count), table.ids)
        if strangers.size:
            raise IndexError(
                f"counts of {group!r:.60} have the id {strangers[0]}, which no token has: they are "
                "of another vocabulary"
            )
    totals = np.zeros(len(table), np.int64)
    for count in counts.values():
        totals += _take(table, count)
    return totals


def _take(table: PieceTable, counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts by place in the table; ids that the counts do not reach do not occur."""
    inside = table.ids < len(counts)
    taken = np.zeros(len(table), np.int64)
    taken[inside] = counts[table.ids[inside]]
    return taken
