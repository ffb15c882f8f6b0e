"""Which sizes a smaller model may have: multiples of divisors, down to limits.

Layers follow the rules of the paper (section 3): the first and the last of a stack stay. Heads are
cut in whole groups. Widths are multiples of a power of two, by default of about a sixteenth of
what is there and at most 256, which is what the units of a GPU like.

Source: OpenBA-V2 (arXiv 2405.05957), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from lmcore.compression.choosing import Sizes
from lmcore.compression.families import Family
from lmcore.cost import Shape

DIMENSIONS = ("encoder_layers", "decoder_layers", "hidden", "heads", "ffn")
"""That a search may change, as `lmcore.compression.choosing.Sizes` names them."""
_FIELDS = {"hidden": "hidden_size", "ffn": "inner_size"}
_WIDEST_DIVISOR = 256
MOST_COMBINATIONS = 200_000_000
"""Of sizes, which takes seconds."""
MOST_VALUES = 4_000_000
"""Of one size."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Grid:
    """The sizes that are allowed, rising.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=6, hidden_size=64, heads=4, groups=2, head_size=16,
        ...     inner_size=128, vocabulary_size=9)
        >>> grid = make_grid(shape, find_family("mistral"), divisors={"ffn": 32})
        >>> grid.values["decoder_layers"], grid.values["ffn"], grid.values["heads"]
        ((3, 4, 5, 6), (64, 96, 128), (2, 4))
    """

    values: Mapping[str, tuple[int, ...]]
    """Of each of `DIMENSIONS`."""
    pairs: tuple[tuple[int, int], ...]
    """Of hidden and heads those that go together."""
    free: tuple[str, ...]
    """The dimensions that have more than one value."""

    def count(self) -> int:
        """Returns how many combinations there are."""
        layers = len(self.values["encoder_layers"]) * len(self.values["decoder_layers"])
        return layers * len(self.pairs) * len(self.values["ffn"])


def size_of(shape: Shape, name: str) -> int:
    """Returns the size of one of `DIMENSIONS`.

    Args:
        shape: of a model.
        name: of the dimension.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> size_of(OPENBA_V1, "ffn")
        11008
    """
    size: int = getattr(shape, _FIELDS.get(name, name))
    return size


def find_divisors(shape: Shape, divisors: Mapping[str, int] | None = None) -> dict[str, int]:
    """Returns of what each size is a multiple.

    Args:
        shape: that is cut.
        divisors: those that are given, by names of `DIMENSIONS`.

    Raises:
        TypeError: a divisor is no whole number.
        ValueError: there is no such dimension, or a divisor is out of its range.

    Example:
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> find_divisors(OPENBA_V1, {"heads": 4})
        {'encoder_layers': 1, 'decoder_layers': 1, 'hidden': 256, 'heads': 4, 'ffn': 256}
    """
    found = dict.fromkeys(DIMENSIONS, 1)
    for name in ("hidden", "ffn"):
        power = (size_of(shape, name) // 16).bit_length() - 1
        found[name] = min(_WIDEST_DIVISOR, 1 << max(0, power))
    for name, value in _check_sizes("divisor", shape, divisors).items():
        found[name] = value
    return found


def make_grid(
    shape: Shape,
    family: Family,
    *,
    fixed: Sizes | None = None,
    divisors: Mapping[str, int] | None = None,
    least: Mapping[str, int] | None = None,
    share: float = 0.5,
) -> Grid:
    """Returns the sizes that a smaller model may have.

    Args:
        shape: that is cut.
        family: whose configuration must be able to say the sizes.
        fixed: sizes that are given, which need be no multiples.
        divisors: of sizes; see `find_divisors`.
        least: of sizes; where nothing is given, `share` of what is there.
        share: of every dimension that is kept at least.

    Raises:
        TypeError: a number is no whole one.
        ValueError: a size or divisor is out of its range, no sizes go together, or there are too
            many combinations.

    Example:
        >>> from lmcore.compression.families import find_family
        >>> from lmcore.compression.recipes import OPENBA_V1
        >>> make_grid(OPENBA_V1, find_family("openba")).count()
        553014
    """
    steps = find_divisors(shape, divisors)
    lows = _check_sizes("least size", shape, least)
    values, counts = dict[str, tuple[int, ...]](), dict[str, int]()
    queries = shape.heads // shape.groups
    for name in DIMENSIONS:
        size, given = size_of(shape, name), getattr(fixed, name, None)
        ends = min(size, 2) if name.endswith("_layers") else min(size, 1)
        if given is not None:
            if not max(ends, 1) <= given <= size:
                raise ValueError(f"{name} must be from {ends} to {size}: got {given}")
            if name == "heads" and given % queries:
                raise ValueError(f"heads must be a multiple of {queries}: got {given}")
            values[name], counts[name] = (given,), 1
            continue
        step = math.lcm(steps[name], queries) if name == "heads" else steps[name]
        low = max(ends, lows.get(name, math.ceil(size * share)))
        multiples = range(-(-low // step) * step, size + 1, step) if size else ()
        counts[name] = len(multiples) + (size not in multiples)
        if counts[name] <= MOST_VALUES:  # hostile sizes must not fill the memory
            values[name] = tuple(sorted({size, *multiples}))
    coupled = "head_size" not in family.fields  # heads say how wide the model is
    follows = coupled and (fixed is None or fixed.hidden is None)
    if follows:
        counts["hidden"], values["hidden"] = 1, (shape.hidden_size,)
    count = math.prod(counts.values())
    if count > MOST_COMBINATIONS or len(values) < len(counts):
        raise ValueError(
            f"there are {count:,} combinations of sizes, more than {MOST_COMBINATIONS:,}: expected "
            "larger divisors or least sizes, or fixed sizes"
        )
    given_step = (divisors or {}).get("hidden", 1)
    pairs = tuple(
        (hidden, heads)
        for heads in values["heads"]
        for hidden in ((heads * shape.head_size,) if follows else values["hidden"])
        if _fit(shape, family, hidden, heads)
        and (not follows or hidden == shape.hidden_size
             or (not hidden % given_step and hidden >= lows.get("hidden", 1)))
    )  # fmt: skip
    if not pairs:
        raise ValueError(
            f"no hidden size and number of heads go together in a {family.model_types[0]}: got "
            f"hidden of {values['hidden'][0]} to {values['hidden'][-1]} and heads of "
            f"{values['heads'][0]} to {values['heads'][-1]}"
        )
    hidden_and_heads = {"hidden": {a for a, _ in pairs}, "heads": {b for _, b in pairs}}
    values |= {name: tuple(sorted(sizes)) for name, sizes in hidden_and_heads.items()}
    free = tuple(name for name in DIMENSIONS if len(values[name]) > 1)
    return Grid(values=values, pairs=pairs, free=free)


def _fit(shape: Shape, family: Family, hidden: int, heads: int) -> bool:
    """Whether a family's configuration can say both."""
    if "head_size" not in family.fields and hidden != heads * shape.head_size:
        return False
    return not (family.heads_divide_hidden and hidden % heads)


def _check_sizes(what: str, shape: Shape, given: Mapping[str, int] | None) -> dict[str, int]:
    for name, value in (given or {}).items():
        if name not in DIMENSIONS:
            names = ", ".join(DIMENSIONS)
            raise ValueError(f"a {what} must be of one of {names}: got {name!r:.60}")
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"the {what} of {name} must be a whole number: got {value!r:.60}")
        most = size_of(shape, name) or value  # of a stack that is not there anything goes
        if not 1 <= value <= most:
            raise ValueError(f"the {what} of {name} must be from 1 to {most}: got {value}")
    return dict(given or {})
