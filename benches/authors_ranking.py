"""The UFNRec authors' evaluator and its model, written for timing.

Same steps, same data structures and same cost as their script, in our words: one user at a
time, 100 drawn items beside the target, the whole data set copied at each call.
"""

from __future__ import annotations

import copy
import math
import random

import numpy as np
import torch
from torch import nn

# Train, validation and test items of each user, from 1, and the numbers of users and items.
Histories = dict[int, list[int]]
Dataset = tuple[Histories, Histories, Histories, int, int]

DRAWN = 100
CUTOFFS = (1, 5, 10)


class SASRec(nn.Module):
    """The authors' backbone with fresh weights; only its cost matters here."""

    def __init__(self, items: int, length: int = 50, hidden: int = 50, blocks: int = 2) -> None:
        super().__init__()
        self.item_emb = nn.Embedding(items + 1, hidden, padding_idx=0)
        self.pos_emb = nn.Embedding(length, hidden)
        self.query_norms = nn.ModuleList(nn.LayerNorm(hidden, 1e-8) for _ in range(blocks))
        self.attentions = nn.ModuleList(nn.MultiheadAttention(hidden, 1) for _ in range(blocks))
        self.norms = nn.ModuleList(nn.LayerNorm(hidden, 1e-8) for _ in range(blocks))
        self.first = nn.ModuleList(nn.Conv1d(hidden, hidden, 1) for _ in range(blocks))
        self.second = nn.ModuleList(nn.Conv1d(hidden, hidden, 1) for _ in range(blocks))
        self.last_norm = nn.LayerNorm(hidden, 1e-8)

    def forward(self, sequences: torch.Tensor) -> torch.Tensor:
        """Returns features `[B, L, H]` of ids `[B, L]`."""
        length, hidden = self.pos_emb.weight.shape
        kept = (sequences != 0)[:, :, None]
        x = self.item_emb(sequences) * math.sqrt(hidden) + self.pos_emb.weight
        x = x * kept
        causal = torch.ones(length, length, dtype=torch.bool).triu(1)
        layers = zip(
            self.query_norms, self.attentions, self.norms, self.first, self.second, strict=True
        )
        for query_norm, attention, norm, first, second in layers:
            x = x.transpose(0, 1)
            query = query_norm(x)
            x = query + attention(query, x, x, attn_mask=causal, need_weights=False)[0]
            x = norm(x.transpose(0, 1))
            x = x + second(first(x.transpose(1, 2)).relu()).transpose(1, 2)
            x = x * kept
        return self.last_norm(x)

    def predict(self, sequences: np.ndarray, items: np.ndarray) -> torch.Tensor:
        """Returns scores `[B, C]` of items `[C]`."""
        features = self(torch.LongTensor(sequences))[:, -1, :]
        table = self.item_emb(torch.LongTensor(items))
        return table.matmul(features.unsqueeze(-1)).squeeze(-1)


def evaluate(
    model: SASRec, dataset: Dataset, length: int = 50
) -> tuple[dict[str, float], list[int], list[list[int]]]:
    """Returns the sampled metrics on the test items, and each user's rank and candidates."""
    train, valid, test, users, items = copy.deepcopy(dataset)
    hits = dict.fromkeys(CUTOFFS, 0.0)
    gains = dict.fromkeys(CUTOFFS, 0.0)
    ranks, drawn, counted = [], [], 0.0
    chosen = random.sample(range(1, users + 1), 10_000) if users > 10_000 else range(1, users + 1)
    for user in chosen:
        if len(train[user]) < 1 or len(test[user]) < 1:
            continue
        sequence = np.zeros([length], dtype=np.int32)
        place = length - 1
        sequence[place] = valid[user][0]
        place -= 1
        for item in reversed(train[user]):
            sequence[place] = item
            place -= 1
            if place == -1:
                break
        rated = set(train[user])
        rated.add(0)
        candidates = [test[user][0]]
        for _ in range(DRAWN):
            item = np.random.randint(1, items + 1)
            while item in rated:
                item = np.random.randint(1, items + 1)
            candidates.append(item)
        predictions = -model.predict(np.array([sequence]), np.array(candidates))
        predictions = predictions[0]
        rank = predictions.argsort().argsort()[0].item()
        counted += 1
        for k in CUTOFFS:
            if rank < k:
                gains[k] += 1 / np.log2(rank + 2)
                hits[k] += 1
        ranks.append(rank)
        drawn.append(candidates)
    metrics = {f"HR@{k}": hits[k] / counted for k in CUTOFFS}
    metrics |= {f"NDCG@{k}": gains[k] / counted for k in CUTOFFS}
    return metrics, ranks, drawn
