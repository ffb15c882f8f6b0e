"""Sizes under a target, against all combinations tried one by one by the definition.

The opponent counts the parameters of every combination and ranks those under the target. On the
15B it does so for each thousandth of them, and its time is scaled by as much.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import replace
from itertools import islice, product

from lmcore.compression.choosing import Sizes
from lmcore.compression.families import find_family
from lmcore.compression.grids import make_grid, size_of
from lmcore.compression.plan import Plan
from lmcore.compression.recipes import OPENBA_V1
from lmcore.compression.search import search
from lmcore.compression.targets import Target
from lmcore.cost import Shape, count_parameters
from timing import compare, print_conditions, save, scale

SMALL = Shape(
    encoder_layers=8, decoder_layers=9, hidden_size=512, heads=6, groups=6, head_size=64,
    inner_size=1024, vocabulary_size=32128, tied=True,
)  # fmt: skip
EACH = 1000
IDS = 100_000
"""Kept of the 15B's vocabulary, as the paper's 3.4B does."""


def try_all(
    start: Shape, base: Shape, kind: str, most: float, share: float, each: int = 1
) -> Shape | None:
    """The best of all combinations, or of each so many of them."""
    grid = make_grid(start, find_family(kind), share=share)
    values = grid.values
    every = product(values["encoder_layers"], values["decoder_layers"], grid.pairs, values["ffn"])
    whole = count_parameters(start).distinct
    best: tuple[float, Shape] | None = None
    for encoder, decoder, (hidden, heads), inner in islice(every, 0, None, each):
        shape = replace(
            base, encoder_layers=encoder, decoder_layers=decoder, hidden_size=hidden, heads=heads,
            groups=heads // (start.heads // start.groups), inner_size=inner,
        )  # fmt: skip
        count = count_parameters(shape).distinct
        if not share * whole <= count <= most:
            continue
        logs = [math.log(size_of(shape, name) / size_of(start, name)) for name in grid.free]
        rank = statistics.pstdev(logs) - math.log(count / whole)
        if best is None or rank < best[0] - 1e-9:
            best = rank, shape
    return None if best is None else best[1]


def main() -> None:
    """Asserts that both find the same, and times them."""
    print_conditions()
    small, most = Plan(model_type="t5", shape=SMALL), 35e6
    target = Target(kind="params", value=most)
    found = search(small, target)[0].shape
    if found != try_all(SMALL, SMALL, "t5", most, 0.5):
        raise AssertionError("other sizes than all combinations give")
    rows = compare(
        "search", "a T5 of 63M to 35M",
        ("one by one", lambda: try_all(SMALL, SMALL, "t5", most, 0.5)),
        ("search", lambda: search(small, target), ""),
        rounds=5, repeats=1,
    )  # fmt: skip
    large = Plan(model_type="openba", shape=OPENBA_V1)
    options = {"fixed": Sizes(vocabulary=range(IDS))}
    base, target = replace(OPENBA_V1, vocabulary_size=IDS), Target(kind="params", value=3.4e9)
    (row,) = compare(
        "search", "OpenBA-15B to 3.4B, 7 million combinations",
        ("one by one", lambda: try_all(OPENBA_V1, base, "openba", 3.4e9, 0.125, EACH)),
        ("search", lambda: search(large, target, **options), "10 s"),
        rounds=5, repeats=1,
    )  # fmt: skip
    save("search", [*rows, scale(row, EACH)])


if __name__ == "__main__":
    main()
