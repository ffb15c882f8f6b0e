"""Cross-entropy and divergence from a teacher, of linear heads over a large vocabulary.

The divergence is T^2 KL(p || q) with p and q the softmax of the teacher's and the student's logits
over the temperature T. Neither's logits are ever whole in memory: some positions are computed over
the whole vocabulary, then the next ones.

Source: Hinton et al., Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lmcore.compression.distillation_config import DistillationConfig
from lmcore.compression.logit_blocks import IGNORED, Inputs, compute
from lmcore.ops._autocast import cast, without_autocast

__all__ = ["DistillationConfig", "distil"]


def distil(
    states: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    labels: Tensor,
    teacher_states: Tensor,
    teacher_weight: Tensor,
    teacher_bias: Tensor | None,
    *,
    kept: Tensor | None = None,
    temperature: float = 1.0,
    scales: tuple[float, float] | None = None,
) -> tuple[Tensor, Tensor]:
    """Returns the cross-entropy of labels and the divergence from a teacher, for each position.

    Gradients of states, weight and bias are exact for any sum of both; the teacher gets none.
    Positions without a label cost nothing. Sums are in float32, or float64 for float64 and where
    the temperature is above 8.

    The distributions are over the student's vocabulary: where it is a part of the teacher's, the
    teacher's is that among the kept ids, which sums to one again.

    With `scales` the gradients of `a * cross_entropy + b * divergence` are made while the logits
    are there: four products with the size of the logits instead of six. What is differentiated
    then should be a multiple of that sum; if it is another one the result is the same, but later.

    Source: Hinton et al. (arXiv 1503.02531), section 2.

    Args:
        states: `[N, D]` floating point, as the output layer gets them.
        weight: `[V, D]` of the same type, but under autocast, whose type decides.
        bias: `[V]` floating point, or None.
        labels: `[N]` int64, ids of the student, or -100 where there is none.
        teacher_states: `[N, D']` floating point.
        teacher_weight: `[V', D']` of their type.
        teacher_bias: `[V']` floating point, or None; of -inf are entries that never come.
        kept: `[V]` int64: the teacher's id of each of the student's, -1 where it has none; all in
            their order if None.
        temperature: from 1e-3 to 1e3.
        scales: what both are going to count, the same at all positions; None: not known yet.

    Returns:
        `[N]` each, float32, or float64 for float64; 0 where there is no label. Their gradient has
        none itself.

    Raises:
        IndexError: a label or a kept id is none.
        TypeError: a tensor has another type.
        ValueError: shapes do not fit, tensors are on several devices, or a number is out of its
            range.

    Example:
        >>> states, weight = torch.zeros(2, 3), torch.ones(4, 3)
        >>> bias = torch.tensor([0.0, 0.0, -torch.inf, -torch.inf])
        >>> losses = distil(states, weight, None, torch.tensor([3, -100]), states, weight, bias)
        >>> [part.exp() for part in losses]
        [tensor([4., 1.]), tensor([2., 1.])]
    """
    _check(states, weight, bias, labels, "", "[V, {}]")
    _check(teacher_states, teacher_weight, teacher_bias, labels, "teacher_", "[V', {}]")
    _check_ids(labels, len(weight), kept, len(teacher_weight))
    if not (isinstance(temperature, int | float) and 1e-3 <= temperature <= 1e3):
        raise ValueError(f"temperature must be from 1e-3 to 1e3: got {temperature!r:.60}")
    if scales is not None and not all(map(math.isfinite, scales)):
        raise ValueError(f"scales must be finite numbers: got {scales!r:.60}")
    tensors = (states, weight, bias, labels, teacher_states, teacher_weight, teacher_bias, kept)
    devices = dict.fromkeys(tensor.device for tensor in tensors if tensor is not None)
    if len(devices) != 1:
        raise ValueError(f"tensors must be on one device: got {', '.join(map(str, devices))}")
    states, weight = cast(states, weight)
    teacher_states, teacher_weight = cast(teacher_states.detach(), teacher_weight.detach())
    if states.dtype != weight.dtype or teacher_states.dtype != teacher_weight.dtype:
        name, (left, right) = (
            ("", (states, weight))
            if states.dtype != weight.dtype
            else ("teacher_", (teacher_states, teacher_weight))
        )
        raise TypeError(
            f"{name}weight must be of {left.dtype} as {name}states are: got {right.dtype}"
        )
    if teacher_bias is not None:
        teacher_bias = teacher_bias.detach()
    if not torch.is_grad_enabled():
        scales = None
    given = (teacher_states, teacher_weight, teacher_bias, kept)
    with without_autocast(states.device):
        found: tuple[Tensor, Tensor] = _Distil.apply(
            states, weight, bias, labels, *given, float(temperature), scales
        )
    return found


class _Distil(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: Any) -> tuple[Tensor, Tensor]:
        *tensors, temperature, scales = given
        inputs = Inputs._make((*tensors, temperature))
        ctx.save_for_backward(*tensors)
        ctx.temperature, ctx.scales, ctx.found = temperature, scales, None
        wanted = ctx.needs_input_grad[:3]
        outer = None
        if scales is not None and any(wanted):
            outer = tuple(torch.full_like(inputs.labels, s, dtype=inputs.kind) for s in scales)
        losses, divergences, *found = compute(inputs, outer, wanted)
        if outer is not None:
            ctx.found = found
        return losses, divergences

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            made = _Distil._differentiate(ctx, outer)
        if torch.is_grad_enabled():  # a graph of it is asked for
            roots = [t for t in (*ctx.saved_tensors[:3], *outer) if t is not None]
            made = [None if part is None else _Last.apply(part, *roots) for part in made]
        return *made, *[None] * 7

    @staticmethod
    def _differentiate(ctx: Any, outer: tuple[Tensor, ...]) -> list[Tensor | None]:
        inputs = Inputs._make((*ctx.saved_tensors, ctx.temperature))
        wanted = ctx.needs_input_grad[:3]
        # What is given away may be changed by who gets it: another pass makes its own.
        found, ctx.found = ctx.found, None
        factor = None if found is None else _find_factor(outer, ctx.scales, inputs.labels)
        with without_autocast(inputs.states.device):
            if factor is None:
                found = compute(inputs, outer, wanted)[2:]
            elif factor != 1:
                for part in found:
                    if part is not None:
                        part.mul_(factor)
        # Not before they are scaled: half precision may not hold what is small.
        return [
            part if part is None or like is None else part.to(like.dtype)
            for part, like in zip(found, inputs[:3], strict=True)
        ]


class _Last(torch.autograd.Function):
    """What has no derivative, and says so, rather than one of zero."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, *_: Tensor) -> Tensor:
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> tuple[Tensor | None, ...]:
        raise RuntimeError("the gradient of distil has none itself")


