"""What a model costs after each of several stages that make it smaller."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from lmcore._tables import format_table
from lmcore.cost.memory import Step, StepMemory, count_cache_bytes, count_step_memory
from lmcore.cost.operations import Operations, count_operations
from lmcore.cost.parameters import Parameters, count_parameters
from lmcore.cost.shapes import Shape

_GB = 10**9


@dataclass(kw_only=True, slots=True, frozen=True)
class StageCost:
    """What a shape costs, beside that of the first stage, which is the original."""

    name: str
    shape: Shape
    parameters: Parameters
    operations: Operations
    """Of a sample as long as a row of the step."""
    cache_bytes: tuple[int, int]
    """Of a source token and of a target token, in two bytes a number."""
    memory: StepMemory
    """Of a training step, on each device."""
    reduction: float
    """Share of the original's parameters that is gone, with one table for both ends."""
    published: int | None = None
    """Parameters as somebody says, rounded as it was said."""
    published_reduction: float | None = None
    """Share that is gone of what is said of the original, by what is said of this."""

    @property
    def agrees(self) -> bool:
        """Whether what is published is the number of parameters, rounded as it was said."""
        if self.published is None:
            return True
        unit = 1
        while self.published and self.published % (unit * 10) == 0:
            unit *= 10
        return 2 * abs(self.parameters.distinct - self.published) <= unit

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers as JSON has them."""
        counted, found = self.parameters, self.operations
        return {
            "name": self.name,
            "shape": asdict(self.shape),
            "parameters": {
                **asdict(counted), "total": counted.total, "distinct": counted.distinct,
            },
            "bytes": counted.to_bytes(),
            "flops": {
                "source_token": found.source_token, "target_token": found.target_token,
                "cached_token": found.cached_token, "forward": found.forward,
                "training": found.training,
            },
            "cache_bytes": {
                "source_token": self.cache_bytes[0], "target_token": self.cache_bytes[1],
            },
            "memory_bytes": {**asdict(self.memory), "total": self.memory.total},
            "reduction": self.reduction,
            "published": self.published,
            "published_reduction": self.published_reduction,
            "agrees": self.agrees,
        }  # fmt: skip


def make_stage_costs(
    stages: Sequence[tuple[str, Shape, int | None]], step: Step, devices: int = 1
) -> list[StageCost]:
    """Returns what each of several stages costs.

    Args:
        stages: name, shape and published number of parameters of each, the original first.
        step: what each device computes in training; lengths of stacks that are not there are
            taken as 0.
        devices: on which a step is divided.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=6, hidden_size=256, heads=5, groups=5,
        ...     head_size=64, inner_size=768, vocabulary_size=8000)
        >>> small = replace(shape, decoder_layers=3)
        >>> costs = make_stage_costs([("original", shape, None), ("1", small, None)], Step())
        >>> round(costs[1].reduction, 3)
        0.329
    """
    costs: list[StageCost] = []
    for name, shape, published in stages:
        own = replace(
            step,
            source_tokens=step.source_tokens if shape.encoder_layers else 0,
            target_tokens=step.target_tokens if shape.decoder_layers else 0,
        )
        counted = count_parameters(shape)
        first = costs[0] if costs else None
        said = None
        if first is not None and first.published and published is not None:
            said = 1 - published / first.published
        before = counted.distinct if first is None else first.parameters.distinct
        costs.append(
            StageCost(
                name=name, shape=shape, parameters=counted,
                operations=count_operations(shape, own.source_tokens, own.target_tokens),
                cache_bytes=count_cache_bytes(shape),
                memory=count_step_memory(shape, own, devices),
                reduction=1 - counted.distinct / before, published=published,
                published_reduction=said,
            )
        )  # fmt: skip
    return costs


def format_stage_costs(costs: Sequence[StageCost]) -> str:
    """Returns a table of what stages cost, as lines of text.

    Args:
        costs: of the stages, the original first; names in which what comes from data is escaped.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=6, hidden_size=256, heads=5, groups=5,
        ...     head_size=64, inner_size=768, vocabulary_size=8000)
        >>> text = format_stage_costs(make_stage_costs([("original", shape, None)], Step()))
        >>> text.split()[-1], text.splitlines()[1].split()[:3]
        ('0.34', ['original', '2', '6'])
    """
    sizes = format_table([_show_sizes(cost) for cost in costs], _SIZES)
    columns = [name for name, show in _COSTS.items() if any(map(show, costs))]
    rows = [(cost.name, *(_COSTS[name](cost) for name in columns)) for cost in costs]
    lines = [*sizes, "", *format_table(rows, ("stage", *columns))]
    wrong = [cost for cost in costs if not cost.agrees]
    notes = [
        f"* {cost.name}: {_show_rounded(cost.published or 0)} is published, and does not follow "
        f"from the published sizes, which have {cost.parameters.distinct:,} parameters"
        for cost in wrong
    ]
    said = [cost for cost in costs if cost.published_reduction is not None]
    if said:
        last, first = said[-1], costs[0]
        notes.append(
            f"{last.name}: {last.published_reduction:.1%} fewer parameters as published (1 - "
            f"{_show_rounded(last.published or 0)} / {_show_rounded(first.published or 0)}), "
            f"{1 - last.parameters.distinct / (first.published or 1):.1%} of "
            f"{_show_rounded(first.published or 0)} and {last.reduction:.1%} of "
            f"{first.parameters.distinct:,} as counted"
        )
    return "\n".join([*lines, *(["", *notes] if notes else [])])


_SIZES = ("stage", "encoder", "decoder", "hidden", "heads", "head size", "inner", "vocabulary")


def _show_sizes(cost: StageCost) -> tuple[str, ...]:
    shape = cost.shape
    groups = "" if shape.groups == shape.heads else f" in {shape.groups}"
    return (
        cost.name, str(shape.encoder_layers), str(shape.decoder_layers), f"{shape.hidden_size:,}",
        f"{shape.heads}{groups}", str(shape.head_size), f"{shape.inner_size:,}",
        f"{shape.vocabulary_size:,}",
    )  # fmt: skip


def _show_count(count: int) -> str:
    return f"{count:,}" if count else ""


_COSTS = {
    "parameters": lambda cost: f"{cost.parameters.distinct:,}",
    "published": lambda cost: (
        ""
        if cost.published is None
        else _show_rounded(cost.published) + ("" if cost.agrees else " *")
    ),
    "less": lambda cost: f"{cost.reduction:.1%}",
    "bytes": lambda cost: f"{cost.parameters.to_bytes():,}",
    "FLOPs/source": lambda cost: _show_count(cost.operations.source_token),
    "FLOPs/target": lambda cost: _show_count(cost.operations.target_token),
    "cache/source": lambda cost: _show_count(cost.cache_bytes[0]),
    "cache/target": lambda cost: _show_count(cost.cache_bytes[1]),
    "training GB": lambda cost: f"{cost.memory.total / _GB:,.2f}",
}
"""Columns; one that is empty throughout is left out."""


def _show_rounded(count: int) -> str:
    return f"{count / _GB:g}B" if count >= _GB // 10 else f"{count:,}"
