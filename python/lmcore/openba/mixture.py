"""Mixtures: which source each sample of a run is of, by weights, as a function of (seed, index).

A mixture is drawn in blocks. How many samples of a block are of a source is the difference of two
rounded numbers, what its weight makes of all samples before the block and with it; so counts are
exact in the long run, and after each block less than one sample from what the weights say. Where
they stand in the block is drawn.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore._json import read_json
from lmcore.ops.philox import Stream, random_bits

# Samples of a block; more where a source is so rare that it would be missed in one.
_BLOCK = 1024
_LARGEST_BLOCK = 1 << 21
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")


@dataclass(kw_only=True, slots=True, frozen=True)
class MixtureSource:
    """A source of a mixture.

    Raises:
        TypeError: a value has another type than its field.
        ValueError: the name has other than letters, digits and `_.+-`, or the weight is not above
            0 and finite.

    Example:
        >>> MixtureSource(name="code", data="code", weight=5).weight
        5.0
    """

    name: str
    """What the log calls it."""
    data: Any
    """Texts or pairs, as `train` takes them: the prefix of a token file, or what is in memory."""
    weight: float
    """Its share of the samples is this, divided by the sum of all."""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ValueError(
                "name must be 1 to 64 letters, digits or _.+-, the first a letter or digit: "
                f"got {self.name!r:.80}"
            )
        if isinstance(self.weight, bool) or not isinstance(self.weight, int | float):
            raise TypeError(f"weight must be a number: got {self.weight!r:.60}")
        try:
            weight = float(self.weight)
        except OverflowError:
            weight = math.inf
        if not 0 < weight < math.inf:
            raise ValueError(f"weight must be above 0 and finite: got {self.weight!r:.60}")
        object.__setattr__(self, "weight", weight)


@dataclass(kw_only=True, slots=True, frozen=True)
class Mixture:
    """Sources with their weights.

    Source: OpenBA (arXiv 2309.10706), figure 1: 47.5 of English, 47.5 of Chinese, 5 of code.

    Raises:
        ValueError: there is no source, a name comes twice, or a source is rarer than one in 2**20.

    Example:
        >>> one, two = (MixtureSource(name=name, data=name, weight=1) for name in "ab")
        >>> Mixture(sources=(one, two)).shares
        {'a': 0.5, 'b': 0.5}
    """

    sources: tuple[MixtureSource, ...]
    """In an order that draws depend on."""
    path: str | None = None
    """The file that it was read from."""

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources must not be empty")
        names = [source.name for source in self.sources]
        twice = [name for name in names if names.count(name) > 1]
        if twice:
            raise ValueError(f"sources must have names of their own: {twice[0]!r} comes twice")
        for name, share in self.shares.items():
            if share * (_LARGEST_BLOCK // 2) < 1:
                raise ValueError(
                    f"the share of a source must be at least 1 in {_LARGEST_BLOCK // 2}: that of "
                    f"{name!r} is {share:.3g}"
                )

    @property
    def shares(self) -> dict[str, float]:
        """Of all samples, by source."""
        total = sum(Fraction(source.weight) for source in self.sources)
        return {one.name: float(Fraction(one.weight) / total) for one in self.sources}


def read_mixture(path: str | os.PathLike[str]) -> Mixture:
    """Returns the mixture of a JSON file, with the names of its token files.

    It holds `{"sources": [{"name": "english", "data": "PREFIX", "weight": 47.5}, ...]}`; prefixes
    are relative to the file's folder.

    Args:
        path: of the file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no mixture; the text names the file, and the source.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = Path(folder, "mixture.json")
        ...     _ = file.write_text('{"sources": [{"name": "a", "data": "a", "weight": 0}]}')
        ...     try:
        ...         read_mixture(file)
        ...     except ValueError as error:
        ...         print(str(error).removeprefix(folder))
        /mixture.json: sources[0]: weight must be above 0 and finite: got 0
    """
    name = os.fspath(path)
    content = read_json(path, "a mixture")
    if not isinstance(content, dict) or set(content) != {"sources"}:
        raise ValueError(f"{name}: not a mixture: it must hold sources, and nothing else")
    if not isinstance(content["sources"], list):
        raise ValueError(f"{name}: sources must be a list")
    folder = Path(path).parent
    sources = [
        _read_source(f"{name}: sources[{index}]", each, folder)
        for index, each in enumerate(content["sources"])
    ]
    try:
        return Mixture(sources=tuple(sources), path=name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _read_source(place: str, content: Any, folder: Path) -> MixtureSource:
    keys = ("name", "data", "weight")
    if not isinstance(content, dict) or set(content) != set(keys):
        raise ValueError(f"{place} must hold {', '.join(keys)}, and nothing else")
    data = content["data"]
    if not isinstance(data, str) or not data or "\0" in data or not _is_utf8(data):
        raise ValueError(f"{place}: data must be the prefix of a token file: got {data!r:.60}")
    try:
        return MixtureSource(
            name=content["name"], data=str(folder / data), weight=content["weight"]
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{place}: {error}") from None


def _is_utf8(text: str) -> bool:
    """Whether JSON's escapes made no half of a character, which no file is called."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