def _find_factor(
    outer: tuple[Tensor, ...], scales: tuple[float, float], labels: Tensor
) -> float | None:
    """By what the gradients of a sum are to be multiplied; None if it is no multiple of it."""
    counted = labels != IGNORED
    largest = max(range(2), key=lambda place: abs(scales[place]))
    values = [part[counted].double() for part in outer]
    if not len(values[0]):
        return 1.0
    if not scales[largest]:
        return None
    factor = float(values[largest][0]) / scales[largest]
    bound = 1e-12 if outer[0].dtype == torch.float64 else 1e-6
    for part, scale in zip(values, scales, strict=True):
        if not bool(((part - factor * scale).abs() <= bound * abs(factor * scale)).all()):
            return None
    # As it was given, not as rounding leaves it.
    return 1.0 if abs(factor - 1) <= bound else factor


def _check(
    states: Tensor, weight: Tensor, bias: Tensor | None, labels: Tensor, whose: str, shape: str
) -> None:
    for name, tensor in (("states", states), ("weight", weight), ("bias", bias)):
        if tensor is not None and not tensor.is_floating_point():
            raise TypeError(f"{whose}{name} must be of floating point: got {tensor.dtype}")
    if labels.dtype != torch.int64:
        raise TypeError(f"labels must be of int64: got {labels.dtype}")
    if labels.ndim != 1:
        raise ValueError(f"labels must have the shape [N]: got {[*labels.shape]}")
    if states.ndim != 2 or len(states) != len(labels):
        raise ValueError(
            f"{whose}states must have the shape [{len(labels)}, D]: got {[*states.shape]}"
        )
    if weight.ndim != 2 or weight.shape[1] != states.shape[1] or not len(weight):
        expected = shape.format(states.shape[1])
        raise ValueError(f"{whose}weight must have the shape {expected}: got {[*weight.shape]}")
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"{whose}bias must have the shape [{len(weight)}]: got {[*bias.shape]}")


def _check_ids(labels: Tensor, entries: int, kept: Tensor | None, teacher_entries: int) -> None:
    wrong = ((labels != IGNORED) & ((labels < 0) | (labels >= entries))).nonzero()[:, 0]
    if len(wrong):
        row = int(wrong[0])
        raise IndexError(
            f"labels must be 0 to {entries - 1}, or {IGNORED}: got {int(labels[row])} at position "
            f"{row}"
        )
    if kept is None:
        if entries != teacher_entries:
            raise ValueError(
                f"teacher_weight must have {entries} entries as weight has, or kept be given: got "
                f"{teacher_entries}"
            )
        return
    if kept.dtype != torch.int64:
        raise TypeError(f"kept must be of int64: got {kept.dtype}")
    if kept.shape != (entries,):
        raise ValueError(f"kept must have the shape [{entries}]: got {[*kept.shape]}")
    least, most = int(kept.min()), int(kept.max())
    if least < -1 or most >= teacher_entries:
        raise IndexError(
            f"kept must be -1 to {teacher_entries - 1}: got {least if least < -1 else most}"
        )
    if most < 0:
        raise ValueError("kept must name an entry of the teacher: got none")
