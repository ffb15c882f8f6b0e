"""The training step of the UFNRec authors and its model, written for timing.

Same steps, same data structures and same cost as their script, in our words: whole windows,
embeddings gathered for every candidate, labels written one by one, and a teacher that is the
student with other weights, run on the whole batch with a graph that is thrown away.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from authors_memory import AuthorsMemory, Coordinates
from authors_recsys import draw_batch


class FeedForward(nn.Module):
    """Two convolutions of width 1 with a residual."""

    def __init__(self, size: int, dropout: float) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(size, size, 1), nn.Conv1d(size, size, 1)
        self.dropout1, self.dropout2 = nn.Dropout(dropout), nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """Returns `[B, L, H]`."""
        inner = self.dropout1(self.conv1(x.transpose(-1, -2))).relu()
        return x + self.dropout2(self.conv2(inner)).transpose(-1, -2)


class SASRec(nn.Module):
    """Their backbone; the names of its weights are those of `lmcore.recsys.SASRecModel`."""

    def __init__(
        self, items: int, length: int = 50, size: int = 50, blocks: int = 2, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.item_emb = nn.Embedding(items + 1, size, padding_idx=0)
        self.pos_emb = nn.Embedding(length, size)
        self.emb_dropout = nn.Dropout(dropout)
        layers = range(blocks)
        self.attention_layernorms = nn.ModuleList(nn.LayerNorm(size, 1e-8) for _ in layers)
        self.attention_layers = nn.ModuleList(
            nn.MultiheadAttention(size, 1, dropout) for _ in layers
        )
        self.forward_layernorms = nn.ModuleList(nn.LayerNorm(size, 1e-8) for _ in layers)
        self.forward_layers = nn.ModuleList(FeedForward(size, dropout) for _ in layers)
        self.last_layernorm = nn.LayerNorm(size, 1e-8)

    def find_features(self, sequences: Any) -> Tensor:
        """Returns features `[B, L, H]` of numpy ids `[B, L]`."""
        x = self.item_emb(torch.LongTensor(sequences)) * math.sqrt(self.item_emb.embedding_dim)
        positions = np.tile(np.arange(sequences.shape[1]), [sequences.shape[0], 1])
        x = self.emb_dropout(x + self.pos_emb(torch.LongTensor(positions)))
        padding = torch.BoolTensor(sequences == 0)
        x = x * ~padding.unsqueeze(-1)
        length = x.shape[1]
        causal = ~torch.tril(torch.ones((length, length), dtype=torch.bool))
        for query_norm, attention, norm, forward in zip(
            self.attention_layernorms,
            self.attention_layers,
            self.forward_layernorms,
            self.forward_layers,
            strict=True,
        ):
            x = x.transpose(0, 1)
            query = query_norm(x)
            x = (query + attention(query, x, x, attn_mask=causal)[0]).transpose(0, 1)
            x = forward(norm(x)) * ~padding.unsqueeze(-1)
        features: Tensor = self.last_layernorm(x)
        return features

    def forward(self, sequences: Any, positives: Any, negatives: Any) -> Tensor:
        """Returns the logits `[B, L, 1 + N]`."""
        features = self.find_features(sequences)
        positive = self.item_emb(torch.LongTensor(positives))
        negative = self.item_emb(torch.LongTensor(negatives))
        own = (features * positive).sum(-1, keepdim=True)
        return torch.cat([own, (features.unsqueeze(2) * negative).sum(-1)], -1)

    def predict(self, sequences: Any, items: Any) -> Tensor:
        """Returns scores `[B, C]` of items `[C]` after the last position."""
        features = self.find_features(sequences)[:, -1, :]
        table = self.item_emb(torch.LongTensor(items))
        return table.matmul(features.unsqueeze(-1)).squeeze(-1)


class AuthorsStep:
    """Their training step.

    Args:
        model: the student.
        train: train items of each user, from 1.
        items: I.
        threshold: m.
        alpha: weight of the consistency term.
        decay: limit of the teacher's ramp.
        sizes: B, L and N.
    """

    def __init__(
        self,
        model: SASRec,
        train: dict[int, list[int]],
        items: int,
        *,
        threshold: int = 5,
        alpha: float = 0.3,
        decay: float = 0.999,
        sizes: tuple[int, int, int] = (128, 50, 100),
    ) -> None:
        self.model, self.train, self.items, self.sizes = model, train, items, sizes
        self.alpha, self.decay = alpha, decay
        self.optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, betas=(0.9, 0.98))
        self.loss = nn.BCEWithLogitsLoss()
        self.memory = AuthorsMemory(threshold)
        self.mining = False
        self.averages: list[Tensor] | None = None
        self.updates = 0
        self.reversed: Coordinates = []

    def draw_and_step(self) -> Tensor:
        """Returns the loss of a batch that is drawn by their sampler, in this process."""
        batch = draw_batch(self.train, len(self.train), self.items, *self.sizes)
        return self.step(*(np.array(part) for part in batch))

    def step(self, users: Any, sequences: Any, positives: Any, negatives: Any) -> Tensor:
        """Returns the loss of a batch; negatives are written in position."""
        found = self.reversed = self.memory.inject(users, positives, negatives)
        logits = self.model(sequences, positives, negatives)
        taught = None
        if self.mining and self.averages is None:
            self.averages = [p.detach().clone() for p in self.model.parameters()]
        elif self.averages is not None:
            taught = self._teach(sequences, positives, negatives).detach()
        reversed_ = self.memory.label(negatives.shape, found)
        labels = torch.cat([torch.ones(*positives.shape, 1), reversed_], -1)
        held = np.where(positives != 0)
        loss = 2 * self.loss(logits[held], labels[held])
        if taught is not None and found:
            rows, positions, slots = zip(*found, strict=True)
            chosen = (list(rows), list(positions), [slot + 1 for slot in slots])
            loss = loss + self.alpha * self.loss(logits[chosen], taught[chosen].sigmoid())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        if self.averages is not None:
            self._average()
        if self.mining:
            self.memory.observe(users, positives, negatives, logits.detach().numpy(), reversed_)
        return loss.detach()

    def _teach(self, sequences: Any, positives: Any, negatives: Any) -> Tensor:
        """Returns the logits of the average weights, which take the student's position for it."""
        assert self.averages is not None
        own = [p.detach().clone() for p in self.model.parameters()]
        for parameter, average in zip(self.model.parameters(), self.averages, strict=True):
            parameter.data.copy_(average)
        logits: Tensor = self.model(sequences, positives, negatives)
        for parameter, value in zip(self.model.parameters(), own, strict=True):
            parameter.data.copy_(value)
        return logits

    @torch.no_grad()
    def _average(self) -> None:
        assert self.averages is not None
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for average, parameter in zip(self.averages, self.model.parameters(), strict=True):
            average.sub_((1 - decay) * (average - parameter))
