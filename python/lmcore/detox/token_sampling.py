"""Tokens that are drawn from a model's nucleus, with noise that belongs to (seed, item, position).

Neither the order of texts nor which of them are worked on together changes a draw; how a model's
numbers are rounded may depend on the size of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from lmcore._extras import optional_imports
from lmcore.ops.philox import random_uniform
from lmcore.training.models import no_reports

with optional_imports():
    from transformers import (
        GenerationConfig,
        LogitsProcessor,
        LogitsProcessorList,
        StoppingCriteria,
        StoppingCriteriaList,
    )

# So many of the likeliest tokens are looked at first: a nucleus is hardly ever larger.
_FIRST = 256


class NucleusChoice(LogitsProcessor):
    """Leaves one token of each row, drawn from the likeliest ones: for greedy `generate`.

    The nucleus is the fewest tokens whose probabilities come to `top_p` at least. A row needs one
    number in 0..1 for each token.

    Args:
        draws: `[rows, positions]` float, each in [0, 1).
        top_p: above 0 and at most 1.
        temperature: by which scores are divided, above 0.

    Raises:
        ValueError: a setting is out of its range.

    Example:
        >>> choose = NucleusChoice(torch.tensor([[0.1]]), top_p=0.5)
        >>> choose(torch.zeros(1, 0), torch.tensor([[1.0, 5.0, 2.0]])).argmax().item()
        1
    """

    def __init__(self, draws: Tensor, *, top_p: float = 0.9, temperature: float = 1.0) -> None:
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1: got {top_p}")
        if not temperature > 0:
            raise ValueError(f"temperature must be above 0: got {temperature}")
        self.draws, self.top_p, self.temperature = draws, top_p, temperature
        self.position = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Returns scores of which one in each row is finite.

        Args:
            input_ids: `[rows, length]`, which do not matter.
            scores: `[rows, vocabulary]` float.
        """
        shares = torch.softmax(scores.float() / self.temperature, -1)
        draws = self.draws[:, self.position].to(shares.device, torch.float32)
        self.position += 1
        first = min(_FIRST, shares.shape[1])
        found, order = shares.topk(first)
        chosen = self._choose(found, order, draws)
        # Whether a row needs all of its tokens is its own affair: its neighbours do not count.
        wide = (found.sum(-1) < self.top_p).nonzero()[:, 0]
        if first < shares.shape[1] and len(wide):
            chosen[wide] = self._choose(*shares[wide].sort(descending=True), draws[wide])
        return torch.full_like(scores, -torch.inf).scatter_(1, chosen[:, None], 0.0)

    def _choose(self, shares: Tensor, order: Tensor, draws: Tensor) -> Tensor:
        sums = shares.cumsum(-1)
        count = ((sums - shares) < self.top_p).sum(-1, keepdim=True)
        whole = sums.gather(1, count - 1)
        index = (sums <= draws[:, None] * whole).sum(-1, keepdim=True)
        return order.gather(1, torch.minimum(index, count - 1))[:, 0]


class _Stop(StoppingCriteria):
    """Ends a row when a function of its new tokens says so."""

    def __init__(self, length: int, is_done: Callable[[int, list[int]], bool]) -> None:
        self.length, self.is_done = length, is_done

    def __call__(self, input_ids: Tensor, scores: Any, **more: Any) -> Tensor:
        rows = input_ids[:, self.length :].tolist()
        done = [self.is_done(row, tokens) for row, tokens in enumerate(rows)]
        return torch.tensor(done, device=input_ids.device)


def draw_noise(seed: int, stream: int, items: Sequence[int], count: int) -> Tensor:
    """Returns the numbers that `NucleusChoice` needs.

    Args:
        seed: below 2**64.
        stream: which use of randomness it is.
        items: one for each row, each below 2**64.
        count: tokens at most.

    Returns:
        `[rows, count]` float64, each in [0, 1): functions of (seed, stream, item, position).

    Raises:
        ValueError: an argument is out of its range.

    Example:
        >>> draw_noise(1, 228, [5, 6], 3).shape
        torch.Size([2, 3])
    """
    return torch.from_numpy(random_uniform(seed, stream, list(items), count))


def sample_tokens(
    model: Any,
    inputs: Mapping[str, Tensor],
    choose: NucleusChoice,
    *,
    pad: int,
    end: int | None,
    max_new_tokens: int,
    is_done: Callable[[int, list[int]], bool] | None = None,
    in_step: bool = False,
) -> Tensor:
    """Returns what a model goes on with, without what it was given.

    Args:
        model: of transformers, in the mode of evaluation.
        inputs: as `generate` takes them, on the model's device; a decoder's part is padded on the
            left.
        choose: whose rows are those of the inputs.
        pad: id of what stands behind an end.
        end: id of the token that ends a text; None: all have `max_new_tokens`.
        max_new_tokens: tokens at most.
        is_done: of a row's number and its new tokens, whether it is at its end.
        in_step: whether the weights are sharded, so that all processes must go on together.

    Returns:
        `[rows, at most max_new_tokens]` int64.

    Raises:
        ValueError: the model is not made for generating.

    Example:
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), make_tokenizer(["a"], 300))
        >>> inputs = {"input_ids": torch.tensor([[5]]), "attention_mask": torch.tensor([[1]])}
        >>> choose = NucleusChoice(draw_noise(1, 228, [0], 4))
        >>> sample_tokens(model, inputs, choose, pad=0, end=None, max_new_tokens=4).shape
        torch.Size([1, 4])
    """
    is_encoder_decoder = bool(model.config.is_encoder_decoder)
    given = inputs.get("decoder_input_ids") if is_encoder_decoder else inputs["input_ids"]
    length = 1 if given is None else given.shape[1]
    settings = GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=False,
        num_beams=1,
        pad_token_id=pad,
        eos_token_id=end,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    more: dict[str, Any] = {}
    if is_done is not None:
        more["stopping_criteria"] = StoppingCriteriaList([_Stop(length, is_done)])
    with torch.no_grad(), no_reports(), _own_settings_put_off(model):
        ids: Tensor = model.generate(
            **inputs,
            generation_config=settings,
            logits_processor=LogitsProcessorList([choose]),
            synced_gpus=in_step,
            **more,
        )
    return ids[:, length:]


@contextmanager
def _own_settings_put_off(model: Any) -> Iterator[None]:
    """The model's own settings may ask for other tokens, and stand in for what is not given."""
    # What peft wraps is given the wrapper's settings, and keeps them.
    owners = [model, *([model.get_base_model()] if hasattr(model, "peft_config") else [])]
    before = [owner.generation_config for owner in owners]
    for owner in owners:
        owner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        for owner, own in zip(owners, before, strict=True):
            owner.generation_config = own
