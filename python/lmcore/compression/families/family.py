"""What a family of models looks like, as tables: axes of its tensors, names of its sizes.

A family says for each of its tensors which dimension of a plan every axis follows, and under which
names its configuration keeps the sizes. All that pruning does is read off these tables.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.plan import Kept
from lmcore.cost import Shape


@dataclass(kw_only=True, slots=True, frozen=True)
class Axis:
    """How the places of an axis follow a dimension: `[blocks, index, times * unit]`.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=8, heads=3, groups=3, head_size=2,
        ...     inner_size=4, vocabulary_size=9)
        >>> GATED.expand((1, 2), shape).tolist()
        [1, 2, 5, 6]
        >>> QKV_OF_HEAD.expand((0, 2), shape).tolist()
        [0, 1, 2, 3, 4, 5, 12, 13, 14, 15, 16, 17]
    """

    dimension: str
    """`hidden`, `heads`, `ffn` or `vocabulary`."""
    unit: str = "one"
    """What an index stands for: `one` place, a `head` of keys, the `queries` of a group, or one
    place for each of its `query_heads`."""
    times: int = 1
    """How many units of an index lie side by side."""
    blocks: int = 1
    """How many times the whole dimension stands there."""

    def measure(self, shape: Shape) -> tuple[int, int]:
        """Returns how many indices the dimension has, and the places of each in a block.

        Args:
            shape: of the model.
        """
        size = {
            "hidden": shape.hidden_size, "heads": shape.groups, "ffn": shape.inner_size,
            "vocabulary": shape.vocabulary_size,
        }[self.dimension]  # fmt: skip
        queries = shape.heads // shape.groups
        units = {
            "one": 1, "head": shape.head_size, "queries": queries * shape.head_size,
            "query_heads": queries,
        }  # fmt: skip
        return size, units[self.unit] * self.times

    def expand(self, kept: tuple[int, ...], shape: Shape) -> NDArray[np.int64] | None:
        """Returns the kept places of the axis, or None where they are all.

        Args:
            kept: indices of the dimension.
            shape: of the model before it is cut.
        """
        size, width = self.measure(shape)
        if len(kept) == size:
            return None
        rows = np.array(kept, np.int64)[:, None] * width + np.arange(width)
        starts = np.arange(self.blocks)[:, None] * (size * width)
        return (starts + rows.reshape(1, -1)).reshape(-1)

    def count(self, shape: Shape) -> int:
        """Returns how many places the axis has.

        Args:
            shape: of the model.
        """
        size, width = self.measure(shape)
        return size * width * self.blocks


HIDDEN = Axis(dimension="hidden")
VOCABULARY = Axis(dimension="vocabulary")
FFN = Axis(dimension="ffn")
GATED = Axis(dimension="ffn", blocks=2)
"""Both maps of a gated feed-forward, one behind the other."""
QUERIES = Axis(dimension="heads", unit="queries")
KEYS = Axis(dimension="heads", unit="head")
"""Keys, or values."""
QKV_OF_HEAD = Axis(dimension="heads", unit="head", times=3)
"""Queries, keys and values of a head, then those of the next."""
KV_OF_HEAD = Axis(dimension="heads", unit="head", times=2)
QKV = Axis(dimension="heads", unit="head", blocks=3)
"""Queries of all heads, then keys of all, then values."""
QUERY_HEADS = Axis(dimension="heads", unit="query_heads")
"""One place for each head."""
WHOLE = None
"""An axis that nothing cuts."""


class Tensors(NamedTuple):
    """Tensors whose names match a pattern, and their axes.

    `{encoder}` and `{decoder}` stand for the number of a layer, `(a|b)` for one of several words,
    and a point for itself.
    """

    pattern: str
    axes: tuple[Axis | None, ...]
    stack: str = ""
    """Whose first layer the heads of a tensor without a layer are."""


class Found(NamedTuple):
    """A tensor of a checkpoint as its family knows it."""

    axes: tuple[Axis | None, ...]
    stack: str
    layer: int | None
    span: tuple[int, int]
    """Where the number of the layer stands in the name."""


@dataclass(kw_only=True, frozen=True)
class Family:
    """A family of models: one file of tables each.

    Example:
        >>> family = Family(
        ...     model_types=("toy",), fields={"hidden_size": ("width",)},
        ...     tensors=(Tensors("layer.{decoder}.norm", (HIDDEN,)),))
        >>> family.find("layer.12.norm").layer
        12
        >>> family.find("layer.x.norm") is None
        True
    """

    model_types: tuple[str, ...]
    """As `config.json` names them."""
    fields: Mapping[str, tuple[str, ...]]
    """Names in the configuration of each size of `Shape`; the first is written where it has none.
    Without `head_size` a head has the hidden size over the number of heads."""
    tensors: tuple[Tensors, ...]
    """The first pattern that matches holds."""
    prefix: str = ""
    """What stands before the names where a model has a head; `model.` and its like."""
    constants: Mapping[str, Any] = field(default_factory=dict)
    """Fields that the configuration of a pruned model has."""
    layer_fields: tuple[str, ...] = ()
    """Fields with a value for each layer of the decoder."""
    transposed: bool = False
    """Whether maps are kept as `[in, out]`, not as `[out, in]`."""
    shared_heads: bool = False
    """Whether the heads of a stack share a table, so that all its layers must keep the same."""
    heads_divide_hidden: bool = False
    """Whether the configuration refuses a hidden size that the heads do not divide."""
    shallow_cache: bool = False
    """Whether transformers generates from a cache only where the decoder is no deeper than the
    encoder."""
    token_ids: Mapping[str, int] = field(default_factory=dict)
    """Ids of special tokens where the configuration names none."""
    complete: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    """Writes out what follows from the numbers of layers otherwise."""

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], Tensors]]:
        made = []
        for tensors in self.tensors:
            text = tensors.pattern.replace(".", r"\.")
            for stack in ("encoder", "decoder"):
                text = text.replace(f"{{{stack}}}", f"(?P<{stack}>0|[1-9][0-9]{{0,3}})")
            made.append((re.compile(f"(?:{re.escape(self.prefix)})?{text}", re.ASCII), tensors))
        return made

    def find(self, name: str) -> Found | None:
        """Returns what is known of a tensor, or None.

        Args:
            name: in a checkpoint.
        """
        for pattern, tensors in self._patterns:
            match = pattern.fullmatch(name)
            if match is None:
                continue
            for stack in ("encoder", "decoder"):
                if match.groupdict().get(stack) is not None:
                    return Found(tensors.axes, stack, int(match[stack]), match.span(stack))
            return Found(tensors.axes, tensors.stack, None, (0, 0))
        return None

    def find_read(self, found: Found) -> Axis | None:
        """Returns the axis of heads or inner units that a map reads and turns into channels.

        What goes into such a map is what its heads or inner units gave.

        Args:
            found: the weight of a module.
        """
        if len(found.axes) != 2 or found.layer is None:
            return None
        written, read = found.axes[::-1] if self.transposed else found.axes
        is_inner = read is not None and read.dimension in ("heads", "ffn")
        return read if is_inner and written == HIDDEN else None

    def keep(self, found: Found, kept: Kept) -> list[tuple[int, ...] | None]:
        """Returns for each axis the kept indices of its dimension.

        Args:
            found: a tensor, whose layer is kept.
            kept: by a plan.
        """
        return [None if axis is None else self._take(axis, found, kept) for axis in found.axes]

    def _take(self, axis: Axis, found: Found, kept: Kept) -> tuple[int, ...]:
        if axis.dimension == "hidden":
            return kept.hidden
        if axis.dimension == "vocabulary":
            return kept.vocabulary
        layers: dict[int, tuple[int, ...]] = getattr(kept, f"{found.stack}_{axis.dimension}")
        return layers[next(iter(layers)) if found.layer is None else found.layer]
