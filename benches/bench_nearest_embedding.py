"""Nearest embeddings against the product with all words in memory, and how much memory each takes.

BERT's 30,522 words of size 128.  On a CPU latents of 16 rows of 128 positions, half of which are
sources: a step of sampling at the paper's shape; `--full` adds matmul + argmin compiled by torch.
With `--cuda` 16,384 positions in bf16 on a GPU, compiled opponents included.
"""

from __future__ import annotations

import torch
from torch import Tensor

from gpu import Contender, compare_on, find_device, name_device, print_device
from lmcore.ops.nearest_embedding import nearest_embedding
from timing import is_full, save

WORDS, SIZE = 30_522, 128
ROWS, LENGTH, GPU_ROWS = 16, 128, 128
# Of the words that two ways find, so many may differ in bf16, whose products round differently.
SHARE = 1e-3


def by_topk(latents: Tensor, table: Tensor) -> Tensor:
    """As the released code does it: words x positions, then the best of the negative."""
    flat = latents.flatten(0, -2)
    distances = table.square().sum(1)[:, None] + flat.square().sum(1) - 2 * (table @ flat.T)
    return (-distances.clamp(min=0)).topk(1, dim=0).indices[0].view(latents.shape[:-1])


def by_cdist(latents: Tensor, table: Tensor) -> Tensor:
    """By torch's matrix of distances."""
    return torch.cdist(latents.flatten(0, -2), table).argmin(1).view(latents.shape[:-1])


def by_argmin(latents: Tensor, table: Tensor) -> Tensor:
    """The part of the distances that depends on the word, and its minimum."""
    squares = table.float().square().sum(1).to(table.dtype)
    scores = torch.addmm(squares, latents.flatten(0, -2), table.T, alpha=-2)
    return scores.argmin(1).view(latents.shape[:-1])


def check(latents: Tensor, table: Tensor, found: Tensor, other: Tensor, name: str) -> None:
    """Raises an error where another word is nearer than the one that was found."""
    if latents.dtype == torch.float32 and torch.equal(other, found):
        return
    x, w = latents.double().flatten(0, -2), table.double()
    distances = [(x - w[ids.flatten()]).square().sum(1) for ids in (found, other)]
    farther = ((distances[0] - distances[1]) > 1e-3 * distances[1]).double().mean().item()
    if farther > SHARE:
        raise AssertionError(f"{name} finds nearer words in {farther:.1%} of the positions")


def main() -> None:
    """Times all positions and half of them, after all have found the same."""
    device = find_device()
    print_device(device)
    torch.manual_seed(0)
    is_gpu = device.type == "cuda"
    rows, dtype = (GPU_ROWS, torch.bfloat16) if is_gpu else (ROWS, torch.float32)
    table = torch.randn(WORDS, SIZE, device=device).to(dtype)
    latents = torch.randn(rows, LENGTH, SIZE, device=device).to(dtype)
    targets = (torch.arange(LENGTH, device=device) >= LENGTH // 2).expand(rows, LENGTH)
    opponents = {"matmul + topk": by_topk, "matmul + argmin": by_argmin}
    if is_gpu or is_full():
        opponents["compiled matmul + argmin"] = torch.compile(by_argmin)
    if not is_gpu:
        opponents["cdist + argmin"] = by_cdist  # which has no bf16
    found = nearest_embedding(latents, table)
    for name, opponent in opponents.items():
        check(latents, table, found, opponent(latents, table), name)
    if not torch.equal(nearest_embedding(latents, table, targets), torch.where(targets, found, -1)):
        raise AssertionError("positions that are left out change what the others find")
    kept = compare_on(
        device,
        "nearest_embedding",
        f"{device.type}, {rows} x {LENGTH} positions, {WORDS} words of size {SIZE}, "
        f"{str(dtype).removeprefix('torch.')}",
        [
            Contender(name=name, call=lambda opponent=opponent: opponent(latents, table))
            for name, opponent in opponents.items()
        ],
        [
            Contender(
                name="all positions", call=lambda: nearest_embedding(latents, table),
                goal=">= 2" if is_gpu else "",
            ),
            Contender(
                name="targets alone", call=lambda: nearest_embedding(latents, table, targets)
            ),
        ],
        rounds=21 if is_gpu else 7,
    )  # fmt: skip
    save("nearest_embedding", kept, name_device(device))


if __name__ == "__main__":
    main()
