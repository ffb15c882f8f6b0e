"""Choice of candidates and self-BLEU as Bridge-Gap Diffusion's authors do it, written for timing.

Same steps and same cost as their evaluator, in our words: NLTK's `sentence_bleu` for each pair of
texts, which are split each time, in a matrix whose diagonal becomes zero at the end; and self-BLEU
of each output against a list of all others, for each n anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np


def choose(candidates: Sequence[str]) -> int:
    """Returns the index of the candidate that the others agree with most."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    scores: list[list[Any]] = [[] for _ in candidates]
    for row, text in zip(scores, candidates, strict=True):
        for other in candidates:
            method = SmoothingFunction().method4
            row.append(sentence_bleu([other.split()], text.split(), smoothing_function=method))
    for place, row in enumerate(scores):
        row[place] = 0
    return int(np.argmax(np.sum(scores, -1)))


def self_bleu(texts: Sequence[Sequence[str]], rows: Sequence[int], order: int) -> float:
    """Returns the sum of BLEU-`order` of some texts, each against all others."""
    from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

    weights = (1 / order,) * order
    method = SmoothingFunction().method1
    total = 0.0
    for row in rows:
        others = [*texts[:row], *texts[row + 1 :]]
        total += sentence_bleu(others, texts[row], weights, method)
    return total
