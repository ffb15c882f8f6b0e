"""What a pruned model keeps of the original one, in stages.

A plan speaks of the original alone: its shape, and indices in its numbering, from 0, whatever
stages before have cut. A stage names what is kept after it of each dimension; what it does not
name stays as the stage before left it. So stages compose, and what one has cut no later one can
keep.

| dimension | indices |
| --- | --- |
| encoder_layers, decoder_layers | layers of a stack |
| hidden | channels of the residual stream, one choice for the whole network |
| encoder_heads, decoder_heads | for each kept layer its heads; a group of query heads and its head of keys and values where the model has such groups |
| encoder_ffn, decoder_ffn | for each kept layer the inner units of its feed-forward |
| vocabulary | ids |

Heads of a decoder's layer are those of its self-attention and of its cross-attention.

Source: OpenBA-V2 (arXiv 2405.05957), sections 3 and 4.
"""  # noqa: E501

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lmcore.compression.indices import (
    Indices,
    Layered,
    check_kept,
    check_range,
    name_some,
    take_indices,
)
from lmcore.cost import Shape

FLAT = ("encoder_layers", "decoder_layers", "hidden", "vocabulary")
"""The dimensions of which a network has one choice."""
LAYERED = ("encoder_heads", "decoder_heads", "encoder_ffn", "decoder_ffn")
"""Those of which each layer has its own."""
_MOST = {
    "encoder_layers": 1000, "decoder_layers": 1000, "hidden_size": 1 << 20, "groups": 1 << 20,
    "inner_size": 1 << 20, "vocabulary_size": 1 << 22,
}  # fmt: skip
MOST_INDICES = 1 << 23
"""Of all stages of a plan: eight million, more than the inner units of any published model."""


@dataclass(kw_only=True, slots=True, frozen=True)
class Kept:
    """What is kept of each dimension, all of it named."""

    encoder_layers: Indices
    decoder_layers: Indices
    hidden: Indices
    vocabulary: Indices
    encoder_heads: Layered
    decoder_heads: Layered
    encoder_ffn: Layered
    decoder_ffn: Layered


@dataclass(kw_only=True, slots=True, frozen=True)
class Stage:
    """What is kept after a stage; None leaves a dimension as it was.

    Raises:
        TypeError: an index is no whole number.
        ValueError: indices do not rise, or there are none.

    Example:
        >>> Stage(decoder_layers=range(3), encoder_heads={0: [1, 3]}).encoder_heads
        {0: (1, 3)}
    """

    name: str = ""
    encoder_layers: Indices | None = None
    decoder_layers: Indices | None = None
    hidden: Indices | None = None
    vocabulary: Indices | None = None
    encoder_heads: Layered | None = None
    decoder_heads: Layered | None = None
    encoder_ffn: Layered | None = None
    decoder_ffn: Layered | None = None
    method: str = ""
    """How the indices were chosen."""
    seed: int | None = None
    """Of what was drawn."""
    published_parameters: int | None = None
    """What a paper says the stage leaves, rounded as it stands there."""

    def __post_init__(self) -> None:
        for name in ("name", "method"):
            if not isinstance(getattr(self, name), str):
                raise TypeError(f"{name} must be a text: got {getattr(self, name)!r:.60}")
        for name, most in (("seed", 2**64 - 1), ("published_parameters", 2**63 - 1)):
            _check_number(name, getattr(self, name), most)
        for name in FLAT:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, take_indices(name, getattr(self, name)))
        for name in LAYERED:
            given = getattr(self, name)
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} must map layers to indices: got {given!r:.60}")
            layers = sorted(_take_layer(name, layer) for layer in given)
            taken = {layer: take_indices(f"{name} of {layer}", given[layer]) for layer in layers}
            object.__setattr__(self, name, taken)


@dataclass(kw_only=True, slots=True, frozen=True)
class Plan:
    """The original model and the stages that make it smaller.

    Raises:
        IndexError: the original has no such layer, head, unit or id.
        TypeError: a field has another type.
        ValueError: a stage keeps what an earlier one has cut, names other layers than it keeps,
            or there are more than `MOST_INDICES` indices.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[
        ...     Stage(decoder_layers=[0, 1, 3]), Stage(hidden=range(4), decoder_layers=[0, 3])])
        >>> small = prune_shape(plan)
        >>> small.decoder_layers, small.hidden_size
        (2, 4)
    """

    model_type: str
    """As `config.json` names the family."""
    shape: Shape
    """Of the original."""
    stages: tuple[Stage, ...] = ()
    published_parameters: int | None = None
    """What a paper says the original has."""
    kept_after: tuple[Kept, ...] = field(init=False, repr=False, compare=False)
    """What is kept after none, one, two and so on of the stages."""

    def __post_init__(self) -> None:
        if not isinstance(self.model_type, str) or not self.model_type:
            raise TypeError(f"model_type must be a text: got {self.model_type!r:.60}")
        if not isinstance(self.shape, Shape):
            raise TypeError(f"shape must be a Shape: got {self.shape!r:.60}")
        _check_number("published_parameters", self.published_parameters, 2**63 - 1)
        object.__setattr__(self, "stages", tuple(self.stages))
        for stage in self.stages:
            if not isinstance(stage, Stage):
                raise TypeError(f"stages must be Stages: got {stage!r:.60}")
        check_shape(self.shape)
        total = sum(map(count_indices, self.stages))
        if total > MOST_INDICES:
            raise ValueError(f"a plan has at most {MOST_INDICES} indices: got {total}")
        object.__setattr__(self, "kept_after", _walk_stages(self))


