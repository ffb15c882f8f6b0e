"""The UFNRec authors' evaluator, written for timing.

Same steps, same data structures and same cost as their script, in our words: one user at a
time, 100 drawn items beside the target, the whole data set copied at each call.
"""

from __future__ import annotations

import copy
import random

import numpy as np

from authors_training import SASRec

# Train, validation and test items of each user, from 1, and the numbers of users and items.
Histories = dict[int, list[int]]
Dataset = tuple[Histories, Histories, Histories, int, int]

DRAWN = 100
CUTOFFS = (1, 5, 10)


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
        position = length - 1
        sequence[position] = valid[user][0]
        position -= 1
        for item in reversed(train[user]):
            sequence[position] = item
            position -= 1
            if position == -1:
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
