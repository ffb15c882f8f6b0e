"""The bookkeeping of the UFNRec authors, written for timing.

Same steps, same data structures and same cost as their `hard_neg_sample`, `update_hard_negs`
and label loop, in our words: dictionaries with tuples as keys, arrays read one number at a time.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch

Coordinates = list[tuple[int, int, int]]


class AuthorsMemory:
    """Hard negatives per (user, position) and counts per (user, position, item)."""

    def __init__(self, threshold: int) -> None:
        self.threshold = threshold
        self.hard: dict[tuple[int, int], list[int]] = {}
        self.counts: dict[tuple[int, int, int], int] = {}

    def inject(self, users: Any, positives: Any, negatives: Any) -> Coordinates:
        """Writes stored negatives over the first slots; returns those above the threshold."""
        found = []
        for row in range(len(users)):
            position = len(positives[row]) - 1
            while position >= 0 and positives[row][position] != 0:
                if (users[row], position) in self.hard:
                    stored = self.hard[(users[row], position)]
                    for slot in range(len(stored)):
                        item = stored[slot]
                        negatives[row][position][slot] = item
                        key = (users[row], position, item)
                        if key in self.counts:
                            self.counts[key] += 1
                        else:
                            self.counts[key] = 1
                        if self.counts[key] > self.threshold:
                            found.append((row, position, slot))
                position -= 1
        return found

    def label(self, shape: tuple[int, ...], found: Coordinates) -> torch.Tensor:
        """Returns the labels of the negatives, written one by one."""
        labels = torch.zeros(shape)
        for row, position, slot in found:
            labels[row, position, slot] = 1
        return labels

    def observe(
        self, users: Any, positives: Any, negatives: Any, logits: Any, labels: torch.Tensor
    ) -> None:
        """Stores the negatives that scored above the positive and have not the label 1."""
        reversed_ = labels.numpy()
        for row in range(len(users)):
            position = len(positives[row]) - 1
            while position >= 0 and positives[row][position] != 0:
                stored = []
                for slot in range(len(negatives[row][position])):
                    if (
                        logits[row][position][slot + 1] > logits[row][position][0]
                        and reversed_[row][position][slot] != 1
                    ):
                        item = negatives[row][position][slot]
                        stored.append(deepcopy(item))
                self.hard[(users[row], position)] = stored
                position -= 1
