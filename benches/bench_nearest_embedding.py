"""Nearest embeddings against the product with all words in memory, on a GPU where there is one.

Latents of 16 rows of 128 positions, half of which are sources, and BERT's 30,522 words of size 128:
a step of sampling at the paper's shape.  `--full` adds matmul + argmin compiled by torch.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lmcore.ops.nearest_embedding import nearest_embedding
from timing import compare, is_full, measure_peak, print_conditions, save

ROWS, LENGTH, WORDS, SIZE = 16, 128, 30_522, 128


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
    scores = torch.addmm(table.square().sum(1), latents.flatten(0, -2), table.T, alpha=-2)
    return scores.argmin(1).view(latents.shape[:-1])


def measure_memory(call: Callable[[], object], device: torch.device) -> int:
    """Megabytes that a call needs at most."""
    if device.type != "cuda":
        return measure_peak(call)
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    call()
    return (torch.cuda.max_memory_allocated(device) - before) >> 20


def main() -> None:
    """Times all positions and half of them, after all have found the same."""
    print_conditions()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    table = torch.randn(WORDS, SIZE, device=device)
    latents = torch.randn(ROWS, LENGTH, SIZE, device=device)
    targets = (torch.arange(LENGTH, device=device) >= LENGTH // 2).expand(ROWS, LENGTH)
    opponents = {"matmul + topk": by_topk, "cdist + argmin": by_cdist, "matmul + argmin": by_argmin}
    if is_full():
        opponents["compiled matmul + argmin"] = torch.compile(by_argmin)
    found = nearest_embedding(latents, table)
    for name, opponent in opponents.items():
        if not torch.equal(opponent(latents, table), found):
            raise AssertionError(f"{name} finds other words")

    def finish(call: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            call()
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        return run

    ours = {
        "all positions": finish(lambda: nearest_embedding(latents, table)),
        "targets alone": finish(lambda: nearest_embedding(latents, table, targets)),
    }
    case = f"{device.type}, {ROWS} x {LENGTH} positions, {WORDS} words of size {SIZE}"
    rows = []
    for name, opponent in opponents.items():
        theirs = finish(lambda opponent=opponent: opponent(latents, table))
        print(f"{name}: peak {measure_memory(theirs, device)} MB")
        contenders = [(kind, call, "") for kind, call in ours.items()]
        rows += compare("nearest_embedding", case, (name, theirs), *contenders, repeats=1)
    for name, call in ours.items():
        print(f"{name}: peak {measure_memory(call, device)} MB")
    save("nearest_embedding", rows)


if __name__ == "__main__":
    main()
