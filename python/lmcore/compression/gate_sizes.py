"""Sizes that learned gates come to: the nearest allowed ones under a target.

Gates say how much of each dimension is expected to stay. A configuration wants whole numbers, as
many in every layer, so the sizes of `lmcore.compression.grids` are ranked by

    spread - log(parameters / target)

where `spread` is the standard deviation, over the dimensions that have gates, of the logarithm of
a size over the expected one: 0 where all are what the gates expect but for one factor, by which
these may have missed the target. A hundredth closer to the target is worth as much as a hundredth
of other proportions, as in `lmcore.compression.search`. The best that is under the target is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore.compression.choosing import Scores, Sizes
from lmcore.compression.families import Family
from lmcore.compression.gates import Gates, SizePolynomial, evaluate
from lmcore.compression.grids import DIMENSIONS, Grid, make_grid, size_of
from lmcore.compression.mask_config import DIMENSIONS as GATED
from lmcore.compression.mask_config import LEAST_SHARE
from lmcore.compression.plan import LAYERED
from lmcore.cost import Shape, count_parameters

with optional_imports():
    import torch


def make_gate_grid(
    shape: Shape,
    family: Family,
    dimensions: tuple[str, ...] = GATED,
    divisors: Mapping[str, int] | None = None,
    least_share: float = LEAST_SHARE,
) -> Grid:
    """Returns the sizes that gates may come to; what has no gates stays as it is.

    Args:
        shape: of the model.
        family: of it.
        dimensions: that have gates.
        divisors: as for `lmcore.compression.grids.find_divisors`.
        least_share: of every dimension that is kept at least.

    Raises:
        TypeError: a divisor is no whole number.
        ValueError: a divisor is out of its range, or no sizes go together.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=64, heads=4, groups=4, head_size=16,
        ...     inner_size=128, vocabulary_size=9)
        >>> make_gate_grid(shape, find_family("mistral"), ("layers",)).free
        ('decoder_layers',)
    """
    fixed: dict[str, Any] = {}
    for name in DIMENSIONS:
        if not {name, name.rpartition("_")[2]} & {*dimensions} and size_of(shape, name):
            fixed[name] = size_of(shape, name)
    own = {name: value for name, value in (divisors or {}).items() if name not in fixed}
    return make_grid(shape, family, fixed=Sizes(**fixed), divisors=own, share=least_share)


def find_expected(gates: Gates) -> dict[str, float]:
    """Returns how much of each size is expected to stay, by the names of `Sizes`.

    Heads and inner units are means over layers, each of which counts as far as it is open.

    Args:
        gates: of a model.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> expected = find_expected(Gates(shape, ("layers", "heads"), start=0.0))
        >>> {name: round(value, 2) for name, value in expected.items()}
        {'decoder_layers': 3.66, 'heads': 3.33}
    """
    with torch.no_grad():
        tables = gates.split(gates.find_open().double())
    found: dict[str, float] = {}
    for name, scale in (("heads", gates.shape.heads // gates.shape.groups), ("ffn", 1)):
        total = weight = 0.0
        for stack in ("encoder", "decoder"):
            table = tables.get(f"{stack}_{name}")
            if table is not None:
                opened = tables.get(f"{stack}_layers", table.new_ones(len(table)))
                total += float((table.sum(1) * opened).sum())
                weight += float(opened.sum())
        if weight:
            found[name] = scale * total / weight
    flat = {name: float(table.sum()) for name, table in tables.items() if name not in LAYERED}
    return flat | found


def choose_sizes(
    shape: Shape, grid: Grid, expected: Mapping[str, float], most: float
) -> tuple[Sizes, int]:
    """Returns the allowed sizes nearest to the expected ones, and how many parameters they leave.

    Args:
        shape: of the model.
        grid: of `make_gate_grid`.
        expected: of `find_expected`.
        most: parameters at most.

    Raises:
        ValueError: no sizes come down to it; the text names the nearest.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=64, heads=4, groups=4, head_size=16,
        ...     inner_size=128, vocabulary_size=9, tied=True)
        >>> grid = make_gate_grid(shape, find_family("mistral"), ("layers", "ffn"))
        >>> sizes, parameters = choose_sizes(shape, grid, {"decoder_layers": 3.1, "ffn": 90}, 1e5)
        >>> sizes.decoder_layers, sizes.ffn, parameters
        (3, 80, 96256)
    """
    polynomial = SizePolynomial(shape)
    queries = shape.heads // shape.groups
    inner = np.array(grid.values["ffn"], np.float64)
    pairs = np.array(grid.pairs, np.float64)
    hidden, groups = pairs[:, 0], pairs[:, 1] / queries
    ends = [_take_ends(polynomial, name, hidden, groups) for name in polynomial.layers]
    rest = evaluate(polynomial.rest, hidden, groups, 0.0)  # type: ignore[arg-type]
    logs = [_measure(expected, "hidden", hidden)[:, None],
            _measure(expected, "heads", pairs[:, 1])[:, None],
            _measure(expected, "ffn", inner)[None]]  # fmt: skip
    first, second = _add([one for one in logs if not np.isnan(one).all()])
    best: tuple[float, tuple[int, ...]] | None = None
    stacks = [f"{name}_layers" for name in polynomial.layers]
    for layers in product(*(grid.values[name] for name in stacks)):
        flat = rest + sum(count * own[0] for count, own in zip(layers, ends, strict=True))
        slope = sum(count * own[1] for count, own in zip(layers, ends, strict=True))
        parameters = flat[:, None] + slope[:, None] * inner
        own = [_measure(expected, name, np.float64(count))
               for name, count in zip(stacks, layers, strict=True) if name in expected]  # fmt: skip
        mean = (first + sum(own)) / len(expected)
        spread = np.sqrt(np.maximum((second + sum(one**2 for one in own)) / len(expected)
                                    - mean**2, 0))  # fmt: skip
        # Rounded, so that ranks do not depend on the order of additions.
        ranks = np.round(spread - np.log(parameters / most), 9)
        ranks = np.where(parameters <= most, ranks, np.inf)
        row, column = np.unravel_index(int(ranks.argmin()), ranks.shape)
        if np.isfinite(ranks[row, column]) and (best is None or ranks[row, column] < best[0]):
            chosen = (*layers, *pairs[row].astype(int).tolist(), int(inner[column]))
            best = float(ranks[row, column]), chosen
    names = [*stacks, "hidden", "heads", "ffn"]
    if best is None:
        least = [*(grid.values[name][0] for name in stacks)]
        smallest = [
            _count(shape, dict(zip(names, (*least, *pair, grid.values["ffn"][0]), strict=True)))
            for pair in grid.pairs
        ]
        raise ValueError(
            f"no sizes come down to {most:,.0f} parameters; the nearest has {min(smallest):,}"
        )
    sizes = dict(zip(names, best[1], strict=True))
    asked: dict[str, Any] = {name: sizes[name] for name in grid.free}
    return Sizes(**asked), _count(shape, sizes)


def make_scores(gates: Gates) -> Scores:
    """Returns the log alphas of gates as scores, by which a plan of any size can be made.

    Args:
        gates: of a model.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> make_scores(Gates(shape, ("ffn",))).decoder_ffn[0].shape
        (6,)
    """
    tables = gates.split(gates.log_alpha.detach().double().cpu())
    found: dict[str, Any] = {}
    for name, table in tables.items():
        values = table.numpy()
        found[name] = dict(enumerate(values)) if name in LAYERED else values
    return Scores(**found)


def _take_ends(
    polynomial: SizePolynomial, name: str, hidden: NDArray[Any], groups: NDArray[Any]
) -> tuple[Any, Any]:
    """Parameters of a layer without inner units, and of each of them."""
    factors: Any = polynomial.layers[name]
    none: Any = evaluate(factors, hidden, groups, 0.0)  # type: ignore[arg-type]
    one: Any = evaluate(factors, hidden, groups, 1.0)  # type: ignore[arg-type]
    return none, one - none


def _measure(expected: Mapping[str, float], name: str, sizes: Any) -> Any:
    """How far sizes are from what is expected, in logarithms; NaN of what has no gates."""
    return np.log(sizes / max(expected.get(name, np.nan), 1e-3))


def _add(logs: list[NDArray[Any]]) -> tuple[Any, Any]:
    """The sums of logarithms and of their squares, `[pairs, inner]`."""
    return sum(logs, np.zeros((1, 1))), sum((one**2 for one in logs), np.zeros((1, 1)))


def _count(shape: Shape, sizes: Mapping[str, int]) -> int:
    fields: dict[str, Any] = {n: sizes[n] for n in sizes if n.endswith("layers")}
    groups = sizes["heads"] // (shape.heads // shape.groups)
    small = replace(
        shape, **fields, hidden_size=sizes["hidden"], heads=sizes["heads"], groups=groups,
        inner_size=sizes["ffn"],
    )  # fmt: skip
    return count_parameters(small).distinct
