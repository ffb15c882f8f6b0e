"""Sizes that come down to a target, found rather than given.

All combinations of the sizes of `lmcore.compression.grids` that are under the target are ranked by

    spread - log(cost / cost of what is there)

where `spread` is the standard deviation, over the dimensions that may change, of the logarithm of
what is kept of each: 0 where all are cut by the same factor. So a hundredth closer to the target is
worth as much as a hundredth of unequal cuts. The order does not depend on the target, hence a
larger one never has a smaller best. Of combinations that rank alike the one with more layers comes
first: at equal parameters deeper models are better, and shallower ones faster; where time is the
target, the one with fewer layers does.

Candidates differ in their layers, as depth against width is what ranks say least about: of each
number of encoder and decoder layers the best widths come first; others follow only where there
are too few of these.

Where transformers generates from a cache only with a decoder that is no deeper than the encoder
(T5), a model of which that holds is not made one of which it does not.

More than half of the parameters are not cut at once: Minitron's authors advise against it, and the
paper's loss jumps. Then a candidate has several rounds, each for a recovery of its own.

Source: OpenBA-V2 (arXiv 2405.05957), sections 3 and 4; Minitron (arXiv 2407.14679) searches by
closeness alone, and scores ten candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.choosing import Sizes
from lmcore.compression.families import Family, find_family
from lmcore.compression.grids import DIMENSIONS, Grid, make_grid, size_of
from lmcore.compression.plan import Plan, prune_shape
from lmcore.compression.rounds import divide_rounds
from lmcore.compression.targets import Conditions, Target, count_memory, measure
from lmcore.cost import Shape, count_parameters

MOST_ROUNDS = 6
"""After which a 64th is left of each dimension."""
_SHARE = 0.5
_BELOW = 0.95
"""Of half, for sizes lie on a grid: with none below it, no other sizes than exactly half come down
to a target of half."""
_BLOCK = 1 << 20
_ROUNDING = 1e-8
_MOST_ALIKE = 10_000

Cost = Callable[[Shape], Any]
"""What a target bounds, of a shape; sizes may be arrays that numpy broadcasts."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Candidate:
    """Sizes under a target, and what they cost.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> best = search(
        ...     Plan(model_type="openba", shape=OPENBA_V1), Target(kind="params", value=8e9))[0]
        >>> best.parameters, best.shape.decoder_layers, len(best.rounds)
        (7932155904, 29, 1)
    """

    sizes: Sizes
    """All that may be asked of a stage; layers of a stack that is not there are None."""
    shape: Shape
    """That these sizes leave."""
    parameters: int
    """Distinct ones."""
    memory_bytes: int
    """Of weights, keys and values: see `lmcore.compression.targets.count_memory`."""
    spread: float
    """How unequal the cuts are: 0 where each dimension keeps the same share."""
    rounds: tuple[Sizes, ...]
    """What each round of pruning and recovery leaves; `sizes` are those of the last."""
    ms_per_token: float | None = None
    """Measured, or predicted where `is_predicted`."""
    is_predicted: bool = False
    loss: float | None = None
    """Of a validation text right after the first round's cut, in nats per token."""


