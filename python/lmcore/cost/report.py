"""All that a shape costs, as one value, as JSON and as text."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lmcore._tables import format_table
from lmcore.cost.memory import (
    Step,
    StepMemory,
    count_cache_bytes,
    count_step_memory,
)
from lmcore.cost.operations import Operations, count_operations
from lmcore.cost.parameters import (
    BYTES,
    PARTS,
    Parameters,
    count_parameters,
    parameter_bytes,
)
from lmcore.cost.shapes import Shape

_GB = 10**9
_MEMORY = ("weights", "gradients", "moments", "master", "gathered", "activations", "logits")


@dataclass(kw_only=True, slots=True, frozen=True)
class CostReport:
    """What a shape costs."""

    shape: Shape
    step: Step
    parameters: Parameters
    operations: Operations
    """Of a sample as long as a row of the step."""
    cache_bytes: tuple[int, int]
    """Of a source token and of a target token, in two bytes a number."""
    memory: list[StepMemory]
    """On each device, for rising numbers of devices."""

    def to_dict(self) -> dict[str, Any]:
        """Returns all numbers as JSON has them."""
        counted, layers = self.parameters, self.operations.recomputed
        return {
            "shape": asdict(self.shape),
            "parameters": {
                **asdict(counted), "total": counted.total, "distinct": counted.distinct,
            },
            "bytes": {name: counted.to_bytes(name) for name in BYTES},
            "distinct_bytes": {name: parameter_bytes(counted.distinct, name) for name in BYTES},
            "flops": {
                "source_tokens": self.step.source_tokens,
                "target_tokens": self.step.target_tokens,
                "source_token": self.operations.source_token,
                "target_token": self.operations.target_token,
                "cached_token": self.operations.cached_token,
                "forward": self.operations.forward,
                "training": self.operations.training + layers * self.step.recompute,
            },
            "cache_bytes": {
                "source_token": self.cache_bytes[0], "target_token": self.cache_bytes[1],
            },
            "step": asdict(self.step),
            "memory_bytes": [{**asdict(found), "total": found.total} for found in self.memory],
        }  # fmt: skip


def make_report(shape: Shape, step: Step, devices: int = 1) -> CostReport:
    """Returns what a shape costs; memory for 1, 2, 4 and so on up to a number of devices.

    Args:
        shape: the sizes.
        step: what each device computes in training.
        devices: the largest number of devices.

    Raises:
        ValueError: a number is out of range.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=6, hidden_size=256, heads=5, groups=5,
        ...     head_size=64, inner_size=768, vocabulary_size=8000)
        >>> [found.devices for found in make_report(shape, Step(), 6).memory]
        [1, 2, 4, 6]
    """
    if devices < 1:
        raise ValueError(f"devices must be at least 1: got {devices}")
    counts = [2**power for power in range(devices.bit_length()) if 2**power < devices]
    return CostReport(
        shape=shape,
        step=step,
        parameters=count_parameters(shape),
        operations=count_operations(shape, step.source_tokens, step.target_tokens),
        cache_bytes=count_cache_bytes(shape),
        memory=[count_step_memory(shape, step, count) for count in [*counts, devices]],
    )


def format_report(report: CostReport) -> str:
    """Returns the report as lines of text.

    Args:
        report: what a shape costs.

    Example:
        >>> shape = Shape(
        ...     encoder_layers=2, decoder_layers=6, hidden_size=256, heads=5, groups=5,
        ...     head_size=64, inner_size=768, vocabulary_size=8000)
        >>> print(format_report(make_report(shape, Step())).splitlines()[0])
        2 encoder and 6 decoder layers, hidden 256, 5 heads of 64, inner 768, vocabulary 8,000
    """
    blocks = [
        [_describe(report.shape)], _show_parameters(report.parameters),
        _show_bytes(report.parameters), _show_operations(report), _show_cache(report),
        _show_memory(report),
    ]  # fmt: skip
    return "\n\n".join("\n".join(lines) for lines in blocks)


def _describe(shape: Shape) -> str:
    groups = "" if shape.groups == shape.heads else f" in {shape.groups} groups"
    return (
        f"{shape.encoder_layers} encoder and {shape.decoder_layers} decoder layers, hidden "
        f"{shape.hidden_size:,}, {shape.heads} heads of {shape.head_size}{groups}, inner "
        f"{shape.inner_size:,}, vocabulary {shape.vocabulary_size:,}"
    )


def _show_parameters(counted: Parameters) -> list[str]:
    parts = [(name.replace("_", " "), getattr(counted, name)) for name in PARTS]
    rows = [(name, f"{count:,}") for name, count in parts if count]
    rows.append(("total", f"{counted.total:,}"))
    if counted.output_weights:
        rows.append(("with one table", f"{counted.distinct:,}"))
    return format_table(rows, ("parameters", ""))


def _show_bytes(counted: Parameters) -> list[str]:
    rows = [("total", *(f"{counted.to_bytes(name):,}" for name in BYTES))]
    if counted.output_weights:
        one = (f"{parameter_bytes(counted.distinct, name):,}" for name in BYTES)
        rows.append(("with one table", *one))
    return format_table(rows, ("bytes", *BYTES))


def _show_operations(report: CostReport) -> list[str]:
    step, found = report.step, report.operations
    again = found.recomputed * step.recompute
    rows = [
        ("a source token", found.source_token), ("a target token", found.target_token),
        ("the last target token, cached", found.cached_token), ("forward", found.forward),
        ("forward and backward", found.training + again),
    ]  # fmt: skip
    title = f"FLOPs at {_join(step.source_tokens, step.target_tokens)} tokens"
    return format_table([(name, f"{count:,}") for name, count in rows if count], (title, ""))


def _show_cache(report: CostReport) -> list[str]:
    source, target = report.cache_bytes
    rows = [("a source token", f"{source:,}"), ("a target token", f"{target:,}")]
    return format_table(rows[source == 0 :], ("bytes of keys and values, 16 bits", ""))


def _show_memory(report: CostReport) -> list[str]:
    step = report.step
    names = [name for name in _MEMORY if any(getattr(found, name) for found in report.memory)]
    rows = [
        (str(found.devices), *(_show_gb(getattr(found, name)) for name in [*names, "total"]))
        for found in report.memory
    ]
    lengths = _join(step.source_tokens, step.target_tokens)
    title = f"GB on each device, {step.rows} x {lengths} tokens, {step.precision}"
    title += ", recomputing" if step.recompute else ""
    return [title, *format_table(rows, ("devices", *names, "total"))]


def _join(source: int, target: int) -> str:
    return " + ".join(str(count) for count in (source, target) if count)


def _show_gb(count: int) -> str:
    return f"{count / _GB:,.2f}"
