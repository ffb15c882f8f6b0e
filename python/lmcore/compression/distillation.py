"""Cross-entropy and divergence from a teacher, of linear heads over a large vocabulary.

The divergence is T^2 KL(p || q) with p and q the softmax of the teacher's and the student's logits
over the temperature T. Neither's logits are ever whole in memory: some positions are computed over
the whole vocabulary, then the next ones.

Source: Hinton et al., Distilling the Knowledge in a Neural Network (arXiv 1503.02531), section 2.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lmcore.compression.distillation_config import DistillationConfig
from lmcore.ops._autocast import cast, without_autocast

__all__ = ["DistillationConfig", "distil"]

IGNORED = -100
# Logits of one model that exist at one time: 64 MB of float32 on a CPU, 512 MB on a GPU.
_BLOCK, _DEVICE_BLOCK = 1 << 24, 1 << 27
# Rows of a block: more make no product faster.
_MOST_ROWS, _MOST_DEVICE_ROWS = 512, 4096
# Of these what is computed between two products: what the caches of a CPU hold.
_NEAR_BLOCK, _LEAST_STEP = 1 << 18, 512
# Beyond it distributions are so even that their divergence drowns in the rounding of float32.
_HOT = 8.0
# A logit of the teacher that has no probability, and gives none of it times itself.
_NEVER = -1e30


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
        inputs = _Inputs._make((*tensors, temperature))
        ctx.save_for_backward(*tensors)
        ctx.temperature, ctx.scales, ctx.found = temperature, scales, None
        wanted = ctx.needs_input_grad[:3]
        outer = None
        if scales is not None and any(wanted):
            outer = tuple(torch.full_like(inputs.labels, s, dtype=inputs.kind) for s in scales)
        losses, divergences, *found = _compute(inputs, outer, wanted)
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
        inputs = _Inputs._make((*ctx.saved_tensors, ctx.temperature))
        wanted = ctx.needs_input_grad[:3]
        # What is given away may be changed by who gets it: another pass makes its own.
        found, ctx.found = ctx.found, None
        factor = None if found is None else _find_factor(outer, ctx.scales, inputs.labels)
        with without_autocast(inputs.states.device):
            if factor is None:
                found = _compute(inputs, outer, wanted)[2:]
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


class _Inputs(NamedTuple):
    """What is given, by the student's ids where a teacher's entry is meant."""

    states: Tensor
    weight: Tensor
    bias: Tensor | None
    labels: Tensor
    teacher_states: Tensor
    teacher_weight: Tensor
    teacher_bias: Tensor | None
    kept: Tensor | None
    temperature: float

    @property
    def kind(self) -> torch.dtype:
        """Of losses and gradients while they are summed."""
        return torch.promote_types(self.states.dtype, torch.float32)

    @property
    def work(self) -> torch.dtype:
        """Of what is computed of logits."""
        return torch.float64 if self.temperature > _HOT else self.kind

    def list_chunks(self, rows: int) -> list[tuple[int, int]]:
        count = len(self.weight)
        if self.weight.is_cuda:
            return [(0, count)]
        step = max(_NEAR_BLOCK // max(rows, 1), _LEAST_STEP)
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def find_rows(self) -> int:
        """How many positions are computed at once."""
        is_cuda = self.weight.is_cuda
        block, most = (_DEVICE_BLOCK, _MOST_DEVICE_ROWS) if is_cuda else (_BLOCK, _MOST_ROWS)
        return min(max(block // max(len(self.weight), 1), 1), most)

    def make_logits(self, states: Tensor, start: int, end: int) -> Tensor:
        logits = _multiply(states, self.weight[start:end].T, self.kind)
        if self.bias is not None:
            logits += self.bias[start:end]
        return logits.to(self.work)

    def make_teacher_logits(self, states: Tensor, start: int, end: int, has_gaps: bool) -> Tensor:
        ids = None if self.kept is None else self.kept[start:end].clamp(min=0)
        rows, bias = (
            part if part is None else part[start:end] if ids is None else part.index_select(0, ids)
            for part in (self.teacher_weight, self.teacher_bias)
        )
        assert rows is not None
        logits = _multiply(states, rows.T, torch.promote_types(states.dtype, torch.float32))
        if bias is not None:
            logits += bias
        if has_gaps and self.kept is not None:
            logits.masked_fill_(self.kept[start:end] < 0, -torch.inf)
        return logits.to(self.work)

    def has_gaps(self) -> bool:
        """Whether the teacher never says some entries."""
        gone = self.kept is not None and bool((self.kept < 0).any())
        return gone or (
            self.teacher_bias is not None and bool((self.teacher_bias == -torch.inf).any())
        )


def _compute(
    inputs: _Inputs, outer: tuple[Tensor, ...] | None, wanted: tuple[bool, ...]
) -> tuple[Any, ...]:
    """Losses, divergences, and gradients of states, weight and bias where `outer` is known."""
    labels, kind, work = inputs.labels, inputs.kind, inputs.work
    has_gaps = inputs.has_gaps()
    losses, divergences = (torch.zeros(labels.shape, dtype=kind, device=labels.device),) * 2
    losses, divergences = losses.clone(), divergences
    for_states, for_weight, for_bias = (outer is not None and want for want in wanted)
    states_sum = torch.zeros_like(inputs.states, dtype=kind) if for_states else None
    weight_sum = torch.zeros_like(inputs.weight, dtype=kind) if for_weight else None
    bias_sum = (
        torch.zeros_like(inputs.bias, dtype=kind) if for_bias and inputs.bias is not None else None
    )
    places = (labels != IGNORED).nonzero()[:, 0]
    step = inputs.find_rows()
    for first in range(0, len(places), step):
        rows = places[first : first + step]
        states, taught = inputs.states[rows], inputs.teacher_states[rows]
        block = _Block(inputs, states, taught, labels[rows], work, has_gaps)
        losses[rows], divergences[rows] = (part.to(kind) for part in block.measure())
        if outer is None:
            continue
        block_sum = None if states_sum is None else torch.zeros_like(states, dtype=kind)
        for start, end, slopes in block.make_slopes(outer[0][rows], outer[1][rows]):
            slopes = slopes.to(kind)
            if block_sum is not None:
                _add_product(block_sum, slopes, inputs.weight[start:end])
            if weight_sum is not None:
                _add_product(weight_sum[start:end], slopes.T, states)
            if bias_sum is not None:
                bias_sum[start:end] += slopes.sum(0)
        if states_sum is not None and block_sum is not None:
            states_sum[rows] = block_sum
    return losses, divergences, states_sum, weight_sum, bias_sum


class _Block:
    """Some positions over the whole vocabulary, in chunks of it that are worked on one by one."""

    def __init__(
        self,
        inputs: _Inputs,
        states: Tensor,
        taught: Tensor,
        labels: Tensor,
        work: torch.dtype,
        has_gaps: bool,
    ) -> None:
        self.labels, self.temperature, self.has_gaps = labels, inputs.temperature, has_gaps
        self.chunks = inputs.list_chunks(len(states))
        self.own = states.new_zeros(len(states), dtype=work)
        self.student: list[Any] = []
        self.teacher: list[Any] = []
        student_tops, teacher_tops = [], []
        for start, end in self.chunks:
            logits = inputs.make_logits(states, start, end)
            inside, near = self._find_labels(start, end)
            self.own = torch.where(inside, logits.gather(1, near[:, None])[:, 0], self.own)
            student_tops.append(logits.amax(1))
            self.student.append(logits)
            logits = inputs.make_teacher_logits(taught, start, end, has_gaps)
            teacher_tops.append(logits.amax(1))
            self.teacher.append(logits)
        self.tops = [torch.stack(tops).amax(0) for tops in (student_tops, teacher_tops)]

    def _find_labels(self, start: int, end: int) -> tuple[Tensor, Tensor]:
        inside = (self.labels >= start) & (self.labels < end)
        return inside, (self.labels - start).clamp(0, end - start - 1)

    def measure(self) -> tuple[Tensor, Tensor]:
        """Losses and divergences in float64; what is kept is what the slopes want."""
        top, teacher_top = (top[:, None] for top in self.tops)
        is_cold, scale = self.temperature == 1, 1 / self.temperature
        zeros = torch.zeros_like(self.own, dtype=torch.float64)
        plain, soft, teacher, dot = (zeros.clone() for _ in range(4))
        for place, (logits, taught) in enumerate(zip(self.student, self.teacher, strict=True)):
            logits.sub_(top)
            taught.sub_(teacher_top)
            if not is_cold:
                taught.mul_(scale)
            if self.has_gaps:
                taught.clamp_(min=_NEVER)
            shares = taught.exp()
            teacher += shares.sum(1)
            if is_cold:
                dot += taught.sub_(logits).mul_(shares).sum(1)
                plain += logits.exp_().sum(1)
            else:
                plain += logits.exp().sum(1)
                scaled = logits * scale
                dot += taught.sub_(scaled).mul_(shares).sum(1)
                soft += scaled.exp_().sum(1)
            self.teacher[place] = shares
        if is_cold:
            soft = plain
        self.sums = plain, soft, teacher
        losses = plain.log() + (self.tops[0].double() - self.own.double())
        divergences = (dot / teacher - teacher.log() + soft.log()).clamp_(min=0)
        return losses, divergences * self.temperature**2

    def make_slopes(self, for_loss: Tensor, for_divergence: Tensor) -> Any:
        """Gradients of the student's logits, chunk by chunk, which are used up by it."""
        loss, divergence = for_loss.double(), for_divergence.double() * self.temperature
        plain, soft, teacher = self.sums
        is_cold, scale = self.temperature == 1, 1 / self.temperature

        def column(values: Tensor) -> Tensor:
            return values.to(self.own.dtype)[:, None]

        both = column((loss + divergence) / plain)
        of_plain, of_soft = column(loss / plain), column(divergence / soft)
        of_teacher, of_label = column(divergence / teacher), column(loss)[:, 0]
        for place, (start, end) in enumerate(self.chunks):
            logits, shares = self.student[place], self.teacher[place]
            self.student[place] = self.teacher[place] = None
            if is_cold:
                slopes = logits.mul_(both)
            else:
                slopes = (logits * scale).exp_().mul_(of_soft)
                slopes.addcmul_(logits.exp_(), of_plain)
            slopes.addcmul_(shares, of_teacher, value=-1)
            inside, near = self._find_labels(start, end)
            slopes.scatter_add_(1, near[:, None], torch.where(inside, -of_label, 0)[:, None])
            yield start, end, slopes


def _multiply(left: Tensor, right: Tensor, kind: torch.dtype) -> Tensor:
    """A product in float32 or float64, whose factors stay in half precision on a GPU alone."""
    if left.is_cuda and left.dtype == right.dtype != kind and _HAS_WIDE_PRODUCTS:
        return torch.mm(left, right, out_dtype=kind)
    return left.to(kind) @ right.to(kind)


def _add_product(total: Tensor, left: Tensor, right: Tensor) -> None:
    if right.dtype == total.dtype:
        total.addmm_(left, right)
    else:
        total += _multiply(left.to(right.dtype) if right.is_cuda else left, right, total.dtype)


# From torch 2.8 on.
_HAS_WIDE_PRODUCTS = "dtype" in torch.ops.aten.mm.overloads()


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
