"""Metrics by name, and what ranks of held-out items come to in them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmcore.ops.ranking import ranking_metrics

__all__ = [
    "DEFAULT_METRICS",
    "METRIC_KINDS",
    "Metric",
    "check_cutoffs",
    "choose_metrics",
    "find_validated",
    "measure_ranks",
    "parse_metric",
    "spread_ties",
]

#: What is measured where nothing else is asked for.
DEFAULT_METRICS = ("HR@1", "HR@5", "HR@10", "NDCG@5", "NDCG@10", "MRR")
#: Of the ranks of held-out items; high ones are good.
RANK_KINDS = ("HR", "Recall", "Precision", "NDCG", "MAP", "MRR")
#: Of the lists of best items, whatever was held out.
LIST_KINDS = ("Coverage", "Popularity", "Novelty")
#: All that a name may begin with.
METRIC_KINDS = (*RANK_KINDS, *LIST_KINDS)

# Above this no catalogue reaches, and libraries in C start to wrap around.
_MOST = 2**31 - 1
# What others call them, without case and signs.
_OTHER_NAMES = {
    "hit": "HR", "hits": "HR", "hitrate": "HR", "hitratio": "HR", "r": "Recall", "p": "Precision",
    "rr": "MRR", "ap": "MAP", "arp": "Popularity", "catalogcoverage": "Coverage",
    "miuf": "Novelty",
}  # fmt: skip
# The share of other candidates with a target's score that `rank_targets` puts before it.
_SHARES = {"average": 0.5, "optimistic": 0.0, "pessimistic": 1.0}


@dataclass(kw_only=True, slots=True, frozen=True)
class Metric:
    """A metric and how far down a list it looks."""

    kind: str
    """One of `METRIC_KINDS`."""
    cutoff: int | None = None
    """K: the first K places count; None: all of them, of MRR alone."""

    @property
    def name(self) -> str:
        """As `parse_metric` reads it: `NDCG@10`, or `MRR`."""
        return self.kind if self.cutoff is None else f"{self.kind}@{self.cutoff}"

    @property
    def is_of_lists(self) -> bool:
        """Whether it looks at recommended lists alone, and not at where held-out items stand."""
        return self.kind in LIST_KINDS


def parse_metric(text: str) -> Metric:
    """Returns the metric of a name such as `NDCG@20`, `Coverage@10` or `MRR`.

    Args:
        text: a kind of `METRIC_KINDS`, `@` and a whole number from 1; MRR also stands alone.

    Raises:
        TypeError: it is no text.
        ValueError: there is no such metric, and the text names the nearest one, or K is missing
            or out of its range.

    Example:
        >>> parse_metric("NDCG@20")
        Metric(kind='NDCG', cutoff=20)
        >>> parse_metric("ndcg@20")
        Traceback (most recent call last):
            ...
        ValueError: there is no metric 'ndcg@20': the nearest is NDCG@20
    """
    if not isinstance(text, str):
        raise TypeError(f"a metric must be a text: got {text!r:.60}")
    kind, at, digits = text.partition("@")
    if kind in METRIC_KINDS and not at:
        if kind == "MRR":
            return Metric(kind=kind)
        raise ValueError(f"{kind} needs a K from 1 on, such as {kind}@10: got {text!r}")
    is_number = re.fullmatch("-?[0-9]{1,20}", digits) is not None
    if kind in METRIC_KINDS and is_number and digits == str(int(digits)):
        if 1 <= int(digits) <= _MOST:
            return Metric(kind=kind, cutoff=int(digits))
        raise ValueError(f"K of {text} must be from 1 to {_MOST}")
    raise ValueError(f"there is no metric {text!r:.60}: {_advise(kind, digits)}")


def check_cutoffs(metrics: Iterable[Metric], item_count: int) -> None:
    """Checks that a catalogue is as long as the lists that metrics look at.

    Args:
        metrics: as asked for.
        item_count: items of the catalogue.

    Raises:
        ValueError: a K is above it.

    Example:
        >>> check_cutoffs([Metric(kind="HR", cutoff=10)], 12)
    """
    for metric in metrics:
        if metric.cutoff is not None and metric.cutoff > item_count:
            raise ValueError(f"K of {metric.name} must be at most the {item_count} items there are")


def choose_metrics(
    names: Sequence[str] | None, item_count: int, *, protocol: str = "full"
) -> list[Metric]:
    """Returns the metrics of names, each once, or the usual ones where none are given.

    Args:
        names: as for `parse_metric`; None: HR@1, HR@5, HR@10, NDCG@5, NDCG@10 and MRR, which are
            taken of a smaller catalogue, too.
        item_count: items of the catalogue.
        protocol: `full`, or `sampled`, which makes no lists.

    Raises:
        TypeError: `names` is one text.
        ValueError: there is no such metric, a K is above the catalogue, or a metric of lists is
            asked for in the sampled protocol.

    Example:
        >>> [metric.name for metric in choose_metrics(["MRR", "HR@2", "MRR"], 9)]
        ['MRR', 'HR@2']
    """
    if isinstance(names, str):
        raise TypeError(f"metrics must be a list of names: got {names!r:.60}")
    found = [parse_metric(name) for name in dict.fromkeys(names or DEFAULT_METRICS)]
    if names:
        check_cutoffs(found, item_count)
    for metric in found:
        if metric.is_of_lists and protocol != "full":
            raise ValueError(f"{metric.name} needs the protocol full: it looks at whole lists")
    return found


def find_validated(metric: str, item_count: int) -> list[str] | None:
    """Returns what validation measures: the usual metrics, and the one that chooses a step.

    Args:
        metric: that one.
        item_count: items of the catalogue.

    Returns:
        Names for `evaluate`; None where the metric is a usual one.

    Raises:
        ValueError: its K is above the catalogue, and it is no usual one.

    Example:
        >>> find_validated("NDCG@20", 100)[-2:]
        ['MRR', 'NDCG@20']
    """
    if metric in DEFAULT_METRICS:
        return None
    check_cutoffs([parse_metric(metric)], item_count)
    usual = [m for m in map(parse_metric, DEFAULT_METRICS) if (m.cutoff or 0) <= item_count]
    return [*(m.name for m in usual), metric]


def measure_ranks(
    metrics: Sequence[Metric], ranks: ArrayLike, offsets: ArrayLike | None = None
) -> dict[str, float]:
    """Returns the means over users of metrics of their targets' ranks.

    Of a user with n targets, h of which have a rank below K: HR@K is 1 where h > 0, else 0.
    Recall@K is h / n. Precision@K is h / K. NDCG@K is the sum of 1 / log2(rank + 2) over the h,
    divided by the same sum over the ranks 0 to min(n, K) - 1. MAP@K is the sum over the h of
    (number of targets up to this one) / (rank + 1), divided by n. MRR@K is 1 / (best rank + 1)
    where that rank is below K, else 0. With one target Recall@K is HR@K, and MAP@K is MRR@K.

    Source: ranx 0.3 (`hit_rate`, `recall`, `precision`, `ndcg`, `map`, `mrr`) and RecTools 0.19
    (`HitRate`, `Recall`, `Precision`, `NDCG(divide_by_achievable=True)`, `MAP`, `MRR`); without
    that option the NDCG of RecTools divides by the sum over K ranks, whatever n is.

    Args:
        metrics: none of them of lists.
        ranks: `[T]` numbers from 0, those of a user's n targets distinct; see `spread_ties`.
        offsets: `[U + 1]` integers: user u's ranks are `ranks[offsets[u]:offsets[u + 1]]`, at
            least one; None: each user has one.

    Raises:
        TypeError: ranks that are not numbers.
        ValueError: no ranks, a rank that is negative or not finite, offsets that do not fit the
            ranks or leave a user without any, or a metric of lists.

    Example:
        >>> metrics = [parse_metric(name) for name in ("HR@2", "Recall@2", "MAP@2", "MRR")]
        >>> measure_ranks(metrics, [0, 4, 1], offsets=[0, 2, 3])
        {'HR@2': 1.0, 'Recall@2': 0.75, 'MAP@2': 0.5, 'MRR': 0.75}
    """
    for metric in metrics:
        if metric.is_of_lists:
            raise ValueError(f"{metric.name} is not measured by ranks: it looks at lists")
    # It also checks the ranks. Its sums are those of every release: the same bits.
    cutoffs = sorted({m.cutoff for m in metrics if m.cutoff is not None})
    known = ranking_metrics(ranks, cutoffs)
    values = np.asarray(ranks, dtype=np.float64)
    rows = np.arange(len(values) + 1) if offsets is None else np.asarray(offsets)
    _check_offsets(rows, len(values))
    if len(rows) == len(values) + 1:
        known |= {f"Recall@{k}": known[f"HR@{k}"] for k in cutoffs}
    else:
        known = {}
    users = _Users.of(values, rows)
    found = {}
    for metric in metrics:
        mean = known.get(metric.name)
        found[metric.name] = float(users.measure(metric).mean()) if mean is None else mean
    return found


def spread_ties(
    ranks: NDArray[np.float64],
    ties: NDArray[np.int64],
    offsets: NDArray[np.int64],
    *,
    rule: str = "average",
) -> NDArray[np.float64]:
    """Returns ranks in which a user's targets of one score stand at places of their own.

    `rank_targets` gives all of them the same rank, so that two targets which share the first
    place would both be hits at 1. Of g such targets among t candidates of that score the j-th has
    here the mean place of the j-th smallest of g places drawn from t (`average`), the j-th place
    (`optimistic`), or the j-th of the last g (`pessimistic`). A target alone keeps its rank.

    Source: the mean of an order statistic of draws without replacement.

    Args:
        ranks: `[T]` float64, as `rank_targets` returns them by this rule; a user's targets are
            candidates of one another.
        ties: `[T]` int64, as it returns them.
        offsets: `[U + 1]` int64, where each user's begin and end.
        rule: `average`, `optimistic` or `pessimistic`.

    Raises:
        ValueError: another rule.

    Example:
        >>> ranks, ties, offsets = np.array([0.5, 0.5]), np.array([1, 1]), np.array([0, 2])
        >>> spread_ties(ranks, ties, offsets).tolist()
        [0.0, 1.0]
    """
    if rule not in _SHARES:
        raise ValueError(f"ties must be one of {', '.join(_SHARES)}: got {rule!r}")
    first = ranks - _SHARES[rule] * ties  # candidates of a greater score
    owners = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    order = np.lexsort((np.arange(len(ranks)), first, owners))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(first[order]) != 0) | (np.diff(owners[order]) != 0)
    starts = np.flatnonzero(new)
    sizes = np.diff(np.append(starts, len(order)))
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    group, all_tied = np.repeat(sizes, sizes), ties[order] + 1
    if rule == "average":
        inner = (place + 1) * (all_tied + 1) / (group + 1) - 1
    elif rule == "optimistic":
        inner = place.astype(np.float64)
    else:
        inner = (all_tied - group + place).astype(np.float64)
    spread = np.empty(len(ranks))
    spread[order] = first[order] + inner
    return spread


@dataclass(slots=True, frozen=True)
class _Users:
    """Ranks of users' targets in ascending order, and what they belong to."""

    ranks: NDArray[np.float64]
    owners: NDArray[np.int64]
    places: NDArray[np.int64]
    """How many targets of the user stand before."""
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, ranks: NDArray[np.float64], offsets: NDArray[np.int64]) -> _Users:
        counts = np.diff(offsets)
        owners = np.repeat(np.arange(len(counts)), counts)
        places = np.arange(len(ranks)) - np.repeat(offsets[:-1], counts)
        return cls(ranks[np.lexsort((ranks, owners))], owners, places, counts)

    def measure(self, metric: Metric) -> NDArray[np.float64]:
        """The metric of each user."""
        cutoff = np.inf if metric.cutoff is None else metric.cutoff
        hit = self.ranks < cutoff
        if metric.kind == "NDCG":
            most = np.minimum(self.counts, cutoff).astype(np.int64)
            ideal = np.cumsum(1 / np.log2(np.arange(most.max()) + 2))
            gains: NDArray[Any] = self._sum(hit / np.log2(self.ranks + 2)) / ideal[most - 1]
            return gains
        if metric.kind == "MAP":
            return self._sum(hit * (self.places + 1) / (self.ranks + 1)) / self.counts
        if metric.kind == "MRR":
            return self._sum(hit * (self.places == 0) / (self.ranks + 1))
        hits = self._sum(hit)
        if metric.kind == "HR":
            return np.minimum(hits, 1.0)
        if metric.kind == "Recall":
            return hits / self.counts
        return hits / cutoff

    def _sum(self, values: NDArray[np.float64] | NDArray[np.bool_]) -> NDArray[np.float64]:
        sums: NDArray[Any] = np.bincount(self.owners, values, minlength=len(self.counts))
        return sums


def _check_offsets(offsets: NDArray[np.int64], count: int) -> None:
    if offsets.ndim != 1 or len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != count:
        raise ValueError(f"offsets must go from 0 to the {count} ranks")
    empty = np.flatnonzero(np.diff(offsets) < 1)
    if empty.size:
        raise ValueError(f"each user must have a target: row {empty[0]} has none")


def _advise(kind: str, digits: str) -> str:
    """The nearest name, or all of them where none is near."""
    names = {name.lower(): name for name in METRIC_KINDS}
    known = _OTHER_NAMES | names
    plain = re.sub("[^a-z]", "", kind[:40].lower())
    # A name that is cut short, such as `prec`, is nearer than what has the same letters.
    near = [name for name in names if len(plain) > 2 and name.startswith(plain)]
    near = near or difflib.get_close_matches(plain, known, n=1)
    if not near:
        return f"use {', '.join(f'{name}@K' for name in METRIC_KINDS)} or MRR"
    number = digits.strip().lstrip("0")
    usable = re.fullmatch("[1-9][0-9]{0,8}", number) is not None
    cutoff = int(number) if usable else (None if known[near[0]] == "MRR" else 10)
    return f"the nearest is {Metric(kind=known[near[0]], cutoff=cutoff).name}"
