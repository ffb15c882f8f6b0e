"""The output layer of a model: what it gets, without the logits that it makes.

A model's own code decides what reaches the output layer: T5 with a tied embedding scales its
states before, OpenBA slices them, and each lies in another place of the model. So the states are
taken where they arrive: for the time of one call another function stands in place of the layer's
forward, and what it returns comes out as the model's logits. Because it is called inside of the
model's forward, it meets whole weights where they are sharded (FSDP2 gathers them there), and
because its result is an output of the model, gradients come in as of any other output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lmcore._extras import optional_imports
from lmcore.compression.loading import find_kind

with optional_imports():
    import torch
    from torch import Tensor, nn


def find_head(model: Any) -> nn.Linear:
    """Returns the linear layer that makes a model's logits.

    Args:
        model: of transformers.

    Raises:
        ValueError: it has none.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> find_head(GPT2LMHeadModel(GPT2Config(**sizes)))
        Linear(in_features=8, out_features=9, bias=False)
    """
    head = model.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        raise ValueError(f"{type(model).__name__} has no linear output layer: got {head!r:.60}")
    return head


@contextmanager
def replace_head(model: Any, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Yields while another function stands in place of the output layer's forward.

    Args:
        model: of transformers.
        forward: gets the states; what it returns, `[B, T, any]`, is what the model calls logits.

    Raises:
        ValueError: the model has no linear output layer.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> model = GPT2LMHeadModel(GPT2Config(**sizes))
        >>> with replace_head(model, lambda states: states):
        ...     model(torch.tensor([[3, 4]])).logits.shape
        torch.Size([1, 2, 8])
    """
    head = find_head(model)
    vars(head)["forward"] = forward
    try:
        yield
    finally:
        del vars(head)["forward"]


@torch.no_grad()
def check_head(model: Any) -> None:
    """Checks on a few tokens that the logits are those of the output layer and nothing else.

    Args:
        model: of transformers, all of it on one device, not sharded.

    Raises:
        ValueError: something comes behind the layer, such as a limit of the logits.

    Example:
        >>> from transformers import GPT2Config, GPT2LMHeadModel
        >>> sizes = {"vocab_size": 9, "n_layer": 1, "n_embd": 8, "n_head": 2}
        >>> check_head(GPT2LMHeadModel(GPT2Config(**sizes)))
    """
    head, was_training = find_head(model), model.training
    rows = head.weight.shape[0]
    ids = torch.arange(3, device=head.weight.device)[None] % rows
    inputs = {"input_ids": ids, "use_cache": False}
    if find_kind(model.config) == "encoder-decoder":
        inputs["decoder_input_ids"] = ids
    nn.Module.eval(model)
    seen: list[Tensor] = []

    def compute(states: Tensor) -> Tensor:
        seen.append(nn.functional.linear(states, head.weight, head.bias))
        return seen[-1]

    try:
        with replace_head(model, compute):
            logits = model(**inputs).logits
    finally:
        nn.Module.train(model, was_training)
    name = type(model).__name__
    if len(seen) != 1:
        raise ValueError(f"{name} calls its output layer {len(seen)} times")
    if logits.shape != seen[0].shape or not torch.equal(logits, seen[0].to(logits.dtype)):
        raise ValueError(f"{name} changes its logits behind the output layer")
