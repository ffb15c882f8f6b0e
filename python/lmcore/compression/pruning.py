"""What a plan makes of a model's tensors and of its configuration.

A plan becomes a list of cuts, one for each tensor that stays, and a configuration with the new
sizes. Numbers are taken over as they are: nothing is scaled, as in the paper (section 4). So what
a pruned model computes is the original's exactly where what was cut added nothing: heads and inner
units whose output weights are zero, and layers whose sublayers give zero. Hidden channels that are
zero everywhere change it nonetheless where norms average over channels: an RMSNorm over D' of D
channels gives sqrt(D' / D) of what it gave, and a LayerNorm has another mean as well.

Source: OpenBA-V2 (arXiv 2405.05957), section 4.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from lmcore.compression.cuts import TensorCut, apply_cut
from lmcore.compression.families import Family, find_family
from lmcore.compression.families.family import Found
from lmcore.compression.indices import format_indices
from lmcore.compression.plan import Plan, find_kept, prune_shape
from lmcore.compression.token_ids import renumber_settings
from lmcore.cost import Shape

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    T = TypeVar("T", NDArray[Any], torch.Tensor)

_STACKS = ("encoder", "decoder")


def check_plan(plan: Plan, family: Family | None = None) -> None:
    """Checks that the configuration of a family can say what a plan leaves.

    Args:
        plan: of a model.
        family: that of the plan's model if None.

    Raises:
        ValueError: it cannot; the text names the nearest plan that it can.

    Example:
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=8, heads=4, groups=4, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> check_plan(Plan(model_type="gpt2", shape=shape, stages=[Stage(hidden=range(5))]))
        Traceback (most recent call last):
        ValueError: heads of gpt2 have the size hidden / heads, here 2: got hidden 5 and 4 heads; \
