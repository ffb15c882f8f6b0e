"""Texts that a model in training generates for validation rows, shared among the processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lmcore._extras import optional_imports
from lmcore.ner.collator import GNERCollator
from lmcore.training.processes import Processes

with optional_imports():
    from transformers import GenerationConfig


def generate_texts(
    model: Any,
    collator: GNERCollator,
    prompts: Sequence[NDArray[np.int32]],
    *,
    batch_size: int,
    processes: Processes | None = None,
    in_step: bool = False,
) -> list[str]:
    """Returns what a model writes for each prompt, greedily; every process calls it.

    Prompts of about one length stand together, and each process takes every n-th of these.

    Args:
        model: of transformers, in the mode of evaluation, on the device of this process.
        collator: whose limits hold, and whose tokenizer reads and writes.
        prompts: what `collator.encode_prompts` returned.
        batch_size: prompts for which to generate at once.
        processes: those that share the work; this one alone if None.
        in_step: whether the weights are sharded, so that all processes must generate as often.

    Raises:
        ValueError: `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1: got {batch_size}")
    processes = processes or Processes()
    order = sorted(range(len(prompts)), key=lambda index: -len(prompts[index]))
    own = order[processes.rank :: processes.count]
    # As many batches in each process; what is generated twice is the same.
    padded = own
    if in_step:
        padded = own + order[:1] * (-(-len(order) // processes.count) - len(own))
    found: dict[int, str] = {}
    for first in range(0, len(padded), batch_size):
        part = padded[first : first + batch_size]
        texts = _generate(model, collator, [prompts[p] for p in part], processes, in_step)
        found.update(zip(part, texts, strict=True))
    together: dict[int, str] = {}
    for other in processes.gather(found):
        together.update(other)
    return [together[index] for index in range(len(prompts))]


def _generate(
    model: Any,
    collator: GNERCollator,
    prompts: list[NDArray[np.int32]],
    processes: Processes,
    in_step: bool,
) -> list[str]:
    tokenizer = collator.tokenizer
    batch = collator.pad_prompts(prompts)
    length = 0 if collator.is_encoder_decoder else batch["input_ids"].shape[1]
    most = collator.max_target_tokens
    if not collator.is_encoder_decoder:
        # What both may have together; the longest prompt leaves the least.
        whole = collator.max_source_tokens + most
        positions = getattr(model.config, "max_position_embeddings", None) or whole
        most = max(1, min(whole, positions) - length)
    # Nothing of the model's own settings, which may ask for drawn tokens.
    settings = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        decoder_start_token_id=getattr(model.config, "decoder_start_token_id", None),
    )
    with torch.no_grad():
        ids = model.generate(
            **{name: value.to(processes.device) for name, value in batch.items()},
            generation_config=settings,
            synced_gpus=in_step,
        )
    texts: list[str] = tokenizer.batch_decode(ids[:, length:], skip_special_tokens=True)
    return texts
