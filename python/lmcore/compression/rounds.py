"""Rounds of pruning and recovery on the way to a size.

What is cut at once is at most about half of the parameters, as Minitron's authors advise. Every
dimension goes down by the same factor in each round, rounded up to its grid.

Source: Minitron (arXiv 2407.14679) prunes and distils in rounds above one half; OpenBA-V2 (arXiv
2405.05957) reaches 23 % in four stages.
"""

from __future__ import annotations

import math
from dataclasses import replace

from lmcore.compression.grids import DIMENSIONS, Grid, size_of
from lmcore.cost import Shape


def divide_rounds(start: Shape, end: Shape, grid: Grid, rounds: int) -> list[Shape]:
    """Returns the shapes that some rounds leave, the last of which is the end.

    Args:
        start: what is there.
        end: what shall be left.
        grid: of the sizes between.
        rounds: at least 1; fewer are returned where two would be alike.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.compression.grids import make_grid
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> end = replace(OPENBA_V1, decoder_layers=18, inner_size=5504)
        >>> grid = make_grid(OPENBA_V1, find_family("openba"))
        >>> [(shape.decoder_layers, shape.inner_size)
        ...     for shape in divide_rounds(OPENBA_V1, end, grid, 2)]
        [(26, 7936), (18, 5504)]
    """
    found: list[Shape] = []
    for number in range(1, rounds):
        before = found[-1] if found else start

        def between(name: str, number: int = number, before: Shape = before) -> tuple[float, int]:
            """The size that is wanted, and the nearest above it on the grid."""
            high, low = size_of(start, name), size_of(end, name)
            wanted = high * (low / high) ** (number / rounds) if high else 0.0
            most = size_of(before, name)
            # A rounding of the power must not reach the next value.
            above = [size for size in grid.values[name] if wanted - 1e-9 * high <= size <= most]
            return wanted, max(low, min(above, default=most))

        sizes = {name: between(name)[1] for name in DIMENSIONS}
        wanted = {name: between(name)[0] for name in ("hidden", "heads")}
        pairs = [
            pair for pair in grid.pairs
            if end.hidden_size <= pair[0] <= before.hidden_size
            and end.heads <= pair[1] <= before.heads
        ]  # fmt: skip
        if (sizes["hidden"], sizes["heads"]) not in pairs:
            sizes["hidden"], sizes["heads"] = min(
                pairs,
                key=lambda pair: (
                    abs(math.log(pair[0] / wanted["hidden"]))
                    + abs(math.log(pair[1] / wanted["heads"]))
                ),
            )
        shape = replace(
            start,
            encoder_layers=sizes["encoder_layers"],
            decoder_layers=sizes["decoder_layers"],
            hidden_size=sizes["hidden"],
            heads=sizes["heads"],
            groups=sizes["heads"] // (start.heads // start.groups),
            inner_size=sizes["ffn"],
        )
        if shape not in (before, end):
            found.append(shape)
    return [*found, end]