class MixtureDraws:
    """Draws of a mixture: of which source each sample is, and which of that source's it is.

    Args:
        mixture: the sources.
        seed: of the draws, below 2**64.

    Attributes:
        block: samples of a block, after which each count is less than one from its share.

    Example:
        >>> code = MixtureSource(name="code", data="code", weight=5)
        >>> text = MixtureSource(name="text", data="text", weight=95)
        >>> draws = MixtureDraws(Mixture(sources=(text, code)), seed=1)
        >>> sources, numbers = draws.draw(np.arange(102_400))
        >>> int((sources == 1).sum()), int(numbers[sources == 1].max())
        (5120, 5119)
    """

    def __init__(self, mixture: Mixture, seed: int) -> None:
        self.seed = seed
        weights = [Fraction(source.weight) for source in mixture.sources]
        total = sum(weights)
        self._sums = [sum(weights[: n + 1], Fraction(0)) / total for n in range(len(weights))]
        # With two of the rarest in each block, no rounding can ask for fewer than none.
        needed = math.ceil(2 * total / min(weights))
        self.block = max(_BLOCK, needed)
        self._last: tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]] | None] = (-1, None)

    def draw(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Returns which source each sample is of, and its number there: `[B]` int64 each.

        Args:
            indices: `[B]`, of the samples, from 0.
        """
        sources, numbers = np.zeros_like(indices), np.zeros_like(indices)
        blocks, places = np.divmod(indices, self.block)
        for block in np.unique(blocks).tolist():
            inside = blocks == block
            for whole, part in zip((sources, numbers), self._draw_block(block), strict=True):
                whole[inside] = part[places[inside]]
        return sources, numbers

    def count(self, samples: int) -> NDArray[np.int64]:
        """Returns how many of the first samples each source has, where a block ends there.

        Args:
            samples: how many.
        """
        ends = [math.floor(samples * each + Fraction(1, 2)) for each in self._sums]
        counts = [end - start for start, end in pairwise([0, *ends])]
        return np.array(counts, np.int64)

    def seed_source(self, place: int) -> int:
        """Returns the seed of a source's own draws, so that no two have the same noise.

        Args:
            place: of the source.
        """
        return int(random_bits(self.seed, Stream.MIXTURE_SEEDS, place, 1)[0])

    def _draw_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        known, drawn = self._last
        if known != block or drawn is None:
            drawn = self._make_block(block)
            self._last = block, drawn
        return drawn

    def _make_block(self, block: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        before, after = self.count(block * self.block), self.count((block + 1) * self.block)
        in_order = np.repeat(np.arange(len(before)), after - before)
        keys = random_bits(self.seed, Stream.MIXTURE_ORDERS, block, self.block)
        sources = in_order[keys.argsort(kind="stable")]
        numbers = np.zeros(self.block, np.int64)
        for place, first in enumerate(before.tolist()):
            own = np.flatnonzero(sources == place)
            numbers[own] = first + np.arange(len(own))
        return sources, numbers
