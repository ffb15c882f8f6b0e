"""A model's own continuations, and how far they are from clean and toxic ones (section 4.2).

The authors compute all of it within GPT-2's forward pass. Here each part is a function of any
model: `sample_anchors` writes the continuations, `contrast` compares. A text is represented by
the hidden states of its tokens alone, without the chain before them; in an encoder-decoder, for
which nothing is published, they are the decoder's last ones over the continuation, where the
encoder reads the row's input.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lmcore.detox.contrastive import contrastive_loss, pool_states
from lmcore.detox.recipes import ContrastiveConfig
from lmcore.detox.token_sampling import NucleusChoice, sample_tokens


class Anchors(NamedTuple):
    """What a model goes on with itself."""

    ids: Tensor
    """`[rows, width]` int64, padded on the right."""
    mask: Tensor
    """`[rows, width]` int64, 1 for tokens, the end among them."""


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Yields with a model in the mode of evaluation; afterwards each part has its own again.

    The authors' model stays in that mode once it has sampled, without dropout.

    Args:
        model: any.

    Example:
        >>> model = nn.Linear(1, 1).train()
        >>> with evaluating(model):
        ...     print(model.training)
        False
        >>> model.training
        True
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def sample_anchors(
    model: Any,
    batch: Mapping[str, Tensor],
    noise: Tensor,
    config: ContrastiveConfig,
    *,
    pad: int,
    end: int | None,
    in_step: bool = False,
) -> Anchors:
    """Returns a model's own continuations behind the templates of a batch, without gradients.

    Source: section 4.2 of the specification, step 2; with a cache of keys and values.

    Args:
        model: of transformers, in any mode, which it has afterwards as well.
        batch: of `ChainCollator`: its templates, and for an encoder-decoder its inputs.
        noise: `[rows, config.anchor_tokens]` float in [0, 1), such as `draw_noise` gives.
        config: how they are sampled.
        pad: id of padding.
        end: id of the token that ends a text; None where there is none.
        in_step: whether the weights are sharded, so that all processes must go on together.

    Raises:
        ValueError: there is not a row of noise for each of the batch.

    Example:
        >>> from lmcore.detox.chain_collator import ChainCollator
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> row = {"output": text, "cont_generation": ["oh", "no"]}
        >>> batch = ChainCollator(tokenizer, model)([row])
        >>> config = ContrastiveConfig(anchor_tokens=3)
        >>> noise = torch.tensor([[0.1, 0.5, 0.9]])
        >>> anchors = sample_anchors(model, batch, noise, config, pad=0, end=1)
        >>> anchors.ids.shape, anchors.mask.sum().item()
        (torch.Size([1, 24]), 3)
    """
    rows = batch["template_ids"]
    if noise.shape != (len(rows), config.anchor_tokens):
        raise ValueError(
            f"noise must be {[len(rows), config.anchor_tokens]}: got {list(noise.shape)}"
        )
    inputs = {"input_ids": rows, "attention_mask": batch["template_mask"]}
    if model.config.is_encoder_decoder:
        inputs = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": rows,
            "decoder_attention_mask": batch["template_mask"],
        }
    choose = NucleusChoice(noise, top_p=config.top_p, temperature=config.anchor_temperature)
    with evaluating(model):
        found = sample_tokens(
            model, inputs, choose, pad=pad, end=end, max_new_tokens=config.anchor_tokens,
            in_step=in_step,
        )  # fmt: skip
    width = config.max_continuation_tokens
    ids = found.new_full((len(found), width), pad)
    ids[:, : found.shape[1]] = found
    ended = torch.zeros_like(found) if end is None else (found == end).long()
    mask = torch.zeros_like(ids)
    # A token counts if none before it is the end.
    mask[:, : found.shape[1]] = (ended.cumsum(1) - ended == 0).long()
    return Anchors(ids, mask)


def contrast(
    model: Any, batch: Mapping[str, Tensor], anchors: Anchors, config: ContrastiveConfig
) -> Tensor:
    """Returns the contrastive term of each group of a batch, in the order of its rows.

    All texts go through the model in one pass.

    Source: section 4.2 of the specification, steps 3 to 5.

    Args:
        model: of transformers.
        batch: of `ChainCollator`.
        anchors: of all of its rows.
        config: pooling and temperature.

    Returns:
        `[groups]` float32; rows without a toxic continuation are no group.

    Example:
        >>> from lmcore.detox.chain_collator import ChainCollator
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> row = {"output": text, "cont_generation": ["oh", "no"]}
        >>> batch = ChainCollator(tokenizer, model)([row])
        >>> config = ContrastiveConfig(anchor_tokens=3)
        >>> noise = torch.tensor([[0.1, 0.5, 0.9]])
        >>> anchors = sample_anchors(model, batch, noise, config, pad=0, end=1)
        >>> contrast(model, batch, anchors, config).shape
        torch.Size([1])
    """
    present = batch["continuation_mask"].any(-1)
    groups = find_groups(batch)
    present, count = present[groups], int(groups.sum())
    if not count:
        return torch.zeros(0, device=present.device)
    ids = torch.cat([anchors.ids[groups], batch["continuation_ids"][groups][present]])
    mask = torch.cat([anchors.mask[groups], batch["continuation_mask"][groups][present]])
    source = None
    if model.config.is_encoder_decoder:
        # Each text is read beside the input of its row.
        own = torch.arange(count, device=present.device)
        index = torch.cat([own, own[:, None].expand_as(present)[present]])
        inputs, read = batch["input_ids"][groups], batch["attention_mask"][groups]
        source = inputs[index], read[index]
    vectors = pool_states(find_states(model, ids, mask, source), mask, config.pooling)
    candidates = vectors.new_zeros((*present.shape, vectors.shape[-1]))
    candidates = candidates.masked_scatter(present[..., None], vectors[count:])
    return contrastive_loss(vectors[:count], candidates, present, temperature=config.temperature)


def find_groups(batch: Mapping[str, Tensor]) -> Tensor:
    """Returns which rows of a batch have a clean and a toxic continuation, `[rows]` bool.

    Args:
        batch: of `ChainCollator`.

    Example:
        >>> from lmcore.detox.chain_collator import ChainCollator
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> row = {"output": text, "cont_generation": ["oh", "no"]}
        >>> batch = ChainCollator(tokenizer, model)([row])
        >>> find_groups(batch)
        tensor([True])
    """
    present = batch["continuation_mask"].any(-1)
    if not present.shape[1]:
        return torch.zeros(len(present), dtype=torch.bool, device=present.device)
    return present[:, 0] & present[:, 1:].any(1)


def find_states(
    model: Any, ids: Tensor, mask: Tensor, source: tuple[Tensor, Tensor] | None = None
) -> Tensor:
    """Returns the last hidden states of texts, `[texts, length, hidden]`, behind the last norm.

    Args:
        model: of transformers, whole or with LoRA, sharded or not.
        ids: `[texts, length]` int64.
        mask: `[texts, length]`, 1 for tokens.
        source: ids and mask of what an encoder reads, `[texts, source]` each.

    Example:
        >>> from lmcore.detox.chain_collator import ChainCollator
        >>> from lmcore.detox.models import make_model
        >>> from lmcore.detox.recipes import ScratchConfig
        >>> from lmcore.training.models import make_tokenizer
        >>> tokenizer = make_tokenizer(["# Text: hello"], 300)
        >>> model = make_model(ScratchConfig(hidden_size=8, heads=1), tokenizer)
        >>> text = ("# Text: hi # Let's detoxify step by step. # The context is non-toxic. "
        ...     "# Generation: oh #")
        >>> row = {"output": text, "cont_generation": ["oh", "no"]}
        >>> batch = ChainCollator(tokenizer, model)([row])
        >>> find_states(model, batch["input_ids"], batch["attention_mask"]).shape[-1]
        8
    """
    options: dict[str, Any] = {"output_hidden_states": True, "use_cache": False}
    if source is not None:
        read, read_mask = source
        found = model(
            input_ids=read, attention_mask=read_mask, decoder_input_ids=ids,
            decoder_attention_mask=mask, **options,
        )  # fmt: skip
        return _last(found.decoder_hidden_states)
    if "logits_to_keep" in inspect.signature(_find_forward(model)).parameters:
        options["logits_to_keep"] = 1  # nobody looks at them
    found = model(input_ids=ids, attention_mask=mask, **options)
    return _last(found.hidden_states)


def _find_forward(model: Any) -> Callable[..., Any]:
    base = model.get_base_model() if hasattr(model, "peft_config") else model
    forward: Callable[..., Any] = base.forward
    return forward


def _last(states: tuple[Tensor, ...]) -> Tensor:
    return states[-1]
