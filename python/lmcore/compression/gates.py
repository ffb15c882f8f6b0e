"""Learned gates of layers, channels, heads and inner units: the hard concrete distribution.

A gate is a random number from 0 to 1 that is exactly 0 or 1 with some probability. Its one
parameter, log alpha, is learned through the draw; how likely it is open at all is a function of
it, and so is the expected number of parameters of the model. What is drawn is a function of the
seed, the step and the gate's number.

Symbols: la log alpha, b beta, u a uniform draw.

Source: Louizos et al. 2018 (arXiv 1712.01312), section 2.3; as Sheared-LLaMA (arXiv 2310.06694)
uses it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from lmcore._extras import optional_imports
from lmcore.compression.mask_config import DIMENSIONS, START, check_dimensions
from lmcore.compression.plan import LAYERED, find_sizes, layers_of
from lmcore.cost import Shape, count_parameters
from lmcore.ops.philox import Stream, random_uniform

with optional_imports():
    import torch
    from torch import Tensor, nn

BETA = 2 / 3
"""The temperature: below 1 most of the mass lies at the ends."""
GAMMA = -0.1
"""Where the stretched distribution begins; what lies below 0 is shut."""
ZETA = 1.1
"""Where it ends; what lies above 1 is wholly open."""

# A draw of 0 would be a gate of minus infinity.
_LEAST_DRAW = 1e-6


def sample_gates(log_alpha: Tensor, draws: Tensor) -> Tensor:
    """Returns gates as drawn: 0 to 1, of the shape and type of `log_alpha`.

    Source: Louizos et al. 2018, equation 11.

    Args:
        log_alpha: `[...]` floating point.
        draws: `[...]` from 0 to 1.

    Example:
        >>> sample_gates(torch.tensor([9.0, 0.0, -9.0]), torch.tensor(0.5)).tolist()
        [1.0, 0.5, 0.0]
    """
    inside = draws.clamp(_LEAST_DRAW, 1 - _LEAST_DRAW)
    noise = (inside.log() - (-inside).log1p()).to(log_alpha.dtype)
    return _stretch((noise + log_alpha) / BETA)


def decide_gates(log_alpha: Tensor) -> Tensor:
    """Returns gates without a draw, as they are in evaluation.

    Source: Louizos et al. 2018, equation 13.

    Args:
        log_alpha: `[...]` floating point.

    Example:
        >>> decide_gates(torch.tensor([9.0, 0.0, -9.0])).tolist()
        [1.0, 0.5, 0.0]
    """
    return _stretch(log_alpha)


def find_open(log_alpha: Tensor) -> Tensor:
    """Returns the probability that a gate is not shut: the expected L0 norm of each.

    Source: Louizos et al. 2018, equation 12.

    Args:
        log_alpha: `[...]` floating point.

    Example:
        >>> round(find_open(torch.tensor(0.0)).item(), 3)
        0.832
    """
    return torch.sigmoid(log_alpha - BETA * math.log(-GAMMA / ZETA))


class _Place(NamedTuple):
    begin: int
    rows: int
    """Of layers; 1 where all layers share the gates; 0 where there is no axis of layers."""
    size: int


class Gates(nn.Module):
    """The gates of a model: one vector of log alphas, which of them is what, and their draws.

    The first and the last layer of a stack stay, and have no gate. Where a family wants the same
    heads in all layers of a stack, these share their gates.

    Args:
        shape: of the model.
        dimensions: of `DIMENSIONS`, those that have gates.
        shared_heads: whether the layers of a stack share the gates of heads.
        start: the log alpha of all gates.

    Raises:
        ValueError: there is no such dimension, or nothing that could be shut.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> gates = Gates(shape, ("layers", "heads"))
        >>> {name: [*table.shape] for name, table in gates.split(gates.decide()).items()}
        {'decoder_layers': [4], 'decoder_heads': [4, 2]}
        >>> gates.sample(seed=0, step=1).shape
        torch.Size([10])
    """

    def __init__(
        self,
        shape: Shape,
        dimensions: tuple[str, ...] = DIMENSIONS,
        *,
        shared_heads: bool = False,
        start: float = START,
    ) -> None:
        super().__init__()
        check_dimensions(dimensions)
        self.shape = shape
        self._places: dict[str, _Place] = {}
        count, sizes = 0, find_sizes(shape)
        for name in _list_names(dimensions):
            if name in LAYERED:
                layers = sizes[layers_of(name)]
                rows = min(layers, 1) if shared_heads and name.endswith("heads") else layers
                place = _Place(count, rows, sizes[name])
            else:
                ends = 2 if name.endswith("layers") else 0
                place = _Place(count, 0, max(0, sizes[name] - ends))
            added = place.size * (place.rows if name in LAYERED else 1)
            if added:
                self._places[name] = place
                count += added
        if not count:
            raise ValueError("nothing could be shut: the first and the last layer stay")
        self.log_alpha = nn.Parameter(torch.full((count,), start))

    def sample(self, seed: int, step: int) -> Tensor:
        """Returns all gates as drawn for a step, `[gates]`, with a graph to `log_alpha`.

        Args:
            seed: of the run.
            step: from 1.
        """
        drawn = random_uniform(seed, Stream.GATES, step, len(self.log_alpha))
        return sample_gates(self.log_alpha, torch.from_numpy(drawn).to(self.log_alpha.device))

    def decide(self) -> Tensor:
        """Returns all gates without a draw, `[gates]`."""
        return decide_gates(self.log_alpha)

    def find_open(self) -> Tensor:
        """Returns how likely each gate is not shut, `[gates]`."""
        return find_open(self.log_alpha)

    def split(self, values: Tensor) -> dict[str, Tensor]:
        """Returns the numbers of gates by dimension, as a plan names and counts them.

        Layers and channels are `[n]`, heads and inner units `[layers, n]`; what has no gates is
        not there.

        Args:
            values: `[gates]`; the first and the last layer, which have no gate, get 1.
        """
        found = {}
        sizes = find_sizes(self.shape)
        for name, place in self._places.items():
            if name in LAYERED:
                part = values.narrow(0, place.begin, place.rows * place.size)
                table = part.view(place.rows, place.size)
                found[name] = table.expand(sizes[layers_of(name)], -1)
                continue
            part = values.narrow(0, place.begin, place.size)
            if name.endswith("layers"):
                end = values.new_ones(1)
                part = torch.cat([end, part, end])
            found[name] = part
        return found


class SizePolynomial:
    """How many parameters a model has as a function of gates: differentiable, and exact.

    A layer's parameters grow in a line with each of its sizes while the others stand still, so
    that they follow from those of shapes of one and two heads, units and channels; nothing is
    counted twice. Gates being independent, the expected number is that of their expectations.

    Args:
        shape: of the model.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> polynomial = SizePolynomial(shape)
        >>> polynomial.whole, int(polynomial.count({}))
        (1488, 1488)
        >>> int(polynomial.count({"decoder_layers": torch.tensor([1.0, 0.0, 1.0, 1.0])}))
        1136
    """

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        stacks = {"encoder": shape.encoder_layers > 0, "decoder": shape.decoder_layers > 0}
        base = {f"{name}_layers": int(there) for name, there in stacks.items()}
        alone = _expand(shape, **base)
        self.layers = {}
        for name, there in stacks.items():
            if there:
                more = _expand(shape, **{**base, f"{name}_layers": 2})
                self.layers[name] = [b - a for a, b in zip(alone, more, strict=True)]
        self.rest = [a - sum(parts) for a, *parts in zip(alone, *self.layers.values(), strict=True)]
        """What does not grow with layers."""
        self.whole = round(float(self.count({})))
        """Of the model as it is; embedding and output layer of one table count once."""

    def count(self, tables: Mapping[str, Tensor]) -> Tensor:
        """Returns the number of parameters, a scalar float64.

        Args:
            tables: numbers from 0 to 1 by dimension, as `Gates.split` gives them; what is not
                there is wholly open.
        """
        sizes = find_sizes(self.shape)
        hidden = _sum(tables.get("hidden"), sizes["hidden"])
        groups, total = [], torch.zeros((), dtype=torch.float64)
        for name, factors in self.layers.items():
            layers = sizes[f"{name}_layers"]
            heads = _sum(tables.get(f"{name}_heads"), sizes[f"{name}_heads"])
            inner = _sum(tables.get(f"{name}_ffn"), sizes[f"{name}_ffn"])
            opened = tables.get(f"{name}_layers")
            each = evaluate(factors, hidden, heads, inner)
            if opened is not None:
                each = opened.double() * each
            total = total + (each.sum() if each.ndim else each * layers)
            # Tables that all layers share are those of the first one's heads.
            groups.append(heads if heads.ndim == 0 else heads[0])
        mean = sum(groups, start=torch.zeros((), dtype=torch.float64)) / len(groups)
        return total + evaluate(self.rest, hidden, mean, hidden.new_zeros(()))


def evaluate(factors: list[int], hidden: Tensor, groups: Tensor, inner: Tensor) -> Tensor:
    """Returns the value of a polynomial whose variables all come to the first power.

    Args:
        factors: of 1, hidden, groups, hidden groups, inner, hidden inner, groups inner and all.
        hidden: floating point of any shape.
        groups: as well.
        inner: as well.

    Example:
        >>> evaluate([1, 2, 0, 0, 0, 0, 0, 3], *torch.tensor([2.0, 3.0, 4.0]))
        tensor(77.)
    """
    one, by_h, by_g, by_hg, by_f, by_hf, by_gf, by_all = factors
    flat = one + by_h * hidden + (by_g + by_hg * hidden) * groups
    return flat + (by_f + by_hf * hidden + (by_gf + by_all * hidden) * groups) * inner


def _expand(shape: Shape, **layers: int) -> list[int]:
    """The factors of `evaluate` for so many layers, from the counts of the eight smallest sizes."""
    queries = shape.heads // shape.groups
    found = []
    for number in range(8):
        hidden, groups, inner = (1 + (number >> bit & 1) for bit in range(3))
        sizes: dict[str, Any] = {**layers, "hidden_size": hidden, "inner_size": inner}
        small = replace(shape, **sizes, groups=groups, heads=groups * queries)
        found.append(count_parameters(small).distinct)
    for bit in range(3):  # from values at 1 and 2 to factors of 1 and x
        for number in range(8):
            if not number >> bit & 1:
                first, second = found[number], found[number | 1 << bit]
                found[number], found[number | 1 << bit] = 2 * first - second, second - first
    return found


def _sum(table: Tensor | None, size: int) -> Tensor:
    if table is None:
        return torch.tensor(size, dtype=torch.float64)
    return table.double().sum(-1)


def _stretch(logits: Tensor) -> Tensor:
    return (torch.sigmoid(logits) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def _list_names(dimensions: tuple[str, ...]) -> list[str]:
    stacks = ("encoder", "decoder")
    named = {name: [f"{stack}_{name}" for stack in stacks] for name in DIMENSIONS[:3]}
    named["hidden"] = ["hidden"]
    return [name for dimension in DIMENSIONS if dimension in dimensions
            for name in named[dimension]]  # fmt: skip
