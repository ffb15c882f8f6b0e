"""Logits of a student and its teacher in blocks, and what follows from them.

Some positions are computed over the whole vocabulary, so that their distributions are known when
their gradients are made; within them some entries at a time, which stay in the caches.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

IGNORED = -100
# Logits of one model that exist at one time: 128 MB of float32 on a CPU, 512 MB on a GPU. Half of
# them take 16 % longer on a CPU, where gradients of weights are read and written for each block.
_BLOCK, _DEVICE_BLOCK = 1 << 25, 1 << 27
# Rows of a block: more make no product faster.
_MOST_ROWS, _MOST_DEVICE_ROWS = 512, 4096
# Of these what is computed between two products: what the caches of a CPU hold.
_NEAR_BLOCK, _LEAST_STEP = 1 << 18, 512
# Beyond it distributions are so even that their divergence drowns in the rounding of float32.
_HOT = 8.0
# A logit of the teacher that has no probability, and gives none of it times itself.
_NEVER = -1e30


class Inputs(NamedTuple):
    """What losses and their gradients follow from, as `lmcore.compression.distil` has it.

    Example:
        >>> states, weight = torch.zeros(2, 3), torch.ones(4, 3)
        >>> labels = torch.tensor([3, -100])
        >>> Inputs(states, weight, None, labels, states, weight, None, None, 1.0).kind
        torch.float32
    """

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
        """Returns the entries that so many positions are computed for at once."""
        count = len(self.weight)
        if self.weight.is_cuda:
            return [(0, count)]
        step = max(_NEAR_BLOCK // max(rows, 1), _LEAST_STEP)
        return [(start, min(start + step, count)) for start in range(0, count, step)]

    def find_rows(self) -> int:
        """Returns how many positions are computed at once."""
        is_cuda = self.weight.is_cuda
        block, most = (_DEVICE_BLOCK, _MOST_DEVICE_ROWS) if is_cuda else (_BLOCK, _MOST_ROWS)
        return min(max(block // max(len(self.weight), 1), 1), most)

    def make_logits(self, states: Tensor, start: int, end: int) -> Tensor:
        """Returns the student's logits of some entries."""
        logits = _multiply(states, self.weight[start:end].T, self.kind)
        if self.bias is not None:
            logits += self.bias[start:end]
        return logits.to(self.work)

    def make_teacher_logits(self, states: Tensor, start: int, end: int, has_gaps: bool) -> Tensor:
        """Returns the teacher's logits of some entries of the student."""
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
        """Returns whether the teacher never says some entries."""
        gone = self.kept is not None and bool((self.kept < 0).any())
        return gone or (
            self.teacher_bias is not None and bool((self.teacher_bias == -torch.inf).any())
        )


def compute(
    inputs: Inputs, outer: tuple[Tensor, ...] | None, wanted: tuple[bool, ...]
) -> tuple[Any, ...]:
    """Returns losses, divergences, and gradients of states, weight and bias where they are wanted.

    Args:
        inputs: which are checked.
        outer: `[N]` each, what losses and divergences count; None: not known, and no gradients.
        wanted: whether states, weight and bias have a gradient.

    Returns:
        `[N]` twice, and what has the shapes of states, weight and bias, or None.

    Example:
        >>> states, weight = torch.zeros(2, 3), torch.ones(4, 3)
        >>> labels = torch.tensor([3, -100])
        >>> inputs = Inputs(states, weight, None, labels, states, weight, None, None, 1.0)
        >>> compute(inputs, None, (True, True, False))[0].exp()
        tensor([4., 1.])
    """
    labels, kind, work = inputs.labels, inputs.kind, inputs.work
    has_gaps = inputs.has_gaps()
    losses, divergences = (
        torch.zeros(labels.shape, dtype=kind, device=labels.device) for _ in range(2)
    )
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
        inputs: Inputs,
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
