"""How far a student's states are from its teacher's, in layers that belong together.

A learned projection takes the student's states to the teacher's width. Which layer of the teacher
one of the student was, and which channels it kept, the records of pruning say.

Source: Minitron (arXiv 2407.14679), section 3.2, whose intermediate losses are projected so;
OpenBA-V2 has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from lmcore.compression.lineage import Lineage

States: TypeAlias = Mapping[str, Sequence[Tensor]]
"""Of `encoder` and `decoder`: what went in, and what came out of each layer."""


def read_hidden_states(output: Any) -> dict[str, tuple[Tensor, ...]]:
    """Returns the states in an output of a model of transformers, by stack.

    Args:
        output: of a model that was called with `output_hidden_states`.

    Example:
        >>> from types import SimpleNamespace
        >>> read_hidden_states(SimpleNamespace(hidden_states=(torch.zeros(1),)))
        {'decoder': (tensor([0.]),)}
    """
    if getattr(output, "decoder_hidden_states", None) is not None:
        return {
            "encoder": tuple(output.encoder_hidden_states),
            "decoder": tuple(output.decoder_hidden_states),
        }
    return {"decoder": tuple(output.hidden_states)}


def pair_layers(count: int, teacher_count: int, kept: Sequence[int] | None) -> dict[int, int]:
    """Returns the middle layer and the last one, each with that of the teacher.

    The last belongs to the last, whatever was kept: the stack's norm stands behind both.

    Args:
        count: layers of the student.
        teacher_count: of the teacher.
        kept: which layer there each one was; None: all of them, or not known.

    Raises:
        ValueError: they are other ones, or nothing says which belong together.

    Example:
        >>> pair_layers(4, 6, [0, 2, 4, 5])
        {1: 2, 3: 5}
    """
    if kept is None:
        if count != teacher_count:
            raise ValueError(
                f"no record says which of {teacher_count} layers {count} of the student were"
            )
        kept = range(count)
    if len(kept) != count or max(kept, default=0) >= teacher_count:
        raise ValueError(f"{count} of {teacher_count} layers must be kept: got {len(kept)}")
    if not count:
        return {}
    middle = (count - 1) // 2
    return {middle: kept[middle], count - 1: teacher_count - 1}


class HiddenLoss(nn.Module):
    """Returns the distance of chosen layers' states: squares over the teacher's squares.

    Its parameters are the projections, one for each pair of layers, which start as the channels
    that were kept. They are trained with the student, and are no part of it.

    Args:
        layers: of `encoder` and `decoder`, which layers of the student belong to which of the
            teacher.
        size: channels of the student.
        teacher_size: of the teacher.
        kept: which channel of the teacher each one was; None: the first ones.

    Raises:
        ValueError: the channels are others.

    Example:
        >>> hidden = HiddenLoss({"decoder": {0: 1}}, 2, 3, [0, 2])
        >>> own = {"decoder": [torch.zeros(1, 1, 2), torch.tensor([[[1.0, 2.0]]])]}
        >>> states = [*[torch.zeros(1, 1, 3)] * 2, torch.tensor([[[1.0, 0.0, 2.0]]])]
        >>> hidden(own, {"decoder": states}, None, torch.tensor([[True]])).tolist()
        [0.0]
    """

    def __init__(
        self,
        layers: Mapping[str, Mapping[int, int]],
        size: int,
        teacher_size: int,
        kept: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        places = range(min(size, teacher_size)) if kept is None else kept
        if len(places) > size or max(places, default=0) >= teacher_size:
            raise ValueError(f"{size} of {teacher_size} channels must be kept: got {len(places)}")
        self.layers = {stack: dict(pairs) for stack, pairs in layers.items()}
        first = torch.zeros(teacher_size, size)
        first[torch.tensor([*places]), torch.arange(len(places))] = 1
        self.projections = nn.ParameterDict(
            {
                f"{stack}_{layer}": nn.Parameter(first.clone())
                for stack, pairs in self.layers.items()
                for layer in pairs
            }
        )

    @classmethod
    def make(cls, config: Any, teacher_config: Any, lineage: Lineage) -> HiddenLoss:
        """Returns the distance for two models, by what the records of pruning say.

        Args:
            config: of the student.
            teacher_config: of the teacher.
            lineage: what the student kept.

        Raises:
            ValueError: the records do not say which layers belong together.

        Example:
            >>> from transformers import GPT2Config
            >>> configs = [GPT2Config(n_layer=n, n_embd=8, n_head=2) for n in (2, 3)]
            >>> HiddenLoss.make(*configs, Lineage(decoder_layers=(0, 2))).layers
            {'decoder': {0: 0, 1: 2}}
        """
        shapes = [_read_sizes(each) for each in (config, teacher_config)]
        layers = {
            stack: pair_layers(
                shapes[0][stack], shapes[1][stack], getattr(lineage, f"{stack}_layers")
            )
            for stack in ("encoder", "decoder")
            if shapes[0][stack]
        }
        return cls(layers, shapes[0]["hidden"], shapes[1]["hidden"], lineage.hidden)

    def forward(
        self, states: States, teacher_states: States, mask: Tensor | None, counted: Tensor
    ) -> Tensor:
        """Returns for each row the mean distance, times the number of its labels: `[B]` float32.

        Args:
            states: of the student.
            teacher_states: of the teacher.
            mask: `[B, S]`, 0 where the source is padding; None: nowhere.
            counted: `[B, T]` bool: where the decoder has labels.
        """
        found, labels = [], counted.sum(1)
        for stack, pairs in self.layers.items():
            shown = counted if stack == "decoder" or mask is None else mask
            if stack == "encoder" and mask is None:
                shown = torch.ones_like(states[stack][0][..., 0])
            weights = shown.float()
            weights = weights / weights.sum(1, keepdim=True).clamp(min=1)
            for layer, other in pairs.items():
                goal = teacher_states[stack][other + 1].detach().float()
                own = states[stack][layer + 1].float() @ self.projections[f"{stack}_{layer}"].T
                squares = goal.square().sum(-1).clamp(min=torch.finfo(torch.float32).tiny)
                # Where nothing is shown anything may stand, even what is not finite.
                each = (own - goal).square().sum(-1) / squares
                found.append((torch.where(weights > 0, each, 0) * weights).sum(1))
        return torch.stack(found).mean(0) * labels


def _read_sizes(config: Any) -> dict[str, int]:
    from lmcore.cost.configs import make_shape

    shape = make_shape(config.to_dict())
    return {
        "encoder": shape.encoder_layers, "decoder": shape.decoder_layers,
        "hidden": shape.hidden_size,
    }  # fmt: skip
