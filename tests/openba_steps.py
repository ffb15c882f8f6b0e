"""Steps of training with generation between them, in one process or in several."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from lmcore.openba import OpenBAForConditionalGeneration
from tiny_openba import make_batch


def whole(tensor: Tensor) -> Tensor:
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def make_tokens(model: OpenBAForConditionalGeneration, batch: dict[str, Any]) -> list[Any]:
    ways: list[dict[str, Any]] = [{}, {"cache_implementation": "static"}, {"num_beams": 2}]
    return [
        model.generate(
            batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=5,
            do_sample=False,
            **way,
        ).tolist()
        for way in ways
    ]


def train(folder: Path, out: Path, kind: str = "") -> dict[str, Any]:
    """Loads, generates, makes two steps with generation behind each, and saves.

    Args:
        folder: of the model.
        out: where to save it.
        kind: how it is divided, such as `fsdp_size`.
    """
    options: dict[str, Any] = {}
    rows, parts = slice(None), 1
    if kind:
        from transformers.distributed import DistributedConfig

        options["distributed_config"] = DistributedConfig(**{kind: 2})
    if kind == "fsdp_size":
        # Each process has its half of the rows, and gradients are averaged.
        rank = torch.distributed.get_rank()
        rows, parts = slice(2 * rank, 2 * rank + 2), 2
    model = OpenBAForConditionalGeneration.from_pretrained(folder, **options)
    shards = [name for name, p in model.named_parameters() if isinstance(p, DTensor)]
    batch = make_batch(rows=4)
    count = (batch["labels"] != -100).sum() / parts
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    tokens, numbers = [make_tokens(model, batch)], []
    for _ in range(2):
        model.train()
        part = {name: value[rows] for name, value in batch.items()}
        model(**part, num_items_in_batch=count).loss.backward()
        norms = [whole(p.grad).norm() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            loss = whole(model(**batch).loss)
        numbers += [float(torch.stack(norms).norm()), float(loss)]
        tokens.append(make_tokens(model, batch))
    model.save_pretrained(out)
    return {"tokens": tokens, "numbers": numbers, "shards": shards}
