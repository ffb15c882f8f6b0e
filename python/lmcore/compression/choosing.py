"""Which layers, channels, heads and units a stage keeps.

Widths are chosen by scores: the highest of each dimension are kept, and of equal ones those that
come first. The paper draws them at random, which is drawing the scores: so a smaller model that is
drawn with the same seed keeps a part of what a larger one keeps, whatever else is cut.

Layers are chosen by place. In the authors' experiments (section 4.1.1) layers in the middle hurt
less than those at the ends, and layers far from each other less than neighbours: so the first and
the last stay, and what is cut is spread out evenly between them.

Source: OpenBA-V2 (arXiv 2405.05957), sections 3 and 4.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmcore.compression.families import Family, find_family
from lmcore.compression.plan import (
    LAYERED,
    Plan,
    Stage,
    find_kept,
    find_sizes,
)
from lmcore.cost import Shape
from lmcore.ops.philox import Stream, random_uniform

LAYOUTS = ("spread", "adjacent")
"""How layers that are cut lie: spread out over the middle, or side by side in it, which is worse
and there to be compared with."""

LEARNED = "learned"
"""Scores that are learned with a target: see `lmcore.compression.mask_learning`."""
SCORED = ("magnitude", "activation", "taylor", "block_influence", LEARNED)
"""Methods that ask the model: see `lmcore.compression.importance`."""
METHODS = ("random", *SCORED)
"""How what is kept is chosen."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Sizes:
    """What a stage shall leave; None leaves a dimension as it is."""

    encoder_layers: int | None = None
    decoder_layers: int | None = None
    hidden: int | None = None
    heads: int | None = None
    """Query heads of every attention; where they share keys, whole groups are cut."""
    ffn: int | None = None
    vocabulary: Sequence[int] | None = None
    """The kept ids themselves, which counts tell."""


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class Scores:
    """How much each part of the original matters, by dimension; more is better.

    Indices are those of a plan. What a method does not score stays None.
    """

    encoder_layers: NDArray[np.float64] | None = None
    """`[layers]`; the ends stay in any case."""
    decoder_layers: NDArray[np.float64] | None = None
    hidden: NDArray[np.float64] | None = None
    """`[hidden]`."""
    encoder_heads: Mapping[int, NDArray[np.float64]] | None = None
    """For each layer `[groups]`."""
    decoder_heads: Mapping[int, NDArray[np.float64]] | None = None
    encoder_ffn: Mapping[int, NDArray[np.float64]] | None = None
    """For each layer `[inner]`."""
    decoder_ffn: Mapping[int, NDArray[np.float64]] | None = None


def choose(scores: NDArray[Any], keep: int) -> NDArray[np.int64]:
    """Returns the indices of the highest scores, rising; of equal ones those that come first.

    Args:
        scores: `[n]` numbers.
        keep: how many, at least 1.

    Raises:
        ValueError: there are not as many, or a score is not a number.

    Example:
        >>> choose(np.array([0.5, 2.0, 0.5, 1.0]), 3).tolist()
        [0, 1, 3]
    """
    found = np.asarray(scores, np.float64)
    if found.ndim != 1:
        raise ValueError(f"scores must have one axis: got {found.ndim}")
    if np.isnan(found).any():
        raise ValueError(f"scores must be numbers: that of {np.isnan(found).argmax()} is none")
    if not 1 <= keep <= len(found):
        raise ValueError(f"expected to keep from 1 to {len(found)}: got {keep}")
    return np.sort(np.argsort(-found, kind="stable")[:keep]).astype(np.int64)


