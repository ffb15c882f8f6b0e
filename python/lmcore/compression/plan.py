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

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from lmcore.cost import Shape

Indices = tuple[int, ...]
Layered = dict[int, Indices]

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
                object.__setattr__(self, name, _take_indices(name, getattr(self, name)))
        for name in LAYERED:
            given = getattr(self, name)
            if given is None:
                continue
            if not isinstance(given, Mapping):
                raise TypeError(f"{name} must map layers to indices: got {given!r:.60}")
            layers = sorted(_take_layer(name, layer) for layer in given)
            taken = {layer: _take_indices(f"{name} of {layer}", given[layer]) for layer in layers}
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


def compose(plan: Plan) -> Plan:
    """Returns the plan that cuts in one stage what another cuts in several.

    Pruning by it gives the same bits as pruning by each of `split_stages` after the other.

    Args:
        plan: with any number of stages.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> stages = [Stage(decoder_layers=[0, 1, 3]), Stage(decoder_layers=[0, 3])]
        >>> compose(Plan(model_type="llama", shape=shape, stages=stages)).stages[0].decoder_layers
        (0, 3)
    """
    return replace(plan, stages=(_make_stage(find_kept(plan), plan.shape, Stage()),))


def split_stages(plan: Plan) -> list[Plan]:
    """Returns a plan for each stage: for the model that the stages before leave, in its numbering.

    Args:
        plan: with any number of stages.

    Raises:
        ValueError: layers keep different numbers of heads or of inner units.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> stages = [Stage(decoder_layers=[0, 1, 3]), Stage(decoder_layers=[0, 3])]
        >>> plan = Plan(model_type="llama", shape=shape, stages=stages)
        >>> split_stages(plan)[1].stages[0].decoder_layers
        (0, 2)
    """
    plans = []
    before = find_kept(plan, 0)
    for number, stage in enumerate(plan.stages):
        shape, after = prune_shape(plan, number), find_kept(plan, number + 1)
        values: dict[str, Any] = {
            name: _find_places(getattr(after, name), getattr(before, name)) for name in FLAT
        }
        for name in LAYERED:
            layers, old = getattr(before, _layers_of(name)), getattr(before, name)
            values[name] = {
                layers.index(layer): _find_places(indices, old[layer])
                for layer, indices in getattr(after, name).items()
            }
        made = _make_stage(Kept(**values), shape, stage)
        plans.append(replace(plan, shape=shape, stages=(made,), published_parameters=None))
        before = after
    return plans


def add_stage(
    plan: Plan, stage: Stage, *, cut_encoder: Iterable[int] = (), cut_decoder: Iterable[int] = ()
) -> Plan:
    """Returns a plan with one stage more, which cuts layers that are named rather than kept.

    Args:
        plan: to add to.
        stage: what else it keeps.
        cut_encoder: layers of the encoder that it cuts.
        cut_decoder: layers of the decoder.

    Raises:
        IndexError: the original has no such layer, head, unit or id.
        ValueError: a layer is cut twice, or the stage keeps what an earlier one has cut.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=4, hidden_size=8, heads=4, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape)
        >>> plan = add_stage(plan, Stage(name="1"), cut_decoder=[2])
        >>> plan.stages[0].decoder_layers
        (0, 1, 3)
        >>> add_stage(plan, Stage(name="2"), cut_decoder=[2])
        Traceback (most recent call last):
        ValueError: stage 2 (2): decoder_layers: 2 is cut twice
    """
    kept, changes = find_kept(plan), dict[str, Any]()
    where = f"stage {len(plan.stages) + 1}" + (f" ({stage.name})" if stage.name else "")
    for name, cut in (("encoder_layers", [*cut_encoder]), ("decoder_layers", [*cut_decoder])):
        if not cut:
            continue
        if getattr(stage, name) is not None:
            raise ValueError(f"{where}: {name} must either be kept or cut: got both")
        _check_range(f"{where}: {name}", cut, find_sizes(plan.shape)[name])
        left = getattr(kept, name)
        twice = sorted({i for i in cut if i not in left or cut.count(i) > 1})
        if twice:
            raise ValueError(f"{where}: {name}: {_name_some(twice)} is cut twice")
        changes[name] = tuple(layer for layer in left if layer not in cut)
    return replace(plan, stages=(*plan.stages, replace(stage, **changes)))