def search(
    plan: Plan,
    target: Target,
    *,
    fixed: Sizes | None = None,
    divisors: Mapping[str, int] | None = None,
    least: Mapping[str, int] | None = None,
    candidates: int = 10,
    rounds: int | None = None,
    conditions: Conditions | None = None,
    cost: Cost | None = None,
    family: Family | None = None,
) -> list[Candidate]:
    """Returns sizes that are under a target, best first.

    Args:
        plan: the original and what is cut of it already: the search starts at its last stage.
        target: what to come down to; a share is one of what the last stage leaves.
        fixed: sizes that are given, and the kept ids of the vocabulary, which is never searched.
        divisors: of sizes, by names of `lmcore.compression.grids.DIMENSIONS`.
        least: of sizes, likewise; by default half of what is there, for each round.
        candidates: how many are returned at most.
        rounds: of pruning and recovery; by default as few as leave about half of it each.
        conditions: under which memory is counted.
        cost: what the target bounds, where it is not to be told from a shape: time, as
            `lmcore.compression.latency_models` predicts it.
        family: that of the plan's model if None.

    Raises:
        TypeError: a number is no whole one.
        ValueError: the model is under the target already, no sizes come down to it (the text names
            the nearest), there are too many combinations, or a number is out of its range.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=8, hidden_size=64, heads=4, groups=4, head_size=16,
        ...     inner_size=128, vocabulary_size=100, tied=True)
        >>> plan = Plan(model_type="mistral", shape=shape)
        >>> best = search(plan, Target(kind="params", value=0.6, is_share=True))[0]
        >>> best.shape.decoder_layers, best.parameters, count_parameters(shape).distinct
        (7, 198172, 335168)
    """
    if not 1 <= candidates <= 1000:
        raise ValueError(f"candidates must be from 1 to 1000: got {candidates}")
    if rounds is not None and not 1 <= rounds <= MOST_ROUNDS:
        raise ValueError(f"rounds must be from 1 to {MOST_ROUNDS}: got {rounds}")
    family = family or find_family(plan.model_type)
    start = prune_shape(plan)
    count = cost or _find_cost(target.kind, conditions)
    before = float(count(start))
    most = target.value * before if target.is_share else target.value
    if before <= most:
        raise ValueError(
            f"the model is under the target already: {_show(target.kind, before)}, and at most "
            f"{_show(target.kind, most)} are asked for"
        )
    base = start
    if fixed is not None and fixed.vocabulary is not None:
        base = replace(start, vocabulary_size=len(fixed.vocabulary))
    options = {"fixed": fixed, "divisors": divisors, "least": least}
    # A model that generates from a cache shall go on to do so.
    keeps_cache = family.shallow_cache and start.decoder_layers <= start.encoder_layers
    found: list[tuple[float, Shape]] = []
    for number in [rounds] if rounds else range(1, MOST_ROUNDS + 1):
        grid = make_grid(start, family, **options, share=_SHARE**number)  # type: ignore[arg-type]
        least_parameters = 0.0 if rounds else count_parameters(start).distinct * _SHARE**number
        if target.kind == "params" and most < least_parameters:
            continue
        found = _rank(
            base, start, grid, count, most, least_parameters * _BELOW, target.kind, candidates,
            keeps_cache,
        )  # fmt: skip
        if found:
            made = _take_best(found, candidates)
            return [
                _make_candidate(start, shape, spread, grid, number, fixed, conditions)
                for spread, shape in made
            ]
    nearest = min(
        (_shape_of(base, grid.values["encoder_layers"][0], grid.values["decoder_layers"][0],
                   *pair, grid.values["ffn"][0]) for pair in grid.pairs),
        key=lambda shape: float(count(shape)),
    )  # fmt: skip
    raise ValueError(
        f"no sizes come down to {_show(target.kind, most)}; the nearest has "
        f"{_show(target.kind, float(count(nearest)))}: {describe_sizes(nearest)}"
    )


def describe_sizes(shape: Shape) -> str:
    """Returns the sizes of a shape in words.

    Args:
        shape: of a model.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> describe_sizes(OPENBA_V1)
        'encoder layers 12, decoder layers 36, hidden 4096, heads 40, ffn 11008, vocabulary 250368'
    """
    sizes = {name: size_of(shape, name) for name in DIMENSIONS}
    named = [f"{name.replace('_', ' ')} {size}" for name, size in sizes.items() if size]
    return ", ".join([*named, f"vocabulary {shape.vocabulary_size}"])


def _find_cost(kind: str, conditions: Conditions | None) -> Cost:
    if kind == "params":
        return lambda shape: count_parameters(shape).distinct
    if kind == "memory_mb":
        return lambda shape: count_memory(shape, conditions) / 1e6
    return lambda shape: measure(shape, kind)


def _show(kind: str, value: float) -> str:
    if kind == "params":
        return f"{value:,.0f} parameters"
    return f"{value:,.1f} MB" if kind == "memory_mb" else f"{value:.3f} ms per token"


def _rank(
    base: Shape, start: Shape, grid: Grid, count: Cost, most: float, least: float, kind: str,
    candidates: int, keeps_cache: bool,
) -> list[tuple[float, Shape]]:  # fmt: skip
    """Spread and shape of the best of each number of layers, best first."""
    before = float(count(start))
    found: list[tuple[tuple[Any, ...], float, Shape]] = []
    firsts: list[float] = []
    sign = 1 if kind == "ms_per_token" else -1
    for bound, encoder, decoder in _order_layers(start, grid, keeps_cache):
        # Nothing that ranks behind the best of so many other numbers of layers is a candidate.
        worst = firsts[candidates - 1] if len(firsts) >= candidates else np.inf
        if bound - math.log(most / before) > worst + _ROUNDING:
            continue
        least_cost = before * math.exp(-worst - _ROUNDING)
        best: list[tuple[tuple[Any, ...], float, Shape]] = []
        for pairs, inner in _blocks(grid):
            hidden, heads = pairs[:, :1], pairs[:, 1:]
            shape = _spread_shape(base, encoder, decoder, hidden, heads, inner)
            costs = np.broadcast_to(count(shape), (len(pairs), inner.shape[1]))
            under = (costs <= most) & (costs >= least_cost)
            if least and kind != "params":
                under &= count_parameters(shape).distinct >= least
            elif least:
                under &= costs >= least
            rows, columns = np.nonzero(under)
            if not len(rows):
                continue
            chosen = (pairs[rows, 0], pairs[rows, 1], inner[0, columns])
            spread = _find_spreads(start, grid, encoder, decoder, *chosen)
            # Rounded, so that ranks do not depend on the order of additions.
            ranks = np.round(spread - np.log(costs[rows, columns] / before), 9)
            kept = min(candidates, len(ranks)) - 1
            for place in np.flatnonzero(ranks <= np.partition(ranks, kept)[kept])[:_MOST_ALIKE]:
                sizes = [int(widths[place]) for widths in chosen]
                one = _shape_of(base, encoder, decoder, *sizes)
                exact = float(count(one))  # floats round where there are very many parameters
                if exact <= most:
                    layers = sign * (encoder + decoder)
                    key = (float(ranks[place]), layers, -exact, sign * decoder, sizes)
                    best.append((key, float(spread[place]), one))
        best = sorted(best, key=lambda one: one[0])[:candidates]
        if best:
            firsts = sorted([*firsts, best[0][0][0]])
        found += best
    return [(spread, shape) for _, spread, shape in sorted(found, key=lambda one: one[0])]