def check_shape(shape: Shape) -> None:
    """Checks that a plan can speak of a shape: hostile sizes must not fill the memory.

    Args:
        shape: of a model.

    Raises:
        ValueError: it has more layers, channels, units or ids than any published model.

    Example:
        >>> check_shape(Shape(
        ...     encoder_layers=0, decoder_layers=3, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9))
    """
    for name, most in _MOST.items():
        if getattr(shape, name) > most:
            raise ValueError(f"{name} must be at most {most}: got {getattr(shape, name)}")


def count_indices(stage: Stage) -> int:
    """Returns how many indices a stage names.

    Args:
        stage: of a plan.

    Example:
        >>> count_indices(Stage(hidden=range(3), encoder_ffn={0: [1], 1: [2]}))
        5
    """
    flat = sum(len(getattr(stage, name) or ()) for name in FLAT)
    layered = (getattr(stage, name) or {} for name in LAYERED)
    return flat + sum(len(indices) for layers in layered for indices in layers.values())


def find_kept(plan: Plan, stages: int | None = None) -> Kept:
    """Returns what is kept after some stages, in the numbering of the original.

    Args:
        plan: the original and its stages.
        stages: how many of them; all if None.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=3, hidden_size=8, heads=2, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(decoder_layers=[0, 2])])
        >>> find_kept(plan).decoder_heads
        {0: (0, 1), 2: (0, 1)}
    """
    return plan.kept_after[len(plan.stages) if stages is None else stages]


def find_sizes(shape: Shape) -> dict[str, int]:
    """Returns how many indices each dimension of a shape has.

    Args:
        shape: of a model.

    Example:
        >>> find_sizes(Shape(
        ...     encoder_layers=0, decoder_layers=3, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9))["decoder_heads"]
        2
    """
    return {
        "encoder_layers": shape.encoder_layers, "decoder_layers": shape.decoder_layers,
        "hidden": shape.hidden_size, "vocabulary": shape.vocabulary_size,
        "encoder_heads": shape.groups, "decoder_heads": shape.groups,
        "encoder_ffn": shape.inner_size, "decoder_ffn": shape.inner_size,
    }  # fmt: skip


def prune_shape(plan: Plan, stages: int | None = None) -> Shape:
    """Returns the shape that some stages leave.

    Args:
        plan: the original and its stages.
        stages: how many of them; all if None.

    Raises:
        ValueError: layers keep different numbers of heads or of inner units.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(decoder_heads={0: [1]})])
        >>> prune_shape(plan).heads
        2
    """
    kept = find_kept(plan, stages)
    groups = _find_width("heads", kept.encoder_heads, kept.decoder_heads)
    return replace(
        plan.shape,
        encoder_layers=len(kept.encoder_layers),
        decoder_layers=len(kept.decoder_layers),
        hidden_size=len(kept.hidden),
        heads=groups * (plan.shape.heads // plan.shape.groups),
        groups=groups,
        inner_size=_find_width("ffn", kept.encoder_ffn, kept.decoder_ffn),
        vocabulary_size=len(kept.vocabulary),
    )


def _walk_stages(plan: Plan) -> tuple[Kept, ...]:
    """What is kept after none, one, two and so on of the stages, all of which are checked."""
    sizes = find_sizes(plan.shape)
    full = {name: tuple(range(size)) for name, size in sizes.items()}
    values: dict[str, Any] = {name: full[name] for name in FLAT}
    for name in LAYERED:
        values[name] = dict.fromkeys(full[layers_of(name)], full[name])
    found = [Kept(**values)]
    for number, stage in enumerate(plan.stages, 1):
        where = f"stage {number}" + (f" ({stage.name})" if stage.name else "")
        for name in FLAT:
            given = getattr(stage, name)
            if given is not None:
                check_range(f"{where}: {name}", given, sizes[name])
                check_kept(f"{where}: {name}", given, values[name], sizes[name])
                values[name] = given
        for name in LAYERED:
            layers = values[layers_of(name)]
            values[name] = _take_layered(
                f"{where}: {name}", getattr(stage, name), layers, values[name], sizes[name]
            )
        found.append(Kept(**values))
    return tuple(found)


def layers_of(name: str) -> str:
    """Returns the dimension of the layers that a layered dimension is of.

    Args:
        name: one of `LAYERED`.

    Example:
        >>> layers_of("decoder_ffn")
        'decoder_layers'
    """
    return name.partition("_")[0] + "_layers"


def _take_layered(
    where: str, given: Layered | None, layers: Indices, old: Layered, size: int
) -> Layered:
    if given is None:
        return {layer: old[layer] for layer in layers}
    if tuple(given) != layers:
        lacking = [layer for layer in layers if layer not in given]
        others = [layer for layer in given if layer not in layers]
        problem = f"lacks {name_some(lacking)}" if lacking else f"names {name_some(others)}"
        raise ValueError(f"{where} must name the kept layers and no others: it {problem}")
    for layer, indices in given.items():
        check_range(f"{where} of layer {layer}", indices, size)
        check_kept(f"{where} of layer {layer}", indices, old[layer], size)
    return given


def _find_width(name: str, *stacks: Layered) -> int:
    counts = [len(indices) for layers in stacks for indices in layers.values()]
    if len({*counts}) > 1:
        middle = sorted(counts)[len(counts) // 2]
        raise ValueError(
            f"every layer must keep as many {name}: got from {min(counts)} to {max(counts)}; the "
            f"nearest is {middle} in all"
        )
    return counts[0]


def _take_layer(name: str, layer: Any) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise TypeError(f"{name} must map layers to indices: got the layer {layer!r:.60}")
    return int(layer)


def _check_number(name: str, value: Any, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number: got {value!r:.60}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}: got {value}")


STAGE_FIELDS = tuple(field.name for field in fields(Stage))
"""All that a stage says."""