def _walk_stages(plan: Plan) -> tuple[Kept, ...]:
    """What is kept after none, one, two and so on of the stages, all of which are checked."""
    sizes = find_sizes(plan.shape)
    full = {name: tuple(range(size)) for name, size in sizes.items()}
    values: dict[str, Any] = {name: full[name] for name in FLAT}
    for name in LAYERED:
        values[name] = dict.fromkeys(full[_layers_of(name)], full[name])
    found = [Kept(**values)]
    for number, stage in enumerate(plan.stages, 1):
        where = f"stage {number}" + (f" ({stage.name})" if stage.name else "")
        for name in FLAT:
            given = getattr(stage, name)
            if given is not None:
                _check_range(f"{where}: {name}", given, sizes[name])
                _check_kept(f"{where}: {name}", given, values[name], sizes[name])
                values[name] = given
        for name in LAYERED:
            layers = values[_layers_of(name)]
            values[name] = _take_layered(
                f"{where}: {name}", getattr(stage, name), layers, values[name], sizes[name]
            )
        found.append(Kept(**values))
    return tuple(found)


def _make_stage(kept: Kept, shape: Shape, like: Stage) -> Stage:
    """A stage that names what is not whole."""
    values: dict[str, Any] = {}
    sizes = find_sizes(shape)
    for name in FLAT:
        if len(getattr(kept, name)) < sizes[name]:
            values[name] = getattr(kept, name)
    for name in LAYERED:
        layers = getattr(kept, name)
        if any(len(indices) < sizes[name] for indices in layers.values()):
            values[name] = layers
    blank = dict.fromkeys((*FLAT, *LAYERED))
    return replace(like, **{**blank, **values})


def _layers_of(name: str) -> str:
    return name.partition("_")[0] + "_layers"


def _take_layered(
    where: str, given: Layered | None, layers: Indices, old: Layered, size: int
) -> Layered:
    if given is None:
        return {layer: old[layer] for layer in layers}
    if tuple(given) != layers:
        lacking = [layer for layer in layers if layer not in given]
        others = [layer for layer in given if layer not in layers]
        problem = f"lacks {_name_some(lacking)}" if lacking else f"names {_name_some(others)}"
        raise ValueError(f"{where} must name the kept layers and no others: it {problem}")
    for layer, indices in given.items():
        _check_range(f"{where} of layer {layer}", indices, size)
        _check_kept(f"{where} of layer {layer}", indices, old[layer], size)
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


def _find_places(kept: Indices, old: Indices) -> Indices:
    return tuple(np.searchsorted(np.array(old, np.int64), np.array(kept, np.int64)).tolist())


def _take_indices(name: str, values: Any) -> Indices:
    if isinstance(values, range):
        values = np.arange(values.start, values.stop, values.step)
    if isinstance(values, str | bytes) or not isinstance(values, Sequence | np.ndarray):
        raise TypeError(f"{name} must be whole numbers: got {values!r:.60}")
    if isinstance(values, np.ndarray):
        array = values
    else:
        kinds = {*map(type, values)}
        if not all(kind is int or issubclass(kind, np.integer) for kind in kinds):
            raise TypeError(f"{name} must be whole numbers: got {[*values]!r:.60}")
        try:
            array = np.array(values, np.int64)
        except OverflowError:
            raise ValueError(f"{name} must be below 2**63: got {[*values]!r:.60}") from None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise TypeError(f"{name} must be whole numbers in a row: got {values!r:.60}")
    if not len(array) and not name.endswith("_layers"):
        raise ValueError(f"{name} must keep something")
    steps = np.nonzero(array[1:] <= array[:-1])[0]
    if len(steps):
        first, second = array[steps[0]], array[steps[0] + 1]
        raise ValueError(f"{name} must rise: got {second} behind {first}")
    return tuple(array.tolist())


def _take_layer(name: str, layer: Any) -> int:
    if isinstance(layer, bool) or not isinstance(layer, int | np.integer):
        raise TypeError(f"{name} must map layers to indices: got the layer {layer!r:.60}")
    return int(layer)


def _check_range(where: str, indices: Sequence[int], size: int) -> None:
    if not len(indices) and size:
        raise ValueError(f"{where} must keep something")
    if len(indices) and not (min(indices) >= 0 and max(indices) < size):
        wrong = next(index for index in indices if not 0 <= index < size)
        raise IndexError(f"{where} has no {wrong}: the original has {size}, counted from 0")


def _check_kept(where: str, indices: Indices, old: Indices, size: int) -> None:
    if len(old) < size and not {*indices} <= {*old}:
        gone = sorted({*indices} - {*old})
        raise ValueError(f"{where} keeps {_name_some(gone)}, which an earlier stage has cut")


def _check_number(name: str, value: Any, most: int) -> None:
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be a whole number: got {value!r:.60}")
    if not 0 <= value <= most:
        raise ValueError(f"{name} must be from 0 to {most}: got {value}")


def _name_some(indices: Sequence[int]) -> str:
    shown = ", ".join(map(str, indices[:5]))
    return shown + (f" and {len(indices) - 5} more" if len(indices) > 5 else "")


STAGE_FIELDS = tuple(field.name for field in fields(Stage))
"""All that a stage says."""
