"""Stages of a plan made one, taken apart, and added."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from lmcore.compression.indices import check_range, find_places, name_some
from lmcore.compression.plan import (
    FLAT,
    LAYERED,
    Kept,
    Plan,
    Stage,
    find_kept,
    find_sizes,
    layers_of,
    prune_shape,
)
from lmcore.cost import Shape


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
            name: find_places(getattr(after, name), getattr(before, name)) for name in FLAT
        }
        for name in LAYERED:
            layers, old = getattr(before, layers_of(name)), getattr(before, name)
            values[name] = {
                layers.index(layer): find_places(indices, old[layer])
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
        check_range(f"{where}: {name}", sorted(cut), find_sizes(plan.shape)[name])
        left = getattr(kept, name)
        twice = sorted({i for i in cut if i not in left or cut.count(i) > 1})
        if twice:
            raise ValueError(f"{where}: {name}: {name_some(twice)} is cut twice")
        changes[name] = tuple(layer for layer in left if layer not in cut)
    return replace(plan, stages=(*plan.stages, replace(stage, **changes)))


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