the nearest is hidden 6 and 3 heads
    """
    family = family or find_family(plan.model_type)
    kept, shape = find_kept(plan), prune_shape(plan)
    for stack in _STACKS if family.shared_heads else ():
        layers = getattr(kept, f"{stack}_heads")
        differing = [layer for layer in layers if layers[layer] != next(iter(layers.values()))]
        if differing:
            first = next(iter(layers))
            raise ValueError(
                f"layers of {plan.model_type} share biases of heads: {stack} layer {differing[0]} "
                f"must keep those of layer {first}; the nearest is "
                f"{format_indices(layers[first]):.200} in all"
            )
    hidden, heads = shape.hidden_size, shape.heads
    if "head_size" not in family.fields and hidden != shape.heads_size:
        near = _find_nearest(hidden, heads, plan.shape)
        raise ValueError(
            f"heads of {plan.model_type} have the size hidden / heads, here {shape.head_size}: got "
            f"hidden {hidden} and {heads} heads; the nearest is hidden {near * shape.head_size} "
            f"and {near} heads"
        )
    if family.heads_divide_hidden and hidden % heads:
        near = max(heads, round(hidden / heads) * heads)
        near -= heads * (near > max(plan.shape.hidden_size, heads))
        raise ValueError(
            f"heads of {plan.model_type} must divide hidden: got hidden {hidden} and {heads} "
            f"heads; the nearest is hidden {near} and {heads} heads"
        )


def describe_limits(plan: Plan, family: Family | None = None) -> list[str]:
    """Returns what the pruned model cannot do although its configuration says it, in lines.

    Args:
        plan: of a model.
        family: that of the plan's model if None.

    Raises:
        ValueError: layers keep different numbers of heads or of inner units.

    Example:
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=2, hidden_size=8, heads=4, groups=4, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> describe_limits(Plan(model_type="t5", shape=shape, stages=[Stage(encoder_layers=[0])]))
        ['transformers generates from a cache with t5 only where the decoder is no deeper than \
the encoder: 2 layers behind 1 need use_cache=False']
    """
    family = family or find_family(plan.model_type)
    shape = prune_shape(plan)
    if not family.shallow_cache or shape.decoder_layers <= shape.encoder_layers:
        return []
    return [
        f"transformers generates from a cache with {plan.model_type} only where the decoder is no "
        f"deeper than the encoder: {shape.decoder_layers} layers behind {shape.encoder_layers} "
        "need use_cache=False"
    ]


def make_cuts(
    plan: Plan, shapes: Mapping[str, Sequence[int]], family: Family | None = None
) -> list[TensorCut]:
    """Returns what a plan keeps of the tensors of a checkpoint, layers with their new numbers.

    Args:
        plan: of the model.
        shapes: of all tensors of the checkpoint, by name.
        family: that of the plan's model if None.

    Raises:
        ValueError: the family has no such tensor, a tensor has another shape than the plan's
            model, a layer is missing, or the family cannot say what the plan leaves.

    Example:
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=2, hidden_size=8, heads=4, groups=4, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(decoder_layers=[1])])
        >>> shapes = {f"model.layers.{i}.input_layernorm.weight": [8] for i in range(2)}
        >>> [cut.target for cut in make_cuts(plan, shapes)]
        ['model.layers.0.input_layernorm.weight']
    """
    family = family or find_family(plan.model_type)
    check_plan(plan, family)
    kept = find_kept(plan)
    tensors = {name: family.find(name) for name in shapes}
    unknown = [name for name, found in tensors.items() if found is None]
    if unknown:
        raise ValueError(f"{plan.model_type} has no tensor {unknown[0]!r:.200}")
    known = {name: found for name, found in tensors.items() if found is not None}
    _check_layers(plan, known.values())
    cuts, taken = [], dict[Any, Any]()
    for name, found in known.items():
        _check_shape(plan, name, found, shapes[name])
        target = _rename(name, found, getattr(kept, f"{found.stack}_layers", ()))
        if target is None:
            continue
        keep: list[NDArray[np.int64] | None] = []
        for axis, indices in zip(found.axes, family.keep(found, kept), strict=True):
            if axis is None or indices is None:
                keep.append(None)
                continue
            key = (axis, id(indices))  # the many tensors of a layer share few axes
            if key not in taken:
                taken[key] = axis.expand(indices, plan.shape)
            keep.append(taken[key])
        whole = all(places is None for places in keep)
        cuts.append(TensorCut(source=name, target=target, keep=() if whole else tuple(keep)))
    return cuts


def prune_state(state: Mapping[str, T], plan: Plan, family: Family | None = None) -> dict[str, T]:
    """Returns the tensors of a pruned model: the definition, in memory.

    Args:
        state: tensors or arrays of the original, by name.
        plan: of the model.
        family: that of the plan's model if None.

    Raises:
        ValueError: the state is not that of the plan's model, or the family cannot say what the
            plan leaves.

    Example:
        >>> import numpy as np
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=0, decoder_layers=1, hidden_size=4, heads=2, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="llama", shape=shape, stages=[Stage(hidden=[0, 3])])
        >>> name = "model.layers.0.input_layernorm.weight"
        >>> prune_state({name: np.array([0.5, 1, 2, 4])}, plan)[name].tolist()
        [0.5, 4.0]
    """
    cuts = make_cuts(plan, {name: tensor.shape for name, tensor in state.items()}, family)
    return {cut.target: apply_cut(state[cut.source], cut) for cut in cuts}


def prune_config(
    config: Mapping[str, Any], plan: Plan, family: Family | None = None
) -> dict[str, Any]:
    """Returns the configuration of a pruned model: the original's, with the new sizes.

    Args:
        config: as `config.json` holds it.
        plan: of the model.
        family: that of the plan's model if None.

    Raises:
        ValueError: the family cannot say what the plan leaves, the configuration is that of
            another family, or the id of a special token is cut.

    Example:
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=2, hidden_size=4, heads=2, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="t5", shape=shape, stages=[Stage(decoder_layers=[1])])
        >>> pruned = prune_config({"model_type": "t5", "num_layers": 2}, plan)
        >>> pruned["num_layers"], pruned["num_decoder_layers"]
        (2, 1)
    """
    family = family or find_family(plan.model_type)
    check_plan(plan, family)
    if config.get("model_type") != plan.model_type:
        raise ValueError(
            f"the plan is for a model of the type {plan.model_type}: got "
            f"{config.get('model_type')!r:.60}"
        )
    shape = prune_shape(plan)
    pruned = {**(family.complete(dict(config)) if family.complete else config), **family.constants}
    for size, names in family.fields.items():
        for name in [name for name in names if name in pruned] or names[:1]:
            pruned[name] = getattr(shape, size)
    layers = find_kept(plan).decoder_layers
    for name in family.layer_fields:
        if pruned.get(name) is not None:
            count = plan.shape.decoder_layers
            if not isinstance(pruned[name], list) or len(pruned[name]) != count:
                raise ValueError(f"{name} must be a list of {count}: got {pruned[name]!r:.60}")
            pruned[name] = [pruned[name][layer] for layer in layers]
    return renumber_ids({**family.token_ids, **pruned} if _cuts_ids(plan) else pruned, plan)


def renumber_ids(settings: Mapping[str, Any], plan: Plan) -> dict[str, Any]:
    """Returns settings whose ids of tokens are those of the pruned vocabulary.

    Args:
        settings: as `config.json` or `generation_config.json` holds them.
        plan: of the model.

    Raises:
        ValueError: the plan cuts an id that the settings name.

    Example:
        >>> from lmcore.compression.plan import Stage
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=2, hidden_size=4, heads=2, groups=2, head_size=2,
        ...     inner_size=6, vocabulary_size=9)
        >>> plan = Plan(model_type="t5", shape=shape, stages=[Stage(vocabulary=[0, 1, 7])])
        >>> renumber_ids({"eos_token_id": [1, 7], "pad_token_id": 0}, plan)
        {'eos_token_id': [1, 2], 'pad_token_id': 0}
    """
    if not _cuts_ids(plan):
        return dict(settings)
    new_ids = {old: new for new, old in enumerate(find_kept(plan).vocabulary)}
    return renumber_settings(settings, new_ids, plan.shape.vocabulary_size)


def _cuts_ids(plan: Plan) -> bool:
    return any(stage.vocabulary is not None for stage in plan.stages)


def _rename(name: str, found: Found, layers: tuple[int, ...]) -> str | None:
    """The name under a layer's new number; None where the layer is cut."""
    if found.layer is None:
        return name
    if found.layer not in layers:
        return None
    begin, end = found.span
    return f"{name[:begin]}{layers.index(found.layer)}{name[end:]}"


def _check_layers(plan: Plan, tensors: Iterable[Found]) -> None:
    seen = {(found.stack, found.layer) for found in tensors if found.layer is not None}
    for stack in _STACKS:
        count = getattr(plan.shape, f"{stack}_layers")
        layers = sorted(layer for name, layer in seen if name == stack)
        if layers and layers != [*range(count)]:
            raise ValueError(
                f"the plan is for a model with {count} {stack} layers: the checkpoint has "
                f"{format_indices(layers):.200}"
            )


def _check_shape(plan: Plan, name: str, found: Found, shape: Sequence[int]) -> None:
    expected = [None if axis is None else axis.count(plan.shape) for axis in found.axes]
    fits = len(expected) == len(shape) and all(
        wanted is None or wanted == size for wanted, size in zip(expected, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(
            f"the plan is for another model: {name} has the shape {[*shape]} where [{wanted}] is "
            "expected"
        )


def _find_nearest(hidden: int, heads: int, original: Shape) -> int:
    """The number of heads whose sizes together are nearest to both that were asked for."""
    size = original.head_size
    return min(
        range(1, original.heads + 1),
        key=lambda n: (abs(n * size - hidden) / hidden + abs(n - heads) / heads, -n),
    )
