"""Losses of a batch by labels and by a teacher, for any model with a linear output layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lmcore.compression.distillation import IGNORED, distil
from lmcore.compression.distillation_config import DistillationConfig
from lmcore.compression.hidden_states import HiddenLoss, read_hidden_states
from lmcore.compression.output_heads import find_head, replace_head
from lmcore.compression.teacher import Teacher

_IDS = ("input_ids", "decoder_input_ids")


@dataclass(kw_only=True, slots=True, frozen=True, eq=False)
class DistilledLosses:
    """Losses of a batch; their sums over batches may be added up."""

    rows: Tensor
    """`[B]`: what is learned from, each part times its weight, added up over the labels."""
    cross_entropy: Tensor
    """`[B, T]` float32, 0 where there is no label."""
    divergence: Tensor
    """`[B, T]` float32."""
    distance: Tensor | None = None
    """`[B]`: of states, times the number of labels; None where it has no weight."""


def distil_batch(
    model: Any,
    teacher: Teacher,
    inputs: Mapping[str, Any],
    labels: Tensor,
    config: DistillationConfig,
    *,
    hidden: HiddenLoss | None = None,
) -> DistilledLosses:
    """Returns the losses of a batch; the logits of neither model are ever whole in memory.

    Source: Hinton et al. (arXiv 1503.02531), section 2.

    Args:
        model: the student; sharded or not. `check_head` says whether it can be one.
        teacher: on the same device.
        inputs: of the model, in its own ids, without labels.
        labels: `[B, T]` int64: what follows each place of the decoder; -100 where nothing does.
        config: temperature and weights.
        hidden: the distance of states, where `config.hidden_weight` is not 0.

    Raises:
        ValueError: the model has no linear output layer, or the shapes do not fit; or the states
            have a weight and no `hidden` is given.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> model, teacher = (GPT2LMHeadModel(GPT2Config(**sizes)).eval() for _ in "12")
        >>> inputs, labels = {"input_ids": torch.tensor([[3, 4]])}, torch.tensor([[4, -100]])
        >>> losses = distil_batch(model, Teacher(teacher), inputs, labels, DistillationConfig())
        >>> losses.rows.shape, losses.divergence.shape
        (torch.Size([1]), torch.Size([1, 2]))
    """
    more = {}
    if config.hidden_weight:
        if hidden is None:
            raise ValueError("hidden must be given where hidden_weight is not 0: got none")
        more = {"output_hidden_states": True}
    taught = dict(inputs)
    taught |= {name: teacher.find_ids(inputs[name]) for name in _IDS if name in inputs}
    teacher_states, teacher_hidden = teacher.find_outputs(taught, **more)
    head = find_head(model)

    def compute(states: Tensor) -> Tensor:
        if states.shape[:2] != labels.shape:
            raise ValueError(f"labels must be {[*states.shape[:2]]}: got {[*labels.shape]}")
        parts = distil(
            states.flatten(0, 1), head.weight, head.bias, labels.flatten(),
            teacher_states.flatten(0, 1), teacher.weight, teacher.bias,
            temperature=config.temperature, scales=config.scales,
        )  # fmt: skip
        return torch.stack(parts, -1).view(*labels.shape, 2)

    with replace_head(model, compute):
        output = model(**inputs, use_cache=False, **more)
    cross_entropy, divergence = output.logits.unbind(-1)
    first, second = config.scales
    rows = (first * cross_entropy + second * divergence).sum(1)
    distance = None
    if hidden is not None and config.hidden_weight:
        counted = labels != IGNORED
        own = read_hidden_states(output)
        distance = hidden(own, teacher_hidden, inputs.get("attention_mask"), counted)
        rows = rows + config.hidden_weight * distance
    return DistilledLosses(
        rows=rows, cross_entropy=cross_entropy, divergence=divergence, distance=distance
    )