def _order_layers(start: Shape, grid: Grid, keeps_cache: bool) -> list[tuple[float, int, int]]:
    """Numbers of layers with the least spread that they have, the most equal cuts first.

    Of k dimensions two that differ by d have a standard deviation of at least d / sqrt(2 k), which
    it is where all others lie halfway.
    """
    found = []
    for encoder, decoder in product(grid.values["encoder_layers"], grid.values["decoder_layers"]):
        if keeps_cache and decoder > encoder:
            continue
        bound = 0.0
        if {"encoder_layers", "decoder_layers"} <= {*grid.free}:
            apart = encoder / start.encoder_layers / (decoder / start.decoder_layers)
            bound = abs(math.log(apart)) / math.sqrt(2 * len(grid.free))
        found.append((bound, encoder, decoder))
    return sorted(found)


def _take_best(found: list[tuple[float, Shape]], candidates: int) -> list[tuple[float, Shape]]:
    """The best of each number of layers, then others, in the order of ranks."""
    seen, firsts, others = set[tuple[int, int]](), list[int](), list[int]()
    for place, (_, shape) in enumerate(found):
        layers = shape.encoder_layers, shape.decoder_layers
        (others if layers in seen else firsts).append(place)
        seen.add(layers)
    return [found[place] for place in sorted([*firsts, *others][:candidates])]


def _blocks(grid: Grid) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Pairs of hidden and heads `[P, 2]` with inner sizes `[1, F]`."""
    inner = np.array(grid.values["ffn"], np.float64)[None]
    pairs = np.array(grid.pairs, np.float64)
    rows = max(1, _BLOCK // inner.shape[1])
    for begin in range(0, len(pairs), rows):
        yield pairs[begin : begin + rows], inner


def _find_spreads(
    start: Shape, grid: Grid, encoder: int, decoder: int, hidden: Any, heads: Any, inner: Any
) -> Any:
    sizes = dict(zip(DIMENSIONS, (encoder, decoder, hidden, heads, inner), strict=True))
    logs = [np.log(sizes[name] / size_of(start, name)) for name in grid.free]
    if not logs:
        return np.zeros(len(inner))
    mean = sum(logs) / len(logs)
    return np.sqrt(sum((one - mean) ** 2 for one in logs) / len(logs))


def _shape_of(
    base: Shape, encoder: int, decoder: int, hidden: int, heads: int, inner: int
) -> Shape:
    return replace(
        base, encoder_layers=encoder, decoder_layers=decoder, hidden_size=hidden, heads=heads,
        groups=heads // (base.heads // base.groups), inner_size=inner,
    )  # fmt: skip


def _spread_shape(
    base: Shape, encoder: int, decoder: int, hidden: Any, heads: Any, inner: Any
) -> Shape:
    """A shape whose widths are arrays: costs are arithmetic, which numpy does for all at once."""
    shape = object.__new__(Shape)
    sizes = {
        "encoder_layers": encoder, "decoder_layers": decoder, "hidden_size": hidden, "heads": heads,
        "groups": heads / (base.heads // base.groups), "inner_size": inner,
    }  # fmt: skip
    for field in fields(Shape):
        object.__setattr__(shape, field.name, sizes.get(field.name, getattr(base, field.name)))
    return shape


def _make_candidate(
    start: Shape, shape: Shape, spread: float, grid: Grid, rounds: int, fixed: Sizes | None,
    conditions: Conditions | None,
) -> Candidate:  # fmt: skip
    ids = None if fixed is None else fixed.vocabulary
    divided = divide_rounds(start, shape, grid, rounds)
    stages = [make_sizes(one) for one in divided]
    stages[-1] = replace(stages[-1], vocabulary=ids)
    return Candidate(
        sizes=stages[-1], shape=shape, parameters=count_parameters(shape).distinct,
        memory_bytes=count_memory(shape, conditions), spread=spread, rounds=tuple(stages),
    )  # fmt: skip


def make_sizes(shape: Shape) -> Sizes:
    """Returns the sizes that a stage is asked for to leave a shape, but for its vocabulary.

    Args:
        shape: of a model.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> make_sizes(OPENBA_V1).ffn
        11008
    """
    sizes: dict[str, Any] = {name: size_of(shape, name) or None for name in DIMENSIONS}
    return Sizes(**sizes)