def choose_layers(
    layers: Sequence[int],
    keep: int,
    layout: str = "spread",
    scores: NDArray[np.float64] | None = None,
) -> tuple[int, ...]:
    """Returns which layers of a stack are kept: the first, the last and some between.

    Args:
        layers: those that are there, in the numbering of the original.
        keep: how many.
        layout: one of `LAYOUTS`, of what is cut.
        scores: `[layers of the original]`; where given, the highest are kept whatever the layout.

    Raises:
        ValueError: there are not as many layers, or no such layout, or the ends cannot stay.

    Example:
        >>> choose_layers(range(12), 10), choose_layers(range(12), 9, "adjacent")
        ((0, 1, 2, 4, 5, 6, 7, 9, 10, 11), (0, 1, 2, 3, 7, 8, 9, 10, 11))
    """
    check_layout(layout)
    count, cut = len(layers), len(layers) - keep
    if not count:
        raise ValueError(f"the model has none: expected to keep no number of them, got {keep}")
    if not 1 <= keep <= count:
        raise ValueError(f"expected to keep from 1 to {count} layers: got {keep}")
    if not cut:
        return tuple(layers)
    middle = count - 2
    if keep < 2:
        raise ValueError("the first and the last layer stay: expected to keep at least 2, got 1")
    if scores is not None:
        inner = [scores[layer] for layer in layers[1:-1]]
        chosen = choose(np.array(inner), middle - cut) if cut < middle else np.array([], np.int64)
        return (layers[0], *(layers[1 + place] for place in chosen.tolist()), layers[-1])
    if layout == "adjacent":
        begin = 1 + (middle - cut) // 2
        gone = {*range(begin, begin + cut)}
    else:
        gone = {1 + (2 * number + 1) * middle // (2 * cut) for number in range(cut)}
    return tuple(layer for place, layer in enumerate(layers) if place not in gone)


def check_layout(layout: str) -> None:
    """Checks that layers can be cut in a way.

    Args:
        layout: one of `LAYOUTS`.

    Raises:
        ValueError: there is no such layout.

    Example:
        >>> check_layout("spread")
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layers must be cut {' or '.join(LAYOUTS)}: got {layout!r:.60}")


def draw_scores(shape: Shape, seed: int) -> Scores:
    """Returns scores by which every choice of a width is as likely as any other.

    Those of a layer depend on the seed and its number alone.

    Args:
        shape: of the original.
        seed: below 2**64.

    Raises:
        ValueError: the seed is out of its range.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=2, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> draw_scores(shape, 0).decoder_ffn[1].shape
        (6,)
    """
    sizes = find_sizes(shape)

    def draw(kind: int, layer: int, size: int) -> NDArray[np.float64]:
        return random_uniform(seed, Stream.KEPT_INDICES, kind << 32 | layer, size)

    layered: dict[str, Any] = {
        name: {
            layer: draw(kind, layer, sizes[name])
            for layer in range(sizes[f"{name.partition('_')[0]}_layers"])
        }
        for kind, name in enumerate(LAYERED, 1)
    }
    return Scores(hidden=draw(0, 0, sizes["hidden"]), **layered)


def choose_stage(
    plan: Plan,
    sizes: Sizes,
    scores: Scores,
    *,
    layout: str = "spread",
    family: Family | None = None,
    **about: Any,
) -> Stage:
    """Returns a stage behind those of a plan that leaves given sizes.

    Args:
        plan: the original and what is cut of it already.
        sizes: to leave.
        scores: of the original's parts.
        layout: one of `LAYOUTS`, of layers that are cut.
        family: that of the plan's model if None.
        about: what else the stage says, such as `name`, `method` and `seed`.

    Raises:
        ValueError: a size is larger than what is there, or no number of whole groups of heads, or
            there is no such layout, or what it needs has no scores.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=6, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="mistral", shape=shape)
        >>> stage = choose_stage(plan, Sizes(decoder_layers=4, heads=2), draw_scores(shape, 0))
        >>> stage.decoder_layers, [len(heads) for heads in stage.decoder_heads.values()]
        ((0, 1, 3, 5), [1, 1, 1, 1])
    """
    check_layout(layout)
    family = family or find_family(plan.model_type)
    kept, values = find_kept(plan), dict[str, Any]()
    for name in ("encoder_layers", "decoder_layers"):
        size = getattr(sizes, name)
        if size is not None:
            found = getattr(scores, name)
            values[name] = _naming(name, choose_layers, getattr(kept, name), size, layout, found)
    if sizes.hidden is not None:
        given = _take_scores("hidden", scores.hidden)
        values["hidden"] = _naming("hidden", _choose_of, kept.hidden, given, sizes.hidden)
    widths = {"heads": _count_groups(plan.shape, sizes.heads), "ffn": sizes.ffn}
    for name in LAYERED:
        stack, _, dimension = name.partition("_")
        width, old = widths[dimension], getattr(kept, name)
        layers = values.get(f"{stack}_layers", getattr(kept, f"{stack}_layers"))
        if width is None or not layers:
            continue
        table = _take_scores(name, getattr(scores, name))
        if family.shared_heads and dimension == "heads":
            total = sum(np.asarray(table[layer], np.float64) for layer in layers)
            table = dict.fromkeys(layers, total)
        values[name] = {
            layer: _naming(dimension, _choose_of, old[layer], table[layer], width)
            for layer in layers
        }
    if sizes.vocabulary is not None:
        values["vocabulary"] = sizes.vocabulary
    return Stage(**values, **about)


def _choose_of(old: tuple[int, ...], scores: NDArray[Any], keep: int) -> list[int]:
    left = np.array(old)
    found: list[int] = left[choose(np.asarray(scores)[left], keep)].tolist()
    return found


def _count_groups(shape: Shape, heads: int | None) -> int | None:
    """The groups that so many query heads are."""
    if heads is None:
        return None
    queries = shape.heads // shape.groups
    if heads % queries or heads < 1:
        near = max(1, round(heads / queries)) * queries
        raise ValueError(
            f"heads must be a multiple of {queries}, which share keys: got {heads}; the nearest is "
            f"{near}"
        )
    return heads // queries


def _take_scores(name: str, found: Any) -> Any:
    if found is None:
        raise ValueError(f"there are no scores for {name}")
    return found


def _naming(name: str, function: Any, *arguments: Any) -> Any:
    try:
        return function(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
