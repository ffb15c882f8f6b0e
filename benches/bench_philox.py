"""Counter-based random numbers against the definition and numpy's generators."""

from __future__ import annotations

import numpy as np

from lmcore.ops.philox import random_bits, random_uniform
from lmcore.reference.philox import random_bits as define
from timing import compare, print_conditions, save


def main() -> None:
    """Runs all cases."""
    print_conditions()
    items, count = np.arange(1_000), 1_000
    few = [[define(1, 2, item, place) for place in range(20)] for item in range(100)]
    assert random_bits(1, 2, range(100), 20).tolist() == few
    rows = compare(
        "philox",
        "2000 draws of 64 bits",
        ("reference", lambda: [define(1, 2, i, p) for i in range(100) for p in range(20)]),
        ("lmcore", lambda: random_bits(1, 2, range(100), 20), ""),
    )
    generator = np.random.Generator(np.random.Philox(1))
    rows += compare(
        "philox",
        "1000000 doubles in [0, 1)",
        ("numpy Philox, one stream", lambda: generator.random(1_000_000)),
        ("lmcore, 1000 items", lambda: random_uniform(1, 2, items, count), ""),
    )
    save("philox", rows)


if __name__ == "__main__":
    main()
