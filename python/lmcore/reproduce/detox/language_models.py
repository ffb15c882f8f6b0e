"""Small language models of a claim: trained on comments, sampled, and asked for perplexities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

_STREAM = 239  # of the claims' samples
_BATCH = 128


def train_language_model(
    seed: int, texts: Sequence[str], tokenizer: Any, *, steps: int, hidden_size: int
) -> Any:
    """Returns a GPT-2 of two layers, trained from nothing on whole texts.

    Args:
        seed: of its first weights and of the order of texts.
        texts: to train on.
        tokenizer: of transformers.
        steps: of 32 texts.
        hidden_size: of the model.
    """
    from lmcore.detox.models import make_model
    from lmcore.detox.recipes import ScratchConfig
    from lmcore.training.seeding import seed_torch

    seed_torch(seed)
    shape = ScratchConfig(hidden_size=hidden_size, heads=4, positions=256)
    model = make_model(shape, tokenizer)
    return learn_texts(model, seed, texts, tokenizer, steps=steps)


def learn_texts(
    model: Any, seed: int, texts: Sequence[str], tokenizer: Any, *, steps: int, lr: float = 3e-3
) -> Any:
    """Returns a causal model after training on whole texts.

    Args:
        model: it is trained itself.
        seed: of the order of texts.
        texts: to train on.
        tokenizer: of the model.
        steps: of 32 texts.
        lr: step size of AdamW, which rises for 20 steps and falls to 0 in a line.
    """
    import numpy as np
    import torch

    from lmcore.training.batches import ExampleBatches, stack_rows

    model.train()
    end = tokenizer.eos_token_id
    rows = [[*ids, end] for ids in tokenizer([*texts])["input_ids"]]

    def stack(chosen: Sequence[list[int]]) -> dict[str, Any]:
        seen = stack_rows([np.ones(len(row)) for row in chosen], 0)
        ids = stack_rows([np.array(row) for row in chosen], tokenizer.pad_token_id)
        labels = ids.masked_fill(seen == 0, -100)
        return {"input_ids": ids, "attention_mask": seen, "labels": labels}

    batches = ExampleBatches(rows, 32, seed, stack)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=0.0)
    for step in range(1, steps + 1):
        for group in optimizer.param_groups:
            group["lr"] = lr * min(1.0, step / 20) * (1 - (step - 1) / steps)
        chosen = [rows[index] for index in batches.find(step, slice(32))]
        loss = model(**stack(chosen)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return model.eval()


def continue_texts(
    model: Any, tokenizer: Any, contexts: Sequence[str], *, samples: int, seed: int
) -> list[list[str]]:
    """Returns what a model writes behind texts, 20 tokens at most (section 5).

    Args:
        model: causal.
        tokenizer: of the model.
        contexts: texts.
        samples: of each.
        seed: of the noise.
    """
    from lmcore.detox.text_sampling import Draws, TextSampler

    sampler = TextSampler(model, tokenizer)
    rows = [(n * samples + k, text) for n, text in enumerate(contexts) for k in range(samples)]
    written: list[str] = []
    for first in range(0, len(rows), _BATCH):
        part = rows[first : first + _BATCH]
        draws = Draws(
            items=[number for number, _ in part], seed=seed, stream=_STREAM, top_p=0.9,
            temperature=1.0,
        )  # fmt: skip
        sources = [sampler.read(text) for _, text in part]
        written += [sampler.show(t) for t in sampler.sample(sources, draws, [20] * len(part))]
    return [written[n * samples : (n + 1) * samples] for n in range(len(contexts))]


def find_perplexity(
    model: Any, tokenizer: Any, contexts: Sequence[str], generations: Sequence[Sequence[str]]
) -> float:
    """Returns exp of the mean loss of generated tokens behind their contexts.

    Args:
        model: causal.
        tokenizer: of the model.
        contexts: what was continued.
        generations: of each context; empty ones are left out. If all are, there is no number.
    """
    import numpy as np
    import torch
    from torch.nn import functional

    from lmcore.training.batches import stack_rows

    pairs = [
        (tokenizer(text)["input_ids"], tokenizer(" " + one.strip())["input_ids"])
        for text, found in zip(contexts, generations, strict=True)
        for one in found
        if one.strip()
    ]
    total, count = 0.0, 0
    for first in range(0, len(pairs), _BATCH):
        part = pairs[first : first + _BATCH]
        whole = [np.array([*before, *behind]) for before, behind in part]
        asked = [np.array([-100] * len(before) + behind) for before, behind in part]
        ids, labels = stack_rows(whole, 0), stack_rows(asked, -100)
        seen = stack_rows([np.ones(len(row)) for row in whole], 0)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=seen).logits[:, :-1]
        losses = functional.cross_entropy(
            logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100, reduction="sum"
        )
        total += float(losses)
        count += int((labels[:, 1:] >= 0).sum())
    return math.exp(total / count) if count else math.nan
